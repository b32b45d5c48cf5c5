"""Block schedules: optax's own recipe, the cost of a block, frozen states, optax's conventions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxpr_as_fun

from stochopt import blocks
from stochopt.experiments import matmul_flops

NUM_LAYERS, WIDTH, ROWS = 6, 8, 4
NAMES = [f"layer{j}" for j in range(NUM_LAYERS)]
PARTITION = blocks.by_labels({name: name for name in NAMES})
PRODUCT = 2 * ROWS * WIDTH**2  # FLOPs of a product with one layer
OPTIMIZERS = {
    name: optax.sgd(0.05, momentum=0.9) if j % 2 else optax.adam(0.02)
    for j, name in enumerate(NAMES)
}


def network(seed=0):
    keys = jax.random.split(jax.random.key(seed), NUM_LAYERS)
    matrix = lambda key: jax.random.normal(key, (WIDTH, WIDTH)) / WIDTH**0.5
    return {
        name: {"weight": matrix(key), "bias": jnp.zeros(WIDTH)}
        for name, key in zip(NAMES, keys, strict=True)
    }


def loss(params, batch):
    x, targets = batch
    for name in NAMES:
        x = jnp.tanh(x @ params[name]["weight"] + params[name]["bias"])
    return jnp.mean(jnp.square(x - targets))


BATCH = tuple(jax.random.normal(key, (ROWS, WIDTH)) for key in jax.random.split(jax.random.key(1)))
GRADIENT = blocks.scheduled_value_and_grad(loss, PARTITION)


def full(params, state, batch):
    del state
    return jax.value_and_grad(loss)(params, batch)


def trajectory(optimizer, value_and_grad, num_updates):
    """States, points and values, the first of each before any update."""

    def step(carry, _):
        params, state = carry
        value, gradient = value_and_grad(params, state, BATCH)
        updates, new = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), new), (state, params, value)

    start = network(), optimizer.init(network())
    return jax.jit(lambda carry: jax.lax.scan(step, carry, length=num_updates)[1])(start)


def close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    same = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    jax.tree.map(same, actual, expected)


def optax_recipe(num_updates_per_block):
    """The same with optax alone, for the cyclic order."""

    def only(j):
        active = lambda step: step // num_updates_per_block % NUM_LAYERS == j
        return optax.conditionally_mask(OPTIMIZERS[NAMES[j]], active)

    labels = {name: name for name in NAMES}
    return optax.partition({name: only(j) for j, name in enumerate(NAMES)}, labels)


@pytest.mark.parametrize("num_updates_per_block", [1, 2])
def test_it_is_the_recipe_of_optax_at_the_cost_of_a_block(num_updates_per_block):
    optimizer = blocks.block_schedule(
        OPTIMIZERS, PARTITION, num_updates_per_block=num_updates_per_block
    )
    states, points, values = trajectory(optimizer, GRADIENT, 40)
    expected = trajectory(optax_recipe(num_updates_per_block), full, 40)
    close((points, values), expected[1:])
    assert values[-1] < 0.7 * values[0]
    turns = np.arange(40) // num_updates_per_block
    np.testing.assert_array_equal(states.active_block, turns % NUM_LAYERS)
    # Adam of the first layer has counted its own updates.
    counted = np.cumsum(states.active_block == 0)
    np.testing.assert_array_equal(states.block_states["layer0"][0].count[1:], counted[:-1])
    # Negative control: all blocks together go another way from the second update on.
    labels = {name: name for name in NAMES}
    together = trajectory(optax.partition(OPTIMIZERS, labels), full, 3)[1]
    assert np.abs(together["layer0"]["weight"] - points["layer0"]["weight"][:3])[2].max() > 1e-3


def branches_of(jaxpr):
    """The branches of all switches in a program, those in its loops too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "cond":
            yield from equation.params["branches"]
        elif equation.primitive.name == "scan":
            yield from branches_of(equation.params["jaxpr"].jaxpr)


def flops_of_branches(optimizer, params):
    state = optimizer.init(params)
    program = jax.make_jaxpr(lambda params: GRADIENT(params, state, BATCH))(params)
    return [
        matmul_flops(jaxpr_as_fun(branch), *branch.in_avals)
        for branch in branches_of(program.jaxpr)
    ]


def test_a_layer_costs_its_share_of_the_gradient():
    params = network()
    whole = matmul_flops(jax.grad(loss), params, BATCH)
    assert whole == (3 * NUM_LAYERS - 1) * PRODUCT
    found = flops_of_branches(blocks.block_schedule(optax.adam(0.1), PARTITION), params)
    assert found == [(2 * NUM_LAYERS - j) * PRODUCT for j in range(NUM_LAYERS)]


