"""The problem object: oracles by name, metrics, and what is known of the solution."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from stochopt.blocks.partition import Partition
from stochopt.proximal import DualMap

Params = Any
Batch = Any

#: Functions of a :class:`Problem` that a method may need.
ORACLES = (
    "loss",
    "full_loss",
    "partition",
    "inner",
    "outer",
    "embed",
    "upper",
    "lower",
    "residuals",
    "loss_prox",
    "smooth",
    "nonsmooth",
    "cheap",
    "operator",
    "dual",
    "proxy",
    "predict",
    "target_loss",
    "linear_minimizer",
    "log_density",
    "log_noise_density",
    "sample_noise",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    r"""A stochastic optimization problem. It knows no solver.

    All functions are pure and can be transformed by JAX. Oracles that a problem does not have are
    ``None``.

    Attributes:
      name: what the command line calls it.
      summary: one line.
      init: ``init(key) -> params``, a starting point.
      sample: ``sample(key) -> batch``, one batch for one update.
      metrics: ``metrics(params) -> dict`` of scalars, exact or on fixed data.
      objective: the metric that methods minimize; it is drawn and compared.
      score: a second metric for tables, such as a test accuracy.
      target: the value of ``objective`` that counts as solved.
      loss: ``loss(params, batch) -> scalar``. Where ``inner`` and ``outer`` exist this is the naive
        plug-in loss ``outer(inner(params, batch), params, batch)``, whose gradient is biased.
      full_loss: ``full_loss(params) -> scalar`` of a finite sum, the mean of ``loss`` over all of
        its terms.
      num_batches: how many batches make up the full loss, rounded up.
      partition: ``partition(params) -> Blocks``, the blocks of the parameters that a method may
        move one after the other.
      inner: ``inner(params, batch) -> y``, the batch mean of an inner function; of a coupled
        problem, that of one block on its own batch.
      outer: ``outer(y, params, batch) -> scalar``; of a coupled problem, for one block.
      embed: ``embed(params, views) -> features`` of a contrastive problem, a vector for each view;
        its examples are the blocks, and what a batch holds of them is a pair of views.
      upper: ``upper(params, lower_params, batch) -> scalar`` of a bilevel problem, to be minimized
        over ``params`` with ``lower_params`` at the minimizer of ``lower``; where there are blocks,
        for one block and its own lower variable and batch, as ``lower`` is.
      lower: ``lower(params, lower_params, batch) -> scalar``, strongly convex in ``lower_params``
        in expectation.
      lower_params: a starting point of the lower variable, of one block where there are blocks.
      smooth: ``smooth(params, batch) -> scalar``, of a composite problem
        ``smooth + nonsmooth + simple`` the part with a Lipschitz gradient. ``loss`` is the sum.
      full_smooth: ``full_smooth(params) -> scalar`` of a composite finite sum, the mean of
        ``smooth`` over all of its terms.
      nonsmooth: ``nonsmooth(params, batch) -> scalar``, the part with subgradients only.
      cheap: ``cheap(params, batch) -> scalar``, of a composite problem ``smooth + cheap + simple``
        the part with a smooth gradient of its own.
      operator: ``operator(params) -> values``, affine, where the nonsmooth part is a function of
        its values, up to noise.
      dual: ``dual(values, smoothing) -> y``, the dual map of that function.
      prox: ``prox(params, step) -> params`` of the simple part.
      proxy: ``proxy(params, batch) -> scalar``, cheap and similar to ``loss``.
      predict: ``predict(params, batch) -> targets`` of a model whose ``loss`` is ``target_loss`` of
        its predictions.
      target_loss: ``target_loss(targets, batch) -> scalar``.
      linear_minimizer: ``linear_minimizer(slope) -> params`` of a problem on a compact convex set:
        a point of the set where the linear function is least. ``init`` starts in the set, and
        ``optimum`` is the minimizer on it.
      num_samples: how many samples each level of a finite-sum bilevel problem averages.
      sample_indices: ``sample_indices(batch) -> (i, j)`` of such a problem: the number of one
        sample below and of one above that a batch holds.
      num_blocks: :math:`n` of a coupled problem, the mean over :math:`n` blocks of
        ``outer(E inner)``, of the losses of examples, or of ``upper`` where each block has a lower
        problem of its own; of a finite sum, the number of its terms.
      blocks: ``blocks(batch) -> (block_indices, block_batch)`` of a coupled problem: which blocks a
        batch holds, and what it holds of each, with a leading axis over these blocks.
      residuals: ``residuals(params, batch) -> c``, a vector with a smooth entry for each example of
        a batch, whose mean absolute value is ``loss``.
      loss_prox: ``loss_prox(params, step, batch) -> params``, the proximal operator of ``step``
        times ``loss`` on a batch.
      data: ``data(batch)`` of a model given by ``log_density``: the observed points of a batch, on
        a leading axis.
      log_density: ``log_density(params, x) -> log p``, of one point, up to a constant.
      log_noise_density: ``log_noise_density(x) -> log q``, normalized, of one point.
      sample_noise: ``sample_noise(key) -> x``, one point drawn from q.
      levels: named values of ``objective`` worth a line in a picture, such as a predicted limit.
      optimum: a minimizer, where one is known.
      exact: name to ``function(params)``, the noiseless quantities that experiments compare with:
        ``"gradient"`` of the objective, or ``"subgradient"`` of one that is composite or on a
        set; ``"inner"``, the expectation of ``inner``; ``"lower"``, the minimizer of the expected
        ``lower``, and ``"adjoint"``, the inverse lower Hessian times the gradient of ``upper`` in
        the lower variable there; and whatever else a method of the problem's family estimates. Of a
        coupled problem, with a leading axis of ``num_blocks``.
      smoothness: :math:`L`, a Lipschitz constant of the exact gradient; of a composite problem,
        of that of its smooth part.
      block_smoothness: :math:`L_j`, that of the gradient in each block of ``partition``.
      cyclic_smoothness: :math:`(\hat L, \tilde L)` of the exact gradient, see
        :func:`stochopt.blocks.mahalanobis_constants`.
      sampled_cyclic_smoothness: the same of the gradients of single terms, in the mean square.
      strong_convexity: :math:`\mu` of the objective, or its Polyak-Lojasiewicz constant; of a
        composite problem, that of its simple part.
      cheap_smoothness: that of the gradient of ``cheap``.
      operator_norm: of ``operator``, in the norms of the dual map.
      subgradient_bound: :math:`M` with
        :math:`h(x) \le h(y) + \langle h'(y), x - y \rangle + M \|x - y\|` for the nonsmooth part
        :math:`h` without noise: twice its Lipschitz constant.
      noise: :math:`\sigma`, the root of :math:`E\|g_\xi(x) - \nabla F(x)\|^2` for the gradient of
        ``loss`` on one batch, where it does not depend on ``params``, or at the optimum.
    """

    name: str
    summary: str
    init: Callable[[jax.Array], Params]
    sample: Callable[[jax.Array], Batch]
    metrics: Callable[[Params], dict[str, jax.Array]]
    objective: str
    score: str | None = None
    target: float | None = None
    loss: Callable[[Params, Batch], jax.Array] | None = None
    full_loss: Callable[[Params], jax.Array] | None = None
    num_batches: int | None = None
    partition: Partition | None = None
    inner: Callable[[Params, Batch], Any] | None = None
    outer: Callable[[Any, Params, Batch], jax.Array] | None = None
    embed: Callable[[Params, Any], jax.Array] | None = None
    upper: Callable[[Params, Any, Batch], jax.Array] | None = None
    lower: Callable[[Params, Any, Batch], jax.Array] | None = None
    lower_params: Any = None
    smooth: Callable[[Params, Batch], jax.Array] | None = None
    full_smooth: Callable[[Params], jax.Array] | None = None
    nonsmooth: Callable[[Params, Batch], jax.Array] | None = None
    cheap: Callable[[Params, Batch], jax.Array] | None = None
    operator: Callable[[Params], Any] | None = None
    dual: DualMap | None = None
    prox: Callable[[Params, Any], Params] | None = None
    proxy: Callable[[Params, Batch], jax.Array] | None = None
    predict: Callable[[Params, Batch], Any] | None = None
    target_loss: Callable[[Any, Batch], jax.Array] | None = None
    linear_minimizer: Callable[[Params], Params] | None = None
    num_samples: int | None = None
    sample_indices: Callable[[Batch], tuple[jax.Array, jax.Array]] | None = None
    num_blocks: int | None = None
    blocks: Callable[[Batch], tuple[jax.Array, Batch]] | None = None
    residuals: Callable[[Params, Batch], jax.Array] | None = None
    loss_prox: Callable[[Params, Any, Batch], Params] | None = None
    data: Callable[[Batch], Any] | None = None
    log_density: Callable[[Params, Any], jax.Array] | None = None
    log_noise_density: Callable[[Any], jax.Array] | None = None
    sample_noise: Callable[[jax.Array], Any] | None = None
    levels: Mapping[str, float] = dataclasses.field(default_factory=dict)
    optimum: Params | None = None
    exact: Mapping[str, Callable[[Params], Any]] = dataclasses.field(default_factory=dict)
    smoothness: float | None = None
    block_smoothness: Any = None
    cyclic_smoothness: tuple[float, float] | None = None
    sampled_cyclic_smoothness: tuple[float, float] | None = None
    strong_convexity: float | None = None
    cheap_smoothness: float | None = None
    operator_norm: float | None = None
    subgradient_bound: float | None = None
    noise: float | None = None

    @property
    def inner_shape(self) -> Any:
        """Shapes and dtypes of the inner value (of one block), or ``None`` without an ``inner``."""
        inner, blocks = self.inner, self.blocks
        if inner is None:
            return None

        def value(key: jax.Array) -> Any:
            batch = self.sample(key)
            if blocks is not None:
                batch = jax.tree.map(lambda x: x[0], blocks(batch)[1])
            return inner(self.init(key), batch)

        return jax.eval_shape(value, jax.random.key(0))

    @property
    def num_sampled(self) -> int | None:
        """How many blocks a batch of a coupled problem holds, ``None`` of any other."""
        blocks = self.blocks
        if blocks is None:
            return None
        return len(jax.eval_shape(lambda key: blocks(self.sample(key))[0], jax.random.key(0)))

    @property
    def unregularized(self) -> Callable[[Params, Batch], jax.Array] | None:
        """``loss`` without the simple part: the one that goes with ``prox``."""
        if self.prox is None:
            return self.loss
        parts = [part for part in (self.smooth, self.nonsmooth) if part is not None]
        return lambda params, batch: sum(
            (part(params, batch) for part in parts), start=jnp.zeros([])
        )

    @property
    def full_unregularized(self) -> Callable[[Params], jax.Array] | None:
        """``full_loss`` without the simple part."""
        return self.full_loss if self.prox is None else self.full_smooth

    def missing(self, oracles: tuple[str, ...]) -> list[str]:
        """The names among ``oracles`` that this problem does not offer."""
        return [name for name in oracles if getattr(self, name) is None]
