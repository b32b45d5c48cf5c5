"""The noisy quadratic: its minimizer by SciPy, its noise, the documented recursion."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.stats

from stochopt.problems import noisy_quadratic

key = jax.random.key

SPECTRUM, NOISE = (3.0, 0.2, 0.7, 1.5), 0.8
# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
PROBLEM = noisy_quadratic(SPECTRUM, NOISE)


def test_optimum_minimizes_the_noiseless_loss(x64):
    noiseless = jax.jit(lambda x: PROBLEM.loss(x, jnp.zeros(4)))
    found = scipy.optimize.minimize(lambda x: float(noiseless(x)), np.zeros(4), method="BFGS")
    np.testing.assert_allclose(found.x, [1, -1, 1, -1], atol=1e-4)
    np.testing.assert_array_equal(PROBLEM.optimum, [1, -1, 1, -1])
    x = np.array([0.3, -2.0, 5.0, 0.7])
    gap = float(noiseless(x)) - float(noiseless(PROBLEM.optimum))
    np.testing.assert_allclose(PROBLEM.metrics(jnp.asarray(x))["gap"], gap, rtol=1e-12)
    np.testing.assert_allclose(gap, np.dot(SPECTRUM, (x - PROBLEM.optimum) ** 2) / 2, rtol=1e-12)


def test_noise_is_gaussian_and_the_same_in_every_coordinate(x64):
    draws = np.asarray(jax.jit(jax.vmap(PROBLEM.sample))(jax.random.split(key(0), 5000)))
    for coordinate in draws.T:
        normal = scipy.stats.norm(scale=NOISE / np.sqrt(4))
        assert scipy.stats.kstest(coordinate, normal.cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 0.06


def test_gradient_descent_obeys_the_documented_recursion(x64):
    runs, steps, eta = 4000, 20, 0.4
    sample = jax.jit(jax.vmap(PROBLEM.sample))
    slopes = jax.jit(jax.vmap(jax.grad(PROBLEM.loss)))
    x = np.tile(np.asarray(PROBLEM.init(key(0))), (runs, 1))
    expected = (x[0] - PROBLEM.optimum) ** 2
    for step in range(steps):
        x = x - eta * np.asarray(slopes(x, sample(jax.random.split(key(step), runs))))
        shrink = (1 - eta * np.asarray(SPECTRUM)) ** 2
        expected = shrink * expected + eta**2 * NOISE**2 / 4
        squares = (x - PROBLEM.optimum) ** 2
        error = 5 * squares.std(0) / np.sqrt(runs)
        assert np.all(np.abs(squares.mean(0) - expected) < error)


def test_the_proximal_operator_solves_its_equation(x64):
    """Catches a sign of the noise, or a step for its inverse: x+ = x - step grad f(x+)."""
    x, batch = jnp.array([0.3, -2.0, 5.0, 0.7]), PROBLEM.sample(key(0))
    for step in (0.1, 3.0):
        moved = PROBLEM.loss_prox(x, step, batch)
        np.testing.assert_allclose(moved, x - step * jax.grad(PROBLEM.loss)(moved, batch))