def test_runs_in_lanes_compute_one_block():
    optimizer = blocks.block_schedule(optax.adam(0.1), PARTITION, blocks.shuffled)

    def step(params, state):
        _, gradient = GRADIENT(params, state, BATCH)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    lane = lambda seed: jax.lax.scan(
        lambda carry, _: (step(*carry), None),
        (network(seed), optimizer.init(network(seed))),
        length=5,
    )[0]
    most = 2 * NUM_LAYERS * PRODUCT
    assert matmul_flops(jax.vmap(lane), jnp.arange(3)) == 5 * 3 * most
    # Negative control: with a block for each lane, all branches are computed.
    states = optimizer.init(network())._replace(active_block=jnp.arange(3))
    of_lanes = lambda active: GRADIENT(network(), states._replace(active_block=active), BATCH)
    assert matmul_flops(jax.vmap(of_lanes), states.active_block) > 2 * 3 * most


@pytest.mark.parametrize("order", [blocks.shuffled, blocks.random])
def test_the_gradient_is_that_of_the_block_that_moves(order):
    optimizer = blocks.block_schedule(OPTIMIZERS, PARTITION, order, seed=3)
    states, points, _ = trajectory(optimizer, GRADIENT, 4 * NUM_LAYERS + 1)
    active = np.asarray(states.active_block)[:-1].reshape(4, NUM_LAYERS)
    # Who has moved between two points is the block that the state before named.
    moved = [np.any(np.diff(points[name]["weight"], axis=0), axis=(1, 2)) for name in NAMES]
    np.testing.assert_array_equal(np.stack(moved, axis=1).nonzero()[1], active.ravel())
    keys = [jax.random.fold_in(jax.random.key(3), cycle) for cycle in range(4)]
    np.testing.assert_array_equal(active, [order(key, NUM_LAYERS) for key in keys])
    assert len(np.unique(active, axis=0)) > 1
    if order is blocks.shuffled:
        np.testing.assert_array_equal(np.sort(active, axis=1), [range(NUM_LAYERS)] * 4)
    # It is the slice of the whole gradient, and zero elsewhere.
    state = optimizer.init(network())
    value, gradient = GRADIENT(network(), state, BATCH)
    expected_value, whole = full(network(), None, BATCH)
    zeros = jax.tree.map(jnp.zeros_like, whole)
    name = NAMES[int(state.active_block)]
    close((value, gradient), (expected_value, zeros | {name: whole[name]}))


def test_one_block_is_the_optimizer():
    inner = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.05))
    partition = blocks.by_labels("all")
    optimizer = blocks.block_schedule(inner, partition, blocks.shuffled, num_updates_per_block=3)
    gradient = blocks.scheduled_value_and_grad(loss, partition)
    states, points, values = trajectory(optimizer, gradient, 20)
    expected = trajectory(inner, full, 20)
    close((states.block_states["all"], points, values), expected)


def test_equal_slices_are_blocks_too():
    optimizer = blocks.block_schedule(optax.sgd(0.1), blocks.equal_slices(2))
    gradient = blocks.scheduled_value_and_grad(
        lambda x, batch: jnp.sum((x - batch) ** 2) / 2, blocks.equal_slices(2)
    )
    x, state = jnp.zeros(4), optimizer.init(jnp.zeros(4))
    for expected in ([0.1, 0.2, 0, 0], [0.1, 0.2, 0.3, 0.4]):
        updates, state = optimizer.update(gradient(x, state, jnp.arange(1.0, 5))[1], state, x)
        x = optax.apply_updates(x, updates)
        np.testing.assert_allclose(x, expected, rtol=1e-6)


def test_gradients_of_blocks_that_do_not_move_are_ignored():
    params = network()
    optimizer = blocks.block_schedule(OPTIMIZERS, PARTITION)
    state = optimizer.init(params)
    whole = full(params, None, BATCH)[1]
    update = jax.jit(optimizer.update)
    expected = update(whole, state, params)
    nan = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), whole)
    masked = {name: jax.tree.map(lambda x: optax.MaskedNode(), whole[name]) for name in NAMES}
    for others in (nan, masked):
        found = update(others | {"layer0": whole["layer0"]}, state, params)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    # Without params, as SGD allows.
    momentum = blocks.block_schedule(optax.sgd(0.05, momentum=0.9), PARTITION)
    updates, _ = jax.jit(momentum.update)(whole, momentum.init(params))
    close(updates["layer0"], jax.tree.map(lambda g: -0.05 * g, whole["layer0"]))


