r"""RSVRB for re-weighted logistic regressions, its cross derivatives in a compressed form.

:func:`stochopt.bilevel.rsvrb` keeps for every block a matrix :math:`V_i \approx \nabla^2_{xy} g_i`
with as many columns as there are weights, 900 MB for a8a, all of which changes in every update.
Here column :math:`j` of each sample is a multiple of the training row :math:`a_j`, and the
recursion is linear, so the multiples say all:

.. math:: V_i = A^T \mathrm{diag}(c_i), \qquad V_i^T p = c_i \odot (A p) .
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class State(NamedTuple):
    """As of the library's method, with ``c`` in place of the matrices ``V``."""

    count: jax.Array
    visited: jax.Array
    lower_params: jax.Array  # y
    previous_lower_params: jax.Array
    slope: jax.Array  # s
    known: tuple[jax.Array, ...]  # v, H and c
    previous_known: tuple[jax.Array, ...]
    previous_params: jax.Array
    direction: jax.Array


def compressed_rsvrb(
    parts: Any,
    temperatures: jax.Array,
    ridge: float,
    *,
    num_sampled: int,
    learning_rate: Any,
    lower_learning_rate: Any,
    tracker_rate: Any,
    direction_rate: Any,
    damping: float,
) -> optax.GradientTransformationExtraArgs:
    """Arguments as of the library's method; ``parts`` are the problem's signed examples."""
    train, validation = jnp.asarray(parts.train), jnp.asarray(parts.validation)
    (num_train, dimension), num_blocks = train.shape, len(temperatures)
    importance = num_blocks / num_sampled

    def derivatives(x, y, batch):
        """Of the lower and the upper function in y, of one block; and its multiples c."""
        temperature, size = jnp.asarray(temperatures)[batch.block], batch.train.shape[0]
        a, held_out = train[batch.train], validation[batch.validation]
        weights = jax.nn.sigmoid(x[batch.train])
        miss = jax.nn.sigmoid(-(a @ y) / temperature)
        miss_held_out = jax.nn.sigmoid(-(held_out @ y) / temperature)
        slope = -(weights * miss) @ a / (size * temperature) + ridge * y
        upper_slope = -miss_held_out @ held_out / (size * temperature)
        curvatures = weights * miss * (1 - miss) / (size * temperature**2)
        hessian = (a.T * curvatures) @ a + ridge * jnp.eye(dimension)
        return slope, upper_slope, hessian, -weights * (1 - weights) * miss / (size * temperature)

    def solve(slope_and_hessian):
        slope, hessian = slope_and_hessian
        factor = jax.scipy.linalg.cho_factor(hessian + damping * jnp.eye(dimension))
        return jax.scipy.linalg.cho_solve(factor, slope)

    def init(params):
        zeros = lambda *shape: jnp.zeros((num_blocks, *shape))
        known = lambda: (zeros(dimension), zeros(dimension, dimension), zeros(num_train))
        return State(
            jnp.zeros([], jnp.int32),
            jnp.zeros(num_blocks, bool),
            zeros(dimension),
            zeros(dimension),
            zeros(dimension),
            known(),
            known(),
            jnp.zeros_like(params),
            jnp.zeros_like(params),
        )

    def update(updates, state, params, *, batch, block_indices, **extra_args):
        del updates, extra_args
        index, start = block_indices, state.count == 0
        seen = state.visited[index]
        by_row = lambda flags, x: flags.reshape(-1, *(1,) * (x.ndim - 1))
        old_params = jnp.where(start, params, state.previous_params)
        now = state.lower_params[index]
        before = jnp.where(by_row(seen, now), state.previous_lower_params[index], now)
        new = jax.vmap(derivatives, (None, 0, 0))(params, now, batch)
        old = jax.vmap(derivatives, (None, 0, 0))(old_params, before, batch)

        # A block that is new starts with its sample, with the weight one.
        keep = 1 - tracker_rate
        tracked_new = [by_row(jnp.where(seen, importance, 1.0), x) * x for x in new]
        tracked_old = [by_row(jnp.where(seen, importance * keep, 0.0), x) * x for x in old]
        track = lambda table, x, there: (keep * table).at[index].add(x - there)
        slope, upper_slope, hessian = (
            track(table, x, there)
            for table, x, there in zip(
                (state.slope, *state.known[:2]), tracked_new[:3], tracked_old[:3], strict=True
            )
        )
        place = (index[:, None], batch.train)
        multiples = (keep * state.known[2]).at[place].add(tracked_new[3] - tracked_old[3])
        known = (upper_slope, hessian, multiples)

        # The direction, with what was known before.
        row = lambda place, x: jnp.zeros(num_train).at[place].add(x)
        fresh = (new[1], new[2], jax.vmap(row)(batch.train, new[3]))

        def rows_of(tables):
            pairs = zip(tables, fresh, strict=True)
            return [jnp.where(by_row(seen, x), table[index], x) for table, x in pairs]

        both = map(jnp.stack, zip(rows_of(state.known), rows_of(state.previous_known), strict=True))
        slopes, hessians, multiples = both
        adjoints = jax.lax.map(
            solve, (slopes.reshape(-1, dimension), hessians.reshape(-1, dimension, dimension))
        )
        adjoints = adjoints.reshape(slopes.shape)
        here, there = -jnp.mean(multiples * (adjoints @ train.T), axis=1)
        direction = here + jnp.where(start, 0, 1 - direction_rate) * (state.direction - there)
        previous = jax.tree.map(
            lambda old, new: jnp.where(by_row(state.visited, old), old, new), state.known, known
        )
        return -learning_rate * direction, State(
            state.count + 1,
            state.visited.at[index].set(True),
            state.lower_params - lower_learning_rate * slope,
            state.lower_params,
            slope,
            known,
            previous,
            params,
            direction,
        )

    return optax.GradientTransformationExtraArgs(init, update)
