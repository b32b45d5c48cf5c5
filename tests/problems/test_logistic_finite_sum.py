"""Logistic regression as a finite sum: formula, draws, data from files, known constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stochopt.problems import logistic_finite_sum

ROWS = np.asarray([[1.0, 0.0], [2.0, -1.0], [0.5, 3.0], [-1.0, 1.0]])
LABELS = np.asarray([1.0, 0.0, 1.0, -1.0])
SIGNS = np.asarray([1.0, -1.0, 1.0, -1.0])
X = np.asarray([0.4, -1.5])


def make(**options):
    return logistic_finite_sum((ROWS, LABELS), **{"batch_size": 2} | options)


def terms(regularization, decay):
    penalty = regularization * np.sum(X**2 / (1 + X**2)) + decay / 2 * np.sum(X**2)
    return np.log1p(np.exp(-SIGNS * (ROWS @ X))) + penalty


def test_the_formula_of_a_batch_of_one_term_and_of_all(x64):
    problem = make(regularization=0.3, decay=0.2)
    wanted = terms(0.3, 0.2)
    x = jnp.asarray(X)
    np.testing.assert_allclose(problem.loss(x, jnp.asarray([2, 1])), wanted[[2, 1]].mean())
    np.testing.assert_allclose(problem.loss(x, 3), wanted[3])
    np.testing.assert_allclose(problem.full_loss(x), wanted.mean())
    np.testing.assert_allclose(problem.metrics(x)["train_loss"], wanted.mean())


def test_draws_are_distinct_and_cover_all_terms_alike():
    problem = make(batch_size=3)
    drawn = jax.jit(jax.vmap(problem.sample))(jax.random.split(jax.random.key(0), 1000))
    assert np.all(np.diff(np.sort(drawn, axis=1), axis=1) > 0)
    np.testing.assert_allclose(np.bincount(np.ravel(drawn)) / 1000, 0.75, atol=0.06)
    assert problem.num_batches == 2
    assert (problem.num_blocks, problem.num_sampled) == (4, 3)


def test_the_smoothness_is_met_at_the_start_and_convexity_is_lost_further_out(x64):
    problem = make(regularization=0.3)
    hessian = jax.jit(jax.hessian(problem.full_loss))
    curvatures = lambda x: np.linalg.eigvalsh(hessian(jnp.asarray(x)))
    np.testing.assert_allclose(curvatures(np.zeros(2))[-1], problem.smoothness)
    assert curvatures([3.0, 3.0])[0] < 0
    assert problem.strong_convexity is None
    convex = make(regularization=0.0, decay=0.1)
    assert convex.strong_convexity == 0.1
    flat = jax.jit(jax.hessian(convex.full_loss))(jnp.asarray([40.0, 40.0]))
    np.testing.assert_allclose(np.linalg.eigvalsh(flat)[0], 0.1, rtol=1e-3)


def test_a_file_is_read(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("+1 1:1\n-1 1:2 2:-1\n+1 1:0.5 2:3\n-1 1:-1 2:1\n")
    from_file = logistic_finite_sum(path, batch_size=2)
    x = jnp.asarray(X, jnp.float32)
    np.testing.assert_allclose(from_file.full_loss(x), make().full_loss(x), rtol=1e-6)
    with pytest.raises(FileNotFoundError, match=r"^data must be a file"):
        logistic_finite_sum(tmp_path / "nothing.txt")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("batch_size", 5),
        ("batch_size", 0),
        ("num_features", 0),
        ("num_examples", 2.5),
        ("regularization", -0.1),
        ("decay", -0.1),
    ],
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must "):
        make(**{argument: value})
