r"""How the variables of blocks move that are not sampled: on along their last direction.

In the blockwise methods every block moves in every update, :math:`y_i \leftarrow y_i - \tau_t s_i`,
but only the direction :math:`s_i` of a sampled block changes. So a block that was last sampled in
update :math:`t_i` stands in a closed form,

.. math:: y_i^t = y_i^{t_i} - (A_t - A_{t_i}) s_i, \qquad A_t = \sum_{k < t} \tau_k,

and need not be touched until it is sampled again (*lazy*). Moving the whole table in every update
(*dense*) is the same, up to rounding, unless a projection cuts a step short on the way.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stochopt import _tree

#: ``projection(variable) -> variable`` of one block, or ``None``; one for each variable.
Projections = tuple[Callable[[Any], Any] | None, ...]


class Moving(NamedTuple):
    """Variables of blocks in motion, a row for each block.

    Attributes:
      variables: lazy: where they were when their block was last sampled; dense: where they are.
      directions: along which they move, like ``variables``.
      mark: lazy: the clock when their block was last sampled; dense: where they were one update
        ago, like ``variables``.
    """

    variables: Any
    directions: Any
    mark: Any


class Clock(NamedTuple):
    """Sums of step sizes, one for each variable, each with its rounding error.

    A plain float32 sum loses the difference of two late times.
    """

    now: tuple[jax.Array, ...]  # A_t, shape=(2,)
    before: tuple[jax.Array, ...]  # A_{t-1}, shape=(2,)


def start_clock(num_variables: int, dtype: Any) -> Clock:
    """Time zero."""
    zeros = lambda: tuple(jnp.zeros(2, dtype) for _ in range(num_variables))
    return Clock(zeros(), zeros())


def tick(clock: Clock, steps: tuple[Any, ...]) -> Clock:
    """The clock after one more update with these step sizes."""
    return Clock(tuple(map(_add, clock.now, steps)), tuple(map(jnp.copy, clock.now)))


class Motion(NamedTuple):
    """A way to carry out the motion.

    Attributes:
      mark: ``mark(variables, num_variables, dtype)``, the ``mark`` of :class:`Moving` for a row.
      read: ``read(moving, clock, projections) -> (now, before)``, the variables at this update
        and at the one before, of some rows.
      turn: ``turn(now, before, directions, clock) -> Moving``, rows with new directions.
      sweep: ``sweep(moving, steps, projections) -> Moving``, on the whole table.
    """

    mark: Callable[[Any, int, Any], Any]
    read: Callable[[Moving, Clock, Projections], tuple[Any, Any]]
    turn: Callable[[Any, Any, Any, Clock], Moving]
    sweep: Callable[[Moving, tuple[Any, ...], Projections], Moving]


def _lazy() -> Motion:
    def mark(variables: Any, num_variables: int, dtype: Any) -> Any:
        del variables
        return tuple(jnp.zeros(2, dtype) for _ in range(num_variables))

    def read(moving: Moving, clock: Clock, projections: Projections) -> tuple[Any, Any]:
        def at(times: tuple[jax.Array, ...]) -> Any:
            of_each = zip(*moving, times, projections, strict=True)
            moved = [
                _advance(x, s, _elapsed(time, mark), project)
                for x, s, mark, time, project in of_each
            ]
            return type(moving.variables)(*moved)

        return at(clock.now), at(clock.before)

    def turn(now: Any, before: Any, directions: Any, clock: Clock) -> Moving:
        del before
        rows = len(jax.tree.leaves(now)[0])
        marks = tuple(jnp.broadcast_to(time, (rows, 2)) for time in clock.now)
        return Moving(now, directions, marks)

    return Motion(mark, read, turn, lambda moving, steps, projections: moving)


def _dense() -> Motion:
    def mark(variables: Any, num_variables: int, dtype: Any) -> Any:
        del num_variables, dtype
        return _tree.copy(variables)

    def read(moving: Moving, clock: Clock, projections: Projections) -> tuple[Any, Any]:
        del clock, projections
        return moving.variables, moving.mark

    def turn(now: Any, before: Any, directions: Any, clock: Clock) -> Moving:
        del clock
        return Moving(now, directions, before)

    def sweep(moving: Moving, steps: tuple[Any, ...], projections: Projections) -> Moving:
        moved = [
            _advance(x, s, jnp.asarray(step), project)
            for x, s, step, project in zip(
                moving.variables, moving.directions, steps, projections, strict=True
            )
        ]
        return Moving(type(moving.variables)(*moved), moving.directions, moving.variables)

    return Motion(mark, read, turn, sweep)


#: A block stays where it is until it is sampled, and then makes up for the updates it missed.
LAZY = _lazy()
#: Every block moves in every update: time and memory traffic in proportion to their number.
DENSE = _dense()


def _advance(x: Any, s: Any, elapsed: jax.Array, project: Callable[[Any], Any] | None) -> Any:
    def move(leaf: jax.Array, slope: jax.Array) -> jax.Array:
        by = _tree.expand(elapsed.astype(leaf.dtype), leaf) * slope
        return leaf - by

    moved = jax.tree.map(move, x, s)
    return moved if project is None else jax.vmap(project)(moved)


def _elapsed(time: jax.Array, mark: jax.Array) -> jax.Array:
    """Between the marks of some rows and a time."""
    return (time[0] - mark[..., 0]) + (time[1] - mark[..., 1])


def _add(time: jax.Array, step: Any) -> jax.Array:
    """The sum of a time and a step in twice the precision (Knuth, Dekker)."""
    high, low = time
    step = jnp.asarray(step, high.dtype)
    total = high + step
    virtual = total - high
    error = (high - (total - virtual)) + (step - virtual)
    # The errors may all have one sign: what they sum up to goes over into the first part.
    low = low + error
    carried = total + low
    return jnp.stack([carried, low - (carried - total)])
