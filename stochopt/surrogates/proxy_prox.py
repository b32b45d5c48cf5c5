"""A cheap proxy of an expensive loss: proximal point steps on what the proxy knows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _counters, _tree
from stochopt._checks import (
    check_arguments,
    check_count,
    check_range,
    require_params,
    require_whole_tree,
)
from stochopt._oracles import check_scalar
from stochopt._schedules import value_at
from stochopt.compositional import average_direction
from stochopt.surrogates.inner import displaced, inner_step, real_dot

#: ``proxy(params, batch) -> scalar``, cheap and similar to the target.
Proxy = Callable[[Any, Any], jax.Array]


class ProxyStepState(NamedTuple):
    """State of :func:`proxy_step`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    inner_optimizer: Any
    num_target_gradients: jax.Array  # shape=(), dtype=int32
    num_proxy_gradients: jax.Array  # shape=(), dtype=int32; stays at its maximum
    num_truncated: jax.Array  # inner loops that missed the accuracy; shape=(), dtype=int32
    inner_accuracy: jax.Array  # of the last inner loop; shape=(), float32 or wider


def proxy_step(
    proxy: Proxy,
    learning_rate: optax.ScalarOrSchedule,
    *,
    inner_optimizer: optax.GradientTransformation,
    accuracy: float = 0.0,
    max_inner: int = 10,
) -> optax.GradientTransformationExtraArgs:
    r"""The proximal point of a proxy whose gradient at the start is corrected.

    The incoming ``updates`` are :math:`G`, the gradient of an expensive target :math:`f` at
    ``params``, or an average of such gradients. With a cheap proxy :math:`\hat f`, one ``update``
    goes to

    .. math::

       y \approx \arg\min_y q(y), \qquad
       q(y) = \langle G - \nabla \hat f(x), y - x \rangle + \hat f(y)
       + \frac{1}{2 \eta} \|y - x\|^2

    and returns :math:`y - x`. The inner optimizer starts at :math:`x`, where
    :math:`\nabla q(x) = G`: the first of its steps is the one it would make on the target, and
    those that follow ask the proxy only. It ends when

    .. math:: \|\nabla q(y)\| < \frac{c}{\eta} \|y - x\|

    or after ``max_inner`` steps, which are all made if :math:`c = 0`. An update with :math:`K`
    steps takes :math:`K + 1` gradients of the proxy, all on the same batch.

    Args:
      proxy: ``proxy(params, batch) -> scalar``, :math:`\hat f`; need not be convex.
      learning_rate: :math:`\eta > 0`, a number or a schedule.
      inner_optimizer: of :math:`q`, whose smoothness is that of the proxy plus
        :math:`1 / \eta`; such as ``optax.sgd`` with one over that for its learning rate, or a line
        search of optax. Its state goes on from update to update.
      accuracy: :math:`c \ge 0`.
      max_inner: inner loops are not longer than this; ``num_truncated`` counts those that missed
        a positive ``accuracy``.

    Returns:
      The transformation. A step: it stands behind what averages gradients, and what it returns may
      be scaled. **Extra argument of** ``update``: ``batch``, passed on to ``proxy``; ``None`` by
      default. Its state holds ``inner_accuracy``, :math:`\eta \|\nabla q(y)\| / \|y - x\|`.

    Raises:
      TypeError: ``proxy`` takes other arguments; ``update`` got no gradient, or masked leaves.
      ValueError: a hyper-parameter is out of range, or ``proxy`` returned no scalar.
    """
    check_arguments("proxy", proxy, "params, batch")
    check_range("learning_rate", learning_rate, "(0, inf)")
    check_range("accuracy", accuracy, "[0, inf)")
    check_count("max_inner", max_inner)
    optimizer = optax.with_extra_args_support(inner_optimizer)

    def init_fn(params: optax.Params) -> ProxyStepState:
        zero = lambda: jnp.zeros([], jnp.int32)
        dtype = _tree.scalar_dtype(*jax.tree.leaves(params))
        return ProxyStepState(
            count=zero(),
            inner_optimizer=optimizer.init(_tree.zeros_at_least_float32(params)),
            num_target_gradients=zero(),
            num_proxy_gradients=zero(),
            num_truncated=zero(),
            inner_accuracy=jnp.zeros([], dtype),
        )

    def update_fn(
        updates: optax.Updates,
        state: ProxyStepState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ProxyStepState]:
        del extra_args
        require_params("proxy_step", params)
        require_whole_tree("proxy_step", params)
        if updates is None:
            raise TypeError("proxy_step: updates must be the gradient of the target at params.")
        dtype = state.inner_accuracy.dtype
        eta = jnp.asarray(value_at(learning_rate, state.count), dtype)
        start = _tree.zeros_at_least_float32(params)

        def cheap(displacement: Any) -> jax.Array:
            value = proxy(displaced(params, displacement), batch)
            check_scalar("proxy", value)
            return value.astype(dtype)

        def proxy_slope(displacement: Any) -> Any:
            return optax.tree.conj(jax.grad(cheap)(displacement))

        gradient = optax.tree.cast_like(updates, start)
        correction = optax.tree.sub(gradient, proxy_slope(start))

        def surrogate(d: Any) -> jax.Array:
            squared = real_dot(d, d, dtype)
            return real_dot(correction, d, dtype) + cheap(d) + squared / (2 * eta)

        def slope_at(d: Any) -> Any:
            pull = lambda c, s, d: c + s + d / eta.astype(jnp.finfo(d.dtype).dtype)
            return jax.tree.map(pull, correction, proxy_slope(d), d)

        def reached(slope: Any, d: Any) -> tuple[jax.Array, jax.Array]:
            norm = lambda tree: optax.tree.norm(tree).astype(dtype)
            return eta * norm(slope), norm(d)

        def goes_on(carry: tuple[Any, ...]) -> jax.Array:
            k, d, _, slope = carry
            residual, distance = reached(slope, d)
            return (k < max_inner) & ~(residual < accuracy * distance)

        def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            k, d, inner, slope = carry
            d, inner = inner_step(optimizer, surrogate, slope, inner, d, params)
            return k + 1, d, inner, slope_at(d)

        begin = jnp.zeros([], jnp.int32), start, state.inner_optimizer, gradient
        number, d, inner, slope = jax.lax.while_loop(goes_on, step, begin)
        residual, distance = reached(slope, d)
        missed = ~(residual < accuracy * distance) & (jnp.asarray(accuracy) > 0)
        return optax.tree.cast_like(d, params), ProxyStepState(
            count=optax.safe_increment(state.count),
            inner_optimizer=inner,
            num_target_gradients=optax.safe_increment(state.num_target_gradients),
            num_proxy_gradients=_counters.add(state.num_proxy_gradients, number + 1),
            num_truncated=_counters.add(state.num_truncated, missed),
            inner_accuracy=residual / jnp.where(distance > 0, distance, 1),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def proxy_prox(
    proxy: Proxy,
    learning_rate: optax.ScalarOrSchedule,
    *,
    inner_optimizer: optax.GradientTransformation,
    accuracy: float = 0.0,
    max_inner: int = 10,
    direction_rate: optax.ScalarOrSchedule = 1.0,
    outer_learning_rate: optax.ScalarOrSchedule = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""ProxyProx: the rate of gradient descent, with the distance to a proxy for the smoothness.

    For a target :math:`f` whose gradients are expensive and a cheap proxy :math:`\hat f` such that
    :math:`f - \hat f` is :math:`\delta`-smooth:

    .. math::

       G_t &= (1 - \beta)\, G_{t-1} + \beta g_t, \qquad G_0 = g_0 \\
       y_t &\approx \arg\min_y \; \langle G_t - \nabla \hat f(x_t), y \rangle + \hat f(y)
              + \frac{1}{2 \eta} \|y - x_t\|^2 \\
       x_{t+1} &= x_t + \alpha (y_t - x_t)

    This is :func:`stochopt.surrogates.proxy_step` behind
    :func:`stochopt.compositional.average_direction`, and a scaling. The smoothness :math:`L` of
    the target costs gradients of the proxy only. With exact gradients, :math:`\eta = 1 / (2
    \delta)`, :math:`\alpha = \beta = 1` and inner problems solved exactly,

    .. math:: \min_{t \le T} \|\nabla f(x_t)\|^2 \le \frac{18 \delta (f(x_0) - \min f)}{T}

    for any proxy; to a relative accuracy :math:`c`, the 18 is :math:`2 (3 + 2 c)^2`, if the inner
    loop lowered :math:`q`. With stochastic gradients, :math:`\eta \le 1 / (3 \delta)` and a convex
    proxy it has the rate of SGD on a :math:`\delta`-smooth function, in the Moreau envelope.

    ``updates`` are the gradient of the target at ``params``.
    **Extra argument of** ``update``: ``batch``, passed on to ``proxy``; ``None`` by default.

    Args:
      proxy: ``proxy(params, batch) -> scalar``, :math:`\hat f`, scaled as the target is.
      learning_rate: :math:`\eta > 0`, a number or a schedule.
      inner_optimizer: of the inner problem, whose smoothness is that of the proxy plus
        :math:`1 / \eta`; such as ``optax.sgd`` with one over that for its learning rate.
      accuracy: :math:`c \ge 0`; the inner loop ends where its gradient is shorter than
        :math:`c \|y - x\| / \eta`. Zero makes ``max_inner`` steps.
      max_inner: inner loops are not longer than this.
      direction_rate: :math:`\beta` in (0, 1], the weight on the new gradient.
      outer_learning_rate: :math:`\alpha`, a number or a schedule; one goes all the way.

    Returns:
      The optimizer. Its state counts gradients of target and proxy.

    Raises:
      TypeError: ``proxy`` takes other arguments; ``update`` got no gradient, or masked leaves.
      ValueError: a hyper-parameter is out of range, or ``proxy`` returned no scalar.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, stochopt
      >>> curvature = jnp.array([100.0, 1.0])
      >>> target = lambda x: jnp.sum(curvature * (x - 1.0) ** 2) / 2
      >>> proxy = lambda x, batch: jnp.sum((curvature + 0.5) * x**2) / 2
      >>> optimizer = stochopt.proxy_prox(
      ...     proxy, learning_rate=1.0, inner_optimizer=optax.sgd(1 / 101.5), max_inner=500)
      >>> params = jnp.zeros(2)
      >>> state = optimizer.init(params)
      >>> step = jax.jit(lambda p, s: optimizer.update(jax.grad(target)(p), s, p))
      >>> for _ in range(4):
      ...     updates, state = step(params, state)
      ...     params = optax.apply_updates(params, updates)
      ...     print(f"{params[0]:.3f} {params[1]:.3f}")
      0.985 0.400
      1.000 0.640
      1.000 0.784
      1.000 0.870

    References:
      Woodworth, Mishchenko, Bach, `Two Losses Are Better Than One: Faster Optimization Using a
      Cheaper Proxy <https://arxiv.org/abs/2302.03542>`_, ICML 2023
    """
    check_range("outer_learning_rate", outer_learning_rate, "(0, inf)")
    return optax.chain(
        average_direction(direction_rate),
        proxy_step(
            proxy,
            learning_rate,
            inner_optimizer=inner_optimizer,
            accuracy=accuracy,
            max_inner=max_inner,
        ),
        optax.scale_by_learning_rate(outer_learning_rate, flip_sign=False),
    )
