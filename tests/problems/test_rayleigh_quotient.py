"""The Rayleigh quotient: its parts, its samples, its least value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stochopt.problems import rayleigh_quotient

PROBLEM = rayleigh_quotient(dimension=7, condition=30, batch_size=20, seed=2)


def test_the_gap_is_the_ratio_minus_the_least_eigenvalue(x64):
    above, below = (jax.jit(PROBLEM.exact[name]) for name in ("numerator", "denominator"))
    matrix = np.asarray(jax.jit(jax.hessian(above))(jnp.zeros(7)))
    eigenvalues = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(eigenvalues, np.geomspace(1 / 30, 1, 7), rtol=1e-12)
    np.testing.assert_allclose(PROBLEM.exact["curvature"](jnp.zeros(7)), np.diag(matrix))
    metrics = jax.jit(PROBLEM.metrics)
    for x in np.random.default_rng(0).standard_normal((10, 7)):
        found = metrics(x)
        np.testing.assert_allclose(found["gap"], above(x) / below(x) - eigenvalues[0], rtol=1e-12)
        cosine = PROBLEM.optimum @ x / np.linalg.norm(x)
        np.testing.assert_allclose(found["squared_sine"], 1 - cosine**2, rtol=1e-10)


def test_the_loss_is_the_ratio_on_average(x64):
    x = np.random.default_rng(1).standard_normal(7)
    draws = jax.jit(jax.vmap(lambda key: PROBLEM.loss(x, PROBLEM.sample(key))))(
        jax.random.split(jax.random.key(0), 4000)
    )
    value = PROBLEM.exact["numerator"](x) / PROBLEM.exact["denominator"](x)
    error = np.std(draws) / np.sqrt(4000)
    assert abs(np.mean(draws) - value) < 4 * error < 0.1 * value


@pytest.mark.parametrize(
    ("argument", "value"),
    [("dimension", 1), ("dimension", 2.5), ("condition", 1), ("batch_size", 0)],
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must "):
        rayleigh_quotient(**{argument: value})
