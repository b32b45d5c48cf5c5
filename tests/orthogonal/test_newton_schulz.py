"""Newton-Schulz and the exact polar factor."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from references import adago as reference

from stochopt.orthogonal import JORDAN, newton_schulz, svd_polar

with_x64 = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHAPES = [(3, 3), (2, 4), (4, 2), (1, 3)]
ORTHOGONALIZERS = {
    "newton_schulz": functools.partial(newton_schulz, eps=0.0),
    "svd_polar": svd_polar,
}
JITTED = {name: jax.jit(function) for name, function in ORTHOGONALIZERS.items()}
each_orthogonalizer = pytest.mark.parametrize("name", ORTHOGONALIZERS)
seeds = st.integers(0, 2**16)


def gaussian(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


def rotation(seed, size):
    return np.linalg.qr(gaussian(seed, (size, size)))[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_newton_schulz_equals_the_reference(x64, shape):
    x = gaussian(0, (5, *shape))
    expected = np.stack([reference.newton_schulz(m) for m in x])
    np.testing.assert_allclose(newton_schulz(jnp.asarray(x)), expected, rtol=1e-12, atol=1e-14)


def test_newton_schulz_acts_on_singular_values_by_the_published_polynomial(x64):
    u, v = rotation(1, 4), rotation(2, 4)
    sigma = np.array([1.0, 0.3, 0.01, 1e-4])
    found = u.T @ np.asarray(newton_schulz(jnp.asarray(u * sigma @ v), eps=0.0)) @ v.T
    expected = sigma / np.linalg.norm(sigma)
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    np.testing.assert_allclose(found, np.diag(expected), rtol=1e-10, atol=1e-13)


# Table, least and largest singular value and error of a Gaussian 64 x 256 matrix (specification).
TABLES = {
    "jordan": (JORDAN, 0.68, 1.13, 0.21),
    "quintic": (
        (
            (4.0848, -6.8946, 2.9270),
            (3.9505, -6.3029, 2.6377),
            (3.7418, -5.5913, 2.3037),
            (2.8769, -3.1427, 1.2046),
            (2.8366, -3.0525, 1.2012),
        ),
        0.98,
        1.03,
        0.02,
    ),
    "cans": (
        (
            (8.4703, -25.1081, 18.6293),
            (4.1828, -3.1087, 0.5806),
            (3.9619, -2.9541, 0.5630),
            (3.2866, -2.4647, 0.5074),
            (2.2737, -1.6447, 0.4162),
        ),
        0.89,
        1.11,
        0.08,
    ),
    "jordan8+2": (JORDAN[:1] * 8 + ((2.0, -1.5, 0.5),) * 2, 1.0, 1.0, 1e-3),
    "cubic": (
        (
            (3.3656576, -3.3420992, 0.0),
            (2.5744352, -1.4957376, 0.0),
            (2.5368962, -1.4312570, 0.0),
            (2.4418906, -1.2764040, 0.0),
            (2.2230472, -0.9630650, 0.0),
        ),
        0.77,
        1.30,
        0.18,
    ),
}


@pytest.mark.parametrize("table", TABLES)
def test_singular_values_of_wide_gaussian_matrices_lie_in_the_band(x64, table):
    coefficients, least, largest, error = TABLES[table]
    x = gaussian(3, (64, 256))
    y = np.asarray(newton_schulz(jnp.asarray(x), coefficients))
    values = np.linalg.svd(y, compute_uv=False)
    assert values.min() > least - 0.02
    assert values.max() < largest + 0.02
    assert np.linalg.norm(y - reference.polar(x)) / 8 < error + 0.02


def test_square_gaussian_matrices_stay_below_the_band_and_near_the_polar_factor(x64):
    x = gaussian(4, (64, 64))
    y = np.asarray(newton_schulz(jnp.asarray(x)))
    values = np.linalg.svd(y, compute_uv=False)
    assert values.max() < 1.21
    assert np.median(values) > 0.68
    assert np.linalg.norm(y - reference.polar(x)) / 8 < 0.25


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


@pytest.mark.parametrize("orth", [newton_schulz, svd_polar])
@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (4, 3, 3)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
def test_zero_maps_to_zero(orth, shape, dtype):
    y = orth(jnp.zeros(shape, dtype))
    assert y.dtype == dtype
    assert not np.any(np.asarray(y, np.complex64))


@each_orthogonalizer
def test_zero_matrix_in_a_batch_disturbs_no_other(x64, name):
    x = gaussian(5, (3, 2, 4))
    x[1] = 0
    orth = {"newton_schulz": newton_schulz, "svd_polar": svd_polar}[name]  # with the guard
    expected = {"newton_schulz": reference.newton_schulz, "svd_polar": reference.polar}[name]
    y = orth(jnp.asarray(x))
    assert not np.any(y[1])
    for i in (0, 2):
        np.testing.assert_allclose(y[i], expected(x[i]), rtol=1e-10)


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 2)])
@each_orthogonalizer
def test_leading_axes_are_a_batch(x64, name, shape):
    x = gaussian(6, shape)
    flat = x.reshape(-1, *shape[-2:])
    each = np.stack([ORTHOGONALIZERS[name](jnp.asarray(m)) for m in flat]).reshape(shape)
    np.testing.assert_allclose(ORTHOGONALIZERS[name](jnp.asarray(x)), each, rtol=1e-11)


@pytest.mark.parametrize("orth", [newton_schulz, svd_polar])
def test_half_precision_is_computed_in_float32(orth):
    x = jnp.asarray(gaussian(7, (4, 6)), jnp.bfloat16)
    y = orth(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        np.asarray(y, np.float32), np.asarray(orth(x.astype(jnp.float32)).astype(jnp.bfloat16), "f")
    )


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3, 3)])
def test_complex_matrices(x64, shape):
    x = gaussian(8, shape) + 1j * gaussian(9, shape)
    exact = np.asarray(svd_polar(jnp.asarray(x)))
    np.testing.assert_allclose(exact, reference.polar(x), rtol=1e-10)
    small = exact if shape[0] <= shape[1] else exact.conj().T
    np.testing.assert_allclose(small @ small.conj().T, np.eye(min(shape)), atol=1e-12)
    iterated = newton_schulz(jnp.asarray(x))
    np.testing.assert_allclose(iterated, reference.newton_schulz(x), rtol=1e-11)
    # A phase commutes too: this fails if a transpose stands where an adjoint should.
    np.testing.assert_allclose(newton_schulz(jnp.asarray(1j * x)), 1j * iterated, rtol=1e-11)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)])
def test_svd_polar_is_the_polar_factor(x64, shape):
    x = gaussian(10, shape)
    y = np.asarray(svd_polar(jnp.asarray(x)))
    np.testing.assert_allclose(y, scipy.linalg.polar(x)[0], rtol=1e-10)
    np.testing.assert_allclose(svd_polar(jnp.asarray(y)), y, atol=1e-13)


def test_svd_polar_drops_directions_without_singular_value(x64):
    u, v = rotation(11, 4), rotation(12, 4)
    x = (u[:, :2] * np.array([3.0, 0.5])) @ v[:2]
    np.testing.assert_allclose(svd_polar(jnp.asarray(x)), u[:, :2] @ v[:2], atol=1e-12)
    nearly = x + 1e-8 * np.outer(u[:, 2], v[2])
    np.testing.assert_allclose(svd_polar(jnp.asarray(nearly)), u[:, :3] @ v[:3], atol=1e-6)
