"""The absolute loss on a stream: its expectation, the solution, constants of each part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from stochopt.problems import streaming_absolute_loss

key = jax.random.key
# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
PROBLEM = streaming_absolute_loss(8, condition=20, weight=0.4, spread=0.3, seed=3)
MANY = streaming_absolute_loss(8, condition=20, weight=0.4, spread=0.3, batch_size=400_000, seed=3)
POINTS = np.random.default_rng(0).standard_normal((3, 8))


def simple(x):
    return PROBLEM.strong_convexity / 2 * jnp.sum(x**2)


def test_gap_is_the_excess_of_the_mean_loss(x64):
    """The expectation by Monte Carlo, the same draws in both points."""
    batch = jax.jit(MANY.sample)(key(0))
    value = jax.jit(lambda x: MANY.loss(x, batch))
    least = value(jnp.asarray(PROBLEM.optimum))
    for x in map(jnp.asarray, POINTS):
        np.testing.assert_allclose(PROBLEM.metrics(x)["gap"], value(x) - least, rtol=0.01)


def test_gap_keeps_its_digits_near_the_solution(x64):
    """It is quadratic there; the difference of two values would be zero in rounding."""
    x = jnp.asarray(PROBLEM.optimum)
    direction = jnp.asarray(POINTS[0])
    gaps = [PROBLEM.metrics(x + t * direction)["gap"] for t in (1e-6, 2e-6)]
    np.testing.assert_allclose(gaps[1] / gaps[0], 4, rtol=1e-5)
    curved = jax.jvp(PROBLEM.exact["subgradient"], (x,), (direction,))[1]
    np.testing.assert_allclose(gaps[0], 1e-12 / 2 * direction @ curved, rtol=1e-5)


def test_optimum_by_a_general_solver(x64):
    gap = jax.jit(jax.value_and_grad(lambda x: PROBLEM.metrics(x)["gap"]))
    start = np.zeros(8)
    found = scipy.optimize.minimize(gap, start, jac=True, method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(found.x, PROBLEM.optimum, atol=1e-7)
    slope = PROBLEM.exact["subgradient"](jnp.asarray(PROBLEM.optimum))
    assert np.linalg.norm(slope) < 1e-14


def test_loss_is_the_sum_of_its_parts(x64):
    """The part with the proximal operator is what remains, and alone holds the modulus."""
    x, batch = jnp.asarray(POINTS[0]), PROBLEM.sample(key(0))
    rest = lambda x: PROBLEM.loss(x, batch) - PROBLEM.smooth(x, batch) - PROBLEM.nonsmooth(x, batch)
    np.testing.assert_allclose(rest(x), simple(x))
    for step in (0.1, 3.0):
        point = PROBLEM.prox(x, step)
        np.testing.assert_allclose(point + step * jax.grad(simple)(point), x, rtol=1e-12)
    hessian = jax.hessian(PROBLEM.smooth)(x, batch)
    np.testing.assert_allclose(np.linalg.norm(hessian, 2), PROBLEM.smoothness)


def test_subgradient_bound_is_twice_the_lipschitz_constant(x64):
    """Approached far away on opposite sides, where the expectation is a cone."""
    nonsmooth = lambda x: (
        PROBLEM.exact["subgradient"](x) - jax.grad(PROBLEM.smooth)(x, None) - jax.grad(simple)(x)
    )
    far = 1e4 * jnp.asarray(POINTS[1])
    spread = jnp.linalg.norm(nonsmooth(far) - nonsmooth(-far))
    np.testing.assert_allclose(spread, PROBLEM.subgradient_bound, rtol=1e-3)


def test_a_batch_averages_its_examples(x64):
    """Noise falls with the root of the batch size."""
    averaged = streaming_absolute_loss(
        8, condition=20, weight=0.4, spread=0.3, batch_size=25, seed=3
    )
    x = jnp.asarray(PROBLEM.optimum)
    draw = lambda k: jax.grad(averaged.nonsmooth)(x, averaged.sample(k))
    slopes = jax.jit(jax.vmap(draw))(jax.random.split(key(0), 2000))
    found = np.sqrt(np.sum(np.var(np.asarray(slopes), axis=0)))
    np.testing.assert_allclose(averaged.noise, PROBLEM.noise / 5)
    # The square of the mean slope is at most 2 / (8 pi) of it, in squares.
    assert 0.94 * averaged.noise < found < 1.02 * averaged.noise


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("dimension", 0),
        ("condition", 0.5),
        ("weight", 0),
        ("spread", 0),
        ("batch_size", 0),
    ],
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must "):
        streaming_absolute_loss(**{argument: value})
