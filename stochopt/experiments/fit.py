"""The exponent of a power law, with an interval, from errors of many seeds at several costs."""

from typing import NamedTuple

import numpy as np

#: Points on the ladder that a fit needs.
FEWEST = 4
#: Level of the interval: high, so that a table of many rows is not failed by one row's bad luck.
LEVEL = 0.99
_RESAMPLES = 4000


class TooShortError(ValueError):
    """Too few points for a fit; the message says how many there are and why."""


class Fit(NamedTuple):
    r"""A power law :math:`c \, N^{-p}`.

    Attributes:
      exponent: :math:`p`, positive when the error falls.
      low: lower end of the 99 % bootstrap interval of :math:`p`.
      high: its upper end.
      coefficient: :math:`c`.
      used: which points of the ladder were fitted, a mask.
    """

    exponent: float
    low: float
    high: float
    coefficient: float
    used: np.ndarray


def power_law(costs: np.ndarray, errors: np.ndarray, floor: float = 0.0) -> Fit:
    r"""Fits a line to log(mean error over seeds) against log(cost).

    Points from the first whose error is at most ``floor`` on are rounding and left out. Of the
    others the upper half of the ladder counts as its asymptotic part, but never fewer than four
    points. The interval comes from 4,000 bootstrap resamples of the seeds.

    Args:
      costs: shape (points,), rising.
      errors: shape (seeds, points), not negative.
      floor: level of rounding.

    Raises:
      TooShortError: fewer than four points are above the floor.
    """
    means = errors.mean(axis=0)
    above = np.cumprod(means > floor).astype(bool)
    total = int(above.sum())
    if total < FEWEST:
        at_floor = len(costs) - total
        why = f", {at_floor} at the level of rounding" if at_floor else ""
        raise TooShortError(f"the ladder is too short: {total} horizons{why}; a fit needs {FEWEST}")
    used = above & (np.arange(len(costs)) >= total - max(FEWEST, (total + 1) // 2))

    x = np.log(costs[used])
    weights = (x - x.mean()) / np.sum(np.square(x - x.mean()))  # slope = weights @ y
    slope_of = lambda means: np.log(means[..., used]) @ weights
    draws = np.random.default_rng(0).integers(0, len(errors), (_RESAMPLES, len(errors)))
    low, high = np.quantile(
        -slope_of(errors[draws].mean(axis=1)), [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    )
    exponent = -slope_of(means)
    # Without noise all resamples give one number, up to rounding.
    low, high = min(low, exponent), max(high, exponent)
    coefficient = np.exp(np.mean(np.log(means[used])) + exponent * x.mean())
    return Fit(float(exponent), float(low), float(high), float(coefficient), used)
