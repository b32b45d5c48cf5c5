"""Steps on one block that follow from its gradient: functions ``update(chosen) -> (block, bound)``.

Each returns the new block with a bound on the function there: what the step was sure of.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from stochopt import _tree
from stochopt._checks import check_count, check_range
from stochopt.blocks._bounds import dot, exceeds
from stochopt.blocks._separable import check_separable
from stochopt.blocks.gradient import Function, in_block
from stochopt.blocks.matrices import BlockCholesky, block_hessian, cholesky_solve
from stochopt.blocks.partition import Blocks, Index
from stochopt.blocks.step import (
    BlockNumbers,
    BlockProx,
    check_numbers,
    numbers_of_blocks,
    proximal_block_step,
)


@dataclasses.dataclass(frozen=True)
class ChosenBlock:
    """The block that is to move, and what is known of the function there."""

    function: Function
    blocks: Blocks
    params: Any  # the point
    index: Index
    value: jax.Array  # of the function, in the dtype of scalars
    gradient: Any  # in the block

    @property
    def block(self) -> Any:
        """The block as it is."""
        return self.blocks.take(self.params, self.index)


#: ``update(chosen) -> (block, bound)``, see :class:`ChosenBlock`.
BlockUpdate = Callable[[ChosenBlock], tuple[Any, jax.Array]]


def gradient_update(smoothness: BlockNumbers, prox: BlockProx | None = None) -> BlockUpdate:
    r"""The proximal gradient step of a block.

    .. math::

       x_b \leftarrow \mathrm{prox}_{r_b}\left(x_b - \frac{\nabla_b f(x)}{L_b},\;
       \frac{1}{L_b}\right)

    With :func:`stochopt.blocks.largest_coordinates` each coordinate has a number of its own, the
    entry :math:`D_i` of a diagonal upper bound for every set of :math:`\tau` coordinates, such as
    :math:`\tau H_{ii}`.

    Args:
      smoothness: :math:`L_b > 0`, as for :func:`stochopt.blocks.cyclic_block_descent`.
      prox: as for :func:`stochopt.blocks.cyclic_block_descent`; ``None`` without penalties.

    Raises:
      ValueError: in a step on several coordinates, ``prox`` does not act on each entry by itself.
    """
    check_numbers("smoothness", smoothness, "(0, inf)")

    def update(chosen: ChosenBlock) -> tuple[Any, jax.Array]:
        dtype, old = chosen.value.dtype, chosen.block
        constants = numbers_of_blocks("smoothness", smoothness, chosen.blocks, dtype)
        if prox is not None and jnp.ndim(chosen.index) == 1:
            check_separable(prox, old)
        constant = constants[chosen.index]
        move = proximal_block_step(prox, chosen.blocks)
        new = move(chosen.index, old, chosen.gradient, 1 / constant)
        change = optax.tree.sub(new, old)
        scaled = jax.tree.map(lambda x: x * constant.astype(jnp.finfo(x.dtype).dtype), change)
        model = dot(chosen.gradient, change, dtype) + dot(scaled, change, dtype) / 2
        return new, chosen.value + model

    return update


def matrix_update(matrices: BlockCholesky) -> BlockUpdate:
    r"""The step to the minimum of a quadratic model of a block.

    .. math:: x_b \leftarrow x_b - H_b^{-1} \nabla_b f(x)

    For a quadratic and its own matrix this minimizes over the block exactly.

    Args:
      matrices: upper bounds :math:`H_b` of the Hessians in the blocks, by
        :func:`stochopt.blocks.block_cholesky`.
    """

    def update(chosen: ChosenBlock) -> tuple[Any, jax.Array]:
        step = matrices.solve(chosen.blocks, chosen.index, chosen.gradient)
        decrease = dot(chosen.gradient, step, chosen.value.dtype) / 2
        return optax.tree.sub(chosen.block, step), chosen.value - decrease

    return update


def submatrix_update(matrix: Any) -> BlockUpdate:
    r"""The step of :func:`matrix_update` with the rows and columns of one matrix :math:`H`.

    .. math:: x_b \leftarrow x_b - H_{bb}^{-1} \nabla_b f(x)

    For blocks that are not known beforehand, as with :func:`stochopt.blocks.largest_coordinates`:
    every step gathers and factorizes, in :math:`O(\tau^3)`.

    Args:
      matrix: a symmetric positive definite upper bound of the whole Hessian, whose rows are the
        entries of ``params`` in the order of ``jax.flatten_util.ravel_pytree``.

    Raises:
      ValueError: in a step, ``matrix`` has not one row and column for each entry of ``params``.
    """

    def update(chosen: ChosenBlock) -> tuple[Any, jax.Array]:
        size = sum(x.size for x in jax.tree.leaves(chosen.params))
        if jnp.shape(matrix) != (size, size):
            raise ValueError(
                f"matrix must have shape {(size, size)}, a row for each entry of params, got "
                f"{jnp.shape(matrix)}."
            )
        rows = _numbered(chosen.params)
        rows = jnp.concatenate(
            [jnp.ravel(x) for x in jax.tree.leaves(chosen.blocks.take(rows, chosen.index))]
        )
        slope, unravel = ravel_pytree(chosen.gradient)
        wide = jnp.asarray(matrix, _tree.at_least_float32(jnp.asarray(matrix).dtype))
        factor = jnp.linalg.cholesky(wide[rows[:, None], rows])
        step = unravel(cholesky_solve(factor, slope))
        decrease = dot(chosen.gradient, step, chosen.value.dtype) / 2
        return optax.tree.sub(chosen.block, step), chosen.value - decrease

    return update


def newton_update(*, sufficient_decrease: float = 1e-4, max_halvings: int = 30) -> BlockUpdate:
    r"""Newton's step on a block, halved until the function has decreased enough.

    .. math::

       x_b \leftarrow x_b + t d, \qquad d = -\left(\nabla^2_{bb} f(x)\right)^{-1} \nabla_b f(x),
       \qquad f(x + t d) \le f(x) + c\, t\, \langle \nabla_b f(x), d \rangle

    with the largest :math:`t \in \{1, 1/2, 1/4, \dots\}` that does it (Armijo), up to rounding.
    Where the Hessian is not positive definite :math:`d` is the negative gradient. If nothing has
    helped, the block stays where it is. A step takes the Hessian in the block, by
    :func:`stochopt.blocks.block_hessian`, and a value for each :math:`t`; it needs no constants.

    Args:
      sufficient_decrease: :math:`c` in (0, 1).
      max_halvings: at least 1.
    """
    check_range("sufficient_decrease", sufficient_decrease, "(0, 1)")
    check_count("max_halvings", max_halvings)

    def update(chosen: ChosenBlock) -> tuple[Any, jax.Array]:
        block, unravel = ravel_pytree(chosen.block)
        slope, _ = ravel_pytree(chosen.gradient)
        hessian = block_hessian(chosen.function, chosen.blocks, chosen.params, chosen.index)
        wide = hessian.astype(_tree.at_least_float32(hessian.dtype))
        newton = cholesky_solve(jnp.linalg.cholesky(wide), slope)
        direction = -jnp.where(jnp.all(jnp.isfinite(newton)), newton, slope)
        descent = sufficient_decrease * dot(slope, direction, chosen.value.dtype)
        function = in_block(chosen.function, chosen.blocks, chosen.params, chosen.index)

        def rises(size: jax.Array) -> jax.Array:
            there = block + size.astype(block.dtype) * direction
            return exceeds(function(unravel(there)), chosen.value + size * descent)

        def is_too_long(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
            halvings, size = carry
            return (halvings < max_halvings) & rises(size)

        start = jnp.zeros([], jnp.int32), jnp.ones([], chosen.value.dtype)
        halvings, size = jax.lax.while_loop(is_too_long, lambda c: (c[0] + 1, c[1] / 2), start)
        size = jnp.where(halvings < max_halvings, size, 0)
        moved = unravel(block + size.astype(block.dtype) * direction)
        return moved, chosen.value + size * descent

    return update


def _numbered(tree: Any) -> Any:
    """The numbers of all entries, in the order of ``ravel_pytree``."""
    leaves, structure = jax.tree.flatten(tree)
    first, numbers = 0, []
    for leaf in leaves:
        numbers.append(jnp.arange(first, first + leaf.size).reshape(leaf.shape))
        first += leaf.size
    return jax.tree.unflatten(structure, numbers)
