"""Blocks that are chosen anew for each step: the coordinates of one array, several at a time."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count
from stochopt.blocks.partition import Index, Order, Partition, _Carry, visit_in_loop


@dataclasses.dataclass(frozen=True)
class CoordinateBlocks:
    """The entries of one array, see :func:`largest_coordinates`; an index may hold several."""

    num_coordinates: int
    num_chosen: int

    @property
    def names(self) -> tuple[int, ...]:
        """The numbers of the entries."""
        return tuple(range(self.num_coordinates))

    def take(self, tree: Any, index: Index) -> Any:
        """The entries with these numbers, of the shape of ``index``."""
        return jax.tree.map(lambda x: x.reshape(-1)[index], tree)

    def put(self, tree: Any, index: Index, block: Any) -> Any:
        """``tree`` with the entries in the place that ``take`` takes them from."""
        put = lambda x, new: x.reshape(-1).at[index].set(new).reshape(x.shape)
        return jax.tree.map(put, tree, block)

    def visit(self, order: Order, step: Callable[[Index, _Carry], _Carry], carry: _Carry) -> _Carry:
        """A loop over the rows of ``order``, whose body is compiled once."""
        return visit_in_loop(order, step, carry)

    def each(self, function: Callable[[Index], jax.Array]) -> jax.Array:
        """All entries at once, by ``jax.vmap``."""
        return jax.vmap(function)(jnp.arange(self.num_coordinates))

    def largest(self, scores: jax.Array) -> Index:
        """The numbers of the entries with the largest scores."""
        return jax.lax.top_k(scores, self.num_chosen)[1]


def largest_coordinates(num_coordinates: int) -> Partition:
    r"""Variable blocks for a greedy rule: the coordinates of one array with the largest scores.

    Every entry has a score of its own, and those with the largest ones move together in one step.
    For a rule whose score of a block is a sum over its entries this is the best block of its size
    among all :math:`\binom{d}{\tau}`.

    Args:
      num_coordinates: :math:`\tau`, how many.

    Raises:
      ValueError: ``num_coordinates`` is not a count; or, when it is applied, the tree has more than
        one leaf, or fewer entries.
    """
    check_count("num_coordinates", num_coordinates)

    def partition(params: Any) -> CoordinateBlocks:
        leaves = jax.tree.leaves(params)
        if len(leaves) != 1:
            raise ValueError(f"largest_coordinates needs one array, got {len(leaves)} leaves.")
        size = int(np.prod(leaves[0].shape))
        if num_coordinates > size:
            raise ValueError(
                f"largest_coordinates: num_coordinates = {num_coordinates} is more than the "
                f"{size} entries of params."
            )
        return CoordinateBlocks(size, num_coordinates)

    return partition
