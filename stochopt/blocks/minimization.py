"""Exact minimization over one block after the other."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _counters, _tree
from stochopt._checks import check_arguments, require_params, require_whole_tree
from stochopt._oracles import check_like
from stochopt.blocks._cycle import cycle_key, displacement
from stochopt.blocks.orders import OrderOfCycle, cyclic
from stochopt.blocks.partition import Index, Partition


class BlockMinimizationState(NamedTuple):
    """State of :func:`cyclic_block_minimization`."""

    count: jax.Array  # type: ignore[assignment]  # cycles; shape=(), dtype=int32
    num_block_solves: jax.Array  # shape=(), dtype=int32; stays at its maximum


def cyclic_block_minimization(
    solve: Callable[[Any, Any, Any], Any],
    partition: Partition,
    *,
    order: OrderOfCycle = cyclic,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Exact minimization over one block after the other.

    .. math:: x_j \leftarrow \arg\min_{u} F(x_1, \dots, x_{j-1}, u, x_{j+1}, \dots, x_m)

    for all :math:`j`, by a function of yours, which is one ``update``. For a quadratic with Hessian
    :math:`H = D + E`, where :math:`D` is its lower block triangle with the diagonal, this is the
    block Gauss-Seidel method: the error goes from :math:`e` to :math:`-D^{-1} E e`.

    A *mover*, as :func:`stochopt.blocks.cyclic_block_descent` is, with the same extra arguments of
    ``update``.

    Args:
      solve: ``solve(params, name, batch) -> block``, the minimizer over the block ``name`` with the
        other blocks as in ``params``; of equal slices the name is a traced number. A block is what
        ``partition(params).take`` returns.
      partition: as for :func:`stochopt.blocks.cyclic_block_descent`.
      order: as for :func:`stochopt.blocks.cyclic_block_descent`.
      seed: of the orders.

    Raises:
      TypeError: ``solve`` takes other arguments, or ``update`` got masked leaves.
      ValueError: ``solve`` returned something else than the block; ``update`` got no ``params``.
    """
    check_arguments("solve", solve, "params, name, batch")

    def init_fn(params: optax.Params) -> BlockMinimizationState:
        partition(params)  # its errors come early
        return BlockMinimizationState(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: BlockMinimizationState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, BlockMinimizationState]:
        del updates, extra_args
        require_params("cyclic_block_minimization", params)
        require_whole_tree("cyclic_block_minimization", params)
        blocks = partition(params)

        def step(index: Index, point: Any) -> Any:
            name = blocks.names[index] if isinstance(index, int) else index
            old = blocks.take(point, index)
            new = solve(optax.tree.cast_like(point, params), name, batch)
            check_like("the block that solve returned", new, old, f"block {name}")
            return blocks.put(point, index, optax.tree.cast_like(new, old))

        visits = order(cycle_key(key, seed, state.count), len(blocks.names))
        point = blocks.visit(visits, step, _tree.wide(params))
        return displacement(point, params), BlockMinimizationState(
            count=optax.safe_increment(state.count),
            num_block_solves=_counters.add(state.num_block_solves, visits.shape[0]),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
