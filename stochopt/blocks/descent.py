"""Gradient steps on one block after the other: one ``update`` goes once through all blocks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _counters, _tree
from stochopt._checks import (
    check_arguments,
    check_range,
    require_extra,
    require_params,
    require_whole_tree,
)
from stochopt._oracles import check_scalar
from stochopt._schedules import value_at
from stochopt.blocks._bounds import bound_of_terms, dot, exceeds
from stochopt.blocks._cycle import cycle_key, displacement
from stochopt.blocks.gradient import at_dtypes_of, block_value_and_grad
from stochopt.blocks.orders import OrderOfCycle, cyclic
from stochopt.blocks.partition import Index, Partition
from stochopt.blocks.step import (
    BlockNumbers,
    BlockProx,
    check_numbers,
    numbers_of_blocks,
    proximal_block_step,
)


class CyclicBlockDescentState(NamedTuple):
    """State of :func:`cyclic_block_descent`."""

    count: jax.Array  # type: ignore[assignment]  # cycles; shape=(), dtype=int32
    num_block_gradients: jax.Array  # shape=(), dtype=int32; stays at its maximum
    num_descent_violations: jax.Array  # block steps; shape=(), dtype=int32; stays at its maximum
    num_doublings: jax.Array  # of the constant of each block; shape=(num_blocks,), dtype=int32


def cyclic_block_descent(
    loss: Callable[[Any, Any], jax.Array],
    partition: Partition,
    smoothness: BlockNumbers,
    *,
    learning_rate: optax.ScalarOrSchedule = 1.0,
    prox: BlockProx | None = None,
    max_doublings: int = 0,
    order: OrderOfCycle = cyclic,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Proximal gradient steps on one block after the other, P-CCD.

    Minimizes :math:`F(x) = f(x) + \sum_j r_j(x_j)`, where :math:`f` is smooth, convex or not, and
    each :math:`r_j` has a proximal operator. One ``update`` is one cycle:

    .. math::

       x_j \leftarrow \mathrm{prox}_{r_j}\left(x_j - \eta_j \nabla_j f(x),\; \eta_j\right), \qquad
       \eta_j = \frac{\eta}{L_j}, \qquad j = 1, \dots, m,

    where each gradient is taken at the point that the step before has reached, and in its block
    alone. If :math:`f` is :math:`L_j`-smooth in block :math:`j` and :math:`r_j` is convex, every
    step lowers the objective,

    .. math:: F(x^+) \le F(x) - \left(\frac{1}{\eta_j} - \frac{L_j}{2}\right) \|x_j^+ - x_j\|^2 .

    With the one constant :math:`\hat L` of :func:`mahalanobis_constants` for all blocks and
    :math:`\eta = 1`, the least squared distance of zero to :math:`\partial F` in :math:`K` cycles
    is at most :math:`8 \hat L (F(x_0) - \min F) / K`, and linear under a Polyak-Lojasiewicz
    condition. The constants of the blocks are smaller and mostly better. There are functions on
    which the cyclic order is very slow and others are not: try
    :func:`~stochopt.blocks.shuffled`.

    A *mover*: it returns the new point minus the old, ignores the incoming ``updates``, and stands
    alone. A cycle takes :math:`m` gradients in blocks and one more value of ``loss``.

    **Constants that nobody knows.** With ``max_doublings``, a step after which :math:`f` is above

    .. math::

       f(x) + \langle \nabla_j f(x), x_j^+ - x_j \rangle + \frac{L_j}{2} \|x_j^+ - x_j\|^2

    by more than rounding is taken back, and the block tries again with :math:`2 L_j`, for good.
    Every trial costs one more value of ``loss``. In bfloat16 the parameters round too, and the test
    would fail by itself.

    **Extra arguments of** ``update``: ``batch``, passed to ``loss``, the same for all blocks; for a
    loss that ignores it, ``()``. ``key``, optional: of the order, which otherwise follows from
    ``seed`` and the number of the cycle.

    Args:
      loss: ``loss(params, batch) -> scalar``, :math:`f`.
      partition: :func:`~stochopt.blocks.by_labels`, :func:`~stochopt.blocks.by_path` or
        :func:`~stochopt.blocks.equal_slices`.
      smoothness: :math:`L_j > 0`: a number for all blocks, an array with one for each, or a mapping
        from the names of the blocks; see :func:`~stochopt.blocks.estimate_block_smoothness`.
      learning_rate: :math:`\eta` in [0, 2), a number or a schedule.
      prox: ``prox(block, step) -> block``, for every block, or a mapping from the names of the
        blocks to such functions; ``None`` without penalties.
      max_doublings: how often a constant may be doubled in one block step; with zero,
        ``smoothness`` is taken as it is.
      order: ``order(key, num_blocks)``, such as :func:`~stochopt.blocks.shuffled`. With blocks of
        leaves, an order that depends on the key chooses a branch for each step, of which
        ``jax.vmap`` over the keys would compute all.
      seed: of the orders.

    Returns:
      The optimizer. ``num_descent_violations`` in its state counts the steps that left :math:`f`
      above the bound: their constant was too small. ``num_doublings`` says how often the constant
      of each block has been doubled; :math:`L_j` is now ``smoothness * 2 ** num_doublings``.

    Raises:
      TypeError: ``loss`` takes other arguments; ``update`` got no ``batch``, or masked leaves.
      ValueError: a hyper-parameter is out of range or not one for each block; ``loss`` returned no
        scalar; ``update`` got no ``params``.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from stochopt import blocks
      >>> loss = lambda x, batch: jnp.sum((x - jnp.array([2.0, 2.5])) ** 2) / 2 + x[0] * x[1] / 2
      >>> optimizer = blocks.cyclic_block_descent(loss, blocks.equal_slices(2), smoothness=1.0)
      >>> x = jnp.zeros(2)
      >>> state = optimizer.init(x)
      >>> for _ in range(20):
      ...     updates, state = optimizer.update(None, state, x, batch=())
      ...     x = optax.apply_updates(x, updates)
      >>> print(x.round(3))
      [1. 2.]

    References:
      Beck, Tetruashvili, `On the Convergence of Block Coordinate Descent Type Methods
      <https://doi.org/10.1137/120887679>`_, SIAM Journal on Optimization 2013; Cai, Song, Wright,
      Diakonikolas, `Cyclic Block Coordinate Descent With Variance Reduction for Composite Nonconvex
      Optimization <https://arxiv.org/abs/2212.05088>`_, 2023
    """
    check_arguments("loss", loss, "params, batch")
    check_numbers("smoothness", smoothness, "(0, inf)")
    check_range("learning_rate", learning_rate, "[0, 2)")
    check_range("max_doublings", max_doublings, "[0, inf)")

    def init_fn(params: optax.Params) -> CyclicBlockDescentState:
        shapes = ((), (), (), (len(partition(params).names),))
        return CyclicBlockDescentState(*(jnp.zeros(shape, jnp.int32) for shape in shapes))

    def update_fn(
        updates: optax.Updates,
        state: CyclicBlockDescentState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, CyclicBlockDescentState]:
        del updates, extra_args
        require_params("cyclic_block_descent", params)
        require_whole_tree("cyclic_block_descent", params)
        require_extra("cyclic_block_descent", "batch", batch, "batch=batch")
        blocks = partition(params)
        dtype = _tree.scalar_dtype(*jax.tree.leaves(params))
        constants = numbers_of_blocks("smoothness", smoothness, blocks, dtype)
        rate = jnp.asarray(value_at(learning_rate, state.count), dtype)
        move = proximal_block_step(prox, blocks)
        function = at_dtypes_of(params, lambda point: loss(point, batch))

        def step(index: Index, sweep: _Sweep) -> _Sweep:
            value, gradient = block_value_and_grad(function, blocks, sweep.point, index)
            sweep = sweep.checked(value)
            old = blocks.take(sweep.point, index)

            def trial(doublings: jax.Array) -> _Trial:
                constant = constants[index] * jnp.exp2(doublings.astype(dtype))
                new = move(index, old, gradient, rate / constant)
                change = optax.tree.sub(new, old)
                slope, square = dot(gradient, change, dtype), dot(change, change, dtype)
                bound = bound_of_terms(value.astype(dtype), slope, constant / 2 * square)
                return _Trial(blocks.put(sweep.point, index, new), bound, doublings)

            first = sweep.doublings[index]
            accepted = trial(first)
            if max_doublings:
                accepted = jax.lax.while_loop(
                    lambda tried: (
                        (tried.doublings - first < max_doublings)
                        & exceeds(function(tried.point), tried.bound)
                    ),
                    lambda tried: trial(tried.doublings + 1),
                    accepted,
                )
            return sweep._replace(
                point=accepted.point,
                bound=accepted.bound,
                doublings=sweep.doublings.at[index].set(accepted.doublings),
            )

        visits = order(cycle_key(key, seed, state.count), len(blocks.names))
        start = _Sweep(
            _tree.wide(params),
            jnp.asarray(jnp.inf, dtype),
            state.num_doublings,
            jnp.zeros([], jnp.int32),
        )
        end = blocks.visit(visits, step, start)
        value = function(end.point)
        check_scalar("loss", value)
        end = end.checked(value)
        return displacement(end.point, params), CyclicBlockDescentState(
            count=optax.safe_increment(state.count),
            num_block_gradients=_counters.add(state.num_block_gradients, visits.shape[0]),
            num_descent_violations=_counters.add(state.num_descent_violations, end.violations),
            num_doublings=end.doublings,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class _Trial(NamedTuple):
    point: Any
    bound: jax.Array  # on the value at the point, with room for rounding
    doublings: jax.Array  # of the constant


class _Sweep(NamedTuple):
    point: Any
    bound: jax.Array  # on the value at the point, with room for rounding
    doublings: jax.Array  # of the constant of each block
    violations: jax.Array  # of bounds so far

    def checked(self, value: jax.Array) -> "_Sweep":
        """With the value at the point compared to the bound on it."""
        exceeded = exceeds(value, self.bound).astype(jnp.int32)
        return self._replace(violations=self.violations + exceeded)
