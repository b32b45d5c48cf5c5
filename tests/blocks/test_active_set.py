"""Active sets: identification within its bound, then Newton's method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import trajectory

from stochopt import blocks

D, WEIGHT, MARGIN, KAPPA = 12, 0.2, 0.05, 20.0
RNG = np.random.default_rng(0)
BASIS = np.linalg.qr(RNG.standard_normal((D, D)))[0]
SPECTRUM = np.geomspace(1 / KAPPA, 1.0, D)
HESSIAN = (BASIS * SPECTRUM) @ BASIS.T
SOLUTION = np.where(np.arange(D) < 4, RNG.standard_normal(D), 0.0)
# Zeros with derivatives inside by at least the margin, on the rest at the ends.
SUBGRADIENT = np.where(
    SOLUTION != 0,
    WEIGHT * np.sign(SOLUTION),
    (WEIGHT - MARGIN) * np.linspace(-1, 1, D),
)
RHS = HESSIAN @ SOLUTION + SUBGRADIENT
START = 3 * RNG.standard_normal(D)


def quadratic(x, batch=None):
    return x @ (jnp.asarray(HESSIAN) @ x) / 2 - x @ jnp.asarray(RHS)


def soft(v, threshold):
    return np.sign(v) * np.maximum(np.abs(v) - threshold, 0)


def test_the_support_is_found_within_the_bound_and_then_one_newton_step_is_the_end(x64):
    alone = [START]  # proximal gradient steps in NumPy
    for _ in range(300):
        alone.append(soft(alone[-1] - HESSIAN @ alone[-1] + RHS, WEIGHT))
    alone = np.array(alone)
    distance = np.linalg.norm(START - SOLUTION)
    bound = float(blocks.identification_bound(KAPPA, 1.0, distance, MARGIN))
    assert 5 < bound < 200
    right = np.all((alone != 0) == (SOLUTION != 0), axis=1)
    assert np.all(right[int(np.ceil(bound)) + 1 :])
    assert not right[0]

    optimizer = blocks.active_set_newton(quadratic, WEIGHT, 1.0)
    points, states = trajectory(optimizer, START, 150)
    points = np.concatenate([START[None], points])
    newton = np.concatenate([[0], states.num_newton_steps])
    before = newton == 0
    np.testing.assert_allclose(points[before], alone[:151][before], atol=1e-12)
    identified = 1 + np.flatnonzero(np.any(np.sign(points) != np.sign(SOLUTION), axis=1))[-1]
    errors = np.linalg.norm(points - SOLUTION, axis=1)
    solved = np.argmax(errors < 1e-12)
    print(f"bound {bound:.0f}, signs from step {identified}, 1e-12 from {solved}")
    assert identified <= np.ceil(bound) + 1
    # Five that stand, of which the last is Newton's.
    assert solved <= identified + 5
    assert np.all(errors[solved:] < 1e-12)
    assert np.linalg.norm(alone[solved] - SOLUTION) > 1e-2, "proximal steps are not at the end"
    objective = np.sum(points @ HESSIAN * points, axis=1) / 2 - points @ RHS
    assert np.all(np.diff(objective + WEIGHT * np.abs(points).sum(1)) <= 1e-14)
    assert states.num_descent_violations[-1] == 0
    np.testing.assert_array_equal(points[-1] == 0, SOLUTION == 0)


N = 60
DATA = RNG.standard_normal((N, D))
LABELS = np.sign(DATA @ np.where(np.arange(D) < 3, 2.0, 0.0) + RNG.standard_normal(N))
PENALTY = 0.05


def logistic(params, batch=None):
    x = jnp.concatenate([params["w"].ravel(), params["b"]])
    return jnp.mean(jax.nn.softplus(-jnp.asarray(LABELS) * (jnp.asarray(DATA) @ x)))


def slope_of(x):
    return -DATA.T @ (LABELS / (1 + np.exp(LABELS * (DATA @ x)))) / N


def residual(x):
    slope = slope_of(x)
    at_zero = np.maximum(np.abs(slope) - PENALTY, 0)
    return np.abs(np.where(x == 0, at_zero, slope + PENALTY * np.sign(x))).max()


def test_newton_converges_superlinearly_on_a_logistic_lasso(x64):
    smoothness = float(np.linalg.eigvalsh(DATA.T @ DATA)[-1] / (4 * N))
    start = {"w": jnp.zeros((2, 5)), "b": jnp.zeros(2)}
    optimizer = blocks.active_set_newton(logistic, PENALTY, smoothness)
    points, states = trajectory(optimizer, start, 120)
    flat = np.concatenate([np.asarray(points["w"]).reshape(120, -1), points["b"]], axis=1)
    residuals = np.array([residual(x) for x in flat])
    newton = np.asarray(states.num_newton_steps)
    first = int(np.argmax(newton > 0))
    print("residuals from Newton's first step on:", residuals[first - 1 : first + 5])
    assert 0 < np.count_nonzero(flat[-1]) < D
    # Quadratically: from the last wrong support on, five of them are enough.
    wrong = np.flatnonzero(np.any(np.sign(flat) != np.sign(flat[-1]), axis=1))
    assert np.all(residuals[wrong[-1] + 11 :] < 1e-12)
    assert newton[-1] >= 5
    assert states.num_descent_violations[-1] == 0
    slow = np.zeros(D)
    for _ in range(1 + np.argmax(residuals < 1e-12)):
        slow = soft(slow - slope_of(slow) / smoothness, PENALTY / smoothness)
    assert residual(slow) > 1e-6, "proximal steps alone"


def test_a_support_that_stood_but_is_wrong_is_left_again(x64):
    """Small steps stand for long at zero before the sign changes."""
    loss = lambda x, batch: jnp.sum(jnp.array([1.0, 0.02]) * jnp.square(x - 1.0)) / 2
    slow = blocks.active_set_newton(loss, 0.01, 50.0, num_steady=2)
    start = jnp.array([0.0, -0.5])  # the second sign is wrong
    points, states = trajectory(slow, start, 6000)
    signs = np.sign(points)
    assert np.all(signs[:20, 1] == -1)
    np.testing.assert_allclose(points[-1], [0.99, 0.5], atol=1e-12)
    assert states.num_newton_steps[-1] > 0


def test_newton_steps_that_rise_are_not_taken(x64):
    """Of the root of 1 + x^2 they lead from 1.5 to -3.4 and further away, with the same signs."""
    function = lambda x: np.sqrt(1 + (x - 10) ** 2) + 0.01 * np.abs(x)
    loss = lambda x, batch: jnp.sum(jnp.sqrt(1 + jnp.square(x - 10)))
    optimizer = blocks.active_set_newton(loss, 0.01, 1.0, num_steady=1)
    points, states = trajectory(optimizer, jnp.array([11.5]), 40)
    assert np.all(np.diff(function(np.append(11.5, points))) <= 1e-14)
    np.testing.assert_allclose(points[-1], 10 - 0.01 / np.sqrt(1 - 0.01**2), rtol=1e-12)
    assert 0 < states.num_newton_steps[-1] < 40


def test_constants_too_small_are_counted_and_singular_hessians_do_no_harm(x64):
    small = blocks.active_set_newton(quadratic, WEIGHT, 0.1)
    _, states = trajectory(small, START, 5)
    assert states.num_descent_violations[-1] >= 4
    flat = lambda x, batch: (jnp.sum(x) - 3) ** 2 / 2  # any split of a sum of 2.9
    optimizer = blocks.active_set_newton(flat, 0.1, 3.0, num_steady=1)
    points, _ = trajectory(optimizer, jnp.array([1.0, 0.5, 0.2]), 100)
    values = np.array([flat(x, None) for x in np.asarray(points)])
    assert np.all(np.diff(values + 0.1 * np.abs(points).sum(1)) <= 1e-14)
    np.testing.assert_allclose(np.sum(points[-1]), 2.9, atol=1e-12)


def test_narrow_params_keep_their_dtype(strict):
    dtype = jnp.bfloat16
    center = jnp.array([1.0, 0.1, -2.0])
    loss = lambda x, batch: jnp.sum(jnp.square(x.astype(jnp.float32) - center)) / 2
    optimizer = blocks.active_set_newton(loss, 0.5, 2.0, num_steady=2)
    starts = jnp.ones((2, 3), dtype)
    points, states = jax.vmap(lambda x: trajectory(optimizer, x, 20))(starts)
    assert points.dtype == dtype
    np.testing.assert_allclose(points[0, -1].astype(jnp.float32), [0.5, 0.0, -1.5], atol=1e-2)
    assert np.all(points[:, -1, 1] == 0)
    assert states.num_newton_steps[0, -1] > 0


def test_bad_arguments():
    loss = lambda x, batch: jnp.sum(x)
    with pytest.raises(ValueError, match="weight must lie in"):
        blocks.active_set_newton(loss, -1.0, 1.0)
    with pytest.raises(ValueError, match="smoothness must lie in"):
        blocks.active_set_newton(loss, 1.0, 0.0)
    with pytest.raises(ValueError, match="num_steady must be a whole number"):
        blocks.active_set_newton(loss, 1.0, 1.0, num_steady=0)
    with pytest.raises(TypeError, match="loss must be a function"):
        blocks.active_set_newton(lambda x: x, 1.0, 1.0)
    optimizer = blocks.active_set_newton(lambda x, batch: x, 1.0, 1.0)
    with pytest.raises(ValueError, match="params must be real"):
        optimizer.init(jnp.ones(2, jnp.complex64))
    with pytest.raises(ValueError, match="loss must return a scalar"):
        optimizer.update(None, optimizer.init(jnp.ones(2)), jnp.ones(2))
    with pytest.raises(ValueError, match="params are missing"):
        optimizer.update(None, optimizer.init(jnp.ones(2)))
