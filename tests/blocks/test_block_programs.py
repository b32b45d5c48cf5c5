"""Compiled cycles over slices and leaves: dtypes, seeds, donation, devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from acceptance.state_checks import check_no_shared_buffers
from meshes import assert_close, each_kind, make_mesh, types

from stochopt import blocks, proximal

NUM_BLOCKS = 4
TARGET = np.linspace(-1.0, 1.0, 8 * 6).reshape(8, 6)


def full_loss(x):
    """Each column of ``x`` pulls all rows together, so that blocks depend on each other."""
    rest = x.astype(jnp.promote_types(x.dtype, jnp.float32)) - TARGET
    return jnp.sum(rest**2) / 2 + jnp.sum(jnp.sum(rest, axis=0) ** 2) / 20


def loss(x, batch):
    return full_loss(x) * (1 + jnp.mean(batch).astype(jnp.float32))


def methods(order=blocks.cyclic, **options):
    slices = blocks.equal_slices(NUM_BLOCKS)
    common = {"prox": proximal.l1(0.01), **options}
    return {
        "cyclic": blocks.cyclic_block_descent(loss, slices, 1.1, order=order, **common),
        "doubling": blocks.cyclic_block_descent(
            loss, slices, 0.3, order=order, max_doublings=5, **common
        ),
        "variance reduced": blocks.vr_cyclic_block_descent(
            loss, full_loss, slices, 1.1, num_batches=3, **common
        ),
    }


METHODS = methods()
each_method = pytest.mark.parametrize("name", METHODS)
two_methods = pytest.mark.parametrize("name", ["doubling", "variance reduced"])
BATCHES = 0.5 * np.random.default_rng(0).standard_normal((3, 8, 6))


def cycles(optimizer, x, batches, keys=None):
    """The point and the state after a cycle for each batch."""

    def step(carry, draw):
        x, state = carry
        batch, key = draw
        updates, state = optimizer.update(None, state, x, batch=batch, key=key)
        return (optax.apply_updates(x, updates), state), None

    return jax.lax.scan(step, (x, optimizer.init(x)), (batches, keys))[0]


@each_method
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_updates_have_the_dtype_of_params_and_states_are_float32(name, dtype):
    x, optimizer = jnp.ones((8, 6), dtype), METHODS[name]
    state = jax.eval_shape(optimizer.init, x)
    update = lambda state, x: optimizer.update(None, state, x, batch=jnp.ones((8, 6), dtype))
    updates, new_state = jax.eval_shape(update, state, x)
    assert updates.dtype == dtype
    assert types(new_state) == types(state)
    found = {leaf.dtype for leaf in jax.tree.leaves(state)}
    assert found <= {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}


@each_method
def test_double_precision_stays_double_and_single_stays_single(x64, name):
    optimizer = METHODS[name]
    update = lambda state, x: optimizer.update(None, state, x, batch=jnp.ones((8, 6), x.dtype))
    for dtype in (jnp.float64, jnp.float32):
        x = jax.ShapeDtypeStruct((8, 6), dtype)
        state = jax.eval_shape(optimizer.init, x)
        updates, new_state = jax.eval_shape(update, state, x)
        assert updates.dtype == dtype
        assert types(new_state) == types(state)
        floats = {leaf.dtype for leaf in jax.tree.leaves(state)} - {jnp.dtype(jnp.int32)}
        assert floats <= {jnp.dtype(dtype)}


def test_steps_below_the_spacing_of_bfloat16_add_up_within_a_cycle():
    """Catches a point that is carried from block to block in the dtype of the parameters."""
    four_times = lambda key, num_blocks: np.zeros(4, int)
    slope = lambda x, batch: -0.6 * jnp.sum(x.astype(jnp.float32))
    optimizer = blocks.cyclic_block_descent(slope, blocks.equal_slices(1), 1.0, order=four_times)
    x = jnp.full(1, 256, jnp.bfloat16)  # numbers there are 2 apart
    updates, _ = optimizer.update(None, optimizer.init(x), x, batch=())
    np.testing.assert_allclose(updates.astype(jnp.float32), 2.4, rtol=1e-2)
    assert x[0] + jnp.bfloat16(0.6) == x[0]


@two_methods
def test_seeds_under_vmap_equal_a_loop(name):
    """With an order and coins of their own: catches draws that all lanes share."""
    optimizer = methods(order=blocks.shuffled)[name]
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(jax.random.split(jax.random.key(1), 4))
    x = jnp.zeros((8, 6))
    one = lambda keys: cycles(optimizer, x, jnp.asarray(BATCHES, jnp.float32), keys)
    together = jax.jit(jax.vmap(one))(keys)
    single = jax.jit(one)
    for lane in range(4):
        assert_close(jax.tree.map(lambda leaf, i=lane: leaf[i], together), single(keys[lane]))
    points = np.asarray(together[0])
    assert np.abs(points[0] - points[1:]).max(axis=(1, 2)).max() > 1e-3


@two_methods
def test_states_share_no_buffer_and_can_be_donated(name):
    optimizer, batch = METHODS[name], jnp.asarray(BATCHES[0], jnp.float32)
    x = jnp.zeros((8, 6))
    state = optimizer.init(x)
    check_no_shared_buffers(state, x)
    step = lambda x, state: optimizer.update(None, state, x, batch=batch)
    updates, state = step(x, state)  # eager: nothing is copied
    check_no_shared_buffers(state, (x, updates))
    expected = step(x, jax.tree.map(jnp.copy, state))
    donating = jax.jit(step, donate_argnums=(0, 1), keep_unused=True)
    assert_close(donating(x, state), expected)
    assert x.is_deleted()


@each_kind
@two_methods
def test_parameters_on_eight_devices_give_the_numbers_of_one(name, kind):
    """Rows of a block on their own device or split: layouts stay, numbers too."""
    optimizer = METHODS[name]
    batches = jnp.asarray(BATCHES, jnp.float32)
    expected = jax.jit(functools.partial(cycles, optimizer))(jnp.zeros((8, 6)), batches)
    mesh = make_mesh(kind)
    with jax.set_mesh(mesh):
        place = jax.NamedSharding(mesh, jax.P(None, "y"))
        x = jax.device_put(jnp.zeros((8, 6)), place)
        batches = jax.device_put(batches, jax.NamedSharding(mesh, jax.P(None, None, "y")))
        found = jax.jit(functools.partial(cycles, optimizer))(x, batches)
        for leaf in jax.tree.leaves(found):
            if leaf.ndim == 2:
                assert leaf.sharding.is_equivalent_to(place, 2)
    assert_close(jax.device_get(found), jax.device_get(expected))


@each_method
def test_masked_leaves_are_refused(name):
    optimizer = optax.masked(METHODS[name], {"a": True, "b": False})
    params = {"a": jnp.zeros((8, 6)), "b": jnp.zeros(2)}
    state = optimizer.init(params)
    with pytest.raises(TypeError, match=r"put optax\.masked or optax\.partition behind it"):
        optimizer.update(params, state, params, batch=jnp.zeros((8, 6)))


def test_a_missing_batch_is_named():
    optimizer, x = METHODS["cyclic"], jnp.zeros((8, 6))
    with pytest.raises(TypeError, match="needs the keyword argument 'batch'"):
        optimizer.update(None, optimizer.init(x), x)
