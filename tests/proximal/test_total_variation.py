"""Total variation against the dual problem, its optimality condition, and by cost."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.optimize import lsq_linear

from stochopt.proximal import total_variation

N = 12
denoise = jax.jit(lambda v, weight, step: total_variation(weight)(v, step))
with_x64 = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def violation(v, p, weight):
    """How far the jumps' dual variable is from being a subgradient, and zero at the ends."""
    dual = np.cumsum(np.asarray(p, np.float64) - np.asarray(v, np.float64))
    dual, end = dual[:-1], dual[-1]
    jumps = np.diff(p)
    at_jump = np.where(jumps != 0, np.abs(dual - weight * np.sign(jumps)), 0)
    return max(abs(end), (np.abs(dual) - weight).max(), at_jump.max())


@with_x64
@given(
    seed=st.integers(0, 2**16),
    weight=st.sampled_from([0.0, 1e-9, 0.1, 0.5, 1.0, 3.0, 100.0]),
    step=st.sampled_from([1.0, 0.3]),
    kind=st.sampled_from(["normal", "integers", "walk", "constant", "rising"]),
)
def test_optimality(x64, seed, weight, step, kind):
    v = np.random.default_rng(seed).standard_normal(N)
    # Integers and constants are full of ties.
    v = {
        "normal": v,
        "integers": np.round(2 * v),
        "walk": np.cumsum(v),
        "constant": np.full(N, v[0]),
        "rising": np.sort(v),
    }[kind]
    p = np.asarray(denoise(v, weight, step))
    assert violation(v, p, step * weight) <= 1e-13 * (1 + weight + np.abs(v).max())


@pytest.mark.parametrize("seed", range(4))
def test_against_the_dual_quadratic_program(x64, seed):
    v, weight = np.random.default_rng(seed).standard_normal(N), 0.6
    differences = np.diff(np.eye(N), axis=0)
    dual = lsq_linear(differences.T, v, (-weight, weight), tol=1e-15).x
    np.testing.assert_allclose(denoise(v, weight, 1.0), v - differences.T @ dual, atol=1e-8)


def test_control_smoothing_that_is_not_exact_violates_the_condition(x64):
    v = np.random.default_rng(0).standard_normal(N)
    p = np.asarray(denoise(v, 0.5, 1.0))
    assert violation(v, p, 0.5) < 1e-14
    assert violation(v, np.asarray(denoise(v, 0.49, 1.0)), 0.5) > 1e-3
    # One jump too few.
    first = np.flatnonzero(np.diff(p))[0] + 1
    merged = np.where(np.arange(N) < first + 1, p[: first + 1].mean(), p)
    assert violation(v, merged, 0.5) > 1e-3


def test_short_signals(x64):
    np.testing.assert_array_equal(denoise(jnp.array([3.0]), 1.0, 1.0), [3.0])
    np.testing.assert_allclose(denoise(jnp.array([3.0, 0.0]), 1.0, 1.0), [2.0, 1.0], rtol=1e-15)
    np.testing.assert_allclose(denoise(jnp.array([3.0, 0.0]), 2.0, 1.0), [1.5, 1.5], rtol=1e-15)
    assert denoise(jnp.zeros((3, 0)), 1.0, 1.0).shape == (3, 0)


def test_axes_and_vmap_are_signals_one_by_one(x64):
    x = np.random.default_rng(0).standard_normal((2, N, 3))
    found = total_variation(0.4, axis=1)(x, 1.0)
    under_vmap = jax.vmap(jax.vmap(denoise, (0, None, None)), (0, None, None))
    np.testing.assert_allclose(
        np.moveaxis(found, 1, -1), under_vmap(np.moveaxis(x, 1, -1), 0.4, 1.0), atol=1e-15
    )
    for i, j in np.ndindex(2, 3):
        assert violation(x[i, :, j], found[i, :, j], 0.4) < 1e-14
    weights = jnp.array([0.1, 0.4, 2.0])
    paths = jax.vmap(denoise, (None, 0, None))(x[0, :, 0], weights, 1.0)
    for weight, path in zip(weights, paths, strict=True):
        assert violation(x[0, :, 0], path, weight) < 1e-14


def test_derivatives(x64):
    v = jnp.asarray(np.random.default_rng(1).standard_normal(N))
    check_grads(denoise, (v, 0.4, 0.7), order=1, modes=("fwd", "rev"), rtol=1e-6)
    # The mean of each piece: a projection.
    jacobian = np.asarray(jax.jacobian(denoise)(v, 0.4, 0.7))
    np.testing.assert_allclose(jacobian @ jacobian, jacobian, atol=1e-14)
    pieces = 1 + np.count_nonzero(np.diff(denoise(v, 0.4, 0.7)))
    assert 1 < pieces < N
    np.testing.assert_allclose(np.trace(jacobian), pieces, rtol=1e-14)


def test_single_precision():
    v = np.random.default_rng(0).standard_normal(N).astype(np.float32)
    assert violation(v, denoise(v, 0.5, 1.0), 0.5) < 1e-5
    assert violation(v + 1000, denoise(v + 1000, 0.5, 1.0), 0.5) < 3e-3  # 25 units of rounding


def test_half_precision(strict):
    v = jnp.asarray(np.random.default_rng(0).standard_normal((2, N)), jnp.bfloat16)
    found = denoise(v, 0.5, np.float64(1.0))
    assert types(found) == types(v)
    expected = denoise(v.astype(jnp.float32), 0.5, 1.0)
    np.testing.assert_allclose(np.float32(found), expected, rtol=0.005)
    assert total_variation(0.5).value(v).dtype == jnp.float32


def test_a_long_signal_takes_linear_time(x64):
    v = np.random.default_rng(0).standard_normal(100_000)
    prox = jax.jit(total_variation(2.0)).lower(v, 1.0).compile()
    start = time.perf_counter()
    p = np.asarray(prox(v, 1.0))
    # About half a second; copies of the arrays in every turn make it a minute.
    assert time.perf_counter() - start < 15
    assert violation(v, p, 2.0) < 1e-9
    assert 1000 < np.count_nonzero(np.diff(p)) < 30_000


def test_nan_is_passed_on():
    assert np.isnan(denoise(jnp.ones(N).at[3].set(jnp.nan), 0.5, 1.0)).any()


def test_bad_leaves():
    with pytest.raises(TypeError, match="total_variation: leaves must be real"):
        total_variation(1.0)(jnp.ones(3, complex), 1.0)
    for call in (total_variation(1.0, axis=1).value, lambda x: total_variation(1.0, 1)(x, 1.0)):
        with pytest.raises(
            ValueError, match=r"total_variation: a leaf of shape \(3,\) has no axis 1"
        ):
            call(jnp.ones(3))
