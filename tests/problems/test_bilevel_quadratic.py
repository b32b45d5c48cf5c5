"""Quadratics above quadratics: closed forms against the oracles, dense algebra and a solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from stochopt.problems import bilevel_quadratic

key = jax.random.key

OPTIONS = {
    "default": {},
    "other": {
        "num_blocks": 6,
        "num_sampled": 6,
        "dimension": 2,
        "lower_dimension": 5,
        "noise": 0.8,
        "ridge": 0.02,
        "seed": 7,
    },
    "range": {"num_blocks": 8, "lower_curvature": (1.0, 2.0), "seed": 2},
}
# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
QUADRATICS = {name: bilevel_quadratic(**options) for name, options in OPTIONS.items()}
each_problem = pytest.mark.parametrize("name", OPTIONS)


def a_draw(problem, block):
    """What a batch holds of one block."""
    batch = jax.tree.map(lambda x: x[0], problem.sample(key(0)))
    return batch._replace(block=block)


def without_noise(problem, block):
    """The lower oracle is linear in its noise, and so is the slope of the upper one."""
    return jax.tree.map(jnp.zeros_like, a_draw(problem, block))._replace(block=block)


def solved(problem, x):
    """Lower minimizers and adjoints of all blocks, and F with its gradient, from the oracles."""
    origin = jnp.zeros_like(problem.lower_params, jnp.float64)
    minimizers, adjoints, values, gradients = [], [], [], []
    for block in range(problem.num_blocks):
        batch = without_noise(problem, block)
        hessian = jax.hessian(problem.lower, 1)(x, origin, batch)
        y = -np.linalg.solve(hessian, jax.grad(problem.lower, 1)(x, origin, batch))
        value, (direct, slope) = jax.value_and_grad(problem.upper, (0, 1))(x, y, batch)
        cross = jax.jacobian(jax.grad(problem.lower, 1), 0)(x, y, batch)
        p = np.linalg.solve(hessian, slope)
        minimizers.append(y)
        adjoints.append(p)
        values.append(value)
        gradients.append(direct - p @ cross)
    return np.array(minimizers), np.array(adjoints), np.mean(values), np.mean(gradients, 0)


def objective(problem):
    """F, compiled, through the closed form of the minimizers."""
    batches = jax.vmap(lambda i: without_noise(problem, i))(jnp.arange(problem.num_blocks))

    @jax.jit
    def function(x):
        y = problem.exact["lower"](x)
        return jnp.mean(jax.vmap(problem.upper, in_axes=(None, 0, 0))(x, y, batches))

    return function


@each_problem
def test_closed_forms_by_dense_algebra_on_the_oracles(x64, name):
    problem = QUADRATICS[name]
    for seed in range(2):
        x = np.random.default_rng(seed).standard_normal(len(problem.optimum))
        minimizers, adjoints, value, gradient = solved(problem, x)
        np.testing.assert_allclose(problem.exact["lower"](x), minimizers, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(problem.exact["adjoint"](x), adjoints, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(problem.exact["gradient"](x), gradient, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(objective(problem)(x), value, rtol=1e-11)
        gap = value - solved(problem, problem.optimum)[2]
        np.testing.assert_allclose(problem.metrics(jnp.asarray(x))["gap"], gap, rtol=1e-9)


@each_problem
def test_gradient_by_finite_differences(x64, name):
    problem = QUADRATICS[name]
    function, size = objective(problem), len(problem.optimum)
    x = np.random.default_rng(0).standard_normal(size)
    # Exact for a quadratic but for rounding.
    slope = [(function(x + e) - function(x - e)) / 2 for e in np.eye(size)]
    gradient = problem.exact["gradient"](jnp.asarray(x))
    assert np.linalg.norm(gradient) > 0.1
    np.testing.assert_allclose(gradient, slope, rtol=0, atol=1e-8)
    # Without the cross derivative it is another one: it sees the ridge only.
    ridge = OPTIONS[name].get("ridge", 0.1)
    assert np.linalg.norm(ridge * x - slope) > 0.1


@each_problem
def test_optimum_by_a_solver(x64, name):
    problem = QUADRATICS[name]
    function, size = objective(problem), len(problem.optimum)
    slope = jax.jit(jax.grad(function))
    found = scipy.optimize.minimize(
        lambda x: float(function(x)),
        np.ones(size),
        jac=lambda x: np.asarray(slope(x)),
        method="BFGS",
        options={"gtol": 1e-10},
    ).x
    np.testing.assert_allclose(found, problem.optimum, rtol=1e-7, atol=1e-9)
    x = jnp.linspace(-1, 1, size)
    distance = jnp.sum((x - problem.optimum) ** 2)
    np.testing.assert_allclose(problem.metrics(x)["squared_distance"], distance, rtol=1e-12)


@each_problem
def test_slopes_of_the_oracles_are_unbiased_with_the_stated_noise(x64, name):
    problem, draws = QUADRATICS[name], 3000
    x = jnp.linspace(-1, 1, len(problem.optimum))
    y = jnp.linspace(-2, 1, len(problem.lower_params))

    def slopes(batch_i):
        of_lower = jax.grad(problem.lower, argnums=(0, 1))(x, y, batch_i)
        return {"lower": of_lower, "upper": jax.grad(problem.upper, 1)(x, y, batch_i)}

    def draw(k):
        blocks, batch = problem.blocks(problem.sample(k))
        expected = jax.vmap(lambda i: slopes(without_noise(problem, i)))(blocks)
        return jax.tree.map(jnp.subtract, jax.vmap(slopes)(batch), expected)

    errors = jax.jit(jax.vmap(draw))(jax.random.split(key(0), draws))
    errors = jax.tree.map(lambda e: np.asarray(e).reshape(-1, e.shape[-1]), errors)
    noise = OPTIONS[name].get("noise", 0.3)
    # Of (sym E) y: half of the entry's own variance, but all of it on the diagonal.
    of_matrix = (jnp.sum(y**2) + y**2) / 2
    variances = {
        "lower": (jnp.full(x.shape, jnp.sum(y**2)), of_matrix + jnp.sum(x**2) + 1),
        "upper": jnp.ones(y.shape),
    }
    for found, variance in zip(*map(jax.tree.leaves, (errors, variances)), strict=True):
        std = noise * np.sqrt(np.asarray(variance))
        assert np.all(np.abs(found.mean(0)) < 5 * std / np.sqrt(len(found)))
        np.testing.assert_allclose(found.std(0), std, rtol=0.05)


@each_problem
def test_a_batch(name):
    problem, draws = QUADRATICS[name], 4000
    options = {"num_sampled": 5, **OPTIONS[name]}
    batch = jax.jit(jax.vmap(problem.sample))(jax.random.split(key(0), draws))
    blocks = problem.blocks(batch)[0]
    assert blocks.dtype == jnp.int32
    assert blocks.shape == (draws, options["num_sampled"])
    ordered = np.sort(blocks, axis=1)
    assert np.all(ordered[:, 1:] > ordered[:, :-1])
    counts = np.bincount(np.ravel(blocks), minlength=problem.num_blocks)
    share = blocks.shape[1] / problem.num_blocks
    assert len(counts) == problem.num_blocks
    assert np.all(np.abs(counts - draws * share) <= 5 * np.sqrt(draws * share * (1 - share)))


def test_parts_of_a_batch_are_independent():
    problem, draws = QUADRATICS["default"], 4000
    batch = jax.jit(jax.vmap(problem.sample))(jax.random.split(key(1), draws))
    parts = [batch.matrix, batch.coupling, batch.vector, batch.target]
    columns = np.concatenate([np.reshape(part, (draws, -1)) for part in parts], axis=1)
    off_diagonal = np.corrcoef(columns.T) - np.eye(columns.shape[1])
    assert np.abs(off_diagonal).max() < 5.5 / np.sqrt(draws)  # of about 8000 pairs


def test_an_independent_draw_of_the_same_blocks():
    problem = QUADRATICS["default"]
    batch, other = problem.sample(key(0)), problem.sample(key(1))
    joined = other._replace(block=batch.block)
    np.testing.assert_array_equal(problem.blocks(joined)[0], problem.blocks(batch)[0])
    assert not np.array_equal(joined.matrix, batch.matrix)
    assert problem.num_sampled == 5


def test_starting_point():
    assert bilevel_quadratic(start=3.5).init(key(0)).tolist() == [3.5] * 4
    assert bilevel_quadratic().init(key(0)).tolist() == [0] * 4


def test_lower_curvature(x64):
    problem = QUADRATICS["range"]
    x, y = jnp.ones(4), jnp.zeros(3)
    hessian = lambda i: jax.hessian(problem.lower, 1)(x, y, without_noise(problem, i))
    eigenvalues = np.linalg.eigvalsh([hessian(i) for i in range(8)])
    assert 1 <= eigenvalues.min() < 1.2
    assert 1.8 < eigenvalues.max() <= 2


def test_strict_promotion(strict):
    problem = bilevel_quadratic()
    x, y, batch = jnp.ones(4), problem.lower_params, a_draw(problem, jnp.int32(3))
    assert problem.upper(x, y, batch).dtype == problem.lower(x, y, batch).dtype == jnp.float32


@pytest.mark.parametrize(
    "options",
    [
        *[{name: 0} for name in ("num_blocks", "num_sampled", "dimension", "lower_dimension")],
        {"noise": -1},
        {"ridge": 0},
        {"start": float("inf")},
        {"num_sampled": 21},
        {"lower_curvature": (0, 1)},
        {"lower_curvature": (2, 1)},
    ],
)
def test_bad_arguments_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must "):
        bilevel_quadratic(**options)
