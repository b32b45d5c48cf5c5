"""Coordinate descent for a ratio, each coordinate to the global minimum of a model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from stochopt import _counters, _tree
from stochopt._checks import check_arguments, check_range, require_params, require_whole_tree
from stochopt._oracles import check_like, check_scalar
from stochopt.blocks._bounds import exceeds
from stochopt.blocks._cycle import cycle_key, displacement
from stochopt.blocks.gradient import at_dtypes_of
from stochopt.blocks.lines import (
    Candidates,
    CoordinateLine,
    minimizers_of_difference,
    minimizers_of_ratio,
)
from stochopt.blocks.orders import OrderOfCycle, cyclic


class FractionalDescentState(NamedTuple):
    """State of :func:`fractional_coordinate_descent` and :func:`parametric_coordinate_descent`."""

    count: jax.Array  # type: ignore[assignment]  # cycles; shape=(), dtype=int32
    num_coordinate_steps: jax.Array  # shape=(), dtype=int32; stays at its maximum
    num_descent_violations: jax.Array  # shape=(), dtype=int32; stays at its maximum


def fractional_coordinate_descent(
    numerator: Callable[[Any, Any], jax.Array],
    denominator: Callable[[Any, Any], jax.Array],
    curvature: Any,
    *,
    penalty: Callable[[Any], jax.Array] | None = None,
    proximity: float = 0.0,
    candidates: Candidates = minimizers_of_ratio,
    order: OrderOfCycle = cyclic,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Coordinate descent for a ratio, by ratios in one variable, FCD.

    Minimizes :math:`F(x) = (f(x) + h(x)) / g(x)` for a smooth :math:`f`, a separable convex
    :math:`h`, and a positive :math:`g`, convex or concave. One ``update`` is one cycle through all
    coordinates:

    .. math::

       x \leftarrow x + t e_i, \qquad
       t \in \arg\min_t \frac{J_i(t) + \frac{\theta}{2} t^2}{g(x + t e_i)}, \qquad
       J_i(t) = f(x) + t\, \partial_i f(x) + \frac{c_i}{2} t^2 + h(x + t e_i) .

    The problem in :math:`t` is not convex, and is solved *globally*: ``candidates`` names some
    values of :math:`t`, and the best of them and of :math:`t = 0` is taken. So :math:`F` never
    rises, whatever they are. If a minimizer is always among them, limits are stationary along
    every coordinate, which under a local condition is more than to have no direction of descent;
    for convex :math:`f` and concave :math:`g` they are global minima.

    A *mover*: it returns the new point minus the old, ignores the incoming ``updates``, and stands
    alone. A step takes the value and one derivative of ``numerator`` and one more value, the value
    and two derivatives of ``denominator``, and a value of ``denominator`` and ``penalty`` for each
    candidate.

    **Extra arguments of** ``update``: ``batch``, passed to ``numerator`` and ``denominator``;
    ``None`` by default. ``key``, optional: of the order, which otherwise follows from ``seed`` and
    the number of the cycle.

    Args:
      numerator: ``numerator(params, batch) -> scalar``, :math:`f`.
      denominator: ``denominator(params, batch) -> scalar``, :math:`g > 0`.
      curvature: :math:`c_i > 0`, upper bounds of the second derivatives of :math:`f` in each
        coordinate: a number, or a tree like ``params``.
      penalty: ``penalty(params) -> scalar``, :math:`h`; ``None`` without. ``candidates`` must know
        its kinks, as those of :func:`~stochopt.blocks.with_l1_kink` do.
      proximity: :math:`\theta \ge 0`, which holds steps back.
      candidates: ``candidates(line) -> steps``, an array of values of :math:`t`, for a
        :class:`~stochopt.blocks.CoordinateLine`. The default,
        :func:`~stochopt.blocks.minimizers_of_ratio`, is for :math:`h = 0` and :math:`g` quadratic
        in each coordinate.
      order: as for :func:`stochopt.blocks.cyclic_block_descent`, of the coordinates.
      seed: of the orders.

    Returns:
      The optimizer. ``num_descent_violations`` in its state counts steps after which :math:`f` was
      above :math:`f(x) + t\, \partial_i f(x) + \frac{c_i}{2} t^2`, beyond rounding: its curvature
      was too small.

    Raises:
      TypeError: an argument takes other arguments, or ``update`` got masked leaves.
      ValueError: a hyper-parameter is out of range; ``curvature`` is no tree like ``params``; a
        function returned no scalar; ``update`` got no ``params``.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from stochopt import blocks
      >>> C = jnp.array([[2.0, 1.0], [1.0, 2.0]])
      >>> optimizer = blocks.fractional_coordinate_descent(
      ...     lambda x, batch: x @ C @ x / 2, lambda x, batch: x @ x / 2, jnp.diag(C)
      ... )
      >>> x = jnp.array([1.0, 0.5])
      >>> state = optimizer.init(x)
      >>> for _ in range(10):
      ...     updates, state = optimizer.update(None, state, x)
      ...     x = optax.apply_updates(x, updates)
      >>> print((x @ C @ x / (x @ x)).round(4))  # the least eigenvalue
      1.0

    References:
      Yuan, `Coordinate Descent Methods for Fractional Minimization
      <https://arxiv.org/abs/2201.12691>`_, ICML 2023
    """
    merit = lambda value, denominator, ratio: value / denominator
    return _coordinate_descent(
        "fractional_coordinate_descent",
        merit,
        numerator,
        denominator,
        curvature,
        penalty=penalty,
        proximity=proximity,
        candidates=candidates,
        order=order,
        seed=seed,
    )


