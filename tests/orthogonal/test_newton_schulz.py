"""Newton-Schulz: what it computes, with which tables, and on which inputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from references import adago as reference
from references.matrices import (
    distance,
    gaussian,
    ill_conditioned,
    matrix_products,
    polar,
    rotation,
)

from stochopt.orthogonal import (
    CANS,
    CUBIC,
    JORDAN,
    JORDAN_CONVERGED,
    QUINTIC,
    newton_schulz,
    polar_express,
    svd_polar,
)

with_x64 = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHAPES = [(3, 3), (2, 4), (4, 2), (1, 3)]
ORTHOGONALIZERS = {"newton_schulz": newton_schulz, "svd_polar": svd_polar}
JITTED = {name: jax.jit(function) for name, function in ORTHOGONALIZERS.items()}
each_orthogonalizer = pytest.mark.parametrize("name", ORTHOGONALIZERS)
seeds = st.integers(0, 2**16)


@pytest.mark.parametrize("shape", SHAPES)
def test_newton_schulz_equals_the_reference(x64, shape):
    x = gaussian(0, (5, *shape))
    expected = np.stack([reference.newton_schulz(m) for m in x])
    np.testing.assert_allclose(newton_schulz(jnp.asarray(x)), expected, rtol=1e-10, atol=1e-12)


def test_newton_schulz_acts_on_singular_values_by_the_published_polynomial(x64):
    u, v = rotation(1, 4), rotation(2, 4)
    sigma = np.array([1.0, 0.3, 0.01, 1e-4])
    found = u.T @ np.asarray(newton_schulz(jnp.asarray(u * sigma @ v))) @ v.T
    expected = sigma / np.linalg.norm(sigma)
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    np.testing.assert_allclose(found, np.diag(expected), rtol=1e-10, atol=1e-13)


def stretched(steps):
    raw = polar_express(9, safety=0.0, cushion=0.02407327424182761)
    return tuple((a / 1.01, b / 1.01**3, c / 1.01**5) for a, b, c in raw[:steps])


# Least and largest singular value, and error relative to the polar factor, of a Gaussian 64 x 64,
# a Gaussian 64 x 256 and a 64 x 64 matrix of condition 1e3 (specification). The numbers were
# rounded to two digits and taken on other matrices, hence 0.03. Only the least singular value of a
# square Gaussian matrix varies more: by an order of magnitude with the seed, and so does, where a
# table does not lift it to the band, what becomes of it; there the bound is one-sided and 0.2.
TABLES = {
    "jordan": (JORDAN, (0.68, 1.19, 0.20), (0.68, 1.13, 0.21), (0.21, 1.20, 0.31)),
    "quintic": (QUINTIC, (0.98, 1.14, 0.03), (0.98, 1.03, 0.02), (0.22, 1.15, 0.27)),
    "stretched 5": (stretched(5), (0.87, 1.12, 0.08), (0.87, 1.12, 0.08), (0.42, 1.12, 0.17)),
    "stretched 8": (stretched(8), (1, 1, 0), (1, 1, 0), (1, 1, 0)),
    "express": (polar_express(), (0.86, 1.14, 0.09), (0.86, 1.14, 0.10), (0.42, 1.14, 0.17)),
    "cans": (CANS, (0.89, 1.12, 0.08), (0.89, 1.11, 0.08), (0.45, 1.11, 0.15)),
    "jordan 8 + 2": (JORDAN_CONVERGED, (1, 1, 0), (1, 1, 0), (1, 1, 0)),
    "cubic": (CUBIC, (0.42, 1.30, 0.21), (0.77, 1.30, 0.18), (0.05, 1.30, 0.50)),
}


@pytest.mark.parametrize("table", TABLES)
def test_tables_reach_the_specified_bands(x64, table):
    coefficients, *rows = TABLES[table]
    square, wide, ill = gaussian(5, (64, 64)), gaussian(3, (64, 256)), (7, (64, 64), 1e3)
    matrices = [square, wide, ill_conditioned(*ill)]
    for i, (x, (least, largest, error)) in enumerate(zip(matrices, rows, strict=True)):
        y = np.asarray(newton_schulz(jnp.asarray(x), coefficients))
        values = np.linalg.svd(y, compute_uv=False)
        assert values.min() > least - (0.2 if i == 0 else 0.03)
        assert i == 0 or values.min() < least + 0.03
        assert abs(values.max() - largest) < 0.03
        assert abs(distance(y, polar(x)) - error) < (0.03 if error else 1e-3)


@each_orthogonalizer
@with_x64
@given(seed=seeds, shape=st.sampled_from(SHAPES), factor=st.floats(1e-6, 1e6))
def test_positive_scaling_does_not_matter(x64, name, seed, shape, factor):
    x = gaussian(seed, shape)
    orth = JITTED[name]
    np.testing.assert_allclose(orth(factor * x), orth(x), rtol=1e-9, atol=1e-12)


@each_orthogonalizer
@with_x64
@given(seed=seeds, shape=st.sampled_from(SHAPES))
def test_negation_commutes(x64, name, seed, shape):
    x = gaussian(seed, shape)
    np.testing.assert_allclose(JITTED[name](-x), -JITTED[name](x), rtol=1e-12, atol=1e-14)


@each_orthogonalizer
@with_x64
@given(seed=seeds, shape=st.sampled_from(SHAPES))
def test_transposition_commutes(x64, name, seed, shape):
    x = gaussian(seed, shape)
    np.testing.assert_allclose(JITTED[name](x.T), JITTED[name](x).T, rtol=1e-9, atol=1e-12)


@each_orthogonalizer
@with_x64
@given(seed=seeds, shape=st.sampled_from(SHAPES))
def test_rotations_commute(x64, name, seed, shape):
    x = gaussian(seed, shape)
    left, right = rotation(seed + 1, shape[0]), rotation(seed + 2, shape[1])
    rotated = JITTED[name](left @ x @ right)
    # The condition of the polar factor is the inverse of the least singular value.
    slack = 1e-12 / np.linalg.svd(x, compute_uv=False).min()
    np.testing.assert_allclose(rotated, left @ JITTED[name](x) @ right, atol=1e-11 + slack)


@pytest.mark.parametrize("shape", [(3, 3), (2, 3), (3, 2)])
def test_complex_matrices(x64, shape):
    x = gaussian(8, shape) + 1j * gaussian(9, shape)
    iterated = newton_schulz(jnp.asarray(x))
    np.testing.assert_allclose(iterated, reference.newton_schulz(x), rtol=1e-10)
    # A phase commutes too: this fails if a transpose stands where an adjoint should.
    np.testing.assert_allclose(newton_schulz(jnp.asarray(1j * x)), 1j * iterated, rtol=1e-10)


# Batches. From 64 rows on a CPU runs a loop over the matrices.

BATCHES = [(2, 3, 4), (2, 3, 4, 2), (3, 64, 80), (3, 80, 64), (1, 64, 70), (2, 2, 64, 64)]


def check_batch(orth, x, functions):
    each = np.stack([orth(jnp.asarray(m)) for m in x.reshape(-1, *x.shape[-2:])]).reshape(x.shape)
    for function in functions:
        np.testing.assert_allclose(function(jnp.asarray(x)), each, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("shape", BATCHES)
def test_leading_axes_are_a_batch(x64, shape):
    ways = (newton_schulz, JITTED["newton_schulz"], jax.vmap(newton_schulz))
    check_batch(newton_schulz, gaussian(6, shape), ways)


@pytest.mark.parametrize("shape", BATCHES[:2])
def test_leading_axes_are_a_batch_of_the_exact_factor(x64, shape):
    check_batch(svd_polar, gaussian(6, shape), (svd_polar, jax.vmap(svd_polar)))


@pytest.mark.parametrize("size", [3, 64])
def test_bad_entries_spoil_their_own_matrix_and_no_other(size):
    x = np.array(gaussian(7, (4, size, size + 6)), np.float32)
    clean = np.asarray(newton_schulz(jnp.asarray(x)))
    x[0, 1, 2], x[2, 0, 0], x[3] = np.nan, -np.inf, 0.0
    y = np.asarray(newton_schulz(jnp.asarray(x)))
    assert np.all(np.isnan(y[0]))
    np.testing.assert_allclose(y[1], clean[1], rtol=1e-6, atol=1e-7)
    assert np.all(np.isnan(y[2]))
    assert not np.any(y[3])


@pytest.mark.parametrize("orth", [newton_schulz, svd_polar])
@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (4, 3, 3)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
def test_zero_maps_to_zero(orth, shape, dtype):
    y = orth(jnp.zeros(shape, dtype))
    assert y.dtype == dtype
    assert not np.any(np.asarray(y, np.complex64))


# Precision.


@pytest.mark.parametrize("name", ORTHOGONALIZERS)
@pytest.mark.parametrize("shape", [(3, 5), (5, 5), (5, 3)])
def test_direction_is_kept_near_the_limits_of_float32(name, shape):
    # Entries from 1.2 to 3.3: a CPU flushes subnormal numbers to zero, and 3.5e38 is infinite.
    # At 1e38 the inverse of an entry is subnormal, and XLA likes to multiply by inverses.
    x = np.clip(np.abs(gaussian(10, shape)) + 1.2, 1.2, 3.3) * np.sign(gaussian(11, shape))
    x = x.astype(np.float32)
    for orth in (ORTHOGONALIZERS[name], JITTED[name]):
        expected = orth(jnp.asarray(x))
        for scale in np.float32([1e-38, 1e-30, 1e-20, 1e18, 1e25, 1e38]):
            assert distance(orth(jnp.asarray(scale * x)), expected) < 1e-3, scale


@pytest.mark.parametrize("orth", [newton_schulz, svd_polar])
def test_half_precision_is_computed_in_float32(orth):
    x = jnp.asarray(gaussian(7, (4, 6)), jnp.bfloat16)
    y = orth(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        np.asarray(y, np.float32), np.asarray(orth(x.astype(jnp.float32)).astype(jnp.bfloat16), "f")
    )


@pytest.mark.parametrize("shape", [(4, 4), (4, 16), (2, 64, 128)])
def test_products_take_the_given_dtype_and_precision(shape):
    x = jnp.asarray(gaussian(12, shape), jnp.float32)
    highest = jax.lax.Precision.HIGHEST
    default = matrix_products(newton_schulz, x)
    chosen = matrix_products(
        functools.partial(newton_schulz, dtype=jnp.bfloat16, precision="highest"), x
    )
    assert default
    assert chosen
    for product in default:
        assert product.params["precision"] is None
        assert {operand.aval.dtype for operand in product.invars} == {jnp.dtype(jnp.float32)}
    for product in chosen:
        assert product.params["precision"] == (highest, highest)
        assert {operand.aval.dtype for operand in product.invars} == {jnp.dtype(jnp.bfloat16)}
    y = newton_schulz(x, dtype=jnp.bfloat16)
    assert y.dtype == jnp.float32
    assert 0 < distance(y, newton_schulz(x)) < 0.2


def test_norm_is_not_taken_in_half_precision():
    # A sum of 4096 equal squares in bfloat16 would stop at 256 of them.
    x = jnp.ones((64, 64), jnp.bfloat16)
    y = newton_schulz(x, ((1.0, 0.0, 0.0),), dtype=jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(y, np.float32), 1 / 64)


@pytest.mark.parametrize("orth", [newton_schulz, svd_polar])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_what_is_no_matrix_is_refused(orth, shape):
    with pytest.raises(ValueError, match="x must be a batch of matrices"):
        orth(jnp.ones(shape))
