"""Robust regression: the closed form against Monte Carlo, differences and a solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from stochopt.problems import causal_gaussian

key = jax.random.key

OPTIONS = {
    "default": {},
    "other": {
        "num_blocks": 8,
        "num_sampled": 3,
        "batch_size": 2,
        "dimension": 2,
        "feature_noise": 0.4,
        "response_noise": 0.5,
        "temperature": 2.0,
        "seed": 7,
    },
}
# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
REGRESSION = {name: causal_gaussian(**options) for name, options in OPTIONS.items()}
each_problem = pytest.mark.parametrize("name", OPTIONS)


def temperature(name):
    return OPTIONS[name].get("temperature", 1.0)


def objective(problem, name):
    return jax.jit(lambda theta: temperature(name) * jnp.mean(problem.exact["inner"](theta)))


def plain(name):
    """The expected plain loss: the plug-in loss at one point, by exact quadrature."""
    problem = causal_gaussian(**{**OPTIONS[name], "batch_size": 1})
    size = len(problem.optimum) + 1
    nodes = jnp.asarray(np.sqrt(size) * np.concatenate([np.eye(size), -np.eye(size)]))
    blocks = jnp.arange(problem.num_blocks, dtype=jnp.int32)

    def mean_loss(theta):
        at = lambda i, node: problem.loss(theta, (i[None], node[None, None, :-1], node[None, -1:]))
        over_nodes = jax.vmap(at, in_axes=(None, 0))
        return jnp.mean(jax.vmap(over_nodes, in_axes=(0, None))(blocks, nodes))

    return jax.jit(mean_loss)


def minimize(function, size):
    slope = jax.grad(function)
    return scipy.optimize.minimize(
        lambda theta: float(function(theta)),
        np.zeros(size),
        jac=lambda theta: np.asarray(slope(theta), np.float64),
        method="BFGS",
        options={"gtol": 1e-9},
    ).x


@each_problem
def test_expectations_of_the_exponentials_by_monte_carlo(x64, name):
    problem, draws = REGRESSION[name], 20_000
    theta = jnp.asarray(problem.optimum) + 0.1
    blocks = jnp.arange(problem.num_blocks, dtype=jnp.int32)
    _, for_features, for_responses = problem.sample(key(0))
    shapes = [(problem.num_blocks, *x.shape[1:]) for x in (for_features, for_responses)]

    def draw(k):
        noise = [jax.random.normal(k, s) for k, s in zip(jax.random.split(k), shapes, strict=True)]
        return jax.vmap(problem.inner, in_axes=(None, 0))(theta, (blocks, *noise))

    values = np.exp(jax.jit(jax.vmap(draw))(jax.random.split(key(0), draws)))
    exact = np.exp(problem.exact["inner"](theta))
    error = values.std(0) / np.sqrt(draws)
    assert np.all(np.abs(values.mean(0) - exact) < 5 * error)
    assert np.all(error < 0.03 * exact), "sharp enough to tell"


@each_problem
def test_metrics_and_gradient_are_those_of_the_objective(x64, name):
    problem = REGRESSION[name]
    function, rng = objective(problem, name), np.random.default_rng(0)
    for scale in (0.01, 0.1, 0.5):
        theta = problem.optimum + scale * rng.standard_normal(len(problem.optimum))
        metrics = problem.metrics(jnp.asarray(theta))
        gap = function(theta) - function(problem.optimum)
        np.testing.assert_allclose(metrics["gap"], gap, rtol=1e-9, atol=1e-14)
        distance = np.sum((theta - problem.optimum) ** 2)
        np.testing.assert_allclose(metrics["squared_distance"], distance, rtol=1e-12)
        slope = scipy.optimize.approx_fprime(theta, lambda x: float(function(x)), 1e-7)
        found = problem.exact["gradient"](jnp.asarray(theta))
        np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-5)


@each_problem
def test_optimum_and_limit_of_plain_averages(x64, name):
    problem = REGRESSION[name]
    size = len(problem.optimum)
    found = minimize(objective(problem, name), size)
    np.testing.assert_allclose(found, problem.optimum, rtol=1e-6, atol=1e-8)
    settled = minimize(plain(name), size)
    (level,) = problem.levels.values()
    np.testing.assert_allclose(problem.metrics(jnp.asarray(settled))["gap"], level, rtol=1e-6)
    assert level > 1e-3, "worth a line"


def test_small_gaps_survive_single_precision():
    # A problem of its own: JAX keeps the arrays of a problem in one precision.
    problem = causal_gaussian()
    step = 1e-4 * np.ones(3)
    gap = problem.metrics(jnp.asarray(problem.optimum + step, jnp.float32))["gap"]
    assert gap.dtype == jnp.float32
    # F has values of order one, so that its rounding alone is of the size of this gap.
    slope = lambda at: np.asarray(problem.exact["gradient"](jnp.asarray(at, jnp.float32)))
    curvature = (slope(problem.optimum + 0.01) - slope(problem.optimum - 0.01)) / 0.02
    assert 1e-9 < gap < 1e-7
    np.testing.assert_allclose(gap, np.sum(curvature) * 1e-8 / 2, rtol=0.02)


def test_objective_is_infinite_where_the_expectation_is():
    problem = REGRESSION["default"]
    # T - tau^2 - sigma^2 |theta|^2 = 0.91 - 0.25 |theta|^2 changes its sign at 1.9079.
    at = lambda norm: problem.metrics(jnp.zeros(3).at[0].set(norm))["gap"]
    assert np.isfinite(at(1.907))
    assert at(1.909) == np.inf
    assert at(100.0) == np.inf


@each_problem
def test_batches_and_their_plug_in_loss(x64, name):
    problem = REGRESSION[name]
    batches = jax.vmap(problem.sample)(jax.random.split(key(0), 200))
    ordered = np.sort(batches[0], axis=1)
    assert np.all(ordered[:, 1:] > ordered[:, :-1])
    assert set(np.ravel(ordered)) == set(range(problem.num_blocks))
    batch = jax.tree.map(lambda leaf: leaf[0], batches)
    indices, block_batch = problem.blocks(batch)
    assert indices.dtype == jnp.int32
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i], block_batch) for i in range(len(indices))]
    theta = jnp.asarray(problem.optimum)
    expected = temperature(name) * np.mean([problem.inner(theta, row) for row in rows])
    np.testing.assert_allclose(problem.loss(theta, batch), expected, rtol=1e-12)


def test_without_feature_noise_everything_is_least_squares():
    problem = causal_gaussian(feature_noise=0.0)
    (level,) = problem.levels.values()
    assert level == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    "options",
    [
        *[{name: 0} for name in ("num_blocks", "num_sampled", "batch_size", "dimension")],
        *[{name: -1} for name in ("feature_noise", "response_noise")],
        {"temperature": 0.0},
        {"temperature": 0.3},
        {"num_sampled": 31},
        {"num_blocks": 2, "num_sampled": 1},
    ],
)
def test_bad_arguments_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must "):
        causal_gaussian(**options)
