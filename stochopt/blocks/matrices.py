"""Square matrices of blocks: Hessians, and factors of upper bounds on them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from stochopt import _tree
from stochopt.blocks.gradient import Function, in_block
from stochopt.blocks.partition import Blocks, Index
from stochopt.blocks.step import in_order


@dataclasses.dataclass(frozen=True)
class BlockCholesky:
    """Cholesky factors of one matrix for each block, see :func:`block_cholesky`."""

    factors: Any  # lower triangles: an array with one on each row, or a mapping from names

    def solve(self, blocks: Blocks, index: Index, block: Any) -> Any:
        r""":math:`H_b^{-1} v` for a block :math:`v`; ``ValueError`` if the sizes differ."""
        vector, unravel = ravel_pytree(block)
        factor = self._factor(blocks, index)
        if factor.shape != 2 * vector.shape:
            name = blocks.names[index] if isinstance(index, int) else "of each slice"
            raise ValueError(
                f"matrices: block {name!r} has {vector.size} entries, its matrix the shape "
                f"{factor.shape}."
            )
        return unravel(cholesky_solve(factor, vector))

    def _factor(self, blocks: Blocks, index: Index) -> jax.Array:
        if isinstance(self.factors, Mapping):
            ordered = in_order("matrices", self.factors, blocks)
            return ordered[index] if isinstance(index, int) else jnp.stack(ordered)[index]
        if len(self.factors) != len(blocks.names):
            raise ValueError(
                f"matrices must hold one for each of the {len(blocks.names)} blocks, got "
                f"{len(self.factors)}."
            )
        return self.factors[index]


def block_cholesky(matrices: Any) -> BlockCholesky:
    """The Cholesky factors of one symmetric positive definite matrix for each block.

    They are computed once, here, for :func:`stochopt.blocks.gauss_southwell_quadratic` and
    :func:`stochopt.blocks.matrix_update`.

    Args:
      matrices: for equal slices an array of shape ``(num_blocks, size, size)``; for blocks of
        leaves a mapping from their names to matrices. The rows are the entries of a block in the
        order of ``jax.flatten_util.ravel_pytree``, as those of
        :func:`stochopt.blocks.block_hessian` are.

    Raises:
      ValueError: a matrix is not square, not symmetric or not positive definite.
    """
    if isinstance(matrices, Mapping):
        factors = {name: _factorize(f"matrices[{name!r}]", m) for name, m in matrices.items()}
        return BlockCholesky(factors)
    matrices = jnp.asarray(matrices)
    if matrices.ndim != 3:
        raise ValueError(
            f"matrices must have shape (num_blocks, size, size), got {matrices.shape}."
        )
    return BlockCholesky(_factorize("matrices", matrices))


def block_hessian(function: Function, blocks: Blocks, params: Any, index: Index) -> jax.Array:
    r"""The Hessian in one block, :math:`\nabla^2_{bb} f(x)`, of real parameters.

    Of a quadratic it is the block of its matrix, and an upper bound everywhere. It costs as many
    products of a Hessian and a vector as the block has entries.

    Args:
      function: ``function(params) -> scalar``.
      blocks: of ``params``.
      params: the point, :math:`x`.
      index: the number of the block.

    Returns:
      A square matrix, whose rows are the entries of the block in the order of
      ``jax.flatten_util.ravel_pytree``.
    """
    vector, unravel = ravel_pytree(blocks.take(params, index))
    of_block = in_block(function, blocks, params, index)
    return jax.hessian(lambda vector: of_block(unravel(vector)))(vector)


def cholesky_solve(factor: jax.Array, vector: jax.Array) -> jax.Array:
    """The solution for a lower factor, in the dtype of the vector."""
    solution = jax.scipy.linalg.cho_solve((factor, True), vector.astype(factor.dtype))
    return solution.astype(vector.dtype)


def _factorize(name: str, matrix: Any) -> jax.Array:
    matrix = jnp.asarray(matrix)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"{name} must be square, got shape {matrix.shape}.")
    matrix = matrix.astype(_tree.at_least_float32(matrix.dtype))
    factor = jnp.linalg.cholesky(matrix)
    if not isinstance(factor, jax.core.Tracer):
        one = (-2, -1)
        asymmetry = np.abs(matrix - jnp.swapaxes(matrix, *one)).max(one)
        fine = asymmetry <= 1e-4 * np.abs(matrix).max(one)
        fine &= np.isfinite(factor).all(one)
        if not np.all(fine):
            which = f"{name}[{np.argmin(fine)}]" if matrix.ndim == 3 else name
            raise ValueError(f"{which} must be symmetric positive definite.")
    return factor
