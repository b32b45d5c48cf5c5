"""Surrogates in the space of a model's predictions: many steps for each gradient of the loss."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _counters, _tree
from stochopt._checks import (
    check_arguments,
    check_count,
    require_extra,
    require_params,
    require_whole_tree,
)
from stochopt._oracles import check_scalar
from stochopt.surrogates.inner import displaced, inner_step, real_dot
from stochopt.surrogates.target_steps import AlongTargets, TargetStep, given

#: ``predict(params, batch) -> targets``, a tree of floating-point arrays.
Predict = Callable[[Any, Any], Any]
#: ``target_loss(targets, batch) -> scalar``.
TargetLoss = Callable[[Any, Any], jax.Array]


class TargetSurrogateState(NamedTuple):
    """State of :func:`target_surrogate`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    inner_optimizer: Any
    step_size: jax.Array  # eta of the last update, shape=(), float32 or wider
    estimated_value: jax.Array  # the loss on the batch before the last update, likewise
    num_target_gradients: jax.Array  # shape=(), dtype=int32
    num_target_values: jax.Array  # that the search looked at; shape=(), dtype=int32
    num_surrogate_gradients: jax.Array  # shape=(), dtype=int32; stays at its maximum


def target_surrogate(
    predict: Predict,
    target_loss: TargetLoss,
    *,
    inner_optimizer: optax.GradientTransformation,
    target_step: optax.ScalarOrSchedule | TargetStep = 1.0,
    num_inner: int = 10,
) -> optax.GradientTransformationExtraArgs:
    r"""SSO: one gradient of a loss in the predictions, then many steps of the model towards it.

    For :math:`h(\theta) = \ell(z(\theta))` with a model :math:`z` that is cheap to differentiate
    and a loss :math:`\ell` of its predictions, the *targets*, that is not: a simulator, an expert,
    an adversary. One ``update`` takes one :math:`G = \nabla \ell(z_t)` at
    :math:`z_t = z(\theta_t)` and makes :math:`m` steps of an inner optimizer on

    .. math::

       s_t(\theta) = \ell(z_t) + \langle G, z(\theta) - z_t \rangle
       + \frac{1}{2 \eta_t} \|z(\theta) - z_t\|^2, \qquad
       \nabla s_t(\theta) = J(\theta)^T \left(G + \frac{z(\theta) - z_t}{\eta_t}\right),

    each of which is one vector-Jacobian product of the model and does not call :math:`\ell`. As
    :math:`\nabla s_t(\theta_t) = \nabla h(\theta_t)`, **one step is exactly the inner optimizer on
    h**, whatever :math:`\eta` is.

    On full batches, if :math:`\ell` is :math:`L`-smooth *in the targets* and
    :math:`\eta \le 1 / L`, the surrogate lies above :math:`h`. If it is :math:`B`-smooth, gradient
    steps of :math:`1 / B` never increase :math:`h`, and for every :math:`m`

    .. math:: \min_{t < T} \|\nabla h(\theta_t)\|^2 \le \frac{2 B (h(\theta_0) - \min h)}{T} .

    The norm is that of all target entries: a *mean* over :math:`n` examples of
    :math:`\lambda`-smooth losses has :math:`L = \lambda / n`, so that :math:`\eta` is of the order
    of :math:`n`, and a logistic loss bears :math:`\eta = 4 n`. On minibatches the surrogate knows
    the targets of the batch only, and nothing holds the others.

    A *mover*: it ignores the incoming ``updates``.
    **Extra argument of** ``update``: ``batch``.

    Args:
      predict: ``predict(params, batch) -> targets``, :math:`z`, a tree of floating-point arrays.
      target_loss: ``target_loss(targets, batch) -> scalar``, :math:`\ell`.
      inner_optimizer: of :math:`s_t`, such as ``optax.sgd(1 / B)``, Adam, or a line search of
        optax. The surrogate is the steeper the shorter :math:`\eta` is, about
        :math:`B = \|J\|^2 / \eta`. Its state goes on from update to update.
      target_step: :math:`\eta > 0`, a number or a schedule of updates, or
        :func:`stochopt.surrogates.armijo` to search for it.
      num_inner: :math:`m`, steps on each surrogate.

    Returns:
      The optimizer. Its state holds ``estimated_value``, ``step_size`` and counts gradients of the
      target loss, its values in the search, and vector-Jacobian products.

    Raises:
      TypeError: ``update`` got no ``batch``, or masked leaves; an oracle takes other arguments, or
        ``predict`` returned what is no tree of floating-point arrays.
      ValueError: a hyper-parameter is out of range, or ``target_loss`` returned no scalar.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, stochopt
      >>> inputs, labels = jnp.array([[1.0, 0.0], [1.0, 0.1]]), jnp.array([1.0, -1.0])
      >>> predict = lambda x, batch: inputs @ x
      >>> target_loss = lambda z, batch: jnp.mean((z - labels) ** 2)
      >>> for num_inner in (1, 10, 100):
      ...     optimizer = stochopt.target_surrogate(
      ...         predict, target_loss, inner_optimizer=optax.sgd(0.5), num_inner=num_inner)
      ...     params = jnp.zeros(2)
      ...     state = optimizer.init(params)
      ...     for _ in range(10):
      ...         updates, state = optimizer.update(None, state, params, batch=())
      ...         params = optax.apply_updates(params, updates)
      ...     print(f"{num_inner:3} steps: {target_loss(predict(params, ()), ()):.3f}")
        1 steps: 0.951
       10 steps: 0.607
      100 steps: 0.007

    References:
      Lavington et al., `Target-based Surrogates for Stochastic Optimization
      <https://arxiv.org/abs/2302.02607>`_, ICML 2023
    """
    check_arguments("predict", predict, "params, batch")
    check_arguments("target_loss", target_loss, "targets, batch")
    check_count("num_inner", num_inner)
    rule = target_step if isinstance(target_step, TargetStep) else given(target_step)
    optimizer = optax.with_extra_args_support(inner_optimizer)

    def init_fn(params: optax.Params) -> TargetSurrogateState:
        dtype = _tree.scalar_dtype(*jax.tree.leaves(params))
        zero = lambda: jnp.zeros([], jnp.int32)
        return TargetSurrogateState(
            count=zero(),
            inner_optimizer=optimizer.init(_tree.zeros_at_least_float32(params)),
            step_size=jnp.zeros([], dtype),
            estimated_value=jnp.zeros([], dtype),
            num_target_gradients=zero(),
            num_target_values=zero(),
            num_surrogate_gradients=zero(),
        )

    def update_fn(
        updates: optax.Updates,
        state: TargetSurrogateState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, TargetSurrogateState]:
        del updates, extra_args
        require_params("target_surrogate", params)
        require_whole_tree("target_surrogate", params)
        require_extra("target_surrogate", "batch", batch, "batch=batch")
        dtype = state.step_size.dtype
        start = _tree.zeros_at_least_float32(params)

        def model(displacement: Any) -> Any:
            targets = predict(displaced(params, displacement), batch)
            _check_targets(targets)
            return targets

        def loss(targets: Any) -> jax.Array:
            value = target_loss(targets, batch)
            check_scalar("target_loss", value)
            return value.astype(dtype)

        targets, pull_back = jax.vjp(model, start)
        value, gradient = jax.value_and_grad(loss)(targets)
        direction = optax.tree.conj(gradient)
        along = AlongTargets(
            loss=lambda step: loss(_tree.add_scaled(targets, -step, direction)),
            value=value,
            squared_norm=real_dot(direction, direction, dtype),
        )
        step, number = rule.find(along, state.step_size, state.count)
        eta = jnp.asarray(step, dtype)

        def surrogate(displacement: Any) -> jax.Array:
            away = optax.tree.sub(model(displacement), targets)
            squared = real_dot(away, away, dtype)
            return value + real_dot(direction, away, dtype) + squared / (2 * eta)

        def move(slope: Any, inner: Any, displacement: Any) -> tuple[Any, Any]:
            slope = optax.tree.conj(slope)
            return inner_step(optimizer, surrogate, slope, inner, displacement, params)

        def again(_: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            displacement, inner = carry
            return move(jax.grad(surrogate)(displacement), inner, displacement)

        # Where the surrogate was made its slope is that of the loss, free of rounding in eta.
        (first,) = pull_back(gradient)
        carry = move(first, state.inner_optimizer, start)
        displacement, inner = jax.lax.fori_loop(1, num_inner, again, carry)
        return optax.tree.cast_like(displacement, params), TargetSurrogateState(
            count=optax.safe_increment(state.count),
            inner_optimizer=inner,
            step_size=eta,
            estimated_value=value,
            num_target_gradients=optax.safe_increment(state.num_target_gradients),
            num_target_values=_counters.add(state.num_target_values, number),
            num_surrogate_gradients=_counters.add(state.num_surrogate_gradients, num_inner),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _check_targets(targets: Any) -> None:
    leaves = jax.tree.leaves(targets)
    if not leaves or not all(jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves):
        found = ", ".join(str(getattr(x, "dtype", type(x).__name__)) for x in leaves) or "nothing"
        raise TypeError(f"predict must return floating-point arrays, got {found}.")
