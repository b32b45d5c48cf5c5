"""The cosine and the Polyak-Lojasiewicz function: stationary points, curvature, constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from stochopt.problems import cosine, polyak_lojasiewicz

key = jax.random.key


def test_cosine_is_stationary_on_the_grid_and_nowhere_else(x64):
    problem = cosine(dimension=3)
    slope = jax.jit(problem.exact["gradient"])
    rng = np.random.default_rng(0)
    solved = [
        scipy.optimize.root(lambda x: np.asarray(slope(x)), s) for s in rng.uniform(-9, 9, (40, 3))
    ]
    points = np.stack([s.x for s in solved if s.success])
    whole = np.round(points / np.pi)
    np.testing.assert_allclose(points / np.pi, whole, atol=1e-7)
    odd = np.sum(whole % 2, axis=1)
    assert set(odd) == {0, 1, 2, 3}, "minima, saddle points and maxima"
    measured = jax.vmap(problem.metrics)(jnp.asarray(points))
    np.testing.assert_allclose(measured["gap"], 2 * odd, atol=1e-12)
    np.testing.assert_allclose(measured["squared_distance"], 0, atol=1e-12)
    on_grid = np.pi * np.array([[k, -k, 2 * k + 1] for k in range(-4, 5)])
    np.testing.assert_allclose(jax.vmap(slope)(on_grid), 0, atol=1e-13)


def test_cosine_measures_the_distance_to_the_nearest_point_of_the_grid(x64):
    problem = cosine(dimension=3)
    points = np.random.default_rng(0).uniform(-10, 10, (50, 3))
    grid = np.pi * np.arange(-5, 6)
    nearest = np.min((points[..., None] - grid) ** 2, axis=-1)
    found = jax.vmap(problem.metrics)(jnp.asarray(points))
    np.testing.assert_allclose(found["squared_distance"], nearest.sum(1), rtol=1e-12)
    np.testing.assert_allclose(found["gap"], np.sum(1 - np.cos(points), axis=1), rtol=1e-12)


@pytest.mark.parametrize("factory", [cosine, polyak_lojasiewicz])
def test_every_coordinate_starts_where_told(factory):
    default = factory().init(key(0))
    assert default.shape == (10,)
    moved = factory(dimension=4, start=-0.25).init(key(0))
    np.testing.assert_array_equal(moved, np.full(4, -0.25))


def test_cosine_starts_where_the_curvature_is_negative(x64):
    problem = cosine(dimension=3)
    hessian = jax.jit(jax.hessian(problem.loss))(problem.init(key(0)), jnp.zeros(3))
    np.testing.assert_allclose(hessian, np.cos(2.0) * np.eye(3), atol=1e-12)
    assert np.cos(2.0) < 0


GRID = np.linspace(-30, 30, 60_001)


def on_grid(problem):
    """Value, slope and curvature of the function of one variable on the grid."""
    noiseless = lambda x: problem.loss(x[None], jnp.zeros(1))
    both = jax.value_and_grad(noiseless)
    curvature = jax.grad(jax.grad(noiseless))
    values, slopes = jax.vmap(both)(jnp.asarray(GRID))
    return (
        np.asarray(values),
        np.asarray(slopes),
        np.asarray(jax.vmap(curvature)(jnp.asarray(GRID))),
    )


def test_polyak_lojasiewicz_inequality(x64):
    problem = polyak_lojasiewicz(dimension=1)
    values, slopes, _ = on_grid(problem)
    np.testing.assert_allclose(values, GRID**2 + 3 * np.sin(GRID) ** 2, rtol=1e-12, atol=1e-12)
    away = np.abs(GRID) > 1e-6  # both sides vanish at the minimum
    best = np.min(slopes[away] ** 2 / (2 * values[away]))
    # The documented constant is the one of the literature, a valid lower bound of the best.
    np.testing.assert_allclose(best, 0.1755, atol=1e-4)
    assert problem.strong_convexity <= best
    # The function is a sum over the coordinates, so the constant holds in any dimension.
    many = polyak_lojasiewicz(dimension=4)
    x = np.random.default_rng(0).uniform(-8, 8, (1000, 4))
    norms = np.sum(np.asarray(jax.vmap(many.exact["gradient"])(x)) ** 2, axis=1)
    gaps = np.asarray(jax.vmap(many.metrics)(jnp.asarray(x))["gap"])
    assert np.all(norms >= 2 * best * gaps)
    assert many.strong_convexity == problem.strong_convexity


def test_polyak_lojasiewicz_is_not_convex(x64):
    _, _, curvature = on_grid(polyak_lojasiewicz(dimension=1))
    np.testing.assert_allclose(curvature, 2 + 6 * np.cos(2 * GRID), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose([curvature.min(), curvature.max()], [-4, 8], atol=1e-4)
    five_periods = curvature[np.abs(GRID - 2.5 * np.pi) < 2.5 * np.pi]
    assert np.sum(np.diff(np.sign(five_periods)) != 0) == 10


def test_polyak_lojasiewicz_has_one_minimizer(x64):
    problem = polyak_lojasiewicz(dimension=2)
    function = jax.jit(lambda x: problem.metrics(x)["gap"])
    slope = jax.jit(problem.exact["gradient"])
    for start in np.random.default_rng(0).uniform(-10, 10, (20, 2)):
        found = scipy.optimize.minimize(
            lambda x: float(function(x)), start, jac=lambda x: np.asarray(slope(x)), method="BFGS"
        )
        np.testing.assert_allclose(found.x, 0, atol=1e-5)
    np.testing.assert_array_equal(problem.optimum, 0)
    measured = problem.metrics(jnp.asarray([3.0, -4.0]))
    np.testing.assert_allclose(measured["squared_distance"], 25, rtol=1e-12)
