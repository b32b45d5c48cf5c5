"""Problems for methods that save gradients: their references and constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from stochopt.problems import proxy_quadratic, simplex_quadratic, target_logistic

key = jax.random.key
pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("prices", [1.0, np.linspace(0.5, 3, 8)], ids=["equal", "unequal"])
def test_simplex_optimum_by_a_solver(prices):
    problem = simplex_quadratic(8, 20, prices, noise=0.0, seed=2)
    price = np.broadcast_to(prices, 8)
    solved = scipy.optimize.minimize(
        jax.jit(lambda x: problem.loss(x, jnp.zeros(8))),
        np.full(8, 1 / price.sum()),
        jac=jax.jit(problem.exact["subgradient"]),
        bounds=[(0, None)] * 8,
        constraints={"type": "eq", "fun": lambda x: price @ x - 1, "jac": lambda x: price},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    np.testing.assert_allclose(problem.optimum, solved.x, atol=1e-6)
    assert 0 < np.sum(problem.optimum == 0) < 7  # on a face, but not a vertex
    np.testing.assert_allclose(price @ problem.optimum, 1, rtol=1e-14)
    start = problem.init(None)
    np.testing.assert_allclose(price @ start, 1)
    excess = problem.loss(start, jnp.zeros(8)) - problem.loss(problem.optimum, jnp.zeros(8))
    np.testing.assert_allclose(problem.metrics(start)["gap"], excess, rtol=1e-12)


@pytest.mark.parametrize("distance", [0.0, 0.5, 7.0])
def test_target_and_proxy_differ_by_as_much_as_stated(distance):
    problem = proxy_quadratic(6, 5.0, 0.2, distance, noise=0.3, seed=1)
    x, batch = jnp.zeros(6), problem.sample(key(0))
    hessians = [jax.hessian(f)(x, batch) for f in (problem.loss, problem.proxy)]
    np.testing.assert_allclose(
        np.linalg.norm(hessians[0] - hessians[1], 2), distance, rtol=1e-10, atol=1e-12
    )
    eigenvalues = np.linalg.eigvalsh(hessians[0])
    np.testing.assert_allclose(eigenvalues[[0, -1]], [0.2, 5.0], rtol=1e-10)


def test_the_gap_at_the_start_is_the_same_for_all_spectra():
    for smoothness in (1.0, 1e4):
        problem = proxy_quadratic(6, smoothness, 0.1)
        for k in range(3):
            np.testing.assert_allclose(problem.metrics(problem.init(key(k)))["gap"], 0.5)


def test_smoothness_in_the_targets_is_a_quarter_over_their_number():
    problem = target_logistic(num_features=3, num_examples=10, condition=5)
    hessian = jax.hessian(problem.target_loss)(jnp.zeros(10), jnp.zeros(10))
    np.testing.assert_allclose(np.linalg.norm(hessian, 2), 1 / 40, rtol=1e-12)


def test_the_condition_of_the_features():
    """That of the covariance they are drawn with, up to the scatter of the draw."""
    problem = target_logistic(num_features=5, num_examples=1000, condition=100)
    rows = np.stack([problem.predict(e, None) for e in np.eye(5)])
    eigenvalues = np.linalg.eigvalsh(rows @ rows.T / 1000)
    np.testing.assert_allclose(eigenvalues, np.geomspace(0.01, 1, 5), rtol=0.2)
