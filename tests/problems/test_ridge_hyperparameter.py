"""The penalty of ridge regression: exact forms against the oracles, and an orthonormal design."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from stochopt.problems import ridge_hyperparameter

key = jax.random.key

OPTIONS = {
    "default": {},
    "orthonormal": {"orthonormal": True, "num_features": 6, "num_validation": 40, "seed": 3},
}
# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
RIDGES = {name: ridge_hyperparameter(**options) for name, options in OPTIONS.items()}
each_problem = pytest.mark.parametrize("name", OPTIONS)
NUM_TRAIN, NUM_VALIDATION = 30, {"default": 100, "orthonormal": 40}


def rows_of(problem, num_rows, part):
    """All rows and targets of a part, found in many batches."""
    batches = jax.jit(jax.vmap(problem.sample))(jax.random.split(key(0), 200))
    rows, targets = (np.asarray(leaf) for leaf in batches[part])
    together = np.column_stack([rows.reshape(-1, rows.shape[-1]), targets.ravel()])
    found = np.unique(together, axis=0)
    assert len(found) == num_rows
    return jnp.asarray(found[:, :-1]), jnp.asarray(found[:, -1])


def whole(name):
    """One batch of all rows."""
    problem = RIDGES[name]
    return rows_of(problem, NUM_TRAIN, 0), rows_of(problem, NUM_VALIDATION[name], 1)


def objective(problem, batch):
    """F and the lower minimizer, from the oracles."""
    origin = jnp.zeros(len(problem.lower_params))

    @jax.jit
    def function(x):
        slope = jax.grad(problem.lower, 1)(x, origin, batch)
        hessian = jax.hessian(problem.lower, 1)(x, origin, batch)
        w = -jnp.linalg.solve(hessian, slope)
        return problem.upper(x, w, batch), w

    return function


@each_problem
def test_exact_forms_by_dense_algebra_on_the_oracles(x64, name):
    problem, batch = RIDGES[name], whole(name)
    function = objective(problem, batch)
    for x in (-4.0, -1.0, 0.5, 3.0):
        x = jnp.asarray(x)
        value, w = function(x)
        np.testing.assert_allclose(problem.exact["lower"](x), w, rtol=1e-9, atol=1e-12)
        hessian = jax.hessian(problem.lower, 1)(x, w, batch)
        p = np.linalg.solve(hessian, jax.grad(problem.upper, 1)(x, w, batch))
        np.testing.assert_allclose(problem.exact["adjoint"](x), p, rtol=1e-9, atol=1e-12)
        slope = float(function(x + 1e-5)[0] - function(x - 1e-5)[0]) / 2e-5
        np.testing.assert_allclose(problem.exact["gradient"](x), slope, rtol=0, atol=1e-8)
        metrics = problem.metrics(x)
        gap = value - function(problem.optimum)[0]
        np.testing.assert_allclose(metrics["gap"], gap, rtol=1e-8, atol=1e-13)
        np.testing.assert_allclose(metrics["squared_distance"], (x - problem.optimum) ** 2)


@each_problem
def test_optimum_by_a_solver(x64, name):
    problem = RIDGES[name]
    function = objective(problem, whole(name))
    found = scipy.optimize.minimize_scalar(
        lambda x: float(function(x)[0]), bounds=(-8, 8), method="bounded", options={"xatol": 1e-9}
    )
    np.testing.assert_allclose(found.x, problem.optimum, rtol=0, atol=1e-6)
    assert abs(problem.exact["gradient"](jnp.asarray(problem.optimum))) < 1e-14


def test_optimum_of_an_orthonormal_design(x64):
    name = "orthonormal"
    problem, (train, validation) = RIDGES[name], whole(name)
    solutions = []
    for rows, targets in (train, validation):
        n = len(targets)
        np.testing.assert_allclose(rows.T @ rows / n, np.eye(6), atol=1e-12)
        solutions.append(np.asarray(rows.T @ targets / n))
    w_train, w_validation = solutions
    shrinkage = w_train @ w_validation / (w_train @ w_train)
    assert 0.1 < shrinkage < 0.9
    np.testing.assert_allclose(problem.optimum, np.log(1 / shrinkage - 1), rtol=1e-12)
    for x in (-2.0, 1.0):
        s = 1 / (1 + np.exp(x))
        np.testing.assert_allclose(problem.exact["lower"](jnp.asarray(x)), s * w_train, rtol=1e-12)
        gap = np.sum((s * w_train - w_validation) ** 2 - (shrinkage * w_train - w_validation) ** 2)
        np.testing.assert_allclose(problem.metrics(jnp.asarray(x))["gap"], gap / 2, rtol=1e-11)


def test_a_general_design_is_not_orthonormal(x64):
    (rows, _), _ = whole("default")
    assert np.linalg.norm(rows.T @ rows / len(rows) - np.eye(10)) > 0.5


@each_problem
def test_slopes_of_minibatches_are_unbiased(x64, name):
    problem, batch, draws = RIDGES[name], whole(name), 4000
    x, w = jnp.asarray(0.3), jnp.linspace(-1, 1, len(problem.lower_params))

    def slopes(batch):
        of_lower = jax.grad(problem.lower, (0, 1))(x, w, batch)
        return of_lower, jax.grad(problem.upper, 1)(x, w, batch)

    draw = jax.jit(jax.vmap(lambda k: slopes(problem.sample(k))))
    drawn = draw(jax.random.split(key(1), draws))
    for found, exact in zip(*map(jax.tree.leaves, (drawn, slopes(batch))), strict=True):
        error = np.std(found, axis=0) / np.sqrt(draws)
        assert np.all(np.abs(np.mean(found, axis=0) - exact) < 5 * error + 1e-12)
    # Of the penalty nothing is random.
    assert np.std(drawn[0][0]) < 1e-12


def test_the_gap_keeps_its_digits_near_the_optimum():
    """In single precision; a difference of two values would be lost in rounding."""
    problem = ridge_hyperparameter()
    bend = jax.grad(problem.exact["gradient"])(jnp.float32(problem.optimum))
    at = np.float32(problem.optimum) + np.float32(0.01)
    distance = float(at) - float(problem.optimum)
    found = problem.metrics(jnp.asarray(at))["gap"]
    np.testing.assert_allclose(found, bend * distance**2 / 2, rtol=0.05)
    assert found < 1e-5


def test_starts_with_too_strong_a_penalty():
    for problem in (ridge_hyperparameter(), ridge_hyperparameter(**OPTIONS["orthonormal"])):
        assert problem.init(key(0)) > problem.optimum
        assert problem.exact["gradient"](problem.init(key(0))) > 0.01


def test_strict_promotion(strict):
    problem = ridge_hyperparameter()
    x, w, batch = jnp.ones(()), problem.lower_params, problem.sample(key(0))
    assert problem.upper(x, w, batch).dtype == problem.lower(x, w, batch).dtype == jnp.float32


@pytest.mark.parametrize(
    "options",
    [
        *[{name: 0} for name in ("num_features", "num_train", "num_validation", "batch_size")],
        {"noise": -1},
        {"noise": 0},  # no penalty is best
        {"num_train": 9},
        {"num_validation": 9},
    ],
)
def test_bad_arguments_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must "):
        ridge_hyperparameter(**options)


def test_a_signal_lost_in_noise_is_refused():
    with pytest.raises(ValueError, match=r"^noise must .* but an infinite penalty is"):
        ridge_hyperparameter(noise=5.0, seed=1)
