"""The proximal gradient step on one block, and what may differ from block to block."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import check_range
from stochopt.blocks.partition import Blocks, Index
from stochopt.proximal import Prox

#: One operator for every block, or one for each name of a block.
BlockProx = Prox | Mapping[Any, Prox]

#: One number for every block, one for each in an array, or one for each name of a block.
BlockNumbers = Any


def proximal_block_step(
    prox: BlockProx | None, blocks: Blocks
) -> Callable[[Index, Any, Any, jax.Array], Any]:
    r"""``step(index, block, gradient, size) -> block``.

    .. math:: x_j \leftarrow \mathrm{prox}_{r_j}(x_j - s g_j, s)
    """
    if prox is None:
        return lambda index, block, gradient, size: _tree.add_scaled(block, -size, gradient)
    operators = in_order("prox", prox, blocks) if isinstance(prox, Mapping) else None

    def step(index: Index, block: Any, gradient: Any, size: jax.Array) -> Any:
        point = _tree.add_scaled(block, -size, gradient)
        if operators is None:
            moved = prox(point, size)  # type: ignore[operator]
        elif isinstance(index, int):
            moved = operators[index](point, size)
        else:
            moved = jax.lax.switch(index, operators, point, size)
        return optax.tree.cast_like(moved, block)

    return step


def check_numbers(name: str, value: BlockNumbers, interval: str) -> None:
    """Raises ``ValueError`` unless the numbers of all blocks lie in the interval."""
    if isinstance(value, Mapping):
        for block, number in value.items():
            check_range(f"{name}[{block!r}]", number, interval)
    else:
        check_range(name, value, interval)


def numbers_of_blocks(name: str, value: BlockNumbers, blocks: Blocks, dtype: Any) -> jax.Array:
    """An array with one number for each block; ``ValueError`` if there are more or fewer."""
    if isinstance(value, Mapping):
        value = in_order(name, value, blocks)
    array = jnp.asarray(value, dtype)
    shape = (len(blocks.names),)
    if array.shape not in ((), shape):
        raise ValueError(
            f"{name} must be a number or hold one for each of the {shape[0]} blocks, got shape "
            f"{array.shape}."
        )
    return jnp.broadcast_to(array, shape)


def in_order(name: str, mapping: Mapping[Any, Any], blocks: Blocks) -> list[Any]:
    """The values in the order of the blocks; ``ValueError`` unless the keys are their names."""
    missing = [block for block in blocks.names if block not in mapping]
    unknown = [block for block in mapping if block not in blocks.names]
    if missing or unknown:
        raise ValueError(
            f"{name} needs one entry for each block: missing {missing}, unknown {unknown}; the "
            f"blocks are {list(blocks.names)}."
        )
    return [mapping[block] for block in blocks.names]
