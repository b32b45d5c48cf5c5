"""One step at a time, on the block that promises most."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _counters, _tree
from stochopt._checks import check_arguments, require_params, require_whole_tree
from stochopt._oracles import check_scalar, check_shapes
from stochopt.blocks._bounds import exceeds
from stochopt.blocks._cycle import displacement
from stochopt.blocks.gradient import at_dtypes_of
from stochopt.blocks.partition import Index, Partition
from stochopt.blocks.rules import GreedyRule
from stochopt.blocks.updates import BlockUpdate, ChosenBlock


class GreedyBlockDescentState(NamedTuple):
    """State of :func:`greedy_block_descent`."""

    count: jax.Array  # type: ignore[assignment]  # block steps; shape=(), dtype=int32
    num_descent_violations: jax.Array  # shape=(), dtype=int32; stays at its maximum


def greedy_block_descent(
    loss: Callable[[Any, Any], jax.Array],
    partition: Partition,
    rule: GreedyRule,
    update: BlockUpdate,
) -> optax.GradientTransformationExtraArgs:
    r"""A step on the block with the largest score, one in each ``update``.

    Minimizes :math:`F(x) = f(x) + \sum_b r_b(x_b)` by

    .. math::

       b = \arg\max_b \; \mathrm{score}_b(x, \nabla f(x)), \qquad
       x_b \leftarrow \mathrm{update}_b(x, \nabla_b f(x)) .

    The scores are those of a *rule*: :func:`~stochopt.blocks.gauss_southwell`,
    :func:`~stochopt.blocks.gauss_southwell_lipschitz`,
    :func:`~stochopt.blocks.gauss_southwell_diagonal`,
    :func:`~stochopt.blocks.gauss_southwell_quadratic`, or
    :func:`~stochopt.blocks.proximal_gauss_southwell` where there are penalties. The step is an
    *update*: :func:`~stochopt.blocks.gradient_update`, :func:`~stochopt.blocks.matrix_update`,
    :func:`~stochopt.blocks.submatrix_update` or :func:`~stochopt.blocks.newton_update`. Both are
    plain functions, and one may write others.

    If the update lowers :math:`f` by at least half of the largest score, as with the scores of
    :math:`L_b` or of :math:`H_b` and their own steps, and :math:`f` is :math:`\mu_B`-strongly
    convex in the norm whose dual is the root of the largest score, then

    .. math:: f(x^+) - \min f \le (1 - \mu_B) (f(x) - \min f) .

    A *mover*: it returns the new point minus the old, ignores the incoming ``updates``, and stands
    alone. **Every step takes the whole gradient**, and one more value to see whether its bound
    held: it pays where steps are few because they are well chosen, or a block solve costs more than
    a gradient.

    **Extra argument of** ``update``: ``batch``, passed to ``loss``; ``None`` by default.

    Args:
      loss: ``loss(params, batch) -> scalar``, :math:`f`.
      partition: :func:`~stochopt.blocks.by_labels`, :func:`~stochopt.blocks.by_path`,
        :func:`~stochopt.blocks.equal_slices`, or :func:`~stochopt.blocks.largest_coordinates` for
        variable blocks.
      rule: ``rule(blocks, params, gradient) -> scores``.
      update: ``update(chosen) -> (block, bound)`` for a :class:`~stochopt.blocks.ChosenBlock`.

    Returns:
      The optimizer. ``num_descent_violations`` in its state counts steps after which :math:`f` was
      above the bound of the update, beyond rounding: its constants or matrices were too small.
      Params narrower than float32 are rounded before ``loss`` sees them, which may count too.

    Raises:
      TypeError: an argument takes other arguments, or ``update`` got masked leaves.
      ValueError: ``loss`` returned no scalar, or ``rule`` not one score for each block; ``update``
        got no ``params``.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from stochopt import blocks
      >>> loss = lambda x, batch: jnp.sum(jnp.array([1.0, 9.0]) * (x - 1.0) ** 2) / 2
      >>> rule = blocks.gauss_southwell_lipschitz([1.0, 9.0])
      >>> step = blocks.gradient_update([1.0, 9.0])
      >>> optimizer = blocks.greedy_block_descent(loss, blocks.equal_slices(2), rule, step)
      >>> updates, state = optimizer.update(None, optimizer.init(jnp.zeros(2)), jnp.zeros(2))
      >>> print(updates)
      [0. 1.]

    References:
      Nutini, Laradji, Schmidt, `Let's Make Block Coordinate Descent Converge Faster
      <https://arxiv.org/abs/1712.08859>`_, Journal of Machine Learning Research 2022
    """
    check_arguments("loss", loss, "params, batch")
    check_arguments("rule", rule, "blocks, params, gradient")
    check_arguments("update", update, "chosen")

    def init_fn(params: optax.Params) -> GreedyBlockDescentState:
        partition(params)  # its errors come early
        return GreedyBlockDescentState(jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: GreedyBlockDescentState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, GreedyBlockDescentState]:
        del updates, extra_args
        require_params("greedy_block_descent", params)
        require_whole_tree("greedy_block_descent", params)
        blocks = partition(params)
        dtype = _tree.scalar_dtype(*jax.tree.leaves(params))
        point = _tree.wide(params)

        def scalar_loss(point: Any) -> jax.Array:
            value = loss(point, batch)
            check_scalar("loss", value)
            return value

        function = at_dtypes_of(params, scalar_loss)
        value, gradient = jax.value_and_grad(function)(point)
        value = value.astype(dtype)
        # Conjugated, as optax wants complex gradients; nothing changes for real ones.
        gradient = optax.tree.conj(gradient)
        scores = rule(blocks, point, gradient)
        check_shapes("rule", scores, jnp.zeros(len(blocks.names)), "one score for each block")

        def step(index: Index, _: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            slope = blocks.take(gradient, index)
            chosen = ChosenBlock(function, blocks, point, index, value, slope)
            block, bound = update(chosen)
            return blocks.put(point, index, block), bound

        chosen = blocks.largest(scores)[None]
        end, bound = blocks.visit(chosen, step, (point, value))
        exceeded = exceeds(function(end), bound)
        return displacement(end, params), GreedyBlockDescentState(
            count=optax.safe_increment(state.count),
            num_descent_violations=_counters.add(state.num_descent_violations, exceeded),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