def test_extra_arguments_reach_the_optimizers():
    scaled = optax.GradientTransformationExtraArgs(
        lambda params: optax.EmptyState(),
        lambda updates, state, params=None, *, factor, **extra: (
            optax.tree.scale(factor, updates),
            state,
        ),
    )
    optimizer = blocks.block_schedule(scaled, PARTITION)
    params = network()
    updates, _ = jax.jit(optimizer.update)(params, optimizer.init(params), params, factor=3.0)
    close(updates["layer0"], optax.tree.scale(3.0, params["layer0"]))
    assert not np.any(updates["layer1"]["weight"])


def test_the_state_follows_the_conventions_and_compiles_once():
    make = lambda learning_rate: optax.chain(
        optax.clip(1.0),
        blocks.block_schedule(
            {name: optax.adam(learning_rate) for name in NAMES}, PARTITION, blocks.shuffled
        ),
    )
    optimizer = optax.inject_hyperparams(make)(learning_rate=0.1)
    traced = []

    def step(params, state, batch):
        traced.append(1)
        _, gradient = GRADIENT(params, state, batch)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    donating = jax.jit(step, donate_argnums=(0, 1), keep_unused=True)
    params = network()
    state = optimizer.init(params)
    schedule = state.inner_state[1]
    types = lambda tree: [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(tree)]
    types_before = types(schedule)
    assert all(isinstance(x, jax.Array) and not x.weak_type for x in jax.tree.leaves(schedule))
    before = jax.tree.map(np.array, params)
    for t in range(2 * NUM_LAYERS):
        state.hyperparams["learning_rate"] = jnp.float32(0.0 if t < NUM_LAYERS else 0.1)
        params, state = donating(params, state, BATCH)
        if t == NUM_LAYERS - 1:
            jax.tree.map(np.testing.assert_array_equal, params, before)
    assert len(traced) == 1
    assert types(state.inner_state[1]) == types_before
    assert optax.tree.get(state, "schedule_count") == 2 * NUM_LAYERS
    assert np.all([np.any(params[name]["weight"] != before[name]["weight"]) for name in NAMES])
    full_state = optax.tree.set(state, schedule_count=jnp.int32(jnp.iinfo(jnp.int32).max))
    _, full_counter = donating(params, full_state, BATCH)
    assert optax.tree.get(full_counter, "schedule_count") == jnp.iinfo(jnp.int32).max
    assert 0 <= optax.tree.get(full_counter, "active_block") < NUM_LAYERS


def test_updates_keep_their_dtype():
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), network())
    optimizer = blocks.block_schedule(optax.scale(jnp.float32(0.1)), PARTITION)
    updates, _ = jax.jit(optimizer.update)(params, optimizer.init(params), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}


def test_bad_arguments_are_named():
    params = network()
    init = lambda *args, **kwargs: blocks.block_schedule(*args, **kwargs).init(params)
    some = {name: optax.sgd(0.1) for name in NAMES[1:]}
    with pytest.raises(ValueError, match=r"txs needs .* missing \['layer0'\], unknown \['other'\]"):
        init(some | {"other": optax.sgd(0.1)}, PARTITION)
    with pytest.raises(ValueError, match=r"labels do not cover the leaf params\['layer1'\]"):
        init(optax.sgd(0.1), blocks.by_labels({"layer0": "all"}))
    with pytest.raises(ValueError, match="block 'none' is empty"):
        init(optax.sgd(0.1), blocks.by_labels({name: name for name in NAMES} | {"x": "none"}))
    with pytest.raises(ValueError, match="order"):
        init(optax.sgd(0.1), PARTITION, lambda key, num_blocks: np.arange(1, num_blocks + 1))
    with pytest.raises(ValueError, match="num_updates_per_block"):
        init(optax.sgd(0.1), PARTITION, num_updates_per_block=0)
    with pytest.raises(TypeError, match="loss"):
        blocks.scheduled_value_and_grad(lambda params: 0.0, PARTITION)
    with pytest.raises(ValueError, match="state is not that of a block_schedule"):
        GRADIENT(params, optax.adam(0.1).init(params), BATCH)
    state = blocks.block_schedule(optax.sgd(0.1), PARTITION).init(params)
    with pytest.raises(ValueError, match="scalar"):
        blocks.scheduled_value_and_grad(lambda params, batch: jnp.ones(2), PARTITION)(params, state)