def parametric_coordinate_descent(
    numerator: Callable[[Any, Any], jax.Array],
    denominator: Callable[[Any, Any], jax.Array],
    curvature: Any,
    *,
    penalty: Callable[[Any], jax.Array] | None = None,
    proximity: float = 0.0,
    candidates: Candidates = minimizers_of_difference,
    order: OrderOfCycle = cyclic,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Coordinate descent for a ratio, by differences in one variable, PCD.

    As :func:`fractional_coordinate_descent`, with the step of Dinkelbach's method,

    .. math::

       t \in \arg\min_t \; J_i(t) + \frac{\theta}{2} t^2 - F(x)\, g(x + t e_i) .

    :math:`F` never rises here either. For convex :math:`g` the difference may be unbounded below
    while :math:`F(x)` is large: take :math:`\theta` larger than the second derivative of
    :math:`F(x_0)\, g` minus :math:`c_i`. A coordinate for which there is no minimum stays where it
    is.

    Args:
      numerator: as for :func:`fractional_coordinate_descent`.
      denominator: as for :func:`fractional_coordinate_descent`.
      curvature: as for :func:`fractional_coordinate_descent`.
      penalty: as for :func:`fractional_coordinate_descent`.
      proximity: as for :func:`fractional_coordinate_descent`.
      candidates: as for :func:`fractional_coordinate_descent`; the default is
        :func:`~stochopt.blocks.minimizers_of_difference`.
      order: as for :func:`fractional_coordinate_descent`.
      seed: of the orders.
    """
    merit = lambda value, denominator, ratio: value - ratio * denominator
    return _coordinate_descent(
        "parametric_coordinate_descent",
        merit,
        numerator,
        denominator,
        curvature,
        penalty=penalty,
        proximity=proximity,
        candidates=candidates,
        order=order,
        seed=seed,
    )


class _Sweep(NamedTuple):
    point: jax.Array
    violations: jax.Array


def _coordinate_descent(
    method: str,
    merit: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    numerator: Callable[[Any, Any], jax.Array],
    denominator: Callable[[Any, Any], jax.Array],
    curvature: Any,
    *,
    penalty: Callable[[Any], jax.Array] | None,
    proximity: float,
    candidates: Candidates,
    order: OrderOfCycle,
    seed: int,
) -> optax.GradientTransformationExtraArgs:
    """Steps to the least ``merit(model of the numerator, denominator, ratio)`` on each line."""
    check_arguments("numerator", numerator, "params, batch")
    check_arguments("denominator", denominator, "params, batch")
    check_arguments("candidates", candidates, "line")
    for path, leaf in jax.tree_util.tree_leaves_with_path(curvature):
        check_range(f"curvature{jax.tree_util.keystr(path)}", leaf, "(0, inf)")
    check_range("proximity", proximity, "[0, inf)")
    if penalty is not None:
        check_arguments("penalty", penalty, "params")

    def init_fn(params: optax.Params) -> FractionalDescentState:
        _curvatures(curvature, params)
        return FractionalDescentState(*(jnp.zeros([], jnp.int32) for _ in range(3)))

    def update_fn(
        updates: optax.Updates,
        state: FractionalDescentState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, FractionalDescentState]:
        del updates, extra_args
        require_params(method, params)
        require_whole_tree(method, params)
        start, unravel = ravel_pytree(_tree.wide(params))
        curvatures = _curvatures(curvature, params).astype(start.dtype)
        theta = jnp.asarray(proximity, start.dtype)

        def scalar(name: str, function: Callable[[Any], Any], x: jax.Array) -> jax.Array:
            value = at_dtypes_of(params, function)(unravel(x))
            check_scalar(name, value)
            return value.astype(start.dtype)

        f = lambda x: scalar("numerator", lambda params: numerator(params, batch), x)
        g = lambda x: scalar("denominator", lambda params: denominator(params, batch), x)
        h = lambda x: (
            jnp.zeros([], start.dtype) if penalty is None else scalar("penalty", penalty, x)
        )

        def step(turn: jax.Array, sweep: _Sweep) -> _Sweep:
            x, i = sweep.point, visits[turn]
            along = lambda function: lambda t: function(x.at[i].add(t))
            zero, one = jnp.zeros([], x.dtype), jnp.ones([], x.dtype)
            value, slope = jax.jvp(along(f), (zero,), (one,))
            slope_of = lambda t: jax.jvp(along(g), (t,), (one,))
            (below, below_slope), (_, below_curvature) = jax.jvp(slope_of, (zero,), (one,))
            above = value + h(x)
            line = CoordinateLine(
                entry=x[i],
                numerator=jnp.stack([above, slope, curvatures[i] + theta]),
                denominator=jnp.stack([below, below_slope, below_curvature]),
                ratio=above / below,
            )

            def merit_at(t: jax.Array) -> jax.Array:
                model = value + t * slope + (curvatures[i] + theta) / 2 * t**2 + along(h)(t)
                there = along(g)(t)
                return jnp.where(there > 0, merit(model, there, line.ratio), jnp.nan)

            steps = jnp.append(zero, jnp.ravel(candidates(line)).astype(x.dtype))
            merits = jax.vmap(merit_at)(steps)
            t = steps[jnp.argmin(jnp.where(jnp.isnan(merits), jnp.inf, merits))]
            x = x.at[i].add(t)
            exceeded = exceeds(f(x), value + t * slope + curvatures[i] / 2 * t**2)
            return _Sweep(x, sweep.violations + exceeded.astype(jnp.int32))

        visits = jnp.asarray(order(cycle_key(key, seed, state.count), start.size), jnp.int32)
        sweep = jax.lax.fori_loop(0, visits.shape[0], step, _Sweep(start, jnp.zeros([], jnp.int32)))
        return displacement(unravel(sweep.point), params), FractionalDescentState(
            count=optax.safe_increment(state.count),
            num_coordinate_steps=_counters.add(state.num_coordinate_steps, visits.shape[0]),
            num_descent_violations=_counters.add(state.num_descent_violations, sweep.violations),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _curvatures(curvature: Any, params: Any) -> jax.Array:
    """One number for each entry, in the order of ``ravel_pytree``."""
    if jax.tree_util.all_leaves([curvature]) and jnp.ndim(curvature) == 0:
        return jnp.full(sum(x.size for x in jax.tree.leaves(params)), curvature)
    check_like("curvature", curvature, params, "params")
    return ravel_pytree(curvature)[0]
