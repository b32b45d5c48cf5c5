r"""Gradients of :math:`F(x) = f(E_\zeta g_\zeta(x))`, a function of an expectation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import require_extra, require_params, require_whole_tree
from stochopt._oracles import check_scalar, check_shapes
from stochopt._schedules import value_at
from stochopt.compositional.trackers import Sample, Tracker, check_direction_rate

#: ``inner(params, batch) -> y``, the batch mean of the inner function; any pytree of arrays.
Inner = Callable[[Any, Any], Any]
#: ``outer(y, params, batch) -> scalar``; ``params`` carries additive terms and may be ignored.
Outer = Callable[[Any, Any, Any], jax.Array]


class EstimateCompositionalState(NamedTuple):
    """State of :func:`estimate_compositional`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    tracked_value: Any  # u, like the inner value, float32 or wider
    previous_params: Any  # like params, or None where nothing needs it
    direction: Any  # like params, or None without direction_rate
    estimated_value: jax.Array  # f at the tracked value; shape=(), float32 or wider


def estimate_compositional(
    inner: Inner,
    outer: Outer,
    *,
    tracker: Tracker,
    inner_shape: Any,
    direction_rate: optax.ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Estimates the gradient of a function of an expectation.

    The sample gradient :math:`J_{g_\zeta}(x)^T \nabla f(g_\zeta(x))` is biased, because
    :math:`\nabla f` of a mean is not the mean of :math:`\nabla f`. A tracker keeps an estimate
    :math:`u_t` of :math:`g(x_t)` instead, and the direction is

    .. math::

       d_t = z_t(x_t, u_t), \qquad
       z_t(x, u) = J_{g_{\zeta'}}(x)^T \, \nabla_u f_\xi(u, x) + \nabla_x f_\xi(u, x).

    With ``direction_rate`` :math:`\beta` the direction is tracked as well, recursively:

    .. math:: d_t = z_t(x_t, u_t) + (1 - \beta_t) \left(d_{t-1} - z_t(x_{t-1}, u_{t-1})\right).

    That needs an independent ``jacobian_batch``: with one draw for both, a bias of the order of the
    tracker's rate over :math:`\beta` stays, which does not vanish with them. To average the
    direction instead, chain :func:`stochopt.compositional.average_direction` behind.

    This is an *estimator*: ``update`` ignores the incoming ``updates`` (they may be ``None`` in a
    plain chain), evaluates the oracles at ``params`` and returns a gradient, so it stands first in
    a chain and any step may follow it. It needs the whole ``params``: put ``optax.masked`` and
    ``optax.partition`` behind it, never around it, and pass a larger batch instead of
    ``optax.MultiSteps``.

    **Extra arguments of** ``update``: ``batch``, passed to both oracles; ``jacobian_batch``,
    optional: an independent draw for the Jacobian :math:`J_{g_{\zeta'}}`. Sharing one draw (the
    default) costs one forward pass less and leaves a bias of the order of the tracker's rate.

    Args:
      inner: ``inner(params, batch) -> y``, the batch mean of :math:`g_\zeta(x)`.
      outer: ``outer(y, params, batch) -> scalar``, :math:`f_\xi(y)` plus any term in ``params``.
      tracker: how the inner value is tracked, such as
        :func:`stochopt.compositional.recursive_tracker`.
      inner_shape: ``jax.eval_shape(inner, params, batch)``, the shapes and dtypes of ``y``.
      direction_rate: :math:`\beta` in (0, 1], the weight on the new direction; a number or a
        schedule. ``None`` does not track the direction.

    Returns:
      The estimator. Its state holds ``estimated_value``, the objective at the tracked value.

    Raises:
      TypeError: ``update`` got no ``batch``, or ``params`` with masked leaves.
      ValueError: ``inner`` returns other shapes than ``inner_shape``, or ``outer`` no scalar.
    """
    check_direction_rate(direction_rate, tracker)
    keeps_previous = tracker.keeps_previous or direction_rate is not None

    def init_fn(params: optax.Params) -> EstimateCompositionalState:
        # What is not read before the first update has written it: zeros do.
        return EstimateCompositionalState(
            count=jnp.zeros([], jnp.int32),
            tracked_value=_tree.zeros_at_least_float32(inner_shape),
            previous_params=optax.tree.zeros_like(params) if keeps_previous else None,
            direction=None if direction_rate is None else optax.tree.zeros_like(params),
            estimated_value=jnp.zeros([], _tree.scalar_dtype(*jax.tree.leaves(inner_shape))),
        )

    def update_fn(
        updates: optax.Updates,
        state: EstimateCompositionalState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        jacobian_batch: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EstimateCompositionalState]:
        del updates, extra_args
        require_params("estimate_compositional", params)
        require_whole_tree("estimate_compositional", params)
        require_extra("estimate_compositional", "batch", batch, "batch=batch")

        inner_at = lambda point: inner(point, batch)
        through_at = (
            inner_at if jacobian_batch is None else lambda point: inner(point, jacobian_batch)
        )

        def direction_at(point: Any, tracked: Any, linearized: Any) -> tuple[jax.Array, Any]:
            sample, pullback = linearized
            u = optax.tree.cast_like(tracked, sample)
            value, (slope, direct) = jax.value_and_grad(outer, argnums=(0, 1))(u, point, batch)
            (through_inner,) = pullback(tracker.cotangent(tracked, sample, slope))
            # Conjugated, as optax wants complex gradients; nothing changes for real ones.
            return value, optax.tree.conj(optax.tree.add(through_inner, direct))

        linearized = jax.vjp(through_at, params)
        value = linearized[0] if jacobian_batch is None else inner_at(params)
        check_shapes("inner", value, inner_shape, "inner_shape")
        first = state.count == 0
        previous = None
        if keeps_previous:
            # On first touch both points coincide: the old sample is finite wherever the new is.
            previous = optax.tree.where(first, params, state.previous_params)
        sample = Sample(value, inner_at, params, previous, first, state.count)
        tracked, kept = tracker.update(state.tracked_value, sample)
        check_scalar("outer", jax.eval_shape(outer, value, params, batch))
        estimated_value, direction = direction_at(params, tracked, linearized)
        if direction_rate is not None:
            before = optax.tree.where(first, tracked, state.tracked_value)
            _, there = direction_at(previous, before, jax.vjp(through_at, previous))
            weight = value_at(direction_rate, state.count)
            weight = jnp.where(first, 1.0, weight)
            direction = _tree.corrected(direction, state.direction, there, 1 - weight)
        return direction, EstimateCompositionalState(
            count=optax.safe_increment(state.count),
            tracked_value=kept,
            previous_params=_tree.copy(params) if keeps_previous else None,
            direction=None if direction_rate is None else _tree.copy(direction),
            # A copy: an outer function may return its argument, which the state keeps.
            estimated_value=jnp.array(estimated_value, state.estimated_value.dtype),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
