"""Guarantees and rates of accelerated sliding on problems with known solutions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stochopt import proximal, sliding
from stochopt.problems import separable_composite, stiff_composite

pytestmark = pytest.mark.usefixtures("x64")

SADDLE, STIFF = separable_composite(), stiff_composite()  # both of condition 200
L, MU = 1.0, STIFF.strong_convexity
GAP, NOISE = 7.58, 1.0  # of the start, from above; of the smooth gradient on one sample
DISTANCE = float(np.linalg.norm(STIFF.optimum))
STIFF_GAP = 150.7
RATE = np.log(1 - np.sqrt(MU / L) / 4)


def make(problem, policy, **options):
    if problem is SADDLE:
        slope = sliding.saddle_gradient(problem.operator, problem.dual)
    else:
        slope = lambda x, batch, smoothing: jax.grad(problem.cheap)(x, batch)
    return sliding.slide_accelerated(
        policy, slope, geometry=sliding.euclidean(problem.prox), **options
    )


def run(problem, optimizer, num_steps, dtype=np.float64, noise=lambda k: 0.0):
    """Gaps of the averaged points and cheap gradients so far, after each step."""

    def step(carry, k):
        x, state = carry
        g = jax.grad(problem.smooth)(x, 0 * x) + noise(k)
        updates, state = optimizer.update(g, state, x)
        gap = problem.metrics(state.averaged_point.astype(np.float64))["gap"]
        return (optax.apply_updates(x, updates), state), (gap, state.num_cheap_gradients)

    start = problem.init(None).astype(dtype)
    carry = start, optimizer.init(start)
    (_, state), (gaps, counts) = jax.lax.scan(step, carry, jnp.arange(1.0, num_steps + 1))
    return gaps, counts.astype(np.float64), state.num_truncated


def compiled(*args, **kwargs):
    gaps, counts, truncated = jax.jit(lambda: run(*args, **kwargs))()
    assert truncated == 0
    return np.asarray(gaps), np.asarray(counts)


def bounds(policy, num_steps):
    return np.asarray(jax.vmap(policy.bound)(jnp.arange(1.0, num_steps + 1)))


def slope(x, y):
    return np.polyfit(x, y, 1)[0]


SADDLE_POLICY = sliding.restart_free_smoothed(L, MU, SADDLE.operator_norm, 50.0, GAP)
RUNS = {
    "accelerated": (STIFF, sliding.accelerated(L, 100.0, DISTANCE), 40),
    "accelerated_lan_ouyang": (STIFF, sliding.accelerated_lan_ouyang(L, 100.0, DISTANCE), 60),
    "restart_free_accelerated": (
        STIFF,
        sliding.restart_free_accelerated(L, MU, 100.0, STIFF_GAP),
        100,
    ),
    "restart_free_smoothed": (SADDLE, SADDLE_POLICY, 500),
    "restart_free_smoothed from far": (
        SADDLE,
        sliding.restart_free_smoothed(L, MU, SADDLE.operator_norm, 50.0, 10 * GAP),
        500,
    ),
}


@functools.cache
def run_of(name):
    problem, policy, num_steps = RUNS[name]
    return compiled(problem, make(problem, policy), num_steps)


@pytest.mark.parametrize("name", RUNS)
def test_the_bound_holds_along_the_whole_run(name):
    _, policy, num_steps = RUNS[name]
    gaps, _ = run_of(name)
    limit = bounds(policy, num_steps)
    assert np.all(gaps <= limit)
    assert (gaps / limit).max() > 0.005, "a bound that says something"
    assert gaps[-1] < gaps[0] / 100


def test_the_bound_holds_in_the_mean_of_noisy_smooth_gradients():
    policy = sliding.restart_free_smoothed_minibatch(L, MU, SADDLE.operator_norm, 50.0, GAP, NOISE)
    optimizer = make(SADDLE, policy)

    def one(key):
        def noise(k):
            scale = NOISE / np.sqrt(100) / jnp.sqrt(policy.gradient_batch_size(k))
            return scale * jax.random.normal(jax.random.fold_in(key, k.astype(int)), (100,))

        return run(SADDLE, optimizer, 400, noise=noise)[0]

    gaps = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 4)))
    limit = bounds(policy, 400)
    assert np.all(gaps.mean(0) <= limit)
    assert gaps.mean(0)[-1] < gaps.mean(0)[0] / 100
    batches = jax.vmap(policy.gradient_batch_size)(jnp.arange(1.0, 401))
    assert batches[-1] > 100 * batches[0]


def test_gap_falls_linearly_in_the_smooth_gradients():
    gaps, _ = run_of("restart_free_smoothed")
    assert abs(slope(np.arange(200, 500), np.log(gaps[200:])) / RATE - 1) < 0.02


def test_gap_falls_with_the_square_of_the_operator_applications():
    gaps, counts = run_of("restart_free_smoothed")
    assert abs(slope(np.log(counts[350:]), np.log(gaps[350:])) + 2) < 0.25
    # As many as the recursion in NumPy takes, to the same gap.
    assert counts[-1] == 2721
    np.testing.assert_allclose(gaps[-1], 1.613e-4, rtol=1e-3)


def test_a_constant_smoothing_has_a_floor():
    """The negative control: what falls geometrically is what keeps the gap falling."""
    policy = SADDLE_POLICY
    constant = sliding.AcceleratedPolicy(
        policy.mixing,
        policy.prox_weight,
        lambda k: policy.inner_length(100.0),
        lambda k, t: policy.inner_weight(100.0, t),
        smoothing=lambda k: policy.smoothing(100.0),
    )
    gaps, _ = compiled(SADDLE, make(SADDLE, constant), 500)
    assert slope(np.arange(200, 500), np.log(gaps[200:])) > 0.05 * RATE


def test_linear_rate_does_not_depend_on_the_stiffness():
    """Only the length of the inner loops does."""
    rates = []
    for stiffness, length in ((4.0, 4), (400.0, 40)):
        problem = stiff_composite(stiffness=stiffness)
        policy = sliding.restart_free_accelerated(L, MU, stiffness, 1.0)
        gaps, counts = compiled(problem, make(problem, policy), 100)
        assert counts[-1] == 100 * length
        rates.append(slope(np.arange(100), np.log(gaps)))
    assert max(rates) < np.log(1 - np.sqrt(MU / L) / 2)
    assert abs(rates[0] / rates[1] - 1) < 0.3


def test_float32_loses_little():
    exact, _ = run_of("restart_free_smoothed")
    single, _ = compiled(SADDLE, make(SADDLE, SADDLE_POLICY), 500, np.float32)
    assert abs(single[-1] / exact[-1] - 1) < 0.01


def test_fused_lasso():
    """An operator that is not diagonal, against the exact proximal operator."""
    noise = 0.3 * np.random.default_rng(0).standard_normal(60)
    signal = np.repeat([0.0, 2.0, -1.0, 1.0], 15) + noise
    weight, mu = 0.8, 0.2
    # |x - signal|^2 / 2, of which the modulus mu is in the prox.
    solution = proximal.total_variation(weight)(jnp.asarray(signal), 1.0)
    objective = lambda x: jnp.sum((x - signal) ** 2) / 2 + weight * jnp.sum(jnp.abs(jnp.diff(x)))
    shifted = sliding.shift_strong_convexity(mu, smoothness=1.0)
    gap = float(objective(0 * solution) - objective(solution))
    policy = sliding.restart_free_smoothed(shifted.smoothness, mu, 2 * weight, 59 / 2, gap)
    slope = sliding.saddle_gradient(lambda x: weight * jnp.diff(x), proximal.dual_of_l1(59))
    optimizer = optax.chain(
        shifted.gradient,
        sliding.slide_accelerated(policy, slope, geometry=sliding.euclidean(shifted.prox)),
    )

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(x - signal, state, x)
        point = sliding.sliding_eval_params(state, x)
        return (optax.apply_updates(x, updates), state), (objective(point), point)

    x = jnp.zeros(60)
    values, points = jax.jit(lambda: jax.lax.scan(step, (x, optimizer.init(x)), None, 150)[1])()
    excess = np.asarray(values - objective(solution))
    assert np.all(excess <= bounds(policy, 150))
    assert -1e-9 <= excess[-1] < 1e-5 * gap
    np.testing.assert_allclose(points[-1], solution, atol=0.02)
