"""An optimizer for each block, one block at each update."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt._checks import check_arguments, check_count, check_range
from stochopt.blocks._cycle import cycle_key
from stochopt.blocks.gradient import block_value_and_grad
from stochopt.blocks.orders import OrderOfCycle, cyclic
from stochopt.blocks.partition import Blocks, Partition
from stochopt.blocks.step import in_order


class BlockScheduleState(NamedTuple):
    """State of :func:`block_schedule`."""

    schedule_count: jax.Array  # updates; shape=(), dtype=int32
    active_block: jax.Array  # number of the block that moves next; shape=(), dtype=int32
    block_states: Any  # of the optimizers, a dict from the names of the blocks


def block_schedule(
    txs: optax.GradientTransformation | Mapping[Any, optax.GradientTransformation],
    partition: Partition,
    order: OrderOfCycle = cyclic,
    *,
    num_updates_per_block: int = 1,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Moves one block at each update, by an optimizer of its own.

    .. math::

       x_j \leftarrow x_j + u_j, \qquad (u_j, s_j) = \mathrm{update}_j(\nabla_j f(x), s_j, x_j),

    for the active block :math:`j`. The updates of all other blocks are zero and the states of their
    optimizers stay as they are, so what an optimizer counts and averages are the updates of its own
    block, and a norm that it clips is that of the block. With one block it is the optimizer itself.

    A *wrapper*, in the place of an optimizer. Incoming updates of blocks that are not active are
    ignored. There may be zeros, and :func:`scheduled_value_and_grad` computes no more than the
    gradient in the active block; or, where ``update`` gets ``params``, ``optax.MaskedNode``. Both
    read ``active_block`` in the state, so they agree.

    The order follows from ``seed`` and the number of the update alone. So ``jax.vmap`` over runs
    with the loop inside computes one block at each update, the same in all lanes; over states with
    an axis of lanes it would compute all blocks.

    **Extra arguments of** ``update`` are passed on to the optimizer of the active block.

    Args:
      txs: a mapping from the names of the blocks to their optimizers, or one for all blocks, which
        then keeps a state for each.
      partition: :func:`~stochopt.blocks.by_labels`, :func:`~stochopt.blocks.by_path` or
        :func:`~stochopt.blocks.equal_slices`. Every block is a branch of the program.
      order: ``order(key, num_blocks)``, such as :func:`~stochopt.blocks.shuffled`.
      num_updates_per_block: updates before the next block in the order becomes active.
      seed: of the orders.

    Returns:
      The optimizer. Its state holds ``active_block``, the block that the next update moves, and
      ``block_states``, by the names of the blocks.

    Raises:
      ValueError: ``txs`` lacks a block or has others, ``partition`` does not cover ``params``, the
        order holds numbers of no block, or ``num_updates_per_block`` is not a count.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> from stochopt import blocks
      >>> loss = lambda params, batch: jnp.sum((params["w"] * params["b"] - 2) ** 2)
      >>> partition = blocks.by_path(lambda path: path)
      >>> optimizer = blocks.block_schedule(
      ...     {"w": optax.sgd(0.1), "b": optax.adam(0.1)}, partition
      ... )
      >>> value_and_grad = blocks.scheduled_value_and_grad(loss, partition)
      >>> @jax.jit
      ... def step(params, state):
      ...     value, grads = value_and_grad(params, state)
      ...     updates, state = optimizer.update(grads, state, params)
      ...     return optax.apply_updates(params, updates), state, value
      >>> params = {"w": jnp.ones(()), "b": jnp.ones(())}
      >>> state = optimizer.init(params)
      >>> for _ in range(60):
      ...     params, state, value = step(params, state)
      >>> print(f"{value:.3f}")
      0.000
    """
    check_count("num_updates_per_block", num_updates_per_block)

    def active(num_blocks: int, count: jax.Array) -> jax.Array:
        """The block that the update with this number moves."""
        of_key = lambda key: order(key, num_blocks)
        length = jax.eval_shape(of_key, jax.random.key(seed)).shape[0]
        turn = count // num_updates_per_block
        visits = of_key(cycle_key(None, seed, turn // length))
        check_range("order(key, num_blocks)", visits, f"[0, {num_blocks})")
        return jnp.asarray(visits, jnp.int32)[turn % length]

    def init_fn(params: optax.Params) -> BlockScheduleState:
        blocks = partition(params)
        count = jnp.zeros([], jnp.int32)
        named = zip(blocks.names, _optimizers(txs, blocks), strict=True)
        return BlockScheduleState(
            schedule_count=count,
            active_block=active(len(blocks.names), count),
            block_states={
                name: tx.init(blocks.take(params, index)) for index, (name, tx) in enumerate(named)
            },
        )

    def update_fn(
        updates: optax.Updates,
        state: BlockScheduleState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, BlockScheduleState]:
        if params is not None:
            updates = _without_masks(updates, params)
        blocks = partition(updates)
        moved = optax.tree.zeros_like(updates)
        block_states = {}
        named = zip(blocks.names, _optimizers(txs, blocks), strict=True)
        # A condition for each block, since one switch would write the states of all blocks anew.
        for index, (name, tx) in enumerate(named):
            block_moved, block_states[name] = jax.lax.cond(
                state.active_block == index,
                _moving(tx, extra_args),
                _resting,
                blocks.take(updates, index),
                state.block_states[name],
                None if params is None else blocks.take(params, index),
            )
            moved = blocks.put(moved, index, block_moved)
        count = optax.safe_increment(state.schedule_count)
        return moved, BlockScheduleState(count, active(len(blocks.names), count), block_states)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def scheduled_value_and_grad(
    loss: Callable[[Any, Any], jax.Array], partition: Partition
) -> Callable[..., tuple[jax.Array, Any]]:
    r"""The value and the gradient in the block that :func:`block_schedule` moves next.

    In a network of :math:`m` equal layers, one block each and counted from zero, layer :math:`j`
    takes :math:`2 m - j` of the :math:`3 m - 1` products of the whole gradient: all of the forward
    pass, and of the backward pass what lies between the loss and the layer. The mean over the
    layers is about a half of the whole, so :math:`m` updates, once through all blocks, cost as much
    as :math:`m / 2` gradients.

    Args:
      loss: ``loss(params, batch) -> scalar``.
      partition: the one of the schedule.

    Returns:
      ``value_and_grad(params, state, batch=None) -> (value, gradient)``. ``state`` is that of an
      optimizer with one schedule anywhere in it; the gradient is a tree like ``params`` with zeros
      in all blocks but the active one.

    Raises:
      TypeError: ``loss`` takes other arguments.
      ValueError: ``loss`` returned no scalar, or ``state`` holds no schedule.
    """
    check_arguments("loss", loss, "params, batch")

    def value_and_grad(params: Any, state: Any, batch: Any = None) -> tuple[jax.Array, Any]:
        active = optax.tree.get(state, "active_block")
        if active is None:
            raise ValueError("scheduled_value_and_grad: state is not that of a block_schedule.")
        blocks = partition(params)
        of_params = lambda params: loss(params, batch)

        def branch(index: int) -> Callable[[Any], tuple[jax.Array, Any]]:
            def of_block(params: Any) -> tuple[jax.Array, Any]:
                value, gradient = block_value_and_grad(of_params, blocks, params, index)
                return value, blocks.put(optax.tree.zeros_like(params), index, gradient)

            return of_block

        branches = [branch(index) for index in range(len(blocks.names))]
        return jax.lax.switch(active, branches, params)

    return value_and_grad


def _optimizers(
    txs: optax.GradientTransformation | Mapping[Any, optax.GradientTransformation], blocks: Blocks
) -> list[optax.GradientTransformationExtraArgs]:
    """One for each block, in the order of their numbers."""
    found = in_order("txs", txs, blocks) if isinstance(txs, Mapping) else [txs] * len(blocks.names)
    return [optax.with_extra_args_support(tx) for tx in found]


def _moving(tx: optax.GradientTransformationExtraArgs, extra_args: dict[str, Any]) -> Any:
    """``update`` of an optimizer, with updates in the dtypes of the incoming ones."""

    def move(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
        moved, state = tx.update(updates, state, params, **extra_args)
        return optax.tree.cast_like(moved, updates), state  # as the zeros of a resting block are

    return move


def _resting(updates: Any, state: Any, params: Any) -> tuple[Any, Any]:
    """No update, and the state as it is."""
    del params
    return optax.tree.zeros_like(updates), state


def _without_masks(updates: optax.Updates, params: optax.Params) -> optax.Updates:
    """``updates`` with zeros like ``params`` for every ``optax.MaskedNode``."""
    is_masked = lambda x: isinstance(x, optax.MaskedNode)
    fill = lambda u, x: optax.tree.zeros_like(x) if is_masked(u) else u
    return jax.tree.map(fill, updates, params, is_leaf=is_masked)
