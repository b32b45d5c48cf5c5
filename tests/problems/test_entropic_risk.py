"""The entropic risk: closed forms against Monte Carlo, quadrature and a solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from stochopt.problems import entropic_risk

key = jax.random.key

OPTIONS = {
    "default": {},
    "other": {
        "num_blocks": 6,
        "num_sampled": 2,
        "batch_size": 3,
        "dimension": 2,
        "temperature": 3.0,
        "seed": 7,
    },
}
# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
RISK = {name: entropic_risk(**options) for name, options in OPTIONS.items()}
each_problem = pytest.mark.parametrize("name", OPTIONS)


def temperature(name):
    return OPTIONS[name].get("temperature", 2.0)


def objective(problem, name):
    return jax.jit(lambda w: temperature(name) * jnp.mean(problem.exact["inner"](w)))


def plain(name):
    """The expected plain loss, which is the plug-in loss at one point, by exact quadrature."""
    problem = entropic_risk(**{**OPTIONS[name], "batch_size": 1})
    size = len(problem.optimum)
    nodes = np.sqrt(size) * np.concatenate([np.eye(size), -np.eye(size)])[:, None, None, :]
    blocks = jnp.arange(problem.num_blocks, dtype=jnp.int32)

    def mean_loss(w):
        at = lambda block, node: problem.loss(w, (block[None], node))
        over_nodes = jax.vmap(at, in_axes=(None, 0))
        return jnp.mean(jax.vmap(over_nodes, in_axes=(0, None))(blocks, jnp.asarray(nodes)))

    return jax.jit(mean_loss)


def minimize(function, size):
    slope = jax.grad(function)
    return scipy.optimize.minimize(
        lambda w: float(function(w)),
        np.zeros(size),
        jac=lambda w: np.asarray(slope(w), np.float64),
        method="BFGS",
        options={"gtol": 1e-9},
    ).x


@each_problem
def test_expectations_of_the_exponentials_by_monte_carlo(x64, name):
    problem, draws = RISK[name], 20_000
    w = jnp.asarray(problem.optimum) + 0.1
    blocks = jnp.arange(problem.num_blocks, dtype=jnp.int32)
    shape = (problem.num_blocks, *problem.sample(key(0))[1].shape[1:])

    def draw(k):
        return jax.vmap(problem.inner, in_axes=(None, 0))(w, (blocks, jax.random.normal(k, shape)))

    values = np.exp(jax.jit(jax.vmap(draw))(jax.random.split(key(0), draws)))
    exact = np.exp(problem.exact["inner"](w))
    error = values.std(0) / np.sqrt(draws)
    assert np.all(np.abs(values.mean(0) - exact) < 5 * error)
    assert np.all(error < 0.02 * exact), "sharp enough to tell"


@each_problem
def test_expectations_by_quadrature_in_one_dimension(x64, name):
    problem = entropic_risk(**{**OPTIONS[name], "dimension": 1, "batch_size": 1})
    z, weights = np.polynomial.hermite_e.hermegauss(100)
    weights = weights / np.sqrt(2 * np.pi)
    for w in (-0.5, 0.3, 1.2):
        at = lambda block, z, w=w: problem.inner(jnp.asarray([w]), (block, z[None, None]))
        over_nodes = jax.vmap(at, in_axes=(None, 0))
        blocks = jnp.arange(problem.num_blocks, dtype=jnp.int32)
        logs = jax.vmap(over_nodes, in_axes=(0, None))(blocks, jnp.asarray(z))
        found = np.log(np.exp(logs) @ weights)
        np.testing.assert_allclose(problem.exact["inner"](jnp.asarray([w])), found, rtol=1e-6)


@each_problem
def test_metrics_and_gradient_are_those_of_the_objective(x64, name):
    problem = RISK[name]
    function, rng = objective(problem, name), np.random.default_rng(0)
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


@each_problem
def test_optimum_and_limits_of_wrong_methods(x64, name):
    problem = RISK[name]
    size = len(problem.optimum)
    found = minimize(objective(problem, name), size)
    np.testing.assert_allclose(found, problem.optimum, rtol=1e-6, atol=1e-8)
    one_logarithm = lambda w: jax.nn.logsumexp(problem.exact["inner"](w))
    settled = {
        "limit of plain averages": minimize(plain(name), size),
        "limit of one logarithm": minimize(jax.jit(one_logarithm), size),
    }
    assert settled.keys() == problem.levels.keys()
    for limit, point in settled.items():
        gap = problem.metrics(jnp.asarray(point))["gap"]
        np.testing.assert_allclose(gap, problem.levels[limit], rtol=1e-3)
        assert gap > 1e-3, "worth a line"
    assert np.linalg.norm(np.subtract(*settled.values())) > 0.05, "told from each other"


@each_problem
def test_batches_and_their_plug_in_loss(x64, name):
    problem = RISK[name]
    batches = jax.vmap(problem.sample)(jax.random.split(key(0), 200))
    ordered = np.sort(batches[0], axis=1)
    assert np.all(ordered[:, 1:] > ordered[:, :-1])
    assert set(np.ravel(ordered)) == set(range(problem.num_blocks))
    batch = jax.tree.map(lambda leaf: leaf[0], batches)
    indices, block_batch = problem.blocks(batch)
    assert indices.dtype == jnp.int32
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i], block_batch) for i in range(len(indices))]
    w = problem.init(key(0))
    expected = temperature(name) * np.mean([problem.inner(w, row) for row in rows])
    np.testing.assert_allclose(problem.loss(w, batch), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        *[{name: 0} for name in ("num_blocks", "num_sampled", "batch_size", "dimension")],
        {"temperature": 0.0},
        {"num_sampled": 21},
    ],
)
def test_bad_arguments_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must "):
        entropic_risk(**options)
