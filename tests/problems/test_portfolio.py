"""The portfolio: closed forms against Monte Carlo, quadrature and a solver."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from stochopt.problems import portfolio

key = jax.random.key

OPTIONS = {
    "default": {},
    "other": {"num_assets": 3, "risk_aversion": 2.5, "batch_size": 2, "seed": 7},
}
# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
PORTFOLIO = {name: portfolio(**options) for name, options in OPTIONS.items()}
each_portfolio = pytest.mark.parametrize("name", OPTIONS)


def expected_inner(problem, weights):
    """The inner value without noise, which is its mean as it is linear in the noise."""
    return problem.inner(weights, optax.tree.zeros_like(problem.sample(key(0))))


def nodes(problem):
    """Batches over which the mean of a quadratic of the noise is its expectation."""
    flat, unflatten = jax.flatten_util.ravel_pytree(problem.sample(key(0)))
    signs = np.concatenate([np.eye(flat.size), -np.eye(flat.size)])
    return jax.vmap(unflatten)(jnp.asarray(np.sqrt(flat.size) * signs))


def objective(problem):
    batches = nodes(problem)
    value = lambda w, batch: problem.outer(expected_inner(problem, w), w, batch)
    return jax.jit(lambda w: jnp.mean(jax.vmap(value, in_axes=(None, 0))(w, batches)))


def plug_in(problem):
    batches = nodes(problem)
    return jax.jit(lambda w: jnp.mean(jax.vmap(problem.loss, in_axes=(None, 0))(w, batches)))


def minimize(function, size):
    slope = jax.grad(function)
    return scipy.optimize.minimize(
        lambda w: float(function(w)),
        np.ones(size),
        jac=lambda w: np.asarray(slope(w), np.float64),
        method="BFGS",
        options={"gtol": 1e-9},
    ).x


@each_portfolio
def test_mean_and_variance_of_the_returns_by_monte_carlo(x64, name):
    options = {"risk_aversion": 1.0, "batch_size": 1, **OPTIONS[name]}
    problem, draws = PORTFOLIO[name], 20_000
    w = jnp.linspace(-1, 1.5, len(problem.optimum))
    draw = jax.jit(jax.vmap(lambda k: problem.inner(w, problem.sample(k))))
    same, returns = draw(jax.random.split(key(0), draws))
    np.testing.assert_array_equal(same, np.tile(w, (draws, 1)))
    exact_weights, exact_return = problem.exact["inner"](w)
    np.testing.assert_array_equal(exact_weights, w)
    variance = options["batch_size"] * np.var(returns)
    assert abs(np.mean(returns) - exact_return) < 5 * np.std(returns) / np.sqrt(draws)
    # F(w) - F(0), where the variance of a variance is twice its square.
    found = -exact_return + options["risk_aversion"] * variance
    error = options["risk_aversion"] * variance * np.sqrt(2 / draws)
    gaps = [problem.metrics(point)["gap"] for point in (w, jnp.zeros_like(w))]
    assert abs(found - (gaps[0] - gaps[1])) < 5 * error
    assert error < 0.02 * found


@each_portfolio
def test_gradient_by_the_chain_rule_on_samples(x64, name):
    problem, draws = PORTFOLIO[name], 20_000
    w = jnp.linspace(-1, 1.5, len(problem.optimum))
    value = expected_inner(problem, w)

    def estimate(k):
        first, second = jax.random.split(k)
        slope = jax.grad(problem.outer)(value, w, problem.sample(first))
        (through,) = jax.vjp(lambda w: problem.inner(w, problem.sample(second)), w)[1](slope)
        return through

    drawn = jax.jit(jax.vmap(estimate))(jax.random.split(key(1), draws))
    deviation = drawn.mean(0) - problem.exact["gradient"](w)
    assert np.all(np.abs(deviation) < 5 * drawn.std(0) / np.sqrt(draws))


@each_portfolio
def test_metrics_and_gradient_are_those_of_the_objective(x64, name):
    problem = PORTFOLIO[name]
    function, rng = objective(problem), np.random.default_rng(0)
    for _ in range(3):
        w = rng.standard_normal(len(problem.optimum))
        metrics = problem.metrics(jnp.asarray(w))
        gap = function(w) - function(problem.optimum)
        np.testing.assert_allclose(metrics["gap"], gap, rtol=1e-9)
        distance = np.sum((w - problem.optimum) ** 2)
        np.testing.assert_allclose(metrics["squared_distance"], distance, rtol=1e-12)
        slope = scipy.optimize.approx_fprime(w, lambda w: float(function(w)), 1e-6)
        found = problem.exact["gradient"](jnp.asarray(w))
        np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-5)


@each_portfolio
def test_optimum_and_limit_of_the_naive_gradient(x64, name):
    problem = PORTFOLIO[name]
    size = len(problem.optimum)
    found = minimize(objective(problem), size)
    np.testing.assert_allclose(found, problem.optimum, rtol=1e-6, atol=1e-8)
    settled = minimize(plug_in(problem), size)
    (level,) = problem.levels.values()
    np.testing.assert_allclose(problem.metrics(jnp.asarray(settled))["gap"], level, rtol=1e-6)
    initial = problem.metrics(problem.init(key(0)))["gap"]
    assert 0.05 * initial < level < 0.5 * initial, "wrong, but better than the start"


@pytest.mark.parametrize("argument", ["num_assets", "risk_aversion", "batch_size"])
def test_bad_arguments_are_named(argument):
    with pytest.raises(ValueError, match=f"^{argument} must "):
        portfolio(**{argument: 0})
