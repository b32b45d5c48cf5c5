"""Accelerated sliding: an inner loop with momentum, where the cheap part has a gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _counters, _tree
from stochopt._checks import check_count, check_range
from stochopt._oracles import check_shapes
from stochopt.proximal import DualMap
from stochopt.sliding._outer import between, check_update, initial_points, outer_step
from stochopt.sliding.accelerated_policies import AcceleratedPolicy
from stochopt.sliding.geometry import Geometry, euclidean

#: ``gradient(params, batch, smoothing) -> params``, of the cheap part.
CheapGradient = Callable[[Any, Any, Any], Any]


class AcceleratedSlidingState(NamedTuple):
    """State of :func:`slide_accelerated` and the methods made of it."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    prox_center: Any  # x_k, like params, float32 or wider
    averaged_point: Any  # the point to evaluate, like params, float32 or wider
    num_smooth_gradients: jax.Array  # shape=(), dtype=int32
    num_cheap_gradients: jax.Array  # shape=(), dtype=int32; stays at its maximum
    num_prox: jax.Array  # shape=(), dtype=int32; stays at its maximum
    num_truncated: jax.Array  # inner loops cut short by max_inner; shape=(), dtype=int32


def slide_accelerated(
    policy: AcceleratedPolicy,
    gradient: CheapGradient,
    *,
    geometry: Geometry | None = None,
    max_inner: int = 10_000_000,
) -> optax.GradientTransformationExtraArgs:
    r"""One outer step of accelerated sliding for each smooth gradient.

    For :math:`\Psi = f + h + \chi` with an expensive smooth :math:`f`, a cheap :math:`h` that is
    smooth too or can be smoothed, and a simple :math:`\chi`. The outer loop is that of
    :func:`slide`: ``params`` is the query point :math:`\underline x_k`, the incoming ``updates``
    are :math:`g = \nabla f(\underline x_k)`, the point to evaluate is :math:`\bar x_k`, got by
    :func:`sliding_eval_params`, and one ``update`` is

    .. math::

       (x_k, \tilde x_k) &= \text{inner loop}(g, x_{k-1}, \bar x_{k-1}) \\
       \bar x_k &= (1 - \lambda_k) \bar x_{k-1} + \lambda_k \tilde x_k \\
       \underline x_{k+1} &= (1 - \gamma_{k+1}) \bar x_k + \gamma_{k+1} x_k .

    The inner loop has momentum. From :math:`u_0 = x_{k-1}` and :math:`\tilde u_0 = \bar x_{k-1}` it
    takes :math:`T_k` steps, each with one gradient of :math:`h` and one proximal operator:

    .. math::

       \underline u_t &= (1 - \lambda_k) \bar x_{k-1}
         + \lambda_k \left[(1 - \alpha_t) \tilde u_{t-1} + \alpha_t u_{t-1}\right] \\
       u_t &= \arg\min_u \; \langle g + \nabla h(\underline u_t), u \rangle + \chi(u)
         + \beta_k V(x_{k-1}, u) + r_t V(u_{t-1}, u) \\
       \tilde u_t &= (1 - \alpha_t) \tilde u_{t-1} + \alpha_t u_t,

    with :math:`x_k = u_{T_k}` and :math:`\tilde x_k = \tilde u_{T_k}`. Unlike in :func:`slide` the
    gradient is taken at a point that is mixed with :math:`\bar x_{k-1}`.

    A *mover*: it stands last in a chain, and nothing may scale what it returns; what is said of
    moved ``params`` in :func:`slide` holds here.

    **Extra argument of** ``update``: ``batch``, what the gradient gets in all steps of the inner
    loop.

    Args:
      policy: from one of the constructors in :mod:`stochopt.sliding.accelerated_policies`.
      gradient: ``gradient(params, batch, smoothing) -> params``, :math:`\nabla h` or
        :math:`\nabla h_\eta`, such as :func:`saddle_gradient`; ``smoothing`` is :math:`\eta_k`, or
        ``None`` where the policy has none.
      geometry: :func:`euclidean`, the default with :math:`\chi = 0`, or :func:`simplex`.
      max_inner: inner loops are not longer than this; ``num_truncated`` counts those that should
        have been.

    Returns:
      The transformation. Its state counts smooth gradients, gradients of the cheap part (in the
      saddle form each is one application of the operator and one of its transpose) and proximal
      operators.

    Raises:
      TypeError: ``update`` got no gradient, or masked leaves.
      ValueError: ``max_inner`` is not positive, or an oracle returned other shapes than ``params``.
    """
    check_count("max_inner", max_inner)
    check_range("max_inner", max_inner, "[1, 1073741824]")  # a float32 that fits an int32
    geometry = euclidean() if geometry is None else geometry

    def init_fn(params: optax.Params) -> AcceleratedSlidingState:
        zero = lambda: jnp.zeros([], jnp.int32)
        return AcceleratedSlidingState(zero(), *initial_points(params), *(zero() for _ in range(4)))

    def update_fn(
        updates: optax.Updates,
        state: AcceleratedSlidingState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AcceleratedSlidingState]:
        del extra_args
        check_update("slide_accelerated", updates, params)
        dtype = _tree.scalar_dtype(*jax.tree.leaves(params))
        number = (state.count + 1).astype(dtype)
        at = lambda sequence, *numbers: jnp.asarray(sequence(*numbers), dtype)
        mixing, beta = at(policy.mixing, number), at(policy.prox_weight, number)
        smoothing = None if policy.smoothing is None else at(policy.smoothing, number)
        wanted = at(policy.inner_length, number)
        length = jnp.minimum(wanted, max_inner).astype(jnp.int32)

        def slope(point: Any) -> Any:
            value = gradient(optax.tree.cast_like(point, params), batch, smoothing)
            check_shapes("gradient", value, params, "params")
            return optax.tree.cast_like(value, point)

        def inner(smooth_gradient: Any, center: Any, before: Any) -> tuple[Any, Any, None]:
            def step(t: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
                point, average = carry
                alpha = at(policy.inner_mixing, t.astype(dtype))
                weight = at(policy.inner_weight, number, t.astype(dtype))
                low = between(before, between(average, point, alpha), mixing)
                total = optax.tree.add(smooth_gradient, slope(low))
                point = geometry.step(total, center, beta, point, weight)
                return point, between(average, point, alpha)

            point, average = jax.lax.fori_loop(1, length + 1, step, (center, before))
            return point, average, None

        query_mixing = policy.mixing if policy.query_mixing is None else policy.query_mixing
        moved = outer_step(inner, mixing, at(query_mixing, number + 1), updates, state, params)
        return moved.updates, AcceleratedSlidingState(
            count=optax.safe_increment(state.count),
            prox_center=moved.prox_center,
            averaged_point=moved.averaged_point,
            num_smooth_gradients=optax.safe_increment(state.num_smooth_gradients),
            num_cheap_gradients=_counters.add(state.num_cheap_gradients, length),
            num_prox=_counters.add(state.num_prox, length),
            num_truncated=_counters.add(state.num_truncated, wanted > max_inner),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def saddle_gradient(operator: Callable[[Any], Any], dual: DualMap) -> CheapGradient:
    r"""The gradient of :math:`h_\eta(x) = \phi_\eta(K x + b)`: :math:`K^\top y_\eta(K x + b)`.

    The transpose is JAX's, so that the operator is all there is to write.

    Args:
      operator: ``operator(params) -> values``, linear or affine.
      dual: the maximizer, called as ``dual(values, smoothing)``; see
        :func:`stochopt.proximal.dual_of_l1` and its neighbours.
    """

    def gradient(params: Any, batch: Any, smoothing: Any) -> Any:
        del batch
        values, transpose = jax.vjp(operator, params)
        maximizer = dual(values, smoothing)
        check_shapes("dual", maximizer, values, "operator")
        (pulled,) = transpose(maximizer)
        return optax.tree.conj(pulled)

    return gradient
