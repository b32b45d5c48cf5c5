r"""Gradients of :math:`F(x) = \frac1n \sum_i f_i(E g_i(x))`, a mean over blocks."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _table as table
from stochopt import _tree
from stochopt._checks import (
    check_count,
    require_extra,
    require_params,
    require_whole_tree,
)
from stochopt._oracles import check_leading_axis, check_scalar, check_shapes
from stochopt._schedules import value_at
from stochopt.compositional.trackers import Sample, Tracker, check_direction_rate
from stochopt.compositional.two_level import Inner, Outer

_METHOD = "estimate_coupled"


class EstimateCoupledState(NamedTuple):
    """State of :func:`estimate_coupled`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    visited: jax.Array  # whether a block has been sampled, shape=(num_blocks,), dtype=bool
    tracked_value: Any  # u, like the inner value behind a leading axis of num_blocks
    previous_params: Any  # like params, or None where nothing needs it
    direction: Any  # like params, or None without direction_rate
    estimated_value: jax.Array  # mean of f_i at the tracked values of the sampled blocks, shape=()


def estimate_coupled(
    inner: Inner,
    outer: Outer,
    *,
    tracker: Tracker,
    inner_shape: Any,
    num_blocks: int,
    direction_rate: optax.ScalarOrSchedule | None = None,
    table_sharding: jax.sharding.NamedSharding | None = None,
    check: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Estimates the gradient of a mean over blocks of functions of an expectation.

    A table holds an estimate :math:`u_i` of :math:`g_i(x) = E_\zeta g_{i, \zeta}(x)` for each of
    :math:`n` blocks. An update looks at a set :math:`\mathcal B_t` of blocks: their rows take in a
    sample, by the rule of the tracker, all others stay, and the direction is

    .. math::

       d_t = z_t(x_t, u^t), \qquad z_t(x, u) = \frac{1}{|\mathcal B_t|} \sum_{i \in \mathcal B_t}
         J_{g_{i, \zeta'}}(x)^T \, \nabla_u f_i(u_i, x) + \nabla_x f_i(u_i, x) .

    With ``direction_rate`` :math:`\beta` the direction is tracked recursively:
    :math:`d_t = z_t(x_t, u^t) + (1 - \beta_t) (d_{t-1} - z_t(x_{t-1}, u^{t-1}))`. A block that is
    sampled for the first time starts with its sample. Time and memory of an update grow with the
    number of sampled blocks, not with :math:`n`: the table is changed in place where the state is
    donated or carried by a loop.

    This is an *estimator*: ``update`` ignores the incoming ``updates``, stands first in a chain,
    and needs the whole ``params``; see :func:`stochopt.compositional.estimate_compositional`.

    **Extra arguments of** ``update``:

    - ``block_indices``, ``int32[B]`` *without repetition*
      (:func:`stochopt.compositional.sample_blocks` draws them). The index ``num_blocks`` is
      padding: its row of ``batch`` is evaluated, so it must hold ordinary numbers, and dropped. Of
      a repeated index one row is kept, any; negative indices count from the end.
    - ``batch``, one batch for each of these blocks on a leading axis.
    - ``jacobian_batch``, optional: an independent draw for the Jacobian, of the same blocks.
    - ``jacobian_block_indices``, optional: an independent draw of blocks for the direction, which
      the theorem of MSVR asks for; ``jacobian_batch`` is then of these blocks.

    Args:
      inner: ``inner(params, batch_i) -> y_i``, the inner value of one block; the estimator maps it
        over the blocks.
      outer: ``outer(y_i, params, batch_i) -> scalar``, :math:`f_i` plus any term in ``params``.
      tracker: how inner values are tracked, such as
        :func:`stochopt.compositional.moving_average`.
      inner_shape: ``jax.eval_shape(inner, params, batch_i)`` for one block.
      num_blocks: :math:`n`.
      direction_rate: :math:`\beta` in (0, 1], the weight on the new direction; a number or a
        schedule. ``None`` does not track the direction.
      table_sharding: layout of the table along its first axis, on a mesh with automatic or
        explicit axes; ``None`` leaves it to the device (or the compiler) that runs ``init``. On
        explicit axes an ``update`` that is not compiled wants ``jax.set_mesh``, as ``jax.grad``.
      check: whether to raise when an index is negative, repeated or too large; a compiled step has
        to be wrapped with ``jax.experimental.checkify.checkify``.

    Returns:
      The estimator. Its state holds ``estimated_value``, the mean of the outer functions over the
      sampled blocks at their tracked values.

    Raises:
      TypeError: ``update`` got no ``batch`` or no ``block_indices``, or indices that are no
        integers, or ``params`` with masked leaves.
      ValueError: the oracles' shapes do not fit, or a batch lacks the axis of the blocks.

    References:
      Wang, Yang, `Finite-Sum Coupled Compositional Stochastic Optimization
      <https://arxiv.org/abs/2202.12396>`_, 2022
    """

    def inner_rows(params: Any, batch: Any) -> Any:
        return jax.vmap(inner, in_axes=(None, 0))(params, batch)

    def outer_rows(values: Any, params: Any, batch: Any) -> jax.Array:
        def outer_row(value: Any, params: Any, batch_i: Any) -> jax.Array:
            result = outer(value, params, batch_i)
            check_scalar("outer", result)
            return result

        return jax.vmap(outer_row, in_axes=(0, None, 0))(values, params, batch)

    return estimate_rows(
        inner_rows,
        outer_rows,
        tracker=tracker,
        inner_shape=inner_shape,
        num_blocks=num_blocks,
        direction_rate=direction_rate,
        table_sharding=table_sharding,
        check=check,
    )


def estimate_rows(
    inner_rows: Callable[[Any, Any], Any],
    outer_rows: Callable[[Any, Any, Any], jax.Array],
    *,
    tracker: Tracker,
    inner_shape: Any,
    num_blocks: int,
    direction_rate: optax.ScalarOrSchedule | None = None,
    table_sharding: jax.sharding.NamedSharding | None = None,
    check: bool = False,
    per_block: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """:func:`estimate_coupled` with oracles for all sampled blocks at once.

    For objectives whose blocks share work, as contrastive losses share their embeddings.

    Args:
      inner_rows: ``inner_rows(params, batch) -> y`` with a leading axis over the sampled blocks.
      outer_rows: ``outer_rows(y, params, batch)``, one number for each of them.
      tracker: as in :func:`estimate_coupled`.
      inner_shape: of one block.
      num_blocks: as in :func:`estimate_coupled`.
      direction_rate: as in :func:`estimate_coupled`.
      table_sharding: as in :func:`estimate_coupled`.
      check: as in :func:`estimate_coupled`.
      per_block: whether every leaf of a batch has a leading axis over the sampled blocks.
    """
    check_count("num_blocks", num_blocks)
    check_direction_rate(direction_rate, tracker)
    keeps_previous = tracker.keeps_previous or direction_rate is not None

    def init_fn(params: optax.Params) -> EstimateCoupledState:
        zeros = lambda shape, dtype: table.zeros(num_blocks, shape, dtype, table_sharding)
        return EstimateCoupledState(
            count=jnp.zeros([], jnp.int32),
            visited=zeros((), bool),
            tracked_value=jax.tree.map(
                lambda x: zeros(x.shape, _tree.at_least_float32(x.dtype)), inner_shape
            ),
            previous_params=optax.tree.zeros_like(params) if keeps_previous else None,
            direction=None if direction_rate is None else optax.tree.zeros_like(params),
            estimated_value=jnp.zeros([], _tree.scalar_dtype(*jax.tree.leaves(inner_shape))),
        )

    def update_fn(
        updates: optax.Updates,
        state: EstimateCoupledState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        block_indices: jax.Array | None = None,
        jacobian_batch: Any = None,
        jacobian_block_indices: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EstimateCoupledState]:
        del updates, extra_args
        require_params(_METHOD, params)
        require_whole_tree(_METHOD, params)
        require_extra(_METHOD, "batch", batch, "batch=batch, block_indices=indices")
        require_extra(_METHOD, "block_indices", block_indices, "batch=batch, block_indices=indices")
        if jacobian_block_indices is not None:
            require_extra(
                _METHOD, "jacobian_batch", jacobian_batch, "jacobian_batch=batch of these blocks"
            )
        indices = table.as_indices(_METHOD, "block_indices", block_indices, num_blocks, check)
        other = (
            indices
            if jacobian_block_indices is None
            else table.as_indices(
                _METHOD, "jacobian_block_indices", jacobian_block_indices, num_blocks, check
            )
        )
        other_batch = batch if jacobian_batch is None else jacobian_batch
        if per_block:
            check_leading_axis("batch", batch, len(indices), "block_indices")
            check_leading_axis("jacobian_batch", other_batch, len(other), "its block indices")

        # One look at the table, so that it can be changed in place afterwards.
        rows, touched = table.look_up((state.tracked_value, state.visited), indices, other)
        inner_at = lambda point: inner_rows(point, batch)
        through_at = lambda point: inner_rows(point, other_batch)
        weights = (other < num_blocks).astype(state.estimated_value.dtype)
        weights = weights / jnp.maximum(jnp.sum(weights), 1)

        def direction_at(point: Any, tracked: Any, linearized: Any) -> tuple[jax.Array, Any]:
            sample, pullback = linearized
            at = optax.tree.cast_like(tracked, sample)
            outer_at = lambda values, point: outer_rows(values, point, other_batch)
            values, slopes = jax.vjp(outer_at, at, point)
            check_shapes("outer", values, weights, "the number of blocks")
            slope, direct = slopes(weights.astype(values.dtype))
            (through_inner,) = pullback(tracker.cotangent(tracked, sample, slope))
            # Conjugated, as optax wants complex gradients; nothing changes for real ones.
            return jnp.sum(weights * values), optax.tree.conj(optax.tree.add(through_inner, direct))

        linearized = jax.vjp(through_at, params)
        value = linearized[0] if jacobian_batch is None else inner_at(params)
        wanted = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((len(indices), *x.shape), x.dtype), inner_shape
        )
        check_shapes("inner", value, wanted, "inner_shape, for each block,")
        start = state.count == 0
        previous = None
        if keeps_previous:
            # On first touch both points coincide: the old sample is finite wherever the new is.
            previous = optax.tree.where(start, params, state.previous_params)
        sample = Sample(value, inner_at, params, previous, ~touched.own, state.count)
        used, kept = tracker.update(rows.own, sample)
        # The direction's blocks: as just tracked, or as they stand in the table, or untouched yet.
        now = table.first_touch(rows.others(used), linearized[0], touched.other | rows.shared)
        estimated_value, direction = direction_at(params, now, linearized)
        if direction_rate is not None:
            before = table.first_touch(rows.other, now, touched.other)
            _, there = direction_at(previous, before, jax.vjp(through_at, previous))
            weight = value_at(direction_rate, state.count)
            weight = jnp.where(start, 1.0, weight)
            direction = _tree.corrected(direction, state.direction, there, 1 - weight)
        # Written as a function of what was read: otherwise XLA copies the visits before the write.
        seen = touched.own | (indices < num_blocks)
        tables, visited = table.write((state.tracked_value, state.visited), indices, (kept, seen))
        return direction, EstimateCoupledState(
            count=optax.safe_increment(state.count),
            visited=visited,
            tracked_value=tables,
            previous_params=_tree.copy(params) if keeps_previous else None,
            direction=None if direction_rate is None else _tree.copy(direction),
            estimated_value=jnp.array(estimated_value, state.estimated_value.dtype),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
