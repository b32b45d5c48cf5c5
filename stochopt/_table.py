"""Values of many blocks, a table with one row for each: look up, write back, place on a mesh."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import checkify

from stochopt import _tree


class Rows(NamedTuple):
    """Rows of two sets of blocks, as they stood in the table.

    Attributes:
      own: of the blocks that are tracked.
      other: of the blocks of the direction.
      position: for each of the latter, its place among the former.
      shared: whether it is among them.
    """

    own: Any
    other: Any
    position: jax.Array
    shared: jax.Array

    def others(self, own: Any) -> Any:
        """Rows of the second set after those of the first have become ``own``."""

        def choose(new: jax.Array, old: jax.Array) -> jax.Array:
            new = replicated(new)[self.position]
            return jnp.where(_tree.expand(self.shared, old), new, old)

        return jax.tree.map(choose, own, self.other)


def as_indices(
    method: str, name: str, indices: Any, num_blocks: int, check: bool = False
) -> jax.Array:
    """``int32`` indices of blocks; raises ``TypeError`` unless they are a vector of integers.

    With ``check`` their values are looked at too, which wants ``checkify``.
    """
    array = jnp.asarray(indices)
    if array.ndim != 1 or not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(
            f"{method}: {name} must be a vector of integers, got {array.dtype}{list(array.shape)}."
        )
    if check:
        inside = jnp.all((array >= 0) & (array <= num_blocks))
        checkify.check(inside, f"{name} must lie in [0, {num_blocks}].")
        ordered = jnp.sort(array)
        repeated = (ordered[1:] == ordered[:-1]) & (ordered[1:] < num_blocks)
        checkify.check(~jnp.any(repeated), f"{name} must not repeat a block.")
    return array.astype(jnp.int32)


def look_up(tables: tuple[Any, jax.Array], indices: jax.Array, other: Any) -> tuple[Rows, Rows]:
    """The rows of both sets, gathered at once; for the tables and for the visits.

    An index beyond the end has a row of zeros, never visited and never shared.
    """
    _, visits = tables
    same, indices, other = other is indices, replicated(indices), replicated(other)
    together = indices if same else jnp.concatenate([indices, other])
    # Apart, so that a second look at the visits in one update is the same look.
    found = tuple(_gather(part, together) for part in tables)
    inside = other < len(visits)
    if same:
        position, shared = jnp.arange(len(indices)), inside
        own = others = found
    else:
        match = (other[:, None] == indices[None, :]) & inside[:, None]
        position, shared = jnp.argmax(match, axis=1), jnp.any(match, axis=1)
        own = jax.tree.map(lambda x: x[: len(indices)], found)
        others = jax.tree.map(lambda x: x[len(indices) :], found)
    pairs = zip(own, others, strict=True)
    rows, touched = (Rows(mine, theirs, position, shared) for mine, theirs in pairs)
    return rows, touched


def first_touch(rows: Any, sample: Any, touched: jax.Array) -> Any:
    """``rows``, and the sample where a row has never been touched."""

    def choose(row: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.where(_tree.expand(touched, row), row, new.astype(row.dtype))

    return jax.tree.map(choose, rows, sample)


def write(tables: Any, indices: jax.Array, rows: Any) -> Any:
    """The tables with new rows; an index beyond the end is dropped."""

    # The rows must have the table's own dtype: otherwise all of it would be converted and copied.
    def scatter(t: jax.Array, row: jax.Array) -> jax.Array:
        row = row.astype(t.dtype)
        sharding = jax.typeof(t).sharding
        options = {} if sharding.mesh.empty else {"out_sharding": sharding}
        return t.at[indices].set(row, mode="drop", **options)

    return jax.tree.map(scatter, tables, rows)


def exchange(table: Any, mean: Any, indices: jax.Array, rows: Any) -> tuple[Any, Any, Any]:
    """New rows in a table that is kept together with the mean of its rows.

    Args:
      table: by rows.
      mean: of all of them.
      indices: distinct; one beyond the end is dropped.
      rows: the new ones.

    Returns:
      By how much each row changed (zero where it was dropped), the table, its mean.
    """
    num_rows = len(jax.tree.leaves(table)[0])
    old = _gather(table, indices)
    # Written as a function of what was read: otherwise XLA copies the table before the write.
    new = _tree.where_rows(indices < num_rows, optax.tree.cast_like(rows, old), old)
    difference = optax.tree.sub(new, old)
    mean = jax.tree.map(lambda m, d: m + jnp.sum(d, axis=0) / num_rows, mean, difference)
    return difference, write(table, indices, new), mean


def _gather(tables: Any, indices: jax.Array) -> Any:
    leaves = jax.tree.leaves(tables)
    mesh = jax.typeof(leaves[0]).sharding.mesh

    def plain(tables: Any, indices: jax.Array) -> Any:
        def rows(t: jax.Array) -> jax.Array:
            # Every device gets the rows, of their entries what it has of the table's.
            layout = jax.P(None, *jax.typeof(t).sharding.spec[1:])
            options: Any = {} if mesh.empty else {"out_sharding": jax.NamedSharding(mesh, layout)}
            return t.at[indices].get(mode="fill", fill_value=0, **options)

        return jax.tree.map(rows, tables)

    if max(t.nbytes for t in leaves) < 100_000 or not mesh.empty:
        return plain(tables, indices)
    return jax.lax.platform_dependent(tables, indices, cpu=_row_by_row, default=plain)


def _row_by_row(tables: Any, indices: jax.Array) -> Any:
    # On a CPU, XLA splits a gather from a large table over threads, however few rows it reads. One
    # loop reads all tables: a loop for each doubles the time of an update that does little else.
    at = lambda t, index: jax.lax.dynamic_index_in_dim(t, index, keepdims=False)
    found = jax.lax.map(lambda index: jax.tree.map(lambda t: at(t, index), tables), indices)

    inside = indices < len(jax.tree.leaves(tables)[0])
    or_zero = lambda rows: jnp.where(_tree.expand(inside, rows), rows, jnp.zeros((), rows.dtype))
    return jax.tree.map(or_zero, found)


def replicated(x: jax.Array) -> jax.Array:
    """``x`` on all devices of a mesh with explicit axes."""
    mesh = jax.typeof(x).sharding.mesh
    return x if mesh.empty else jax.sharding.reshard(x, _whole(mesh, x.ndim))


def _whole(mesh: Any, ndim: int) -> jax.NamedSharding:
    return jax.NamedSharding(mesh, jax.P(*[None] * ndim))


def zeros(
    num_rows: int, shape: tuple[int, ...], dtype: Any, sharding: jax.sharding.NamedSharding | None
) -> jax.Array:
    """A table of zeros, its first axis laid out as the first axis of ``sharding``."""
    if sharding is None:
        return jnp.zeros((num_rows, *shape), dtype)
    axis = sharding.spec[0] if sharding.spec else None
    devices = int(np.prod([sharding.mesh.shape[name] for name in _names(axis)]))
    if num_rows % devices:
        raise ValueError(
            f"table_sharding: {num_rows} blocks cannot be spread over {devices} devices; choose "
            "a multiple for num_blocks, the blocks beyond yours are never looked at."
        )
    layout = jax.NamedSharding(sharding.mesh, jax.P(axis, *[None] * len(shape)))
    # Compiled, so that no device ever holds all of it; under a jit around it a mesh with automatic
    # axes heeds the first layout, one with explicit axes the second.
    make = jax.jit(lambda: jnp.zeros((num_rows, *shape), dtype), out_shardings=layout)
    return jax.device_put(make(), layout)


def _names(axis: Any) -> tuple[str, ...]:
    if axis is None:
        return ()
    return axis if isinstance(axis, tuple) else (axis,)
