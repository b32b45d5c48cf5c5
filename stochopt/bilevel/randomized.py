r"""Hypergradients from recursive estimates of all blocks' derivatives as one long vector."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from stochopt import _table, _tree
from stochopt._checks import check_count, check_range
from stochopt._oracles import scalar_oracle
from stochopt._schedules import value_at
from stochopt.bilevel.drawn import drawn_blocks
from stochopt.bilevel.field import LowerOnly, curvature_along, hypergradient
from stochopt.bilevel.hypergradient import Lower, Upper
from stochopt.bilevel.schemes import adjoint_of_rows, tracked_hessian
from stochopt.compositional import Sample, Tracker

_METHOD = "estimate_randomized"


class TrackedDerivatives(NamedTuple):
    """Tracked derivatives of blocks, a row for each block."""

    lower_slope: Any  # s, like lower_params behind the first axis
    upper_slope: Any  # v, likewise
    hessian: jax.Array  # H, shape=(num_blocks, d, d)
    cross: Any  # V, like params behind two axes of sizes num_blocks and d


class EstimateRandomizedState(NamedTuple):
    """State of :func:`estimate_randomized`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    visited: jax.Array  # whether a block has been sampled, shape=(num_blocks,), dtype=bool
    lower_params: Any  # y, a row for each block, where the next update finds them
    previous_lower_params: Any  # at the point of the last update
    tracked: TrackedDerivatives
    previous_tracked: tuple[Any, ...]  # v, H and V of before the last update; names stand once
    previous_params: Any  # like params
    direction: Any  # like params
    estimated_value: jax.Array  # mean of f_i over the sampled blocks, shape=()
    curvature: jax.Array  # the least p'Hp / p'p of the sampled blocks; negative: not convex


