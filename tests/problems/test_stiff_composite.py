"""The stiff composite problem: its parts, their constants, its solution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stochopt.problems import stiff_composite

PROBLEM = stiff_composite(dimension=9, condition=20, stiffness=30, seed=3)
NOTHING = np.zeros(9)


@functools.cache
def hessian(oracle):
    return np.asarray(jax.hessian(lambda x: oracle(x, NOTHING))(jnp.zeros(9)))


def test_constants_are_attained(x64):
    for oracle, constant in (
        (PROBLEM.smooth, PROBLEM.smoothness),
        (PROBLEM.cheap, PROBLEM.cheap_smoothness),
    ):
        spectrum = np.linalg.eigvalsh(hessian(oracle))
        np.testing.assert_allclose(spectrum[-1], constant, rtol=1e-9)
        assert spectrum[0] > -1e-9
    # The strong convexity is that of the rest alone; the stiff part leaves half of the directions.
    rest = hessian(PROBLEM.loss) - hessian(PROBLEM.smooth) - hessian(PROBLEM.cheap)
    np.testing.assert_allclose(rest, PROBLEM.strong_convexity * np.eye(9), atol=1e-12)
    assert np.sum(np.linalg.eigvalsh(hessian(PROBLEM.cheap)) < 1e-9) == 4


def test_prox_is_that_of_the_rest(x64):
    x, mu = jnp.linspace(-1, 1, 9), PROBLEM.strong_convexity
    for step in (0.1, 3.0):
        point = PROBLEM.prox(x, step)
        np.testing.assert_allclose(point + step * mu * point, x, rtol=1e-12)


def test_the_parts_share_no_eigenvectors():
    smooth, cheap = hessian(PROBLEM.smooth), hessian(PROBLEM.cheap)
    assert np.linalg.norm(smooth @ cheap - cheap @ smooth) > 1


def test_gap_is_the_excess_of_the_loss(x64):
    x = np.random.default_rng(0).standard_normal((20, 9))
    best = PROBLEM.loss(PROBLEM.optimum, NOTHING)
    excess = jax.vmap(lambda x: PROBLEM.loss(x, NOTHING) - best)
    gap = jax.vmap(lambda x: PROBLEM.metrics(x)["gap"])
    np.testing.assert_allclose(gap(x), excess(x), rtol=1e-10)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("dimension", 0), ("condition", 0.5), ("stiffness", 0), ("stiffness", -1), ("noise", -1)],
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must "):
        stiff_composite(**{argument: value})
