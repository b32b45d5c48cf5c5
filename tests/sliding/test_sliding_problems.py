"""Sliding on small problems with a reference of another kind: formula, exact operator, solver."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from stochopt import proximal, sliding

pytestmark = pytest.mark.usefixtures("x64")


def run(optimizer, gradient, start, num_steps, key=None):
    """Averaged points and subgradients so far, after each step."""
    key = jax.random.key(0) if key is None else key

    def step(carry, k):
        x, state = carry
        updates, state = optimizer.update(gradient(x), state, x, key=jax.random.fold_in(key, k))
        return (optax.apply_updates(x, updates), state), (
            state.averaged_point,
            state.num_subgradients,
        )

    start = jnp.asarray(start)
    return jax.lax.scan(step, (start, optimizer.init(start)), jnp.arange(num_steps))[1]


def slope(x, y):
    return np.polyfit(x, y, 1)[0]


# No nonsmooth part: the solution is a soft threshold.

TARGET, WEIGHT, MU = np.array([3.0, -2.0, 0.3, -0.1]), 0.5, 0.1
SHRUNK = np.sign(TARGET) * np.maximum(np.abs(TARGET) - WEIGHT, 0) / (1 + MU)
TINY = 1e-6  # bound of subgradients that are zero
POLICIES = {
    "fixed_horizon": sliding.fixed_horizon(1.0, TINY, 200, 4.0),
    "fixed_horizon, stochastic": sliding.fixed_horizon(1.0, TINY, 200, 4.0, noise=TINY),
    "any_time": sliding.any_time(1.0, TINY, 20.0),
    "multi_phase": sliding.multi_phase(1.0, MU, TINY, 5.0),
    "restart_free": sliding.restart_free(1.0, MU, TINY, 5.0),
    "restart_free_minibatch": sliding.restart_free_minibatch(1.0, MU, TINY, 5.0, TINY),
    "restart_free_from_distance": sliding.restart_free_from_distance(1.0, MU, TINY, 4.0),
}


@pytest.mark.parametrize("name", POLICIES)
def test_soft_threshold_is_the_fixed_point_and_the_limit(name):
    simple = proximal.plus_ridge(proximal.l1(WEIGHT), MU)
    box = lambda v, step: jnp.clip(simple(v, step), -10.0, 10.0)
    optimizer = sliding.slide(
        POLICIES[name], lambda x, batch: 0 * x, geometry=sliding.euclidean(box)
    )
    both = jax.jit(
        jax.vmap(lambda start: run(optimizer, lambda x: x - TARGET, start, 200)[0][:, None])
    )
    stays, arrives = np.squeeze(both(jnp.stack([SHRUNK, np.zeros(4)])), 2)
    np.testing.assert_allclose(stays, np.tile(SHRUNK, (200, 1)), atol=1e-12)
    assert np.abs(arrives[0] - SHRUNK).max() > 0.1
    np.testing.assert_allclose(arrives[-1], SHRUNK, atol=2e-3)


# Fused lasso: the exact operator of the total variation solves it, by accelerated descent.

SIZE, RIDGE, FUSED = 40, 0.02, 0.05
BASIS = np.linalg.qr(np.random.default_rng(0).standard_normal((SIZE, SIZE)))[0]
CURVATURE = (BASIS * np.geomspace(1e-3, 1, SIZE)) @ BASIS.T
STEPS = np.repeat([1.0, -1.0, 2.0, 0.0], SIZE // 4)
SIGNAL = STEPS + 0.3 * np.random.default_rng(1).standard_normal(SIZE)
FUSED_BOUND = 2 * FUSED * np.sqrt(4 * (SIZE - 2) + 2)  # twice the norm of D' times signs


def fused_gradient(x):
    return CURVATURE @ (x - SIGNAL)


def variation(x, batch=None):
    return FUSED * jnp.sum(jnp.abs(jnp.diff(x)))


def fused_objective(x):
    return (x - SIGNAL) @ fused_gradient(x) / 2 + variation(x) + RIDGE / 2 * jnp.sum(x**2)


@functools.cache
def least_fused_objective():
    operator = proximal.plus_ridge(proximal.total_variation(FUSED), RIDGE)
    momentum = (1 - np.sqrt(RIDGE)) / (1 + np.sqrt(RIDGE))

    @jax.jit
    def accelerated():
        def step(_, carry):
            x, old = carry
            y = x + momentum * (x - old)
            return operator(y - fused_gradient(y), 1.0), x

        return jax.lax.fori_loop(0, 400, step, (jnp.zeros(SIZE),) * 2)

    x, before = accelerated()
    np.testing.assert_allclose(x, before, atol=1e-12)
    return float(fused_objective(x))


def fused_gaps(policy, num_steps, least):
    optimizer = sliding.slide(
        policy, jax.grad(variation), geometry=sliding.euclidean(proximal.ridge(RIDGE))
    )
    points, counts = run(optimizer, fused_gradient, np.zeros(SIZE), num_steps)
    return jax.vmap(fused_objective)(points) - least, counts


def test_restart_free_sliding_on_the_fused_lasso():
    """Linear in smooth gradients at the rate of the budget, and inverse to subgradients."""
    policy = sliding.restart_free(1.0, RIDGE, FUSED_BOUND, 30.0)
    gaps, counts = map(
        np.asarray, jax.jit(lambda least: fused_gaps(policy, 240, least))(least_fused_objective())
    )
    assert np.all(gaps > 0), "the operator leads to the minimizer"
    assert np.all(gaps <= jax.vmap(policy.bound)(jnp.arange(1.0, 241)))
    rate = np.log(1 - np.sqrt(RIDGE) / 4)
    assert abs(slope(np.arange(120, 240), np.log(gaps[120:])) / rate - 1) < 0.1
    assert abs(slope(np.log(counts[180:]), np.log(gaps[180:])) + 1) < 0.1


def test_gradient_sliding_on_the_fused_lasso():
    """Inverse to the square of the horizon."""
    distance = float(np.linalg.norm(SIGNAL))
    horizons = np.array([10, 20, 40])

    @jax.jit
    def last_gap(horizon, least):
        policy = sliding.fixed_horizon(1.0, FUSED_BOUND, horizon, distance)
        return fused_gaps(policy, 40, least)[0][horizon - 1], policy.bound(horizon)

    least = least_fused_objective()
    gaps, bounds = np.array([last_gap(horizon, least) for horizon in horizons]).T
    assert np.all((gaps > 0) & (gaps <= bounds))
    assert abs(slope(np.log(horizons), np.log(gaps)) + 2) < 0.25


# Least squares, a mean hinge seen one example at a time, and a ridge: a quadratic program.


def hinge_problem():
    rng = np.random.default_rng(0)
    rows, examples = rng.standard_normal((2, 30, 5))
    response = rows @ rng.standard_normal(5) + rng.standard_normal(30)
    examples *= np.sign(examples @ np.ones(5) + rng.standard_normal(30))[:, None]
    return rows, response, examples


def test_stochastic_subgradients_of_a_hinge():
    """The bound holds in the mean, and the limit is that of a general solver."""
    rows, response, examples = hinge_problem()
    scale, ridge = np.linalg.norm(rows, 2) ** 2 / 30, 0.1
    smooth = lambda x: np.sum((rows @ x - response) ** 2) / 60 / scale
    # A bound for each hinge as an unknown of its own.
    program = scipy.optimize.minimize(
        lambda z: smooth(z[:5]) + np.mean(z[5:]) + ridge / 2 * np.sum(z[:5] ** 2),
        np.concatenate([np.zeros(5), np.ones(30)]),
        bounds=[(None, None)] * 5 + [(0, None)] * 30,
        constraints={"type": "ineq", "fun": lambda z: z[5:] - 1 + examples @ z[:5]},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert program.success
    lengths = np.linalg.norm(examples, axis=1)
    largest = float(np.sqrt(np.mean(lengths**2)))  # bounds both the noise and the mean
    initial_gap = smooth(np.zeros(5)) + 1 - program.fun
    policy = sliding.restart_free(1.0, ridge, 2 * largest, initial_gap, noise=largest)
    hinge = lambda x, example: jax.nn.relu(1 - example @ x)
    optimizer = sliding.slide(
        policy,
        jax.grad(hinge),
        sample=lambda key: jnp.asarray(examples)[jax.random.randint(key, (), 0, 30)],
        geometry=sliding.euclidean(proximal.ridge(ridge)),
    )

    def gaps(key):
        gradient = lambda x: rows.T @ (rows @ x - response) / 30 / scale
        points = run(optimizer, gradient, np.zeros(5), 30, key)[0]
        value = lambda x: (
            jnp.sum((rows @ x - response) ** 2) / 60 / scale
            + jnp.mean(jax.nn.relu(1 - examples @ x))
            + ridge / 2 * jnp.sum(x**2)
        )
        return jax.vmap(value)(points) - program.fun

    found = np.asarray(jax.jit(jax.vmap(gaps))(jax.random.split(jax.random.key(0), 4)))
    bounds = np.asarray(jax.vmap(policy.bound)(jnp.arange(1.0, 31)))
    assert found.min() > -1e-6
    assert np.all(found.mean(0) <= bounds)
    assert found.mean(0)[-1] < found.mean(0)[0] / 5
