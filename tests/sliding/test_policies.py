"""Policies: their numbers against NumPy formulas, what the proofs need of them, bad constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import prox_sliding as reference

from stochopt import sliding

L, MU, M, SIGMA, GAP, DISTANCE = 2.0, 0.03, 0.7, 0.4, 5.0, 3.0
V = DISTANCE**2 / 2
SQUARES = M**2 + SIGMA**2

# Ours with the reference. The budgets of the literature are at their best values.
PAIRS = {
    "fixed_horizon": (
        sliding.fixed_horizon(L, M, 30, DISTANCE),
        reference.fixed_horizon(L, M**2, 30, 1.5 * V),
    ),
    "fixed_horizon stochastic": (
        sliding.fixed_horizon(L, M, 30, DISTANCE, noise=SIGMA),
        reference.fixed_horizon(L, SQUARES, 30, 0.75 * V),
    ),
    "any_time": (
        sliding.any_time(L, M, DISTANCE),
        reference.any_time(L, M**2, 27 / 8 * V),
    ),
    "multi_phase": (
        sliding.multi_phase(L, MU, M, GAP, noise=SIGMA),
        reference.multi_phase(L, MU, SQUARES, GAP),
    ),
    "restart_free": (
        sliding.restart_free(L, MU, M, GAP),
        reference.restart_free(L, MU, 4 * M**2, 1.75 * GAP),
    ),
    "restart_free stochastic": (
        sliding.restart_free(L, MU, M, GAP, noise=SIGMA),
        reference.restart_free(L, MU, 8 * SQUARES, 1.75 * GAP),
    ),
    "restart_free well conditioned": (
        sliding.restart_free(L, L, M, GAP),
        reference.restart_free(L, L, 4 * M**2, 1.75 * GAP),
    ),
    "restart_free_minibatch": (
        sliding.restart_free_minibatch(L, MU, M, GAP, 0.5, noise=SIGMA),
        reference.restart_free_minibatch(L, MU, 8 * SQUARES, 1.75 * GAP),
    ),
    "restart_free_from_distance": (
        sliding.restart_free_from_distance(L, MU, M, DISTANCE),
        reference.restart_free_from_distance(L, MU, M**2, 4 * M**2, V, 1.5 * V, 2),
    ),
    "restart_free_from_distance stochastic": (
        sliding.restart_free_from_distance(L, MU, M, DISTANCE, noise=SIGMA),
        reference.restart_free_from_distance(L, MU, SQUARES, 8 * SQUARES, V, 0.75 * V, 4),
    ),
}
each_pair = pytest.mark.parametrize("name", PAIRS)
STEPS = np.arange(1, 121)


def rows(policy):
    """gamma, beta, T and restart of all steps."""
    row = lambda k: [
        jnp.asarray(part(k), float)
        for part in (policy.mixing, policy.prox_weight, policy.inner_length, policy.restart)
    ]
    return np.asarray(jax.vmap(row)(jnp.asarray(STEPS, float))).T


@each_pair
def test_numbers_of_the_reference(x64, name):
    ours, theirs = PAIRS[name]
    found, expected = rows(ours), np.array([theirs(k) for k in STEPS], float)
    np.testing.assert_allclose(found[:, :2], expected[:, :2], rtol=1e-12)
    np.testing.assert_array_equal(found[:, 2:], expected[:, 2:])


@each_pair
def test_what_the_proofs_need(x64, name):
    policy = PAIRS[name][0]
    gamma, beta, length, restart = rows(policy).T
    assert np.all((gamma > 0) & (gamma <= 1) & (length >= 1))
    assert np.all(beta >= (1 - 1e-12) * L * gamma)
    assert np.all(np.diff(length)[restart[1:] == 0] >= 0)
    mu, p = policy.strong_convexity, 2 / (length + 1) / (length + 2)
    before = gamma * (beta + mu * p) / (1 - p)
    after = gamma * (beta + mu) / (1 - p)
    if name.startswith("any_time"):
        return  # keeps the distance of every step, on a bounded domain
    # The potential of a step counts at most as much in the next one as the gap does.
    contracts = before[1:] <= (1 - gamma[1:]) * after[:-1] * (1 + 1e-12)
    assert np.all(contracts[restart[1:] == 0])


@each_pair
def test_bounds_fall(x64, name):
    policy = PAIRS[name][0]
    bound = np.asarray(jax.vmap(policy.bound)(jnp.asarray(STEPS, float)))
    assert np.all(np.diff(bound)[rows(policy)[1:, 3] == 0] < 0)


def test_a_phase_halves_the_bound(x64):
    policy = PAIRS["multi_phase"][0]
    phase_length = int(np.ceil(2 * np.sqrt(5 * L / MU)))
    ends = np.array([float(policy.bound(s * phase_length)) for s in (1, 2, 3)])
    assert np.all(ends <= GAP / 2 ** np.arange(1.0, 4))
    assert np.all(ends > 0.8 * GAP / 2 ** np.arange(1.0, 4))


def test_totals_are_as_documented(x64):
    """Catches a budget that is spent twice: bounds alone would not notice."""
    eps = 1e-3
    policy = sliding.restart_free(1.0, 0.01, 1.0, 1.0)
    steps = int(np.ceil(4 * np.sqrt(100) * np.log(1.75 / eps)))
    lengths = jax.vmap(policy.inner_length)(jnp.arange(1.0, steps + 1))
    assert policy.bound(steps) <= eps
    assert policy.bound(0.9 * steps) > eps
    total = 64 / ((1 - 0.025) * 0.01 * eps)
    assert 0.3 * total < lengths.sum() < steps + total
    smoothness, v, horizon = 2.0, 3.0, 40
    policy = sliding.fixed_horizon(smoothness, 1.0, horizon, np.sqrt(2 * v))
    gap = 12 * smoothness * v / (horizon * (horizon + 1))
    np.testing.assert_allclose(policy.bound(horizon), gap)
    total = jax.vmap(policy.inner_length)(jnp.arange(1.0, horizon + 1)).sum()
    assert 0.3 * 32 * v / gap**2 < total < horizon + 33 * v / gap**2


def test_batch_sizes_of_the_smooth_gradient(x64):
    policy = sliding.restart_free_minibatch(L, MU, M, GAP, 0.5)
    gamma = np.sqrt(MU / (8 * L))
    target = 1.75 * GAP * (1 - gamma / 2) ** STEPS
    expected = np.maximum(1, np.ceil(2 * 0.5**2 / (gamma * L * target)))
    found = jax.vmap(policy.gradient_batch_size)(jnp.asarray(STEPS, float))
    np.testing.assert_array_equal(found, expected)


def test_lengths_do_not_overflow():
    """Of a small gap; in int32 they would turn negative."""
    length = sliding.restart_free(1.0, 1e-4, 1.0, 1e-9).inner_length(jnp.float32(2000))
    assert jnp.finfo(length.dtype)
    assert length > 1e12


CONSTANTS = {
    sliding.fixed_horizon: {
        "smoothness": 1.0, "subgradient_bound": 1.0, "horizon": 5, "initial_distance": 1.0,
        "noise": 0.5,
    },
    sliding.any_time: {"smoothness": 1.0, "subgradient_bound": 1.0, "diameter": 1.0, "noise": 0.5},
    sliding.restart_free_from_distance: {
        "smoothness": 1.0, "strong_convexity": 0.1, "subgradient_bound": 1.0,
        "initial_distance": 1.0, "noise": 0.5,
    },
    sliding.multi_phase: {
        "smoothness": 1.0, "strong_convexity": 0.1, "subgradient_bound": 1.0, "initial_gap": 1.0,
        "noise": 0.5,
    },
    sliding.restart_free: {
        "smoothness": 1.0, "strong_convexity": 0.1, "subgradient_bound": 1.0, "initial_gap": 1.0,
        "noise": 0.5,
    },
    sliding.restart_free_minibatch: {
        "smoothness": 1.0, "strong_convexity": 0.1, "subgradient_bound": 1.0, "initial_gap": 1.0,
        "gradient_noise": 1.0, "noise": 0.5,
    },
}  # fmt: skip
BAD = [
    (factory, name, value)
    for factory, constants in CONSTANTS.items()
    for name in constants
    for value in ((-1.0,) if name == "noise" else (0, -1))
]


@pytest.mark.parametrize(
    ("factory", "name", "value"), BAD, ids=[f"{f.__name__}-{n}-{v}" for f, n, v in BAD]
)
def test_bad_constants_are_named(factory, name, value):
    good = CONSTANTS[factory]
    factory(**good)
    with pytest.raises(ValueError, match=f"^{name} must "):
        factory(**{**good, name: value})


@pytest.mark.parametrize(
    "factory", [f for f, constants in CONSTANTS.items() if "strong_convexity" in constants]
)
def test_strong_convexity_beyond_the_smoothness(factory):
    with pytest.raises(ValueError, match=r"^strong_convexity must not exceed smoothness"):
        factory(**{**CONSTANTS[factory], "strong_convexity": 1.5})


def test_constants_may_be_traced(x64):
    def length(smoothness):
        return sliding.restart_free(smoothness, 0.1, 1.0, 1.0).inner_length(7.0)

    found = jax.jit(jax.vmap(length))(jnp.array([0.5, 2.0]))
    np.testing.assert_array_equal(found, [length(0.5), length(2.0)])
