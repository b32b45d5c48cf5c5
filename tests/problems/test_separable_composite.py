"""The separable composite problem: closed form, constants of each part, the loss as their sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from stochopt.problems import noisy_quadratic, separable_composite

key = jax.random.key
# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
PROBLEM = separable_composite(dimension=12, condition=20, weight=0.2, noise=0.7, seed=3)
NO_NOISE = np.zeros(12)


def test_optimum_by_scalar_minimization_of_each_coordinate(x64):
    """Perturbing one coordinate alone changes the loss by a convex function of one variable."""
    loss = jax.jit(PROBLEM.loss)
    for i in range(12):
        along = lambda t, i=i: float(loss(jnp.asarray(PROBLEM.optimum).at[i].set(t), NO_NOISE))
        found = scipy.optimize.minimize_scalar(along, bracket=(-3, 3), options={"xtol": 1e-10})
        np.testing.assert_allclose(found.x, PROBLEM.optimum[i], atol=2e-7)


def test_some_coordinates_are_at_a_kink_and_some_are_not(x64):
    """Otherwise the problem is smooth at its solution and proves nothing."""
    for problem in (PROBLEM, separable_composite()):
        slope = jax.grad(problem.nonsmooth)
        moved = [slope(problem.optimum + d, 0 * problem.optimum) for d in (-1e-3, 1e-3)]
        at_kink = np.asarray(moved[0] != moved[1])
        assert 0 < at_kink.sum() < at_kink.size


def test_without_its_simple_part_the_loss_lacks_the_ridge(x64):
    """Catches a gradient that contains what the proximal operator adds."""
    x, batch = jnp.linspace(-1, 2, 12), PROBLEM.sample(key(0))
    ridge = PROBLEM.loss(x, batch) - PROBLEM.unregularized(x, batch)
    np.testing.assert_allclose(ridge, jnp.vdot(x, x) / 2 / 20)
    near = PROBLEM.prox(x, 1.0)
    np.testing.assert_allclose(near, x - near / 20)
    plain = noisy_quadratic()
    assert plain.unregularized is plain.loss


def test_gap_is_the_excess_of_the_noiseless_loss(x64):
    x = np.random.default_rng(0).standard_normal((20, 12))
    excess = jax.vmap(lambda x: PROBLEM.loss(x, NO_NOISE) - PROBLEM.loss(PROBLEM.optimum, NO_NOISE))
    gap = jax.vmap(lambda x: PROBLEM.metrics(x)["gap"])
    np.testing.assert_allclose(gap(x), excess(x), rtol=1e-12)


def test_loss_is_the_sum_of_its_parts(x64):
    """The part that has the proximal operator is what remains, and is minus its slope there."""
    x, batch = jnp.linspace(-1, 1, 12), PROBLEM.sample(key(0))
    rest = lambda x: PROBLEM.loss(x, batch) - PROBLEM.smooth(x, batch) - PROBLEM.nonsmooth(x, batch)
    for step in (0.1, 3.0):
        point = PROBLEM.prox(x, step)
        np.testing.assert_allclose(point + step * jax.grad(rest)(point), x, rtol=1e-12)
    # The strong convexity is that of this part alone.
    np.testing.assert_allclose(jax.hessian(rest)(x), PROBLEM.strong_convexity * np.eye(12))


def test_smoothness_is_that_of_the_smooth_part(x64):
    hessian = jax.hessian(PROBLEM.smooth)(jnp.zeros(12), NO_NOISE)
    np.testing.assert_allclose(np.linalg.norm(hessian, 2), PROBLEM.smoothness)


def test_subgradient_bound_is_attained_and_twice_the_lipschitz_constant(x64):
    slope = lambda x: jax.grad(PROBLEM.nonsmooth)(x, NO_NOISE)
    far = 1e3 * jnp.ones(12)
    np.testing.assert_allclose(
        jnp.linalg.norm(slope(far) - slope(-far)), PROBLEM.subgradient_bound, rtol=1e-12
    )
    np.testing.assert_allclose(jnp.linalg.norm(slope(far)), PROBLEM.subgradient_bound / 2)


def test_the_nonsmooth_part_is_that_of_the_operator_and_the_dual_map(x64):
    for x in np.random.default_rng(1).standard_normal((5, 12)):
        values = PROBLEM.operator(jnp.asarray(x))
        np.testing.assert_allclose(PROBLEM.dual.value(values), PROBLEM.nonsmooth(x, NO_NOISE))
    matrix = jax.jacobian(PROBLEM.operator)(jnp.zeros(12))
    np.testing.assert_allclose(np.linalg.norm(matrix, 2), PROBLEM.operator_norm)


def test_noise_of_the_subgradient(x64):
    draws = jax.vmap(PROBLEM.sample)(jax.random.split(key(0), 4000))
    slopes = jax.vmap(jax.grad(PROBLEM.nonsmooth), in_axes=(None, 0))(jnp.ones(12), draws)
    errors = slopes - jax.grad(PROBLEM.nonsmooth)(jnp.ones(12), NO_NOISE)
    np.testing.assert_allclose(np.mean(np.sum(errors**2, 1)), PROBLEM.noise**2, rtol=0.05)
    assert np.linalg.norm(errors.mean(0)) < 3 * PROBLEM.noise / np.sqrt(4000)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("dimension", 0), ("condition", 0.5), ("weight", 0), ("weight", -1), ("noise", -1)],
)
def test_bad_arguments_are_named(argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must "):
        separable_composite(**{argument: value})
