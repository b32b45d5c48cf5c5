"""The blocks of columns of a design, and the ways of a cycle through them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from stochopt.blocks.partition import LeafBlocks, SliceBlocks
from stochopt.linear_models.design import Design

#: At most so many blocks are arrays of their own: each is compiled by itself.
_MOST_SEPARATE = 64


@dataclasses.dataclass(frozen=True)
class ColumnBlocks:
    """Consecutive blocks of columns of one width, zeros behind the last column.

    Attributes:
      slices: the same blocks of a vector of coefficients.
      rmatvec: ``rmatvec(index, v)``, the product of a transposed block.
      update: ``update(z, index, change)``, predictions after the change of a block.
      visit: ``visit(order, step, carry)``, as in :class:`stochopt.blocks.Blocks`.
    """

    slices: SliceBlocks
    rmatvec: Callable[[Any, jax.Array], jax.Array]
    update: Callable[[jax.Array, Any, jax.Array], jax.Array]
    visit: Callable[..., Any]


def column_blocks(design: Design, width: int) -> ColumnBlocks:
    """The blocks of a design: few wide ones as arrays of their own, many narrow ones as slices.

    A slice whose place is known only when the program runs is a copy, on a CPU as dear as the
    products with it. Blocks of their own take longer to compile, so there must be fewer of them
    than columns in each.
    """
    design = design.padded(width)
    slices = SliceBlocks(design.shape[1] // width)
    if slices.num_blocks > min(width, _MOST_SEPARATE):
        return ColumnBlocks(
            slices,
            rmatvec=lambda index, v: design.block_rmatvec(index, v, width),
            update=design.block_update,
            visit=slices.visit,
        )
    parts = design.cut(width)
    return ColumnBlocks(
        slices,
        rmatvec=lambda index, v: parts[index].rmatvec(v),
        update=lambda z, index, change: z + parts[index].matvec(change),
        visit=LeafBlocks(slices.names).visit,
    )
