"""Accelerated policies: their numbers, what the proofs need of them, bad constants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import accelerated_loops as reference

from stochopt import sliding

L, MU, L_H, NORM, DIAMETER, GAP, DISTANCE = 2.0, 0.03, 60.0, 0.7, 12.0, 5.0, 3.0
STEPS = np.arange(1, 121)

# Ours with the reference; the modulus that the inner weights use.
PAIRS = {
    "accelerated": (sliding.accelerated(L, L_H, DISTANCE), reference.convex(L, L_H), 0.0),
    "accelerated_lan_ouyang": (
        sliding.accelerated_lan_ouyang(L, L_H, DISTANCE),
        reference.lan_ouyang(L, L_H),
        0.0,
    ),
    "accelerated_lan_ouyang tame": (
        sliding.accelerated_lan_ouyang(L, 0.1, DISTANCE),
        reference.lan_ouyang(L, L),
        0.0,
    ),
    "restart_free_accelerated": (
        sliding.restart_free_accelerated(L, MU, L_H, GAP),
        reference.restart_free(L, MU, L_H),
        MU,
    ),
    "restart_free_accelerated well conditioned": (
        sliding.restart_free_accelerated(L, L, 0.1, GAP),
        reference.restart_free(L, L, 0.1),
        L,
    ),
    "restart_free_smoothed": (
        sliding.restart_free_smoothed(L, MU, NORM, DIAMETER, GAP),
        reference.smoothed(L, MU, NORM, DIAMETER, 4 * GAP),
        MU,
    ),
    "restart_free_smoothed well conditioned": (
        sliding.restart_free_smoothed(L, L, NORM, DIAMETER, GAP),
        reference.smoothed(L, L, NORM, DIAMETER, 4 * GAP),
        L,
    ),
    "restart_free_smoothed_minibatch": (
        sliding.restart_free_smoothed_minibatch(L, MU, NORM, DIAMETER, GAP, 0.5),
        reference.smoothed_minibatch(L, MU, NORM, DIAMETER, 4 * GAP),
        MU,
    ),
}
each_pair = pytest.mark.parametrize("name", PAIRS)


def rows(policy):
    """gamma, lambda, beta, T and eta (or zero) of all steps."""
    smoothing = policy.smoothing or (lambda k: 0.0)
    parts = policy.mixing, policy.prox_weight, policy.inner_length, smoothing
    parts = (policy.query_mixing or policy.mixing, *parts)
    row = lambda k: [jnp.asarray(part(k), float) for part in parts]
    return np.asarray(jax.vmap(row)(jnp.asarray(STEPS, float)))


@each_pair
def test_numbers_of_the_reference(x64, name):
    ours, theirs, _ = PAIRS[name]
    expected = [theirs(k) for k in STEPS]
    columns = np.array(
        [(s.query_mixing, s.mixing, s.prox_weight, s.length, s.smoothing or 0) for s in expected]
    ).T
    np.testing.assert_allclose(rows(ours), columns, rtol=1e-12)
    for k, t in ((1, 1), (1, 3), (7, 1), (7, 5)):
        np.testing.assert_allclose(ours.inner_mixing(t), expected[k - 1].alpha(t))
        np.testing.assert_allclose(ours.inner_weight(k, t), expected[k - 1].weight(t), rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in PAIRS if "lan_ouyang" not in name])
def test_what_the_proofs_need(x64, name):
    policy, _, mu = PAIRS[name]
    gamma, lam, beta, length, eta = rows(policy)
    np.testing.assert_array_equal(gamma, lam)
    noisy = policy.gradient_batch_size is not None
    assert np.all((lam > 0) & (lam <= 1) & (length >= 1))
    assert np.all(beta >= (1 - 1e-12) * (2 if noisy else 1) * L * lam)
    weight = lambda t: policy.inner_weight(jnp.asarray(STEPS, float), t) + np.zeros(len(STEPS))
    first, second = np.asarray(weight(1.0)), np.asarray(weight(2.0))
    cheap_smoothness = NORM**2 / eta if policy.smoothing else 0.1 if "well" in name else L_H
    assert np.all(first >= (1 - 1e-12) * 2 * cheap_smoothness * lam)
    np.testing.assert_allclose(second, first / 2 + (beta + mu) / 2)
    # The potential of a step counts at most as much in the next one as the gap does.
    ell = 2 * first / (length * (length + 1))
    before, after = lam * (beta + ell), lam * (beta + ell + mu)
    assert np.all(before[1:] <= (1 - lam[1:]) * after[:-1] * (1 + 1e-12))
    bound = np.asarray(jax.vmap(policy.bound)(jnp.asarray(STEPS, float)))
    assert np.all(np.diff(bound) < 0)
    if policy.smoothing:
        # Half of what the bound contracts by is for the smoothing.
        share = lam * eta * DIAMETER
        if noisy:
            batch = np.asarray(policy.gradient_batch_size(jnp.asarray(STEPS, float)))
            share = share + 0.5**2 / (2 * L * batch)
        assert np.all(bound >= ((1 - lam) * np.append(4 * GAP, bound[:-1]) + share) * (1 - 1e-12))
        # The start is worth no more than the bound there: its gap, twice what smoothing hides, and
        # its distance, by quadratic growth.
        assert GAP + 2 * GAP + after[0] * GAP / mu <= 4 * GAP * (1 + 1e-12)


def test_totals_are_as_documented(x64):
    """Catches a budget that is spent twice: bounds alone would not notice."""
    eps, mu, norm, diameter, gap = 1e-4, 0.01, 0.5, 20.0, 1.0
    policy = sliding.restart_free_smoothed(1.0, mu, norm, diameter, gap)
    steps = int(np.ceil(np.log(4 * gap / eps) / -np.log(1 - 0.025)))
    assert policy.bound(steps) <= eps < policy.bound(steps - 1)
    assert 0.9 < steps / (4 / np.sqrt(mu) * np.log(4 * gap / eps)) <= 1
    total = jax.vmap(policy.inner_length)(jnp.arange(1.0, steps + 1)).sum()
    budget = 32 * norm * np.sqrt(diameter / ((1 - 0.025) * mu * eps))
    assert 0.3 * budget < total < steps + budget
    policy = sliding.restart_free_accelerated(1.0, mu, 400.0, gap)
    steps = int(np.ceil(2 / np.sqrt(mu) * np.log(2 * gap / eps)))
    assert policy.bound(steps) <= eps < policy.bound(0.9 * steps)
    assert policy.inner_length(1.0) == 40
    policy = sliding.accelerated(2.0, 800.0, 3.0)
    steps = int(np.ceil(2 * 3.0 * np.sqrt(2.0 / eps)))
    assert policy.bound(steps) <= eps < policy.bound(0.99 * steps)


def test_lengths_do_not_overflow():
    length = sliding.restart_free_smoothed(1.0, 1e-4, 1.0, 1e9, 1e-9).inner_length(jnp.float32(900))
    assert jnp.finfo(length.dtype)
    assert length > 4e9


def test_no_bound_without_a_distance():
    assert sliding.accelerated(1.0, 1.0).bound is None


CONSTANTS = {
    sliding.accelerated: {"smoothness": 1.0, "cheap_smoothness": 1.0, "initial_distance": 1.0},
    sliding.accelerated_lan_ouyang: {
        "smoothness": 1.0, "cheap_smoothness": 1.0, "initial_distance": 1.0,
    },
    sliding.restart_free_accelerated: {
        "smoothness": 1.0, "strong_convexity": 0.1, "cheap_smoothness": 1.0, "initial_gap": 1.0,
    },
    sliding.restart_free_smoothed: {
        "smoothness": 1.0, "strong_convexity": 0.1, "operator_norm": 1.0, "dual_diameter": 1.0,
        "initial_gap": 1.0,
    },
    sliding.restart_free_smoothed_minibatch: {
        "smoothness": 1.0, "strong_convexity": 0.1, "operator_norm": 1.0, "dual_diameter": 1.0,
        "initial_gap": 1.0, "gradient_noise": 1.0,
    },
}  # fmt: skip
BAD = [
    (factory, name, value)
    for factory, constants in CONSTANTS.items()
    for name in constants
    for value in (0, -1)
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
        return sliding.restart_free_smoothed(smoothness, 0.1, 1.0, 1.0, 1.0).inner_length(7.0)

    found = jax.jit(jax.vmap(length))(jnp.array([0.5, 2.0]))
    np.testing.assert_array_equal(found, [length(0.5), length(2.0)])
