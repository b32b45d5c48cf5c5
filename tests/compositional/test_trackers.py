"""Trackers: exactness identities, first touch, rates, dtypes, the error of stationary noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.experimental import checkify

from stochopt.compositional import (
    Sample,
    adaptive_log_moving_average,
    delayed,
    estimate_compositional,
    extrapolated,
    log_moving_average,
    moving_average,
    msvr_tracker,
    recursive_tracker,
)

with_x64 = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds, rates = st.integers(0, 2**16), st.floats(0.01, 1.0)


def shifted(count):
    """A schedule that is not constant."""
    return 0.5 / (1 + count)


@functools.partial(jax.jit, static_argnums=(0, 1))
def follow(make, inner, rate, path, noise):
    """Values in use and values kept along ``path``, a row of ``noise`` a step."""
    tracker = make(rate)
    shape = jax.eval_shape(inner, path[0], noise[0])
    tracked = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), shape)

    def body(carry, inputs):
        count, tracked, previous = carry
        x, z = inputs
        inner_at = lambda point: inner(point, z)
        first = count == 0
        previous = jnp.where(first, x, previous) if tracker.keeps_previous else None
        value, tracked = tracker.update(
            tracked, Sample(inner_at(x), inner_at, x, previous, first, count)
        )
        return (count + 1, tracked, x), (value, tracked)

    start = (jnp.zeros([], jnp.int32), tracked, path[0])
    return jax.lax.scan(body, start, (path, noise))[1]


def used(make, inner, rate, path, noise):
    return follow(make, inner, rate, path, noise)[0]


def once(tracker, tracked, at, x, previous=None, first=False, count=1):
    """One update at ``x``."""
    previous = (x if previous is None else previous) if tracker.keeps_previous else None
    sample = Sample(at(x), at, x, previous, jnp.asarray(first), jnp.asarray(count))
    return tracker.update(tracked, sample)


def curved(x, z):
    return {"a": jnp.sin(3 * x) * jnp.sum(x**2), "b": (jnp.exp(x[0]), x[:2])}


def noisy(x, z):
    return jnp.sin(x) + z


MATRIX = np.array([[2.0, -1.0, 0.5], [0.3, 1.0, -4.0], [1.0, 1.0, 1.0]])


def linear(x, z):
    return MATRIX @ x + 1.0 + z


def walk(seed, num_steps=12, dim=3, reach=10.0):
    rng = np.random.default_rng(seed)
    return reach * rng.standard_normal((num_steps, dim)), rng.standard_normal((num_steps, dim))


def assert_trees(found, expected, **tolerances):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerances), found, expected)


# The recursive tracker.


@with_x64
@given(
    seed=st.integers(0, 2**16), rate=st.floats(1e-6, 1.0), reach=st.sampled_from([1e-3, 1.0, 30.0])
)
def test_without_noise_it_is_exact_for_any_rate_and_motion(x64, seed, rate, reach):
    path = reach * np.random.default_rng(seed).standard_normal((12, 3))
    tracked = used(recursive_tracker, curved, rate, path, np.zeros(12))
    exact = jax.vmap(lambda x: curved(x, 0.0))(path)
    size = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(exact))
    assert_trees(tracked, exact, rtol=1e-13, atol=1e-13 * size)


def averaged(rate, draws):
    """The moving average of ``draws`` started at the first, in NumPy."""
    rows = [draws[0]]
    for draw in draws[1:]:
        rows.append((1 - rate) * rows[-1] + rate * draw)
    return np.stack(rows)


@pytest.mark.parametrize(
    ("make", "inner"), [(recursive_tracker, noisy), (extrapolated, linear)], ids=["storm", "ahead"]
)
@with_x64
@given(seed=st.integers(0, 2**16), rate=st.floats(0.01, 1.0))
def test_error_of_additive_noise_is_its_moving_average(x64, make, inner, seed, rate):
    # Whatever the motion: the error is an average of the noise, started at the first draw.
    path, noise = walk(seed)
    exact = np.asarray(jax.vmap(lambda x: inner(x, 0.0))(path))
    error = np.asarray(used(make, inner, rate, path, noise)) - exact
    size = np.max(np.abs(exact)) / rate
    np.testing.assert_allclose(error, averaged(rate, noise), atol=1e-12 + 1e-15 * size)


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_stationary_variance(x64, rate):
    rng = np.random.default_rng(0)
    path, noise = rng.standard_normal((6000, 8)), 0.3 * rng.standard_normal((6000, 8))
    tracked = used(recursive_tracker, noisy, rate, path, noise)
    error = (np.asarray(tracked) - np.sin(path))[500:]
    expected = rate * 0.3**2 / (2 - rate)
    np.testing.assert_allclose(np.var(error), expected, rtol=0.12)
    # A moving average without correction would be misled by the motion.
    assert expected < 0.1 * np.var(np.sin(path))


@with_x64
@given(seed=st.integers(0, 2**16), rate=rates, slope=st.floats(-1, 2), shift=st.floats(-1, 1))
def test_correction_is_the_weight_on_the_difference(x64, seed, rate, slope, shift):
    path, noise = walk(seed)
    found = used_with_correction(rate, slope, shift, path, noise)
    expected = np.sin(path[0]) + noise[0]
    for t in range(1, len(path)):
        new, old = np.sin(path[t]) + noise[t], np.sin(path[t - 1]) + noise[t]
        weight = slope * rate + shift
        expected = (1 - rate) * expected + rate * new + weight * (new - old)
        np.testing.assert_allclose(found[t], expected, rtol=1e-12, atol=1e-11)


@jax.jit
def used_with_correction(rate, slope, shift, path, noise):
    make = lambda rate: recursive_tracker(rate, correction=lambda weight: slope * weight + shift)
    return follow(make, noisy, rate, path, noise)[0]


def without_correction(rate):
    return recursive_tracker(rate, correction=lambda weight: 0.0)


def corrected_by_default(rate):
    return recursive_tracker(rate, correction=lambda weight: 1 - weight)


def msvr_of_all(rate):
    return msvr_tracker(rate, num_blocks=7, num_sampled=7)


@pytest.mark.parametrize(
    ("make", "same"),
    [
        (corrected_by_default, recursive_tracker),
        (without_correction, moving_average),
        (msvr_of_all, recursive_tracker),
    ],
)
@with_x64
@given(seed=st.integers(0, 2**16), rate=st.floats(0.01, 0.99))
def test_special_cases_of_the_correction(x64, make, same, seed, rate):
    path, noise = walk(seed)
    found, expected = (used(which, noisy, rate, path, noise) for which in (make, same))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@with_x64
@given(rate=st.floats(0.01, 0.99), num_sampled=st.integers(1, 50), waiting=st.integers(0, 1000))
def test_msvr_cancels_the_cross_term(x64, rate, num_sampled, waiting):
    num_blocks = num_sampled + waiting
    tracker = msvr_tracker(rate, num_blocks=num_blocks, num_sampled=num_sampled)
    # The sample rises from -1 to 0: what is taken in is the weight on the difference.
    weight, _ = once(tracker, jnp.zeros([]), lambda x: x, jnp.zeros([]), -jnp.ones([]))
    sampled = num_sampled / num_blocks
    # In E delta: a sampled block has error (1 - rate) e + (weight - (1 - rate)) m, others e - m.
    cross = sampled * (1 - rate) * (weight - (1 - rate)) - (1 - sampled)
    np.testing.assert_allclose(cross, 0.0, atol=1e-12)
    # The formula of the paper.
    expected = (num_blocks - num_sampled) / (num_sampled * (1 - rate)) + (1 - rate)
    np.testing.assert_allclose(weight, expected, rtol=1e-12)


# The moving average and the extrapolated one.


@with_x64
@given(seed=st.integers(0, 2**16), rate=rates)
def test_moving_average_is_optax_ema_started_at_the_first_sample(x64, seed, rate):
    path, noise = walk(seed, reach=1.0)
    expected = ema_from_the_first(rate, jax.vmap(curved)(path, noise))
    found = used(moving_average, curved, rate, path, noise)
    assert_trees(found, expected, rtol=1e-12, atol=1e-12)


@jax.jit
def ema_from_the_first(rate, samples):
    average = optax.ema(1 - rate, debias=False)
    start = jax.tree.map(lambda s: s[0], samples)
    state = average.init(start)._replace(ema=start)
    _, rest = jax.lax.scan(
        lambda state, sample: average.update(sample, state)[::-1],
        state,
        jax.tree.map(lambda s: s[1:], samples),
    )
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), start, rest)


@with_x64
@given(seed=st.integers(0, 2**16), rate=st.floats(0.05, 1.0))
def test_extrapolation_forgets_an_error_of_a_linear_function(x64, seed, rate):
    # Only the first sample is wrong, by its noise.
    path, noise = walk(seed)
    noise[1:] = 0.0
    error = np.asarray(used(extrapolated, linear, rate, path, noise)) - np.asarray(
        jax.vmap(lambda x: linear(x, 0.0))(path)
    )
    for t in range(1, len(path)):
        np.testing.assert_allclose(error[t], (1 - rate) * error[t - 1], atol=1e-10)
    assert np.max(np.abs(error[0])) > 0


@with_x64
@given(seed=st.integers(0, 2**16), rate=st.floats(0.05, 1.0))
def test_extrapolated_samples_of_a_curved_function(x64, seed, rate):
    path, noise = walk(seed, reach=0.3)
    found = used(extrapolated, noisy, rate, path, noise)
    expected = np.sin(path[0]) + noise[0]
    for t in range(1, len(path)):
        ahead = (1 - 1 / rate) * path[t - 1] + path[t] / rate
        expected = (1 - rate) * expected + rate * (np.sin(ahead) + noise[t])
        np.testing.assert_allclose(found[t], expected, rtol=1e-11, atol=1e-11)


# In the log domain.


def positive(x, z):
    return {"a": jnp.exp(x + z), "b": jnp.sum(x**2) + jnp.exp(z[0])}


def log_positive(x, z):
    return jax.tree.map(jnp.log, positive(x, z))


@with_x64
@given(seed=st.integers(0, 2**16), rate=rates, reach=st.sampled_from([1.0, 30.0]))
def test_log_moving_average_is_the_logarithm_of_the_average(x64, seed, rate, reach):
    path, noise = walk(seed, reach=reach)
    found = used(log_moving_average, log_positive, rate, path, noise)
    samples = jax.tree.map(np.asarray, jax.vmap(positive)(path, noise))
    expected = jax.tree.map(lambda s: np.log(averaged(rate, s)), samples)
    assert_trees(found, expected, rtol=1e-12, atol=1e-12)


def itself(x, z):
    return x


@pytest.mark.parametrize("make", [log_moving_average, adaptive_log_moving_average])
@pytest.mark.parametrize("rate", [1e-3, 0.5, 1.0])
@pytest.mark.parametrize("size", [500.0, 1e4])
def test_extreme_exponents_stay_finite(make, rate, size):
    signs = np.array([1, -1, -1, 1, 1, -1, 0, 1], np.float32)
    path = size * np.stack([signs, -signs], axis=1)
    found = np.asarray(used(make, itself, rate, jnp.asarray(path), jnp.zeros(8)))
    assert found.dtype == np.float32
    weight, expected = rate, path[0].astype(np.float64)
    for t, row in enumerate(path):
        if t and make is adaptive_log_moving_average:
            # rate e^nu / (1 + rate e^nu), by logarithms
            odds = np.log(rate) + expected
            old, new = -np.logaddexp(0, odds) + expected, -np.logaddexp(0, -odds) + row
            expected = np.logaddexp(old, new)
        elif t:
            old = np.log1p(-weight) + expected if weight < 1 else np.full(2, -np.inf)
            expected = np.logaddexp(old, np.log(weight) + row)
        np.testing.assert_allclose(found[t], expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("make", [log_moving_average, adaptive_log_moving_average])
@with_x64
@given(seed=st.integers(0, 2**16), rate=rates)
def test_log_cotangent_is_the_gradient_of_the_composite(x64, make, seed, rate):
    # At the exact logarithm nu of the mean, averaged over the draws, for f of the logarithm.
    rng = np.random.default_rng(seed)
    x, draws = rng.standard_normal(3), rng.standard_normal((5, 3))
    found, exact = log_gradients(make, rate, x, draws)
    np.testing.assert_allclose(found, exact, rtol=1e-11, atol=1e-12)


@functools.partial(jax.jit, static_argnums=0)
def log_gradients(make, rate, x, draws):
    log_inner = lambda x, z: jnp.stack([jnp.dot(x, z), jnp.sum(jnp.sin(x) * z)])
    outer = lambda nu: jnp.sin(nu[0]) + nu[0] * nu[1] ** 2

    def log_mean(x):
        values = jax.vmap(lambda z: log_inner(x, z))(draws)
        return jax.nn.logsumexp(values, axis=0) - jnp.log(len(draws))

    tracker, nu = make(rate), log_mean(x)

    def through(z):
        sample, pullback = jax.vjp(lambda x: log_inner(x, z), x)
        return pullback(tracker.cotangent(nu, sample, jax.grad(outer)(nu)))[0]

    exact = jax.grad(lambda x: outer(log_mean(x)))(x)
    return jnp.mean(jax.vmap(through)(draws), axis=0), exact


@with_x64
@given(seed=st.integers(0, 2**16), rate=rates)
def test_log_cotangent_of_the_tracked_batch_is_bounded(x64, seed, rate):
    path, noise = walk(seed)
    tracker = log_moving_average(rate)
    found = used(log_moving_average, noisy, rate, path, noise)
    weight = tracker.cotangent(found, jax.vmap(noisy)(path, noise), jnp.ones_like(found))
    assert np.all(weight <= (1 + 1e-12) / rate)


@with_x64
@given(before=st.floats(-3, 3), sample=st.floats(-3, 3), weight=st.floats(-3, 3).map(np.exp))
def test_adaptive_rate_is_a_proximal_mirror_step(x64, before, sample, weight):
    # The divergence is that of e^-nu.
    def step(nu):
        divergence = np.exp(-nu) - np.exp(-before) + np.exp(-before) * (nu - before)
        return np.exp(sample - nu) + nu + divergence / weight

    expected = scipy.optimize.minimize_scalar(step, bracket=(-4, 4), tol=1e-12).x
    tracker = adaptive_log_moving_average(weight)
    found, _ = once(tracker, jnp.asarray(before), lambda x: x, jnp.asarray(sample))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@with_x64
@given(seed=st.integers(0, 2**16), odds=st.floats(0.01, 100.0))
def test_adaptive_rate_is_constant_where_the_weight_follows(x64, seed, odds):
    rng = np.random.default_rng(seed)
    nu = jnp.asarray(5 * rng.standard_normal())
    constant = log_moving_average(odds / (1 + odds))
    for sample in 5 * rng.standard_normal(6):
        adaptive = adaptive_log_moving_average(odds * jnp.exp(-nu))
        found, _ = once(adaptive, nu, lambda x: x, jnp.asarray(sample))
        expected, nu = once(constant, nu, lambda x: x, jnp.asarray(sample))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


LOG_DOMAIN = [
    functools.partial(log_moving_average, 0.5, check=True),
    functools.partial(adaptive_log_moving_average, 0.5, check=True),
]


@pytest.mark.parametrize("make", LOG_DOMAIN)
@pytest.mark.parametrize("value", [-jnp.inf, jnp.inf, jnp.nan])
def test_checked_samples(make, value):
    estimator = estimate_compositional(
        lambda x, z: x * 0 + z,
        lambda nu, x, z: jnp.sum(nu),
        tracker=make(),
        inner_shape=jax.ShapeDtypeStruct((2,), jnp.float32),
    )
    x = jnp.ones(2)
    update = jax.jit(checkify.checkify(lambda s, z: estimator.update(None, s, x, batch=z)))
    error, (_, state) = update(estimator.init(x), jnp.asarray([1.0, -500.0]))
    error.throw()
    error, _ = update(state, jnp.asarray([1.0, value]))
    with pytest.raises(checkify.JaxRuntimeError, match=r"inner: .*logarithm of positive finite"):
        error.throw()


def test_unchecked_samples_need_no_checkify():
    tracker = log_moving_average(0.5)
    update = jax.jit(lambda nu, x: once(tracker, nu, lambda x: x, x)[0])
    np.testing.assert_allclose(update(0.0, -jnp.inf), np.log(0.5), rtol=1e-6)


# Delay.

ALL = {
    "moving_average": moving_average,
    "extrapolated": extrapolated,
    "recursive": recursive_tracker,
    "msvr": functools.partial(msvr_tracker, num_blocks=6, num_sampled=2),
    "log": log_moving_average,
    "adaptive": adaptive_log_moving_average,
}


def delayed_moving_average(rate):
    return delayed(moving_average(rate))


def delayed_recursive(rate):
    return delayed(recursive_tracker(rate))


@pytest.mark.parametrize(
    ("make", "inside"),
    [(delayed_moving_average, moving_average), (delayed_recursive, recursive_tracker)],
)
def test_delayed_uses_what_was_kept_before(x64, make, inside):
    path, noise = walk(0)
    value, kept = follow(make, noisy, 0.3, path, noise)
    np.testing.assert_array_equal(kept, used(inside, noisy, 0.3, path, noise))
    np.testing.assert_array_equal(value[1:], kept[:-1])
    np.testing.assert_array_equal(value[0], kept[0])


def test_delayed_keeps_the_rest_of_the_tracker():
    tracker = log_moving_average(0.3)
    assert delayed(tracker).cotangent is tracker.cotangent
    assert delayed(recursive_tracker(0.3)).keeps_previous
    assert not delayed(tracker).keeps_previous


# First touch.


def test_first_touch_takes_the_sample():
    # Even where the inner function is not finite at zero, where the old point is initialized.
    inner = lambda x, z: jnp.log(x) + z
    x = jnp.asarray([1.0, 2.0])
    method = estimate_compositional(
        inner,
        lambda u, x, z: jnp.sum(u**2),
        tracker=recursive_tracker(0.1),
        inner_shape=jax.ShapeDtypeStruct((2,), jnp.float32),
    )
    found, state = method.update(None, method.init(x), x, batch=5.0)
    np.testing.assert_array_equal(state.tracked_value, inner(x, 5.0))
    np.testing.assert_array_equal(state.previous_params, x)
    np.testing.assert_allclose(found, 2 * inner(x, 5.0) / x, rtol=1e-6)
    found, state = method.update(None, state, x, batch=5.0)
    assert np.all(np.isfinite(state.tracked_value))
    assert np.all(np.isfinite(found))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("wrap", [lambda tracker: tracker, delayed], ids=["", "delayed"])
def test_first_touch_forgets_whatever_was_kept(name, wrap):
    tracker, x = wrap(ALL[name](0.1)), jnp.asarray([1.0])
    value, kept = once(tracker, jnp.nan * x, lambda point: 2 * point, x, jnp.nan * x, True, 0)
    np.testing.assert_array_equal(value, 2.0)
    np.testing.assert_array_equal(kept, 2.0)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("wrap", [lambda tracker: tracker, delayed], ids=["", "delayed"])
def test_first_touch_row_by_row(x64, name, wrap):
    rng = np.random.default_rng(0)
    tracker = wrap(ALL[name](0.3))
    at = lambda point: {"a": jnp.outer(point, point), "b": jnp.sin(point)}
    x, previous = jnp.asarray(rng.standard_normal((2, 4)))
    # Two rows are new, and hold what must not matter.
    new = np.array([True, False, True, False])
    old = jax.tree.map(lambda v: jnp.asarray(rng.standard_normal(v.shape)), at(x))
    dirty = jax.tree.map(lambda u: u.at[new].set(jnp.nan), old)
    found = once(tracker, dirty, at, x, previous, new)
    touched, fresh = (once(tracker, old, at, x, previous, first) for first in (False, True))
    for mixed, late, early in zip(found, touched, fresh, strict=True):
        for key in mixed:
            np.testing.assert_allclose(mixed[key][~new], late[key][~new], rtol=1e-14)
            np.testing.assert_array_equal(mixed[key][new], early[key][new])
            np.testing.assert_array_equal(mixed[key][new], at(x)[key][new])


# Rates and dtypes.


def test_rate_schedule_sees_the_count():
    seen = []

    def rate(count):
        seen.append(int(count))
        return 1.0 / (1 + count)

    tracker, x, tracked = recursive_tracker(rate), jnp.asarray(0.0), jnp.zeros([])
    draws = [4.0, 2.0, 9.0, 1.0]
    for t, z in enumerate(draws):
        value, tracked = once(tracker, tracked, lambda p, z=z: p + z, x, first=t == 0, count=t)
        np.testing.assert_allclose(value, np.mean(draws[: t + 1]), rtol=1e-6)  # of weights 1 / t
    assert sorted(set(seen)) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ALL)
def test_a_schedule_is_the_rate_at_its_count(x64, name):
    x, previous = jnp.asarray([0.4, 2.0]), jnp.asarray([0.3, -1.0])
    update = lambda rate: once(ALL[name](rate), x - 2, jnp.sin, x, previous, count=3)[0]
    np.testing.assert_allclose(update(shifted), update(0.125), rtol=1e-14)
    assert not np.allclose(update(shifted), update(0.5))


@with_x64
@given(seed=st.integers(0, 2**16))
def test_rate_one_takes_every_sample(x64, seed):
    path, noise = walk(seed, reach=1.0)
    samples = jax.jit(jax.vmap(noisy))(path, noise)
    np.testing.assert_array_equal(used(recursive_tracker, noisy, 1.0, path, noise), samples)
    for make in (moving_average, extrapolated, log_moving_average):
        found = used(make, noisy, 1.0, path, noise)
        np.testing.assert_allclose(found, samples, rtol=1e-13, atol=1e-13)


# One step of rate 1e-3 from 1 to 2, at a point that does not move.
IN_FLOAT32 = {
    "moving_average": 1.001,
    "extrapolated": 1.001,
    "recursive": 1.001,
    "msvr": 1.001,
    "log": np.log(0.999 * np.e + 0.001 * np.e**2),
    "adaptive": np.log((np.e + 1e-3 * np.e**3) / (1 + 1e-3 * np.e)),
}


@pytest.mark.parametrize("name", ALL)
def test_half_precision_is_tracked_in_float32(name):
    method = estimate_compositional(
        lambda x, z: z * x,
        lambda u, x, z: jnp.sum(u),
        tracker=ALL[name](1e-3),
        inner_shape=jax.ShapeDtypeStruct((1,), jnp.bfloat16),
    )
    x = jnp.asarray([1.0], jnp.bfloat16)
    state = method.init(x)
    for z in (1.0, 2.0):
        assert state.tracked_value.dtype == jnp.float32
        if state.previous_params is not None:
            assert state.previous_params.dtype == jnp.bfloat16
        direction, state = method.update(None, state, x, batch=z)
    assert direction.dtype == jnp.bfloat16
    # 1 in bfloat16; the mean is e (1 + a e^2) / (1 + a e) where the rate adapts.
    np.testing.assert_allclose(state.tracked_value, IN_FLOAT32[name], rtol=1e-6)
    value, kept = once(ALL[name](1e-3), jnp.ones(1), lambda x: 2 * x, x)
    assert value.dtype == kept.dtype == jnp.float32


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, float("nan")])
def test_rate_out_of_range(name, rate):
    if name == "adaptive":
        label, interval, good = "tracker_weight", "(0, inf)", rate > 0
    else:
        label, interval = "tracker_rate", "(0, 1)" if name == "msvr" else "(0, 1]"
        good = False
    if good:
        ALL[name](rate)
        return
    with pytest.raises(ValueError, match="must lie in") as error:
        ALL[name](rate)
    assert f"{label} must lie in {interval}" in str(error.value)


def test_msvr_needs_a_rate_below_one_and_no_more_draws_than_blocks():
    with pytest.raises(ValueError, match=r"tracker_rate must lie in \(0, 1\)"):
        msvr_tracker(1.0, num_blocks=3, num_sampled=2)
    with pytest.raises(ValueError, match="num_sampled=4 is more than num_blocks=3"):
        msvr_tracker(0.1, num_blocks=3, num_sampled=4)
    with pytest.raises(ValueError, match="num_sampled must be a whole number"):
        msvr_tracker(0.1, num_blocks=3, num_sampled=0)


@pytest.mark.parametrize("name", ALL)
def test_traced_rates_pass(name):
    x, previous = jnp.asarray([0.4]), jnp.asarray([0.3])
    update = lambda rate: once(ALL[name](rate), x, jnp.sin, x, previous)[0]
    np.testing.assert_allclose(jax.jit(update)(0.5), update(0.5), rtol=1e-6)


def test_rate_one_passes():
    for make in (moving_average, extrapolated, recursive_tracker, log_moving_average):
        make(1.0)