def estimate_randomized(
    upper: Upper,
    lower: Lower,
    *,
    tracker: Tracker,
    lower_params: Any,
    num_blocks: int,
    num_sampled: int,
    learning_rate: optax.ScalarOrSchedule,
    direction_rate: optax.ScalarOrSchedule,
    hessian_floor: float | None = None,
    damping: float = 0.0,
    check: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Estimates the gradient of a mean over blocks; trackers see all blocks as one vector.

    A draw of :math:`B` of :math:`n` blocks gives an unbiased sample of the vector of all blocks'
    derivatives :math:`\Phi = (\phi_1, \dots, \phi_n)`,

    .. math::

       \hat\Phi_i = \frac nB \phi_i \text{ for } i \in \mathcal B_t, \qquad
       \hat\Phi_i = 0 \text{ for all others}, \qquad
       \phi_i = \left(\nabla_y g_i, \nabla_y f_i, \nabla^2_{yy} g_i, \nabla^2_{xy} g_i\right),

    and the tracker takes it in as a whole: with
    :func:`stochopt.compositional.recursive_tracker` of rate :math:`\alpha` the rows
    :math:`(s_i, v_i, H_i, V_i)` become

    .. math::

       (1 - \alpha) \left(\cdot_i - \tfrac nB \phi_i^{t-1}\right) + \tfrac nB \phi_i^t
       \text{ for } i \in \mathcal B_t, \qquad
       (1 - \alpha)\, \cdot_i \text{ for all others},

    :math:`\phi^{t-1}` with the same sample at the point before. Then

    .. math::

       z_t &= \frac1B \sum_{i \in \mathcal B_t} \nabla_x f_i(x_t, y_i^t) - V_i p_i, \qquad
         p_i = (H_i + \delta I)^{-1} v_i \\
       d_t &= z_t + (1 - \beta_t) (d_{t-1} - \tilde z_{t-1}), \qquad
       y_i^{t+1} = y_i^t - \tau_t s_i \quad \text{for all } i .

    In :math:`z_t` stand the :math:`v, H, V` of before this update, which do not depend on its draw,
    so one set of blocks serves both; :math:`\tilde z_{t-1}` has the same blocks and samples, at
    the point before and with the :math:`v, H, V` of one update earlier.

    A block that is sampled for the first time starts with its sample, with the weight 1; until
    then it does not move. Only the matrices of sampled blocks are raised to the floor: those of
    the others shrink together with :math:`v_i`, which leaves :math:`p_i` as it was.

    Every row of every table changes in every update: time and memory traffic are
    :math:`O(n (d_y^2 + d_x d_y))`, beside the oracles of the sampled blocks.

    An *estimator*: it ignores the incoming ``updates``, stands first in a chain and needs the whole
    ``params``. **Extra arguments of** ``update``: ``batch`` and ``block_indices`` as in
    :func:`stochopt.compositional.estimate_coupled`; ``jacobian_batch``, optional: an independent
    draw of the same blocks for :math:`\nabla_x f_i`.

    Args:
      upper: ``upper(params, lower_params_i, batch_i) -> scalar``, :math:`f_i`.
      lower: ``lower(params, lower_params_i, batch_i) -> scalar``, :math:`g_i`.
      tracker: how the vector takes in a sample, entry by entry.
      lower_params: where every lower variable starts: a tree of arrays, of one block.
      num_blocks: :math:`n`.
      num_sampled: :math:`B`, blocks in each update.
      learning_rate: :math:`\tau \ge 0`, a number or a schedule.
      direction_rate: :math:`\beta` in (0, 1], the weight on the new direction; a number or a
        schedule.
      hessian_floor: see :func:`stochopt.bilevel.tracked_hessian`.
      damping: :math:`\delta`, likewise.
      check: see :func:`stochopt.compositional.estimate_coupled`.

    Returns:
      The estimator.

    Raises:
      TypeError: ``update`` got no ``batch`` or no ``block_indices``, or masked leaves.
      ValueError: a number is out of range, a batch lacks the axis of the blocks, or an oracle
        returned no scalar.

    References:
      Guo et al., `Randomized Stochastic Variance-Reduced Methods for Multi-Task Stochastic Bilevel
      Optimization <https://arxiv.org/abs/2105.02266>`_, 2021
    """
    check_count("num_blocks", num_blocks)
    check_count("num_sampled", num_sampled)
    if num_sampled > num_blocks:
        raise ValueError(f"num_sampled={num_sampled} is more than num_blocks={num_blocks}.")
    check_range("learning_rate", learning_rate, "[0, inf)")
    check_range("direction_rate", direction_rate, "(0, 1]")
    upper, lower = scalar_oracle("upper", upper), scalar_oracle("lower", lower)
    scheme = tracked_hessian(lower, floor=hessian_floor, damping=damping)
    hessian_of = scheme.hessian
    assert hessian_of is not None
    dtype = _tree.scalar_dtype(*jax.tree.leaves(lower_params))
    importance = num_blocks / num_sampled

    def init_fn(params: optax.Params) -> EstimateRandomizedState:
        start = jax.tree.map(jnp.asarray, lower_params)
        wide = lambda x: _tree.at_least_float32(x.dtype)
        zeros = lambda x: jnp.zeros((num_blocks, *x.shape), wide(x))
        slope = lambda: jax.tree.map(zeros, start)
        filled = lambda: jax.tree.map(lambda x: zeros(x) + x[None].astype(wide(x)), start)
        size = sum(x.size for x in jax.tree.leaves(start))
        hessian = lambda: jnp.zeros((num_blocks, size, size), dtype)

        def of_params(x: Any) -> jax.Array:
            # Rows that follow the layout of the parameter.
            zero = jnp.zeros_like(x, dtype=wide(x))
            return jnp.broadcast_to(zero, (num_blocks, size, *x.shape))

        cross = lambda: jax.tree.map(of_params, params)
        zero = jnp.zeros([], dtype)
        return EstimateRandomizedState(
            count=jnp.zeros([], jnp.int32),
            visited=jnp.zeros(num_blocks, bool),
            lower_params=filled(),
            previous_lower_params=filled(),
            tracked=TrackedDerivatives(slope(), slope(), hessian(), cross()),
            previous_tracked=(slope(), hessian(), cross()),
            previous_params=optax.tree.zeros_like(params),
            direction=optax.tree.zeros_like(params),
            estimated_value=zero,
            curvature=jnp.zeros_like(zero),
        )

    def derivatives(params: Any, y: Any, batch: Any) -> TrackedDerivatives:
        """Of one block."""
        slope = lambda params: jax.grad(lower, argnums=1)(params, y, batch)
        flat_slope = lambda params: ravel_pytree(slope(params))[0]
        return TrackedDerivatives(
            lower_slope=slope(params),
            upper_slope=jax.grad(upper, argnums=1)(params, y, batch),
            hessian=hessian_of(params, LowerOnly(y), batch),
            cross=jax.jacrev(flat_slope)(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: EstimateRandomizedState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        block_indices: jax.Array | None = None,
        jacobian_batch: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EstimateRandomizedState]:
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
        indices, inside, share, batch, other_batch = drawn

        tables = (state.lower_params, state.previous_lower_params)
        known = (tuple(state.tracked)[1:], state.previous_tracked)
        found, touched = _table.look_up(((tables, known), state.visited), indices, indices)
        ((now, before), (known_now, known_before)), seen = found.own, touched.own
        start = state.count == 0
        # On first touch both points coincide: the old sample is finite wherever the new is.
        old_params = optax.tree.where(start, params, state.previous_params)
        before = _tree.where_rows(seen, before, now)

        # The whole vector.
        weights = jnp.where(seen, importance, 1.0)
        weigh = lambda x: _tree.expand(weights.astype(x.dtype), x) * x
        rows = lambda point: jax.vmap(derivatives, (None, 0, 0))(point[0], point[1], batch)
        empty = optax.tree.zeros_like(state.tracked)
        spread = lambda rows: _table.write(empty, indices, jax.tree.map(weigh, rows))
        point, old_point = (params, now), (old_params, before)
        sampled = rows(point)
        sample = Sample(
            spread(sampled),
            lambda point: spread(rows(point)),
            point,
            old_point,
            ~state.visited,
            state.count,
        )
        _, tracked = tracker.update(state.tracked, sample)
        raw, _ = _table.look_up((tracked.hessian, state.visited), indices, indices)
        kept = _table.write(tracked.hessian, indices, jax.vmap(scheme.kept)(raw.own))
        tracked = tracked._replace(hessian=kept)

        # The direction, with what was known before.
        fresh = sampled._replace(hessian=jax.vmap(scheme.kept)(sampled.hessian))
        fresh = optax.tree.cast_like(tuple(fresh)[1:], known_now)
        usable = lambda known: _solvable(inside, _tree.where_rows(seen, known, fresh))

        def direction_at(params: Any, y: Any, known: Any) -> tuple[jax.Array, Any, jax.Array]:
            slopes, hessians, cross = known
            p = adjoint_of_rows(scheme, LowerOnly(y), hessians, slopes)
            flat = jax.vmap(lambda tree: ravel_pytree(tree)[0])(p)

            def total(params: Any) -> jax.Array:
                values = jax.vmap(upper, (None, 0, 0))(params, y, other_batch)
                return jnp.sum(share * values)

            value, direct = jax.value_and_grad(total)(params)
            weighted = share[:, None].astype(flat.dtype) * flat
            product = lambda d, v: jnp.einsum("ik,ik...->...", weighted.astype(v.dtype), v).astype(
                d.dtype
            )
            return value, hypergradient(direct, jax.tree.map(product, direct, cross)), flat

        value, direction, adjoint = direction_at(params, now, usable(known_now))
        _, there, _ = direction_at(old_params, before, usable(known_before))
        weight = jnp.where(start, 1.0, value_at(direction_rate, state.count))
        direction = _tree.corrected(direction, state.direction, there, 1 - weight)
        products = jax.vmap(jnp.matmul)(sampled.hessian.astype(adjoint.dtype), adjoint)
        curvatures = jax.vmap(curvature_along)(adjoint, products)
        used = inside & jnp.any(adjoint != 0, axis=1)

        step = jnp.asarray(value_at(learning_rate, state.count))
        move = lambda y, s: y - step.astype(y.dtype) * s
        # Of a block that was new, the first sample is also what was known before.
        previous = _tree.where_rows(state.visited, tuple(state.tracked)[1:], tuple(tracked)[1:])
        here = jnp.ones_like(indices, dtype=bool)
        as_kept = lambda x: jnp.array(x, dtype)
        return direction, EstimateRandomizedState(
            count=optax.safe_increment(state.count),
            visited=_table.write(state.visited, indices, here),
            lower_params=jax.tree.map(move, state.lower_params, tracked.lower_slope),
            previous_lower_params=_tree.copy(state.lower_params),
            tracked=tracked,
            previous_tracked=previous,
            previous_params=_tree.copy(params),
            direction=_tree.copy(direction),
            estimated_value=as_kept(value),
            curvature=as_kept(jnp.min(jnp.where(used, curvatures, jnp.inf))),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _solvable(inside: jax.Array, known: tuple[Any, ...]) -> tuple[Any, ...]:
    # The matrix of padding may have no inverse; weight zero would not hide that.
    slopes, hessians, cross = known
    identity = jnp.broadcast_to(jnp.eye(hessians.shape[-1], dtype=hessians.dtype), hessians.shape)
    zeros = optax.tree.zeros_like((slopes, cross))
    slopes, cross = _tree.where_rows(inside, (slopes, cross), zeros)
    return slopes, _tree.where_rows(inside, hessians, identity), cross
