"""SMB and SMBi: step sizes from a model built on a rejected trial step."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import check_range, require_extra, require_params, require_whole_tree
from stochopt.model_building.groups import GroupFn, Groups
from stochopt.model_building.model import independent_batch_step, same_batch_step
from stochopt.model_building.step_size import StepSizeRule

_TINY_GRADIENT = 1e-8  # a batch gradient below this norm always passes the test
_BLIND_SHRINKAGE = 0.1  # of the trial step, where the gradient at the trial point is not finite


class SmbState(NamedTuple):
    """State of :func:`smb`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    num_gradients: jax.Array  # gradient evaluations so far; shape=(), dtype=int32
    num_model_steps: jax.Array  # in the running adjustment period; shape=(), dtype=int32
    adjustment: jax.Array  # factor on the learning rate; shape=(), float32 or wider
    step_size: jax.Array  # of the last trial step; shape=(), float32 or wider


class SmbIndependentState(NamedTuple):
    """State of :func:`smb_independent`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    num_gradients: jax.Array  # gradient evaluations so far; shape=(), dtype=int32
    num_model_steps: jax.Array  # in the running adjustment period; shape=(), dtype=int32
    adjustment: jax.Array  # factor on the learning rate; shape=(), float32 or wider
    step_size: jax.Array  # of the last trial step; shape=(), float32 or wider
    pending: jax.Array  # whether the last trial step was rejected; shape=(), dtype=bool
    rejected_gradient: optax.Updates  # the gradient of that trial step, like params


def _count(counter: jax.Array, happened: jax.Array) -> jax.Array:
    return jnp.where(happened, optax.safe_increment(counter), counter)


def _first_fields(params: Any) -> dict[str, jax.Array]:
    """The fields that both states begin with; no two share a buffer."""
    dtype = _tree.scalar_dtype(*jax.tree.leaves(params))
    counters = ("count", "num_gradients", "num_model_steps")
    return {
        **{name: jnp.zeros([], jnp.int32) for name in counters},
        "adjustment": jnp.ones([], dtype),
        "step_size": jnp.zeros([], dtype),
    }


def _bind(value_fn: Callable[..., Any], extra_args: dict[str, Any]) -> Callable[[Any], jax.Array]:
    """``value_fn`` of ``params`` alone; its other arguments are looked up in ``extra_args``."""
    parameters = list(inspect.signature(value_fn).parameters.values())[1:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        kwargs = extra_args
    else:
        kwargs = {p.name: extra_args[p.name] for p in parameters if p.name in extra_args}
    return lambda params: value_fn(params, **kwargs)


class _Trial(NamedTuple):
    """The trial step of one call and what it found; ``gradient()`` is evaluated on demand."""

    step: Any
    value: jax.Array
    gradient: Callable[[], Any]


def _try_step(
    value_fn: Callable[[Any], jax.Array], params: Any, g: Any, alpha: jax.Array
) -> _Trial:
    step = jax.tree.map(lambda x: _tree.scale(-alpha, x), g)
    value, pullback = jax.vjp(value_fn, optax.apply_updates(params, step))

    def gradient() -> Any:
        (cotangent,) = pullback(jnp.ones_like(value))
        return jax.tree.map(lambda c, x: jnp.conj(c).astype(x.dtype), cotangent, g)

    return _Trial(step, value, gradient)


def _accept(
    sufficient_decrease: Any,
    alpha: jax.Array,
    value: Any,
    trial_value: jax.Array,
    g_squared: jax.Array,
) -> jax.Array:
    """Armijo's test on the whole tree; a trial value that is not a number fails it."""
    total = jnp.sum(g_squared)
    enough = sufficient_decrease * alpha * total
    decreased = trial_value.astype(alpha.dtype) <= jnp.asarray(value, alpha.dtype) - enough
    return decreased | (total < _TINY_GRADIENT**2)


def _finite_or_blind(groups: Groups, y_norm: jax.Array, alpha: jax.Array, step: Any, h: Any) -> Any:
    """``step``, but a short gradient step along ``-h`` where the trial gradient is not finite."""
    blind = groups.combine((jnp.full_like(y_norm, -_BLIND_SHRINKAGE * alpha), h))
    return groups.where(jnp.isfinite(y_norm), step, blind)


