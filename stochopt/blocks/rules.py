"""Greedy rules: functions that give every block a score, of which the largest moves."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import check_range
from stochopt._oracles import check_like
from stochopt.blocks._bounds import dot
from stochopt.blocks.matrices import BlockCholesky
from stochopt.blocks.partition import Blocks, Index
from stochopt.blocks.step import (
    BlockNumbers,
    check_numbers,
    in_order,
    numbers_of_blocks,
    proximal_block_step,
)
from stochopt.proximal import ProximalOperator

#: ``rule(blocks, params, gradient) -> scores``, one for each block.
GreedyRule = Callable[[Blocks, Any, Any], jax.Array]


def gauss_southwell(blocks: Blocks, params: Any, gradient: Any) -> jax.Array:
    r"""The squared norm of the gradient in each block, GS: :math:`\|\nabla_b f(x)\|^2`."""
    del params
    dtype = _tree.scalar_dtype(*jax.tree.leaves(gradient))

    def score(index: Index) -> jax.Array:
        block = blocks.take(gradient, index)
        return dot(block, block, dtype)

    return blocks.each(score)


def gauss_southwell_lipschitz(smoothness: BlockNumbers) -> GreedyRule:
    r"""The decrease that a gradient step is sure of, GSL: :math:`\|\nabla_b f(x)\|^2 / L_b`.

    No other rule has a better bound for the step :math:`-\nabla_b f(x) / L_b`. With equal constants
    it is :func:`gauss_southwell`.

    Args:
      smoothness: :math:`L_b > 0`, as for :func:`stochopt.blocks.cyclic_block_descent`.
    """
    check_numbers("smoothness", smoothness, "(0, inf)")

    def rule(blocks: Blocks, params: Any, gradient: Any) -> jax.Array:
        squares = gauss_southwell(blocks, params, gradient)
        return squares / numbers_of_blocks("smoothness", smoothness, blocks, squares.dtype)

    return rule


def gauss_southwell_diagonal(diagonal: Any) -> GreedyRule:
    r"""The decrease of a diagonal model, GSD: :math:`\sum_{i \in b} (\nabla_i f(x))^2 / D_i`.

    Args:
      diagonal: a tree like ``params`` with the entries :math:`D_i > 0` of a diagonal matrix that is
        an upper bound in every block, :math:`D_{bb} \succeq H_{bb}`. Of a bound :math:`H` on the
        Hessian one may take :math:`D_i = \sum_{j \in b} |H_{ij}|`, or the number of entries of the
        block times :math:`H_{ii}`.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(diagonal):
        check_range(f"diagonal{jax.tree_util.keystr(path)}", leaf, "(0, inf)")

    def rule(blocks: Blocks, params: Any, gradient: Any) -> jax.Array:
        check_like("diagonal", diagonal, params, "params")

        def scaled(slope: jax.Array, entries: Any) -> jax.Array:
            return slope / jnp.sqrt(jnp.asarray(entries, jnp.finfo(slope.dtype).dtype))

        return gauss_southwell(blocks, params, jax.tree.map(scaled, gradient, diagonal))

    return rule


def gauss_southwell_quadratic(matrices: BlockCholesky) -> GreedyRule:
    r"""The decrease of a quadratic model, GSQ: :math:`\nabla_b f(x)^T H_b^{-1} \nabla_b f(x)`.

    No other rule has a better bound for the step :math:`-H_b^{-1} \nabla_b f(x)`. The best set of
    :func:`stochopt.blocks.largest_coordinates` is hard to find: take
    :func:`gauss_southwell_diagonal` there.

    Args:
      matrices: upper bounds :math:`H_b` of the Hessians in the blocks, by
        :func:`stochopt.blocks.block_cholesky`.
    """

    def rule(blocks: Blocks, params: Any, gradient: Any) -> jax.Array:
        del params
        dtype = _tree.scalar_dtype(*jax.tree.leaves(gradient))

        def score(index: Index) -> jax.Array:
            block = blocks.take(gradient, index)
            return dot(block, matrices.solve(blocks, index, block), dtype)

        return blocks.each(score)

    return rule


def proximal_gauss_southwell(
    smoothness: BlockNumbers, prox: ProximalOperator | Mapping[Any, ProximalOperator]
) -> GreedyRule:
    r"""The decrease of the model of a proximal step, for a composite objective.

    .. math::

       -\min_d \left\{ \langle \nabla_b f(x), d \rangle + \frac{L_b}{2} \|d\|^2
         + r_b(x_b + d) - r_b(x_b) \right\}

    The minimizer is the proximal gradient step of size :math:`1 / L_b`. Without penalties this is
    half of :func:`gauss_southwell_lipschitz`.

    Args:
      smoothness: :math:`L_b > 0`, as for :func:`stochopt.blocks.cyclic_block_descent`.
      prox: a :class:`stochopt.proximal.ProximalOperator` for every block, or a mapping from the
        names of the blocks to such.

    Raises:
      TypeError: an operator does not know the value of its penalty.
    """
    check_numbers("smoothness", smoothness, "(0, inf)")
    given = prox.items() if isinstance(prox, Mapping) else [(None, prox)]
    for name, operator in given:
        if not hasattr(operator, "value"):
            where = "prox" if name is None else f"prox[{name!r}]"
            raise TypeError(f"{where} must be a ProximalOperator, which has the value of r.")

    def rule(blocks: Blocks, params: Any, gradient: Any) -> jax.Array:
        dtype = _tree.scalar_dtype(*jax.tree.leaves(gradient))
        constants = numbers_of_blocks("smoothness", smoothness, blocks, dtype)
        move = proximal_block_step(prox, blocks)

        def penalty(index: Index, block: Any) -> jax.Array:
            if not isinstance(prox, Mapping):
                return prox.value(block)
            values = [operator.value for operator in in_order("prox", prox, blocks)]
            if isinstance(index, int):
                return values[index](block)
            return jax.lax.switch(index, values, block)

        def score(index: Index) -> jax.Array:
            old, slope = blocks.take(params, index), blocks.take(gradient, index)
            new = move(index, old, slope, 1 / constants[index])
            change = optax.tree.sub(new, old)
            smooth = dot(slope, change, dtype) + constants[index] / 2 * dot(change, change, dtype)
            return penalty(index, old) - penalty(index, new) - smooth

        return blocks.each(score)

    return rule
