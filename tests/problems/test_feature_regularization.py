"""A penalty for each feature: the halves, the exact quantities, finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stochopt.problems import feature_regularization

BATCH, BATCHES = 8, 6


def examples(number=2 * BATCH * BATCHES + 5):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((number, 4)).astype(np.float32)
    labels = np.where(rows[:, 0] - rows[:, 1] + rng.standard_normal(number) > 0, 1, -1)
    return rows, labels


DATA = examples()


def small(**changes):
    return feature_regularization(DATA, **{"batch_size": BATCH} | changes)


def levels(problem):
    """The mean upper and lower functions, over all minibatches."""
    every = jnp.arange(BATCHES, dtype=jnp.int32)
    upper = lambda x, y: jnp.mean(jax.vmap(lambda j: problem.upper(x, y, (None, j)))(every))
    lower = lambda x, y: jnp.mean(jax.vmap(lambda i: problem.lower(x, y, (i, None)))(every))
    return upper, lower


def some_params(seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-4, 0, 5))


def test_halves_are_disjoint_rows_of_the_data(x64):
    """The slopes at zero are -1/2 of mean rows: all that was used, but no row twice."""
    problem = small()
    zero = jnp.zeros(5)
    upper, lower = levels(problem)
    signed = np.c_[np.ones(len(DATA[0])), DATA[0]] * DATA[1][:, None]
    order = np.random.default_rng(0).permutation(len(signed))[: 2 * BATCH * BATCHES]
    train, validation = np.split(signed[order], 2)
    np.testing.assert_allclose(jax.grad(lower, 1)(zero, zero), -train.mean(0) / 2, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(upper, 1)(zero, zero), -validation.mean(0) / 2, rtol=1e-12)


def test_exact_quantities_are_those_of_the_oracles(x64):
    problem, x = small(), some_params()
    upper, lower = levels(problem)
    y, p = problem.exact["lower"](x), problem.exact["adjoint"](x)
    np.testing.assert_allclose(jax.grad(lower, 1)(x, y), 0, atol=1e-12)
    hessian, cross = jax.jacobian(jax.grad(lower, 1), (1, 0))(x, y)
    np.testing.assert_allclose(hessian @ p, jax.grad(upper, 1)(x, y), atol=1e-12)
    np.testing.assert_allclose(problem.exact["gradient"](x), -p @ cross, atol=1e-12)
    np.testing.assert_allclose(problem.metrics(x)["validation_loss"], upper(x, y), rtol=1e-12)
    # One penalty of each feature, its own exponential.
    np.testing.assert_allclose(cross, np.diag(np.exp(x) * y), atol=1e-12)


def test_gradient_against_finite_differences(x64):
    problem, x = small(), some_params()
    loss = jax.jit(lambda x: problem.metrics(x)["validation_loss"])
    slope = [(loss(x + e) - loss(x - e)) / 2e-4 for e in 1e-4 * np.eye(5)]
    np.testing.assert_allclose(problem.exact["gradient"](x), slope, rtol=1e-5)


def test_single_precision_is_enough():
    problem = small()
    x = some_params().astype(jnp.float32)
    slope = jax.grad(levels(problem)[1], 1)
    np.testing.assert_allclose(slope(x, problem.exact["lower"](x)), 0, atol=1e-6)


def test_files_are_read(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("+1 1:1 2:0.5\n-1 2:2\n")
    problem = feature_regularization(path, batch_size=1)
    assert problem.num_samples == 1
    assert problem.lower_params.shape == problem.init(jax.random.key(0)).shape == (3,)
    with pytest.raises(FileNotFoundError, match=r"^data must be a file .*nowhere"):
        feature_regularization(tmp_path / "nowhere")


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"^batch_size must "):
        small(batch_size=0)
    with pytest.raises(ValueError, match=r"^data must hold 1000 examples"):
        small(batch_size=500)
