"""One lower problem of all blocks: its values and slopes against the form with blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stochopt.problems import bilevel_finite_sum, bilevel_quadratic, noisy_quadratic
from stochopt.problems.stacked import stacked

NUM_BLOCKS, NUM_SAMPLED = 6, 4
OPTIONS = {"num_blocks": NUM_BLOCKS, "num_sampled": NUM_SAMPLED, "noise": 0.5, "seed": 2}
BLOCKS = bilevel_quadratic(**OPTIONS)
TABLE = np.random.default_rng(0).standard_normal((NUM_BLOCKS, 3))
X = np.random.default_rng(1).standard_normal(4)


def by_rows(oracle, batch):
    """Values and slopes in x and in y of each block of a batch, one after the other."""
    slopes = jax.jit(jax.value_and_grad(oracle, argnums=(0, 1)))
    for j, block in enumerate(batch.block):
        row = jax.tree.map(lambda leaf, j=j: leaf[j], batch)
        yield int(block), slopes(jnp.asarray(X), jnp.asarray(TABLE[block]), row)


@pytest.mark.parametrize("level", ["upper", "lower"])
def test_values_and_slopes_are_those_of_the_blocks(x64, level):
    problem = stacked(BLOCKS)
    batch = jax.jit(BLOCKS.sample)(jax.random.key(0))
    # The upper level is a mean, the lower one a sum.
    weight = 1 / NUM_SAMPLED if level == "upper" else 1.0
    value, in_x, in_y = 0.0, np.zeros_like(X), np.zeros_like(TABLE)
    for block, (term, (of_x, of_y)) in by_rows(getattr(BLOCKS, level), batch):
        value += weight * term
        in_x += weight * np.asarray(of_x)
        in_y[block] += weight * np.asarray(of_y)
    oracle = jax.jit(jax.value_and_grad(getattr(problem, level), argnums=(0, 1)))
    got, slopes = oracle(jnp.asarray(X), jnp.asarray(TABLE), batch)
    np.testing.assert_allclose(got, value, rtol=1e-12)
    np.testing.assert_allclose(slopes[0], in_x, rtol=1e-12)
    np.testing.assert_allclose(slopes[1], in_y, rtol=1e-12)
    missing = np.setdiff1d(np.arange(NUM_BLOCKS), batch.block)
    assert len(missing) == NUM_BLOCKS - NUM_SAMPLED
    assert np.all(slopes[1][missing] == 0)


def test_closed_forms_solve_the_stacked_problem(x64):
    # With all blocks and no noise: lower slopes vanish, the adjoint solves the stacked system.
    blocks = bilevel_quadratic(**OPTIONS | {"num_sampled": NUM_BLOCKS, "noise": 0.0})
    problem, x = stacked(blocks), jnp.asarray(X)
    batch = jax.jit(problem.sample)(jax.random.key(1))
    y, p = problem.exact["lower"](x), problem.exact["adjoint"](x)

    @jax.jit
    def slopes(x, y, p):
        lower_slope = jax.grad(problem.lower, 1)
        direct, slope = jax.grad(problem.upper, (0, 1))(x, y, batch)
        product = jax.jvp(lambda y: lower_slope(x, y, batch), (y,), (p,))[1]
        cross = jax.grad(lambda x: jnp.vdot(lower_slope(x, y, batch), p))(x)
        return lower_slope(x, y, batch), product - slope, direct - cross

    stationary, residual, gradient = slopes(x, y, p)
    np.testing.assert_allclose(stationary, 0.0, atol=1e-12)
    np.testing.assert_allclose(residual, 0.0, atol=1e-12)
    np.testing.assert_allclose(gradient, blocks.exact["gradient"](x), rtol=1e-9)
    np.testing.assert_array_equal(problem.exact["gradient"](x), blocks.exact["gradient"](x))


def test_start_and_fields():
    problem = stacked(BLOCKS)
    start = np.tile(BLOCKS.lower_params, (NUM_BLOCKS, 1))
    np.testing.assert_array_equal(problem.lower_params, start)
    assert problem.name == "bilevel-quadratic-stacked"
    assert problem.num_blocks is None
    assert problem.blocks is None
    # The original is left as it was.
    assert BLOCKS.lower_params.shape == (3,)
    np.testing.assert_array_equal(problem.optimum, BLOCKS.optimum)


@pytest.mark.parametrize("make", [bilevel_finite_sum, noisy_quadratic])
def test_a_problem_without_blocks_is_named(make):
    problem = make()
    with pytest.raises(ValueError, match=f"problem '{problem.name}' has no blocks"):
        stacked(problem)


@pytest.mark.usefixtures("strict")
def test_no_silent_promotion():
    # Of its own: JAX keeps the arrays of a problem in one precision.
    problem = stacked(bilevel_quadratic(**OPTIONS))
    batch = jax.jit(problem.sample)(jax.random.key(0))
    y = jnp.asarray(TABLE, jnp.float32)
    for oracle in (problem.upper, problem.lower):
        assert jax.eval_shape(oracle, jnp.asarray(X, jnp.float32), y, batch).dtype == jnp.float32
