"""The quadratic composition: closed forms against finite differences, solvers and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from stochopt.problems import quadratic_composition

key = jax.random.key

OPTIONS = {
    "default": {},
    "other": {
        "dimension": 3,
        "inner_dimension": 4,
        "matrix_noise": 0.8,
        "vector_noise": 0.3,
        "ridge": 0.5,
        "seed": 7,
    },
}
# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
QUADRATIC = {name: quadratic_composition(**options) for name, options in OPTIONS.items()}
each_quadratic = pytest.mark.parametrize("name", OPTIONS)


def quiet(problem):
    """The batch without noise, at which the inner function is its own mean."""
    return optax.tree.zeros_like(problem.sample(key(0)))


def objective(problem):
    batch = quiet(problem)
    return jax.jit(lambda x: problem.outer(problem.inner(x, batch), x, batch))


def minimize(function, gradient, size):
    result = scipy.optimize.minimize(
        lambda x: float(function(x)),
        np.ones(size),
        jac=lambda x: np.asarray(gradient(x), np.float64),
        method="BFGS",
        options={"gtol": 1e-9},
    )
    return result.x


@each_quadratic
def test_inner_function_is_unbiased_with_the_stated_noise(x64, name):
    problem = QUADRATIC[name]
    options = {"matrix_noise": 0.5, "vector_noise": 0.1, **OPTIONS[name]}
    x = jnp.linspace(-1, 1, len(problem.optimum))
    draw = jax.jit(jax.vmap(lambda k: problem.inner(x, problem.sample(k))))
    draws = draw(jax.random.split(key(0), 10_000))
    mean = problem.inner(x, quiet(problem))
    variance = options["matrix_noise"] ** 2 * jnp.sum(x**2) + options["vector_noise"] ** 2
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * np.sqrt(variance / 10_000))
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.1)
    correlation = np.corrcoef(draws.T) - np.eye(draws.shape[1])
    assert np.abs(correlation).max() < 0.05


@each_quadratic
def test_optimum_minimizes_the_objective(x64, name):
    problem = QUADRATIC[name]
    function = objective(problem)
    found = minimize(function, jax.grad(function), len(problem.optimum))
    np.testing.assert_allclose(found, problem.optimum, rtol=1e-6, atol=1e-8)


@each_quadratic
def test_metrics_measure_the_objective(x64, name):
    problem = QUADRATIC[name]
    function, rng = objective(problem), np.random.default_rng(0)
    for _ in range(3):
        x = rng.standard_normal(len(problem.optimum))
        metrics = problem.metrics(jnp.asarray(x))
        gap = function(x) - function(problem.optimum)
        np.testing.assert_allclose(metrics["gap"], gap, rtol=1e-9)
        distance = np.sum((x - problem.optimum) ** 2)
        np.testing.assert_allclose(metrics["squared_distance"], distance, rtol=1e-12)
    at_optimum = problem.metrics(jnp.asarray(problem.optimum))
    assert all(abs(v) < 1e-20 for v in at_optimum.values())


@each_quadratic
def test_exact_gradient_and_inner_value(x64, name):
    problem = QUADRATIC[name]
    function, rng = objective(problem), np.random.default_rng(0)
    for _ in range(3):
        x = rng.standard_normal(len(problem.optimum))
        slope = scipy.optimize.approx_fprime(x, lambda x: float(function(x)), 1e-6)
        found = problem.exact["gradient"](jnp.asarray(x))
        np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-5)
        value = problem.exact["inner"](jnp.asarray(x))
        noiseless = problem.inner(jnp.asarray(x), quiet(problem))
        np.testing.assert_allclose(value, noiseless, rtol=1e-12)


@each_quadratic
def test_naive_gradient_settles_where_stated(x64, name):
    # The expected plug-in loss, by quadrature that is exact for a quadratic in the noise:
    # the mean over plus and minus sqrt(n) along each of the n coordinates of the noise.
    problem = QUADRATIC[name]
    zero = quiet(problem)
    flat, unflatten = jax.flatten_util.ravel_pytree(zero)
    nodes = np.sqrt(flat.size) * np.concatenate([np.eye(flat.size), -np.eye(flat.size)])
    batches = jax.vmap(unflatten)(jnp.asarray(nodes))
    mean_loss = jax.jit(lambda x: jnp.mean(jax.vmap(problem.loss, in_axes=(None, 0))(x, batches)))
    settled = minimize(mean_loss, jax.grad(mean_loss), len(problem.optimum))
    (level,) = problem.levels.values()
    np.testing.assert_allclose(problem.metrics(jnp.asarray(settled))["gap"], level, rtol=1e-6)
    assert level > 1e-3, "the bias is worth a line"
    # Monte Carlo, as a check of the quadrature: the mean naive gradient vanishes there, and not at
    # the optimum.
    keys = jax.random.split(key(1), 10_000)
    naive = lambda x, k: jax.grad(problem.loss)(x, problem.sample(k))
    slopes = jax.jit(jax.vmap(naive, in_axes=(None, 0)))
    deviations = []
    for point in (settled, problem.optimum):
        drawn = slopes(jnp.asarray(point), keys)
        deviations.append(np.abs(drawn.mean(0)) / drawn.std(0) * np.sqrt(len(keys)))
    assert np.all(deviations[0] < 5)
    assert np.any(deviations[1] > 8)


@each_quadratic
def test_without_matrix_noise_the_naive_gradient_is_unbiased(name):
    options = {**OPTIONS[name], "matrix_noise": 0.0}
    (level,) = quadratic_composition(**options).levels.values()
    assert level == pytest.approx(0, abs=1e-20)


def test_quadratic_shapes():
    problem = quadratic_composition(**OPTIONS["other"])
    matrix, vector = problem.sample(key(0))
    assert (matrix.shape, vector.shape) == ((4, 3), (4,))
    assert problem.inner_shape == jax.ShapeDtypeStruct((4,), jnp.float32)
    params = problem.init(key(0))
    np.testing.assert_array_equal(params, np.zeros(3))
    value = problem.inner(params, (matrix, vector))
    plug_in = problem.outer(value, params, (matrix, vector))
    assert problem.loss(params, (matrix, vector)) == plug_in
    other = quadratic_composition(seed=1)
    assert not np.allclose(other.optimum, QUADRATIC["default"].optimum)
