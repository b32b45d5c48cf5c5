"""Conditional gradient sliding: many linear minimizations for each gradient, no projection."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _counters, _tree
from stochopt._checks import check_arguments, check_count, check_range
from stochopt._oracles import check_shapes
from stochopt.sliding import _outer

#: Gaps below this many units of rounding in their terms count as zero.
_ROUNDING = 4


class ConditionalSlidingState(NamedTuple):
    """State of :func:`conditional_gradient_sliding`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    prox_center: Any  # x_k, like params, float32 or wider
    averaged_point: Any  # y_k, the point to evaluate, like params, float32 or wider
    num_smooth_gradients: jax.Array  # shape=(), dtype=int32
    num_linear_minimizations: jax.Array  # shape=(), dtype=int32; stays at its maximum
    num_truncated: jax.Array  # inner loops cut short by max_inner; shape=(), dtype=int32


def conditional_gradient_sliding(
    linear_minimizer: Callable[[Any], Any],
    *,
    smoothness: float,
    diameter: float,
    max_inner: int = 10_000_000,
) -> optax.GradientTransformationExtraArgs:
    r"""Accelerated descent on a compact convex set that is known by linear minimization alone.

    Minimizes a convex, :math:`L`-smooth :math:`f` over a set :math:`C` of diameter :math:`D`.
    ``params`` is the *query point* :math:`z_k` and the incoming ``updates`` are
    :math:`g = \nabla f(z_k)`; one ``update`` is

    .. math::

       x_k &\approx \arg\min_{u \in C} \; \langle g, u \rangle + \frac{\beta_k}{2}
              \|u - x_{k-1}\|^2 \\
       y_k &= (1 - \gamma_k)\, y_{k-1} + \gamma_k x_k \\
       z_{k+1} &= (1 - \gamma_{k+1})\, y_k + \gamma_{k+1} x_k, \qquad
       \beta_k = \frac{3 L}{k + 1}, \quad \gamma_k = \frac{3}{k + 2},

    and returns :math:`z_{k+1} - z_k`. Evaluate :math:`y_k`, got by
    :func:`stochopt.sliding.sliding_eval_params`. The inner problem is solved from
    :math:`u = x_{k-1}` by the conditional gradient method with exact line search, until its
    *Wolfe gap*, which bounds how far :math:`u` is from the least value, is small:

    .. math::

       q = g + \beta_k (u - x_{k-1}), \quad v = \arg\min_{v \in C} \langle q, v \rangle, \quad
       \text{stop if } \langle q, u - v \rangle \le \frac{L D^2}{k (k + 1)}, \quad
       u \leftarrow u + \min\left(1, \frac{\langle q, u - v \rangle}{\beta_k \|v - u\|^2}\right)
       (v - u) .

    Then, see :func:`stochopt.sliding.conditional_sliding_bound`,

    .. math:: f(y_k) - \min_C f \le \frac{15 L D^2}{2 (k + 1)(k + 2)} :

    for a gap of :math:`\epsilon`, :math:`O(\sqrt{L D^2 / \epsilon})` gradients, the square root of
    what the conditional gradient method takes, and :math:`O(L D^2 / \epsilon)` linear
    minimizations, as many as it takes.

    A *mover*, as :func:`stochopt.sliding.slide` is: it stands last in a chain, nothing may scale
    what it returns, and a move of ``params`` by something else is forgotten. All points are convex
    combinations of the start and of what ``linear_minimizer`` returns: start *within* the set, for
    example at ``linear_minimizer(anything)``. From elsewhere they approach the set without a
    guarantee.

    Args:
      linear_minimizer: ``linear_minimizer(slope) -> params``, a point of :math:`C` that minimizes
        the linear function; one of :mod:`stochopt.lmo`, or your own.
      smoothness: :math:`L > 0`, a Lipschitz constant of the gradient of :math:`f`.
      diameter: :math:`D > 0`, the largest distance of two points of :math:`C`, such as
        ``linear_minimizer.diameter(params)``.
      max_inner: inner loops make at most so many linear minimizations; ``num_truncated`` counts
        those that should have made more.

    Returns:
      The optimizer. Its state counts gradients and linear minimizations.

    Raises:
      TypeError: ``linear_minimizer`` takes other arguments; ``update`` got no gradient, or masked
        leaves.
      ValueError: a constant is out of range, or ``linear_minimizer`` returned another structure or
        other shapes than those of ``params``.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, stochopt
      >>> from stochopt.sliding import sliding_eval_params
      >>> f = lambda x: jnp.sum((x - jnp.array([0.8, 0.6, -1.0])) ** 2)
      >>> simplex = stochopt.lmo.simplex()
      >>> params = jnp.array([0.0, 0.0, 1.0])
      >>> optimizer = stochopt.conditional_gradient_sliding(
      ...     simplex, smoothness=2.0, diameter=simplex.diameter(params))
      >>> state = optimizer.init(params)
      >>> step = jax.jit(lambda p, s: optimizer.update(jax.grad(f)(p), s, p))
      >>> for _ in range(50):
      ...     updates, state = step(params, state)
      ...     params = optax.apply_updates(params, updates)
      >>> print(" ".join(f"{x:.2f}" for x in sliding_eval_params(state, params)))
      0.60 0.40 0.00

    References:
      Lan, Zhou, `Conditional Gradient Sliding for Convex Optimization
      <https://doi.org/10.1137/140992382>`_, SIAM Journal on Optimization 2016
    """
    check_arguments("linear_minimizer", linear_minimizer, "slope")
    check_range("smoothness", smoothness, "(0, inf)")
    check_range("diameter", diameter, "(0, inf)")
    check_count("max_inner", max_inner)

    def init_fn(params: optax.Params) -> ConditionalSlidingState:
        zero = lambda: jnp.zeros([], jnp.int32)
        points = _outer.initial_points(params)
        return ConditionalSlidingState(zero(), *points, *(zero() for _ in range(3)))

    def update_fn(
        updates: optax.Updates,
        state: ConditionalSlidingState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ConditionalSlidingState]:
        del extra_args
        _outer.check_update("conditional_gradient_sliding", updates, params)
        dtype = _tree.scalar_dtype(*jax.tree.leaves(params))
        k = (state.count + 1).astype(dtype)
        lipschitz, width = jnp.asarray(smoothness, dtype), jnp.asarray(diameter, dtype)
        mixing = lambda k: 3 / (k + 2)

        def minimize(slope: Any) -> Any:
            vertex = linear_minimizer(optax.tree.cast_like(slope, params))
            check_shapes("linear_minimizer", vertex, params, "params")
            return optax.tree.cast_like(vertex, slope)

        def inner(gradient: Any, center: Any, before: Any) -> tuple[Any, Any, Any]:
            del before
            beta, accuracy = 3 * lipschitz / (k + 1), lipschitz * width / k * width / (k + 1)
            point, *counts = _conditional_gradient(
                minimize, gradient, center, beta, accuracy, max_inner
            )
            return point, point, counts

        moved = _outer.outer_step(inner, mixing(k), mixing(k + 1), updates, state, params)
        number, unsolved = moved.counts
        return moved.updates, ConditionalSlidingState(
            count=optax.safe_increment(state.count),
            prox_center=moved.prox_center,
            averaged_point=moved.averaged_point,
            num_smooth_gradients=optax.safe_increment(state.num_smooth_gradients),
            num_linear_minimizations=_counters.add(state.num_linear_minimizations, number),
            num_truncated=_counters.add(state.num_truncated, unsolved),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def conditional_sliding_bound(smoothness: Any, diameter: Any, num_steps: Any) -> Any:
    r"""What :func:`stochopt.conditional_gradient_sliding` guarantees of its gap.

    .. math::

       f(y_k) - \min_C f \le \frac{\beta_k \gamma_k}{2} D^2
       + \Gamma_k \sum_{i=1}^k \frac{\gamma_i}{\Gamma_i} \frac{L D^2}{i (i + 1)}
       = \frac{15 L D^2}{2 (k + 1)(k + 2)}, \qquad \Gamma_k = \frac{6}{k (k + 1) (k + 2)} .

    Args:
      smoothness: :math:`L`.
      diameter: :math:`D`.
      num_steps: :math:`k`, updates so far, which are the gradients.
    """
    return 7.5 * smoothness * diameter**2 / ((num_steps + 1) * (num_steps + 2))


class _Inner(NamedTuple):
    point: Any
    vertex: Any
    gap: jax.Array  # of Wolfe
    unsolved: jax.Array  # false where the gap is not a number
    number: jax.Array  # of linear minimizations


def _conditional_gradient(
    minimize: Callable[[Any], Any],
    gradient: Any,
    center: Any,
    beta: jax.Array,
    accuracy: jax.Array,
    max_inner: int,
) -> tuple[Any, jax.Array, jax.Array]:
    """Point, number of linear minimizations, and whether the Wolfe gap is still too large."""
    dtype = beta.dtype
    total = lambda function, *trees: sum(
        jax.tree.leaves(jax.tree.map(lambda *x: function(*x).astype(dtype), *trees)),
        jnp.zeros([], dtype),
    )

    def look(point: Any, number: jax.Array) -> _Inner:
        slope = jax.tree.map(
            lambda g, u, x: g + beta.astype(u.dtype) * (u - x), gradient, point, center
        )
        vertex = minimize(slope)
        terms = jax.tree.map(lambda q, u, v: q.conj() * (u - v), slope, point, vertex)
        gap = total(lambda x: jnp.sum(x.real), terms)
        rounding = _ROUNDING * jnp.finfo(dtype).eps * total(lambda x: jnp.sum(jnp.abs(x)), terms)
        return _Inner(point, vertex, gap, gap > accuracy + rounding, number + 1)

    def step(at: _Inner) -> _Inner:
        squared = total(lambda u, v: jnp.sum(jnp.square(jnp.abs(v - u))), at.point, at.vertex)
        length = jnp.minimum(1, at.gap / (beta * squared))
        return look(_tree.moving_average(at.point, at.vertex, 1 - length), at.number)

    def goes_on(at: _Inner) -> jax.Array:
        return at.unsolved & (at.number < max_inner)

    last = jax.lax.while_loop(goes_on, step, look(center, jnp.zeros([], jnp.int32)))
    return last.point, last.number, last.unsolved
