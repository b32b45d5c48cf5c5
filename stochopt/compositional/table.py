"""Rows of a table with one row for each block: look up, write back, place on a mesh."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
            return jnp.where(_tree.expand(self.shared, old), new[self.position], old)

        return jax.tree.map(choose, own, self.other)


def look_up(tables: tuple[Any, jax.Array], indices: jax.Array, other: Any) -> tuple[Rows, Rows]:
    """The rows of both sets, gathered at once; for the tables and for the visits."""
    together = indices if other is indices else jnp.concatenate([indices, other])
    found = jax.tree.map(lambda t: _gather(t, together), tables)
    if other is indices:
        position, shared = jnp.arange(len(indices)), jnp.ones(len(indices), bool)
        own = others = found
    else:
        match = other[:, None] == indices[None, :]
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


def _gather(t: jax.Array, indices: jax.Array) -> jax.Array:
    sharding = jax.typeof(t).sharding
    if sharding.mesh.empty:
        return t.at[indices].get(mode="clip")
    rows = jax.NamedSharding(sharding.mesh, jax.P(*[None] * t.ndim))
    return t.at[indices].get(mode="clip", out_sharding=rows)


def placed(tables: Any, sharding: jax.sharding.NamedSharding) -> Any:
    """The tables with their first axis laid out as the first axis of ``sharding``."""
    axis = sharding.spec[0] if sharding.spec else None

    def place(t: jax.Array) -> jax.Array:
        layout = jax.NamedSharding(sharding.mesh, jax.P(axis, *[None] * (t.ndim - 1)))
        devices = int(np.prod([sharding.mesh.shape[name] for name in _names(axis)]))
        if len(t) % devices:
            raise ValueError(
                f"table_sharding: {len(t)} blocks cannot be spread over {devices} devices; choose "
                "a multiple for num_blocks, the blocks beyond yours are never looked at."
            )
        return jax.device_put(t, layout)

    return jax.tree.map(place, tables)


def _names(axis: Any) -> tuple[str, ...]:
    if axis is None:
        return ()
    return axis if isinstance(axis, tuple) else (axis,)
