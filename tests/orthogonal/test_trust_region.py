"""The trust-region method: what it is for each norm, and where its iterates stay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers as Numbers
from references.matrices import gaussian, polar

import stochopt
from stochopt.orthogonal import (
    column_norm,
    euclidean,
    max_norm,
    product,
    scale_by_lmo,
    spectral,
    svd_polar,
    trust_region,
)

SHAPES = {"w": (4, 4), "v": (3, 3)}


def random_trees(seed, count=10, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return [
        {k: jnp.asarray(rng.standard_normal(s)) for k, s in shapes.items()} for _ in range(count)
    ]


def run(optimizer, params, gradients):
    """Parameters after each step."""
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    history = []
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        history.append(params)
    return history


def assert_same_run(ours, theirs, gradients, rtol):
    params = random_trees(99, 1, {k: x.shape for k, x in gradients[0].items()})[0]
    pairs = zip(run(ours, params, gradients), run(theirs, params, gradients), strict=True)
    for a, b in pairs:
        for k in params:
            np.testing.assert_allclose(a[k], b[k], rtol=rtol, atol=rtol)


AVERAGE = optax.ema(0.95, debias=False)


def schedule(count):
    return 0.1 / (1 + count)


# In one line each.


@pytest.mark.parametrize("rate", [0.1, schedule])
def test_spectral_norm_is_muon_without_the_factor_of_the_shape(x64, rate):
    # Square matrices, where the factor is one. The bias correction of optax scales the momentum,
    # which the polar factor does not see.
    theirs = optax.contrib.muon(rate, nesterov=False, eps=0.0)
    assert_same_run(trust_region(rate, spectral()), theirs, random_trees(0), 1e-10)


@pytest.mark.parametrize("rate", [0.1, schedule])
def test_euclidean_norm_is_normalized_descent(x64, rate):
    theirs = optax.chain(
        AVERAGE, optax.normalize_by_update_norm(eps=0.0), optax.scale_by_learning_rate(rate)
    )
    shapes = {"a": (3,), "b": (2, 2, 2), "c": ()}
    assert_same_run(trust_region(rate, euclidean()), theirs, random_trees(1, shapes=shapes), 1e-12)


@pytest.mark.parametrize("rate", [0.1, schedule])
def test_max_norm_is_sign_descent(x64, rate):
    theirs = optax.chain(AVERAGE, optax.scale_by_sign(), optax.scale_by_learning_rate(rate))
    assert_same_run(trust_region(rate, max_norm()), theirs, random_trees(2), 1e-14)


def test_default_norm_is_spectral_inside_and_euclidean_elsewhere(x64):
    shapes = {"w": (4, 3), "v": (3, 4), "head": (3, 5), "b": (3,)}
    gradients = random_trees(3, shapes=shapes)
    theirs = optax.partition(
        {
            "inside": optax.chain(AVERAGE, optax.stateless(lambda u, _: spectral()(u))),
            "ends": optax.chain(AVERAGE, optax.normalize_by_update_norm(eps=0.0)),
        },
        {"w": "inside", "v": "inside", "head": "ends", "b": "ends"},
    )
    theirs = optax.chain(theirs, optax.scale_by_learning_rate(0.1))
    assert_same_run(trust_region(0.1), theirs, gradients, 1e-11)


def test_control_averaging_after_the_minimizer_is_another_method(x64):
    gradients = random_trees(0)
    wrong = optax.chain(
        optax.stateless(lambda u, _: spectral()(u)), AVERAGE, optax.scale_by_learning_rate(0.1)
    )
    ours = run(trust_region(0.1, spectral()), gradients[0], gradients)[-1]
    others = run(wrong, gradients[0], gradients)[-1]
    assert np.linalg.norm(ours["w"] - others["w"]) > 0.1


def test_momentum_and_nesterov_by_hand(x64):
    mu, params = 0.0, jnp.zeros((3, 2))
    optimizer = trust_region(0.1, column_norm(), momentum=0.6, nesterov=True)
    state = optimizer.init(params)
    for seed in range(4):
        g = gaussian(seed, (3, 2))
        updates, state = optimizer.update(jnp.asarray(g), state, params)
        mu = 0.6 * mu + 0.4 * g
        ahead = 0.6 * mu + 0.4 * g
        expected = -0.1 * ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
        np.testing.assert_allclose(updates, expected, rtol=1e-12)
        np.testing.assert_allclose(optax.tree.get(state, "mu"), mu, rtol=1e-12)


@pytest.mark.parametrize(
    ("lmo", "norm"),
    [
        (spectral(orthogonalize=svd_polar), lambda t: max(map(spectral_norm, t.values()))),
        (euclidean(), lambda t: np.sqrt(sum(np.sum(x**2) for x in t.values()))),
        (max_norm(), lambda t: max(np.abs(x).max() for x in t.values())),
        (column_norm(), lambda t: max(np.linalg.norm(x, axis=1).max() for x in t.values())),
    ],
    ids=["spectral", "euclidean", "max", "column"],
)
def test_decay_keeps_the_iterates_in_a_ball(x64, lmo, norm):
    decay, radius = 0.5, 0.4
    gradients = random_trees(4, 20) + [random_trees(5, 1)[0]] * 40  # pushed one way at last
    start = jax.tree.map(lambda x: 0.01 * x, gradients[0])
    history = run(trust_region(radius, lmo, weight_decay=decay), start, gradients)
    sizes = [norm(jax.tree.map(np.asarray, params)) for params in history]
    assert max(sizes) <= (1 + 1e-12) / decay
    assert sizes[-1] > 0.99 / decay  # and reach its boundary
    free = run(trust_region(radius, lmo), start, gradients)
    assert norm(jax.tree.map(np.asarray, free[-1])) > 2 / decay


def spectral_norm(x):
    return np.linalg.svd(x, compute_uv=False).max()


def test_every_step_has_the_length_of_the_radius(x64):
    g = random_trees(6, 1)[0]
    for scale in (1e-20, 1.0, 1e20):
        (moved,) = run(
            trust_region(schedule, spectral(orthogonalize=svd_polar)),
            jax.tree.map(jnp.zeros_like, g),
            [jax.tree.map(lambda x, s=scale: s * x, g)],
        )
        np.testing.assert_allclose(moved["w"], -0.1 * polar(np.asarray(g["w"])), rtol=1e-9)


def test_decay_mask_spares_a_leaf(x64):
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for mask in ({"w": True, "b": False}, lambda tree: {"w": True, "b": False}):
        optimizer = trust_region(0.1, weight_decay=0.5, weight_decay_mask=mask)
        (moved,) = run(optimizer, params, [zeros])
        np.testing.assert_allclose(moved["w"], 0.95, rtol=1e-14)
        np.testing.assert_array_equal(moved["b"], 1)


def test_half_precision():
    params = {"w": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.ones(3)}
    optimizer = trust_region(0.1, weight_decay=jnp.float32(0.1))
    state = optimizer.init(params)
    updates, state = optimizer.update(params, state, params)
    assert {k: u.dtype for k, u in updates.items()} == {"w": jnp.bfloat16, "b": jnp.float32}
    assert optax.tree.get(state, "mu")["w"].dtype == jnp.bfloat16
    wide = trust_region(0.1, mu_dtype=jnp.float32)
    updates, state = wide.update(params, wide.init(params), params)
    assert updates["w"].dtype == jnp.bfloat16
    assert optax.tree.get(state, "mu")["w"].dtype == jnp.float32


@pytest.mark.parametrize("lmo", [None, spectral(), euclidean(), max_norm(), column_norm()])
def test_zeros_stay_and_nan_is_passed_on(lmo):
    params = {"w": jnp.ones((2, 3))}
    optimizer = trust_region(0.1, lmo)
    state = optimizer.init(params)
    updates, _ = optimizer.update({"w": jnp.zeros((2, 3))}, state, params)
    np.testing.assert_array_equal(updates["w"], 0)
    updates, state = optimizer.update({"w": params["w"].at[0, 1].set(jnp.nan)}, state, params)
    assert np.isnan(updates["w"][0, 1])
    assert np.isnan(optax.tree.get(state, "mu")["w"][0, 1])


def test_stacks_by_dimension_numbers(x64):
    rule = Numbers(1, 2)
    norm = product(
        spectral(weight_dimension_numbers=rule),
        euclidean(),
        weight_dimension_numbers=rule,
    )
    g = jnp.asarray(gaussian(7, (3, 2, 4)))
    (moved,) = run(trust_region(0.1, norm), jnp.zeros_like(g), [g])
    for i in range(3):
        (alone,) = run(trust_region(0.1, spectral()), jnp.zeros((2, 4)), [g[i]])
        np.testing.assert_allclose(moved[i], alone, rtol=1e-10)


def test_injected_and_traced_hyper_parameters(x64):
    g = jnp.asarray(gaussian(8, (3, 2)))
    expected = trust_region(0.2, momentum=0.5, weight_decay=0.1)
    expected, _ = expected.update(g, expected.init(g), g)

    @jax.jit
    def step(rate, momentum, decay):
        optimizer = trust_region(rate, momentum=momentum, weight_decay=decay)
        return optimizer.update(g, optimizer.init(g), g)[0]

    np.testing.assert_allclose(step(0.2, 0.5, 0.1), expected, rtol=1e-12)
    injected = optax.inject_hyperparams(stochopt.trust_region, static_args=("lmo",))
    optimizer = injected(0.2, lmo=None, momentum=0.5, weight_decay=0.1)
    updates, _ = optimizer.update(g, optimizer.init(g), g)
    np.testing.assert_allclose(updates, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "value", "interval"),
    [
        ("learning_rate", -0.1, "[0, inf)"),
        ("momentum", 1.0, "[0, 1)"),
        ("momentum", -0.1, "[0, 1)"),
        ("momentum", float("nan"), "[0, 1)"),
        ("weight_decay", -0.1, "[0, inf)"),
    ],
)
def test_hyper_parameters_out_of_range(name, value, interval):
    with pytest.raises(ValueError, match="must lie in") as error:
        trust_region(**{"learning_rate": 0.1, name: value})
    assert f"{name} must lie in {interval}, got {value}" in str(error.value)
    if name == "momentum":
        with pytest.raises(ValueError, match="momentum must lie in"):
            scale_by_lmo(euclidean(), momentum=value)
