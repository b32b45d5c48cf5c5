"""The estimator and the methods on it: references in NumPy, identities, predicted limits."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from references import compositional_loops as reference
from references.scsc import Scsc

from stochopt.compositional import (
    asc_pg,
    delayed,
    estimate_compositional,
    log_moving_average,
    moving_average,
    nasa,
    recursive_tracker,
    scgd,
    scma,
    scsc,
    scst,
)

with_x64 = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])

T1 = reference.Quadratic()
SHAPE = jax.ShapeDtypeStruct((T1.inner_size,), jnp.float64)
ORACLES = T1.inner, lambda u, x, draw: T1.objective(u, x)
NUM_STEPS = 40


def trajectory(optimizer, x, draws, jacobian_draws=None):
    """Points, updates and states after each step, compiled once."""

    @jax.jit
    def scan(x, draws, jacobian_draws):
        def body(carry, inputs):
            x, state = carry
            batch, other = inputs
            updates, state = optimizer.update(None, state, x, batch=batch, jacobian_batch=other)
            return (x + updates, state), (x + updates, updates, state)

        return jax.lax.scan(body, (x, optimizer.init(x)), (draws, jacobian_draws))[1]

    return scan(x, draws, jacobian_draws)


def decaying(count):
    return 0.4 / (1 + count) ** 0.5


def box(x):
    return x.clip(-0.3, 0.3)


def shrink(x, step):
    # The same operators for both modules.
    return x - x.clip(-0.2 * step, 0.2 * step)


def scsc_reference(problem, x, draws, jacobian_draws, rate, tracker_rate):
    # The term in x of the objective is no part of that reference: it enters by the last entries.
    lifted = lambda x, draw: np.concatenate([problem.inner(x, draw), x])
    jacobian = lambda x, draw: np.vstack([problem.jacobian(draw), np.eye(problem.size)])

    def slope(u):
        y, x = u[: problem.inner_size], u[problem.inner_size :]
        return np.concatenate([problem.q @ y - problem.c, problem.ridge * x])

    method, points = Scsc(lifted, jacobian, slope, rate, tracker_rate), []
    for draw, other in zip(reference.pairs(draws), reference.pairs(jacobian_draws), strict=True):
        x = method.step(x, draw, jacobian_batch=other)
        points.append(x)
    return points


#: The method, its keyword arguments, and the loop with the same arguments.
METHODS = {
    "scgd": lambda rate, other: (
        scgd(*ORACLES, rate, tracker_rate=other, inner_shape=SHAPE),
        lambda *args: reference.scgd(*args, rate, other),
    ),
    "scgd projected": lambda rate, other: (
        scgd(*ORACLES, rate, tracker_rate=other, projection=box, inner_shape=SHAPE),
        lambda *args: reference.scgd(*args, rate, other, box),
    ),
    "asc_pg": lambda rate, other: (
        asc_pg(*ORACLES, rate, tracker_rate=other, inner_shape=SHAPE),
        lambda *args: reference.asc_pg(*args, rate, other),
    ),
    "asc_pg proximal": lambda rate, other: (
        asc_pg(*ORACLES, rate, tracker_rate=other, prox=shrink, inner_shape=SHAPE),
        lambda *args: reference.asc_pg(*args, rate, other, shrink),
    ),
    "nasa": lambda rate, other: (
        nasa(
            *ORACLES, other, tracker_weight=0.7, direction_weight=1.3, learning_rate=0.25,
            inner_shape=SHAPE,
        ),
        lambda *args: reference.nasa(*args, other, 0.7, 1.3, 0.25),
    ),
    "nasa projected": lambda rate, other: (
        nasa(*ORACLES, other, learning_rate=0.3, projection=box, inner_shape=SHAPE),
        lambda *args: reference.nasa(*args, other, 1.0, 1.0, 0.3, box),
    ),
    "scma": lambda rate, other: (
        scma(*ORACLES, rate, tracker_rate=other, direction_rate=0.25, inner_shape=SHAPE),
        lambda *args: reference.scma(*args, rate, other, 0.25),
    ),
    "scsc": lambda rate, other: (
        scsc(*ORACLES, rate, tracker_rate=other, inner_shape=SHAPE),
        lambda *args: scsc_reference(*args, rate, other),
    ),
    "scst": lambda rate, other: (
        scst(*ORACLES, rate, tracker_rate=0.2, direction_rate=other, inner_shape=SHAPE),
        lambda *args: reference.scst(*args, rate, 0.2, other),
    ),
}  # fmt: skip


@pytest.mark.parametrize("shared", [False, True], ids=["independent", "shared"])
@pytest.mark.parametrize(
    ("rate", "other"), [(0.05, 0.3), (decaying, decaying)], ids=["number", "schedule"]
)
@pytest.mark.parametrize("name", METHODS)
def test_methods_equal_their_references(x64, name, rate, other, shared):
    if rate is decaying:
        rate = lambda count: 0.1 * decaying(count)
    optimizer, loop = METHODS[name](rate, other)
    draws, jacobian_draws = T1.draws(1, NUM_STEPS), T1.draws(2, NUM_STEPS)
    if shared:
        points, _, _ = trajectory(optimizer, T1.start, draws)
        expected = loop(T1, T1.start, draws, draws)
    else:
        points, _, _ = trajectory(optimizer, T1.start, draws, jacobian_draws)
        expected = loop(T1, T1.start, draws, jacobian_draws)
    np.testing.assert_allclose(points, expected, rtol=1e-10, atol=1e-10)


def test_references_differ_from_each_other():
    # On the same draws no two of the methods are alike, so none can pass for another. But where
    # every sample is linear, an average of extrapolated samples is the recursive tracker.
    draws, jacobian_draws = T1.draws(1, NUM_STEPS), T1.draws(2, NUM_STEPS)
    ends = {
        name: make(0.05, 0.3)[1](T1, T1.start, draws, jacobian_draws)[-1]
        for name, make in METHODS.items()
    }
    np.testing.assert_allclose(ends.pop("asc_pg"), ends["scsc"], rtol=1e-10)
    for a, b in itertools.combinations(ends.values(), 2):
        assert np.linalg.norm(a - b) > 1e-3


def test_nasa_with_a_full_first_step_forgets_the_direction_before(x64):
    # tau = 1 / a in the first step: whatever direction came before has no weight.
    weight = 2.0
    step = lambda count: jnp.where(count == 0, 1 / weight, 0.2)
    draws = T1.draws(3, NUM_STEPS)
    optimizer = nasa(
        *ORACLES, step, direction_weight=weight, tracker_weight=0.5, learning_rate=0.2,
        inner_shape=SHAPE,
    )  # fmt: skip
    points, _, _ = trajectory(optimizer, T1.start, draws)
    in_numpy = lambda count: 1 / weight if count == 0 else 0.2
    for before in (None, 1e3 * np.ones(T1.size)):
        expected = reference.nasa(
            T1, T1.start, draws, draws, in_numpy, 0.5, weight, 0.2, before=before
        )
        np.testing.assert_allclose(points, expected, rtol=1e-10, atol=1e-10)


def replayed(estimator, x, points, draws, jacobian_draws):
    """Directions of an estimator at given points: the start and all but the last of ``points``."""

    @jax.jit
    def scan(path, draws, jacobian_draws):
        def body(state, inputs):
            x, batch, other = inputs
            direction, state = estimator.update(None, state, x, batch=batch, jacobian_batch=other)
            return state, direction

        return jax.lax.scan(body, estimator.init(path[0]), (path, draws, jacobian_draws))[1]

    return scan(jnp.concatenate([jnp.asarray(x)[None], points[:-1]]), draws, jacobian_draws)


def test_scma_is_the_estimator_and_ema_from_the_second_step(x64):
    rate, beta = 0.05, 0.2
    draws = T1.draws(4, NUM_STEPS), T1.draws(5, NUM_STEPS)
    optimizer = scma(*ORACLES, rate, tracker_rate=0.3, direction_rate=beta, inner_shape=SHAPE)
    points, updates, _ = trajectory(optimizer, T1.start, *draws)
    estimator = estimate_compositional(*ORACLES, tracker=moving_average(0.3), inner_shape=SHAPE)
    directions = replayed(estimator, T1.start, points, *draws)
    np.testing.assert_allclose(updates[0], -rate * directions[0], rtol=1e-12)
    average = optax.ema(1 - beta, debias=False)
    state = average.init(directions[0])._replace(ema=directions[0])
    for update, direction in zip(updates[1:], directions[1:], strict=True):
        expected, state = average.update(direction, state)
        np.testing.assert_allclose(update, -rate * expected, rtol=1e-11, atol=1e-13)


def test_scma_is_heavy_ball_without_the_weight_of_the_first_direction(x64):
    # ema(1 - beta) is beta * trace(1 - beta); started at d_0 it has (1 - beta)^(t + 1) d_0 on top.
    rate, beta = 0.05, 0.2
    draws = T1.draws(4, NUM_STEPS), T1.draws(5, NUM_STEPS)
    optimizer = scma(*ORACLES, rate, tracker_rate=0.3, direction_rate=beta, inner_shape=SHAPE)
    points, updates, _ = trajectory(optimizer, T1.start, *draws)
    estimator = estimate_compositional(*ORACLES, tracker=moving_average(0.3), inner_shape=SHAPE)
    directions = replayed(estimator, T1.start, points, *draws)
    momentum, average = optax.trace(1 - beta), optax.ema(1 - beta, debias=False)
    states = momentum.init(directions[0]), average.init(directions[0])
    for t, direction in enumerate(directions):
        heavy, first = momentum.update(direction, states[0])
        averaged, second = average.update(direction, states[1])
        states = first, second
        np.testing.assert_allclose(averaged, beta * heavy, rtol=1e-11, atol=1e-13)
        start = (1 - beta) ** (t + 1) * directions[0]
        np.testing.assert_allclose(
            updates[t], -rate * (beta * heavy + start), rtol=1e-11, atol=1e-13
        )


def test_adam_scsc_is_adam_fed_with_the_directions(x64):
    draws = T1.draws(6, NUM_STEPS), T1.draws(7, NUM_STEPS)
    estimator = estimate_compositional(*ORACLES, tracker=recursive_tracker(0.3), inner_shape=SHAPE)
    chained = optax.chain(estimator, optax.scale_by_adam(), optax.scale_by_learning_rate(0.1))
    points, updates, _ = trajectory(chained, T1.start, *draws)
    directions = replayed(estimator, T1.start, points, *draws)
    adam = optax.adam(0.1)
    state = adam.init(T1.start)
    for update, direction in zip(updates, directions, strict=True):
        expected, state = adam.update(direction, state)
        np.testing.assert_allclose(update, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("tracker_rate", [0.1, 1.0])
def test_adam_scsc_is_adam_where_the_composition_is_linear(x64, tracker_rate):
    draws, x = T1.draws(8, NUM_STEPS)[1], jnp.ones(T1.inner_size)
    chained = optax.chain(
        estimate_compositional(
            lambda x, draw: draw @ x,
            lambda u, x, draw: u,
            tracker=recursive_tracker(tracker_rate),
            inner_shape=jax.ShapeDtypeStruct((), jnp.float64),
        ),
        optax.scale_by_adam(),
        optax.scale_by_learning_rate(0.1),
    )
    points, _, _ = trajectory(chained, x, draws)
    adam, expected = optax.adam(0.1), x
    state = adam.init(x)
    for found, gradient in zip(points, draws, strict=True):
        update, state = adam.update(gradient, state)
        expected = expected + update
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


# Identities of the direction.


def curved_inner(x, z):
    return jnp.tanh(jnp.outer(jnp.arange(1.0, 4.0), jnp.sin(x)) @ x + x[0]) + z[:3] * jnp.sum(x**2)


def curved_outer(u, x, z):
    return jnp.sum(jnp.cos(u) + u**4) + jnp.sum(x**3) * u[0] + z[3] * jnp.sum(x)


CURVED_SHAPE = jax.ShapeDtypeStruct((3,), jnp.float64)


@functools.partial(jax.jit, static_argnums=0)
def directions(make, path, noise, *rates):
    estimator = make(*rates)

    def body(state, inputs):
        x, z = inputs
        direction, state = estimator.update(None, state, x, batch=z)
        return state, (direction, state)

    return jax.lax.scan(body, estimator.init(path[0]), (path, noise))[1]


def storm(tracker_rate, direction_rate=None):
    return estimate_compositional(
        curved_inner,
        curved_outer,
        tracker=recursive_tracker(tracker_rate),
        inner_shape=CURVED_SHAPE,
        direction_rate=direction_rate,
    )


def averaging(tracker_rate, direction_rate=None):
    return estimate_compositional(
        curved_inner,
        curved_outer,
        tracker=moving_average(tracker_rate),
        inner_shape=CURVED_SHAPE,
        direction_rate=direction_rate,
    )


@with_x64
@given(
    seed=st.integers(0, 2**16), tracker_rate=st.floats(0.01, 1), direction_rate=st.floats(0.01, 1)
)
def test_recursive_direction_without_noise_is_the_exact_gradient(
    x64, seed, tracker_rate, direction_rate
):
    path, zero = np.random.default_rng(seed).standard_normal((8, 5)), np.zeros((8, 4))
    found, state = directions(storm, path, zero, tracker_rate, direction_rate)
    exact = exact_gradients(path)
    size = np.max(np.abs(exact))
    np.testing.assert_allclose(found, exact, rtol=1e-11, atol=1e-12 * size)
    np.testing.assert_array_equal(state.direction, found)


@jax.jit
def exact_gradients(path):
    zero = jnp.zeros(4)
    return jax.vmap(jax.grad(lambda x: curved_outer(curved_inner(x, zero), x, zero)))(path)


@pytest.mark.parametrize("make", [storm, averaging])
@with_x64
@given(seed=st.integers(0, 2**16), rate=st.floats(0.01, 1))
def test_direction_rate_one_does_not_track(x64, make, seed, rate):
    rng = np.random.default_rng(seed)
    path, noise = rng.standard_normal((8, 5)), rng.standard_normal((8, 4))
    found, _ = directions(make, path, noise, rate, 1.0)
    expected, _ = directions(make, path, noise, rate)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@with_x64
@given(seed=st.integers(0, 2**16), beta=st.floats(0.01, 1))
def test_recursive_direction_takes_the_old_value_at_the_old_point(x64, seed, beta):
    # Also where the tracker lags, so that the old value is not the value at the old point.
    rng = np.random.default_rng(seed)
    path, noise = rng.standard_normal((8, 5)), rng.standard_normal((8, 4))
    found, state = directions(averaging, path, noise, 0.2, beta)
    plain = old_directions(path[:-1], state.tracked_value[:-1], noise[1:])
    here = old_directions(path, state.tracked_value, noise)
    np.testing.assert_allclose(found[0], here[0], rtol=1e-12)
    for t in range(1, 8):
        expected = here[t] + (1 - beta) * (found[t - 1] - plain[t - 1])
        scale = 1 + np.max(np.abs(expected))
        np.testing.assert_allclose(found[t], expected, rtol=1e-10, atol=1e-12 * scale)


@jax.jit
@jax.vmap
def old_directions(x, u, z):
    slope, direct = jax.grad(curved_outer, argnums=(0, 1))(u, x, z)
    return jax.jacobian(curved_inner)(x, z).T @ slope + direct


def test_a_schedule_of_the_direction_rate_sees_the_count(x64):
    rng = np.random.default_rng(0)
    path, noise = rng.standard_normal((4, 5)), rng.standard_normal((4, 4))
    found, _ = directions(lambda: storm(0.2, lambda count: 1 / (1 + count)), path, noise)
    for t in range(1, 4):
        same, _ = directions(storm, path, noise, 0.2, 1 / (1 + t))
        if t == 1:
            np.testing.assert_allclose(found[1], same[1], rtol=1e-12)
        else:
            assert not np.allclose(found[t], same[t], rtol=1e-3)


def test_delayed_slope_takes_the_value_before(x64):
    estimator = estimate_compositional(
        lambda x, z: x * z,
        lambda u, x, z: jnp.sum(u**2) / 2,
        tracker=delayed(moving_average(0.5)),
        inner_shape=jax.ShapeDtypeStruct((1,), jnp.float64),
    )
    x, state = jnp.ones(1), None
    state = estimator.init(x)
    kept = None
    for z, (slope, value) in zip((2.0, 4.0, 10.0), ((2, 2), (2, 3), (3, 6.5)), strict=True):
        found, state = estimator.update(None, state, x, batch=z)
        np.testing.assert_allclose(found, z * slope, rtol=1e-14)
        np.testing.assert_allclose(state.tracked_value, value, rtol=1e-14)
        np.testing.assert_allclose(state.estimated_value, slope**2 / 2, rtol=1e-14)
        assert kept is None or kept != value
        kept = value


def test_log_domain_tracker_equals_the_average_of_values(x64):
    # f(u) of a moving average, and the same function of its logarithm.
    rng = np.random.default_rng(1)
    path, noise = rng.standard_normal((8, 5)), rng.standard_normal((8, 4))
    log_inner = lambda x, z: z[:3] * jnp.sum(x) + jnp.sin(x[:3])
    outer = lambda u, x, z: jnp.sum(jnp.log(u)) + jnp.sum(jnp.sqrt(u)) + z[3] * jnp.sum(x)
    plain = lambda: estimate_compositional(
        lambda x, z: jnp.exp(log_inner(x, z)),
        outer,
        tracker=moving_average(0.3),
        inner_shape=CURVED_SHAPE,
    )
    logarithmic = lambda: estimate_compositional(
        log_inner,
        lambda nu, x, z: outer(jnp.exp(nu), x, z),
        tracker=log_moving_average(0.3),
        inner_shape=CURVED_SHAPE,
    )
    found, state = directions(logarithmic, path, noise)
    expected, other = directions(plain, path, noise)
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    np.testing.assert_allclose(jnp.exp(state.tracked_value), other.tracked_value, rtol=1e-12)
    np.testing.assert_allclose(state.estimated_value, other.estimated_value, rtol=1e-12)


# Limits of shared and independent samples.

# The mean point is exact at any learning rate. Strong noise of the Jacobian, so that the bias
# stands out of the error of the average; a ridge, so that the start is soon forgotten.
NOISY = reference.Quadratic(matrix_noise=1.0, ridge=0.5)
BURN_IN, AVERAGED = 3000, 12_000


@functools.partial(jax.jit, static_argnames=("independent", "num_seeds"))
def stationary_means(gammas, *, independent, num_seeds):
    """Time averages of SCGD for each tracker rate and seed."""
    problem, shape = NOISY, jax.ShapeDtypeStruct((NOISY.inner_size,), jnp.float32)

    def run(gamma, key):
        optimizer = scgd(
            problem.inner,
            lambda u, x, draw: problem.objective(u, x),
            0.01,
            tracker_rate=gamma,
            inner_shape=shape,
        )
        x = jnp.zeros(problem.size)

        def draw(key):
            noise = jax.random.normal(key, (problem.inner_size, problem.size + 1))
            return noise[:, 1:], noise[:, 0]

        def body(carry, key):
            x, state, total, t = carry
            for_inner, for_jacobian = jax.random.split(key)
            other = draw(for_jacobian) if independent else None
            updates, state = optimizer.update(
                None, state, x, batch=draw(for_inner), jacobian_batch=other
            )
            x = x + updates
            return (x, state, total + jnp.where(t < BURN_IN, 0, x), t + 1), None

        keys = jax.random.split(key, BURN_IN + AVERAGED)
        carry = (x, optimizer.init(x), jnp.zeros_like(x), 0)
        return jax.lax.scan(body, carry, keys)[0][2] / AVERAGED

    keys = jax.random.split(jax.random.key(0), num_seeds)
    return jax.vmap(lambda gamma: jax.vmap(lambda key: run(gamma, key))(keys))(gammas)


def distance_from(predicted, runs, unit):
    """From the mean of the runs to a point, and three standard errors of it, in a unit."""
    runs = np.asarray(runs, np.float64)
    error = np.linalg.norm(runs.std(axis=0)) / np.sqrt(len(runs))
    return np.linalg.norm(runs.mean(axis=0) - predicted) / unit, 3 * error / unit


def test_limit_of_a_shared_sample():
    # (H + gamma s^2 tr(Q)) x = A' (c - Q b); a rate of one is the naive gradient.
    gammas = np.array([1.0, 0.8, 0.4, 0.2, 0.1])
    optimum = NOISY.settles_at(0.0)
    means = stationary_means(gammas, independent=False, num_seeds=64)
    for gamma, runs in zip(gammas, means, strict=True):
        predicted = NOISY.settles_at(gamma)
        bias = np.linalg.norm(predicted - optimum)
        ratio, noise = distance_from(predicted, runs, bias)
        assert ratio < (0.02 if gamma == 1 else 0.03), gamma
        assert noise < 0.025, gamma
        # No other share of the noise fits: half of it would be seen.
        assert distance_from(NOISY.settles_at(gamma / 2), runs, bias)[0] > 0.06, gamma


def test_independent_samples_settle_at_the_optimum():
    gamma, optimum = 0.4, NOISY.settles_at(0.0)
    (runs,) = stationary_means(np.array([gamma]), independent=True, num_seeds=128)
    bias = np.linalg.norm(NOISY.settles_at(gamma) - optimum)
    ratio, noise = distance_from(optimum, runs, bias)
    assert ratio < 0.05
    assert noise < 0.05


# Bad input.


def bad(inner=None, outer=None, inner_shape=None):
    return estimate_compositional(
        inner or (lambda x, z: x[:3]),
        outer or (lambda u, x, z: jnp.sum(u)),
        tracker=moving_average(0.5),
        inner_shape=inner_shape or jax.ShapeDtypeStruct((3,), jnp.float32),
    )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"inner": lambda x, z: x}, ["inner returned", "(5,)", "inner_shape says", "(3,)"]),
        (
            {"inner": lambda x, z: {"a": x[:3]}},
            ["inner returned", "{'a': (3,)}", "inner_shape says", "(3,)"],
        ),
        (
            {"inner_shape": {"a": jax.ShapeDtypeStruct((), jnp.float32)}},
            ["inner returned", "(3,)", "inner_shape says", "{'a': ()}"],
        ),
        ({"outer": lambda u, x, z: u}, ["outer must return a scalar", "(3,)"]),
        ({"outer": lambda u, x, z: u[:1]}, ["outer must return a scalar", "(1,)"]),
        ({"outer": lambda u, x, z: (u[0], u[1])}, ["outer must return a scalar", "((), ())"]),
    ],
)
@pytest.mark.parametrize("compiled", [False, True], ids=["", "jit"])
def test_wrong_shapes_are_named(arguments, parts, compiled):
    method, x = bad(**arguments), jnp.ones(5)
    update = lambda state, x: method.update(None, state, x, batch=0.0)
    if compiled:  # tracing is enough
        update = functools.partial(jax.eval_shape, update)
    with pytest.raises(ValueError, match=parts[0]) as error:
        update(method.init(x), x)
    for part in parts:
        assert part in str(error.value)


def test_missing_batch_is_named():
    method, x = bad(), jnp.ones(5)
    with pytest.raises(TypeError, match=r"estimate_compositional: .*'batch'"):
        jax.eval_shape(lambda x: method.update(None, method.init(x), x, jacobian_batch=x), x)


@pytest.mark.parametrize("rate", [0.0, 1.1, float("nan")])
def test_direction_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=r"direction_rate must lie in \(0, 1\]"):
        storm(0.5, rate)


@pytest.mark.parametrize("name", ["scgd", "asc_pg", "scma", "scst"])
@pytest.mark.parametrize(
    ("argument", "value"), [("learning_rate", -0.1), ("tracker_rate", 0.0), ("tracker_rate", 1.1)]
)
def test_rates_of_the_methods_out_of_range(name, argument, value):
    method = {"scgd": scgd, "asc_pg": asc_pg, "scma": scma, "scst": scst}[name]
    with pytest.raises(ValueError, match=f"{argument} must lie in"):
        method(*ORACLES, **{argument: value}, inner_shape=SHAPE)


@pytest.mark.parametrize(
    "arguments",
    [
        {"step": 0.0},
        {"step": 1.1},
        {"tracker_weight": 0.0},
        {"direction_weight": -1.0},
        {"learning_rate": 0.0},
        {"step": 0.5, "tracker_weight": 3.0},
        {"step": 0.5, "direction_weight": 3.0},
    ],
)
def test_constants_of_nasa_out_of_range(arguments):
    with pytest.raises(ValueError, match="must lie in"):
        nasa(*ORACLES, **arguments, inner_shape=SHAPE)


def test_a_direction_cannot_be_corrected_at_a_delayed_value():
    tracker = delayed(moving_average(0.5))
    with pytest.raises(ValueError, match="direction_rate: a delayed tracker"):
        estimate_compositional(*ORACLES, tracker=tracker, inner_shape=SHAPE, direction_rate=0.5)
