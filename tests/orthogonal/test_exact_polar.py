"""The polar factor by singular values, and by products until they converge."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from references.matrices import (
    distance,
    gaussian,
    ill_conditioned,
    low_rank,
    matrix_products,
    polar,
    rotation,
)

from stochopt.orthogonal import newton_schulz, newton_schulz_converged, polar_express, svd_polar

converged = jax.jit(newton_schulz_converged, static_argnames=("tolerance", "max_steps"))


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


@pytest.mark.parametrize("shape", [(3, 3), (2, 3), (3, 2)])
def test_svd_polar_of_complex_matrices(x64, shape):
    x = gaussian(8, shape) + 1j * gaussian(9, shape)
    exact = np.asarray(svd_polar(jnp.asarray(x)))
    np.testing.assert_allclose(exact, polar(x), rtol=1e-10)
    small = exact if shape[0] <= shape[1] else exact.conj().T
    np.testing.assert_allclose(small @ small.conj().T, np.eye(min(shape)), atol=1e-12)


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
@pytest.mark.parametrize("shape", [(16, 16), (16, 24), (24, 16)])
def test_converged_is_the_polar_factor(x64, condition, shape):
    x = ill_conditioned(0, (min(shape), max(shape)), condition)
    x = x if x.shape == shape else x.T
    y = converged(jnp.asarray(x), tolerance=1e-10)
    assert distance(y, scipy.linalg.polar(x)[0]) < 1e-10


def test_converged_of_complex_matrices(x64):
    x = gaussian(1, (4, 6)) + 1j * gaussian(2, (4, 6))
    np.testing.assert_allclose(converged(jnp.asarray(x), tolerance=1e-10), polar(x), atol=1e-10)


def test_converged_of_a_matrix_of_low_rank(x64):
    x = jnp.asarray(low_rank(3, (12, 16), 5))
    assert distance(converged(x, tolerance=1e-10), svd_polar(x)) < 1e-9


def test_converged_batch_waits_for_its_slowest_matrix(x64):
    x = np.stack([ill_conditioned(4, (8, 8), c) for c in (1.0, 1e4, 10.0)] + [np.zeros((8, 8))])
    y = np.asarray(converged(jnp.asarray(x), tolerance=1e-10))
    for i in range(3):
        assert distance(y[i], polar(x[i])) < 1e-10
    assert not np.any(y[3])


def test_converged_in_single_and_half_precision():
    x = gaussian(5, (16, 32))
    y = converged(jnp.asarray(x, jnp.float32))
    assert y.dtype == jnp.float32
    assert distance(y, polar(x)) < 2e-5
    half = converged(jnp.asarray(x, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert distance(half, polar(x)) < 1e-2


def test_bad_entries_do_not_hold_up_the_others():
    x = np.array(gaussian(6, (2, 4, 4)), np.float32)
    x[0, 0, 0] = np.nan
    y = np.asarray(converged(jnp.asarray(x)))
    assert np.all(np.isnan(y[0]))
    assert distance(y[1], polar(x[1])) < 2e-5


@pytest.mark.parametrize("steps", [1, 3])
def test_converged_stops_after_max_steps(x64, steps):
    x = jnp.asarray(ill_conditioned(7, (8, 8), 1e4))
    y = converged(x, tolerance=1e-10, max_steps=steps)
    table = polar_express(9, safety=0.0)[:steps]
    np.testing.assert_allclose(y, newton_schulz(x, table), rtol=1e-9, atol=1e-12)


def test_converged_stops_at_the_tolerance(x64):
    x = jnp.asarray(ill_conditioned(8, (8, 8), 1e3))
    errors = [
        distance(converged(x, tolerance=tolerance), polar(np.asarray(x)))
        for tolerance in (0.1, 1e-5)
    ]
    assert 1e-3 < errors[0] <= 0.1  # a step more would square it
    assert errors[1] <= 1e-5


def test_converged_takes_the_highest_precision_unless_told():
    highest = jax.lax.Precision.HIGHEST
    x = jnp.eye(3)
    found = {p.params["precision"] for p in matrix_products(newton_schulz_converged, x)}
    assert found == {(highest, highest)}
    plain = matrix_products(lambda x: newton_schulz_converged(x, precision=None), x)
    assert {p.params["precision"] for p in plain} == {None}


@pytest.mark.parametrize(
    ("name", "value"),
    [("tolerance", 0.0), ("tolerance", -1.0), ("max_steps", 0), ("max_steps", 1.5)],
)
def test_bad_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}"):
        newton_schulz_converged(jnp.eye(2), **{name: value})
    with pytest.raises(ValueError, match="x must be a batch of matrices"):
        newton_schulz_converged(jnp.ones(3))
