"""MECO: against a NumPy loop, its diagnostics against formulas, its noise, extreme exponents."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import types

from stochopt.compositional import estimate_likelihood, meco
from stochopt.problems import log_partition

DEVIATION, NUM_NOISE = 2.0, 16


def log_density(params, x):
    """A Gaussian without its normalization: a mean and the logarithm of a precision."""
    return params["slope"] * x - jnp.exp(params["log_precision"]) * jnp.square(x) / 2


def log_noise_density(x):
    return -jnp.square(x / DEVIATION) / 2 - np.log(2 * np.pi).item() / 2 - np.log(DEVIATION).item()


def sample_noise(key):
    return DEVIATION * jax.random.normal(key)


MODEL = log_density, log_noise_density, sample_noise


def start(dtype=None):
    return {"slope": jnp.asarray(0.5, dtype), "log_precision": jnp.asarray(-0.2, dtype)}


def draws(num_steps, num_data=5, num_noise=NUM_NOISE):
    """Data, keys of the noise, and the noise that follows from the keys."""
    data = 1.0 + np.random.default_rng(0).standard_normal((num_steps, num_data))
    keys = jax.random.split(jax.random.key(3), num_steps)
    noise = jax.vmap(lambda key: jax.vmap(sample_noise)(jax.random.split(key, num_noise)))(keys)
    return data, keys, np.asarray(noise)


def trajectory(optimizer, params, data, keys):
    """Points and states after each update, compiled once."""

    @jax.jit
    def scan(params, data, keys):
        def body(carry, inputs):
            params, state = carry
            batch, key = inputs
            updates, state = optimizer.update(None, state, params, batch=batch, key=key)
            params = optax.apply_updates(params, updates)
            return (params, state), (params, state)

        return jax.lax.scan(body, (params, optimizer.init(params)), (data, keys))[1]

    return scan(params, data, keys)


# In NumPy: the average of the weights itself, not of its logarithm, and derivatives by hand.


def weights_of(theta, noise):
    slope, log_precision = theta
    exponent = slope * noise - np.exp(log_precision) * noise**2 / 2
    density = np.exp(-((noise / DEVIATION) ** 2) / 2) / (DEVIATION * np.sqrt(2 * np.pi))
    return np.exp(exponent) / density


def features(theta, x):
    return np.stack([x, -np.exp(theta[1]) * x**2 / 2])


def loop(theta, data, noise, rate, tracker_rate, direction_rate, projection):
    points, normalizers, value, direction = [], [], None, None
    for t, (x, z) in enumerate(zip(data, noise, strict=True)):
        eta, gamma, beta = (
            r(t) if callable(r) else r for r in (rate, tracker_rate, direction_rate)
        )
        weights = weights_of(theta, z)
        value = weights.mean() if t == 0 else (1 - gamma) * value + gamma * weights.mean()
        new = (features(theta, z) * weights).mean(axis=1) / value - features(theta, x).mean(axis=1)
        direction = new if t == 0 else (1 - beta) * direction + beta * new
        theta = projection(theta - eta * direction)
        points.append(theta)
        normalizers.append(value)
    return np.array(points), np.array(normalizers)


def decaying(count):
    return 0.9 / (1 + count) ** 0.5


@pytest.mark.parametrize("bounded", [False, True], ids=["free", "projected"])
@pytest.mark.parametrize(
    ("rate", "tracker_rate", "direction_rate"),
    [(0.1, 0.3, 0.6), (decaying, decaying, decaying), (0.1, 1.0, 1.0)],
    ids=["number", "schedule", "ones"],
)
def test_equals_a_numpy_loop(x64, rate, tracker_rate, direction_rate, bounded):
    data, keys, noise = draws(12)
    box = (lambda x: x.clip(-0.3, 0.6)) if bounded else (lambda x: x)
    optimizer = meco(
        *MODEL,
        rate,
        tracker_rate=tracker_rate,
        direction_rate=direction_rate,
        num_noise=NUM_NOISE,
        projection=(lambda params: jax.tree.map(box, params)) if bounded else None,
    )
    points, states = trajectory(optimizer, start(), data, keys)
    theta = np.array([0.5, -0.2])
    expected, normalizers = loop(theta, data, noise, rate, tracker_rate, direction_rate, box)
    found = np.stack([points["slope"], points["log_precision"]], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
    tracked = np.exp(optax.tree.get(states, "tracked_value"))
    np.testing.assert_allclose(tracked, normalizers, rtol=1e-10)
    touched = np.any((found == 0.6) | (found == -0.3))
    assert touched == bounded  # the projection had something to do


def test_diagnostics_equal_their_formulas(x64):
    data, keys, noise = draws(6)
    estimator = estimate_likelihood(*MODEL, tracker_rate=0.4, num_noise=NUM_NOISE)
    optimizer = optax.chain(estimator, optax.scale_by_learning_rate(0.1))
    points, states = trajectory(optimizer, start(), data, keys)
    path = np.stack([points["slope"], points["log_precision"]], axis=1)
    path = np.concatenate([[[0.5, -0.2]], path[:-1]])
    weights = np.stack([weights_of(*pair) for pair in zip(path, noise, strict=True)])
    tracked = np.exp(optax.tree.get(states, "tracked_value"))

    size = weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1)
    moment = (weights**2).mean(axis=1) / tracked**2
    single = 1e-6  # both are kept in single precision
    found = optax.tree.get(states, "effective_sample_size")
    np.testing.assert_allclose(found, size, rtol=single)
    found = optax.tree.get(states, "relative_second_moment")
    np.testing.assert_allclose(found, moment, rtol=single)

    log_likelihood = [np.mean(log_density(start(), data[0]))]
    value = optax.tree.get(states, "estimated_value")[0]
    np.testing.assert_allclose(value, np.log(tracked[0]) - log_likelihood[0], rtol=1e-12)


def test_second_moment_and_gradient_of_gaussians():
    # Closed forms of exp(theta x - x^2 / 2) and noise N(0, 3); a rate of one is plain Monte Carlo.
    variance, theta, num_noise = 3.0, 1.2, 2**14
    problem = log_partition(noise_variance=variance)
    estimator = estimate_likelihood(
        problem.log_density,
        problem.log_noise_density,
        problem.sample_noise,
        tracker_rate=1.0,
        num_noise=num_noise,
    )
    data = jnp.array([0.3, 1.1])

    @jax.jit
    @jax.vmap
    def once(key):
        params = jnp.asarray(theta)
        return estimator.update(None, estimator.init(params), params, batch=data, key=key)

    directions, state = once(jax.random.split(jax.random.key(0), 16))

    def deviations(values, expected):
        values = np.asarray(values, np.float64)
        return abs(values.mean() - expected) / (values.std(ddof=1) / np.sqrt(len(values)))

    def second_moment(theta):
        return variance / np.sqrt(2 * variance - 1) * np.exp(theta**2 / (2 * variance - 1))

    found = state.relative_second_moment
    assert deviations(found, second_moment(theta)) < 4
    assert deviations(found, second_moment(theta + 0.1)) > 8  # the test has the power to see it
    assert deviations(state.effective_sample_size, num_noise / second_moment(theta)) < 4
    assert deviations(state.estimator.tracked_value, problem.exact["inner"](theta)) < 4
    assert deviations(directions, theta - data.mean()) < 4


# Noise.


def after(num_updates, *, seed=0, keys=None):
    """States of the estimator after each of several updates at one point."""
    estimator = estimate_likelihood(*MODEL, num_noise=NUM_NOISE, seed=seed, tracker_rate=1.0)
    update, state, states = jax.jit(estimator.update), estimator.init(start()), []
    for t in range(num_updates):
        key = None if keys is None else keys[t]
        _, state = update(None, state, start(), batch=jnp.ones(3), key=key)
        states.append(np.asarray(state.estimator.tracked_value))
    return states


def test_noise_follows_from_seed_and_count():
    first, second = after(2)
    assert first != second
    assert after(2) == [first, second]
    assert after(1, seed=1) != [first]


def test_key_overrides_the_seed():
    a, b = jax.random.split(jax.random.key(9))
    found = after(3, keys=[a, b, a])
    assert found == after(3, seed=5, keys=[a, b, a])
    assert found[0] == found[2] != found[1]
    assert found[0] not in after(3)


# Numbers.


@pytest.mark.parametrize("offset", [-500.0, 500.0])
def test_extreme_exponents(offset):
    # A constant in the log density is a factor of the normalization alone, here e^500 or e^-500.
    data, keys, _ = draws(4)

    def states_and_points(offset):
        shifted = lambda params, x: log_density(params, x) + offset
        optimizer = meco(shifted, *MODEL[1:], 0.1, num_noise=NUM_NOISE)
        points, states = trajectory(optimizer, start(jnp.float32), data.astype(np.float32), keys)
        names = "tracked_value", "effective_sample_size", "relative_second_moment"
        return points, [optax.tree.get(states, name) for name in names]

    points, (tracked, size, moment) = states_and_points(offset)
    expected, (there, *others) = states_and_points(0.0)
    assert tracked.dtype == jnp.float32
    np.testing.assert_allclose(tracked - offset, there, atol=3e-4)
    np.testing.assert_allclose([size, moment], others, rtol=1e-3)
    np.testing.assert_allclose(points["slope"], expected["slope"], rtol=1e-3)
    np.testing.assert_allclose(points["log_precision"], expected["log_precision"], rtol=1e-3)


def test_jumps_of_the_exponent_stay_finite():
    # The normalization jumps by e^1000 between updates, down and up.
    shifted = lambda params, x: log_density(start(), x) + params
    estimator = estimate_likelihood(shifted, *MODEL[1:], num_noise=NUM_NOISE, tracker_rate=0.1)
    update, state = jax.jit(estimator.update), estimator.init(jnp.zeros([]))
    for offset in (500.0, -500.0, 500.0):
        direction, state = update(None, state, jnp.asarray(offset), batch=jnp.ones(3))
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((direction, state)))
        # The weights of the tracked value are at most 1 / rate of its own.
        assert -1.001 <= direction <= 1 / 0.1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64], ids=str)
def test_types_are_kept(x64, dtype):
    optimizer = meco(*MODEL, num_noise=4, projection=lambda params: params)
    params = start(dtype)
    state = optimizer.init(params)
    update = jax.jit(lambda state, params: optimizer.update(None, state, params, batch=jnp.ones(3)))
    updates, new = update(state, params)
    assert types(new) == types(state)
    assert types(updates) == types(params)
    _, newer = update(new, optax.apply_updates(params, updates))
    assert types(newer) == types(state)


# Convergence.


@functools.partial(jax.jit, static_argnums=0)
def final_gaps(problem, keys):
    optimizer = meco(
        problem.log_density,
        problem.log_noise_density,
        problem.sample_noise,
        lambda t: jnp.minimum(0.5, 2 / (t + 10)),
        tracker_rate=lambda t: jnp.minimum(1, 6 / (t + 5)),
        direction_rate=lambda t: jnp.minimum(1, 6 / (t + 5)),
        num_noise=8,
        projection=lambda theta: theta.clip(-4, 4),
    )

    def run(key):
        def body(carry, key):
            params, state = carry
            for_data, for_noise = jax.random.split(key)
            batch = problem.data(problem.sample(for_data))
            updates, state = optimizer.update(None, state, params, batch=batch, key=for_noise)
            return (params + updates, state), None

        params = jnp.zeros([])
        carry = params, optimizer.init(params)
        (params, _), _ = jax.lax.scan(body, carry, jax.random.split(key, 2048))
        return problem.metrics(params)["gap"]

    return jax.vmap(run)(keys)


def test_gets_below_the_limit_of_the_plug_in_gradient():
    problem = log_partition()
    gaps = final_gaps(problem, jax.random.split(jax.random.key(0), 16))
    assert np.mean(gaps) < 0.1 * problem.levels["limit of the naive gradient"]


# Bad input.


def test_missing_arguments_are_named():
    optimizer, params = meco(*MODEL), start()
    state = optimizer.init(params)
    with pytest.raises(TypeError, match=r"estimate_likelihood: .*'batch'"):
        optimizer.update(None, state, params)
    with pytest.raises(ValueError, match=r"estimate_likelihood: .*params are missing"):
        optimizer.update(None, state, batch=jnp.ones(3))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -0.1),
        ("learning_rate", float("nan")),
        ("tracker_rate", 0.0),
        ("tracker_rate", 1.1),
        ("direction_rate", 0.0),
        ("direction_rate", 1.1),
        ("num_noise", 0),
        ("num_noise", 2.5),
    ],
)
@pytest.mark.parametrize("projection", [None, lambda params: params], ids=["free", "projected"])
def test_hyperparameters_out_of_range(name, value, projection):
    with pytest.raises(ValueError, match=f"{name} must"):
        meco(*MODEL, **{name: value}, projection=projection)
