"""Total variation in one dimension, by dynamic programming: exact, in linear time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stochopt._checks import check_range
from stochopt.proximal.operator import ProximalOperator, scalars, total


def total_variation(weight: Any, axis: int = -1) -> ProximalOperator:
    r"""The total variation along an axis, :math:`\lambda \sum_i |x_{i+1} - x_i|`.

    The fused lasso's penalty; its operator makes signals piecewise constant. There is no formula,
    but an exact algorithm, :math:`2 n` turns of constant cost for a signal of length :math:`n`. The
    signals that lie side by side along the other axes are taken one after the other; under
    ``jax.vmap`` they advance together.

    On a piece the result is the mean of the signal plus :math:`s \lambda` times the jumps' signs
    over the length of the piece. That is what derivatives are taken of, where they exist: in
    points from which small changes do not merge or split pieces.

    Args:
      weight: :math:`\lambda \ge 0`.
      axis: the axis along which a signal runs; the other axes count signals.

    Raises:
      TypeError: a leaf is complex.
      ValueError: a leaf has no such axis.

    References:
      Johnson, `A Dynamic Programming Algorithm for the Fused Lasso and L0-Segmentation
      <https://doi.org/10.1080/10618600.2012.681238>`_, 2013.
    """
    check_range("weight", weight, "[0, inf)")

    def prox(x: jax.Array, step: Any) -> jax.Array:
        _check(x, axis)
        lam, s = scalars(x, weight, step)
        if x.shape[axis] < 2:
            return x
        signals = jnp.moveaxis(x, axis, -1)
        rows = signals.reshape(-1, signals.shape[-1])
        denoised = jax.lax.map(lambda row: _denoise(row, s * lam), rows)
        return jnp.moveaxis(denoised.reshape(signals.shape), -1, axis)

    def variation(x: jax.Array) -> jax.Array:
        _check(x, axis)
        return scalars(x, weight)[0] * jnp.abs(jnp.diff(x, axis=axis))

    return ProximalOperator(
        lambda params, step: jax.tree.map(lambda x: prox(x, step), params),
        lambda params: total(variation, params),
    )


def _check(x: jax.Array, axis: int) -> None:
    if jnp.iscomplexobj(x):
        raise TypeError("total_variation: leaves must be real, got a complex one.")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"total_variation: a leaf of shape {x.shape} has no axis {axis}.")


def _denoise(signal: jax.Array, weight: jax.Array) -> jax.Array:
    """The minimizer for one signal, as a function of the signal once its pieces are known."""
    pieces = jax.lax.stop_gradient(_solve(*jax.lax.stop_gradient((signal, weight))))
    jumps = jnp.diff(pieces)
    label = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(jumps != 0, dtype=jnp.int32)])
    signs = jnp.sign(jumps)
    pushed = signal + weight * (jnp.pad(signs, (0, 1)) - jnp.pad(signs, (1, 0)))
    # The mean of what is left over rounds less than that of the signal.
    add = lambda x: jax.ops.segment_sum(x, label, signal.size, indices_are_sorted=True)
    means = add(pushed - pieces) / jnp.maximum(add(jnp.ones_like(signal)), 1)
    return pieces + means[label]


class _Forward(NamedTuple):
    r"""The derivative of the best cost of the signal so far, as a function of its last value.

    It is piecewise linear and increasing, and cut off where it leaves :math:`[-\lambda, \lambda]`.
    So it is known by its bends and its slopes: it is :math:`-\lambda` at the left end and
    :math:`\lambda` at the right end. A piece has gained a slope of one with each sample since it
    came. Sums of samples, which would lose digits, do not occur.
    """

    seen: jax.Array  # samples that are through
    left: jax.Array  # the ends
    right: jax.Array
    at_left: jax.Array  # the derivative there, with the present sample
    at_right: jax.Array
    first: jax.Array  # the pieces are number first to last
    last: jax.Array
    second_knot: jax.Array  # between the first piece and the next
    last_knot: jax.Array  # between the last piece and the one before
    first_birth: jax.Array
    last_birth: jax.Array
    knots: jax.Array  # where a piece meets the one before
    births: jax.Array  # the number of samples before a piece came
    low: jax.Array  # for each sample the interval that its value is clipped to
    high: jax.Array


def _solve(signal: jax.Array, weight: jax.Array) -> jax.Array:
    r"""Johnson's algorithm, with one bounded loop in place of loops in a loop.

    Let :math:`c_k(b)` be the least cost of the first samples given that the value of sample
    :math:`k + 1` is :math:`b`. Then
    :math:`c_k'(b) = \mathrm{clip}(c_{k-1}'(b) + b - v_k, -\lambda, \lambda)`, and the value of
    sample :math:`k` is that of sample :math:`k + 1`, clipped to where nothing is cut off. The last
    sample, with no jump behind it, is where the derivative is zero.

    One turn of the loop drops a piece at either end, or is done with a sample and takes the next.
    Every sample adds at most one piece, so :math:`2 n` turns do.

    Two things keep a turn at constant cost, where XLA would copy the arrays: the number of turns
    is fixed, as ``vmap`` of a loop that ends by itself selects between old and new arrays; and
    arrays are read only after they are written, so that they can be changed in place.
    """
    n = signal.size
    nowhere = 2 * n + 1
    integer = lambda flag: flag.astype(jnp.int32)

    def write(array: jax.Array, when: jax.Array, index: jax.Array, value: Any) -> jax.Array:
        return array.at[jnp.where(when, index, nowhere)].set(value, mode="drop")

    def turn(_: Any, now: _Forward) -> _Forward:
        running = now.seen < n
        cut = jnp.where(now.seen == n - 1, 0, weight)
        first_slope = (now.seen + 1 - now.first_birth).astype(signal.dtype)
        last_slope = (now.seen + 1 - now.last_birth).astype(signal.dtype)

        # Drop a piece at whose inner end the derivative is still beyond the cut. One piece has to
        # stay, whatever the rounding.
        at_second = now.at_left + first_slope * (now.second_knot - now.left)
        at_last = now.at_right - last_slope * (now.right - now.last_knot)
        others = now.last - now.first
        drop_first = running & (at_second < -cut) & (others > 0)
        drop_last = running & (at_last > cut) & (others > integer(drop_first))

        # If none is dropped, the sample is done: the ends are where the cut is.
        done = running & ~drop_first & ~drop_last
        left = now.left - (now.at_left + cut) / first_slope
        right = now.right - (now.at_right - cut) / last_slope

        # The next sample adds a line of slope one. If it lies beside the pieces, it extends them.
        sample = signal[jnp.minimum(now.seen + 1, n - 1)]
        add_first = done & (sample <= left)
        add_last = done & ~add_first & (sample >= right)
        added = add_first | add_last
        first = now.first + integer(drop_first) - integer(add_first)
        last = now.last - integer(drop_last) + integer(add_last)
        knot_number = jnp.where(add_first, now.first, last)
        piece_number = jnp.where(add_first, first, last)
        knots = write(now.knots, added, knot_number, jnp.where(add_first, left, right))
        births = write(now.births, added, piece_number, now.seen + 1)

        def end(of_next: Any, dropped: jax.Array, beyond: Any, unchanged: Any) -> jax.Array:
            return jnp.where(done, of_next, jnp.where(dropped, beyond, unchanged))

        return _Forward(
            seen=now.seen + integer(done),
            left=end(jnp.minimum(left, sample), drop_first, now.second_knot, now.left),
            right=end(jnp.maximum(right, sample), drop_last, now.last_knot, now.right),
            at_left=end(jnp.minimum(left - sample, 0) - weight, drop_first, at_second, now.at_left),
            at_right=end(jnp.maximum(right - sample, 0) + weight, drop_last, at_last, now.at_right),
            first=first,
            last=last,
            second_knot=knots[first + 1],
            last_knot=knots[last],
            first_birth=births[first],
            last_birth=births[last],
            knots=knots,
            births=births,
            low=write(now.low, done, now.seen, left),
            high=write(now.high, done, now.seen, right),
        )

    # The first sample alone: one piece, of slope one.
    middle, none = jnp.int32(n), jnp.int32(0)
    start = _Forward(
        seen=none,
        left=signal[0] - weight,
        right=signal[0] + weight,
        at_left=-weight,
        at_right=weight,
        first=middle,
        last=middle,
        second_knot=signal[0],
        last_knot=signal[0],
        first_birth=none,
        last_birth=none,
        knots=jnp.zeros(2 * n + 1, signal.dtype),
        births=jnp.zeros(2 * n + 1, jnp.int32),
        low=jnp.zeros_like(signal),
        high=jnp.zeros_like(signal),
    )
    end = jax.lax.fori_loop(0, 2 * n, turn, start)

    def back(value: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        value = jnp.clip(value, *bounds)
        return value, value

    _, values = jax.lax.scan(back, end.low[-1], (end.low, end.high), reverse=True)
    return values
