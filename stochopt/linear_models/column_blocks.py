"""The blocks of columns of a design, and the ways of a cycle through them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from stochopt.blocks.partition import LeafBlocks, SliceBlocks
from stochopt.linear_models.design import DenseDesign, Design

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
    """The blocks of a design: few and wide ones of a dense one as arrays, others as slices.

    A slice whose place is known only when the program runs is a copy before a product of matrices,
    on a CPU as dear as the products with it; the gathers of a sparse design need none. Blocks of
    their own take longer to compile, so there must be fewer of them than columns in each.
    """
    design = design.padded(width)
    slices = SliceBlocks(design.shape[1] // width)
    if isinstance(design, DenseDesign) and slices.num_blocks <= min(width, _MOST_SEPARATE):
        starts = range(0, design.shape[1], width)
        parts = [design.transposed[start : start + width] for start in starts]
        return ColumnBlocks(
            slices,
            rmatvec=lambda index, v: parts[index] @ v,
            update=lambda z, index, change: z + change @ parts[index],
            visit=LeafBlocks(slices.names).visit,
        )
    return ColumnBlocks(
        slices,
        rmatvec=lambda index, v: design.block_rmatvec(index, v, width),
        update=design.block_update,
        visit=slices.visit,
    )
