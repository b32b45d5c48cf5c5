"""The model step against the published coefficients and against its linear system."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from references import smb as reference

from stochopt import smb_independent
from stochopt.model_building.groups import Groups
from stochopt.model_building.model import same_batch_step

with_x64 = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Published numbers (specification).
G, Y, ALPHA, ETA = np.array([3.0, -4.0]), np.array([2.0, 1.0]), 0.5, 0.99
STEP = (-1.65611209510795, 1.2551575333503)
GOLDEN_RTOL = 1e-9


@jax.jit
def same_batch(g, y, alpha, eta):
    return same_batch_step(Groups(g, None, g.dtype), jnp.asarray(alpha, g.dtype), eta, g, y)


@jax.jit
def independent_batch(g, y, h, alpha, eta):
    """The second step of SMBi, after the rejection of a step along ``h``."""
    x, optimizer = jnp.zeros_like(g), smb_independent(alpha, eta=eta)
    # No trial value is low enough, and the trial gradient is what is passed.
    common = {"value": -1e30, "value_fn": lambda x, slope: slope @ x}
    _, state = optimizer.update(h, optimizer.init(x), x, **common, slope=jnp.zeros_like(g))
    return optimizer.update(g, state, x, **common, slope=g + y)[0]


def test_published_coefficients():
    found = reference.coefficients(G, -ALPHA * G, Y, ETA)
    expected = (
        9.60821628500605,
        300.588415577798,
        -0.325242470329969,
        0.107047270577981,
        -0.259906889125539,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    np.testing.assert_allclose(reference.published_step(G, Y, ALPHA, ETA), STEP, rtol=1e-13)
    np.testing.assert_allclose(reference.solved_step(G, Y, ALPHA, ETA), STEP, rtol=1e-13)
    np.testing.assert_allclose(reference.exact_step(G, Y, ALPHA, ETA), STEP, rtol=1e-13)


def test_steps_equal_the_published_one(x64):
    np.testing.assert_allclose(same_batch(G, Y, ALPHA, ETA), STEP, rtol=1e-12)
    np.testing.assert_allclose(independent_batch(G, Y, G, ALPHA, ETA), STEP, rtol=1e-12)


@pytest.mark.parametrize(("sign", "eta"), [(-1, ETA), (1, 1.0)], ids=["y flipped", "no eta"])
def test_control_wrong_models_fail(sign, eta):
    wrong = reference.published_step(G, sign * Y, ALPHA, eta)
    assert not np.allclose(wrong, STEP, rtol=GOLDEN_RTOL, atol=0)


def test_the_model_matrix_is_needed_for_the_independent_step(x64):
    h = np.array([1.0, 1.0])
    right = independent_batch(G, Y, h, ALPHA, ETA)
    np.testing.assert_allclose(right, reference.solved_step(G, Y, ALPHA, ETA, h), rtol=1e-12)
    # The wrong variant that projects on g and y only.
    assert not np.allclose(right, reference.solved_step(G, Y, ALPHA, ETA, G), rtol=1e-3)


# Integer-valued entries make degenerate cases likely: y parallel to g, y = 0, h orthogonal to both.
SIZE = 4
# A gradient whose norm is below 1e-8 counts as zero: its trial step is accepted, no model follows.
entries = st.one_of(st.integers(-3, 3).map(float), st.floats(-3, 3, width=32))
vectors = arrays.arrays(np.float64, SIZE, elements=entries.filter(lambda x: not 0 < abs(x) < 1e-7))
alphas = st.floats(1e-3, 1e3)
etas = st.floats(0.01, 0.9999)
scales = st.integers(-6, 6).map(lambda k: 10.0**k)


def norms(*vectors):
    return [np.linalg.norm(v) for v in vectors]


@with_x64
@given(g=vectors, y=vectors, scale=scales, alpha=alphas, eta=etas)
def test_same_batch_step_solves_the_system(x64, g, y, scale, alpha, eta):
    assume(np.linalg.norm(g) > 1e-3)
    y = scale * y
    step = np.asarray(same_batch(g, y, alpha, eta))
    g_norm = np.linalg.norm(g)
    # As accurate as float64 data determine it, relative to the trial step.
    exact = reference.exact_step(g, y, alpha, eta)
    np.testing.assert_allclose(step, exact, rtol=0, atol=1e-14 * alpha * g_norm)
    # And it solves the system, as well as a general solver would.
    matrix = reference.model_matrix(g, y, alpha, eta)
    residual = np.linalg.norm(matrix @ step + g)
    assert residual < 1e-13 * (g_norm + np.linalg.norm(matrix, 2) * alpha * g_norm)


@with_x64
@given(g=vectors, y=vectors, h=vectors, scale=scales, alpha=alphas, eta=etas)
def test_independent_batch_step_solves_the_system(x64, g, y, h, scale, alpha, eta):
    assume(np.linalg.norm(g) > 1e-3)
    y = scale * y
    step = np.asarray(independent_batch(g, y, h, alpha, eta))
    g_norm, y_norm, h_norm = norms(g, y, h)
    exact = reference.exact_step(g, (g + y) - g, alpha, eta, h)
    slack = 1e-14 * (1 + y_norm / g_norm) * alpha * h_norm
    np.testing.assert_allclose(step, exact, rtol=0, atol=slack)


@with_x64
@given(g=vectors, y=vectors, alpha=alphas, eta=etas)
def test_solving_the_system_agrees_where_it_is_well_conditioned(x64, g, y, alpha, eta):
    assume(np.linalg.norm(g) > 0.1)
    expected = reference.solved_step(g, y, alpha, eta)
    slack = 1e-11 * alpha * np.linalg.norm(g)
    np.testing.assert_allclose(same_batch(g, y, alpha, eta), expected, rtol=0, atol=slack)
    np.testing.assert_allclose(independent_batch(g, y, g, alpha, eta), expected, atol=slack)


@settings(max_examples=100)
@given(g=vectors, y=vectors, scale=st.integers(0, 12).map(lambda k: 10.0**k), eta=etas)
def test_same_batch_step_in_float32(g, y, scale, eta):
    g, y, eta = np.float32(g), np.float32(scale * y), np.float32(eta)
    g_norm = np.linalg.norm(g)
    assume(g_norm > 1e-3)
    step = np.asarray(same_batch(g, y, np.float32(0.5), eta))
    exact = reference.exact_step(g, y, 0.5, eta)
    np.testing.assert_allclose(step, exact, rtol=0, atol=4e-6 * 0.5 * g_norm)


def test_published_coefficients_cancel_in_float32():
    # The reason for another formula: theta is a difference of squares.
    g = np.array([1.0, 2.0], np.float32)
    y = np.float32(1e7) * np.array([1.0, -1.0], np.float32)
    alpha, eta = np.float32(0.5), np.float32(0.99)
    exact = reference.exact_step(g, y, alpha, eta)
    error = lambda step: np.linalg.norm(step - exact) / np.linalg.norm(exact)
    assert error(same_batch(g, y, alpha, eta)) < 1e-5
    assert not error(reference.published_step(g, y, alpha, eta)) < 1e-2


@settings(max_examples=100)
@given(g=vectors, turn=vectors, h=vectors, k=st.integers(0, 5), small=st.integers(1, 8))
def test_independent_batch_step_in_float32(g, turn, h, k, small):
    # Convex curvature: y nearly opposite to g, much longer.
    g = np.float32(g)
    assume(np.linalg.norm(g) > 0.1)
    y = np.float32(-(10.0**k) * (g + 10.0**-small * turn))
    h, eta = np.float32(h), np.float32(0.99)
    g_norm, y_norm, h_norm = norms(g, y, h)
    assume(h_norm > 1e-3)
    step = independent_batch(g, y, h, np.float32(0.5), eta)
    exact = reference.exact_step(g, (g + y) - g, 0.5, eta, h)
    slack = 1e-5 * (1 + y_norm / g_norm) * 0.5 * h_norm
    np.testing.assert_allclose(step, exact, rtol=0, atol=slack)


@pytest.mark.parametrize("ratio", [1e2, 1e5, 1e7, 1e8])
def test_independent_batch_step_is_bounded_in_float32(ratio):
    rng = np.random.default_rng(0)
    eta = np.float32(0.99)
    for _ in range(100):
        g, h, turn = np.float32(rng.standard_normal((3, SIZE)))
        y = np.float32(-ratio * (g + 10.0 ** -rng.integers(1, 9) * turn))
        step = np.asarray(independent_batch(g, y, h, np.float32(0.5), eta))
        assert np.linalg.norm(step) <= 1.05 * eta * 0.5 * np.linalg.norm(h)


@with_x64
@given(
    g=vectors, y=vectors, scale=st.integers(-6, 3).map(lambda k: 10.0**k), alpha=alphas, eta=etas
)
def test_step_shrinks_and_descends(x64, g, y, scale, alpha, eta):
    g_norm = np.linalg.norm(g)
    assume(g_norm > 1e-3)
    step = np.asarray(same_batch(g, scale * y, alpha, eta))
    assert np.linalg.norm(step) <= eta * alpha * g_norm * (1 + 1e-12)
    assert step @ g < 0


@with_x64
@given(g=vectors, y=vectors, h=vectors, alpha=alphas, eta=etas)
def test_independent_step_shrinks_and_descends(x64, g, y, h, alpha, eta):
    g_norm, h_norm = norms(g, h)
    assume(min(g_norm, h_norm) > 1e-3)
    step = np.asarray(independent_batch(g, y, h, alpha, eta))
    assert np.linalg.norm(step) <= eta * alpha * h_norm * (1 + 1e-9)
    assert step @ h < 0


@with_x64
@given(g=vectors, curvature=st.floats(1e-6, 1e3), alpha=alphas, eta=etas)
def test_isotropic_curvature_halves_a_newton_step(x64, g, curvature, alpha, eta):
    assume(np.linalg.norm(g) > 1e-3)
    y = -curvature * alpha * g
    size = 1 / (2 * curvature + 1 / (alpha * eta))
    slack = 1e-14 * alpha * np.linalg.norm(g)
    np.testing.assert_allclose(same_batch(g, y, alpha, eta), -size * g, rtol=1e-12, atol=slack)


@with_x64
@given(g=vectors, h=vectors, alpha=alphas, eta=etas)
def test_no_curvature_shrinks_by_eta(x64, g, h, alpha, eta):
    zero = np.zeros(SIZE)
    np.testing.assert_allclose(same_batch(g, zero, alpha, eta), -alpha * eta * g, rtol=1e-13)
    step = independent_batch(g, zero, h, alpha, eta)
    np.testing.assert_allclose(step, -alpha * eta * h, rtol=1e-12, atol=1e-300)


@with_x64
@given(y=vectors, h=vectors, alpha=alphas, eta=etas)
def test_zero_gradient_is_safe(x64, y, h, alpha, eta):
    zero = np.zeros(SIZE)
    np.testing.assert_array_equal(same_batch(zero, y, alpha, eta), 0)
    step = independent_batch(zero, y, h, alpha, eta)
    np.testing.assert_allclose(step, -alpha * eta * h, rtol=1e-13)
