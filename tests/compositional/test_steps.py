"""Averaged directions, proximal steps and averaged projections against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stochopt.compositional import average_direction, averaged_projection, proximal_step

with_x64 = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**16)


def tree(rng):
    return {"a": jnp.asarray(rng.standard_normal(3)), "b": (jnp.asarray(rng.standard_normal()),)}


def assert_trees(found, expected, **tolerances):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerances), found, expected)


# Averaged directions.


@with_x64
@given(seed=seeds, rate=st.floats(0.01, 1.0))
def test_average_direction_is_optax_ema_started_at_the_first(x64, seed, rate):
    rng = np.random.default_rng(seed)
    method, other = average_direction(rate), optax.ema(1 - rate, debias=False)
    first = tree(rng)
    state, other_state = method.init(first), other.init(first)._replace(ema=first)
    found, state = method.update(first, state)
    assert_trees(found, first, rtol=0)
    for _ in range(4):
        direction = tree(rng)
        found, state = method.update(direction, state)
        expected, other_state = other.update(direction, other_state)
        assert_trees(found, expected, rtol=1e-12, atol=1e-14)
        assert_trees(state.averaged_direction, found, rtol=0)


def test_average_direction_with_a_schedule(x64):
    method = average_direction(lambda count: 1 / (1.0 + count))
    draws = np.random.default_rng(0).standard_normal((6, 3))
    state = method.init(jnp.zeros(3))
    for t, draw in enumerate(draws):
        found, state = method.update(jnp.asarray(draw), state)
        np.testing.assert_allclose(found, draws[: t + 1].mean(axis=0), rtol=1e-12)


def test_the_first_direction_has_all_of_the_weight_of_any_schedule():
    method = average_direction(lambda count: 0.25)
    found, state = method.update(jnp.ones(2), method.init(jnp.zeros(2)))
    np.testing.assert_array_equal(found, 1.0)
    found, _ = method.update(jnp.full(2, 5.0), state)
    np.testing.assert_array_equal(found, 2.0)


# Proximal steps.


def soft_threshold(x, size):
    # Shrinks by the projection onto the dual ball.
    return x - np.clip(x, -size, size)


@with_x64
@given(seed=seeds, rate=st.floats(0.0, 3.0), weight=st.floats(0.0, 2.0))
def test_proximal_step_of_the_l1_norm(x64, seed, rate, weight):
    def prox(params, step):
        shrink = lambda x: jnp.sign(x) * jnp.maximum(jnp.abs(x) - step * weight, 0.0)
        return jax.tree.map(shrink, params)

    rng = np.random.default_rng(seed)
    params, direction = tree(rng), tree(rng)
    method = proximal_step(rate, prox)
    updates, _ = method.update(direction, method.init(params), params)
    expected = jax.tree.map(
        lambda x, d: soft_threshold(np.asarray(x - rate * d), rate * weight), params, direction
    )
    assert_trees(optax.apply_updates(params, updates), expected, atol=1e-14)


def test_proximal_step_of_no_term_is_gradient_descent(x64):
    rng = np.random.default_rng(0)
    params, direction = tree(rng), tree(rng)
    method = proximal_step(0.3, lambda params, step: params)
    updates, _ = method.update(direction, method.init(params), params)
    assert_trees(updates, optax.tree.scale(-0.3, direction), rtol=1e-12, atol=1e-15)


def test_proximal_step_with_a_schedule():
    seen = []

    def prox(params, step):
        seen.append(float(step))
        return params

    method, x = proximal_step(lambda count: 0.5**count, prox), jnp.ones(2)
    state = method.init(x)
    for t in range(4):
        updates, state = method.update(jnp.ones(2), state, x)
        np.testing.assert_allclose(updates, -(0.5**t), rtol=1e-6)
    assert seen == [1.0, 0.5, 0.25, 0.125]  # the prox gets the step of the gradient


@with_x64
@given(seed=seeds, rate=st.floats(0.01, 10.0))
def test_projected_steps_are_feasible(x64, seed, rate):
    rng = np.random.default_rng(seed)
    x, ball = jnp.zeros(4), optax.projections.projection_l2_ball
    method = proximal_step(rate, lambda params, step: ball(params, 0.7))
    state = method.init(x)
    for direction in rng.standard_normal((5, 4)):
        free = x - rate * direction
        updates, state = method.update(jnp.asarray(direction), state, x)
        x = x + updates
        assert np.linalg.norm(x) <= 0.7 * (1 + 1e-14)
        inside = min(1.0, 0.7 / np.linalg.norm(free))
        np.testing.assert_allclose(x, inside * free, atol=1e-13)


# Averaged projections.


def onto_simplex(x):
    """By bisection of the shift."""
    low, high = x.min() - 1.0, x.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(x - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(x - low, 0)


@with_x64
@given(seed=seeds, tau=st.floats(0.01, 1.0), rate=st.floats(0.1, 10.0), size=st.integers(2, 6))
def test_averaged_projection_stays_in_the_simplex(x64, seed, tau, rate, size):
    rng = np.random.default_rng(seed)
    x = rng.dirichlet(np.ones(size))
    method = averaged_projection(tau, optax.projections.projection_simplex, learning_rate=rate)
    state = method.init(x)
    for direction in 5 * rng.standard_normal((5, size)):
        expected = x + tau * (onto_simplex(x - rate * direction) - x)
        updates, state = method.update(jnp.asarray(direction), state, jnp.asarray(x))
        x = np.asarray(x + updates)
        np.testing.assert_allclose(x, expected, atol=1e-12)
        np.testing.assert_allclose(x.sum(), 1.0, rtol=1e-13)
        assert np.all(x >= -1e-15)


def test_averaged_projection_with_a_schedule():
    method = averaged_projection(lambda count: 1 / (1 + count), lambda x: x, learning_rate=0.5)
    x = jnp.ones(2)
    state = method.init(x)
    for t in range(4):
        updates, state = method.update(jnp.ones(2), state, x)
        np.testing.assert_allclose(updates, -0.5 / (1 + t), rtol=1e-6)


# Conventions.

STEPS = {
    "average_direction": lambda: average_direction(0.25),
    "proximal_step": lambda: proximal_step(0.1, lambda x, step: jnp.maximum(x, 0.0)),
    "averaged_projection": lambda: averaged_projection(0.5, lambda x: jnp.maximum(x, 0.0)),
}
SCHEDULED = {
    "average_direction": lambda: average_direction(optax.constant_schedule(jnp.float32(0.25))),
    "proximal_step": lambda: proximal_step(
        optax.constant_schedule(jnp.float32(0.1)), lambda x, step: jnp.maximum(x, 0 * step)
    ),
    "averaged_projection": lambda: averaged_projection(
        optax.constant_schedule(jnp.float32(0.5)), lambda x: jnp.maximum(x, 0.0)
    ),
}


@pytest.mark.parametrize("make", [STEPS, SCHEDULED], ids=["number", "schedule"])
@pytest.mark.parametrize("name", STEPS)
def test_half_precision(name, make):
    rng = np.random.default_rng(0)
    draws = [jnp.asarray(rng.standard_normal(50), jnp.bfloat16) for _ in range(4)]
    x, wide = draws[0], draws[0].astype(jnp.float32)
    method = make[name]()
    state, wide_state = method.init(x), method.init(wide)
    before = jax.tree.map(lambda s: s.dtype, state)
    for direction in draws[1:]:
        updates, state = method.update(direction, state, x)
        expected, wide_state = method.update(direction.astype(jnp.float32), wide_state, wide)
        assert updates.dtype == jnp.bfloat16
        assert jax.tree.map(lambda s: s.dtype, state) == before
        # To the precision of bfloat16 of the operands.
        np.testing.assert_allclose(np.float32(updates), expected, rtol=0.02, atol=0.03)


@pytest.mark.parametrize("name", ["proximal_step", "averaged_projection"])
def test_missing_params_are_named(name):
    method = STEPS[name]()
    with pytest.raises(ValueError, match=f"{name}: .*params are missing"):
        method.update(jnp.ones(2), method.init(jnp.ones(2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: average_direction(0.0), r"direction_rate must lie in \(0, 1\]"),
        (lambda: average_direction(1.5), r"direction_rate must lie in \(0, 1\]"),
        (lambda: proximal_step(-1.0, max), r"learning_rate must lie in \[0, inf\)"),
        (lambda: averaged_projection(0.0, abs), r"step must lie in \(0, 1\]"),
        (lambda: averaged_projection(1.5, abs), r"step must lie in \(0, 1\]"),
        (
            lambda: averaged_projection(0.5, abs, learning_rate=0.0),
            r"learning_rate must lie in \(0, inf\)",
        ),
    ],
)
def test_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
