r"""What a sliding method does at its outer step number :math:`k`, as data.

A policy says how the outer loop mixes (:math:`\gamma_k`), how strongly the inner loop is held at
its centre (:math:`\beta_k`) and how long it is (:math:`T_k`). Each constructor here is one
algorithm, with the guarantee that follows from its numbers.

All of them rest on one inequality. Let :math:`\Psi = f + h + \chi` with :math:`f` convex and
:math:`L`-smooth, :math:`h` convex with
:math:`h(x) \le h(y) + \langle h'(y), x - y \rangle + M \|x - y\|`, and :math:`\chi`
:math:`\mu`-strongly convex. If :math:`\beta_k \ge L \gamma_k`, an outer step obeys, for every
:math:`u`,

.. math::

   \Psi(\bar x_k) - \Psi(u) + \gamma_k \frac{\beta_k + \mu}{1 - P_k} V(x_k, u) \le
   (1 - \gamma_k) \left[\Psi(\bar x_{k-1}) - \Psi(u)\right]
   + \gamma_k \frac{\beta_k + \mu P_k}{1 - P_k} V(x_{k-1}, u)
   + \frac{\gamma_k \, E}{(\beta_k + \mu)(T_k + 3)},

with :math:`V(x, u) = \tfrac12 \|u - x\|^2`, :math:`P_k = 2 / ((T_k + 1)(T_k + 2))` and
:math:`E = 4 M^2`. With subgradients that are right in expectation and off by :math:`\sigma` in the
root of the mean square, it holds in expectation with :math:`E = 8 (M^2 + \sigma^2)`.

.. warning::

   **M is twice the Lipschitz constant.** A :math:`G`-Lipschitz :math:`h` has :math:`M = 2 G`: the
   bound compares :math:`h` with a *linear model*, whose slope may point the other way. :math:`M` is
   the diameter of the set of subgradients, so a linear part of :math:`h` costs nothing.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stochopt._checks import check_count, check_range

#: A function of the number of the outer step, which starts at 1; a number or a traced scalar.
StepSchedule = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class SlidingPolicy:
    r"""Numbers of the outer steps; functions get :math:`k = 1, 2, \ldots`, a traced scalar.

    Attributes:
      mixing: :math:`\gamma_k` in (0, 1].
      prox_weight: :math:`\beta_k > 0`.
      inner_length: :math:`T_k \ge 1`, a whole number in a floating dtype, which cannot overflow.
      subgradient_bound: :math:`M`, twice the Lipschitz constant.
      noise: :math:`\sigma` of a stochastic subgradient; ``None`` of an exact one.
      strong_convexity: :math:`\mu` in the weights of the inner loop; zero where only convexity is
        used.
      bound: what :math:`\Psi(\bar x_k) - \min \Psi` is guaranteed not to exceed after :math:`k`
        steps (in expectation, where subgradients are stochastic).
      restart: whether step :math:`k` starts from :math:`\bar x_{k-1}` alone.
      gradient_batch_size: how many samples the smooth gradient of step :math:`k` averages, where
        it is stochastic.
    """

    mixing: StepSchedule
    prox_weight: StepSchedule
    inner_length: StepSchedule
    subgradient_bound: Any
    noise: Any = None
    strong_convexity: Any = 0.0
    bound: StepSchedule | None = None
    restart: StepSchedule = lambda k: False
    gradient_batch_size: StepSchedule | None = None


def fixed_horizon(
    smoothness: float,
    subgradient_bound: float,
    horizon: int,
    initial_distance: float,
    *,
    noise: float | None = None,
) -> SlidingPolicy:
    r"""Gradient sliding for :math:`N` outer steps; with ``noise`` stochastic gradient sliding.

    .. math::

       \gamma_k = \frac{2}{k + 1}, \quad \beta_k = \frac{2 L}{k}, \quad
       T_k = \left\lceil \frac{E N k^2}{6 L^2 V} \right\rceil, \qquad
       \Psi(\bar x_k) - \min \Psi \le \frac{6 L V}{k (k + 1)} \left(1 + \frac kN\right),

    with :math:`V = D^2 / 2`. For a gap of :math:`\epsilon` that is
    :math:`N = \sqrt{12 L V / \epsilon}` smooth gradients and about
    :math:`32 M^2 V / \epsilon^2` subgradients, as many as the subgradient method alone.

    Args:
      smoothness: :math:`L > 0` of the smooth part.
      subgradient_bound: :math:`M > 0`, **twice** the Lipschitz constant of the nonsmooth part.
      horizon: :math:`N`, the number of outer steps.
      initial_distance: :math:`D` with :math:`V(x_0, x^*) \le D^2 / 2`; in Euclidean geometry a
        bound on :math:`\|x_0 - x^*\|`.
      noise: :math:`\sigma` of a stochastic subgradient; ``None`` for exact ones.

    References:
      Lan, `Gradient sliding for composite optimization <https://arxiv.org/abs/1406.0919>`_, 2016
    """
    error = _inner_error(smoothness, subgradient_bound, noise)
    check_count("horizon", horizon)
    check_range("initial_distance", initial_distance, "(0, inf)")
    v = 0.5 * initial_distance**2
    return SlidingPolicy(
        mixing=lambda k: 2 / (k + 1),
        prox_weight=lambda k: 2 * smoothness / k,
        inner_length=lambda k: whole(error / (6 * v) * horizon * (k / smoothness) ** 2),
        subgradient_bound=subgradient_bound,
        noise=noise,
        bound=lambda k: 6 * smoothness * v / (k * (k + 1)) * (1 + k / horizon),
    )


def any_time(
    smoothness: float, subgradient_bound: float, diameter: float, *, noise: float | None = None
) -> SlidingPolicy:
    r"""Gradient sliding without a horizon, on a **bounded** domain.

    .. math::

       \gamma_k = \frac{3}{k + 2}, \quad \beta_k = \frac{9 L (1 - P_k)}{2 (k + 1)}, \quad
       T_k = \left\lceil \frac{2 E (k + 1)^3}{27 L^2 V} \right\rceil, \qquad
       \Psi(\bar x_k) - \min \Psi \le \frac{27 L V}{(k + 1)(k + 2)},

    with :math:`V = D^2 / 2`. There is no guarantee on an unbounded domain: the proof keeps
    :math:`V(x_k, x^*)` of every step.

    Args:
      smoothness: :math:`L > 0` of the smooth part.
      subgradient_bound: :math:`M > 0`, **twice** the Lipschitz constant of the nonsmooth part.
      diameter: :math:`D` of the domain of :math:`\chi`, with :math:`V \le D^2 / 2` on it.
      noise: :math:`\sigma` of a stochastic subgradient; ``None`` for exact ones.

    References:
      Lan, `Gradient sliding for composite optimization <https://arxiv.org/abs/1406.0919>`_, 2016
    """
    error = _inner_error(smoothness, subgradient_bound, noise)
    check_range("diameter", diameter, "(0, inf)")
    v = 0.5 * diameter**2

    def length(k: Any) -> jax.Array:
        return whole(2 * error / (27 * v * smoothness**2) * (k + 1) ** 3)

    def prox_weight(k: Any) -> jax.Array:
        t = length(k)
        return 4.5 * smoothness * (1 - 2 / (t + 1) / (t + 2)) / (k + 1)

    return SlidingPolicy(
        mixing=lambda k: 3 / (k + 2),
        prox_weight=prox_weight,
        inner_length=length,
        subgradient_bound=subgradient_bound,
        noise=noise,
        bound=lambda k: 27 * smoothness * v / ((k + 1) * (k + 2)),
    )


def multi_phase(
    smoothness: float,
    strong_convexity: float,
    subgradient_bound: float,
    initial_gap: float,
    *,
    noise: float | None = None,
) -> SlidingPolicy:
    r"""Gradient sliding restarted every :math:`N_0` steps: the baseline for restart-free sliding.

    .. math::

       N_0 = \left\lceil 2 \sqrt{5 L / \mu} \right\rceil, \qquad
       T_j = \left\lceil \frac{E N_0 \, j^2}{8 L^2 V_s} \right\rceil, \quad
       V_s = \frac{\Delta_0}{\mu 2^s}

    at step :math:`j` of phase :math:`s = 1, 2, \ldots`, with :math:`\gamma` and :math:`\beta` of
    :func:`fixed_horizon`. A phase halves the bound:
    :math:`\Psi(\bar x_{s N_0}) - \min \Psi \le \Delta_0 2^{-s}`. It suffices that
    :math:`\Psi - \min \Psi \ge \tfrac{\mu}{2} \|x - x^*\|^2`.

    Args:
      smoothness: :math:`L > 0` of the smooth part.
      strong_convexity: :math:`\mu` in (0, L] of the objective.
      subgradient_bound: :math:`M > 0`, **twice** the Lipschitz constant of the nonsmooth part.
      initial_gap: :math:`\Delta_0 \ge \Psi(x_0) - \min \Psi`.
      noise: :math:`\sigma` of a stochastic subgradient; ``None`` for exact ones.

    References:
      Lan, `Gradient sliding for composite optimization <https://arxiv.org/abs/1406.0919>`_, 2016
    """
    error = _inner_error(smoothness, subgradient_bound, noise)
    check_strong_convexity(strong_convexity, smoothness)
    check_range("initial_gap", initial_gap, "(0, inf)")

    def position(k: Any) -> tuple[jax.Array, Any, Any]:
        """Length of a phase, step in the phase, V of the phase."""
        phase_length = jnp.ceil(2 * jnp.sqrt(5 * smoothness / strong_convexity))
        done = jnp.floor((k - 0.5) / phase_length)  # away from whole numbers, where rounding bites
        return (
            phase_length,
            k - done * phase_length,
            initial_gap / strong_convexity / 2 ** (1 + done),
        )

    def length(k: Any) -> jax.Array:
        phase_length, j, v = position(k)
        return whole(error / (8 * v) * phase_length * (j / smoothness) ** 2)

    def bound(k: Any) -> Any:
        phase_length, j, v = position(k)
        return 2 * smoothness * v / (j * (j + 1)) * (6 + 4 * j / phase_length)

    return SlidingPolicy(
        mixing=lambda k: 2 / (position(k)[1] + 1),
        prox_weight=lambda k: 2 * smoothness / position(k)[1],
        inner_length=length,
        subgradient_bound=subgradient_bound,
        noise=noise,
        bound=bound,
        restart=lambda k: position(k)[1] == 1,
    )


def restart_free(
    smoothness: float,
    strong_convexity: float,
    subgradient_bound: float,
    initial_gap: float,
    *,
    noise: float | None = None,
) -> SlidingPolicy:
    r"""Sliding at a linear rate without restarts: :math:`\gamma` constant, :math:`T_k` geometric.

    .. math::

       \gamma = \min\left(\tfrac14, \tfrac12 \sqrt{\mu / L}\right), \quad
       \beta = L \gamma, \quad \rho = 1 - \tfrac{\gamma}{2}, \quad
       T_k = \left\lceil \frac{2 E}{(\beta + \mu) \Delta_0 \rho^k} \right\rceil, \qquad
       \Psi(\bar x_k) - \min \Psi \le \Delta_0 \rho^k,

    with :math:`\Delta_0 = 1.75 \, \Delta`. For a gap of :math:`\epsilon` that is
    :math:`4 \sqrt{L / \mu} \ln(\Delta_0 / \epsilon)` smooth gradients and, beyond one for each,
    :math:`64 M^2 / (\rho \mu \epsilon)` exact subgradients, without a condition number
    (:math:`128 (M^2 + \sigma^2) / (\rho \mu \epsilon)` stochastic ones).

    :math:`\Delta` is a knob, too, which trades the oracles: ten times larger costs
    :math:`(2 / \gamma) \ln 10` more smooth gradients and makes every inner loop ten times shorter.
    Smaller than the gap it still converges, at the same rate, from a larger constant.

    Args:
      smoothness: :math:`L > 0` of the smooth part.
      strong_convexity: :math:`\mu` in (0, L] of :math:`\chi`, the part with the proximal operator;
        see :func:`shift_strong_convexity` where the smooth part has it.
      subgradient_bound: :math:`M > 0`, **twice** the Lipschitz constant of the nonsmooth part.
      initial_gap: :math:`\Delta \ge \Psi(x_0) - \min \Psi`, such as :math:`\Psi(x_0)` less a lower
        bound.
      noise: :math:`\sigma` of a stochastic subgradient; ``None`` for exact ones.

    References:
      Source of the complexity: restart-free stochastic gradient sliding, 2026. The constants are
      derived here.
    """
    error = _inner_error(smoothness, subgradient_bound, noise)
    check_strong_convexity(strong_convexity, smoothness)
    check_range("initial_gap", initial_gap, "(0, inf)")
    mixing = lambda: _constant_mixing(strong_convexity / smoothness)

    def target(k: Any) -> Any:
        return 1.75 * initial_gap * (1 - mixing() / 2) ** k

    def length(k: Any) -> jax.Array:
        modulus = smoothness * mixing() + strong_convexity
        return whole(2 * error / (modulus * target(k)))

    return SlidingPolicy(
        mixing=lambda k: mixing(),
        prox_weight=lambda k: smoothness * mixing(),
        inner_length=length,
        subgradient_bound=subgradient_bound,
        noise=noise,
        strong_convexity=strong_convexity,
        bound=target,
    )


def restart_free_minibatch(
    smoothness: float,
    strong_convexity: float,
    subgradient_bound: float,
    initial_gap: float,
    gradient_noise: float,
    *,
    noise: float | None = None,
) -> SlidingPolicy:
    r"""Restart-free sliding where the smooth gradient is an average over samples, too.

    .. math::

       \gamma = \min\left(\tfrac14, \sqrt{\mu / (8 L)}\right), \quad
       \beta = 2 L \gamma, \quad \rho = 1 - \tfrac{\gamma}{2}, \quad
       T_k = \left\lceil \frac{4 E}{(\beta + \mu) \Delta_0 \rho^k} \right\rceil, \quad
       B_k = \left\lceil \frac{2 \sigma_f^2}{\gamma L \Delta_0 \rho^k} \right\rceil,

    with :math:`\Delta_0 = 1.75 \, \Delta` and
    :math:`\mathbb E\, \Psi(\bar x_k) - \min \Psi \le \Delta_0 \rho^k`. The batch
    size is ``policy.gradient_batch_size(k)``; the caller draws that many. In total they are of the
    order of :math:`\sigma_f^2 / (\mu \epsilon)`.

    Args:
      smoothness: :math:`L > 0` of the smooth part.
      strong_convexity: :math:`\mu` in (0, L] of :math:`\chi`, the part with the proximal operator.
      subgradient_bound: :math:`M > 0`, **twice** the Lipschitz constant of the nonsmooth part.
      initial_gap: :math:`\Delta \ge \Psi(x_0) - \min \Psi`.
      gradient_noise: :math:`\sigma_f > 0`, the root of the mean squared error of the smooth
        gradient on one sample.
      noise: :math:`\sigma` of a stochastic subgradient; ``None`` for exact ones.
    """
    error = _inner_error(smoothness, subgradient_bound, noise)
    check_strong_convexity(strong_convexity, smoothness)
    check_range("initial_gap", initial_gap, "(0, inf)")
    check_range("gradient_noise", gradient_noise, "(0, inf)")
    mixing = lambda: _constant_mixing(strong_convexity / (2 * smoothness))

    def target(k: Any) -> Any:
        return 1.75 * initial_gap * (1 - mixing() / 2) ** k

    def length(k: Any) -> jax.Array:
        modulus = 2 * smoothness * mixing() + strong_convexity
        return whole(4 * error / (modulus * target(k)))

    return SlidingPolicy(
        mixing=lambda k: mixing(),
        prox_weight=lambda k: 2 * smoothness * mixing(),
        inner_length=length,
        subgradient_bound=subgradient_bound,
        noise=noise,
        strong_convexity=strong_convexity,
        bound=target,
        gradient_batch_size=lambda k: whole(
            2 * gradient_noise**2 / (mixing() * smoothness * target(k))
        ),
    )


def restart_free_from_distance(
    smoothness: float,
    strong_convexity: float,
    subgradient_bound: float,
    initial_distance: float,
    *,
    noise: float | None = None,
) -> SlidingPolicy:
    r"""Gradient sliding that turns restart-free: needs a distance and no gap.

    The first :math:`k_0 = \lceil 2 / \gamma - 1 \rceil` steps are those of :func:`fixed_horizon`
    with :math:`N = k_0`, which wipes out the initial gap; the later ones have the constants of
    :func:`restart_free`,

    .. math::

       T_k = \max\left( T_{k_0},
         \left\lceil \frac{2 E}{(\beta + \mu) \Delta_1 \rho^{k - k_0}} \right\rceil \right), \qquad
       \Delta_1 = \frac{2 V}{k_0 (k_0 + 1)} \left( 6 L + \tfrac{\mu}{2} \right),

    with :math:`V = D^2 / 2` and
    :math:`\Psi(\bar x_k) - \min \Psi \le \Delta_1 \rho^{k - k_0}`. As :math:`\mu \to 0` the switch
    moves to infinity: then it is gradient sliding.

    Args:
      smoothness: :math:`L > 0` of the smooth part.
      strong_convexity: :math:`\mu` in (0, L] of :math:`\chi`, the part with the proximal operator.
      subgradient_bound: :math:`M > 0`, **twice** the Lipschitz constant of the nonsmooth part.
      initial_distance: :math:`D` with :math:`V(x_0, x^*) \le D^2 / 2`.
      noise: :math:`\sigma` of a stochastic subgradient; ``None`` for exact ones.
    """
    error = _inner_error(smoothness, subgradient_bound, noise)
    check_strong_convexity(strong_convexity, smoothness)
    check_range("initial_distance", initial_distance, "(0, inf)")
    v = 0.5 * initial_distance**2
    late_mixing = lambda: _constant_mixing(strong_convexity / smoothness)
    switch = lambda: jnp.ceil(2 / late_mixing() - 1)

    def bound(k: Any) -> jax.Array:
        last = switch()
        early = jnp.minimum(k, last)
        start = (3 * smoothness + strong_convexity / 2) + 3 * smoothness * early / last
        rate = 1 - late_mixing() / 2
        return 2 * v / (early * (early + 1)) * start * rate ** (k - early)

    def length(k: Any) -> jax.Array:
        last = switch()
        early = whole(error / (6 * v) * last * (jnp.minimum(k, last) / smoothness) ** 2)
        modulus = smoothness * late_mixing() + strong_convexity
        late = whole(2 * error / (modulus * bound(k)))
        return jnp.where(k <= last, early, jnp.maximum(early, late))

    return SlidingPolicy(
        mixing=lambda k: jnp.where(k <= switch(), 2 / (k + 1), late_mixing()),
        prox_weight=lambda k: smoothness * jnp.where(k <= switch(), 2 / k, late_mixing()),
        inner_length=length,
        subgradient_bound=subgradient_bound,
        noise=noise,
        strong_convexity=strong_convexity,
        bound=bound,
    )


# Constants are put together when a step asks for them, so that they have its precision, and may be
# traced.


def whole(length: Any) -> jax.Array:
    """The next whole number, at least one."""
    return jnp.maximum(1, jnp.ceil(length))


def _constant_mixing(ratio: Any) -> jax.Array:
    """The largest constant mixing weight at which the potential still contracts by it."""
    return jnp.minimum(0.25, 0.5 * jnp.sqrt(ratio))


def _inner_error(smoothness: Any, subgradient_bound: Any, noise: Any) -> Any:
    """E of the inequality above; checks the constants that every policy has."""
    check_range("smoothness", smoothness, "(0, inf)")
    check_range("subgradient_bound", subgradient_bound, "(0, inf)")
    if noise is None:
        return 4 * subgradient_bound**2
    check_range("noise", noise, "[0, inf)")
    return 8 * (subgradient_bound**2 + noise**2)


def check_strong_convexity(strong_convexity: Any, smoothness: Any) -> None:
    """Raises ``ValueError`` unless it is positive and at most the smoothness."""
    check_range("strong_convexity", strong_convexity, "(0, inf)")
    traced = any(isinstance(x, jax.core.Tracer) for x in (strong_convexity, smoothness))
    if not traced and strong_convexity > smoothness:
        raise ValueError(
            f"strong_convexity must not exceed smoothness, got {strong_convexity} and "
            f"{smoothness}; smoothness may be any upper bound, so raise it."
        )
