"""Partitions of a tree into blocks.

A *partition* is a function from a tree to its :class:`Blocks`. Blocks made of leaves differ in
their shapes, so a loop over them is unrolled; blocks that are equal slices are the turns of one
compiled loop, however many there are.
"""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt._checks import check_count

_Carry = TypeVar("_Carry")

#: Number of a block, from zero: a Python number for blocks of leaves, traced for slices.
Index = Any
#: ``order``: numbers of blocks; a NumPy array is known when the program is built.
Order = np.ndarray | jax.Array


class Blocks(Protocol):
    """The blocks of trees of one structure, and the ways to them."""

    @property
    def names(self) -> tuple[Hashable, ...]:
        """One name a block, in the order of their numbers."""

    def take(self, tree: Any, index: Index) -> Any:
        """The block with number ``index`` of ``tree``."""

    def put(self, tree: Any, index: Index, block: Any) -> Any:
        """``tree`` with ``block`` in the place that ``take`` takes it from."""

    def visit(self, order: Order, step: Callable[[Index, _Carry], _Carry], carry: _Carry) -> _Carry:
        """``carry = step(index, carry)`` for each number in ``order``, one after the other."""

    def each(self, function: Callable[[Index], jax.Array]) -> jax.Array:
        """``function(index)`` of every block, on a new leading axis."""

    def largest(self, scores: jax.Array) -> Index:
        """What a greedy rule takes, by one score for each block."""


#: ``partition(params) -> Blocks``; leaves of ``params`` may be abstract.
Partition = Callable[[Any], Blocks]


@dataclasses.dataclass(frozen=True)
class LeafBlocks:
    """Blocks of whole leaves, see :func:`by_labels`; a block has ``optax.MaskedNode`` elsewhere."""

    labels: tuple[Hashable, ...]  # of the leaves, in their order

    @property
    def names(self) -> tuple[Hashable, ...]:
        """The labels in the order in which they first appear."""
        return tuple(dict.fromkeys(self.labels))

    def take(self, tree: Any, index: Index) -> Any:
        """The block: a tree like ``tree`` with the leaves of one label."""
        leaves, structure = jax.tree.flatten(tree)
        name = self.names[index]
        pairs = zip(self.labels, leaves, strict=True)
        kept = [x if label == name else optax.MaskedNode() for label, x in pairs]
        return jax.tree.unflatten(structure, kept)

    def put(self, tree: Any, index: Index, block: Any) -> Any:
        """``tree`` with the leaves of the block."""
        del index  # the block says itself where its leaves are
        is_masked = lambda x: isinstance(x, optax.MaskedNode)
        merge = lambda new, old: old if is_masked(new) else new
        return jax.tree.map(merge, block, tree, is_leaf=is_masked)

    def visit(self, order: Order, step: Callable[[Index, _Carry], _Carry], carry: _Carry) -> _Carry:
        """Unrolled for a NumPy ``order``; otherwise a loop whose turns choose a branch."""
        if isinstance(order, np.ndarray):
            for index in order.tolist():
                carry = step(index, carry)
            return carry

        def of(index: int) -> Callable[[_Carry], _Carry]:
            return lambda carry: step(index, carry)

        branches = [of(index) for index in range(len(self.names))]
        turn = lambda i, carry: jax.lax.switch(order[i], branches, carry)
        return jax.lax.fori_loop(0, order.shape[0], turn, carry)

    def each(self, function: Callable[[Index], jax.Array]) -> jax.Array:
        """Unrolled."""
        return jnp.stack([function(index) for index in range(len(self.names))])

    def largest(self, scores: jax.Array) -> Index:
        """The number of the block with the largest score, the first of equal ones."""
        return jnp.argmax(scores)


