"""Cyclic block descent on finite sums: a gradient estimator for each block."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt import _counters, _tree
from stochopt._checks import (
    check_arguments,
    check_count,
    check_range,
    require_extra,
    require_params,
    require_whole_tree,
)
from stochopt._oracles import check_leading_axis
from stochopt._schedules import value_at
from stochopt.blocks._cycle import cycle_key, displacement
from stochopt.blocks.gradient import at_dtypes_of, block_value_and_grad
from stochopt.blocks.partition import Index, Partition
from stochopt.blocks.step import (
    BlockNumbers,
    BlockProx,
    check_numbers,
    numbers_of_blocks,
    proximal_block_step,
)


class VRCyclicBlockDescentState(NamedTuple):
    """State of :func:`vr_cyclic_block_descent`."""

    count: jax.Array  # type: ignore[assignment]  # cycles; shape=(), dtype=int32
    num_block_gradients: jax.Array  # of batches, a full one is num_batches; shape=(), dtype=int32
    cycle_start: Any  # where the last cycle began, like params, float32 or wider
    cycle_end: Any  # and where it ended, like params, float32 or wider
    block_gradients: Any  # g, like params, float32 or wider


def vr_cyclic_block_descent(
    loss: Callable[[Any, Any], jax.Array],
    full_loss: Callable[[Any], jax.Array],
    partition: Partition,
    smoothness: BlockNumbers,
    *,
    num_batches: int,
    learning_rate: optax.ScalarOrSchedule = 1.0,
    refresh_probability: optax.ScalarOrSchedule | None = None,
    prox: BlockProx | None = None,
    resample: Literal["cycle", "block"] = "cycle",
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Cyclic block descent with the gradient estimator of PAGE in every block, VR-CCD.

    Minimizes :math:`F(x) = f(x) + \sum_j r_j(x_j)` for the mean :math:`f` of :math:`n` terms. One
    ``update`` is one cycle through the blocks :math:`j = 1, \dots, m`:

    .. math::

       g_j &\leftarrow \begin{cases}
         \nabla_j f(y) & \text{with probability } p \text{, one coin for the cycle} \\
         g_j + \nabla_j f_B(y) - \nabla_j f_B(z) & \text{otherwise}
       \end{cases} \\
       y_j &\leftarrow \mathrm{prox}_{r_j}\left(y_j - \eta_j g_j,\; \eta_j\right), \qquad
       \eta_j = \frac{\eta}{L_j},

    from :math:`y = x`, where :math:`z` is the point at which the cycle before took the gradient in
    block :math:`j`: where that had ended in the blocks before :math:`j`, and where it had begun in
    the others. The batch is the *same* at both points. The first cycle takes full gradients.

    For batches of :math:`b` terms and :math:`p = b / (n + b)` it needs
    :math:`O(n + \sqrt n \hat L / \epsilon^2)` gradients of terms for a distance of :math:`\epsilon`
    to stationarity with :math:`b = \sqrt n`, as PAGE does, with the constant of
    :func:`stochopt.blocks.mahalanobis_constants` for the smoothness. That is proved for the small
    steps of :func:`stochopt.blocks.vr_cyclic_step`; :math:`\eta / L_j` with :math:`\eta = 1` is
    much faster, and mostly stable where a batch has :math:`\sqrt n` terms or more. Smaller batches
    want much smaller steps. With one block it is PAGE with a proximal step, with :math:`p = 1` it
    is :func:`stochopt.blocks.cyclic_block_descent`.

    The order is always cyclic: in another one than that of the cycle before, the points :math:`z`
    would be others. A *mover*: it returns the new point minus the old, ignores the incoming
    ``updates``, and stands alone.

    **Extra arguments of** ``update``: ``batch``, passed to ``loss``. ``key``, optional: random key
    of the coin, which otherwise follows from ``seed`` and the number of the cycle.

    Args:
      loss: ``loss(params, batch) -> scalar``, the mean over a batch.
      full_loss: ``full_loss(params) -> scalar``, :math:`f`.
      partition: as for :func:`stochopt.blocks.cyclic_block_descent`.
      smoothness: :math:`L_j > 0`, as for :func:`stochopt.blocks.cyclic_block_descent`.
      num_batches: :math:`n / b`, rounded up: a full gradient counts as so many.
      learning_rate: :math:`\eta` in [0, 2), a number or a schedule.
      refresh_probability: :math:`p` in (0, 1], a number or a schedule; ``None`` is the one above.
      prox: as for :func:`stochopt.blocks.cyclic_block_descent`.
      resample: ``"cycle"``: all blocks take the one ``batch``. ``"block"``: the leaves of ``batch``
        have a leading axis with one batch for each block, which is what the proof asks for.
      seed: of the coins.

    Returns:
      The optimizer. Its state holds ``num_block_gradients``, those of batches in one block.

    Raises:
      TypeError: an oracle takes other arguments; ``update`` got no ``batch``, or masked leaves.
      ValueError: a hyper-parameter is out of range or not one for each block; an oracle returned no
        scalar; ``batch`` lacks the leading axis; ``update`` got no ``params``.

    References:
      Cai, Song, Wright, Diakonikolas, `Cyclic Block Coordinate Descent With Variance Reduction for
      Composite Nonconvex Optimization <https://arxiv.org/abs/2212.05088>`_, 2023
    """
    check_arguments("loss", loss, "params, batch")
    check_arguments("full_loss", full_loss, "params")
    check_numbers("smoothness", smoothness, "(0, inf)")
    check_count("num_batches", num_batches)
    check_range("learning_rate", learning_rate, "[0, 2)")
    if refresh_probability is None:
        refresh_probability = 1 / (1 + num_batches)
    check_range("refresh_probability", refresh_probability, "(0, 1]")
    if resample not in ("cycle", "block"):
        raise ValueError(f"resample must be 'cycle' or 'block', got {resample!r}.")

    def init_fn(params: optax.Params) -> VRCyclicBlockDescentState:
        partition(params)  # its errors come early
        # The first cycle writes the points and gradients, so leaves may be abstract: zeros do.
        points = (_tree.zeros_at_least_float32(params) for _ in range(3))
        return VRCyclicBlockDescentState(
            jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32), *points
        )

    def update_fn(
        updates: optax.Updates,
        state: VRCyclicBlockDescentState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, VRCyclicBlockDescentState]:
        del updates, extra_args
        require_params("vr_cyclic_block_descent", params)
        require_whole_tree("vr_cyclic_block_descent", params)
        require_extra("vr_cyclic_block_descent", "batch", batch, "batch=batch")
        blocks = partition(params)
        num_blocks = len(blocks.names)
        if resample == "block":
            check_leading_axis("batch", batch, num_blocks, "the blocks")
        dtype = _tree.scalar_dtype(*jax.tree.leaves(params))
        constants = numbers_of_blocks("smoothness", smoothness, blocks, dtype)
        rate = jnp.asarray(value_at(learning_rate, state.count), dtype)
        move = proximal_block_step(prox, blocks)
        coin = jax.random.bernoulli(
            cycle_key(key, seed, state.count), value_at(refresh_probability, state.count)
        )
        refreshed = (state.count == 0) | coin

        def gradient_of_batch(point: Any, index: Index) -> Any:
            rows = jax.tree.map(lambda x: x[index], batch) if resample == "block" else batch
            function = at_dtypes_of(params, lambda point: loss(point, rows))
            return block_value_and_grad(function, blocks, point, index)[1]

        def step(index: Index, cycle: _Cycle) -> _Cycle:
            old = blocks.take(cycle.gradients, index)

            def from_all() -> Any:
                function = at_dtypes_of(params, full_loss)
                return block_value_and_grad(function, blocks, cycle.point, index)[1]

            def from_before() -> Any:
                here = gradient_of_batch(cycle.point, index)
                # In this order it is exact for a batch of all samples, to the last digit.
                return _tree.corrected(here, old, gradient_of_batch(cycle.before, index), 1.0)

            gradient = jax.lax.cond(refreshed, from_all, from_before)
            block = blocks.take(cycle.point, index)
            block = move(index, block, gradient, rate / constants[index])
            return _Cycle(
                point=blocks.put(cycle.point, index, block),
                before=blocks.put(cycle.before, index, blocks.take(state.cycle_end, index)),
                gradients=blocks.put(cycle.gradients, index, gradient),
            )

        start = _Cycle(_tree.wide(params), state.cycle_start, state.block_gradients)
        end = blocks.visit(np.arange(num_blocks), step, start)
        cost = num_blocks * jnp.where(refreshed, jnp.int32(num_batches), jnp.int32(2))
        return displacement(end.point, params), VRCyclicBlockDescentState(
            count=optax.safe_increment(state.count),
            num_block_gradients=_counters.add(state.num_block_gradients, cost),
            cycle_start=_tree.copy(start.point),
            cycle_end=end.point,
            block_gradients=end.gradients,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class _Cycle(NamedTuple):
    point: Any  # y
    before: Any  # z
    gradients: Any  # g
