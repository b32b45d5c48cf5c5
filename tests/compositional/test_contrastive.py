"""SogCLR and iSogCLR: a reference in NumPy, the batch loss, slopes in the temperatures, limits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compositional.test_coupled_program import NUM_BLOCKS, tables_made
from references import contrastive as reference

from stochopt.compositional import (
    estimate_contrastive,
    estimate_robust_contrastive,
    isogclr,
    sogclr,
)

NUM_EXAMPLES, BATCH, IN, OUT = 9, 4, 5, 3


def embed(weights, views):
    return jnp.tanh(views @ weights)


def start(seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((IN, OUT)), float)


def draws(num, seed=1, batch=BATCH, among=NUM_EXAMPLES):
    """Views of ``batch`` examples for each of ``num`` steps."""
    rng = np.random.default_rng(seed)
    indices = np.stack([rng.permutation(among)[:batch] for _ in range(num)])
    views = rng.standard_normal((2, num, batch, IN))
    return tuple(jnp.asarray(v, float) for v in views), jnp.asarray(indices, jnp.int32)


def scan(optimizer, weights, batches, indices):
    """Points and states after each step."""

    def body(carry, draw):
        weights, state = carry
        batch, index = draw
        updates, state = optimizer.update(None, state, weights, batch=batch, block_indices=index)
        weights = optax.apply_updates(weights, updates)
        return (weights, state), (weights, state)

    steps = jax.jit(lambda w: jax.lax.scan(body, (w, optimizer.init(w)), (batches, indices))[1])
    return steps(weights)


def follow(method, weights, batches, indices, rate, direction_rate):
    """The same with the reference; points, tracked values, losses, temperatures."""
    weights, v, found = np.array(weights), None, []
    for first, second, index in zip(*map(np.asarray, (*batches, indices)), strict=True):
        d, loss = method.direction(weights, first, second, index)
        v = d if v is None else (1 - direction_rate) * v + direction_rate * d
        weights = weights - rate * v
        found.append((weights, method.tracked.copy(), loss, method.temperatures.copy()))
    return [np.stack(x) for x in zip(*found, strict=True)]


def step(estimator, weights, batch, indices, state=None):
    """One update from a fresh state, or from ``state``."""
    fresh = estimator.init if state is None else lambda weights: state
    update = lambda w: estimator.update(None, fresh(w), w, batch=batch, block_indices=indices)
    return jax.jit(update)(weights)


def batch_loss(weights, batch, temperature):
    """The loss of a batch, directly; one temperature, or one for each example."""
    features = [embed(weights, views) for views in batch]
    unit = [z / jnp.linalg.norm(z, axis=1, keepdims=True) for z in features]
    losses = []
    for i in range(len(unit[0])):
        tau = jnp.broadcast_to(temperature, (len(unit[0]),))[i]
        others = jnp.concatenate([jnp.delete(z, i, axis=0) for z in unit])
        similar = jnp.concatenate([others @ z[i] for z in unit])
        losses.append(tau * jnp.log(jnp.mean(jnp.exp(similar / tau))) - unit[0][i] @ unit[1][i])
    return jnp.mean(jnp.stack(losses))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("tracker_rate", [0.3, 0.9])
def test_sogclr_matches_the_reference(tracker_rate):
    weights, (batches, indices) = start(), draws(12, among=7)  # two rows are never touched
    optimizer = sogclr(
        embed,
        0.5,
        num_examples=NUM_EXAMPLES,
        temperature=0.2,
        tracker_rate=tracker_rate,
        direction_rate=0.4,
    )
    points, states = scan(optimizer, weights, batches, indices)
    method = reference.Contrastive(tracker_rate, [0.2] * NUM_EXAMPLES)
    wanted, tracked, losses, _ = follow(method, weights, batches, indices, 0.5, 0.4)
    touched = ~np.isnan(tracked)
    assert 0 < touched[0].sum() < touched[-1].sum() == 7
    np.testing.assert_allclose(points, wanted, rtol=0, atol=1e-10)
    np.testing.assert_allclose(states[0].estimated_value, losses, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(states[0].visited, touched)
    got = np.exp(states[0].tracked_value)
    np.testing.assert_allclose(got[touched], tracked[touched], rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_isogclr_matches_the_reference():
    weights, (batches, indices) = start(), draws(12, among=7)
    rho, rate, beta, low, high = 0.3, 0.04, 0.6, 0.15, 0.3
    optimizer = isogclr(
        embed,
        0.5,
        num_examples=NUM_EXAMPLES,
        temperature=0.2,
        min_temperature=low,
        max_temperature=high,
        radius=rho,
        tracker_rate=0.7,
        temperature_learning_rate=rate,
        temperature_rate=beta,
        direction_rate=0.4,
    )
    points, states = scan(optimizer, weights, batches, indices)
    method = reference.Contrastive(
        0.7, [0.2] * NUM_EXAMPLES, temperature_step=(rho, rate, beta, low, high)
    )
    wanted, _, losses, temperatures = follow(method, weights, batches, indices, 0.5, 0.4)
    # Some at a bound, some between, some untouched.
    assert np.any(np.isin(temperatures[-1], [low, high]))
    assert np.any((low < temperatures[-1]) & (temperatures[-1] < high) & (temperatures[-1] != 0.2))
    assert np.any(temperatures[-1] == 0.2)
    np.testing.assert_allclose(points, wanted, rtol=0, atol=1e-10)
    got = states[0].individual_temperature[..., 0]
    np.testing.assert_allclose(got, temperatures, rtol=0, atol=1e-10)
    np.testing.assert_allclose(states[0].normalizers.estimated_value, losses, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_without_tracking_it_is_the_gradient_of_the_batch_loss():
    weights, (batches, indices) = start(), draws(2)
    at = lambda t: (tuple(b[t] for b in batches), indices[t])
    estimator = estimate_contrastive(
        embed, num_examples=NUM_EXAMPLES, temperature=0.1, tracker_rate=1.0
    )
    tracked = estimate_contrastive(
        embed, num_examples=NUM_EXAMPLES, temperature=0.1, tracker_rate=0.5
    )
    batch, index = at(0)
    _, state = step(estimator, start(5), *at(0))
    batch, index = at(1)
    got, now = step(estimator, weights, batch, index, state)
    value, wanted = jax.jit(jax.value_and_grad(batch_loss))(weights, batch, 0.1)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(now.estimated_value, value, rtol=1e-12)
    other, _ = step(tracked, weights, batch, index, state)
    assert np.max(np.abs(other - wanted)) > 1e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", range(3))
def test_slope_in_the_temperatures_is_that_of_the_loss(seed):
    weights, (batches, indices) = start(seed), draws(1, seed)
    batch, rho = tuple(b[0] for b in batches), 0.25
    estimator = estimate_robust_contrastive(
        embed,
        num_examples=NUM_EXAMPLES,
        temperature=0.2,
        radius=rho,
        temperature_learning_rate=1e-3,
    )
    _, state = step(estimator, weights, batch, indices[0])
    robust = lambda tau: batch_loss(weights, batch, tau) + rho * jnp.mean(tau)
    # First touch: the tracked value is the batch's, the momentum the slope itself.
    wanted = BATCH * jax.jit(jax.grad(robust))(jnp.full(BATCH, 0.2))
    tau, momentum = state.individual_temperature.T
    np.testing.assert_allclose(momentum[indices[0]], wanted, rtol=1e-10)
    np.testing.assert_allclose(tau[indices[0]], 0.2 - 1e-3 * wanted, rtol=1e-12)
    untouched = np.setdiff1d(np.arange(NUM_EXAMPLES), indices[0])
    np.testing.assert_array_equal(tau[untouched], 0.2)
    np.testing.assert_array_equal(momentum[untouched], 0.0)


@pytest.mark.usefixtures("x64")
def test_a_settled_temperature_is_that_of_the_worst_case_in_the_ball():
    # At the minimum in tau the tilted weights of the negatives lie at the divergence rho.
    weights, (batches, indices) = start(), draws(1)
    batch, rho = tuple(b[0] for b in batches), 0.3
    estimator = estimate_robust_contrastive(
        embed,
        num_examples=NUM_EXAMPLES,
        temperature=0.3,
        min_temperature=1e-3,
        max_temperature=10.0,
        radius=rho,
        tracker_rate=1.0,
        temperature_learning_rate=0.1,
    )

    def move(state, _):
        _, state = estimator.update(None, state, weights, batch=batch, block_indices=indices[0])
        return state, None

    state = jax.jit(lambda s: jax.lax.scan(move, s, length=500)[0])(estimator.init(weights))
    cosine, _ = reference.similarities(np.array(weights), np.concatenate(batch))
    for i, tau in enumerate(state.individual_temperature[indices[0], 0]):
        others = [z for z in range(2 * BATCH) if z % BATCH != i]
        weight = np.exp(cosine[np.ix_([i, BATCH + i], others)] / tau)
        weight /= weight.mean()
        np.testing.assert_allclose(np.mean(weight * np.log(weight)), rho, rtol=1e-6)


@pytest.mark.parametrize("make", [estimate_contrastive, estimate_robust_contrastive])
def test_padding_changes_nothing(make):
    weights, (batches, indices) = start(), draws(2)
    estimator = make(embed, num_examples=NUM_EXAMPLES, tracker_rate=0.5)
    pad = lambda x, value: jnp.concatenate([x, jnp.full((2, 2, *x.shape[2:]), value, x.dtype)], 1)
    method = optax.chain(estimator, optax.scale(-0.1))
    points, states = scan(method, weights, batches, indices)
    wider = tuple(pad(b, 0.7) for b in batches)
    also, padded = scan(method, weights, wider, pad(indices, NUM_EXAMPLES))
    np.testing.assert_allclose(points, also, rtol=1e-5, atol=1e-6)
    for one, other in zip(jax.tree.leaves(states), jax.tree.leaves(padded), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [sogclr, isogclr])
@pytest.mark.parametrize("temperature", [0.05, 0.005, 1e-4])
def test_no_temperature_overflows(make, temperature):
    # At 0.005 the exponent is 200, beyond float32; u itself would be infinite.
    weights, (batches, indices) = start(), draws(20)
    extra = {} if make is sogclr else {"min_temperature": temperature / 2, "radius": 3.0}
    optimizer = make(
        embed, 0.1, num_examples=NUM_EXAMPLES, temperature=temperature, tracker_rate=0.5, **extra
    )
    points, states = scan(optimizer, weights, batches, indices)
    for leaf in jax.tree.leaves((points, states)):
        assert np.all(np.isfinite(leaf))
    assert float(np.max(np.abs(points[-1] - weights))) > 1e-3
    if temperature == 0.005:
        largest = jnp.max(optax.tree.get(states, "tracked_value"))
        assert largest > 100
        assert jnp.isinf(jnp.exp(largest))


@pytest.mark.parametrize("make", [sogclr, isogclr])
def test_features_in_bfloat16_and_features_of_zeros(make):
    # Dead units give rows of zeros; their derivative must be finite.
    narrow = lambda weights, views: jax.nn.relu(views @ weights - 2.0).astype(jnp.bfloat16)
    weights, (batches, indices) = start(), draws(5)
    assert np.any(np.all(narrow(weights, batches[0]) == 0, axis=-1))
    points, states = scan(make(narrow, 0.1, num_examples=NUM_EXAMPLES), weights, batches, indices)
    assert points.dtype == weights.dtype
    for leaf in jax.tree.leaves((points, states)):
        assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("make", [sogclr, isogclr])
def test_one_trace_and_donation(make):
    optimizer = make(embed, 0.1, num_examples=NUM_EXAMPLES)
    batches, indices = draws(3)
    weights = start()
    state = optimizer.init(weights)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    types = jax.tree.map(jax.typeof, (weights, state))
    traces = []

    def traced(weights, state, batch, index):
        traces.append(1)
        updates, state = optimizer.update(None, state, weights, batch=batch, block_indices=index)
        return optax.apply_updates(weights, updates), state

    run = jax.jit(traced, donate_argnums=(0, 1))
    for t in range(3):
        old = state
        weights, state = run(weights, state, tuple(b[t] for b in batches), indices[t])
        assert jax.tree.map(jax.typeof, (weights, state)) == types
        assert optax.tree.get(old, "tracked_value").is_deleted()
    assert len(traces) == 1


@pytest.mark.parametrize("make", [sogclr, isogclr])
def test_tables_are_changed_in_place(make):
    optimizer = make(embed, 0.1, num_examples=NUM_BLOCKS)

    def body(carry, draw):
        weights, state = carry
        batch, index = draw
        updates, state = optimizer.update(None, state, weights, batch=batch, block_indices=index)
        return (optax.apply_updates(weights, updates), state), None

    loop = lambda carry, draws: jax.lax.scan(body, carry, draws)[0]
    weights = start()
    state = jax.eval_shape(optimizer.init, weights)
    compiled = jax.jit(loop, donate_argnums=0).lower((weights, state), draws(3)).compile()
    assert tables_made(compiled.as_text()) == []
    assert compiled.memory_analysis().temp_size_in_bytes < NUM_BLOCKS


@pytest.mark.parametrize("make", [sogclr, isogclr])
def test_hyper_parameters_may_be_injected_and_scheduled(make):
    factory = lambda learning_rate, temperature: make(
        embed,
        learning_rate,
        num_examples=NUM_EXAMPLES,
        temperature=temperature,
        tracker_rate=optax.constant_schedule(0.5),
        direction_rate=optax.constant_schedule(0.5),
    )
    weights, (batches, indices) = start(), draws(4)
    injected = optax.inject_hyperparams(factory)(learning_rate=0.1, temperature=0.2)
    got, _ = scan(injected, weights, batches, indices)
    wanted, _ = scan(factory(0.1, 0.2), weights, batches, indices)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("make", [sogclr, isogclr])
def test_no_silent_promotion(make):
    weights, (batches, indices) = start(), draws(2)
    points, _ = scan(make(embed, 0.1, num_examples=NUM_EXAMPLES), weights, batches, indices)
    assert points.dtype == weights.dtype


@pytest.mark.parametrize("make", [sogclr, isogclr])
def test_sharded_views_and_tables_on_a_mesh_with_explicit_axes(make):
    mesh = jax.make_mesh((4,), ("data",))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    whole = jax.NamedSharding(mesh, jax.P())
    weights, (batches, indices) = start(), draws(1, batch=8, among=16)
    batch = tuple(b[0] for b in batches)
    wanted, _ = step(make(embed, 0.1, num_examples=16), weights, batch, indices[0])
    optimizer = make(embed, 0.1, num_examples=16, table_sharding=rows)
    weights = jax.device_put(weights, whole)
    state = optimizer.init(weights)
    with jax.set_mesh(mesh):
        batch, index = jax.device_put((batch, indices[0]), rows)
        got, now = step(optimizer, weights, batch, index, state)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-7)
    tables = [x for x in jax.tree.leaves(now) if x.ndim and len(x) == 16]
    assert len(tables) == (2 if make is sogclr else 3)
    assert all(table.sharding.spec[0] == "data" for table in tables)


MAKERS = [estimate_contrastive, estimate_robust_contrastive]


@pytest.mark.parametrize("make", MAKERS)
def test_clear_errors_of_update(make):
    estimator, weights = make(embed, num_examples=NUM_EXAMPLES), start()
    (first, second), indices = draws(1)
    state, batch, index = estimator.init(weights), (first[0], second[0]), indices[0]
    update = lambda params=weights, **extra: estimator.update(None, state, params, **extra)
    with pytest.raises(TypeError, match=r"'block_indices'.*block_indices=indices"):
        update(batch=batch)
    with pytest.raises(TypeError, match="'batch'"):
        update(block_indices=index)
    with pytest.raises(ValueError, match="params are missing"):
        update(None, batch=batch, block_indices=index)
    with pytest.raises(ValueError, match="no negatives"):
        update(batch=jax.tree.map(lambda x: x[:1], batch), block_indices=index[:1])
    with pytest.raises(ValueError, match="leading axis"):
        update(batch=batch, block_indices=index[:3])
    with pytest.raises(TypeError, match="integer"):
        update(batch=batch, block_indices=index.astype(float))
    flat = make(lambda weights, views: views @ weights[:, 0], num_examples=NUM_EXAMPLES)
    with pytest.raises(ValueError, match="embed returned"):
        flat.update(None, state, weights, batch=batch, block_indices=index)


@pytest.mark.parametrize(
    ("make", "options", "name"),
    [
        (sogclr, {"temperature": 0.0}, "temperature"),
        (sogclr, {"tracker_rate": 0.0}, "tracker_rate"),
        (sogclr, {"direction_rate": 1.5}, "direction_rate"),
        (sogclr, {"learning_rate": -1.0}, "learning_rate"),
        (sogclr, {"num_examples": 0}, "num_blocks|num_examples"),
        (isogclr, {"temperature": 0.01}, "temperature"),
        (isogclr, {"min_temperature": 0.0}, "min_temperature"),
        (isogclr, {"radius": -0.1}, "radius"),
        (isogclr, {"temperature_learning_rate": -1.0}, "temperature_learning_rate"),
        (isogclr, {"temperature_rate": 0.0}, "temperature_rate"),
    ],
)
def test_clear_errors_of_hyper_parameters(make, options, name):
    with pytest.raises(ValueError, match=rf"^({name}) must"):
        make(embed, **{"num_examples": NUM_EXAMPLES} | options)
