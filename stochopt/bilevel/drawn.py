"""The blocks that an update of a blockwise method looks at, checked and laid out."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from stochopt import _table
from stochopt._checks import require_extra, require_params, require_whole_tree
from stochopt._oracles import check_leading_axis


class DrawnBlocks(NamedTuple):
    """What an update got: a row for each sampled block."""

    indices: jax.Array  # int32; the number of all blocks is padding
    inside: jax.Array  # whether a row is no padding
    weights: jax.Array  # of a mean over these rows
    batch: Any
    other_batch: Any  # for the direction: an independent draw, or the same


def drawn_blocks(
    method: str,
    params: Any,
    batch: Any,
    block_indices: Any,
    jacobian_batch: Any,
    *,
    num_blocks: int,
    check: bool,
    dtype: Any,
) -> DrawnBlocks:
    """The extra arguments of ``update``, or an error that names the one that does not fit."""
    require_params(method, params)
    require_whole_tree(method, params)
    pass_what = "batch=batch, block_indices=indices"
    require_extra(method, "batch", batch, pass_what)
    require_extra(method, "block_indices", block_indices, pass_what)
    indices = _table.as_indices(method, "block_indices", block_indices, num_blocks, check)
    other_batch = batch if jacobian_batch is None else jacobian_batch
    check_leading_axis("batch", batch, len(indices), "block_indices")
    check_leading_axis("jacobian_batch", other_batch, len(indices), "block_indices")
    # Explicit axes: laid out as the rows of the tables that the oracles get beside it.
    drawn = jax.tree.map(_table.replicated, (indices, batch, other_batch))
    indices, batch, other_batch = drawn
    inside = indices < num_blocks
    weights = inside.astype(dtype)
    weights = weights / jnp.maximum(jnp.sum(weights), 1)
    return DrawnBlocks(indices, inside, weights, batch, other_batch)
