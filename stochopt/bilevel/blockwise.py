r"""Hypergradients of :math:`F(x) = \frac1n \sum_i f_i(x, y_i(x))`, many lower problems."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _table, _tree
from stochopt._checks import check_count, check_range
from stochopt._schedules import value_at
from stochopt.bilevel.drawn import drawn_blocks
from stochopt.bilevel.hypergradient import Lower, Upper
from stochopt.bilevel.motion import DENSE, LAZY, Clock, Moving, Projections, start_clock, tick
from stochopt.bilevel.schemes import Scheme, adjoint_of_rows, hypergradient_of_rows
from stochopt.compositional import Sample, Tracker

_METHOD = "estimate_blockwise"


class TrackedMatrices(NamedTuple):
    """Tracked Hessians of blocks, a row for each block."""

    hessian: jax.Array  # shape=(num_blocks, d, d)
    previous_hessian: jax.Array  # before its last change
    changed_at: jax.Array  # number of the update that changed it, shape=(num_blocks,), int32


class EstimateBlockwiseState(NamedTuple):
    """State of :func:`estimate_blockwise`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    visited: jax.Array  # whether a block has been sampled, shape=(num_blocks,), dtype=bool
    moving: Moving  # lower (and adjoint) variables, a row for each block
    matrices: TrackedMatrices | None
    clock: Clock  # sums of the step sizes
    previous_params: Any  # like params
    direction: Any  # like params, or None without direction_rate
    estimated_value: jax.Array  # mean of f_i over the sampled blocks, shape=()
    curvature: jax.Array  # the least p'Hp / p'p of the sampled blocks; negative: not convex


