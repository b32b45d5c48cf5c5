"""Estimators against loops in NumPy, and the identities that tie them to known methods."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from references import finite_sum_loops as reference

from stochopt import orthogonal, page, proximal, saga, storm, svrg
from stochopt.variance_reduction import (
    estimate_page,
    estimate_saga,
    estimate_spider,
    estimate_storm,
    estimate_svrg,
)

NUM_TERMS, BATCH, NUM_STEPS = 12, 3, 40
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((NUM_TERMS, 4))
START = RNG.standard_normal(4)
DRAWS = np.stack([RNG.permutation(NUM_TERMS)[:BATCH] for _ in range(NUM_STEPS)])
KEYS = jax.random.split(jax.random.key(5), NUM_STEPS)
EVERYTHING = np.arange(NUM_TERMS)
RATE = 0.5


def loss(x, batch):
    """Not convex; a batch is a vector of indices or a single one."""
    return jnp.mean(jax.nn.softplus(jnp.asarray(ROWS)[batch] @ x)) + 0.3 * jnp.sum(
        x**2 / (1 + x**2)
    )


def full_loss(x):
    return loss(x, EVERYTHING)


def slopes(drawn, x):
    probability = 1 / (1 + np.exp(-ROWS[drawn] @ x))
    return probability[:, None] * ROWS[drawn] + 0.6 * x / (1 + x**2) ** 2


def full_slope(x):
    return slopes(EVERYTHING, x).mean(axis=0)


@functools.partial(jax.jit, static_argnums=0)
def walk(estimator, x, extras):
    """Points, gradients and states of gradient descent behind an estimator."""

    def body(carry, extra):
        x, state = carry
        direction, state = estimator.update(None, state, x, **extra)
        return (x - RATE * direction, state), (x, direction, state)

    return jax.lax.scan(body, (x, estimator.init(x)), extras)[1]


def close(found, wanted, tolerance=1e-12):
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


BATCHES = {"batch": DRAWS, "block_indices": DRAWS, "key": KEYS}
with jax.enable_x64(True):  # in single precision they are others
    COINS = np.array(jax.vmap(lambda key: jax.random.bernoulli(key, 0.2))(KEYS))
COINS[0] = True
EVERY = np.arange(NUM_STEPS) % 7 == 0
of_all = functools.partial(reference.anchored, slopes, NUM_TERMS)
SINGLE = EVERYTHING[:, None]
SIZES = {"num_batches": NUM_TERMS // BATCH}

CASES = {
    "page": (
        estimate_page(loss, full_loss, refresh_probability=0.2, **SIZES),
        of_all(moves=True),
        COINS,
    ),
    "spider": (
        estimate_spider(loss, full_loss, refresh_every=7, **SIZES),
        of_all(moves=True),
        EVERY,
    ),
    "svrg": (estimate_svrg(loss, full_loss, refresh_every=7, **SIZES), of_all(moves=False), EVERY),
    "storm": (estimate_storm(loss, direction_rate=0.3), reference.storm(slopes, 0.3), EVERY),
    "momentum": (
        estimate_storm(loss, direction_rate=0.3, correction=0.0),
        reference.storm(slopes, 0.3, 0.0),
        EVERY,
    ),
    "mars": (
        estimate_storm(loss, direction_rate=1.0, correction=0.2),
        reference.storm(slopes, 1.0, 0.2),
        EVERY,
    ),
    "saga": (estimate_saga(loss, num_blocks=NUM_TERMS), reference.saga(slopes, NUM_TERMS), EVERY),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_loop(x64, case):
    estimator, loop, refreshes = CASES[case]
    points, directions, states = walk(estimator, jnp.asarray(START), BATCHES)
    wanted_points, wanted = reference.descend(loop, START, RATE, DRAWS, refreshes)
    close(directions, wanted)
    close(points, wanted_points)
    if case in ("page", "spider", "svrg"):
        assert 3 < refreshes.sum() < NUM_STEPS / 2, "both branches are taken"
        cost = np.where(refreshes, SIZES["num_batches"], 2)
        np.testing.assert_array_equal(states.num_gradients, np.cumsum(cost))
    elif case != "saga":
        np.testing.assert_array_equal(states.num_gradients, 2 * np.arange(1, NUM_STEPS + 1))


# Without noise every corrected estimate is exact; what is not corrected lags behind.

EXACT = {
    "page": estimate_page(loss, full_loss, refresh_probability=1e-6, num_batches=1),
    "spider": estimate_spider(loss, full_loss, refresh_every=1000, num_batches=1),
    "svrg": estimate_svrg(loss, full_loss, refresh_every=1000, num_batches=1),
    "storm": estimate_storm(loss, direction_rate=0.01),
    "saga": estimate_saga(loss, num_blocks=NUM_TERMS),
}
WHOLE = {"batch": np.tile(EVERYTHING, (10, 1)), "block_indices": np.tile(EVERYTHING, (10, 1))}


def errors(estimator, extras):
    points, directions, _ = walk(estimator, jnp.asarray(START), extras)
    exact = np.stack([full_slope(x) for x in np.asarray(points)])
    return np.linalg.norm(directions - exact, axis=1)


@pytest.mark.parametrize("name", EXACT)
def test_a_batch_of_everything_leaves_no_error(x64, name):
    assert np.max(errors(EXACT[name], WHOLE)) < 1e-14


def test_momentum_has_a_lag_even_then(x64):
    momentum = estimate_storm(loss, direction_rate=0.01, correction=0.0)
    assert errors(momentum, WHOLE)[-1] > 0.1


# Given the past, SVRG and SAGA are unbiased, and PAGE has the error of its last estimate.


def averaged_over_single_draws(estimator):
    """The mean of the next gradient over all single samples, after some steps; and the state."""
    points, directions, states = walk(estimator, jnp.asarray(START), BATCHES)
    last = lambda tree: jax.tree.map(lambda leaf: leaf[23], tree)
    x = last(points) - RATE * last(directions)
    key = jax.random.key(6)  # a coin that does not refresh
    each = jax.vmap(
        lambda i: estimator.update(None, last(states), x, batch=i, block_indices=i, key=key)[0]
    )
    return jax.jit(each)(SINGLE), x, last(states), last(points)


@pytest.mark.parametrize("name", ["svrg", "saga"])
def test_the_average_over_all_samples_is_the_full_gradient(x64, name):
    estimator, *_ = CASES[name]
    single, x, _, _ = averaged_over_single_draws(estimator)
    close(single.mean(axis=0), full_slope(x), 1e-14)
    assert np.linalg.norm(single[0] - full_slope(x)) > 1e-3, "a single one is not"


def test_page_keeps_the_error_of_its_last_estimate(x64):
    estimator, *_ = CASES["page"]
    single, x, state, before = averaged_over_single_draws(estimator)
    error = state.anchor_gradient - full_slope(before)
    assert np.linalg.norm(error) > 1e-3
    close(single.mean(axis=0), full_slope(x) + error, 1e-14)


def test_the_noise_falls_with_the_square_of_the_distance_to_the_snapshot(x64):
    estimator = CASES["svrg"][0]
    x = jnp.asarray(START)
    _, state = estimator.update(None, estimator.init(x), x, batch=DRAWS[0])

    @jax.jit
    def noise(distance):
        at = x + distance * np.array([1.0, -1.0, 0.5, 2.0])
        each = jax.vmap(lambda i: estimator.update(None, state, at, batch=i)[0])(
            EVERYTHING[:, None]
        )
        return jnp.mean(jnp.sum((each - jax.grad(full_loss)(at)) ** 2, axis=1))

    assert noise(1e-3) / noise(5e-4) == pytest.approx(4, rel=0.02)


# SAGA's table.


def test_the_mean_is_that_of_the_table_and_of_all_gradients_once_all_are_touched(x64):
    estimator, x = CASES["saga"][0], jnp.asarray(START)
    state = estimator.init(x)
    update = jax.jit(lambda s, i: estimator.update(None, s, x, batch=i, block_indices=i))
    padding = NUM_TERMS
    for drawn in np.reshape(RNG.permutation(NUM_TERMS), (4, 3)):
        # Padding changes nothing: the mean is over the samples that are there.
        padded = jnp.asarray([*drawn, padding])
        direction, with_padding = update(state, padded)
        bare, state = update(state, jnp.asarray(drawn))
        close(direction, bare)
        jax.tree.map(close, with_padding, state)
        close(state.mean_gradient, state.gradient_table.mean(axis=0))
    close(state.mean_gradient, full_slope(START))
    close(state.gradient_table, slopes(EVERYTHING, START))
    direction, _ = update(state, jnp.asarray(DRAWS[0]))
    close(direction, full_slope(START))


# Chains.


def run(optimizer, extras=BATCHES, gradient=lambda x, batch: None, start=START):
    @jax.jit
    def compiled(x):
        def body(carry, extra):
            x, state = carry
            updates, state = optimizer.update(gradient(x, extra["batch"]), state, x, **extra)
            x = optax.apply_updates(x, updates)
            return (x, state), x

        return jax.lax.scan(body, (x, optimizer.init(x)), extras)[1]

    return compiled(jnp.asarray(start))


def test_page_that_always_refreshes_is_gradient_descent(x64):
    found = run(page(loss, full_loss, RATE, num_batches=4, refresh_probability=1.0))
    wanted = run(
        optax.with_extra_args_support(optax.sgd(RATE)),
        gradient=lambda x, batch: jax.grad(full_loss)(x),
    )
    np.testing.assert_array_equal(found, wanted)


def test_storm_of_rate_one_is_stochastic_gradient_descent_and_adam_before_adam(x64):
    stochastic = lambda x, batch: jax.grad(loss)(x, batch)
    wanted = run(optax.with_extra_args_support(optax.sgd(RATE)), gradient=stochastic)
    np.testing.assert_array_equal(run(storm(loss, RATE, direction_rate=1.0)), wanted)
    adam = run(optax.with_extra_args_support(optax.adam(0.1)), gradient=stochastic)
    estimator = estimate_storm(loss, direction_rate=1.0, correction=0.0)
    found = run(optax.chain(estimator, optax.scale_by_adam(), optax.scale_by_learning_rate(0.1)))
    close(found, adam)
    corrected = estimate_storm(loss, direction_rate=1.0, correction=0.5)
    mars = run(optax.chain(corrected, optax.scale_by_adam(), optax.scale_by_learning_rate(0.1)))
    assert np.max(np.abs(mars - adam)) > 1e-2


def test_any_estimator_drives_any_step(x64):
    as_vector = lambda oracle: lambda x, *batch: oracle(jnp.ravel(x), *batch)
    of_matrix = estimate_page(as_vector(loss), as_vector(full_loss), **SIZES)
    adago = optax.chain(of_matrix, orthogonal.scale_by_adago(), optax.scale_by_learning_rate(3.0))
    adam = optax.chain(CASES["svrg"][0], optax.scale_by_adam(), optax.scale_by_learning_rate(0.1))
    for optimizer, start in ((adago, START.reshape(2, 2)), (adam, START)):
        x = run(optimizer, start=start)[-1]
        assert full_loss(jnp.ravel(x)) < 0.7 * full_loss(START)


PROX = proximal.l1(0.2)
METHODS = {
    "page": functools.partial(page, loss, full_loss, num_batches=4),
    "storm": functools.partial(storm, loss),
    "svrg": functools.partial(svrg, loss, full_loss, num_batches=4),
    "saga": functools.partial(saga, loss, num_blocks=NUM_TERMS),
}


@pytest.mark.parametrize("name", METHODS)
def test_with_a_proximal_operator_and_everything_in_a_batch_it_is_proximal_descent(x64, name):
    found = run(METHODS[name](RATE, prox=PROX), WHOLE)
    x = START
    for point in found:
        moved = x - RATE * full_slope(x)
        x = np.sign(moved) * np.maximum(np.abs(moved) - 0.2 * RATE, 0)
        close(point, x)
    assert np.sum(found[-1] == 0) >= 1


# Arguments.


@pytest.mark.parametrize("name", METHODS)
def test_bad_learning_rates(name):
    with pytest.raises(ValueError, match=r"^learning_rate must lie in \[0, inf"):
        METHODS[name](-0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: estimate_page(loss, full_loss, num_batches=0), "num_batches must be a whole"),
        (lambda: estimate_svrg(loss, full_loss, num_batches=2.5), "num_batches must be a whole"),
        (
            lambda: estimate_page(loss, full_loss, num_batches=2, refresh_probability=0.0),
            r"refresh_probability must lie in \(0, 1\]",
        ),
        (
            lambda: estimate_spider(loss, full_loss, num_batches=2, refresh_every=0),
            "refresh_every must be a whole",
        ),
        (lambda: estimate_storm(loss, direction_rate=0.0), r"direction_rate must lie in \(0, 1\]"),
        (
            lambda: estimate_storm(loss, direction_rate=0.5, correction=-0.5),
            r"correction must lie in \[0, inf\)",
        ),
        (lambda: estimate_saga(loss, num_blocks=0), "num_blocks must be a whole"),
    ],
)
def test_bad_hyperparameters_are_named(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


def test_a_batch_that_does_not_fit_the_indices_is_named(x64):
    estimator, x = CASES["saga"][0], jnp.asarray(START)
    update = functools.partial(estimator.update, None, estimator.init(x), x)
    with pytest.raises(ValueError, match=r"^batch of shape \(12,\) needs the leading axis"):
        update(batch=EVERYTHING, block_indices=DRAWS[0])
    with pytest.raises(TypeError, match="block_indices must be a vector of integers"):
        update(batch=DRAWS[0], block_indices=DRAWS[0] + 0.5)
    with pytest.raises(TypeError, match="needs the keyword argument 'block_indices'"):
        update(batch=DRAWS[0])


def test_indices_out_of_the_table_or_repeated_are_found_on_request(x64):
    estimator, x = estimate_saga(loss, num_blocks=NUM_TERMS, check=True), jnp.asarray(START)
    checked = jax.experimental.checkify.checkify(
        lambda i: estimator.update(None, estimator.init(x), x, batch=i, block_indices=i)[0]
    )
    update = jax.jit(checked)
    for drawn, message in (([0, 13], "must lie in"), ([1, 1], "must not repeat")):
        error, _ = update(jnp.asarray(drawn))
        assert message in error.get()
    assert update(jnp.asarray([3, 1]))[0].get() is None


def test_oracles_that_return_no_scalar_are_named(x64):
    x = jnp.asarray(START)
    rows = lambda x, batch: jnp.asarray(ROWS)[batch] @ x
    for estimator, name in (
        (estimate_storm(rows, direction_rate=0.5), "loss"),
        (estimate_page(loss, lambda x: x, num_batches=2), "full_loss"),
    ):
        with pytest.raises(ValueError, match=f"^{name} must return a scalar"):
            estimator.update(None, estimator.init(x), x, batch=DRAWS[0])
