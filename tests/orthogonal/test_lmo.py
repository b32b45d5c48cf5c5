"""Every linear minimizer attains the dual norm inside the unit ball of its own norm."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optax.contrib import MuonDimensionNumbers as Numbers
from references.matrices import gaussian, polar

from stochopt.orthogonal import (
    column_norm,
    euclidean,
    max_norm,
    newton_schulz,
    newton_schulz_converged,
    nuclear,
    product,
    spectral,
    svd_polar,
)

with_x64 = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**16)
SHAPES = {"a": (3, 4), "b": [(4, 2), (3, 3)]}


def random_tree(seed, shapes=SHAPES, complex_numbers=False):
    rng = np.random.default_rng(seed)
    draw = lambda s: (
        rng.standard_normal(s) + (1j * rng.standard_normal(s) if complex_numbers else 0)
    )
    return jax.tree.map(draw, shapes, is_leaf=lambda x: isinstance(x, tuple))


def values(x):
    return np.linalg.svd(x, compute_uv=False)


def over(leaves, norm, combine):
    return combine([norm(np.asarray(x)) for x in jax.tree.leaves(leaves)])


ROWS = lambda x: np.linalg.norm(x, axis=1)
NORM2 = lambda parts: np.sqrt(sum(p**2 for p in parts))
# Minimizer, norm and dual norm: the largest over all leaves, and the sum.
NORMS = {
    "spectral": (
        spectral(orthogonalize=svd_polar),
        lambda t: over(t, lambda x: values(x).max(), max),
        lambda t: over(t, lambda x: values(x).sum(), sum),
    ),
    "euclidean": (
        euclidean(),
        lambda t: over(t, np.linalg.norm, NORM2),
        lambda t: over(t, np.linalg.norm, NORM2),
    ),
    "max_norm": (
        max_norm(),
        lambda t: over(t, lambda x: np.abs(x).max(), max),
        lambda t: over(t, lambda x: np.abs(x).sum(), sum),
    ),
    "column_norm": (
        column_norm(),
        lambda t: over(t, lambda x: ROWS(x).max(), max),
        lambda t: over(t, lambda x: ROWS(x).sum(), sum),
    ),
    "nuclear": (
        nuclear(),
        lambda t: over(t, lambda x: values(x).sum(), max),
        lambda t: over(t, lambda x: values(x).max(), sum),
    ),
}
each_norm = pytest.mark.parametrize("name", NORMS)


def inner(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(np.real(np.vdot(np.asarray(x), np.asarray(y))) for x, y in pairs)


@each_norm
@with_x64
@given(seed=seeds, complex_numbers=st.booleans())
def test_minimizers_attain_the_dual_norm(x64, name, seed, complex_numbers):
    minimize, norm, dual = NORMS[name]
    m = random_tree(seed, complex_numbers=complex_numbers)
    d = minimize(jax.tree.map(jnp.asarray, m))
    assert jax.tree.structure(d) == jax.tree.structure(m)
    assert norm(d) <= 1 + 1e-12
    np.testing.assert_allclose(inner(m, d), dual(m), rtol=1e-11)
    # No other point of the ball does better.
    other = random_tree(seed + 1, complex_numbers=complex_numbers)
    size = norm(other)
    assert inner(m, other) / size <= inner(m, d) * (1 + 1e-12)
    near = jax.tree.map(lambda x, y: np.asarray(x) + 1e-2 * y, d, other)
    assert inner(m, near) / norm(near) <= inner(m, d) * (1 + 1e-12)


MINIMIZERS = {name: minimize for name, (minimize, _, _) in NORMS.items()}
MINIMIZERS |= {
    "newton_schulz": spectral(),
    "product": product(
        spectral(), max_norm(), weight_dimension_numbers={"a": Numbers(), "b": None}
    ),
}
each_minimizer = pytest.mark.parametrize("name", MINIMIZERS)


@each_minimizer
def test_zero_is_mapped_to_zero(name):
    for dtype in (jnp.float32, jnp.bfloat16, jnp.complex64):
        zeros = jax.tree.map(lambda x, d=dtype: jnp.zeros(x.shape, d), random_tree(0))
        for leaf in jax.tree.leaves(MINIMIZERS[name](zeros)):
            assert not np.any(np.asarray(leaf, np.complex64))


@each_minimizer
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
def test_dtypes_are_kept(name, dtype):
    # Mixed with float32, and computed in it: half precision of the exact result, no worse.
    m = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_tree(1))
    m["a"] = m["a"].astype(dtype)
    d = MINIMIZERS[name](m)
    wide = MINIMIZERS[name](
        jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), m)
    )
    for x, y, z in zip(*map(jax.tree.leaves, (m, d, wide)), strict=True):
        assert y.dtype == x.dtype
        assert not y.weak_type
        rtol = 1e-2 if x.dtype == jnp.bfloat16 else 1e-5
        np.testing.assert_allclose(
            np.asarray(y, np.complex64), np.asarray(z, np.complex64), rtol=rtol, atol=1e-6
        )


@each_minimizer
@pytest.mark.parametrize("scale", [1e-38, 1e-25, 1e20, 1e38])
def test_direction_is_kept_near_the_limits_of_float32(name, scale):
    # Entries from 1.2 to 3.3, away from subnormal and infinite numbers; scaled by NumPy, because
    # 1e-38 is subnormal itself.
    entries = lambda x: np.float32(np.sign(x) * np.clip(np.abs(x) + 1.2, 0, 3.3))
    m = jax.tree.map(entries, random_tree(2))
    scaled = jax.tree.map(lambda x: jnp.asarray(np.float32(scale) * x), m)
    minimize = jax.jit(MINIMIZERS[name])
    expected = minimize(jax.tree.map(jnp.asarray, m))
    for a, b in zip(*map(jax.tree.leaves, (minimize(scaled), expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@each_minimizer
def test_trees_without_arrays(name):
    if name != "product":  # its numbers are for another tree
        for tree in ({}, (), None, {"a": None, "b": optax.MaskedNode()}):
            assert MINIMIZERS[name](tree) == tree
        m = {"a": jnp.ones((2, 3)), "b": None}
        assert MINIMIZERS[name](m)["b"] is None


@each_norm
def test_nan_is_not_hidden(name):
    m = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_tree(3))
    m["a"] = m["a"].at[1, 2].set(jnp.nan)
    assert np.isnan(np.asarray(MINIMIZERS[name](m)["a"])).any()


# Which norm is which.


def test_euclidean_is_one_norm_of_the_whole_tree(x64):
    m = {"a": jnp.asarray([3.0]), "b": jnp.asarray([[0.0, 4.0]])}
    d = euclidean()(m)
    np.testing.assert_allclose(d["a"], [0.6], rtol=1e-15)
    np.testing.assert_allclose(d["b"], [[0.0, 0.8]], rtol=1e-15)


def test_euclidean_and_max_norm_take_any_shape():
    m = {"a": jnp.ones(()), "b": jnp.ones((2, 3, 4)), "c": jnp.zeros((0, 3))}
    assert np.all(np.asarray(max_norm()(m)["b"]) == 1)
    np.testing.assert_allclose(euclidean()(m)["b"], 1 / 5, rtol=1e-6)


def test_column_norm_normalizes_what_each_input_is_mapped_to(x64):
    x = gaussian(4, (3, 4))
    rows = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(column_norm()(jnp.asarray(x)), rows, rtol=1e-13)
    # Outputs first: the same matrix transposed.
    other = column_norm(weight_dimension_numbers=Numbers(1, 0))(jnp.asarray(x.T))
    np.testing.assert_allclose(other, rows.T, rtol=1e-13)
    # A kernel has one row for each of its inputs and offsets; a stack keeps its matrices apart.
    kernel = gaussian(5, (3, 3, 2, 4))
    found = column_norm(weight_dimension_numbers=Numbers((0, 1, 2), 3))(jnp.asarray(kernel))
    np.testing.assert_allclose(np.linalg.norm(found, axis=3), 1, rtol=1e-13)
    # A row of zeros stays.
    x[1] = 0
    assert not np.any(column_norm()(jnp.asarray(x))[1])


def test_nuclear_is_of_rank_one(x64):
    x = gaussian(6, (2, 4, 3))
    x[1] = 0
    found = np.asarray(nuclear(weight_dimension_numbers=Numbers(1, 2))(jnp.asarray(x)))
    u, _, wh = np.linalg.svd(x[0])
    np.testing.assert_allclose(found[0], np.outer(u[:, 0], wh[0]), atol=1e-12)
    assert not np.any(found[1])


def test_spectral_takes_newton_schulz_unless_told(x64):
    x = gaussian(7, (3, 5))
    np.testing.assert_allclose(spectral()(jnp.asarray(x)), newton_schulz(jnp.asarray(x)))
    exact = spectral(orthogonalize=svd_polar)(jnp.asarray(x))
    np.testing.assert_allclose(exact, polar(x), rtol=1e-10)


def test_max_norm_of_complex_numbers_is_a_phase():
    np.testing.assert_allclose(max_norm()(jnp.asarray([3 + 4j])), [0.6 + 0.8j], rtol=1e-6)


@pytest.mark.parametrize("make", [spectral, nuclear, column_norm])
def test_leaves_that_are_no_matrices_are_named(make):
    with pytest.raises(ValueError, match=rf"{make.__name__}: leaf a/1 of shape \(3,\)"):
        make()({"a": [jnp.ones((2, 2)), jnp.ones(3)]})


# Products.


def test_product_splits_by_the_rule(x64):
    m = {
        "w": jnp.asarray(gaussian(8, (3, 4))),
        "head": jnp.asarray(gaussian(9, (3, 4))),
        "b": jnp.asarray(gaussian(10, (3,))),
        "none": None,
    }
    d = product(nuclear(), euclidean())(m)
    np.testing.assert_allclose(d["w"], nuclear()(m["w"]), rtol=1e-12)
    others = euclidean()({"head": m["head"], "b": m["b"]})
    np.testing.assert_allclose(d["head"], others["head"], rtol=1e-15)
    np.testing.assert_allclose(d["b"], others["b"], rtol=1e-15)
    assert d["none"] is None
    assert jax.tree.structure(d) == jax.tree.structure(m)


def test_product_takes_numbers_and_nests(x64):
    m = {
        "w": jnp.asarray(gaussian(8, (3, 4))),
        "v": jnp.asarray(gaussian(9, (3, 4))),
        "b": jnp.ones(2),
    }
    inner_one = product(
        column_norm(), max_norm(), weight_dimension_numbers={"v": Numbers(), "b": None}
    )
    outer = product(
        nuclear(),
        lambda tree: {**inner_one({k: tree[k] for k in "vb"}), "w": tree["w"]},
        weight_dimension_numbers={"w": Numbers(), "v": None, "b": None},
    )
    d = outer(m)
    np.testing.assert_allclose(d["w"], nuclear()(m["w"]), rtol=1e-12)
    np.testing.assert_allclose(d["v"], column_norm()(m["v"]), rtol=1e-12)
    np.testing.assert_array_equal(d["b"], 1)


def test_product_of_one_kind_only():
    minimize = product(spectral(), euclidean())
    assert jax.tree.leaves(minimize({"b": jnp.zeros(3)}))[0].shape == (3,)
    assert jax.tree.leaves(minimize({"w": jnp.zeros((2, 3))}))[0].shape == (2, 3)
    assert minimize({}) == {}


@pytest.mark.parametrize("name", ["euclidean", "max_norm", "column_norm", "newton_schulz"])
def test_minimizers_under_jit_and_vmap(x64, name):
    m = np.stack([gaussian(i, (3, 4)) for i in range(3)])
    each = np.stack([MINIMIZERS[name](jnp.asarray(x)) for x in m])
    np.testing.assert_allclose(jax.jit(jax.vmap(MINIMIZERS[name]))(jnp.asarray(m)), each, rtol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.complex64])
@pytest.mark.parametrize("name", NORMS)
def test_no_silent_promotion(name, dtype, strict):
    tree = {"w": jnp.ones((3, 2), dtype)}
    found = jax.eval_shape(NORMS[name][0], tree)
    assert found["w"].dtype == dtype


def test_no_silent_promotion_in_the_converged_iteration(strict):
    for dtype in (jnp.bfloat16, jnp.float32, jnp.complex64):
        found = jax.eval_shape(newton_schulz_converged, jnp.ones((3, 2), dtype))
        assert found.dtype == dtype