def smb(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    eta: jax.typing.ArrayLike = 0.99,
    sufficient_decrease: jax.typing.ArrayLike = 0.1,
    adjust_every: int | None = None,
    adjust_fraction: jax.typing.ArrayLike = 0.05,
    adjust_factor: jax.typing.ArrayLike = 0.9,
    max_learning_rate: jax.typing.ArrayLike = 20.0,
    group_fn: GroupFn | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Stochastic model building: when a step is too long, model the curvature it met.

    One ``update`` tries the gradient step :math:`s = -\alpha g` on the batch that gave
    :math:`g`. If the batch loss falls enough,

    .. math::

       F(x + s) \le F(x) - c \, \alpha \|g\|^2,

    the trial step is taken. Otherwise the gradient at the trial point gives
    :math:`y = g(x + s) - g(x)` and each leaf, or group of leaves, moves by the minimizer of a
    quadratic model,

    .. math::

       s_+ = -\alpha \eta \left( \frac{1 + \rho}{2} g + \eta \rho \, y \right),
       \qquad \rho = \frac{\|g\|}{\|g\| + 2 \eta \|y\|},

    which equals the published step (see :mod:`stochopt.model_building.model`) without its
    cancellation. It is a descent direction with :math:`\|s_+\| \le \eta \|s\|`; there is no
    second test. A trial loss that is not a number counts as rejected, and a group whose gradient
    is not finite at the trial point moves by :math:`-0.1 \alpha g`.

    **Extra arguments of** ``update``: ``value``, the batch loss at ``params``; ``value_fn``, a
    function of ``params`` that evaluates the *same* batch with the same random key (further
    arguments are taken by name from the keyword arguments of ``update``); ``grad``, optional: the
    gradient, when an earlier transformation has changed ``updates`` (which are then not used).
    Place SMB first. Layers with state (batch statistics) must not update it in ``value_fn``.

    The returned updates are signed and scaled: do not append ``scale_by_learning_rate``. One
    update costs one more forward pass than gradient descent, and one more backward pass when the
    trial step is rejected; ``num_gradients`` counts gradients. Call ``update`` under ``jit``: the
    evaluation of ``value_fn`` is traced anew on every eager call. Do not put SMB inside
    ``optax.MultiSteps``, where ``value_fn`` would see the last micro-batch only.

    Args:
      learning_rate: trial step size :math:`\alpha \ge 0`, a number or a schedule.
      eta: :math:`\eta` in (0, 1), bounds the model step.
      sufficient_decrease: :math:`c` in (0, 1) of Armijo's test.
      adjust_every: period, in updates, of the automatic step size, usually an epoch. After each
        period the step size shrinks by ``adjust_factor`` if more than ``adjust_fraction`` of its
        steps were model steps, and else grows by it. ``None`` turns this off.
      adjust_fraction: tolerated fraction of model steps, in [0, 1].
      adjust_factor: in (0, 1).
      max_learning_rate: the step size never grows above it.
      group_fn: function from a leaf's key path (as in ``jax.tree_util``) to a label; leaves with
        one label share one model. ``None`` builds a model for each leaf. Under
        ``optax.inject_hyperparams`` name it in ``static_args``.

    Returns:
      The optimizer. Its state holds ``step_size`` and ``num_gradients``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``value`` or no ``value_fn``.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, stochopt
      >>> f = lambda x: jnp.sum(x ** 2)
      >>> optimizer = stochopt.smb(learning_rate=10.0)
      >>> params = jnp.array([1., 2., 3.])
      >>> state = optimizer.init(params)
      >>> @jax.jit
      ... def step(params, state):
      ...     value, grad = jax.value_and_grad(f)(params)
      ...     updates, state = optimizer.update(grad, state, params, value=value, value_fn=f)
      ...     return optax.apply_updates(params, updates), state
      >>> for _ in range(5):
      ...     params, state = step(params, state)
      ...     print(f"{f(params):.2e}")

    References:
      Birbil et al., `Bolstering Stochastic Gradient Descent with Model Building
      <https://arxiv.org/abs/2111.07058>`_, TOP 2024
    """
    rule = StepSizeRule(
        learning_rate, adjust_every, adjust_fraction, adjust_factor, max_learning_rate
    )
    rule.check()
    check_range("eta", eta, "(0, 1)")
    check_range("sufficient_decrease", sufficient_decrease, "(0, 1)")

    def init_fn(params: optax.Params) -> SmbState:
        return SmbState(**_first_fields(params))

    def update_fn(
        updates: optax.Updates,
        state: SmbState,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        value_fn: Any = None,
        grad: optax.Updates | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SmbState]:
        require_params("smb", params)
        require_whole_tree("smb", params)
        require_extra("smb", "value", value, "value=loss, value_fn=loss_fn")
        require_extra("smb", "value_fn", value_fn, "value=loss, value_fn=loss_fn")
        g = updates if grad is None else grad
        alpha = rule.current(state.count, state.adjustment)
        groups = Groups(g, group_fn, alpha.dtype)
        g_squared = groups.dot(g, g)
        trial = _try_step(_bind(value_fn, extra_args), params, g, alpha)
        accepted = _accept(sufficient_decrease, alpha, value, trial.value, g_squared)

        def model_step() -> optax.Updates:
            y = optax.tree.sub(trial.gradient(), g)
            y_norm = jnp.sqrt(groups.dot(y, y))
            on_g, on_y = same_batch_step(alpha, eta, jnp.sqrt(g_squared), y_norm)
            return _finite_or_blind(groups, y_norm, alpha, groups.combine((on_g, g), (on_y, y)), g)

        step = jax.lax.cond(accepted, lambda: trial.step, model_step)
        num_model_steps = _count(state.num_model_steps, ~accepted)
        adjustment, num_model_steps = rule.adjust(
            state.count, state.adjustment, num_model_steps, steps_per_model_step=1
        )
        return step, SmbState(
            count=optax.safe_increment(state.count),
            num_gradients=_count(optax.safe_increment(state.num_gradients), ~accepted),
            num_model_steps=num_model_steps,
            adjustment=adjustment,
            step_size=alpha,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def smb_independent(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    eta: jax.typing.ArrayLike = 0.99,
    sufficient_decrease: jax.typing.ArrayLike = 0.1,
    adjust_every: int | None = None,
    adjust_fraction: jax.typing.ArrayLike = 0.05,
    adjust_factor: jax.typing.ArrayLike = 0.9,
    max_learning_rate: jax.typing.ArrayLike = 20.0,
    group_fn: GroupFn | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SMBi: stochastic model building with independent batches.

    As :func:`smb`, but a rejected trial step does not move; its gradient :math:`h` is kept, and
    the *next* batch builds the model: with its gradient :math:`g`, its trial step and its change
    of gradient :math:`y`, the step is :math:`-B^{-1} h`. So the matrix and the gradient that it
    multiplies are independent, as the convergence proof needs; the price is a batch that does not
    move for every rejection, and one stored gradient.

    Extra arguments, placement and cost are those of :func:`smb`; of the two updates that a
    rejection takes, the second costs two gradients.

    Args:
      learning_rate: trial step size :math:`\alpha \ge 0`, a number or a schedule.
      eta: :math:`\eta` in (0, 1), bounds the model step.
      sufficient_decrease: :math:`c` in (0, 1) of Armijo's test.
      adjust_every: period, in updates, of the automatic step size; ``None`` turns it off.
      adjust_fraction: tolerated fraction of model steps; half of it counts here, as at most every
        second update can be a model step.
      adjust_factor: in (0, 1).
      max_learning_rate: the step size never grows above it.
      group_fn: function from a leaf's key path to a label; leaves with one label share one model.

    Returns:
      The optimizer. Its state holds ``step_size``, ``num_gradients`` and ``pending``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``value`` or no ``value_fn``.

    References:
      Birbil et al., `Bolstering Stochastic Gradient Descent with Model Building
      <https://arxiv.org/abs/2111.07058>`_, TOP 2024
    """
    rule = StepSizeRule(
        learning_rate, adjust_every, adjust_fraction, adjust_factor, max_learning_rate
    )
    rule.check()
    check_range("eta", eta, "(0, 1)")
    check_range("sufficient_decrease", sufficient_decrease, "(0, 1)")

    def init_fn(params: optax.Params) -> SmbIndependentState:
        return SmbIndependentState(
            **_first_fields(params),
            pending=jnp.zeros([], bool),
            rejected_gradient=optax.tree.zeros_like(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: SmbIndependentState,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        value_fn: Any = None,
        grad: optax.Updates | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SmbIndependentState]:
        require_params("smb_independent", params)
        require_whole_tree("smb_independent", params)
        require_extra("smb_independent", "value", value, "value=loss, value_fn=loss_fn")
        require_extra("smb_independent", "value_fn", value_fn, "value=loss, value_fn=loss_fn")
        g = updates if grad is None else grad
        alpha = rule.current(state.count, state.adjustment)
        groups = Groups(g, group_fn, alpha.dtype)
        g_squared = groups.dot(g, g)
        trial = _try_step(_bind(value_fn, extra_args), params, g, alpha)
        accepted = _accept(sufficient_decrease, alpha, value, trial.value, g_squared)

        # Outside of the cond: inside it, zeros like a concrete array forget its explicit layout.
        no_step = optax.tree.zeros_like(trial.step)
        nothing_kept = optax.tree.zeros_like(state.rejected_gradient)

        def model_step() -> tuple[optax.Updates, jax.Array, optax.Updates]:
            h = optax.tree.cast_like(state.rejected_gradient, g)
            y = optax.tree.sub(trial.gradient(), g)
            y_norm = jnp.sqrt(groups.dot(y, y))
            on_h, on_g, on_y = independent_batch_step(
                alpha,
                eta,
                jnp.sqrt(g_squared),
                y_norm,
                groups.dot(g, y),
                groups.dot(g, h),
                groups.dot(y, h),
            )
            step = groups.combine((on_h, h), (on_g, g), (on_y, y))
            step = _finite_or_blind(groups, y_norm, alpha, step, h)
            return step, jnp.zeros([], bool), nothing_kept

        def test_step() -> tuple[optax.Updates, jax.Array, optax.Updates]:
            step = optax.tree.where(accepted, trial.step, no_step)
            return step, ~accepted, optax.tree.cast_like(g, state.rejected_gradient)

        step, pending, kept = jax.lax.cond(state.pending, model_step, test_step)
        num_model_steps = _count(state.num_model_steps, state.pending)
        adjustment, num_model_steps = rule.adjust(
            state.count, state.adjustment, num_model_steps, steps_per_model_step=2
        )
        return step, SmbIndependentState(
            count=optax.safe_increment(state.count),
            num_gradients=_count(optax.safe_increment(state.num_gradients), state.pending),
            num_model_steps=num_model_steps,
            adjustment=adjustment,
            step_size=alpha,
            pending=pending,
            rejected_gradient=kept,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
