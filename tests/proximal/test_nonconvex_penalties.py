"""MCP and SCAD: penalties by integration of their slopes, minimizers by search on a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stochopt.proximal import l1, mcp, plus_ridge, scad

GRID = np.linspace(0, 12, 60_001)
PENALTIES = {"mcp": mcp, "scad": scad}
#: Slopes at positive entries.
SLOPES = {
    "mcp": lambda x, weight, knee: np.maximum(weight - x / knee, 0),
    "scad": lambda x, weight, knee: np.where(
        x <= weight, weight, np.maximum(knee * weight - x, 0) / (knee - 1)
    ),
}
LONGEST = {"mcp": lambda knee: knee, "scad": lambda knee: knee - 1}
POINTS = np.linspace(-9, 9, 61)

with_x64 = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
names = pytest.mark.parametrize("name", PENALTIES)
weights = st.sampled_from([0.0, 0.3, 1.0, 2.0])
knees = st.sampled_from([1.5, 3.0, 3.7])


def integrated(name, weight, knee):
    """The penalty on the grid, by the trapezoidal rule."""
    slope = SLOPES[name](GRID, weight, knee)
    return np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(GRID))])


@names
@with_x64
@given(weight=weights, knee=knees)
def test_values(x64, name, weight, knee):
    value = jax.vmap(PENALTIES[name](weight, knee).value)
    expected = integrated(name, weight, knee)
    np.testing.assert_allclose(value(-GRID[::500]), expected[::500], atol=1e-4)


@names
@with_x64
@given(weight=weights, knee=knees, part=st.sampled_from([0.01, 0.3, 0.9, 0.999]))
def test_global_minimizers(x64, name, weight, knee, part):
    step = part * LONGEST[name](knee)
    cost = integrated(name, weight, knee) + (GRID - np.abs(POINTS)[:, None]) ** 2 / (2 * step)
    found = np.asarray(PENALTIES[name](weight, knee)(POINTS, step))
    assert np.all(found * POINTS >= 0)
    at_found = np.array([np.interp(p, GRID, c) for p, c in zip(np.abs(found), cost, strict=True)])
    assert np.all(at_found <= cost.min(axis=1) + 1e-6)


@names
def test_control_soft_thresholding_is_no_minimizer(x64, name):
    cost = integrated(name, 1.0, 3.0) + (GRID - 4.0) ** 2 / 2
    at = lambda operator: np.interp(float(operator(jnp.float64(4.0), 1.0)), GRID, cost)
    assert at(PENALTIES[name](1.0, 3.0)) <= cost.min() + 1e-6
    assert at(l1(1.0)) > cost.min() + 0.1


@names
def test_large_entries_stay(name):
    x = jnp.array([50.0, -1e6])
    np.testing.assert_array_equal(PENALTIES[name](1.0)(x, 1.0), x)


@names
def test_complex_entries_keep_their_phase(x64, name):
    operator = PENALTIES[name](1.0)
    turned = np.exp(0.7j) * POINTS
    np.testing.assert_allclose(
        operator(turned, 0.8), np.exp(0.7j) * operator(POINTS, 0.8), atol=1e-14
    )


@pytest.mark.parametrize(
    ("operator", "longest", "message"),
    [
        (mcp(1.0, 2.0), 2.0, r"mcp: the step must be less than gamma = 2.0, got"),
        (scad(1.0, 3.5), 2.5, r"scad: the step must be less than a - 1 = 2.5, got"),
        (plus_ridge(mcp(1.0, 2.0), 0.25), 4.0, r"mcp: the step must be less than gamma = 2.0"),
    ],
)
def test_steps_that_are_too_long(operator, longest, message):
    x = jnp.array([0.5, 5.0])
    for step in (longest, 2 * longest, np.float32(longest)):
        with pytest.raises(ValueError, match=message):
            operator(x, step)
        with pytest.raises(ValueError, match=message):
            jax.jit(lambda x, step=step: operator(x, step))(x)
    # A traced step cannot raise; what is not the minimizer is not returned.
    traced = jax.jit(operator)
    assert np.all(np.isnan(traced(x, longest)))
    assert np.all(np.isfinite(traced(x, 0.99 * longest)))
    np.testing.assert_array_equal(traced(x, 0.99 * longest), operator(x, 0.99 * longest))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: mcp(-1.0), r"weight must lie in \[0, inf\)"),
        (lambda: mcp(1.0, 0.0), r"gamma must lie in \(0, inf\)"),
        (lambda: scad(-1.0), r"weight must lie in \[0, inf\)"),
        (lambda: scad(1.0, 1.0), r"a must lie in \(1, inf\)"),
    ],
)
def test_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
