"""Muon against published numbers and against optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers as Numbers
from references.matrices import gaussian

from stochopt import adago, muon, trust_region
from stochopt.orthogonal import newton_schulz, scale_by_shape, svd_polar

W0 = np.array([[1, -2], [0.5, 0.25], [-1.5, 3]])
D = np.array([[1.0, 2], [3, 4], [5, 6]])
SWAPPED = Numbers(1, 0)
# W after the third step with gradient D * W, row by row; three inputs and two outputs.
# fmt: off
GOLDEN = {
    "nesterov": ({}, (1.008738491, -1.987119558, 0.4642668026,
                      0.2346264025, -1.481291584, 2.963168487)),
    "heavy ball": ({"nesterov": False}, (1.008696458, -1.987139566, 0.464325105,
                                         0.2346490617, -1.481300937, 2.963162377)),
    "exact": ({"orthogonalize": svd_polar}, (1.012914375, -1.981437147, 0.4478933695,
                                             0.2276117018, -1.473202816, 2.94751976)),
    # Two inputs and three outputs: the factor is sqrt(3 / 2).
    "swapped": ({"weight_dimension_numbers": SWAPPED},
                (1.010763452, -1.984196227, 0.4561404448,
                 0.2311337385, -1.477073077, 2.95489935)),
}
# fmt: on


def golden_run(transposed=False, **options):
    optimizer = muon(0.02, momentum=0.95, **options)
    turn = np.transpose if transposed else np.asarray
    params = jnp.asarray(turn(W0))
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for _ in range(3):
        updates, state = update(turn(D) * params, state, params)
        params = optax.apply_updates(params, updates)
    return turn(params)


@pytest.mark.parametrize("row", GOLDEN)
def test_published_numbers(x64, row):
    options, weights = GOLDEN[row]
    np.testing.assert_allclose(np.ravel(golden_run(**options)), weights, rtol=1e-9)


def test_transposed_problem_has_the_other_factor(x64):
    _, weights = GOLDEN["swapped"]
    np.testing.assert_allclose(np.ravel(golden_run(transposed=True)), weights, rtol=1e-9)


@pytest.mark.parametrize("row", GOLDEN)
def test_control_rows_are_told_apart(x64, row):
    _, weights = GOLDEN[row]
    for other, (options, _) in GOLDEN.items():
        same = np.allclose(np.ravel(golden_run(**options)), weights, rtol=1e-6, atol=0)
        assert same == (other == row)


# Against optax.


def run(optimizer, params, gradients):
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    history = []
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        history.append(params)
    return history


def random_trees(seed, shapes, count):
    rng = np.random.default_rng(seed)
    return [
        {k: jnp.asarray(rng.standard_normal(s)) for k, s in shapes.items()} for _ in range(count)
    ]


def schedule(count):
    return 0.1 / (1 + count)


SHAPES = {"wide": (2, 5), "tall": (5, 3), "square": (3, 3)}
ADAM = {"b1": 0.8, "b2": 0.9, "eps": 1e-6, "weight_decay": 0.02}
ADAM_ARGUMENTS = {f"adam_{name}": value for name, value in ADAM.items()}


@pytest.mark.parametrize("scaling", [None, 0.2])
@pytest.mark.parametrize("rate", [0.05, schedule])
def test_twenty_steps_equal_optax_without_nesterov(x64, scaling, rate):
    params, *gradients = random_trees(0, SHAPES, 21)
    ours = muon(rate, nesterov=False, weight_decay=0.3, match_rms=scaling)
    theirs = optax.contrib.muon(
        rate, nesterov=False, weight_decay=0.3, consistent_rms=scaling, eps=0.0
    )
    for a, b in zip(run(ours, params, gradients), run(theirs, params, gradients), strict=True):
        for k in SHAPES:
            np.testing.assert_allclose(a[k], b[k], rtol=1e-9, atol=1e-10)


def test_nesterov_is_not_that_of_optax(x64):
    # Which corrects the bias; the two agree in the long run only.
    params, *gradients = random_trees(0, SHAPES, 21)
    ours = run(muon(0.05), params, gradients[:1])[0]["tall"]
    theirs = run(optax.contrib.muon(0.05), params, gradients[:1])[0]["tall"]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)  # the same direction at first
    ours = run(muon(0.05), params, gradients)[-1]["tall"]
    theirs = run(optax.contrib.muon(0.05), params, gradients)[-1]["tall"]
    assert np.abs(ours - theirs).max() > 1e-3


@pytest.mark.parametrize("rate", [0.01, schedule])
def test_other_leaves_are_moved_by_adamw(rate):
    shapes = {"w": (2, 2), "b": (3,), "scale": (), "stack": (2, 3, 3), "head": (5, 2)}
    others = {k: s for k, s in shapes.items() if k != "w"}
    params, *gradients = random_trees(1, shapes, 6)
    ours = run(muon(adam_learning_rate=rate, **ADAM_ARGUMENTS), params, gradients)
    without_matrix = lambda tree: {k: tree[k] for k in others}
    theirs = run(
        optax.adamw(rate, **ADAM), without_matrix(params), list(map(without_matrix, gradients))
    )
    for a, b in zip(ours, theirs, strict=True):
        for k in others:
            np.testing.assert_array_equal(a[k], b[k])
    alone = run(muon(), {"w": params["w"]}, [{"w": g["w"]} for g in gradients])
    np.testing.assert_allclose(ours[-1]["w"], alone[-1]["w"], rtol=1e-6)


def test_adam_defaults():
    params = {"b": jnp.ones(3)}
    gradients = [{"b": jnp.asarray([1.0, -2.0, 1e-3])}] * 3
    theirs = optax.adamw(3e-4, b1=0.9, b2=0.95, eps=1e-10, weight_decay=0.0)
    np.testing.assert_array_equal(
        run(muon(), params, gradients)[-1]["b"], run(theirs, params, gradients)[-1]["b"]
    )


# Factors of the shape.


@pytest.mark.parametrize("shape", [(4, 4), (3, 12), (12, 3)])
def test_updates_have_the_root_mean_square_asked_for(x64, shape):
    g = jnp.asarray(gaussian(2, shape))
    optimizer = muon(0.1, match_rms=0.2, orthogonalize=svd_polar)
    updates, _ = optimizer.update(g, optimizer.init(g), g)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(updates))), 0.2 * 0.1, rtol=1e-12)


@pytest.mark.parametrize(
    ("shape", "numbers", "factor", "longest"),
    [
        ((3, 12), None, 2.0, 12),
        ((12, 3), None, 1.0, 12),
        ((12, 3), Numbers(1, 0), 2.0, 12),
        ((7, 3, 12), Numbers(1, 2), 2.0, 12),  # a stack: its length does not count
        ((3, 3, 2, 72), Numbers((0, 1, 2), 3), 2.0, 72),
        ((3, 3, 8, 2), Numbers((0, 1, 2), 3), 1.0, 72),
    ],
)
def test_factors_of_the_shape(x64, shape, numbers, factor, longest):
    x = jnp.asarray(gaussian(3, shape))
    for options, expected in (({}, factor), ({"match_rms": 0.5}, 0.5 * np.sqrt(longest))):
        scaling = scale_by_shape(weight_dimension_numbers=numbers, **options)
        y, _ = scaling.update(x, scaling.init(x))
        np.testing.assert_allclose(y, expected * x, rtol=1e-14)


def test_factor_is_applied_in_float32():
    x = jnp.full((3, 4), 3.0, jnp.bfloat16)
    scaling = scale_by_shape()
    y, _ = scaling.update(x, scaling.init(x))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, jnp.bfloat16(3 * np.sqrt(4 / 3)))
    with pytest.raises(ValueError, match=r"scale_by_shape: leaf <root> of shape \(3,\)"):
        scaling.update(jnp.ones(3), scaling.init(jnp.ones(3)))


def test_stack_and_kernel_equal_separate_matrices(x64):
    gradients = gaussian(4, (3, 5, 2, 4))
    stacked = run(muon(weight_dimension_numbers=Numbers(1, 2)), jnp.zeros((5, 2, 4)), gradients)
    for i in range(5):
        alone = run(muon(), jnp.zeros((2, 4)), gradients[:, i])
        np.testing.assert_allclose(stacked[-1][i], alone[-1], rtol=1e-10)
    kernel = run(
        muon(), {"conv": jnp.zeros((5, 1, 2, 4))}, [{"conv": g[:, None]} for g in gradients]
    )
    matrix = run(muon(), {"w": jnp.zeros((10, 4))}, [{"w": g.reshape(10, 4)} for g in gradients])
    np.testing.assert_allclose(kernel[-1]["conv"].reshape(10, 4), matrix[-1]["w"], rtol=1e-10)


def test_decay_mask_spares_a_leaf(x64):
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2))}
    zeros = jax.tree.map(jnp.zeros_like, params)
    for mask in ({"a": True, "b": False}, lambda tree: {"a": True, "b": False}):
        optimizer = muon(0.1, weight_decay=0.5, weight_decay_mask=mask)
        (moved,) = run(optimizer, params, [zeros])
        np.testing.assert_allclose(moved["a"], 0.95, rtol=1e-12)
        np.testing.assert_array_equal(moved["b"], 1.0)


# Dtypes and bad numbers.


def test_half_precision():
    params = {"w": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.ones(3, jnp.bfloat16)}
    optimizer = muon(weight_decay=jnp.float32(0.1))
    state = optimizer.init(params)
    for _ in range(2):
        updates, new_state = optimizer.update(params, state, params)
        assert {u.dtype for u in updates.values()} == {jnp.dtype(jnp.bfloat16)}
        assert jax.tree.map(jax.typeof, new_state) == jax.tree.map(jax.typeof, state)
        state = new_state
    inner = optax.tree.get_all_with_path(state, "mu")
    assert {x.dtype for _, tree in inner for x in jax.tree.leaves(tree)} == {jnp.dtype("bfloat16")}
    wide = muon(mu_dtype=jnp.float32).init(params)
    inner = optax.tree.get_all_with_path(wide, "mu")
    assert {x.dtype for _, tree in inner for x in jax.tree.leaves(tree)} == {jnp.dtype("float32")}


METHODS = {"muon": muon(), "adago": adago(), "trust_region": trust_region(0.1)}


@pytest.mark.parametrize("method", METHODS)
def test_nan_is_passed_on_to_its_own_leaf(method):
    optimizer = METHODS[method]
    params = {"a": jnp.ones((2, 3)), "b": jnp.ones((2, 3))}
    bad = {"a": params["a"].at[0, 1].set(jnp.nan), "b": params["b"]}
    for update in (optimizer.update, jax.jit(optimizer.update)):
        updates, _ = update(bad, optimizer.init(params), params)
        assert np.all(np.isnan(updates["a"]))
        assert np.all(np.isfinite(updates["b"]))  # of the same bucket


@pytest.mark.parametrize("method", METHODS)
def test_zero_gradients_give_zero_steps(method):
    optimizer = METHODS[method]
    params = {"w": jnp.ones((2, 3)), "v": jnp.ones((4, 4)), "b": jnp.ones(3)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for leaf in jax.tree.leaves(updates):
        np.testing.assert_array_equal(leaf, 0)


# Arguments.


def test_orthogonalizer_is_called_with_whole_buckets():
    calls = []

    def orthogonalize(x):
        calls.append(x.shape)
        return newton_schulz(x)

    params = {"a": jnp.ones((2, 3)), "b": jnp.ones((3, 2)), "c": jnp.ones(2), "d": jnp.ones((4, 4))}
    optimizer = muon(orthogonalize=orthogonalize)
    optimizer.update(params, optimizer.init(params), params)
    assert sorted(calls) == [(1, 4, 4), (2, 2, 3)]


@pytest.mark.parametrize(
    ("name", "value", "interval"),
    [
        ("learning_rate", -0.1, "[0, inf)"),
        ("momentum", 1.0, "[0, 1)"),
        ("momentum", -0.1, "[0, 1)"),
        ("match_rms", 0.0, "(0, inf)"),
        ("match_rms", float("nan"), "(0, inf)"),
        ("weight_decay", -0.1, "[0, inf)"),
        ("adam_learning_rate", -0.1, "[0, inf)"),
        ("adam_b1", 1.0, "[0, 1)"),
        ("adam_b2", 1.0, "[0, 1)"),
        ("adam_eps", -1e-8, "[0, inf)"),
        ("adam_weight_decay", -1.0, "[0, inf)"),
    ],
)
def test_hyper_parameters_out_of_range(name, value, interval):
    with pytest.raises(ValueError, match="must lie in") as error:
        muon(**{name: value})
    assert f"{name} must lie in {interval}, got {value}" in str(error.value)


def test_ends_of_the_ranges_pass():
    muon(0.0, momentum=0.0, weight_decay=0.0, adam_eps=0.0, adam_b1=0.0, adam_b2=0.0)


def test_traced_and_injected_hyper_parameters(x64):
    g = jnp.asarray(gaussian(5, (3, 4)))
    expected = muon(0.2, momentum=0.5, match_rms=0.3, weight_decay=0.1)
    expected, _ = expected.update(g, expected.init(g), g)

    @jax.jit
    def step(rate, momentum, rms, decay):
        optimizer = muon(rate, momentum=momentum, match_rms=rms, weight_decay=decay)
        return optimizer.update(g, optimizer.init(g), g)[0]

    np.testing.assert_allclose(step(0.2, 0.5, 0.3, 0.1), expected, rtol=1e-12)
    optimizer = optax.inject_hyperparams(muon)(0.2, momentum=0.5, match_rms=0.3, weight_decay=0.1)
    updates, _ = optimizer.update(g, optimizer.init(g), g)
    np.testing.assert_allclose(updates, expected, rtol=1e-12)
