"""Constants that are doubled where they are too small, and left alone where they are not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stochopt import blocks
from stochopt.problems import sparse_robust_regression

# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
PROBLEM = sparse_robust_regression()
RIGHT = PROBLEM.block_smoothness
EXACT = lambda x, batch: PROBLEM.full_smooth(x)


@functools.partial(jax.jit, static_argnames="max_doublings")
def trajectory(smoothness, max_doublings):
    """Points, and states, after each cycle."""
    optimizer = blocks.cyclic_block_descent(
        EXACT, PROBLEM.partition, smoothness, prox=PROBLEM.prox, max_doublings=max_doublings
    )

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(None, state, x, batch=())
        x = optax.apply_updates(x, updates)
        return (x, state), (x, state)

    x = jnp.zeros(12)
    return jax.lax.scan(step, (x, optimizer.init(x)), None, 300)[1]


def test_right_constants_are_not_doubled(x64):
    points, states = trajectory(RIGHT, 30)
    assert not states.num_doublings.any()
    assert not states.num_descent_violations.any()
    np.testing.assert_allclose(points, trajectory(RIGHT, 0)[0], rtol=0, atol=1e-12)


def test_constants_a_hundred_times_too_small_grow_until_every_step_descends(x64):
    points, states = trajectory(RIGHT / 100, 30)
    values = np.asarray(jax.vmap(PROBLEM.full_loss)(points))
    assert np.all(np.diff(values) < 1e-15)
    assert PROBLEM.metrics(points[-1])["squared_subgradient_norm"] < 1e-20
    assert not states.num_descent_violations.any()
    doublings = np.asarray(states.num_doublings)
    assert doublings.shape == (300, 6)
    assert np.all(np.diff(doublings, axis=0) >= 0)  # for good
    # Beyond the right constants, at 6.6 doublings, the descent inequality always holds.
    assert np.all((doublings[-1] >= 4) & (doublings[-1] <= 7))


def test_without_doubling_the_same_constants_fail_and_are_flagged(x64):
    points, states = trajectory(RIGHT / 100, 0)
    values = np.asarray(jax.vmap(PROBLEM.full_loss)(points))
    assert np.any(np.diff(values) > 1e-2)
    assert states.num_descent_violations[-1] > 100
    assert not states.num_doublings.any()


def test_one_doubling_a_step_is_the_most_that_was_asked_for(x64):
    _, states = trajectory(RIGHT / 100, 1)
    doublings = np.asarray(states.num_doublings)
    assert np.all(np.diff(doublings, axis=0, prepend=0) <= 1)
    assert doublings[0].max() == 1
    # A step that is still too long after its one doubling is taken, and counted.
    assert states.num_descent_violations[0] > 0


def test_blocks_of_leaves_each_have_their_own(x64):
    """Steep in one leaf only: catches one number of doublings for all of them."""
    params = {"flat": jnp.ones(2), "steep": jnp.ones(3)}
    loss = lambda p, batch: jnp.sum(p["flat"] ** 2) / 2 + 8 * jnp.sum(p["steep"] ** 2)
    optimizer = blocks.cyclic_block_descent(
        loss, blocks.by_path(str), {"flat": 1.0, "steep": 1.0}, max_doublings=10
    )
    updates, state = jax.jit(optimizer.update)(None, optimizer.init(params), params, batch=())
    np.testing.assert_array_equal(state.num_doublings, [0, 4])
    moved = optax.apply_updates(params, updates)
    assert all(np.all(leaf == 0) for leaf in moved.values())  # steps of 1 and of 1 / 16


def test_a_negative_number_of_doublings_is_refused():
    with pytest.raises(ValueError, match=r"max_doublings must lie in \[0, inf\)"):
        trajectory(1.0, -1)