@dataclasses.dataclass(frozen=True)
class SliceBlocks:
    """Equal slices along the leading axis of every leaf, see :func:`equal_slices`."""

    num_blocks: int

    @property
    def names(self) -> tuple[Hashable, ...]:
        """The numbers of the slices."""
        return tuple(range(self.num_blocks))

    def take(self, tree: Any, index: Index) -> Any:
        """The block: the slice of each leaf."""

        def take(x: jax.Array) -> jax.Array:
            size = x.shape[0] // self.num_blocks
            return jax.lax.dynamic_slice_in_dim(x, index * size, size)

        return jax.tree.map(take, tree)

    def put(self, tree: Any, index: Index, block: Any) -> Any:
        """``tree`` with the slices of the block."""

        def put(x: jax.Array, new: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(x, new, index * new.shape[0], axis=0)

        return jax.tree.map(put, tree, block)

    def visit(self, order: Order, step: Callable[[Index, _Carry], _Carry], carry: _Carry) -> _Carry:
        """A loop whose body is compiled once."""
        return visit_in_loop(order, step, carry)

    def each(self, function: Callable[[Index], jax.Array]) -> jax.Array:
        """All at once, by ``jax.vmap``."""
        return jax.vmap(function)(jnp.arange(self.num_blocks))

    def largest(self, scores: jax.Array) -> Index:
        """The number of the slice with the largest score, the first of equal ones."""
        return jnp.argmax(scores)


def visit_in_loop(order: Order, step: Callable[[Index, _Carry], _Carry], carry: _Carry) -> _Carry:
    """``carry = step(index, carry)`` for each row of ``order``, in a loop compiled once."""
    numbers = jnp.asarray(order, jnp.int32)
    turn = lambda i, carry: step(numbers[i], carry)
    return jax.lax.fori_loop(0, numbers.shape[0], turn, carry)


def by_labels(labels: Any) -> Partition:
    """The partition whose blocks are the leaves of one label.

    The blocks are numbered in the order in which their labels first appear among the leaves. A
    block is a tree like the whole with ``optax.MaskedNode`` in place of all other leaves, as
    ``optax.masked`` makes them, so functions that map over leaves take it as it is.

    Args:
      labels: a tree of hashable labels like ``params``, or a prefix of it: a label of a subtree is
        that of all its leaves.

    Raises:
      ValueError: when it is applied: a leaf without a label, or a label without leaves.
    """

    def partition(params: Any) -> LeafBlocks:
        given = jax.tree_util.tree_leaves_with_path(labels)
        found = []
        for path, _ in jax.tree_util.tree_leaves_with_path(params):
            above = [label for prefix, label in given if path[: len(prefix)] == prefix]
            if not above:
                where = jax.tree_util.keystr(path)
                raise ValueError(
                    f"by_labels: labels do not cover the leaf params{where}; they must be a tree "
                    "like params or a prefix of it."
                )
            found.append(above[0])
        for prefix, label in given:
            if label not in found:
                where = jax.tree_util.keystr(prefix)
                raise ValueError(
                    f"by_labels: block {label!r} is empty; params has no leaf at labels{where}."
                )
        return LeafBlocks(tuple(found))

    return partition


def by_path(name: Callable[[str], Hashable]) -> Partition:
    """The partition whose blocks are the leaves with paths of one name.

    Args:
      name: from the path of a leaf, such as ``"layers/0/weight"``, to the name of its block.

    Raises:
      ValueError: when it is applied: a leaf whose path has the name ``None``.
    """

    def partition(params: Any) -> LeafBlocks:
        found = []
        for path, _ in jax.tree_util.tree_leaves_with_path(params):
            text = jax.tree_util.keystr(path, simple=True, separator="/")
            block = name(text)
            if block is None:
                raise ValueError(f"by_path: name({text!r}) is None; every leaf needs a block.")
            found.append(block)
        return LeafBlocks(tuple(found))

    return partition


def equal_slices(num_blocks: int) -> Partition:
    """The partition into equal slices along the leading axis of every leaf.

    For one array that is a partition of its entries or rows; for layers stacked along the leading
    axis, one block for each layer. On a mesh with explicit axes the leading axis must be whole on
    every device.

    Args:
      num_blocks: divides the leading axis of each leaf.

    Raises:
      ValueError: ``num_blocks`` is not a count, or, when it is applied, does not divide a leading
        axis.
    """
    check_count("num_blocks", num_blocks)

    def partition(params: Any) -> SliceBlocks:
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            shape = tuple(leaf.shape)
            if not shape or shape[0] == 0 or shape[0] % num_blocks:
                where = jax.tree_util.keystr(path)
                raise ValueError(
                    f"equal_slices: num_blocks = {num_blocks} must divide the leading axis of "
                    f"params{where}, of shape {shape}; pad it, or use by_labels for unequal blocks."
                )
        return SliceBlocks(num_blocks)

    return partition
