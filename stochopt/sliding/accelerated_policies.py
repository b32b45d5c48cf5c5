r"""What accelerated sliding does at its outer step number :math:`k`, as data.

The cheap part :math:`h` is smooth here, or the smoothing of a maximum, and the inner loop is an
accelerated one. Let :math:`\Psi = f + h + \chi` with convex :math:`f` and :math:`h`, :math:`L`-
and :math:`L_h`-smooth, and :math:`\chi` :math:`\mu`-strongly convex, :math:`\mu \ge 0`. All
policies but :func:`accelerated_lan_ouyang` have one mixing weight :math:`\lambda`, for the query
point and the average, and in the inner loop

.. math::

   \alpha_t = \frac{2}{t + 1}, \qquad
   r_t = \frac{r_1}{t} + \frac{(\beta + \mu)(t - 1)}{2} .

If :math:`\beta \ge L \lambda` and :math:`r_1 \ge 2 L_h \lambda`, the whole inner loop is like one
accelerated proximal step with the weight :math:`\beta + \ell`: for every :math:`u`

.. math::

   \Psi(\bar x_k) - \Psi(u) + \lambda (\beta + \ell + \mu) V(x_k, u) \le
   (1 - \lambda) \left[\Psi(\bar x_{k-1}) - \Psi(u)\right] + \lambda (\beta + \ell) V(x_{k-1}, u),
   \qquad \ell = \frac{2 r_1}{T (T + 1)},

with :math:`V(x, u) = \tfrac12 \|u - x\|^2`. It follows from
:math:`s_t = t r_t = r_1 + (\beta + \mu) t (t - 1) / 2`, which makes the inner loop telescope and
keeps :math:`r_t \ge L_h \lambda \alpha_t`. There is no error term: an inner loop is as long as it
takes to make :math:`\ell` as small as :math:`\beta`.

Where :math:`h(x) = \max_{y \in Y} \langle K x, y \rangle - J(y)`, step :math:`k` sees
:math:`h_{\eta_k}`, smoothed by :math:`\eta_k W(y)` (see :class:`stochopt.proximal.DualMap`). With
:math:`D = \max_Y W` and
:math:`A_k(u) = \Psi_{\eta_k}(\bar x_k) - \Psi_{\eta_k}(u) + \eta_k D \ge \Psi(\bar x_k) - \Psi(u)`,
falling :math:`\eta_k` give

.. math::

   A_k(u) + \lambda (\beta + \ell + \mu) V(x_k, u) \le
   (1 - \lambda) A_{k-1}(u) + \lambda (\beta + \ell) V(x_{k-1}, u) + \lambda \eta_k D .
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from stochopt._checks import check_range
from stochopt.sliding.policies import StepSchedule, check_strong_convexity, whole


@dataclasses.dataclass(frozen=True)
class AcceleratedPolicy:
    r"""Numbers of the outer steps; functions get :math:`k = 1, 2, \ldots`, a traced scalar.

    Attributes:
      mixing: :math:`\lambda_k` in (0, 1], the weight in the average.
      prox_weight: :math:`\beta_k > 0`.
      inner_length: :math:`T_k \ge 1`, a whole number in a floating dtype, which cannot overflow.
      inner_weight: ``inner_weight(k, t)``, :math:`r_t \ge 0` of step :math:`k`, how strongly inner
        step :math:`t` is held at the one before.
      inner_mixing: :math:`\alpha_t` in (0, 1], a function of :math:`t` with :math:`\alpha_1 = 1`.
      query_mixing: :math:`\gamma_k` in (0, 1], the weight in the query point; ``None`` where it is
        :math:`\lambda_k`.
      smoothing: :math:`\eta_k` of the smoothed cheap part; ``None`` of a smooth one.
      bound: what :math:`\Psi(\bar x_k) - \min \Psi` is guaranteed not to exceed after :math:`k`
        steps (in expectation, where the smooth gradient is stochastic).
      gradient_batch_size: how many samples the smooth gradient of step :math:`k` averages, where
        it is stochastic.
    """

    mixing: StepSchedule
    prox_weight: StepSchedule
    inner_length: StepSchedule
    inner_weight: Callable[[Any, Any], Any]
    inner_mixing: StepSchedule = lambda t: 2 / (t + 1)
    query_mixing: StepSchedule | None = None
    smoothing: StepSchedule | None = None
    bound: StepSchedule | None = None
    gradient_batch_size: StepSchedule | None = None


def accelerated(
    smoothness: float, cheap_smoothness: float, initial_distance: float | None = None
) -> AcceleratedPolicy:
    r"""Accelerated gradient sliding for convex problems, at any time.

    .. math::

       \lambda_k = \frac{2}{k + 1}, \quad \beta_k = \frac{2 L}{k}, \quad r_1 = \frac{4 L_h}{k},
       \quad T = \left\lceil 2 \sqrt{L_h / L} \right\rceil, \qquad
       \Psi(\bar x_k) - \min \Psi \le \frac{4 L D^2}{k (k + 1)} .

    For a gap of :math:`\epsilon` that is :math:`2 D \sqrt{L / \epsilon}` smooth gradients and
    :math:`4 D \sqrt{L_h / \epsilon}` of the cheap part, each optimal in order.

    Args:
      smoothness: :math:`L > 0` of the smooth part.
      cheap_smoothness: :math:`L_h > 0` of the cheap part.
      initial_distance: :math:`D \ge \|x_0 - x^*\|`, for the bound alone; ``None`` for no bound.
    """
    _check_smoothness(smoothness, cheap_smoothness)
    bound: StepSchedule | None = None
    if initial_distance is not None:
        check_range("initial_distance", initial_distance, "(0, inf)")
        squared = initial_distance**2
        bound = lambda k: 4 * smoothness * squared / (k * (k + 1))
    return AcceleratedPolicy(
        mixing=lambda k: 2 / (k + 1),
        prox_weight=lambda k: 2 * smoothness / k,
        inner_length=lambda k: whole(2 * jnp.sqrt(cheap_smoothness / smoothness)),
        inner_weight=lambda k, t: 4 * cheap_smoothness / (k * t) + smoothness * (t - 1) / k,
        bound=bound,
    )


def accelerated_lan_ouyang(
    smoothness: float, cheap_smoothness: float, initial_distance: float
) -> AcceleratedPolicy:
    r"""Accelerated gradient sliding with the constants of its authors.

    .. math::

       \gamma_k &= \frac{2}{k + 1}, \quad
       T = \left\lceil \sqrt{L_h / L} \right\rceil, \quad
       \lambda_1 = 1, \quad \lambda_k = \gamma_k \frac{(T + 1)(T + 2)}{T (T + 3)}, \quad
       \beta_k = \frac{3 L \gamma_k}{k \lambda_k}, \\
       \alpha_t &= \frac{2 (t + 1)}{t (t + 3)}, \quad
       r_t = \frac{\beta_k t}{2} + \frac{6 L_h}{k (t + 1)}, \qquad
       \Psi(\bar x_k) - \min \Psi \le \frac{15 L D^2}{k (k + 1)} .

    An :math:`L_h` below :math:`L` is raised to it.

    Args:
      smoothness: :math:`L > 0` of the smooth part.
      cheap_smoothness: :math:`L_h > 0` of the cheap part.
      initial_distance: :math:`D \ge \|x_0 - x^*\|`, for the bound.

    References:
      Lan, Ouyang, `Accelerated gradient sliding for structured convex optimization
      <https://doi.org/10.1007/s10589-022-00365-z>`_, 2022.
    """
    _check_smoothness(smoothness, cheap_smoothness)
    check_range("initial_distance", initial_distance, "(0, inf)")
    raised = lambda: jnp.maximum(cheap_smoothness, smoothness)
    length = lambda: whole(jnp.sqrt(raised() / smoothness))

    def mixing(k: Any) -> Any:
        t = length()
        return jnp.where(k <= 1, 1.0, 2 / (k + 1) * (t + 1) * (t + 2) / (t * (t + 3)))

    def prox_weight(k: Any) -> Any:
        return 6 * smoothness / (k * (k + 1) * mixing(k))

    return AcceleratedPolicy(
        mixing=mixing,
        prox_weight=prox_weight,
        inner_length=lambda k: length(),
        inner_weight=lambda k, t: prox_weight(k) * t / 2 + 6 * raised() / (k * (t + 1)),
        inner_mixing=lambda t: 2 * (t + 1) / (t * (t + 3)),
        query_mixing=lambda k: 2 / (k + 1),
        bound=lambda k: 15 * smoothness * initial_distance**2 / (k * (k + 1)),
    )


def restart_free_accelerated(
    smoothness: float, strong_convexity: float, cheap_smoothness: float, initial_gap: float
) -> AcceleratedPolicy:
    r"""Accelerated sliding at a linear rate without restarts.

    .. math::

       \lambda = \min\left(\tfrac12, \tfrac12 \sqrt{\mu / L}\right), \quad \beta = L \lambda, \quad
       T = \left\lceil 2 \sqrt{L_h / L} \right\rceil, \quad
       r_1 = \frac{L \lambda T (T + 1)}{2}, \qquad
       \Psi(\bar x_k) - \min \Psi \le 2 \Delta (1 - \lambda)^k .

    For a gap of :math:`\epsilon` that is :math:`2 \sqrt{L / \mu} \ln(2 \Delta / \epsilon)` smooth
    gradients and :math:`4 \sqrt{L_h / \mu} \ln(2 \Delta / \epsilon)` of the cheap part, each
    optimal in order.

    Args:
      smoothness: :math:`L > 0` of the smooth part.
      strong_convexity: :math:`\mu` in (0, L] of :math:`\chi`, the part with the proximal operator;
        see :func:`shift_strong_convexity` where the smooth part has it.
      cheap_smoothness: :math:`L_h > 0` of the cheap part.
      initial_gap: :math:`\Delta \ge \Psi(x_0) - \min \Psi`, for the bound alone.
    """
    _check_smoothness(smoothness, cheap_smoothness)
    check_strong_convexity(strong_convexity, smoothness)
    check_range("initial_gap", initial_gap, "(0, inf)")
    mixing = lambda: jnp.minimum(0.5, 0.5 * jnp.sqrt(strong_convexity / smoothness))
    prox_weight = lambda k: smoothness * mixing()
    length = lambda k: whole(2 * jnp.sqrt(cheap_smoothness / smoothness))
    return AcceleratedPolicy(
        mixing=lambda k: mixing(),
        prox_weight=prox_weight,
        inner_length=length,
        inner_weight=_inner_weight(smoothness, strong_convexity, mixing, prox_weight, length),
        bound=lambda k: 2 * initial_gap * (1 - mixing()) ** k,
    )


def restart_free_smoothed(
    smoothness: float,
    strong_convexity: float,
    operator_norm: float,
    dual_diameter: float,
    initial_gap: float,
) -> AcceleratedPolicy:
    r"""Accelerated sliding on a smoothed maximum, with a smoothing that falls geometrically.

    .. math::

       \lambda = \min\left(\tfrac12, \tfrac12 \sqrt{\mu / L}\right), \quad \beta = L \lambda, \quad
       \rho = 1 - \tfrac{\lambda}{2}, \quad \eta_k = \frac{\Delta_0 \rho^k}{4 D}, \quad
       T_k = \left\lceil \frac{2 \|K\|}{\sqrt{\eta_k L}} \right\rceil, \quad
       r_1 = \frac{L \lambda T_k (T_k + 1)}{2},

    with :math:`\Delta_0 = 4 \Delta` and
    :math:`\Psi(\bar x_k) - \min \Psi \le \Delta_0 \rho^k`. For a gap of :math:`\epsilon` that is
    :math:`4 \sqrt{L / \mu} \ln(\Delta_0 / \epsilon)` smooth gradients and, beyond one for each,
    :math:`32 \|K\| \sqrt{D / (\rho \mu \epsilon)}` applications of :math:`K` and of its transpose.
    A fixed :math:`\eta` would need a logarithm more.

    Args:
      smoothness: :math:`L > 0` of the smooth part.
      strong_convexity: :math:`\mu` in (0, L] of :math:`\chi`, the part with the proximal operator;
        see :func:`shift_strong_convexity` where the smooth part has it.
      operator_norm: :math:`\|K\| > 0`, or an upper bound.
      dual_diameter: :math:`D > 0`, the ``diameter`` of the dual map.
      initial_gap: :math:`\Delta \ge \Psi(x_0) - \min \Psi`. Too large costs smooth gradients, too
        small costs applications of the operator.

    References:
      Source of the complexity: Wu, Xu, Zhang, `Restart-Free (Accelerated) Gradient Sliding Methods
      for Strongly Convex Composite Optimization <https://arxiv.org/abs/2602.04161>`_, 2026. The
      constants are derived here.
    """
    mixing = lambda: jnp.minimum(0.5, 0.5 * jnp.sqrt(strong_convexity / smoothness))
    return _smoothed(
        smoothness, strong_convexity, operator_norm, dual_diameter, initial_gap, mixing, slack=1
    )


def restart_free_smoothed_minibatch(
    smoothness: float,
    strong_convexity: float,
    operator_norm: float,
    dual_diameter: float,
    initial_gap: float,
    gradient_noise: float,
) -> AcceleratedPolicy:
    r"""The same where the smooth gradient is an average over samples.

    .. math::

       \lambda = \min\left(\tfrac14, \sqrt{\mu / (6 L)}\right), \quad \beta = 2 L \lambda, \quad
       B_k = \left\lceil \frac{2 \sigma_f^2}{\lambda L \Delta_0 \rho^k} \right\rceil,

    with the rest of :func:`restart_free_smoothed`; the bound holds in expectation. The batch size
    is ``policy.gradient_batch_size(k)``; the caller draws that many. In total they are of the order
    of :math:`\sigma_f^2 / (\mu \epsilon)`.

    Args:
      smoothness: :math:`L > 0` of the smooth part.
      strong_convexity: :math:`\mu` in (0, L] of :math:`\chi`, the part with the proximal operator.
      operator_norm: :math:`\|K\| > 0`, or an upper bound.
      dual_diameter: :math:`D > 0`, the ``diameter`` of the dual map.
      initial_gap: :math:`\Delta \ge \Psi(x_0) - \min \Psi`.
      gradient_noise: :math:`\sigma_f > 0`, the root of the mean squared error of the smooth
        gradient on one sample.
    """
    check_range("gradient_noise", gradient_noise, "(0, inf)")
    mixing = lambda: jnp.minimum(0.25, jnp.sqrt(strong_convexity / smoothness / 6))
    return _smoothed(
        smoothness,
        strong_convexity,
        operator_norm,
        dual_diameter,
        initial_gap,
        mixing,
        slack=2,
        gradient_noise=gradient_noise,
    )


def _smoothed(
    smoothness: Any,
    strong_convexity: Any,
    operator_norm: Any,
    dual_diameter: Any,
    initial_gap: Any,
    mixing: Callable[[], Any],
    slack: int,
    gradient_noise: Any = None,
) -> AcceleratedPolicy:
    r"""With :math:`\beta = L \lambda` times ``slack``; what is beyond one pays for noise."""
    check_range("smoothness", smoothness, "(0, inf)")
    check_strong_convexity(strong_convexity, smoothness)
    check_range("operator_norm", operator_norm, "(0, inf)")
    check_range("dual_diameter", dual_diameter, "(0, inf)")
    check_range("initial_gap", initial_gap, "(0, inf)")
    target = lambda k: 4 * initial_gap * (1 - mixing() / 2) ** k
    smoothing = lambda k: target(k) / (4 * dual_diameter)
    length = lambda k: whole(2 * operator_norm / jnp.sqrt(smoothing(k) * smoothness))
    prox_weight = lambda k: slack * smoothness * mixing()
    batch_size = lambda k: whole(2 * gradient_noise**2 / (mixing() * smoothness * target(k)))
    return AcceleratedPolicy(
        mixing=lambda k: mixing(),
        prox_weight=prox_weight,
        inner_length=length,
        inner_weight=_inner_weight(smoothness, strong_convexity, mixing, prox_weight, length),
        smoothing=smoothing,
        bound=target,
        gradient_batch_size=None if gradient_noise is None else batch_size,
    )


def _inner_weight(
    smoothness: Any,
    strong_convexity: Any,
    mixing: Callable[[], Any],
    prox_weight: StepSchedule,
    length: StepSchedule,
) -> Callable[[Any, Any], Any]:
    r"""The :math:`r_t` of an inner loop that is worth an :math:`\ell = L \lambda`."""

    def weight(k: Any, t: Any) -> Any:
        first = smoothness * mixing() * length(k) * (length(k) + 1) / 2
        return first / t + (prox_weight(k) + strong_convexity) * (t - 1) / 2

    return weight


def _check_smoothness(smoothness: Any, cheap_smoothness: Any) -> None:
    check_range("smoothness", smoothness, "(0, inf)")
    check_range("cheap_smoothness", cheap_smoothness, "(0, inf)")
