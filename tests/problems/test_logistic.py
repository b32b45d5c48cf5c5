"""Logistic regression: the formula, the documented data, the minimizer against other solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

from stochopt.problems import logistic

key = jax.random.key

SMALL = {"num_features": 5, "num_examples": 40, "batch_size": 3, "decay": 0.02}


@pytest.fixture(scope="module")
def small_logistic():
    """For tests in double precision only: JAX keeps a problem's arrays in one precision."""
    return logistic(**SMALL)


def documented_data(num_features, num_examples):
    """The rows times their labels."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((num_examples, num_features)) / np.sqrt(num_features)
    truth = rng.standard_normal(num_features)
    signs = rng.uniform(size=num_examples)
    margins = rows @ truth * 4 * np.sqrt(num_features) / np.linalg.norm(truth)
    return rows * np.where(signs < 1 / (1 + np.exp(-margins)), 1, -1)[:, None]


def average_loss(signed, decay, x):
    return np.mean(np.log1p(np.exp(-signed @ x))) + decay / 2 * x @ x


def average_gradient(signed, decay, x):
    return decay * x - signed.T @ scipy.special.expit(-signed @ x) / len(signed)


def test_logistic_loss_is_the_formula(x64, small_logistic):
    signed = np.random.default_rng(0).standard_normal((4, 5))
    x = np.linspace(-2, 2, 5)
    expected = np.mean(np.log1p(np.exp(-signed @ x))) + 0.01 * x @ x
    found = small_logistic.loss(jnp.asarray(x), jnp.asarray(signed))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_logistic_gradient_equals_finite_differences(x64, small_logistic):
    batch = small_logistic.sample(key(0))
    assert batch.dtype == jnp.float64
    function = jax.jit(lambda x: small_logistic.loss(x, batch))
    x = np.linspace(-1, 1, 5)
    assert (
        scipy.optimize.check_grad(
            lambda x: float(function(x)), lambda x: np.asarray(jax.grad(function)(x)), x
        )
        < 1e-6
    )


def test_logistic_data_follow_the_documented_recipe(x64, small_logistic):
    signed = documented_data(5, 40)
    x = np.linspace(-1, 1, 5)
    found = small_logistic.metrics(jnp.asarray(x))
    np.testing.assert_allclose(found["train_loss"], average_loss(signed, 0.02, x), rtol=1e-12)
    distance = np.sum((x - small_logistic.optimum) ** 2)
    np.testing.assert_allclose(found["squared_distance"], distance, rtol=1e-12)
    slope = small_logistic.exact["gradient"](jnp.asarray(x))
    np.testing.assert_allclose(slope, average_gradient(signed, 0.02, x), rtol=1e-10)


def test_logistic_batches_average_to_the_whole(x64, small_logistic):
    batch = small_logistic.sample(key(0))
    assert batch.shape == (3, 5)
    x = jnp.linspace(-1, 1, 5)
    losses = jax.jit(jax.vmap(lambda k: small_logistic.loss(x, small_logistic.sample(k))))(
        jax.random.split(key(0), 5000)
    )
    error = 5 * losses.std() / np.sqrt(5000)
    np.testing.assert_allclose(losses.mean(), small_logistic.metrics(x)["train_loss"], atol=error)


def test_logistic_defaults():
    problem = logistic()
    assert problem.sample(key(0)).shape == (16, 1000)
    params = problem.init(key(0))
    assert params.shape == (1000,)
    np.testing.assert_allclose(problem.metrics(params)["train_loss"], np.log(2), rtol=1e-6)
    slope = average_gradient(documented_data(1000, 4096), 1e-3, problem.optimum)
    assert np.linalg.norm(slope) < 1e-10


def test_logistic_optimum_is_that_of_another_solver(small_logistic):
    signed = documented_data(5, 40)
    assert np.linalg.norm(average_gradient(signed, 0.02, small_logistic.optimum)) < 1e-10
    found = scipy.optimize.minimize(
        lambda x: average_loss(signed, 0.02, x), np.ones(5), method="BFGS", options={"gtol": 1e-7}
    )
    np.testing.assert_allclose(small_logistic.optimum, found.x, atol=1e-5)


def test_logistic_optimum_with_hardly_any_decay():
    # Almost separable data: the minimizer is far from zero, where the Hessian is nearly singular.
    problem = logistic(num_features=5, num_examples=40, decay=1e-6)
    slope = average_gradient(documented_data(5, 40), 1e-6, problem.optimum)
    assert np.linalg.norm(slope) < 1e-10
