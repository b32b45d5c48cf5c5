"""The recursive tracker: exactness identities, first touch, rates, error of stationary noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stochopt.compositional import recursive_tracker

with_x64 = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@functools.partial(jax.jit, static_argnums=0)
def follow(inner, rate, path, noise):
    """Tracked values along ``path``, a row of ``noise`` a step."""
    tracker = recursive_tracker(rate)
    state = tracker.init(path[0], jax.eval_shape(inner, path[0], noise[0]))

    def body(carry, inputs):
        count, state = carry
        x, z = inputs
        inner_at = lambda point: inner(point, z)
        value, state = tracker.update(state, count, x, inner_at(x), inner_at)
        return (count + 1, state), value

    start = (jnp.zeros([], jnp.int32), state)
    return jax.lax.scan(body, start, (path, noise))[1]


def curved(x, z):
    return {"a": jnp.sin(3 * x) * jnp.sum(x**2), "b": (jnp.exp(x[0]), x[:2])}


def noisy(x, z):
    return jnp.sin(x) + z


@with_x64
@given(
    seed=st.integers(0, 2**16), rate=st.floats(1e-6, 1.0), reach=st.sampled_from([1e-3, 1.0, 30.0])
)
def test_without_noise_it_is_exact_for_any_rate_and_motion(x64, seed, rate, reach):
    path = reach * np.random.default_rng(seed).standard_normal((12, 3))
    tracked = follow(curved, rate, path, np.zeros(12))
    exact = jax.vmap(lambda x: curved(x, 0.0))(path)
    size = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(exact))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13 * size), tracked, exact
    )


@with_x64
@given(seed=st.integers(0, 2**16), rate=st.floats(0.01, 1.0))
def test_error_of_additive_noise_is_its_moving_average(x64, seed, rate):
    # Whatever the motion: the error is an average of the noise, started at the first draw.
    rng = np.random.default_rng(seed)
    path, noise = 10 * rng.standard_normal((12, 3)), rng.standard_normal((12, 3))
    error = np.asarray(follow(noisy, rate, path, noise)) - np.sin(path)
    expected = noise[0]
    for t in range(12):
        expected = (1 - rate) * expected + rate * noise[t] if t else noise[0]
        np.testing.assert_allclose(error[t], expected, atol=1e-12)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_stationary_variance(x64, rate):
    rng = np.random.default_rng(0)
    path, noise = rng.standard_normal((6000, 8)), 0.3 * rng.standard_normal((6000, 8))
    error = (np.asarray(follow(noisy, rate, path, noise)) - np.sin(path))[500:]
    expected = rate * 0.3**2 / (2 - rate)
    np.testing.assert_allclose(np.var(error), expected, rtol=0.12)
    # A moving average without correction would be misled by the motion.
    assert expected < 0.1 * np.var(np.sin(path))


def test_first_touch_takes_the_sample():
    # Even where the inner function is not finite at zero, where the old point is initialized.
    inner = lambda x, z: jnp.log(x) + z
    tracker = recursive_tracker(0.1)
    x = jnp.asarray([1.0, 2.0])
    state = tracker.init(x, jax.ShapeDtypeStruct((2,), jnp.float32))
    inner_at = lambda point: inner(point, 5.0)
    value, state = tracker.update(state, jnp.asarray(0), x, inner_at(x), inner_at)
    np.testing.assert_array_equal(value, inner_at(x))
    np.testing.assert_array_equal(state.tracked_value, value)
    np.testing.assert_array_equal(state.previous_params, x)
    value, _ = tracker.update(state, jnp.asarray(1), x, inner_at(x), inner_at)
    assert np.all(np.isfinite(value))


def test_first_touch_forgets_whatever_the_state_held():
    tracker = recursive_tracker(0.1)
    x = jnp.asarray([1.0])
    state = tracker.init(x, jax.ShapeDtypeStruct((1,), jnp.float32))
    state = jax.tree.map(lambda s: s + jnp.nan, state)
    value, _ = tracker.update(state, jnp.asarray(0), x, 2 * x, lambda point: 2 * point)
    np.testing.assert_array_equal(value, 2.0)


def test_rate_schedule_sees_the_count():
    seen = []

    def rate(count):
        seen.append(int(count))
        return 1.0 / (1 + count)

    tracker = recursive_tracker(rate)
    x = jnp.asarray(0.0)
    state = tracker.init(x, jax.ShapeDtypeStruct((), jnp.float32))
    draws = [4.0, 2.0, 9.0, 1.0]
    for t, z in enumerate(draws):
        inner_at = lambda point, z=z: point + z
        value, state = tracker.update(state, jnp.asarray(t), x, inner_at(x), inner_at)
        np.testing.assert_allclose(value, np.mean(draws[: t + 1]), rtol=1e-6)  # of weights 1 / t
    assert sorted(set(seen)) == [0, 1, 2, 3]


@with_x64
@given(seed=st.integers(0, 2**16))
def test_rate_one_takes_every_sample(x64, seed):
    rng = np.random.default_rng(seed)
    path, noise = rng.standard_normal((12, 3)), rng.standard_normal((12, 3))
    np.testing.assert_array_equal(
        follow(noisy, 1.0, path, noise), jax.jit(jax.vmap(noisy))(path, noise)
    )


def test_half_precision_is_tracked_in_float32():
    tracker = recursive_tracker(1e-3)
    x = jnp.asarray([1.0], jnp.bfloat16)
    state = tracker.init(x, jax.ShapeDtypeStruct((1,), jnp.bfloat16))
    assert state.tracked_value.dtype == jnp.float32
    assert state.previous_params.dtype == jnp.bfloat16
    for t, z in enumerate([1.0, 2.0]):
        inner_at = lambda point, z=z: z * point
        value, state = tracker.update(state, jnp.asarray(t), x, inner_at(x), inner_at)
    np.testing.assert_allclose(value, 1.001, rtol=1e-6)  # 1 in bfloat16
    assert value.dtype == jnp.float32


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=r"tracker_rate must lie in \(0, 1\]"):
        recursive_tracker(rate)


def test_rate_one_and_traced_rates_pass():
    recursive_tracker(1.0)
    jax.jit(lambda rate: recursive_tracker(rate).init(rate, rate))(0.5)