def estimate_blockwise(
    upper: Upper,
    lower: Lower,
    scheme: Scheme,
    *,
    tracker: Tracker,
    hessian_tracker: Tracker | None = None,
    lower_params: Any,
    num_blocks: int,
    learning_rates: tuple[optax.ScalarOrSchedule, ...],
    projections: Projections | None = None,
    direction_rate: optax.ScalarOrSchedule | None = None,
    lazy: bool = True,
    table_sharding: jax.sharding.NamedSharding | None = None,
    check: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Estimates the gradient of a mean over blocks, each with a lower problem of its own.

    Tables hold for each of :math:`n` blocks the variables of a
    :class:`stochopt.bilevel.Scheme` (the lower variable :math:`y_i`, perhaps the adjoint variable
    :math:`p_i`) and the directions :math:`s_i` along which they move. An update looks at a set
    :math:`\mathcal B_t` of blocks:

    .. math::

       s_i &\leftarrow \mathrm{tracker}(s_i, \text{directions of a sample}) \quad
         \text{for } i \in \mathcal B_t, \text{ all others stay} \\
       z_t(x, y, p) &= \frac{1}{|\mathcal B_t|} \sum_{i \in \mathcal B_t}
         \nabla_x f_i(x, y_i) - \nabla^2_{xy} g_i(x, y_i)\, p_i \\
       d_t &= z_t(x_t, y^t, p^t)
         + (1 - \beta_t) \left(d_{t-1} - z_t(x_{t-1}, y^{t-1}, p^{t-1})\right) \\
       y_i^{t+1} &= \Pi\left(y_i^t - \tau_t s_i\right) \quad \text{for all } i .

    The direction takes the variables (and a tracked Hessian) of *before* this update, which do not
    depend on its draw of blocks, so one set of blocks serves both. A block that is sampled for the
    first time starts with the directions of its sample, and until then it does not move.

    Time and memory traffic of an update grow with the number of sampled blocks, not with
    :math:`n`: a block that was not sampled catches up when it is (see
    :func:`stochopt.bilevel.block_variables`). ``lazy=False`` moves the whole table in every update.
    Both are the same up to rounding while no projection acts; under one, the lazy form projects
    the sum of the missed steps and not each of them.

    An *estimator*: it ignores the incoming ``updates``, stands first in a chain and needs the whole
    ``params``. **Extra arguments of** ``update``: ``batch`` and ``block_indices`` as in
    :func:`stochopt.compositional.estimate_coupled`; ``jacobian_batch``, optional: an independent
    draw of the same blocks for the direction.

    Args:
      upper: ``upper(params, lower_params_i, batch_i) -> scalar``, :math:`f_i`.
      lower: ``lower(params, lower_params_i, batch_i) -> scalar``, :math:`g_i`.
      scheme: :func:`stochopt.bilevel.tracked_solution` or
        :func:`stochopt.bilevel.tracked_hessian`.
      tracker: how directions take in a sample, such as
        :func:`stochopt.compositional.msvr_tracker`.
      hessian_tracker: the same for a tracked Hessian; ``None`` means ``tracker``.
      lower_params: where every lower variable starts: a tree of arrays, of one block.
      num_blocks: :math:`n`.
      learning_rates: :math:`\tau \ge 0`, numbers or schedules, one for each variable of the scheme.
      projections: ``projection(variable) -> variable`` of one block or ``None``, one for each
        variable; ``None`` means none at all.
      direction_rate: :math:`\beta` in (0, 1], the weight on the new direction; a number or a
        schedule. ``None`` does not track the direction.
      lazy: whether blocks move only when they are sampled.
      table_sharding: layout of the tables along their first axis, see
        :func:`stochopt.compositional.estimate_coupled`. On a mesh with explicit axes every device
        works on all sampled blocks, also where the batch comes spread over the devices.
      check: whether to raise when an index is negative, repeated or too large, see there.

    Returns:
      The estimator.

    Raises:
      TypeError: ``update`` got no ``batch`` or no ``block_indices``, or masked leaves.
      ValueError: a number is out of range, a batch lacks the axis of the blocks, or an oracle
        returned no scalar.

    References:
      Hu et al., `Blockwise Stochastic Variance-Reduced Methods with Parallel Speedup for
      Multi-Block Bilevel Optimization <https://arxiv.org/abs/2305.18730>`_, 2023
    """
    check_count("num_blocks", num_blocks)
    if direction_rate is not None:
        check_range("direction_rate", direction_rate, "(0, 1]")
    start_row = scheme.start(lower_params)
    if len(learning_rates) != len(start_row):
        raise ValueError(
            f"learning_rates has {len(learning_rates)} entries for {len(start_row)} variables."
        )
    for rate in learning_rates:
        check_range("learning_rates", rate, "[0, inf)")
    projections = (None,) * len(start_row) if projections is None else projections
    motion = LAZY if lazy else DENSE
    for_hessian = hessian_tracker or tracker
    dtype = _tree.scalar_dtype(*jax.tree.leaves(start_row))

    def init_fn(params: optax.Params) -> EstimateBlockwiseState:
        zeros = lambda x: _table.zeros(num_blocks, x.shape, x.dtype, table_sharding)
        wide = lambda x: jnp.asarray(x, _tree.at_least_float32(jnp.asarray(x).dtype))
        row = jax.tree.map(wide, start_row)
        mark = motion.mark(row, len(row), dtype)
        filled = lambda tree: jax.tree.map(lambda x: zeros(x) + x[None], tree)
        moving = Moving(filled(row), jax.tree.map(zeros, row), filled(mark))
        matrices = None
        if scheme.hessian is not None:
            size = sum(x.size for x in jax.tree.leaves(lower_params))
            matrix = jax.ShapeDtypeStruct((size, size), dtype)
            number = jax.ShapeDtypeStruct((), jnp.dtype(jnp.int32))
            matrices = TrackedMatrices(zeros(matrix), zeros(matrix), zeros(number))
        zero = jnp.zeros([], dtype)
        return EstimateBlockwiseState(
            count=jnp.zeros([], jnp.int32),
            visited=zeros(jax.ShapeDtypeStruct((), jnp.dtype(bool))),
            moving=moving,
            matrices=matrices,
            clock=start_clock(len(row), dtype),
            previous_params=optax.tree.zeros_like(params),
            direction=None if direction_rate is None else optax.tree.zeros_like(params),
            estimated_value=zero,
            curvature=jnp.zeros_like(zero),
        )

    def update_fn(
        updates: optax.Updates,
        state: EstimateBlockwiseState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        block_indices: jax.Array | None = None,
        jacobian_batch: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EstimateBlockwiseState]:
        del updates, extra_args
        drawn = drawn_blocks(
            _METHOD,
            params,
            batch,
            block_indices,
            jacobian_batch,
            num_blocks=num_blocks,
            check=check,
            dtype=dtype,
        )
        indices, inside, weights, batch, other_batch = drawn

        # One look at the tables, so that they can be changed in place afterwards.
        tables = (state.moving, state.matrices)
        found, touched = _table.look_up((tables, state.visited), indices, indices)
        moving, matrices = found.own
        seen, start = touched.own, state.count == 0
        now, before = motion.read(moving, state.clock, projections)
        # On first touch both points coincide: the old sample is finite wherever the new is.
        old_params = optax.tree.where(start, params, state.previous_params)
        before = _tree.where_rows(seen, before, now)

        # New directions and matrices.
        rows = lambda function: jax.vmap(function, in_axes=(None, 0, 0))
        directions_at = lambda point: rows(scheme.directions)(*point, batch)
        point, old_point = (params, now), (old_params, before)
        sampled = directions_at(point)
        sample = Sample(sampled, directions_at, point, old_point, ~seen, state.count)
        _, directions = tracker.update(moving.directions, sample)
        hessians = old_hessians = new_matrices = None
        if scheme.hessian is not None:
            hessian_at = lambda point: rows(scheme.hessian)(*point, batch)
            seen_now = hessian_at(point)
            sample = Sample(seen_now, hessian_at, point, old_point, ~seen, state.count)
            _, new = for_hessian.update(matrices.hessian, sample)
            fresh = jax.vmap(scheme.kept)(seen_now).astype(dtype)
            # The matrix of padding may have no inverse; weight zero would not hide that.
            identity = jnp.broadcast_to(jnp.eye(fresh.shape[-1], dtype=dtype), fresh.shape)
            fresh = _tree.where_rows(inside, fresh, identity)
            hessians = _tree.where_rows(seen, matrices.hessian, fresh)
            just_before = seen & (matrices.changed_at == state.count - 1)
            old_hessians = _tree.where_rows(just_before, matrices.previous_hessian, hessians)
            numbers = jnp.full(len(indices), state.count)
            new_matrices = TrackedMatrices(jax.vmap(scheme.kept)(new), hessians, numbers)

        # The direction, with what was known before.
        def hypergradient(params: Any, variables: Any, matrices: Any) -> tuple[Any, Any, Any]:
            adjoint_of = lambda slopes: adjoint_of_rows(scheme, variables, matrices, slopes)
            y = variables.lower_params
            return hypergradient_of_rows(upper, lower, params, y, adjoint_of, other_batch, weights)

        value, direction, curvature = hypergradient(params, now, hessians)
        if direction_rate is not None:
            _, there, _ = hypergradient(old_params, before, old_hessians)
            weight = jnp.where(start, 1.0, value_at(direction_rate, state.count))
            direction = _tree.corrected(direction, state.direction, there, 1 - weight)

        # Back into the tables; written as a function of what was read, or XLA copies them first:
        # the rows of padding, which are dropped, stay as they were.
        turned = motion.turn(now, before, directions, state.clock)
        new_rows = optax.tree.cast_like((turned, new_matrices), found.own)
        rows_now = (_tree.where_rows(inside, new_rows, found.own), seen | inside)
        written, visited = _table.write((tables, state.visited), indices, rows_now)
        steps = tuple(value_at(rate, state.count) for rate in learning_rates)
        as_kept = lambda x: jnp.array(x, dtype)
        return direction, EstimateBlockwiseState(
            count=optax.safe_increment(state.count),
            visited=visited,
            moving=motion.sweep(written[0], steps, projections),
            matrices=written[1],
            clock=tick(state.clock, steps),
            previous_params=_tree.copy(params),
            direction=None if direction_rate is None else _tree.copy(direction),
            estimated_value=as_kept(value),
            curvature=as_kept(curvature),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def block_variables(state: EstimateBlockwiseState) -> Any:
    """The variables of all blocks at the point of the last update, before it moved them.

    Args:
      state: of :func:`estimate_blockwise`.

    Returns:
      ``lower_params`` (and ``adjoint``), with a leading axis over the blocks. Of the lazy form,
      without the projection that they meet when their block is sampled.
    """
    variables = state.moving.variables
    motion = DENSE if isinstance(state.moving.mark, type(variables)) else LAZY
    _, at_last_update = motion.read(state.moving, state.clock, (None,) * len(variables))
    return at_last_update
