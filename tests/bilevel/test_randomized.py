"""RSVRB: a NumPy reference, all blocks sampled, the error of the tracker, padding, bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bilevel import test_blockwise
from bilevel.test_blockwise import (
    CONSTANT,
    LOWER_START,
    NUM_BLOCKS,
    NUM_SAMPLED,
    NUM_STEPS,
    RATES,
    START,
    arrays,
    lower,
    random_draws,
    upper,
)
from jax.experimental import checkify
from references import rsvrb as reference

from stochopt import rsvrb
from stochopt.bilevel import estimate_blockwise, estimate_randomized, tracked_hessian
from stochopt.compositional import moving_average, msvr_tracker, recursive_tracker

FLOOR = 1.0
x64_start = lambda: jnp.asarray(START)


def optimizer_of(rates, floor=FLOOR, **options):
    options = {
        "lower_learning_rate": rates["tau"],
        "tracker_rate": rates["alpha"],
        "direction_rate": rates["beta"],
        "lower_params": jnp.asarray(LOWER_START),
        "num_blocks": NUM_BLOCKS,
        "num_sampled": NUM_SAMPLED,
    } | options
    return rsvrb(upper, lower, rates["eta"], hessian_floor=floor, **options)


def only_state(state):
    return (state,)


follow = functools.partial(test_blockwise.follow, read=only_state)


def short(rates):
    """Importance weights amplify the motion: shorter steps than for BSVRB."""
    scaled = lambda rate: (lambda t: rate(t) / 4) if callable(rate) else rate / 4
    return {k: scaled(r) if k in ("tau", "eta") else r for k, r in rates.items()}


def reference_run(rates, draws, floor=FLOOR, **options):
    method = reference.RandomizedBilevel(
        NUM_BLOCKS, NUM_SAMPLED, START, LOWER_START, floor=floor, **options
    )
    x, found = START, []
    for t, blocks in enumerate(draws["block_indices"]):
        at = {k: rate(t) if callable(rate) else rate for k, rate in rates.items()}
        rows = [
            (int(i), *(draws["batch"][k][t, j] for k in "ABcd"))
            for j, i in enumerate(blocks)
            if i < NUM_BLOCKS
        ]
        direction = method.step(x, rows, at["alpha"], at["beta"], at["tau"])
        x = x - at["eta"] * direction
        tracked = [np.stack([rows[k] for rows in method.tracked]) for k in "svHV"]
        found.append((x, method.value, method.y, *tracked))
    return method, [np.stack(part) for part in zip(*found, strict=True)]


def assert_equals_reference(run, wanted):
    points, state = run
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9)
    x, value, y, s, v, hessian, cross = wanted
    assert np.max(np.abs(x)) < 10  # nothing runs away, or the tolerance would mean nothing
    close(points, x)
    close(state.estimated_value, value)
    close(state.lower_params, y)
    close(state.tracked.lower_slope, s)
    close(state.tracked.upper_slope, v)
    close(state.tracked.hessian, hessian)
    close(np.swapaxes(state.tracked.cross, -1, -2), cross)


@pytest.mark.parametrize("rates", RATES)
def test_steps_equal_the_reference(x64, rates):
    # Block 5 is never sampled; the floor acts in some updates and not in others.
    rates, draws = short(RATES[rates]), random_draws(among=NUM_BLOCKS - 1)
    method, wanted = reference_run(rates, draws)
    assert 0.02 < np.mean(method.at_floor) < 0.98
    run = follow(optimizer_of(rates), x64_start(), arrays(draws))
    assert_equals_reference(run, wanted)
    _, state = run
    assert set(np.flatnonzero(state.visited[-1])) == method.visited == set(range(5))
    np.testing.assert_array_equal(state.lower_params[:, 5], np.tile(LOWER_START, (NUM_STEPS, 1)))
    assert all(not np.any(table[:, 5]) for table in jax.tree.leaves(state.tracked))


def test_damping_is_added_to_the_matrix(x64):
    rates, draws = short(CONSTANT), random_draws(3, 20, noise=0.03)
    _, wanted = reference_run(rates, draws, floor=None, damping=0.5)
    run = follow(optimizer_of(rates, floor=None, damping=0.5), x64_start(), arrays(draws))
    assert_equals_reference(run, wanted)


def test_a_first_visit_starts_with_the_sample_and_the_next_pays_for_the_others(x64):
    draws = random_draws(2, 1)
    draws = jax.tree.map(lambda x: np.repeat(x, 2, axis=0), draws)
    # The same sample twice, without motion: the second time it has the weight n / B.
    still = CONSTANT | {"tau": 0.0, "eta": 0.0}
    _, state = follow(optimizer_of(still, floor=None), x64_start(), arrays(draws))
    drawn = draws["block_indices"][0]
    drawn = drawn[drawn < NUM_BLOCKS]
    first, second = state.tracked.lower_slope[:, drawn]
    alpha, ratio = CONSTANT["alpha"], NUM_BLOCKS / NUM_SAMPLED
    np.testing.assert_allclose(second, (1 - alpha + ratio * alpha) * first, rtol=1e-12)
    assert np.all(first != 0)
    rest = np.setdiff1d(np.arange(NUM_BLOCKS), drawn)
    assert not np.any(state.tracked.lower_slope[:, rest])


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_padding_changes_nothing(x64, value):
    # Rows of zeros have a singular Hessian.
    draws = random_draws(9, 10)
    pad = lambda x, value: np.concatenate([x, np.full((10, 2, *x.shape[2:]), value, x.dtype)], 1)
    wider = {
        "block_indices": pad(draws["block_indices"], NUM_BLOCKS),
        "batch": jax.tree.map(lambda x: pad(x, value), draws["batch"]),
    }
    optimizer = optimizer_of(short(CONSTANT), floor=None)
    runs = [follow(optimizer, x64_start(), arrays(d)) for d in (draws, wider)]
    assert np.all(np.isfinite(runs[0][0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), *runs)


# Beside BSVRB.


NOISE = 0.5


def noisy(x, y, row):
    return y @ y / 2 - y @ (row["c"] + x)


def trackers(num_sampled, num_blocks=20, rate=0.2, slope=0.0, num_steps=2000):
    """Mean squared errors of both directions where the gradient is ``slope``, after a start."""
    above = lambda x, y, row: y @ y / 2
    options = {"lower_params": jnp.zeros(2), "num_blocks": num_blocks}
    both = (
        estimate_randomized(
            above,
            noisy,
            tracker=recursive_tracker(rate),
            num_sampled=num_sampled,
            learning_rate=0.0,
            direction_rate=1.0,
            **options,
        ),
        estimate_blockwise(
            above,
            noisy,
            tracked_hessian(noisy),
            tracker=msvr_tracker(rate, num_blocks=num_blocks, num_sampled=num_sampled),
            learning_rates=(0.0,),
            **options,
        ),
    )
    x = jnp.full(2, slope)
    rows = (lambda s: s.tracked.lower_slope, lambda s: s.moving.directions.lower_params)

    def body(states, key):
        for_blocks, for_noise = jax.random.split(key)
        blocks = jax.random.permutation(for_blocks, num_blocks)[:num_sampled]
        batch = {"c": NOISE * jax.random.normal(for_noise, (num_sampled, 2))}
        states = [
            e.update(None, s, x, batch=batch, block_indices=blocks)[1]
            for e, s in zip(both, states, strict=True)
        ]
        errors = [jnp.mean((of(s) + x) ** 2) for of, s in zip(rows, states, strict=True)]
        return states, (jnp.stack(errors), [of(s) for of, s in zip(rows, states, strict=True)])

    keys = jax.random.split(jax.random.key(0), num_steps)
    start = [e.init(x) for e in both]
    _, (errors, tables) = jax.jit(lambda s: jax.lax.scan(body, s, keys))(start)
    return np.mean(errors[num_steps // 10 :], axis=0), tables


def test_with_all_blocks_the_trackers_are_the_same():
    _, (randomized, blockwise) = trackers(20, slope=1.0, num_steps=50)
    np.testing.assert_allclose(randomized, blockwise, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("slope", [0.0, 0.7])
@pytest.mark.parametrize("num_sampled", [2, 5, 10])
def test_with_few_blocks_it_is_noisier(num_sampled, slope):
    (randomized, blockwise), _ = trackers(num_sampled, slope=slope)
    # n / B times; and zeros in the place of what was not sampled are noise where nothing vanishes.
    ratio = 20 / num_sampled
    wanted = ratio + (ratio - 1) * slope**2 / NOISE**2
    np.testing.assert_allclose(randomized / blockwise, wanted, rtol=0.15)
    rate = 0.2
    np.testing.assert_allclose(blockwise, rate / (2 - rate) * NOISE**2, rtol=0.1)


# Bad input.


def plain_estimator(**options):
    options = {
        "tracker": moving_average(0.1),
        "lower_params": jnp.zeros(2),
        "num_blocks": NUM_BLOCKS,
        "num_sampled": NUM_SAMPLED,
        "learning_rate": 0.1,
        "direction_rate": 0.5,
    } | options
    return estimate_randomized(upper, lower, **options)


def test_clear_errors_of_update():
    estimate, x = plain_estimator(check=True), jnp.asarray(START, jnp.float32)
    state = estimate.init(x)
    draw = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), random_draws(0, 1))
    update = lambda params=x, **changes: estimate.update(None, state, params, **(draw | changes))
    with pytest.raises(TypeError, match=r"estimate_randomized: .*'batch'"):
        update(batch=None)
    with pytest.raises(TypeError, match=r"estimate_randomized: .*'block_indices'"):
        update(block_indices=None)
    with pytest.raises(ValueError, match="params are missing"):
        update(None)
    no_axis = jax.tree.map(lambda leaf: leaf[0], draw["batch"])
    with pytest.raises(ValueError, match=r"^batch.* needs the leading axis of block_indices"):
        update(batch=no_axis)
    with pytest.raises(ValueError, match=r"^jacobian_batch.* needs the leading axis"):
        update(jacobian_batch=no_axis)
    with pytest.raises(checkify.JaxRuntimeError, match="block_indices must not repeat"):
        update(block_indices=jnp.array([0, 0, 1]))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"lower_learning_rate": -0.1}, "lower_learning_rate must"),
        ({"tracker_rate": 0.0}, "tracker_rate must"),
        ({"direction_rate": 0.0}, "direction_rate must"),
        ({"floor": 0.0}, "floor must"),
        ({"damping": -1.0}, "damping must"),
        ({"num_blocks": 0}, "num_blocks must"),
        ({"num_sampled": 0}, "num_sampled must"),
        ({"num_sampled": 7}, "num_sampled=7 is more than num_blocks=6"),
    ],
)
def test_clear_errors_of_hyper_parameters(options, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        optimizer_of(CONSTANT, **options)


@pytest.mark.usefixtures("strict")
def test_no_silent_promotion():
    floats = lambda x: x if x.dtype == np.int32 else x.astype(np.float32)
    draws = jax.tree.map(floats, random_draws(0, 3))
    optimizer = optimizer_of(CONSTANT, lower_params=jnp.asarray(LOWER_START, jnp.float32))
    points, _ = follow(optimizer, jnp.asarray(START, jnp.float32), arrays(draws))
    assert points.dtype == jnp.float32
