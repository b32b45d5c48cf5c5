"""Matrix regression: least squares by NumPy on the same data, the start, the skewed noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stochopt.problems import matrix_regression

key = jax.random.key

OPTIONS = {
    "default": {},
    "wide": {"rows": 3, "columns": 5, "noise": 0.8, "start": 2.5, "seed": 7},
}
DEFAULTS = {"rows": 4, "columns": 3, "noise": 0.5, "start": 1.0, "seed": 0}
each = pytest.mark.parametrize("name", OPTIONS)


@functools.cache
def made(name):
    """For tests in double precision only: JAX keeps a problem's arrays in one precision."""
    return matrix_regression(**OPTIONS[name])


def documented_data(name):
    options = {**DEFAULTS, **OPTIONS[name]}
    rows, columns = options["rows"], options["columns"]
    rng = np.random.default_rng(options["seed"])
    x = rng.standard_normal((8 * rows, rows))
    truth = rng.standard_normal((rows, columns))
    return x, x @ truth + rng.standard_normal((8 * rows, columns))


@each
def test_optimum_is_least_squares(name):
    x, y = documented_data(name)
    expected, *_ = np.linalg.lstsq(x, y)
    np.testing.assert_allclose(made(name).optimum, expected, rtol=1e-10)
    assert np.linalg.norm(x @ expected - y) > 1, "no matrix fits exactly"


@each
def test_objective_gradient_and_gap_are_those_of_the_data(x64, name):
    problem, (x, y) = made(name), documented_data(name)
    objective = lambda w: np.sum((x @ w - y) ** 2) / (2 * len(x))
    rng = np.random.default_rng(1)
    for _ in range(3):
        w, linear = rng.standard_normal((2, *problem.optimum.shape))
        loss = problem.loss(jnp.asarray(w), jnp.asarray(linear))
        np.testing.assert_allclose(loss, objective(w) + np.sum(linear * w), rtol=1e-10)
        measured = problem.metrics(jnp.asarray(w))
        gap = objective(w) - objective(problem.optimum)
        np.testing.assert_allclose(measured["gap"], gap, rtol=1e-9)
        distance = np.linalg.norm(w - problem.optimum) ** 2
        np.testing.assert_allclose(measured["squared_distance"], distance, rtol=1e-12)
        slope = problem.exact["gradient"](jnp.asarray(w))
        np.testing.assert_allclose(slope, x.T @ (x @ w - y) / len(x), rtol=1e-9, atol=1e-12)


@each
def test_start_is_at_the_spectral_distance_in_every_direction(x64, name):
    problem = made(name)
    first, other = (np.asarray(problem.init(key(seed))) for seed in (0, 1))
    for start in (first, other):
        singular_values = np.linalg.svd(start - problem.optimum, compute_uv=False)
        np.testing.assert_allclose(singular_values, {**DEFAULTS, **OPTIONS[name]}["start"])
    assert np.linalg.norm(first - other) > 0.1


@each
def test_noise_is_skewed_with_mean_zero_and_the_stated_variance(x64, name):
    problem, count = made(name), 10_000
    unit = problem.noise / np.sqrt(problem.optimum.size)
    draws = jax.jit(jax.vmap(problem.sample))(jax.random.split(key(0), count))
    entries = np.asarray(draws).reshape(count, -1) / unit
    rare = entries > 0
    np.testing.assert_allclose(entries, np.where(rare, 3, -1 / 3), rtol=1e-12)
    error = 5 / np.sqrt(count)
    np.testing.assert_allclose(rare.mean(0), 0.1, atol=0.3 * error)
    np.testing.assert_allclose(entries.mean(0), 0, atol=error)
    np.testing.assert_allclose(entries.var(0), 1, rtol=0.15)
    np.testing.assert_allclose(np.median(entries, axis=0), -1 / 3, rtol=1e-12)
    assert np.abs(np.corrcoef(entries.T) - np.eye(entries.shape[1])).max() < error
