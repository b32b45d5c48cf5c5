"""Coupled least squares: closed forms against Monte Carlo, quadrature and a solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from stochopt.problems import coupled_least_squares

key = jax.random.key

OPTIONS = {
    "default": {},
    "other": {
        "num_blocks": 7,
        "num_sampled": 7,
        "dimension": 3,
        "row_noise": 0.8,
        "value_noise": 0.4,
        "seed": 7,
    },
}
# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
COUPLED = {name: coupled_least_squares(**options) for name, options in OPTIONS.items()}
each_problem = pytest.mark.parametrize("name", OPTIONS)


def objectives(problem):
    """F, and the expected plug-in loss, from the oracles of the blocks.

    Their means over the noise are over plus and minus sqrt(k) along each of its k coordinates,
    which is exact for a quadratic of the noise.
    """
    size = len(problem.optimum)
    blocks = jnp.arange(problem.num_blocks, dtype=jnp.int32)
    signs = np.sqrt(size + 1) * np.concatenate([np.eye(size + 1), -np.eye(size + 1)])
    rows, values = jnp.asarray(signs[:, :-1]), jnp.asarray(signs[:, -1])

    def inner(x):
        at = lambda block, row, value: problem.inner(x, (block, row, value))
        over_noise = jax.vmap(at, in_axes=(None, 0, 0))
        return jax.vmap(over_noise, in_axes=(0, None, None))(blocks, rows, values)

    def outer(x, values_of_blocks):
        at = lambda value, block: problem.outer(value, x, (block, rows[0], values[0]))
        return jnp.mean(jax.vmap(at)(values_of_blocks, blocks))

    exact = jax.jit(lambda x: outer(x, inner(x).mean(1)))
    naive = jax.jit(lambda x: jnp.mean(jax.vmap(lambda v: outer(x, v))(inner(x).T)))
    return exact, naive


def minimize(function, size):
    slope = jax.grad(function)
    return scipy.optimize.minimize(
        lambda x: float(function(x)),
        np.ones(size),
        jac=lambda x: np.asarray(slope(x), np.float64),
        method="BFGS",
        options={"gtol": 1e-9},
    ).x


@each_problem
def test_inner_values_by_monte_carlo(x64, name):
    problem, draws = COUPLED[name], 4000
    options = {"row_noise": 0.5, "value_noise": 0.1, **OPTIONS[name]}
    x = jnp.linspace(-1, 1, len(problem.optimum))
    value = jax.vmap(problem.inner, in_axes=(None, 0))

    def draw(k):
        blocks, batch = problem.blocks(problem.sample(k))
        return blocks, value(x, batch)

    blocks, values = jax.jit(jax.vmap(draw))(jax.random.split(key(0), draws))
    errors = np.asarray(values - problem.exact["inner"](x)[blocks])
    variance = options["row_noise"] ** 2 * jnp.sum(x**2) + options["value_noise"] ** 2
    np.testing.assert_allclose(errors.var(), variance, rtol=0.05)
    for block in range(problem.num_blocks):
        mine = errors[np.asarray(blocks) == block]
        assert abs(mine.mean()) < 5 * np.sqrt(variance / mine.size)
    # Of all blocks together the mean is sharper.
    assert abs(errors.mean()) < 5 * np.sqrt(variance / errors.size) < 0.04


@each_problem
def test_inner_values_without_noise(x64, name):
    problem = COUPLED[name]
    x = jnp.linspace(-1, 1, len(problem.optimum))
    at = lambda block: problem.inner(x, (block, jnp.zeros_like(x), jnp.zeros([])))
    values = jax.vmap(at)(jnp.arange(problem.num_blocks))
    np.testing.assert_allclose(problem.exact["inner"](x), values, rtol=1e-9, atol=1e-12)


@each_problem
def test_blocks_are_distinct_and_equally_likely(name):
    problem, draws = COUPLED[name], 4000
    indices = jax.vmap(lambda k: problem.blocks(problem.sample(k))[0])(
        jax.random.split(key(0), draws)
    )
    assert indices.dtype == jnp.int32
    ordered = np.sort(indices, axis=1)
    assert np.all(ordered[:, 1:] > ordered[:, :-1])
    counts = np.bincount(np.ravel(indices), minlength=problem.num_blocks)
    share = indices.shape[1] / problem.num_blocks
    assert len(counts) == problem.num_blocks
    assert np.all(np.abs(counts - draws * share) <= 5 * np.sqrt(draws * share * (1 - share)))


@each_problem
def test_loss_is_the_mean_over_the_sampled_blocks(x64, name):
    problem = COUPLED[name]
    batch = problem.sample(key(3))
    x = jnp.linspace(-1, 1, len(problem.optimum))
    indices, block_batch = problem.blocks(batch)
    rows = [jax.tree.map(lambda leaf, i=i: leaf[i], block_batch) for i in range(len(indices))]
    expected = np.mean([problem.outer(problem.inner(x, row), x, row) for row in rows])
    np.testing.assert_allclose(problem.loss(x, batch), expected, rtol=1e-12)


@each_problem
def test_metrics_and_gradient_are_those_of_the_objective(x64, name):
    problem = COUPLED[name]
    function, rng = objectives(problem)[0], np.random.default_rng(0)
    for _ in range(3):
        x = rng.standard_normal(len(problem.optimum))
        metrics = problem.metrics(jnp.asarray(x))
        gap = function(x) - function(problem.optimum)
        np.testing.assert_allclose(metrics["gap"], gap, rtol=1e-9)
        distance = np.sum((x - problem.optimum) ** 2)
        np.testing.assert_allclose(metrics["squared_distance"], distance, rtol=1e-12)
        slope = scipy.optimize.approx_fprime(x, lambda x: float(function(x)), 1e-6)
        found = problem.exact["gradient"](jnp.asarray(x))
        np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-5)


@each_problem
def test_optimum_and_limit_of_the_naive_gradient(x64, name):
    problem = COUPLED[name]
    size = len(problem.optimum)
    exact, naive = objectives(problem)
    np.testing.assert_allclose(minimize(exact, size), problem.optimum, rtol=1e-6, atol=1e-8)
    settled = minimize(naive, size)
    (level,) = problem.levels.values()
    np.testing.assert_allclose(problem.metrics(jnp.asarray(settled))["gap"], level, rtol=1e-6)
    assert level > 1e-2, "the bias is worth a line"
    # Monte Carlo, as a check of the quadrature: the mean naive gradient vanishes there, and not at
    # the optimum.
    keys = jax.random.split(key(1), 10_000)
    slopes = jax.jit(
        jax.vmap(lambda x, k: jax.grad(problem.loss)(x, problem.sample(k)), in_axes=(None, 0))
    )
    deviations = []
    for point in (settled, problem.optimum):
        drawn = slopes(jnp.asarray(point), keys)
        deviations.append(np.abs(drawn.mean(0)) / drawn.std(0) * np.sqrt(len(keys)))
    assert np.all(deviations[0] < 5)
    assert np.any(deviations[1] > 8)


def test_without_row_noise_the_naive_gradient_is_unbiased():
    (level,) = coupled_least_squares(row_noise=0.0).levels.values()
    assert level == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize(
    "options",
    [
        *[{name: 0} for name in ("num_blocks", "num_sampled", "dimension")],
        *[{name: -1} for name in ("row_noise", "value_noise")],
        {"num_sampled": 51},
        {"num_blocks": 5},
    ],
)
def test_bad_arguments_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must "):
        coupled_least_squares(**options)
