r"""The methods of papers on :math:`F(x) = f(E_\zeta g_\zeta(x))`, as chains of the parts."""

from typing import Any

import jax
import optax

from stochopt._checks import check_range
from stochopt.compositional.steps import (
    Projection,
    average_direction,
    averaged_projection,
    proximal_step,
)
from stochopt.compositional.trackers import (
    delayed,
    extrapolated,
    moving_average,
    recursive_tracker,
)
from stochopt.compositional.two_level import Inner, Outer, estimate_compositional
from stochopt.proximal import Prox


def scgd(
    inner: Inner,
    outer: Outer,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    tracker_rate: optax.ScalarOrSchedule = 0.1,
    projection: Projection | None = None,
    inner_shape: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""SCGD, the stochastic compositional gradient descent method.

    .. math::

       u_t &= (1 - \gamma_t) u_{t-1} + \gamma_t g_\zeta(x_t) \\
       x_{t+1} &= \Pi_X\left(x_t - \eta_t J_{g_{\zeta'}}(x_t)^T \nabla f_\xi(u_t)\right)

    With :math:`\eta \propto T^{-3/5}, \gamma \propto T^{-2/5}` the average of
    :math:`E\|\nabla F(x_t)\|^2` over :math:`T` steps is :math:`O(T^{-2/5})`; where the inner
    function is smooth too, :math:`\eta, \gamma \propto T^{-1/2}` give :math:`O(T^{-1/2})`. The
    simplest of the family and the cheapest: one evaluation of ``inner`` and one of its Jacobian.
    With one batch for both (no ``jacobian_batch``) a bias of the order of :math:`\gamma` remains.

    Args:
      inner: ``inner(params, batch) -> y``.
      outer: ``outer(y, params, batch) -> scalar``.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      tracker_rate: :math:`\gamma` in (0, 1], weight on the new sample; a number or a schedule.
      projection: ``projection(params) -> params`` onto a convex set, ``None`` for all of space.
      inner_shape: ``jax.eval_shape(inner, params, batch)``.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Wang, Fang, Liu, `Stochastic Compositional Gradient Descent
      <https://arxiv.org/abs/1411.3803>`_, 2017
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    estimator = estimate_compositional(
        inner, outer, tracker=moving_average(tracker_rate), inner_shape=inner_shape
    )
    if projection is None:
        return optax.chain(estimator, optax.scale_by_learning_rate(learning_rate))
    return optax.chain(
        estimator, proximal_step(learning_rate, lambda params, step: projection(params))
    )


def asc_pg(
    inner: Inner,
    outer: Outer,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    tracker_rate: optax.ScalarOrSchedule = 0.1,
    prox: Prox | None = None,
    inner_shape: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""ASC-PG, the accelerated stochastic compositional proximal gradient method.

    Samples the inner function at a point extrapolated from the last step, so that the tracked value
    does not lag behind, see :func:`stochopt.compositional.extrapolated`:

    .. math::

       q_t &= x_{t-1} + (x_t - x_{t-1}) / \gamma_t, \qquad
       u_t = (1 - \gamma_t) u_{t-1} + \gamma_t g_\zeta(q_t) \\
       x_{t+1} &= \mathrm{prox}_{\eta_t r}\left(
         x_t - \eta_t J_{g_{\zeta'}}(x_t)^T \nabla f_\xi(u_t)\right)

    With :math:`\eta \propto T^{-5/9}, \gamma \propto T^{-4/9}` the average of
    :math:`E\|\nabla F(x_t)\|^2` is :math:`O(T^{-4/9})`, with an inner or outer function that is
    linear :math:`O(T^{-1/2})`. The inner function must be defined at :math:`q_t`, outside of any
    constraint; where it grows fast, take :func:`stochopt.scsc`.

    Args:
      inner: ``inner(params, batch) -> y``.
      outer: ``outer(y, params, batch) -> scalar``.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      tracker_rate: :math:`\gamma` in (0, 1], weight on the new sample; a number or a schedule.
      prox: ``prox(params, step) -> params`` of a term :math:`r`, such as those of
        :mod:`stochopt.proximal`; ``None`` for :math:`r = 0`.
      inner_shape: ``jax.eval_shape(inner, params, batch)``.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Wang, Liu, Fang, `Accelerating Stochastic Composition Optimization
      <https://arxiv.org/abs/1607.07329>`_, 2017
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    estimator = estimate_compositional(
        inner, outer, tracker=extrapolated(tracker_rate), inner_shape=inner_shape
    )
    if prox is None:
        return optax.chain(estimator, optax.scale_by_learning_rate(learning_rate))
    return optax.chain(estimator, proximal_step(learning_rate, prox))


def nasa(
    inner: Inner,
    outer: Outer,
    step: optax.ScalarOrSchedule = 0.1,
    *,
    tracker_weight: jax.typing.ArrayLike = 1.0,
    direction_weight: jax.typing.ArrayLike = 1.0,
    learning_rate: optax.ScalarOrSchedule = 1.0,
    projection: Projection | None = None,
    inner_shape: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""NASA, nested averaged stochastic approximation, for constrained problems.

    One time scale :math:`\tau_t` for the point, the direction and the inner value:

    .. math::

       z_t &= (1 - a \tau_t) z_{t-1} + a \tau_t \, J_{g_\zeta}(x_t)^T \nabla f_\xi(u_{t-1}) \\
       u_t &= (1 - b \tau_t) u_{t-1} + b \tau_t \, g_\zeta(x_t) \\
       x_{t+1} &= x_t + \tau_t \left(\Pi_X(x_t - \eta z_t) - x_t\right)

    The direction takes the value of :math:`u` *before* the present sample, so one sample for both
    does no harm. Feasible from a feasible start. With :math:`\tau \propto T^{-1/2}` the squared
    distance to stationarity, :math:`\|\Pi_X(x - z) - x\|^2 + \|z - \nabla F(x)\|^2`, is
    :math:`O(T^{-1/2})` on average.

    Args:
      inner: ``inner(params, batch) -> y``.
      outer: ``outer(y, params, batch) -> scalar``.
      step: :math:`\tau` in (0, 1], a number or a schedule.
      tracker_weight: :math:`b > 0`, with :math:`b \tau \le 1`.
      direction_weight: :math:`a > 0`, with :math:`a \tau \le 1`.
      learning_rate: :math:`\eta > 0`, a number or a schedule; of the order of one over the
        smoothness constant of :math:`F`.
      projection: ``projection(params) -> params`` onto a convex set, of ``optax.projections``;
        ``None`` for all of space.
      inner_shape: ``jax.eval_shape(inner, params, batch)``.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Ghadimi, Ruszczynski, Wang, `A Single Timescale Stochastic Approximation Method for Nested
      Stochastic Optimization <https://arxiv.org/abs/1812.01094>`_, 2020
    """
    check_range("step", step, "(0, 1]")
    check_range("tracker_weight", tracker_weight, "(0, inf)")
    check_range("direction_weight", direction_weight, "(0, inf)")

    def times(weight: jax.typing.ArrayLike) -> optax.ScalarOrSchedule:
        return (lambda count: weight * step(count)) if callable(step) else weight * step

    return optax.chain(
        estimate_compositional(
            inner,
            outer,
            tracker=delayed(moving_average(times(tracker_weight))),
            inner_shape=inner_shape,
        ),
        average_direction(times(direction_weight)),
        averaged_projection(
            step, projection or (lambda params: params), learning_rate=learning_rate
        ),
    )


def scma(
    inner: Inner,
    outer: Outer,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    tracker_rate: optax.ScalarOrSchedule = 0.1,
    direction_rate: optax.ScalarOrSchedule = 0.1,
    inner_shape: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""SCMA, the stochastic compositional momentum method with moving averages.

    .. math::

       u_t &= (1 - \gamma_t) u_{t-1} + \gamma_t g_\zeta(x_t) \\
       v_t &= (1 - \beta_t) v_{t-1} + \beta_t J_{g_{\zeta'}}(x_t)^T \nabla f_\xi(u_t) \\
       x_{t+1} &= x_t - \eta_t v_t

    With :math:`\eta, \gamma, \beta \propto T^{-1/2}` the average of :math:`E\|\nabla F(x_t)\|^2` is
    :math:`O(T^{-1/2})` without smoothness of the inner function, and the direction's error
    :math:`E\|v_t - \nabla F(x_t)\|^2` vanishes as well.

    Args:
      inner: ``inner(params, batch) -> y``.
      outer: ``outer(y, params, batch) -> scalar``.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      tracker_rate: :math:`\gamma` in (0, 1], weight on the new sample; a number or a schedule.
      direction_rate: :math:`\beta` in (0, 1], weight on the new direction; a number or a schedule.
      inner_shape: ``jax.eval_shape(inner, params, batch)``.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Ghadimi, Ruszczynski, Wang, `A Single Timescale Stochastic Approximation Method for Nested
      Stochastic Optimization <https://arxiv.org/abs/1812.01094>`_, 2020, without constraints
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    return optax.chain(
        estimate_compositional(
            inner, outer, tracker=moving_average(tracker_rate), inner_shape=inner_shape
        ),
        average_direction(direction_rate),
        optax.scale_by_learning_rate(learning_rate),
    )


def scsc(
    inner: Inner,
    outer: Outer,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    tracker_rate: optax.ScalarOrSchedule = 0.1,
    inner_shape: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""SCSC, the stochastically corrected stochastic compositional gradient method.

    Minimizes :math:`F(x) = f(E_\zeta g_\zeta(x))` with one batch a step:

    .. math::

       u_t &= (1 - \beta_t)\left(u_{t-1} - g_\zeta(x_{t-1})\right) + g_\zeta(x_t) \\
       x_{t+1} &= x_t - \alpha_t \, J_{g_\zeta}(x_t)^T \nabla f_\xi(u_t)

    It is ``chain(estimate_compositional(...), scale_by_learning_rate(...))``; to drive another
    step, such as Adam's, chain :func:`stochopt.compositional.estimate_compositional` with it.
    With :math:`\alpha_t, \beta_t \propto 1 / \sqrt{T}` the average of
    :math:`E\|\nabla F(x_t)\|^2` over :math:`T` steps is :math:`O(T^{-1/2})`. The ratio
    :math:`\beta / \alpha` governs stability. Cost a step: two forward passes and one backward pass
    of ``inner``; memory: the inner value and one copy of ``params``.

    Args:
      inner: ``inner(params, batch) -> y``.
      outer: ``outer(y, params, batch) -> scalar``.
      learning_rate: :math:`\alpha \ge 0`, a number or a schedule.
      tracker_rate: :math:`\beta` in (0, 1], weight on the new sample; a number or a schedule.
      inner_shape: ``jax.eval_shape(inner, params, batch)``.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, stochopt
      >>> inner = lambda x, noise: (1.0 + noise) * x      # E inner = x
      >>> outer = lambda y, x, noise: jnp.sum((y - 1.0) ** 2)
      >>> params, key = jnp.zeros(3), jax.random.key(0)
      >>> shape = jax.eval_shape(inner, params, 0.0)
      >>> optimizer = stochopt.scsc(inner, outer, 0.05, tracker_rate=0.1, inner_shape=shape)
      >>> state = optimizer.init(params)
      >>> @jax.jit
      ... def step(params, state, noise):
      ...     updates, state = optimizer.update(None, state, params, batch=noise)
      ...     return optax.apply_updates(params, updates), state
      >>> for noise in jax.random.normal(key, (300,)):
      ...     params, state = step(params, state, noise)
      >>> bool(jnp.all(jnp.abs(params - 1.0) < 0.2))  # the naive gradient: 0.5
      True

    References:
      Chen, Sun, Yin, `Solving Stochastic Compositional Optimization is Nearly as Easy as Solving
      Stochastic Optimization <https://arxiv.org/abs/2008.10847>`_, 2021
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    check_range("tracker_rate", tracker_rate, "(0, 1]")
    return optax.chain(
        estimate_compositional(
            inner, outer, tracker=recursive_tracker(tracker_rate), inner_shape=inner_shape
        ),
        optax.scale_by_learning_rate(learning_rate),
    )


def scst(
    inner: Inner,
    outer: Outer,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    tracker_rate: optax.ScalarOrSchedule = 0.1,
    direction_rate: optax.ScalarOrSchedule = 0.1,
    inner_shape: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""SCST: variance reduction of the inner value and of the direction (STORM for both).

    With :math:`z_t(x, u) = J_{g_{\zeta'}}(x)^T \nabla f_\xi(u)`, the same samples at both points
    and the *old* tracked value at the old point, and :math:`\zeta'` independent of :math:`\zeta`
    (pass ``jacobian_batch``: without it a bias of the order of :math:`\gamma / \beta` stays):

    .. math::

       u_t &= (1 - \gamma_t) \left(u_{t-1} - g_\zeta(x_{t-1})\right) + g_\zeta(x_t) \\
       v_t &= (1 - \beta_t) \left(v_{t-1} - z_t(x_{t-1}, u_{t-1})\right) + z_t(x_t, u_t) \\
       x_{t+1} &= x_t - \eta_t v_t

    With :math:`\eta \propto T^{-1/3}` and :math:`\gamma, \beta \propto T^{-2/3}` the average of
    :math:`E\|\nabla F(x_t)\|^2` is :math:`O(T^{-2/3})` if values and Jacobians are smooth in mean
    square and the first batch is accurate. Twice the evaluations of :func:`stochopt.scma`, and
    three copies of ``params``.

    Args:
      inner: ``inner(params, batch) -> y``.
      outer: ``outer(y, params, batch) -> scalar``.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      tracker_rate: :math:`\gamma` in (0, 1], weight on the new sample; a number or a schedule.
      direction_rate: :math:`\beta` in (0, 1], weight on the new direction; a number or a schedule.
      inner_shape: ``jax.eval_shape(inner, params, batch)``.

    Returns:
      The optimizer; ``update`` needs ``batch`` and should get ``jacobian_batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Chen, Zhou, `Momentum Schemes with Stochastic Variance Reduction for Nonconvex Composite
      Optimization <https://arxiv.org/abs/1902.02715>`_, 2019
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    return optax.chain(
        estimate_compositional(
            inner,
            outer,
            tracker=recursive_tracker(tracker_rate),
            inner_shape=inner_shape,
            direction_rate=direction_rate,
        ),
        optax.scale_by_learning_rate(learning_rate),
    )
