"""Sliding: many cheap subgradient steps for each smooth gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _counters, _tree
from stochopt._checks import check_count, check_range
from stochopt._oracles import check_shapes
from stochopt.sliding._outer import check_update, initial_points, outer_step
from stochopt.sliding.geometry import Geometry, euclidean
from stochopt.sliding.policies import SlidingPolicy

#: ``subgradient(params, batch) -> params``, of the nonsmooth part.
Subgradient = Callable[[Any, Any], Any]

#: Norms up to this factor above the bound are rounding.
_ROUNDING = 1.001


class SlidingState(NamedTuple):
    """State of :func:`slide` and the methods made of it."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    prox_center: Any  # x_k, like params, float32 or wider
    averaged_point: Any  # the point to evaluate, like params, float32 or wider
    num_smooth_gradients: jax.Array  # shape=(), dtype=int32
    num_subgradients: jax.Array  # shape=(), dtype=int32; stays at its maximum
    num_prox: jax.Array  # shape=(), dtype=int32; stays at its maximum
    num_truncated: jax.Array  # inner loops cut short by max_inner; shape=(), dtype=int32
    num_large_subgradients: jax.Array  # beyond what the bound allows; shape=(), dtype=int32


def slide(
    policy: SlidingPolicy,
    subgradient: Subgradient,
    *,
    sample: Callable[[jax.Array], Any] | None = None,
    geometry: Geometry | None = None,
    max_inner: int = 10_000_000,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""One outer step of sliding for each smooth gradient.

    For :math:`\Psi = f + h + \chi` with an expensive smooth :math:`f`, a cheap nonsmooth :math:`h`
    and a simple :math:`\chi`. ``params`` is the *query point* :math:`\underline x_k` and the
    incoming ``updates`` are :math:`g = \nabla f(\underline x_k)`; one ``update`` is

    .. math::

       (x_k, \tilde x_k) &= \text{inner loop}(g, x_{k-1}) \\
       \bar x_k &= (1 - \gamma_k) \bar x_{k-1} + \gamma_k \tilde x_k \\
       \underline x_{k+1} &= (1 - \gamma_{k+1}) \bar x_k + \gamma_{k+1} x_k

    and returns :math:`\underline x_{k+1} - \underline x_k`. The point to evaluate is
    :math:`\bar x_k`, got by :func:`sliding_eval_params`; neither the query point nor
    :math:`x_k` is controlled by the guarantees. The inner loop starts at
    :math:`u_0 = x_{k-1}` and takes :math:`T_k` steps, each with one subgradient and one proximal
    operator and none with a gradient of :math:`f`:

    .. math::

       u_t &= \arg\min_u \; \langle g + h'(u_{t-1}), u \rangle + \chi(u) + \beta_k V(x_{k-1}, u)
              + \tfrac{t (\beta_k + \mu)}{2} V(u_{t-1}, u) \\
       \tilde u_t &= \tilde u_{t-1} + \tfrac{2 (t + 1)}{t (t + 3)} (u_t - \tilde u_{t-1}),

    with :math:`x_k = u_{T_k}` and :math:`\tilde x_k = \tilde u_{T_k}`. The average is a compensated
    sum: in float32 nearly all rounding that matters is in it.

    A *mover*: it stands last in a chain, and nothing may scale what it returns. If ``params`` was
    moved by something else, the step uses the gradient that it gets, taken elsewhere, as an
    inexact one, and returns what leads to the query point of its own state: such a move is
    forgotten. To go on from another point, call ``init`` with it.

    **Extra arguments of** ``update``: ``batch``, what the subgradient gets in all steps of the
    inner loop where there is no ``sample``; ``key``, optional: random key of the draws, which
    otherwise follows from ``seed`` and the number of the update.

    Args:
      policy: :math:`\gamma_k`, :math:`\beta_k` and :math:`T_k`, from one of the constructors in
        :mod:`stochopt.sliding.policies`.
      subgradient: ``subgradient(params, batch) -> params``, :math:`h'`, such as
        ``jax.grad(nonsmooth)``.
      sample: ``sample(key) -> batch``, a fresh draw for each inner step.
      geometry: :func:`euclidean`, the default with :math:`\chi = 0`, or :func:`simplex`.
      max_inner: inner loops are not longer than this; ``num_truncated`` counts those that should
        have been.
      seed: of the draws.

    Returns:
      The transformation. Its state counts smooth gradients, subgradients and proximal operators.
      ``num_large_subgradients`` counts subgradients with a norm above
      :math:`M / 2 + 3 \sigma`: with exact ones, a single one says that :math:`h` is not
      :math:`M / 2`-Lipschitz, most likely because :math:`M` was given as the Lipschitz constant.

    Raises:
      TypeError: ``update`` got no gradient, or masked leaves.
      ValueError: ``max_inner`` is not positive, or an oracle returned other shapes than ``params``.
    """
    check_count("max_inner", max_inner)
    check_range("max_inner", max_inner, "[1, 1073741824]")  # a float32 that fits an int32
    geometry = euclidean() if geometry is None else geometry

    def init_fn(params: optax.Params) -> SlidingState:
        zero = lambda: jnp.zeros([], jnp.int32)
        return SlidingState(zero(), *initial_points(params), *(zero() for _ in range(5)))

    def update_fn(
        updates: optax.Updates,
        state: SlidingState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SlidingState]:
        del extra_args
        check_update("slide", updates, params)
        if key is None:
            key = jax.random.fold_in(jax.random.key(seed), state.count)

        dtype = _tree.scalar_dtype(*jax.tree.leaves(params))
        number = (state.count + 1).astype(dtype)
        at = lambda sequence, k: jnp.asarray(sequence(k), dtype)
        wanted = at(policy.inner_length, number)
        length = jnp.minimum(wanted, max_inner).astype(jnp.int32)
        noise = 0.0 if policy.noise is None else policy.noise
        limit = _ROUNDING * (policy.subgradient_bound / 2 + 3 * noise)

        def slope(point: Any, t: jax.Array) -> Any:
            draw = batch if sample is None else sample(jax.random.fold_in(key, t))
            value = subgradient(optax.tree.cast_like(point, params), draw)
            check_shapes("subgradient", value, params, "params")
            return optax.tree.cast_like(value, point)

        def inner(gradient: Any, center: Any, before: Any) -> tuple[Any, Any, jax.Array]:
            del before
            beta = at(policy.prox_weight, number)
            mu = jnp.asarray(policy.strong_convexity, dtype)
            return _inner_loop(geometry, slope, gradient, center, beta, mu, length, limit)

        moved = outer_step(
            inner,
            at(policy.mixing, number),
            at(policy.mixing, number + 1),
            updates,
            state,
            params,
            policy.restart(number + 1),
        )
        return moved.updates, SlidingState(
            count=optax.safe_increment(state.count),
            prox_center=moved.prox_center,
            averaged_point=moved.averaged_point,
            num_smooth_gradients=optax.safe_increment(state.num_smooth_gradients),
            num_subgradients=_counters.add(state.num_subgradients, length),
            num_prox=_counters.add(state.num_prox, length),
            num_truncated=_counters.add(state.num_truncated, wanted > max_inner),
            num_large_subgradients=_counters.add(state.num_large_subgradients, moved.counts),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def sliding_eval_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    r"""The point to evaluate, :math:`\bar x_k`, from a state that may be that of a chain.

    Before the first update these are the ``params``.

    Args:
      state: of a sliding transformation, or of a chain with one.
      params: what the loop holds, the query point; gives the dtypes.

    Raises:
      ValueError: no sliding transformation has made this state.
    """
    averaged = optax.tree.get(state, "averaged_point")
    count = optax.tree.get(state, "num_smooth_gradients")
    if count is None:
        raise ValueError("sliding_eval_params needs the state of a sliding transformation.")
    return jax.tree.map(lambda x, y: jnp.where(count > 0, y.astype(x.dtype), x), params, averaged)


def _inner_loop(
    geometry: Geometry,
    slope: Callable[[Any, jax.Array], Any],
    gradient: Any,
    center: Any,
    beta: jax.Array,
    strong_convexity: jax.Array,
    length: jax.Array,
    limit: Any,
) -> tuple[Any, Any, jax.Array]:
    """Last point, average, and how many subgradients were larger than the limit."""

    def step(t: jax.Array, carry: tuple[Any, Any, Any, jax.Array]) -> Any:
        point, average, lost, num_large = carry
        subgradient = slope(point, t)
        number = t.astype(beta.dtype)
        point = geometry.step(
            optax.tree.add(gradient, subgradient),
            center,
            beta,
            point,
            number * (beta + strong_convexity) / 2,
        )
        theta = 2 * (1 + 1 / number) / (number + 3)
        change = jax.tree.map(
            lambda u, m, c: theta.astype(m.dtype) * (u - m) + c, point, average, lost
        )
        new = optax.tree.add(average, change)
        # What the addition rounded away goes into the next one.
        lost = jax.tree.map(lambda d, n, m: d - (n - m), change, new, average)
        large = geometry.dual_norm(subgradient) > limit
        return point, new, lost, jnp.where(large, num_large + 1, num_large)

    start = (center, center, optax.tree.zeros_like(center), jnp.zeros([], jnp.int32))
    point, average, _, num_large = jax.lax.fori_loop(1, length + 1, step, start)
    return point, average, num_large
