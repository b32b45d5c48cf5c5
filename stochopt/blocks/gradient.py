"""The gradient in one block."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from stochopt._oracles import check_scalar
from stochopt.blocks.partition import Blocks, Index

#: ``function(params) -> scalar``.
Function = Callable[[Any], jax.Array]


def block_value_and_grad(
    function: Function, blocks: Blocks, params: Any, index: Index
) -> tuple[jax.Array, Any]:
    r"""The value at ``params`` and the gradient in one block, :math:`\nabla_j f(x)`.

    The function is differentiated in the block alone: nothing is computed for the others. In a
    network of :math:`m` equal layers, one block each and counted from zero, the gradient in layer
    :math:`j` takes :math:`2 m - j` products with a layer; the whole one takes :math:`3 m - 1`.

    Args:
      function: ``function(params) -> scalar``.
      blocks: of ``params``.
      params: the point, :math:`x`.
      index: :math:`j`.

    Raises:
      ValueError: ``function`` returned no scalar.
    """
    of_block = in_block(function, blocks, params, index)
    value, gradient = jax.value_and_grad(of_block)(blocks.take(params, index))
    # Conjugated, as optax wants complex gradients; nothing changes for real ones.
    return value, optax.tree.conj(gradient)


def in_block(function: Function, blocks: Blocks, params: Any, index: Index) -> Function:
    """The function of one block, all others as in ``params``."""

    def of_block(block: Any) -> jax.Array:
        value = function(blocks.put(params, index, block))
        check_scalar("loss", value)
        return value

    return of_block


def at_dtypes_of(params: Any, function: Function) -> Function:
    """``function`` at points in wider dtypes; it gets them in those of ``params``."""
    return lambda point: function(optax.tree.cast_like(point, params))
