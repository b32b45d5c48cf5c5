"""The multi-level estimator against one level, a NumPy reference, and exactness."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from references import compositional_loops as reference

from stochopt.compositional import (
    adaptive_log_moving_average,
    delayed,
    estimate_compositional,
    estimate_multi_level,
    extrapolated,
    log_moving_average,
    moving_average,
    recursive_tracker,
)

with_x64 = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])

SIZES = (5, 4, 3, 2)
RNG = np.random.default_rng(0)
MATRICES = [RNG.standard_normal((m, n)) / np.sqrt(n) for n, m in itertools.pairwise(SIZES)]
START, TARGET = RNG.standard_normal(SIZES[0]), RNG.standard_normal(SIZES[-1])
SHAPES = [jax.ShapeDtypeStruct((m,), jnp.float64) for m in SIZES[1:]]


def level(number, module):
    """``tanh((A + E) y)`` with the draw ``E`` of this level's own part of a batch."""
    return lambda y, batch: module.tanh((MATRICES[number] + batch[number]) @ y)


def jacobian(number):
    of = level(number, np)
    return lambda y, batch: (1 - of(y, batch) ** 2)[:, None] * (MATRICES[number] + batch[number])


LEVELS = [level(number, jnp) for number in range(3)]


def outer(y, x, batch):
    return jnp.sum((y - TARGET) ** 2) + jnp.sum(jnp.cos(y))


def outer_with_params(y, x, batch):
    return outer(y, x, batch) + jnp.sum(batch[0]) * jnp.sum(x**2)


def draws(seed, num_steps, noise=0.3):
    rng = np.random.default_rng(seed)
    return [noise * rng.standard_normal((num_steps, *a.shape)) for a in MATRICES]


@functools.partial(jax.jit, static_argnums=0)
def along(estimator, path, batches, others=None):
    """Directions and states of an estimator along ``path``."""

    def body(state, inputs):
        x, batch, other = inputs
        found, state = estimator.update(None, state, x, batch=batch, jacobian_batch=other)
        return state, (found, state)

    return jax.lax.scan(body, estimator.init(path[0]), (path, batches, others))[1]


def trajectory(estimator, rate, x, batches, others=None):
    @jax.jit
    def scan(x, batches, others):
        def body(carry, inputs):
            x, state = carry
            found, state = estimator.update(
                None, state, x, batch=inputs[0], jacobian_batch=inputs[1]
            )
            x = x - rate * found
            return (x, state), (x, state)

        return jax.lax.scan(body, (x, estimator.init(x)), (batches, others))[1]

    return scan(x, batches, others)


TRACKERS = {
    "moving_average": moving_average(0.3),
    "extrapolated": extrapolated(0.3),
    "recursive": recursive_tracker(0.3),
    "delayed": delayed(recursive_tracker(0.3)),
    "log": log_moving_average(0.3),
    "adaptive": adaptive_log_moving_average(0.3),
}


@pytest.mark.parametrize("independent", [False, True], ids=["shared", "independent"])
@pytest.mark.parametrize("name", TRACKERS)
def test_one_level_is_the_two_level_estimator(x64, name, independent):
    tracker, path = TRACKERS[name], np.random.default_rng(1).standard_normal((6, SIZES[0]))
    batches = draws(2, 6), draws(3, 6) if independent else None
    inner = lambda x, batch: {"a": LEVELS[0](x, batch), "b": jnp.sum(x)}
    last = lambda y, x, batch: jnp.sum(jnp.sin(y["a"])) * y["b"] + jnp.sum(batch[0]) * jnp.sum(x)
    shape = {"a": SHAPES[0], "b": jax.ShapeDtypeStruct((), jnp.float64)}
    one = estimate_multi_level([inner], last, trackers=tracker, inner_shapes=[shape])
    same = estimate_compositional(inner, last, tracker=tracker, inner_shape=shape)
    found, state = along(one, path, *batches)
    expected, other = along(same, path, *batches)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(state.estimated_value, other.estimated_value)
    for key in shape:
        np.testing.assert_array_equal(state.tracked_values[0][key], other.tracked_value[key])
    assert (state.previous_points[0] is None) == (other.previous_params is None)
    if other.previous_params is not None:
        np.testing.assert_array_equal(state.previous_points[0], other.previous_params)


def decaying(count):
    return 0.4 / (1 + count) ** 0.5


