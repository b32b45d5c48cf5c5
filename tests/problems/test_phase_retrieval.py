"""Phase retrieval: the data, the minimizers by Nelder-Mead, weak convexity, growth."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from stochopt.problems import phase_retrieval

key = jax.random.key

SMALL = {"dimension": 3, "num_examples": 60}


@functools.cache
def made(small=False):
    """For tests in double precision only: JAX keeps a problem's arrays in one precision."""
    return phase_retrieval(**(SMALL if small else {}))


def documented_data(dimension=10, num_examples=100, corruption=0.1):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((num_examples, dimension))
    signal = rng.standard_normal(dimension)
    signal /= np.linalg.norm(signal)
    squares = (rows @ signal) ** 2
    wrong = rng.permutation(num_examples)[: int(corruption * num_examples)]
    squares[wrong] = rng.standard_normal(len(wrong)) ** 2
    return rows, squares, signal


def value(rows, squares, x):
    return np.mean(np.abs((rows @ x) ** 2 - squares))


def directions(count, dimension, seed=0):
    drawn = np.random.default_rng(seed).standard_normal((count, dimension))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.mark.parametrize("small", [False, True])
def test_metrics_and_loss_are_the_formula(x64, small):
    problem = made(small)
    rows, squares, signal = documented_data(**(SMALL if small else {}))
    np.testing.assert_allclose(problem.optimum, signal, rtol=1e-12)
    for x in np.random.default_rng(1).standard_normal((3, len(signal))):
        measured = problem.metrics(jnp.asarray(x))
        gap = value(rows, squares, x) - value(rows, squares, signal)
        np.testing.assert_allclose(measured["gap"], gap, rtol=1e-10)
        nearer = min(np.linalg.norm(x - signal), np.linalg.norm(x + signal))
        np.testing.assert_allclose(measured["distance"], nearer, rtol=1e-12)
        loss = problem.loss(jnp.asarray(x), (jnp.asarray(rows[:7]), jnp.asarray(squares[:7])))
        np.testing.assert_allclose(loss, value(rows[:7], squares[:7], x), rtol=1e-12)


@pytest.mark.parametrize(("corruption", "wrong"), [(0.0, 0), (0.1, 10), (0.29, 29), (0.4, 40)])
def test_the_stated_part_of_the_measurements_is_wrong(x64, corruption, wrong):
    problem = phase_retrieval(corruption=corruption)
    a, b = jax.jit(jax.vmap(problem.sample))(jax.random.split(key(0), 200))
    assert a.shape == (200, 10, 10)
    assert b.shape == (200, 10)
    pairs = np.concatenate([a.reshape(-1, 10), b.reshape(-1, 1)], axis=1)
    pairs = np.unique(pairs, axis=0)
    assert len(pairs) == 100, "every measurement is drawn"
    error = np.abs((pairs[:, :-1] @ problem.optimum) ** 2 - pairs[:, -1])
    assert np.sum(error > 1e-9) == wrong
    assert np.all(pairs[:, -1] >= 0)


def test_batches_average_to_the_whole(x64):
    problem = made()
    x = jnp.linspace(-1, 1, 10)
    draw = jax.jit(jax.vmap(lambda k: problem.loss(x, problem.sample(k))))
    losses = draw(jax.random.split(key(0), 5000))
    rows, squares, _ = documented_data()
    error = 5 * losses.std() / np.sqrt(5000)
    np.testing.assert_allclose(losses.mean(), value(rows, squares, np.asarray(x)), atol=error)


def test_start_is_half_the_norm_away(x64):
    first, other = (np.asarray(made().init(key(seed))) for seed in (0, 1))
    for start in (first, other):
        np.testing.assert_allclose(np.linalg.norm(start - made().optimum), 0.5, rtol=1e-12)
    assert np.linalg.norm(first - other) > 0.1


