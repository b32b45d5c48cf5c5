"""Quadratics from samples of rank one: closed forms against the oracles, spectra, minibatches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stochopt.problems import bilevel_rank_one

SIZES = {"num_samples": 600, "dimension": 3, "lower_dimension": 5, "batch_size": 4}
PROBLEM = bilevel_rank_one(**SIZES)  # for double precision only
BATCHES = 150


def levels(problem):
    """The mean upper and lower functions, over all minibatches."""
    every = jnp.arange(BATCHES, dtype=jnp.int32)
    beyond = jnp.int32(10**6)  # of the other level: it must not be read
    upper = lambda x, y: jnp.mean(jax.vmap(lambda j: problem.upper(x, y, (beyond, j)))(every))
    lower = lambda x, y: jnp.mean(jax.vmap(lambda i: problem.lower(x, y, (i, beyond)))(every))
    return upper, lower


def some_point(seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal(3)), jnp.asarray(rng.standard_normal(5))


def test_closed_forms_by_dense_algebra_on_the_oracles(x64):
    upper, lower = levels(PROBLEM)
    x, anywhere = some_point()
    hessian, cross = jax.jit(jax.jacobian(jax.grad(lower, 1), (1, 0)))(x, anywhere)
    y = anywhere - np.linalg.solve(hessian, jax.grad(lower, 1)(x, anywhere))
    # The samples of the oracles are kept in single precision.
    np.testing.assert_allclose(PROBLEM.exact["lower"](x), y, atol=1e-6)
    direct, slope = jax.grad(upper, (0, 1))(x, y)
    p = np.linalg.solve(hessian, slope)
    np.testing.assert_allclose(PROBLEM.exact["adjoint"](x), p, atol=1e-5)
    gradient = direct - p @ cross
    np.testing.assert_allclose(PROBLEM.exact["gradient"](x), gradient, atol=1e-6)
    assert np.linalg.norm(p @ cross) > 1e-2, "what the lower problem adds is seen"


def test_gap_is_that_of_the_objective(x64):
    upper, _ = levels(PROBLEM)
    objective = lambda x: upper(x, PROBLEM.exact["lower"](x))
    x, _ = some_point(1)
    wanted = objective(x) - objective(jnp.asarray(PROBLEM.optimum))
    np.testing.assert_allclose(PROBLEM.metrics(x)["gap"], wanted, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(objective)(x), PROBLEM.exact["gradient"](x), atol=1e-6)


def test_spectra_are_as_asked_for(x64):
    problem = bilevel_rank_one(20_000, 2, 3, batch_size=20_000, least=0.2, coupling=0.5, seed=1)
    x, y = jnp.ones(2), jnp.ones(3)
    zero = (jnp.int32(0), jnp.int32(0))
    of_lower, of_upper = (
        jax.hessian(oracle, (0, 1))(x, y, zero) for oracle in (problem.lower, problem.upper)
    )
    for hessian in (of_lower, of_upper):
        wanted = [0.2, np.sqrt(0.2), 1]
        np.testing.assert_allclose(np.linalg.eigvalsh(hessian[1][1]), wanted, rtol=0.05)
        singular = np.linalg.svd(hessian[0][1], compute_uv=False)
        np.testing.assert_allclose(singular, [0.5, 0.2], atol=0.03)
    np.testing.assert_allclose(of_lower[0][0], 0)
    np.testing.assert_allclose(np.linalg.eigvalsh(of_upper[0][0]), [0.2, 1], rtol=0.05)


def test_indices_are_of_minibatches_and_independent():
    problem = bilevel_rank_one(600, 1, 1, batch_size=200, least=0.5)
    assert problem.num_samples == 3
    batch = jax.jit(jax.vmap(problem.sample))(jax.random.split(jax.random.key(0), 9000))
    assert problem.sample_indices(batch) is batch
    counts = np.bincount(3 * np.asarray(batch[0]) + np.asarray(batch[1]), minlength=9)
    assert len(counts) == 9
    assert np.all(np.abs(counts - 1000) < 150)


@pytest.mark.parametrize(
    "options",
    [
        *[{name: 0} for name in ("num_samples", "dimension", "lower_dimension", "batch_size")],
        {"num_samples": 601},
        {"least": 0},
        {"least": 2.0},
        {"coupling": 0},
    ],
)
def test_bad_arguments_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must "):
        bilevel_rank_one(**SIZES | options)


def test_an_objective_that_is_not_convex_is_refused():
    with pytest.raises(ValueError, match="not strongly convex"):
        bilevel_rank_one(8, 3, 5, batch_size=4, coupling=3.0)
