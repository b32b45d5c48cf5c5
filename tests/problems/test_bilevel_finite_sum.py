"""Finite sums above finite sums: closed forms against all samples, dense algebra and a solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from stochopt.problems import bilevel_finite_sum

key = jax.random.key

OPTIONS = {
    "default": {},
    "other": {
        "num_samples": 7,
        "dimension": 2,
        "lower_dimension": 5,
        "ridge": 0.02,
        "seed": 7,
    },
}
# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
SUMS = {name: bilevel_finite_sum(**options) for name, options in OPTIONS.items()}
each_problem = pytest.mark.parametrize("name", OPTIONS)


def levels(problem):
    """The mean upper and lower functions, over all samples."""
    every = jnp.arange(problem.num_samples, dtype=jnp.int32)
    beyond = jnp.int32(10**6)  # of the other level: it must not be read

    def upper(x, y):
        at = lambda j: problem.upper(x, y, (beyond, j))
        return jnp.mean(jax.vmap(at)(every))

    def lower(x, y):
        at = lambda i: problem.lower(x, y, (i, beyond))
        return jnp.mean(jax.vmap(at)(every))

    return upper, lower


def minimizer(problem):
    """The lower minimizer as a function of x, from the oracles: Newton's step on a quadratic."""
    lower = levels(problem)[1]
    origin = jnp.zeros(len(problem.lower_params))

    @jax.jit
    def function(x):
        slope = jax.grad(lower, 1)(x, origin)
        return -jnp.linalg.solve(jax.hessian(lower, 1)(x, origin), slope)

    return function


@each_problem
def test_closed_forms_by_dense_algebra_on_the_oracles(x64, name):
    problem = SUMS[name]
    upper, lower = levels(problem)
    x = jnp.asarray(np.random.default_rng(0).standard_normal(len(problem.optimum)))
    y = minimizer(problem)(x)
    np.testing.assert_allclose(problem.exact["lower"](x), y, rtol=1e-9, atol=1e-11)
    hessian, cross = jax.jit(jax.jacobian(jax.grad(lower, 1), (1, 0)))(x, y)
    direct, slope = jax.grad(upper, (0, 1))(x, y)
    p = np.linalg.solve(hessian, slope)
    np.testing.assert_allclose(problem.exact["adjoint"](x), p, rtol=1e-9, atol=1e-11)
    gradient = direct - p @ cross
    np.testing.assert_allclose(problem.exact["gradient"](x), gradient, rtol=1e-9, atol=1e-11)


@each_problem
def test_gradient_by_finite_differences(x64, name):
    problem = SUMS[name]
    upper, solve, size = levels(problem)[0], minimizer(problem), len(problem.optimum)
    objective = jax.jit(lambda x: upper(x, solve(x)))
    x = np.random.default_rng(1).standard_normal(size)
    # Exact for a quadratic but for rounding.
    slope = np.array([(objective(x + e) - objective(x - e)) / 2 for e in np.eye(size)])
    np.testing.assert_allclose(problem.exact["gradient"](jnp.asarray(x)), slope, rtol=0, atol=1e-8)
    direct = OPTIONS[name].get("ridge", 0.1) * x
    assert np.linalg.norm(direct - slope) > 0.1, "what the lower problem adds is seen"
    metrics = problem.metrics(jnp.asarray(x))
    np.testing.assert_allclose(metrics["gap"], objective(x) - objective(problem.optimum), rtol=1e-9)
    distance = np.sum((x - problem.optimum) ** 2)
    np.testing.assert_allclose(metrics["squared_distance"], distance, rtol=1e-12)


@each_problem
def test_optimum_by_a_solver(x64, name):
    problem = SUMS[name]
    upper, solve = levels(problem)[0], minimizer(problem)
    function = jax.jit(jax.value_and_grad(lambda x: upper(x, solve(x))))
    found = scipy.optimize.minimize(
        lambda x: [np.asarray(part, np.float64) for part in function(x)],
        np.ones(len(problem.optimum)),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-10},
    ).x
    np.testing.assert_allclose(found, problem.optimum, rtol=1e-6, atol=1e-8)


@each_problem
def test_samples_differ_and_each_lower_one_is_strongly_convex(x64, name):
    """A method with the memory of samples has something to remember in each of its five terms."""
    problem = SUMS[name]
    x, y = jnp.ones(len(problem.optimum)), jnp.ones(len(problem.lower_params))
    every = jnp.arange(problem.num_samples, dtype=jnp.int32)

    @jax.jit
    @jax.vmap
    def derivatives(index):
        batch = (index, index)
        of_lower = jax.jacobian(jax.grad(problem.lower, 1), (0, 1))(x, y, batch)
        slopes = [jax.grad(oracle, 1)(x, y, batch) for oracle in (problem.upper, problem.lower)]
        return slopes, of_lower

    slopes, (cross, hessian) = derivatives(every)
    for part in (*slopes, cross, hessian):
        assert np.min(np.std(part, axis=0)) > 0.05
    assert np.linalg.eigvalsh(hessian).min() >= 0.5 - 1e-9


def test_indices_are_uniform_and_independent():
    problem, draws = SUMS["other"], 10_000
    n = problem.num_samples
    batch = jax.jit(jax.vmap(problem.sample))(jax.random.split(key(0), draws))
    assert problem.sample_indices(batch) is batch
    lower, upper = map(np.asarray, batch)
    assert lower.dtype == upper.dtype == np.int32
    assert lower.shape == upper.shape == (draws,)
    assert min(lower.min(), upper.min()) == 0
    assert max(lower.max(), upper.max()) == n - 1
    counts, share = np.bincount(n * lower + upper, minlength=n * n), 1 / n**2
    assert np.all(np.abs(counts - draws * share) < 5 * np.sqrt(draws * share))


def test_strict_promotion(strict):
    problem = bilevel_finite_sum()
    x, y, batch = jnp.ones(4), problem.lower_params, problem.sample(key(0))
    assert problem.upper(x, y, batch).dtype == problem.lower(x, y, batch).dtype == jnp.float32


@pytest.mark.parametrize(
    "options",
    [
        *[{name: 0} for name in ("num_samples", "dimension", "lower_dimension")],
        {"ridge": 0},
        {"num_samples": 2},
    ],
)
def test_bad_arguments_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must "):
        bilevel_finite_sum(**options)
