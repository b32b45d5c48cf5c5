"""Noisy squares: the expectation in closed form against sums over measurements, the oracles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stochopt.problems import noisy_squares

key = jax.random.key


def expectation(function, noise):
    """The mean of ``function(b)`` over the measurements, by the midpoint rule."""
    grid = 1 - noise + 2 * noise * (np.arange(20_000) + 0.5) / 20_000
    return np.mean(function(grid), axis=-1)


@pytest.mark.parametrize("noise", [1.0, 0.4])
def test_gap_and_gradient_are_those_of_the_expected_deviation(x64, noise):
    problem = noisy_squares(dimension=3, noise=noise)
    for x in np.array([[0.1, -0.9, 1.1], [-1.3, 1.0, 2.0], [0.7, -0.75, -1.2]]):
        deviation = expectation(lambda b, x=x: np.abs(x[:, None] ** 2 - b), noise)
        measured = problem.metrics(jnp.asarray(x))
        np.testing.assert_allclose(measured["gap"] + noise / 2, deviation.mean(), atol=1e-7)
        np.testing.assert_allclose(measured["squared_distance"], np.sum((np.abs(x) - 1) ** 2))
        signs = expectation(lambda b, x=x: np.sign(x[:, None] ** 2 - b), noise)
        np.testing.assert_allclose(problem.exact["gradient"](x), 2 * x * signs / 3, atol=2e-4)
    signs = np.array([1.0, -1.0, 1.0])
    np.testing.assert_allclose(problem.exact["gradient"](signs), 0, atol=1e-15)
    np.testing.assert_allclose(problem.metrics(signs)["gap"], 0, atol=1e-15)


def test_samples_measure_every_coordinate_in_the_stated_range():
    coordinates, measured = jax.vmap(noisy_squares(4, batch_size=2, noise=0.5).sample)(
        jax.random.split(key(0), 2000)
    )
    assert coordinates.shape == measured.shape == (2000, 2)
    counts = np.bincount(np.ravel(coordinates))
    assert len(counts) == 4
    assert np.all(np.abs(counts / 4000 - 0.25) < 0.03)
    np.testing.assert_allclose(np.quantile(measured, [0, 0.5, 1]), [0.5, 1, 1.5], atol=0.03)


def test_oracles_belong_to_the_loss(x64):
    problem = noisy_squares(4)
    x, batch = jnp.array([0.3, -1.5, 2.0, -0.1]), (jnp.array([1]), jnp.array([1.7]))
    np.testing.assert_allclose(problem.residuals(x, batch), [1.5**2 - 1.7])
    np.testing.assert_allclose(problem.loss(x, batch), 1.5**2 - 1.7)
    # The proximal operator moves the measured coordinate alone, to the best value of a grid.
    grid = np.linspace(-3, 3, 600_001)
    for step in (0.1, 0.4, 5.0):
        best = grid[np.argmin(np.abs(grid**2 - 1.7) + (grid + 1.5) ** 2 / (2 * step))]
        np.testing.assert_allclose(
            problem.loss_prox(x, step, batch), [0.3, best, 2.0, -0.1], atol=1e-5
        )
    pair = noisy_squares(4, batch_size=2)
    assert pair.loss_prox is None
    assert pair.residuals(x, pair.sample(key(0))).shape == (2,)