def test_starts_on_the_sphere_or_at_a_distance(x64):
    starts = {}
    for distance in (None, 0.0, 2.0):
        problem = phase_retrieval(corruption=0.0, start_distance=distance)
        starts[distance] = jax.vmap(problem.init)(jax.random.split(key(0), 50))
    np.testing.assert_allclose(np.linalg.norm(starts[None], axis=1), 1.0)
    assert np.linalg.norm(np.mean(starts[None], axis=0)) < 0.4, "on all sides"
    signal = made().optimum
    np.testing.assert_allclose(starts[0.0], np.broadcast_to(signal, (50, 10)), rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(starts[2.0] - signal, axis=1), 2.0)
    assert problem.metrics(-signal)["gap"] < 1e-15, "no wrong measurement: zero at the optimum"


def test_oracles_belong_to_the_loss(x64):
    assert made().loss_prox is None
    problem = phase_retrieval(batch_size=1)
    x, batch = jnp.linspace(-1, 1, 10), problem.sample(key(0))
    residuals = problem.residuals(x, batch)
    assert residuals.shape == (1,)
    np.testing.assert_allclose(jnp.mean(jnp.abs(residuals)), problem.loss(x, batch))
    assert made().residuals(x, made().sample(key(0))).shape == (10,)
    # The proximal operator: no point nearby is better, and a shorter or longer step is worse.
    near = problem.loss_prox(x, 0.7, batch)
    value = jax.jit(lambda y: problem.loss(y, batch) + jnp.sum((y - x) ** 2) / 1.4)
    others = near + 0.01 * directions(200, 10)
    assert np.all(jax.vmap(value)(others) > value(near))
    for factor in (0.9, 1.1):
        assert value(x + factor * (near - x)) > value(near) + 1e-4


def test_minimizers_are_the_signal_and_its_negative():
    rows, squares, _ = documented_data(**SMALL)
    signal = made(small=True).optimum
    least, signs = value(rows, squares, signal), set()
    for start in np.random.default_rng(1).standard_normal((16, 3)):
        found = scipy.optimize.minimize(
            lambda x: value(rows, squares, x),
            1.5 * start,
            method="Nelder-Mead",
            options={"xatol": 1e-11, "fatol": 1e-13, "maxfev": 3000},
        )
        assert found.fun > least - 1e-9, "a lower value than at the signal"
        sign = np.sign(found.x @ signal)
        np.testing.assert_allclose(found.x, sign * signal, atol=1e-9)
        signs.add(sign)
    assert signs == {-1, 1}


def test_weakly_convex_with_the_documented_constant_and_no_smaller_one(x64):
    rows, _, _ = documented_data()
    eigenvalues, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    rho = 2 * eigenvalues[-1]
    rng = np.random.default_rng(0)
    middles = rng.standard_normal((1000, 10)) * rng.choice([1e-3, 0.1, 1.0, 3.0], (1000, 1))
    steps = directions(1000, 10) * rng.choice([1e-3, 0.1, 1.0], (1000, 1))
    # At zero every measurement is too small, which is where the curvature is most negative.
    middles = np.concatenate([middles, np.zeros((1, 10))])
    steps = np.concatenate([steps, 1e-3 * vectors[:, -1:].T])
    gap = jax.jit(jax.vmap(lambda x: made().metrics(x)["gap"]))
    bend = np.asarray(gap(middles + steps) + gap(middles - steps) - 2 * gap(middles))
    squares = np.sum(steps**2, axis=1)
    assert np.all(bend + rho * squares > -1e-12)
    assert np.any(bend + 0.95 * rho * squares < -1e-8)


def test_objective_grows_linearly_around_both_minimizers(x64):
    problem = made()
    distances = np.repeat([1e-6, 1e-4, 1e-2, 0.1, 0.5], 200)
    steps = distances[:, None] * directions(1000, 10)
    measure = jax.jit(jax.vmap(problem.metrics))
    for center in (problem.optimum, -problem.optimum):
        measured = measure(center + steps)
        np.testing.assert_allclose(measured["distance"], distances, rtol=1e-8)
        assert np.all(measured["gap"] > 0.5 * distances)
        assert np.all(measured["gap"] < 5 * distances)