@pytest.mark.parametrize("independent", [False, True], ids=["shared", "independent"])
@pytest.mark.parametrize("rate", [0.2, decaying], ids=["number", "schedule"])
def test_three_levels_equal_the_reference(x64, rate, independent):
    num_steps = 30
    batches = draws(4, num_steps)
    others = draws(5, num_steps) if independent else None
    estimator = estimate_multi_level(
        LEVELS, outer, trackers=recursive_tracker(rate), inner_shapes=SHAPES
    )
    points, states = trajectory(estimator, 0.1, jnp.asarray(START), batches, others)
    by_step = reference.pairs(batches)
    expected = reference.multi_level_scsc(
        [level(number, np) for number in range(3)],
        [jacobian(number) for number in range(3)],
        lambda y: 2 * (y - TARGET) - np.sin(y),
        START,
        by_step,
        reference.pairs(others) if independent else by_step,
        0.1,
        rate,
    )
    for t, (x, values) in enumerate(expected):
        np.testing.assert_allclose(points[t], x, rtol=1e-10, atol=1e-11)
        for found, value in zip(states.tracked_values, values, strict=True):
            np.testing.assert_allclose(found[t], value, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(
            states.estimated_value[t], outer(values[-1], None, None), rtol=1e-10
        )


@with_x64
@given(seed=st.integers(0, 2**16), rate=st.floats(0.01, 1.0))
def test_without_noise_it_is_the_exact_gradient(x64, seed, rate):
    path = np.random.default_rng(seed).standard_normal((6, SIZES[0]))
    found, exact = noiseless(rate, path)
    np.testing.assert_allclose(found, exact, rtol=1e-11, atol=1e-13)


@jax.jit
def noiseless(rate, path):
    zeros = draws(0, 6, noise=0.0)
    estimator = estimate_multi_level(
        LEVELS, outer_with_params, trackers=recursive_tracker(rate), inner_shapes=SHAPES
    )
    zero = [z[0] for z in zeros]
    composed = lambda x: functools.reduce(lambda y, g: g(y, zero), LEVELS, x)
    exact = jax.vmap(jax.grad(lambda x: outer_with_params(composed(x), x, zero)))(path)
    return along(estimator, path, zeros)[0], exact


def test_each_level_has_its_own_tracker(x64):
    # The average lags in the middle; the recursive level above follows its tracked values.
    estimator = estimate_multi_level(
        LEVELS[:2],
        lambda y, x, batch: jnp.sum(y),
        trackers=[moving_average(0.3), recursive_tracker(0.3)],
        inner_shapes=SHAPES[:2],
    )
    path = np.random.default_rng(1).standard_normal((6, SIZES[0]))
    zeros = draws(0, 6, noise=0.0)
    _, state = along(estimator, path, zeros)
    below, above = map(np.asarray, state.tracked_values)
    expected = np.tanh(MATRICES[0] @ path[0])
    for t, x in enumerate(path):
        expected = expected + 0.3 * (np.tanh(MATRICES[0] @ x) - expected)
        np.testing.assert_allclose(below[t], expected, rtol=1e-12)
        np.testing.assert_allclose(above[t], np.tanh(MATRICES[1] @ below[t]), rtol=1e-12)
    assert state.previous_points[0] is None
    np.testing.assert_array_equal(state.previous_points[1], below)


def test_a_delayed_level_is_followed_at_the_value_in_use(x64):
    # The level above was last evaluated where the delayed one was used, not where it is kept.
    estimator = estimate_multi_level(
        LEVELS[:2],
        lambda y, x, batch: jnp.sum(y),
        trackers=[delayed(moving_average(0.3)), recursive_tracker(0.3)],
        inner_shapes=SHAPES[:2],
    )
    path = np.random.default_rng(1).standard_normal((6, SIZES[0]))
    _, state = along(estimator, path, draws(0, 6, noise=0.0))
    kept, above = map(np.asarray, state.tracked_values)
    in_use = np.concatenate([kept[:1], kept[:-1]])
    np.testing.assert_allclose(above, np.tanh(in_use @ MATRICES[1].T), rtol=1e-12)
    np.testing.assert_array_equal(state.previous_points[1], in_use)


def test_logarithmic_levels_equal_levels_of_values(x64):
    # exp of a sum, then a positive average of it, with and without logarithms in between.
    first = lambda x, batch: jnp.exp(LEVELS[0](x, batch))
    second = lambda y, batch: jnp.exp(batch[1]) @ y
    last = lambda y, x, batch: jnp.sum(jnp.log(y) * jnp.sqrt(y)) + jnp.sum(x)
    plain = estimate_multi_level(
        [first, second], last, trackers=moving_average(0.3), inner_shapes=SHAPES[:2]
    )
    logarithmic = estimate_multi_level(
        [LEVELS[0], lambda nu, batch: jnp.log(second(jnp.exp(nu), batch))],
        lambda nu, x, batch: last(jnp.exp(nu), x, batch),
        trackers=log_moving_average(0.3),
        inner_shapes=SHAPES[:2],
    )
    path, batches = np.random.default_rng(1).standard_normal((6, SIZES[0])), draws(2, 6)
    expected, state = along(plain, path, batches)
    found, other = along(logarithmic, path, batches)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    for nu, y in zip(other.tracked_values, state.tracked_values, strict=True):
        np.testing.assert_allclose(jnp.exp(nu), y, rtol=1e-11)


def test_first_touch_is_finite_where_the_levels_are():
    # Levels that are not finite at zero, where nothing has been evaluated.
    estimator = estimate_multi_level(
        [lambda x, z: jnp.log(x) + 3, lambda y, z: 1 / y],
        lambda y, x, z: jnp.sum(y),
        trackers=recursive_tracker(0.1),
        inner_shapes=2 * [jax.ShapeDtypeStruct((2,), jnp.float32)],
    )
    x = jnp.asarray([1.0, 2.0])
    state = estimator.init(x)
    for _ in range(2):
        found, state = estimator.update(None, state, x, batch=0.0)
        np.testing.assert_allclose(found, -1 / (jnp.log(x) + 3) ** 2 / x, rtol=1e-6)


def test_half_precision_levels_are_tracked_in_float32():
    estimator = estimate_multi_level(
        [lambda x, z: z * x, lambda y, z: z * y],
        lambda y, x, z: jnp.sum(y),
        trackers=recursive_tracker(1e-3),
        inner_shapes=2 * [jax.ShapeDtypeStruct((1,), jnp.bfloat16)],
    )
    x = jnp.ones(1, jnp.bfloat16)
    state = estimator.init(x)
    dtypes = jax.tree.map(lambda s: s.dtype, state)
    for z in (1.0, 2.0):
        found, state = estimator.update(None, state, x, batch=z)
        assert jax.tree.map(lambda s: s.dtype, state) == dtypes
    assert found.dtype == jnp.bfloat16
    assert [p.dtype for p in state.previous_points] == 2 * [jnp.bfloat16]
    np.testing.assert_allclose(state.tracked_values[0], 1.001, rtol=1e-6)  # 1 in bfloat16
    np.testing.assert_allclose(state.tracked_values[1], 1.001, rtol=1e-6)


def test_updates_follow_in_a_chain_and_donated_state():
    chained = optax.chain(
        estimate_multi_level(
            [lambda x, z: x, lambda y, z: y],
            lambda y, x, z: jnp.sum(y**2) / 2,
            trackers=recursive_tracker(0.5),
            inner_shapes=2 * [jax.ShapeDtypeStruct((2,), jnp.float32)],
        ),
        optax.scale_by_learning_rate(0.5),
    )
    x = jnp.ones(2)
    state = chained.init(x)
    step = jax.jit(lambda s, x: chained.update(None, s, x, batch=0.0), donate_argnums=0)
    for _ in range(3):  # levels that return their argument must not make buffers shared
        updates, state = step(state, x)
        x = x + updates
    np.testing.assert_allclose(x, 0.125)


# Errors.


def make(**arguments):
    defaults = {"trackers": moving_average(0.5), "inner_shapes": SHAPES}
    return estimate_multi_level(arguments.pop("inners", LEVELS), outer, **defaults | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inners": []}, "inners must hold at least one level"),
        ({"trackers": [moving_average(0.5)] * 2}, "trackers has 2 entries for 3 levels"),
        ({"inner_shapes": SHAPES[:1]}, "inner_shapes has 1 entries for 3 levels"),
    ],
)
def test_unequal_numbers_of_levels(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_wrong_shapes_name_the_level(x64):
    method = make(inner_shapes=[SHAPES[0], SHAPES[2], SHAPES[2]])
    batch = [z[0] for z in draws(0, 1)]
    update = lambda x: method.update(None, method.init(x), x, batch=batch)
    with pytest.raises(
        ValueError, match=r"inners\[1\] returned shapes \(3,\), but inner_shapes"
    ) as e:
        jax.eval_shape(update, START)
    assert "inner_shapes[1] says (2,)" in str(e.value)
    method = estimate_multi_level(
        LEVELS, lambda y, x, z: y, trackers=moving_average(0.5), inner_shapes=SHAPES
    )
    with pytest.raises(ValueError, match=r"outer must return a scalar, got shapes \(2,\)"):
        jax.eval_shape(update, START)


def test_missing_arguments_are_named(x64):
    method = make()
    state = method.init(START)
    with pytest.raises(TypeError, match=r"estimate_multi_level: .*'batch'"):
        method.update(None, state, START)
    with pytest.raises(ValueError, match=r"estimate_multi_level: .*params are missing"):
        method.update(None, state, batch=0.0)
    masked = {"a": jnp.ones(2), "b": optax.MaskedNode()}
    with pytest.raises(TypeError, match="behind it, not around it"):
        method.update(None, state, masked, batch=0.0)
