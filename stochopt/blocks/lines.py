"""Ratios and differences of quadratics along a line: where their minima may be."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stochopt._checks import check_range


class CoordinateLine(NamedTuple):
    r"""Quadratic models along one coordinate, at :math:`x + t e_i`.

    Three numbers :math:`a_0, a_1, a_2` are the quadratic :math:`a_0 + a_1 t + \frac{a_2}{2} t^2`.
    """

    entry: jax.Array  #: :math:`x_i`; shape=()
    numerator: jax.Array  #: with the penalty as it is at :math:`t = 0`; shape=(3,)
    denominator: jax.Array  #: shape=(3,)
    ratio: jax.Array  #: the objective at the point, :math:`F(x)`; shape=()


#: ``candidates(line) -> steps``: an array of steps, with the global minimizer among them.
Candidates = Callable[[CoordinateLine], jax.Array]


def minimizers_of_ratio(line: CoordinateLine) -> jax.Array:
    r"""Both stationary points of a ratio of quadratics, in closed form.

    The cubic terms of :math:`a' b - a b'` cancel, so they are the roots of

    .. math::

       \frac{a_2 b_1 - a_1 b_2}{2} t^2 + (a_2 b_0 - a_0 b_2)\, t + (a_1 b_0 - a_0 b_1) = 0 .

    One of them is the minimum for a positive denominator, unless the infimum is at infinity. What
    is not real is NaN, and not taken.
    """
    (a0, a1, a2), (b0, b1, b2) = line.numerator, line.denominator
    quadratic, half_linear = (a2 * b1 - a1 * b2) / 2, (a2 * b0 - a0 * b2) / 2
    constant = a1 * b0 - a0 * b1
    # The sum has no cancellation; the other root follows from the product of both.
    root = jnp.sqrt(half_linear**2 - quadratic * constant)
    total = -(half_linear + jnp.where(half_linear >= 0, root, -root))
    return jnp.stack([total / quadratic, constant / total])


def minimizers_of_difference(line: CoordinateLine) -> jax.Array:
    r"""The minimizer of :math:`a(t) - F(x) b(t)`, for quadratics :math:`a` and :math:`b`.

    .. math:: t = -\frac{a_1 - F(x) b_1}{a_2 - F(x) b_2}

    NaN, which is not taken, if the denominator is not positive and there is no minimum.
    """
    _, slope, curvature = line.numerator - line.ratio * line.denominator
    return jnp.where(curvature > 0, -slope / curvature, jnp.nan)[None]


def with_l1_kink(candidates: Candidates, weight: Any) -> Candidates:
    r"""The same for numerators with the penalty :math:`h(x) = \lambda \|x\|_1`.

    On both sides of the kink, :math:`t = -x_i`, the numerator is a quadratic of its own. The
    candidates on each side, and the kink. A ratio may have its infimum at infinity, with no minimum
    at all: :func:`on_interval` gives it one.

    Args:
      candidates: :func:`minimizers_of_ratio`, :func:`minimizers_of_difference` or another.
      weight: :math:`\lambda \ge 0`.
    """
    check_range("weight", weight, "[0, inf)")

    def with_kink(line: CoordinateLine) -> jax.Array:
        lam = jnp.asarray(weight, line.entry.dtype)
        kink = -line.entry

        def on_side(sign: float) -> jax.Array:
            offset = lam * (sign * line.entry - jnp.abs(line.entry))
            shift = jnp.stack([offset, sign * lam, jnp.zeros_like(lam)])
            steps = candidates(line._replace(numerator=line.numerator + shift))
            return jnp.where(sign * (steps - kink) > 0, steps, kink)

        return jnp.concatenate([on_side(1.0), on_side(-1.0), kink[None]])

    return with_kink


def on_interval(candidates: Candidates, low: Any, high: Any) -> Candidates:
    r"""The same with every entry held in an interval, :math:`l \le x_i \le u`.

    Candidates outside are moved to its ends, which are candidates themselves: a ratio or difference
    that falls at both of its sides has its minimum there. The start must be inside.

    Args:
      candidates: :func:`minimizers_of_ratio`, :func:`minimizers_of_difference` or another.
      low: :math:`l`.
      high: :math:`u \ge l`.

    Raises:
      ValueError: ``high`` is below ``low``.
    """
    check_range("high", high, f"[{low}, inf]")

    def within(line: CoordinateLine) -> jax.Array:
        ends = jnp.stack([low - line.entry, high - line.entry])
        return jnp.append(jnp.clip(candidates(line), *ends), ends)

    return within
