r"""Trackers: running estimates of an inner expectation :math:`g(x) = E_\zeta g_\zeta(x)`.

A tracker holds an estimate :math:`u_t` of :math:`g(x_t)` while :math:`x_t` moves. It is a rule of
how to take in one more sample; the estimator that uses it keeps the state. It works entry by entry,
so one rule serves a single value and the rows of a table. Rates are the weight *on the new sample*,
numbers or schedules, and :math:`\delta_t = E\|u_t - g(x_t)\|^2` is the error.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental import checkify

from stochopt import _tree
from stochopt._checks import check_count, check_range
from stochopt._schedules import value_at

#: From the rate to the weight on the difference between two points.
Correction = Callable[[Any], Any]


class Sample(NamedTuple):
    r"""What a tracker takes in.

    Attributes:
      value: :math:`g_\zeta(x_t)`; of one inner function, or of several blocks on a leading axis.
      at: :math:`g_\zeta` itself, to evaluate the same batch at another point.
      params: the current point :math:`x_t`.
      previous_params: the point of the last update, ``None`` unless the tracker asks for it.
      first: whether the value has never been touched; one boolean, or one for each block.
      count: number of updates before this one, for schedules.
    """

    value: Any
    at: Callable[[Any], Any]
    params: Any
    previous_params: Any
    first: jax.Array
    count: jax.Array  # type: ignore[assignment]


def _unchanged(value: Any, sample: Any, slope: Any) -> Any:
    del value, sample
    return slope


class Tracker(NamedTuple):
    """How an estimate of an inner value takes in a sample.

    Attributes:
      update: ``update(tracked, sample) -> (value, kept)``: from the kept :math:`u_{t-1}` and a
        :class:`stochopt.compositional.Sample`, the value to use now and the one to keep.
      keeps_previous: whether ``update`` needs the point of the last update.
      cotangent: ``cotangent(value, sample, slope)``: what to pull back through the sample of the
        inner function, from the slope of the outer function at the tracked value. It differs from
        ``slope`` where the tracker works on another scale than the expectation.
      uses_kept: whether the value to use is the one to keep.
    """

    update: Callable[[Any, Sample], tuple[Any, Any]]
    keeps_previous: bool = False
    cotangent: Callable[[Any, Any, Any], Any] = _unchanged
    uses_kept: bool = True


def moving_average(rate: optax.ScalarOrSchedule) -> Tracker:
    r"""The moving average, which lags behind a moving point.

    .. math::

       u_t = (1 - \gamma_t) u_{t-1} + \gamma_t g_\zeta(x_t), \qquad u_0 = g_\zeta(x_0),

    .. math::

       \delta_t \le (1 - \gamma) \delta_{t-1} + \gamma^2 \sigma^2
         + \frac{G^2}{\gamma} E\|x_t - x_{t-1}\|^2

    for a :math:`G`-Lipschitz :math:`g` and samples of variance :math:`\sigma^2`. One evaluation of
    the inner function.

    Args:
      rate: :math:`\gamma` in (0, 1]; a number or a schedule.

    References:
      Wang, Fang, Liu, `Stochastic Compositional Gradient Descent
      <https://arxiv.org/abs/1411.3803>`_, 2017
    """
    check_range("tracker_rate", rate, "(0, 1]")

    def update(tracked: Any, sample: Sample) -> tuple[Any, Any]:
        weight = value_at(rate, sample.count)
        new = jax.tree.map(lambda u, s: u + weight * (s.astype(u.dtype) - u), tracked, sample.value)
        return _twice(_touched(sample, new, tracked))

    return Tracker(update)


def extrapolated(rate: optax.ScalarOrSchedule) -> Tracker:
    r"""The moving average of samples at an extrapolated point, which removes the lag.

    .. math::

       q_t = x_{t-1} + \frac{x_t - x_{t-1}}{\gamma_t}, \qquad
       u_t = (1 - \gamma_t) u_{t-1} + \gamma_t g_\zeta(q_t), \qquad u_0 = g_\zeta(x_0) .

    Where :math:`g` is linear, :math:`g(x_t) = (1 - \gamma_t) g(x_{t-1}) + \gamma_t g(q_t)`, so the
    error is that of an average of the noise, whatever the motion:
    :math:`\delta_t = (1 - \gamma)^2 \delta_{t-1} + \gamma^2 \sigma^2` for independent samples;
    otherwise the curvature of :math:`g` along the step remains. The point :math:`q_t` lies far
    outside when :math:`\gamma` is small: the inner function has to be defined there. Two
    evaluations of it.

    Args:
      rate: :math:`\gamma` in (0, 1]; a number or a schedule.

    References:
      Wang, Liu, Fang, `Accelerating Stochastic Composition Optimization
      <https://arxiv.org/abs/1607.07329>`_, 2017
    """
    check_range("tracker_rate", rate, "(0, 1]")

    def update(tracked: Any, sample: Sample) -> tuple[Any, Any]:
        weight = value_at(rate, sample.count)
        motion = optax.tree.sub(sample.params, sample.previous_params)
        there = sample.at(_tree.add_scaled(sample.previous_params, 1 / weight, motion))
        new = jax.tree.map(lambda u, s: u + weight * (s.astype(u.dtype) - u), tracked, there)
        return _twice(_touched(sample, new, tracked))

    return Tracker(update, keeps_previous=True)


def recursive_tracker(
    rate: optax.ScalarOrSchedule, *, correction: Correction | None = None
) -> Tracker:
    r"""The recursive (STORM) tracker, which the motion of :math:`x` does not mislead.

    .. math::

       u_t = (1 - \beta_t) u_{t-1} + \beta_t g_\zeta(x_t)
         + \beta'_t \left(g_\zeta(x_t) - g_\zeta(x_{t-1})\right),
       \qquad u_0 = g_\zeta(x_0),

    with the *same* sample :math:`\zeta` at both points and :math:`\beta'_t = 1 - \beta_t` unless
    ``correction`` says otherwise. Its error then obeys

    .. math::

       \delta_t \le (1 - \beta) \delta_{t-1} + 2 \beta^2 \sigma^2
         + 2 E\|g_\zeta(x_t) - g_\zeta(x_{t-1})\|^2 .

    Without noise in :math:`g` it is exact for every rate and every motion; with additive noise the
    stationary variance is :math:`\beta \sigma^2 / (2 - \beta)`, whatever the motion. It may leave
    the convex hull of the samples. Two evaluations of the inner function.

    Args:
      rate: :math:`\beta` in (0, 1], the weight on the new sample; a number or a schedule.
      correction: from :math:`\beta` to :math:`\beta'`; ``None`` means :math:`1 - \beta`.

    References:
      Cutkosky, Orabona, `Momentum-Based Variance Reduction in Non-Convex SGD
      <https://arxiv.org/abs/1905.10018>`_, 2019;
      Chen, Sun, Yin, `Solving Stochastic Compositional Optimization is Nearly as Easy as Solving
      Stochastic Optimization <https://arxiv.org/abs/2008.10847>`_, 2021
    """
    check_range("tracker_rate", rate, "(0, 1]")

    def update(tracked: Any, sample: Sample) -> tuple[Any, Any]:
        weight = value_at(rate, sample.count)
        extra = 0.0 if correction is None else correction(weight) - (1 - weight)

        # In this order it is exact without noise, to the last digit.
        def track(u: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
            new, old = new.astype(u.dtype), old.astype(u.dtype)
            tracked = new + (1 - weight) * (u - old)
            return tracked if correction is None else tracked + extra * (new - old)

        there = sample.at(sample.previous_params)
        new = jax.tree.map(track, tracked, sample.value, there)
        return _twice(_touched(sample, new, tracked))

    return Tracker(update, keeps_previous=True)


def msvr_tracker(rate: optax.ScalarOrSchedule, *, num_blocks: int, num_sampled: int) -> Tracker:
    r"""The recursive tracker for blocks that are sampled now and then (MSVR).

    :func:`recursive_tracker` with the weight

    .. math:: \gamma' = \frac{n - B}{B (1 - \gamma)} + 1 - \gamma

    on the difference, for :math:`B` sampled of :math:`n` blocks: a block that waited for
    :math:`n / B` updates makes up for all of the motion at once. It is the weight that cancels the
    cross term between old error and motion, so that over the draw of the blocks

    .. math::

       E\delta_t \le \left(1 - \frac{B \gamma}{n}\right) \delta_{t-1}
         + \frac{2 B}{n} \gamma^2 \sigma^2 + \frac{12 n}{B} G^2 E\|x_t - x_{t-1}\|^2,
       \qquad \gamma \le \tfrac12 .

    The feedback is strong: steps must be :math:`O(B / n)`, or it diverges. With :math:`B = n` it is
    the recursive tracker.

    Args:
      rate: :math:`\gamma` in (0, 1); a number or a schedule.
      num_blocks: :math:`n`.
      num_sampled: :math:`B`, blocks in each update.

    References:
      Jiang et al., `Multi-block-Single-probe Variance Reduced Estimator for Coupled Compositional
      Optimization <https://arxiv.org/abs/2207.08540>`_, 2022
    """
    check_range("tracker_rate", rate, "(0, 1)")
    check_count("num_blocks", num_blocks)
    check_count("num_sampled", num_sampled)
    if num_sampled > num_blocks:
        raise ValueError(f"num_sampled={num_sampled} is more than num_blocks={num_blocks}.")
    ratio = (num_blocks - num_sampled) / num_sampled
    return recursive_tracker(rate, correction=lambda weight: ratio / (1 - weight) + 1 - weight)


def log_moving_average(rate: optax.ScalarOrSchedule, *, check: bool = False) -> Tracker:
    r"""The moving average of a positive inner value, kept as its logarithm.

    ``inner`` returns the *logarithm* :math:`\ell` of its (batch mean) value, and ``outer`` gets the
    logarithm :math:`\nu` of the tracked value:

    .. math::

       e^{\nu_t} = (1 - \gamma_t) e^{\nu_{t-1}} + \gamma_t e^{\ell_\zeta(x_t)},
       \qquad \nu_0 = \ell_\zeta(x_0) .

    It is :func:`moving_average`, with the same error :math:`\delta_t` of :math:`e^\nu`, and neither
    overflows nor underflows. The slope of the outer function in :math:`\nu` is pulled back through
    :math:`\ell` with the weight :math:`e^{\ell - \nu}`, at most :math:`1 / \gamma` for the batch
    that was tracked; an independent ``jacobian_batch`` has no such bound.

    Args:
      rate: :math:`\gamma` in (0, 1]; a number or a schedule.
      check: whether to raise when a sample is the logarithm of a number that is not positive and
        finite; a compiled step has to be wrapped with ``jax.experimental.checkify.checkify``.
    """
    check_range("tracker_rate", rate, "(0, 1]")

    def logits(tracked: jax.Array, count: jax.Array) -> jax.Array:
        del tracked
        weight = jnp.asarray(value_at(rate, count))
        return jnp.log(weight) - jnp.log1p(-weight)

    return _log_domain(logits, check)


def adaptive_log_moving_average(weight: optax.ScalarOrSchedule, *, check: bool = False) -> Tracker:
    r"""The logarithmic moving average whose rate grows with the tracked value (SCENT).

    .. math:: \gamma_t = \frac{a_t e^{\nu_{t-1}}}{1 + a_t e^{\nu_{t-1}}}

    in :func:`log_moving_average`. This is the proximal mirror step of length :math:`a_t`, with the
    Bregman divergence of :math:`\nu \mapsto e^{-\nu}`, on the convex function
    :math:`\nu \mapsto E e^{\ell - \nu} + \nu`, whose minimizer is the logarithm of the expectation.

    Args:
      weight: :math:`a > 0`; a number or a schedule. The rate is constant while
        :math:`a_t \propto e^{-\nu_{t-1}}`.
      check: see :func:`log_moving_average`.
    """
    check_range("tracker_weight", weight, "(0, inf)")

    def logits(tracked: jax.Array, count: jax.Array) -> jax.Array:
        return jnp.log(value_at(weight, count)) + tracked

    return _log_domain(logits, check)


def delayed(tracker: Tracker) -> Tracker:
    r"""The tracker, with the value *before* the present sample as the one to use.

    The outer function's slope at :math:`u_{t-1}` does not depend on the present sample, so one
    sample serves the tracker and the Jacobian without a bias: NASA's way. Not for a direction that
    is tracked recursively, which needs the value that was used before, too.
    """

    def update(tracked: Any, sample: Sample) -> tuple[Any, Any]:
        _, kept = tracker.update(tracked, sample)
        return _touched(sample, tracked, tracked), kept

    return tracker._replace(update=update, uses_kept=False)


def _log_domain(logits: Callable[[jax.Array, jax.Array], jax.Array], check: bool) -> Tracker:
    """A moving average of exponentials with rate ``sigmoid(logits)``."""

    def update(tracked: Any, sample: Sample) -> tuple[Any, Any]:
        if check:
            for leaf in jax.tree.leaves(sample.value):
                checkify.check(
                    jnp.all(jnp.isfinite(leaf)),
                    "inner: a log-domain tracker wants the logarithm of positive finite values.",
                )

        def track(nu: jax.Array, new: jax.Array) -> jax.Array:
            odds = logits(nu, sample.count)
            old = jax.nn.log_sigmoid(-odds) + nu
            fresh = jax.nn.log_sigmoid(odds) + new.astype(nu.dtype)
            return jnp.logaddexp(old, fresh).astype(nu.dtype)

        new = jax.tree.map(track, tracked, sample.value)
        return _twice(_touched(sample, new, tracked))

    def cotangent(value: Any, sample: Any, slope: Any) -> Any:
        def weighted(nu: jax.Array, new: jax.Array, s: jax.Array) -> jax.Array:
            return (s * jnp.exp(new.astype(nu.dtype) - nu)).astype(s.dtype)

        return jax.tree.map(weighted, value, sample, slope)

    return Tracker(update, cotangent=cotangent)


def _twice(tracked: Any) -> tuple[Any, Any]:
    return tracked, tracked


def _touched(sample: Sample, otherwise: Any, like: Any) -> Any:
    """The sample where a value has never been touched; in the dtype of ``like``."""

    def choose(new: jax.Array, x: jax.Array, u: jax.Array) -> jax.Array:
        first = _tree.expand(sample.first, u)
        return jnp.where(first, new.astype(u.dtype), x.astype(u.dtype))

    return jax.tree.map(choose, sample.value, otherwise, like)


def check_direction_rate(rate: optax.ScalarOrSchedule | None, tracker: Tracker) -> None:
    """Raises ``ValueError`` unless a direction can be tracked recursively with this rate."""
    if rate is None:
        return
    check_range("direction_rate", rate, "(0, 1]")
    if not tracker.uses_kept:
        raise ValueError("direction_rate: a delayed tracker cannot be at two points; average it.")
