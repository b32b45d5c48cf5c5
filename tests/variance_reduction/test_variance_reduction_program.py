"""The compiled programs: one branch at a time, buffers that can be donated, tables in place."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from acceptance.state_checks import check_no_shared_buffers
from compositional.test_coupled_program import NUM_BLOCKS, NUM_SAMPLED, NUM_STEPS, tables_made

from stochopt.experiments.flops import matmul_flops
from stochopt.variance_reduction import (
    estimate_page,
    estimate_saga,
    estimate_spider,
    estimate_storm,
    estimate_svrg,
)

FULL, DIM = 64, 5
ROWS = np.random.default_rng(0).standard_normal((FULL, DIM)).astype(np.float32)


def loss(x, rows):
    return jnp.mean(jnp.square(rows @ x - 1))


def full_loss(x):
    return loss(x, jnp.asarray(ROWS))


ANCHORED = {
    "page": estimate_page(loss, full_loss, num_batches=8),
    "spider": estimate_spider(loss, full_loss, num_batches=8),
    "svrg": estimate_svrg(loss, full_loss, num_batches=8),
}
ESTIMATORS = {
    **ANCHORED,
    "storm": estimate_storm(loss, direction_rate=0.1),
    "saga": estimate_saga(loss, num_blocks=FULL),
}


def flops(estimator, num_rows):
    x = jnp.ones(DIM)
    rows, indices = jnp.zeros((num_rows, DIM)), jnp.zeros(num_rows, jnp.int32)
    update = lambda state: estimator.update(None, state, x, batch=rows, block_indices=indices)
    return matmul_flops(update, estimator.init(x))


def flops_of_gradient(num_rows):
    return matmul_flops(jax.grad(loss), jnp.ones(DIM), jnp.zeros((num_rows, DIM)))


@pytest.mark.parametrize("name", ANCHORED)
def test_one_branch_is_a_full_gradient_and_the_other_a_pair_of_a_batch(name):
    """The dearer branch counts: the full gradient beside small batches, the pair of large ones."""
    assert flops(ANCHORED[name], 8) == flops_of_gradient(FULL)
    assert flops(ANCHORED[name], 100) == 2 * flops_of_gradient(100)


def test_storm_takes_a_pair_and_saga_one_gradient():
    assert flops(ESTIMATORS["storm"], 8) == 2 * flops_of_gradient(8)
    assert flops(ESTIMATORS["saga"], 8) == flops_of_gradient(8)


def test_coins_that_differ_by_lane_cost_both_branches():
    """The control: a program that computes both is found to."""
    x, page = jnp.ones(DIM), ANCHORED["page"]
    update = lambda key: page.update(None, page.init(x), x, batch=jnp.zeros((8, DIM)), key=key)
    both = matmul_flops(jax.vmap(update), jax.random.split(jax.random.key(0), 3))
    assert both == 3 * flops_of_gradient(FULL) + 3 * 2 * flops_of_gradient(8)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_states_share_no_buffer_with_params_updates_or_each_other(name):
    estimator, x = ESTIMATORS[name], jnp.ones(DIM)
    extras = {"batch": jnp.asarray(ROWS[:3]), "block_indices": jnp.arange(3)}
    state = estimator.init(x)
    check_no_shared_buffers(state, x)
    for _ in range(2):
        direction, state = estimator.update(None, state, x, **extras)  # eager: nothing is copied
        check_no_shared_buffers(state, (x, direction))


def compiled_loop(estimator, after=lambda state: state):
    optimizer = optax.chain(estimator, optax.scale(-0.01))

    def body(carry, draw):
        x, state = carry
        updates, state = optimizer.update(None, state, x, **draw)
        return (optax.apply_updates(x, updates), (after(state[0]), state[1])), None

    loop = lambda carry, draws: jax.lax.scan(body, carry, draws)[0]
    draws = {
        "batch": jax.ShapeDtypeStruct((NUM_STEPS, NUM_SAMPLED, DIM), jnp.float32),
        "block_indices": jax.ShapeDtypeStruct((NUM_STEPS, NUM_SAMPLED), jnp.int32),
    }
    x = jax.ShapeDtypeStruct((DIM,), jnp.float32)
    carry = (x, jax.eval_shape(optimizer.init, x))
    return jax.jit(loop, donate_argnums=0).lower(carry, draws).compile()


def test_the_table_is_changed_in_place():
    loop = compiled_loop(estimate_saga(loss, num_blocks=NUM_BLOCKS))
    assert tables_made(loop.as_text()) == []
    assert loop.memory_analysis().temp_size_in_bytes < NUM_BLOCKS
    centred = lambda state: state._replace(gradient_table=state.gradient_table * 0.5)
    spoiled = compiled_loop(estimate_saga(loss, num_blocks=NUM_BLOCKS), after=centred)
    assert tables_made(spoiled.as_text()) != []
