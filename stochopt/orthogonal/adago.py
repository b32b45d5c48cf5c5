"""AdaGO: AdaGrad step sizes on orthogonalized momentum."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import check_range
from stochopt._schedules import value_at
from stochopt.orthogonal import matrices
from stochopt.orthogonal.buckets import Distribution, map_matrices
from stochopt.orthogonal.newton_schulz import Orthogonalizer, newton_schulz
from stochopt.orthogonal.partition import with_adamw


class ScaleByAdagoState(NamedTuple):
    """State of :func:`scale_by_adago`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    mu: optax.Updates  # momentum, like params
    accumulator: optax.Updates  # a float32 (or wider) number per matrix, shape = batch axes
    step_size: optax.Updates  # the last step size of each matrix, like accumulator


def scale_by_adago(
    learning_rate: optax.ScalarOrSchedule = 0.05,
    *,
    momentum: jax.typing.ArrayLike = 0.95,
    max_gradient_norm: jax.typing.ArrayLike = 10.0,
    min_step_size: jax.typing.ArrayLike = 5e-4,
    initial_accumulator: jax.typing.ArrayLike = 1e-3,
    orthogonalize: Orthogonalizer | None = None,
    distribute: Distribution | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
    weight_dimension_numbers: matrices.DimensionNumbers | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Orthogonalized momentum, scaled by AdaGO's step size.

    For every matrix :math:`\Theta` with gradient :math:`G_t`, learning rate :math:`\eta_t`,
    momentum :math:`\mu`, clip :math:`\gamma` (``max_gradient_norm``), floor :math:`\varepsilon`
    (``min_step_size``) and :math:`v_0` (``initial_accumulator``), from :math:`M_0 = 0` and
    :math:`V_0 = v_0^2`:

    .. math::

       c_t &= \min(\|G_t\|_F, \gamma) \\
       M_t &= \mu M_{t-1} + (1 - \mu) G_t \\
       V_t &= V_{t-1} + c_t^2 \\
       a_t &= \max\left(\varepsilon, \eta_t \, c_t / \sqrt{V_t}\right) \\
       U_t &= a_t \, \mathrm{Orth}(M_t)

    The result :math:`U_t` already contains the learning rate, which stands inside the maximum;
    subtract it with ``optax.scale(-1.0)``. Since :math:`c_t \le \sqrt{V_t}`, the step obeys
    :math:`\varepsilon \le a_t \le \max(\varepsilon, \eta_t)`. While every gradient is clipped
    :math:`a_t \approx \eta / \sqrt{t}` whatever :math:`\gamma` is: adaptivity needs a clip above
    the typical gradient norm.

    Args:
      learning_rate: :math:`\eta > 0`, a number or a schedule of the step count from 0.
      momentum: :math:`\mu` in [0, 1), the weight on the old momentum.
      max_gradient_norm: :math:`\gamma > 0`, in units of the gradient's Frobenius norm.
      min_step_size: :math:`\varepsilon \ge 0`, a floor on the step size (0 turns it off), in the
        units of ``learning_rate``.
      initial_accumulator: :math:`v_0 > 0`, in units of the gradient norm; stored squared.
      orthogonalize: function from a batch of matrices ``(..., m, n)`` to their polar factors.
        ``None`` means :func:`stochopt.orthogonal.newton_schulz`;
        :func:`stochopt.orthogonal.svd_polar` is exact.
      distribute: mesh axis over which to spread the matrices of equal shape, each device
        orthogonalizing its share; or a ``NamedSharding`` with that axis first. Not inside
        ``jax.shard_map``, where each device has its own matrices only.
      mu_dtype: dtype of the momentum; ``None`` takes the parameter's.
      weight_dimension_numbers: a tree of ``optax.contrib.MuonDimensionNumbers``, or a function
        from ``params`` to one; ``None`` means that every leaf is two-dimensional. Axes that are
        neither reduction nor output axes are batch axes: each matrix along them has a momentum, a
        norm and a step size of its own.

    Returns:
      The transformation. Its state holds ``step_size``, the step size of each matrix.

    Raises:
      ValueError: a hyper-parameter is out of range, or a leaf is not a matrix.

    References:
      Zhang et al., `AdaGrad Meets Muon: Adaptive Stepsizes for Orthogonal Updates
      <https://arxiv.org/abs/2509.02981>`_, 2025
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    check_range("momentum", momentum, "[0, 1)")
    check_range("max_gradient_norm", max_gradient_norm, "(0, inf)")
    check_range("min_step_size", min_step_size, "[0, inf)")
    check_range("initial_accumulator", initial_accumulator, "(0, inf)")
    polar = newton_schulz if orthogonalize is None else orthogonalize

    def axes_of(tree: Any) -> list[matrices.MatrixAxes]:
        return matrices.axes_of("scale_by_adago", weight_dimension_numbers, tree)

    def init_fn(params: optax.Params) -> ScaleByAdagoState:
        leaves, treedef = jax.tree.flatten(params)

        # Reduced from zeros of the leaf, so that batch axes keep the leaf's layout on a mesh.
        def per_matrix(leaf: Any, axes: matrices.MatrixAxes) -> jax.Array:
            zeros = jnp.zeros_like(leaf, dtype=_tree.scalar_dtype(leaf))
            return jnp.sum(zeros, axis=axes.matrix)

        zeros = [per_matrix(*pair) for pair in zip(leaves, axes_of(params), strict=True)]
        start = [z + jnp.square(jnp.asarray(initial_accumulator, z.dtype)) for z in zeros]
        return ScaleByAdagoState(
            count=jnp.zeros([], jnp.int32),
            mu=optax.tree.zeros_like(params, dtype=mu_dtype),
            accumulator=jax.tree.unflatten(treedef, start),
            step_size=jax.tree.unflatten(treedef, zeros),
        )

    def update_fn(
        updates: optax.Updates,
        state: ScaleByAdagoState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByAdagoState]:
        del params, extra_args
        matrices.warn_of_tables("scale_by_adago", updates)
        rate = value_at(learning_rate, state.count)

        mu = _tree.moving_average(state.mu, updates, momentum)

        @jax.jit  # traced once for all matrices
        def grow(squared_norm: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
            clipped = jnp.minimum(jnp.sqrt(squared_norm), max_gradient_norm).astype(v.dtype)
            v = v + jnp.square(clipped)
            size = jnp.maximum(min_step_size, rate * clipped / jnp.sqrt(v)).astype(v.dtype)
            return v, size

        def step_size(g: jax.Array, v: jax.Array, axes: matrices.MatrixAxes) -> Any:
            return grow(_tree.dot(g, g, v.dtype, axes.matrix), v)

        def step(size: jax.Array, direction: Any, g: jax.Array, axes: matrices.MatrixAxes) -> Any:
            return _tree.scale(jnp.expand_dims(size, axes.matrix), direction).astype(g.dtype)

        grads, treedef = jax.tree.flatten(updates)
        axes = axes_of(updates)
        sized = list(map(step_size, grads, jax.tree.leaves(state.accumulator), axes))
        accumulators, sizes = ([pair[k] for pair in sized] for k in (0, 1))
        directions = map_matrices(polar, jax.tree.leaves(mu), axes, distribute)
        update, accumulator, step_sizes = (
            jax.tree.unflatten(treedef, column)
            for column in (map(step, sizes, directions, grads, axes), accumulators, sizes)
        )
        count = optax.safe_increment(state.count)
        return update, ScaleByAdagoState(count, mu, accumulator, step_sizes)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def adago(
    learning_rate: optax.ScalarOrSchedule = 0.05,
    *,
    momentum: jax.typing.ArrayLike = 0.95,
    max_gradient_norm: jax.typing.ArrayLike = 10.0,
    min_step_size: jax.typing.ArrayLike = 5e-4,
    initial_accumulator: jax.typing.ArrayLike = 1e-3,
    orthogonalize: Orthogonalizer | None = None,
    distribute: Distribution | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
    weight_decay: jax.typing.ArrayLike = 0.0,
    weight_decay_mask: Any = None,
    weight_dimension_numbers: matrices.DimensionNumbers | None = None,
    adam_learning_rate: optax.ScalarOrSchedule = 3e-4,
    adam_b1: jax.typing.ArrayLike = 0.9,
    adam_b2: jax.typing.ArrayLike = 0.95,
    adam_eps: jax.typing.ArrayLike = 1e-10,
    adam_weight_decay: jax.typing.ArrayLike = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""AdaGO on matrices, AdamW on everything else.

    Matrices move by :math:`\Theta \leftarrow \Theta - a_t \mathrm{Orth}(M_t) - \eta_t \lambda
    \Theta` with the step size :math:`a_t` of :func:`stochopt.orthogonal.scale_by_adago` and
    decoupled weight decay :math:`\lambda`; biases, gains and every other leaf move by AdamW with
    a learning rate of its own. Embeddings and output heads are matrices by shape but not by
    nature: AdamW takes them if their names tell.

    Args:
      learning_rate: :math:`\eta`, a number or a schedule.
      momentum: weight on the old momentum, in [0, 1).
      max_gradient_norm: clip :math:`\gamma > 0` on the gradient norm that enters the step size.
      min_step_size: floor :math:`\varepsilon \ge 0` on the step size.
      initial_accumulator: :math:`v_0 > 0`.
      orthogonalize: function from a batch of matrices to their polar factors; ``None`` means
        Newton-Schulz. Under ``optax.inject_hyperparams`` name it in ``static_args``.
      distribute: mesh axis over which to spread the matrices of equal shape, each device
        orthogonalizing its share; or a ``NamedSharding`` with that axis first. Not inside
        ``jax.shard_map``, where each device has its own matrices only.
      mu_dtype: dtype of both first moments; ``None`` takes the parameter's.
      weight_decay: :math:`\lambda \ge 0` for the matrices.
      weight_decay_mask: tree of booleans, or a function from ``params`` to one, saying which
        leaves decay.
      weight_dimension_numbers: tree of ``optax.contrib.MuonDimensionNumbers`` with ``None`` at
        leaves that AdamW takes, or a function from ``params`` to one; ``None`` means
        :func:`stochopt.orthogonal.hidden_matrices`, which leaves out embeddings and heads.
      adam_learning_rate: AdamW's learning rate, a number or a schedule.
      adam_b1: AdamW's first decay rate.
      adam_b2: AdamW's second decay rate.
      adam_eps: AdamW's denominator guard.
      adam_weight_decay: AdamW's decoupled decay.

    Returns:
      The optimizer.

    Raises:
      ValueError: a hyper-parameter is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, stochopt
      >>> loss = lambda w: jnp.sum((w - jnp.eye(2)) ** 2)
      >>> optimizer = stochopt.adago(learning_rate=1.0)
      >>> params = jnp.full((2, 2), 3.0)
      >>> state = optimizer.init(params)
      >>> for _ in range(5):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(f"{loss(params):.2f}")
      18.34
      14.64
      12.68
      10.73
      8.81

    References:
      Zhang et al., `AdaGrad Meets Muon: Adaptive Stepsizes for Orthogonal Updates
      <https://arxiv.org/abs/2509.02981>`_, 2025
    """
    check_range("weight_decay", weight_decay, "[0, inf)")
    rule = matrices.or_hidden(weight_dimension_numbers)
    decay = (
        (lambda count: learning_rate(count) * weight_decay)
        if callable(learning_rate)
        else learning_rate * weight_decay
    )
    matrix_step = optax.chain(
        scale_by_adago(
            learning_rate,
            momentum=momentum,
            max_gradient_norm=max_gradient_norm,
            min_step_size=min_step_size,
            initial_accumulator=initial_accumulator,
            orthogonalize=orthogonalize,
            distribute=distribute,
            mu_dtype=mu_dtype,
            weight_dimension_numbers=rule,
        ),
        optax.add_decayed_weights(decay, weight_decay_mask),
        optax.scale(-1.0),
        optax.stateless(optax.tree.cast_like),  # a scheduled decay is float32 whatever the leaf
    )
    return with_adamw(
        "adago",
        matrix_step,
        rule,
        mu_dtype=mu_dtype,
        weight_decay_mask=weight_decay_mask,
        adam_learning_rate=adam_learning_rate,
        adam_b1=adam_b1,
        adam_b2=adam_b2,
        adam_eps=adam_eps,
        adam_weight_decay=adam_weight_decay,
    )
