r"""Gradients of :math:`F = f \circ g_N \circ \dots \circ g_1`, every level an expectation."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import require_extra, require_params, require_whole_tree
from stochopt._oracles import check_scalar, check_shapes
from stochopt.compositional.trackers import Sample, Tracker
from stochopt.compositional.two_level import Inner, Outer


class EstimateMultiLevelState(NamedTuple):
    """State of :func:`estimate_multi_level`; the tuples have one entry for each level."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    tracked_values: tuple[Any, ...]  # y, like the values of the levels, float32 or wider
    previous_points: tuple[Any, ...]  # where each level was last evaluated, or None
    estimated_value: jax.Array  # f at the last tracked value; shape=(), float32 or wider


def estimate_multi_level(
    inners: Sequence[Inner],
    outer: Outer,
    *,
    trackers: Tracker | Sequence[Tracker],
    inner_shapes: Sequence[Any],
) -> optax.GradientTransformationExtraArgs:
    r"""Estimates the gradient of a function of nested expectations.

    For :math:`F(x) = f(g_N(\dots g_1(x)))` with :math:`g_l(y) = E_\zeta g_{l,\zeta}(y)`, a tracker
    for each level keeps an estimate :math:`y_l` of the value of :math:`g_l` at the tracked value of
    the level below, and the direction is the product of the Jacobians there:

    .. math::

       y_{0,t} = x_t, \qquad y_{l,t} \approx g_l(y_{l-1,t}), \qquad
       d_t = J_{g_{1,\zeta'}}(y_{0,t})^T \cdots J_{g_{N,\zeta'}}(y_{N-1,t})^T \,
         \nabla_y f_\xi(y_{N,t}, x_t) + \nabla_x f_\xi(y_{N,t}, x_t) .

    With :func:`stochopt.compositional.recursive_tracker` this is multi-level SCSC,

    .. math::

       y_{l,t} = (1 - \beta_t) \left(y_{l,t-1} - g_{l,\zeta}(y_{l-1,t-1})\right)
         + g_{l,\zeta}(y_{l-1,t}),

    with the rate :math:`O(T^{-1/2})` for the average of :math:`E\|\nabla F(x_t)\|^2` at any number
    of levels. With one level it is :func:`stochopt.compositional.estimate_compositional`, whose
    conventions hold: an estimator that ignores incoming ``updates``, needs the whole ``params`` and
    stands first in a chain.

    **Extra arguments of** ``update``: ``batch``, passed to every level and to ``outer``;
    ``jacobian_batch``, optional: an independent draw for all of the Jacobians. A level takes its
    own part of a ``batch`` of several parts. Independent parts avoid a bias: with one draw for two
    levels the product of their Jacobians is not the product of the means, not even at the exact
    values.

    Args:
      inners: the levels from the inside to the outside, the first ``(params, batch) -> y``, every
        other ``(y, batch) -> y`` of the value of the level below.
      outer: ``outer(y, params, batch) -> scalar`` of the last value, plus any term in ``params``.
      trackers: how the values are tracked, one for each level or one for all.
      inner_shapes: for each level, ``jax.eval_shape`` of it: the shapes and dtypes of its value.

    Returns:
      The estimator. Its state holds ``estimated_value``, the objective at the tracked values.

    Raises:
      TypeError: ``update`` got no ``batch``, or ``params`` with masked leaves.
      ValueError: no levels, or not as many trackers or shapes; a level returns other shapes than
        ``inner_shapes``, or ``outer`` no scalar.

    References:
      Chen, Sun, Yin, `Solving Stochastic Compositional Optimization is Nearly as Easy as Solving
      Stochastic Optimization <https://arxiv.org/abs/2008.10847>`_, 2021
    """
    levels = tuple(inners)
    if not levels:
        raise ValueError("inners must hold at least one level.")
    trackers = (trackers,) * len(levels) if isinstance(trackers, Tracker) else tuple(trackers)
    shapes = tuple(inner_shapes)
    for name, given in (("trackers", trackers), ("inner_shapes", shapes)):
        if len(given) != len(levels):
            raise ValueError(f"{name} has {len(given)} entries for {len(levels)} levels.")

    def init_fn(params: optax.Params) -> EstimateMultiLevelState:
        # What is not read before the first update has written it: zeros do.
        return EstimateMultiLevelState(
            count=jnp.zeros([], jnp.int32),
            tracked_values=tuple(_tree.zeros_at_least_float32(shape) for shape in shapes),
            previous_points=tuple(
                optax.tree.zeros_like(point) if tracker.keeps_previous else None
                for tracker, point in zip(trackers, (params, *shapes[:-1]), strict=True)
            ),
            estimated_value=jnp.zeros([], _tree.scalar_dtype(*jax.tree.leaves(shapes[-1]))),
        )

    def update_fn(
        updates: optax.Updates,
        state: EstimateMultiLevelState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        jacobian_batch: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EstimateMultiLevelState]:
        del updates, extra_args
        require_params("estimate_multi_level", params)
        require_whole_tree("estimate_multi_level", params)
        require_extra("estimate_multi_level", "batch", batch, "batch=batch")

        first = state.count == 0
        point, points, tracked_values = params, [], []
        pullbacks: list[Callable[[Any], Any]] = []
        for level, (inner, tracker) in enumerate(zip(levels, trackers, strict=True)):
            inner_at = lambda at, inner=inner: inner(at, batch)
            through_at = (
                inner_at
                if jacobian_batch is None
                else lambda at, inner=inner: inner(at, jacobian_batch)
            )
            linearized, pullback = jax.vjp(through_at, point)
            value = linearized if jacobian_batch is None else inner_at(point)
            check_shapes(f"inners[{level}]", value, shapes[level], f"inner_shapes[{level}]")
            previous = None
            if tracker.keeps_previous:
                # On first touch both points coincide: the old sample is finite wherever the new is.
                previous = optax.tree.where(first, point, state.previous_points[level])
            sample = Sample(value, inner_at, point, previous, first, state.count)
            tracked, kept = tracker.update(state.tracked_values[level], sample)
            pullbacks.append(_through(tracker, tracked, linearized, pullback))
            points.append(_tree.copy(point) if tracker.keeps_previous else None)
            tracked_values.append(kept)
            point = optax.tree.cast_like(tracked, value)

        check_scalar("outer", jax.eval_shape(outer, point, params, batch))
        value, (slope, direct) = jax.value_and_grad(outer, argnums=(0, 1))(point, params, batch)
        for pull in reversed(pullbacks):
            slope = pull(slope)
        # Conjugated, as optax wants complex gradients; nothing changes for real ones.
        direction = optax.tree.conj(optax.tree.add(slope, direct))
        return direction, EstimateMultiLevelState(
            count=optax.safe_increment(state.count),
            tracked_values=tuple(tracked_values),
            previous_points=tuple(points),
            # A copy: an outer function may return its argument, which the state keeps.
            estimated_value=jnp.array(value, state.estimated_value.dtype),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _through(
    tracker: Tracker, tracked: Any, sample: Any, pullback: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """From the slope at a tracked value to the slope at the point of its level."""
    return lambda slope: pullback(tracker.cotangent(tracked, sample, slope))[0]
