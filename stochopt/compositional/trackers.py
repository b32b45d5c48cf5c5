r"""Trackers: running estimates of an inner expectation :math:`g(x) = E_\zeta g_\zeta(x)`.

A tracker holds an estimate :math:`u_t` of :math:`g(x_t)` while :math:`x_t` moves. It is a pair of
pure functions like an optimizer; rates are the weight *on the new sample*, numbers or schedules.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import check_range


class TrackerUpdateFn(Protocol):
    """One update of a tracker."""

    def __call__(
        self,
        state: Any,
        count: jax.Array,
        params: Any,
        sample: Any,
        inner_at: Callable[[Any], Any],
    ) -> tuple[Any, Any]:
        r"""Returns the new estimate and the new state.

        Args:
          state: the tracker's state.
          count: number of updates before this one.
          params: the current point :math:`x_t`.
          sample: :math:`g_\zeta(x_t)`.
          inner_at: :math:`g_\zeta` itself, to evaluate the same batch at another point.
        """


class Tracker(NamedTuple):
    """A pair of pure functions that track an inner value.

    Attributes:
      init: ``init(params, inner_shape) -> state``.
      update: see :class:`stochopt.compositional.TrackerUpdateFn`.
    """

    init: Callable[[Any, Any], Any]
    update: TrackerUpdateFn


class RecursiveTrackerState(NamedTuple):
    """State of :func:`recursive_tracker`."""

    tracked_value: Any  # u, like the inner value, float32 or wider
    previous_params: Any  # the point of the last update, like params


def recursive_tracker(rate: optax.ScalarOrSchedule) -> Tracker:
    r"""The recursive (STORM) tracker, which the motion of :math:`x` does not mislead.

    .. math::

       u_t = (1 - \beta_t)\left(u_{t-1} - g_\zeta(x_{t-1})\right) + g_\zeta(x_t),
       \qquad u_0 = g_\zeta(x_0),

    with the *same* sample :math:`\zeta` at both points. Its error obeys

    .. math::

       E\|u_t - g(x_t)\|^2 \le (1 - \beta) E\|u_{t-1} - g(x_{t-1})\|^2 + 2 \beta^2 \sigma^2
         + 2 E\|g_\zeta(x_t) - g_\zeta(x_{t-1})\|^2 .

    Without noise in :math:`g` it is exact for every rate and every motion; with additive noise the
    stationary variance is :math:`\beta \sigma^2 / (2 - \beta)`, whatever the motion.

    Args:
      rate: :math:`\beta` in (0, 1], the weight on the new sample; a number or a schedule.

    References:
      Cutkosky, Orabona, `Momentum-Based Variance Reduction in Non-Convex SGD
      <https://arxiv.org/abs/1905.10018>`_, 2019;
      Chen, Sun, Yin, `Solving Stochastic Compositional Optimization is Nearly as Easy as Solving
      Stochastic Optimization <https://arxiv.org/abs/2008.10847>`_, 2021
    """
    check_range("tracker_rate", rate, "(0, 1]")

    def init_fn(params: Any, inner_shape: Any) -> RecursiveTrackerState:
        def zeros(leaf: Any) -> jax.Array:
            return jnp.zeros(leaf.shape, _tree.at_least_float32(leaf.dtype))

        return RecursiveTrackerState(
            tracked_value=jax.tree.map(zeros, inner_shape),
            # Not read before the first update has written it, so zeros do.
            previous_params=optax.tree.zeros_like(params),
        )

    def update_fn(
        state: RecursiveTrackerState,
        count: jax.Array,
        params: Any,
        sample: Any,
        inner_at: Callable[[Any], Any],
    ) -> tuple[Any, RecursiveTrackerState]:
        beta = rate(count) if callable(rate) else rate
        first = count == 0
        # On first touch both points coincide, so that the old sample is finite wherever the new is.
        previous = optax.tree.where(first, params, state.previous_params)

        def track(u: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
            new, old = new.astype(u.dtype), old.astype(u.dtype)
            tracked = (new + (1 - beta) * (u - old)).astype(u.dtype)
            return jnp.where(first, new, tracked)

        tracked = jax.tree.map(track, state.tracked_value, sample, inner_at(previous))
        return tracked, RecursiveTrackerState(tracked, _tree.copy(params))

    return Tracker(init_fn, update_fn)
