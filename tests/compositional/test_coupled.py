"""The coupled estimator, SOX and MSVR: a NumPy reference, identities, state, bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.experimental import checkify
from references import coupled as reference

from stochopt.compositional import (
    delayed,
    estimate_compositional,
    estimate_coupled,
    estimate_rows,
    log_moving_average,
    moving_average,
    msvr,
    msvr_tracker,
    recursive_tracker,
    sox,
)

with_x64 = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])

NUM_BLOCKS, NUM_SAMPLED, DIM, ROWS, NUM_STEPS = 7, 4, 3, 2, 8
RATE, DIRECTION_RATE, LEARNING_RATE = 0.3, 0.4, 0.05
START = np.asarray([0.5, -1.0, 2.0])
START32 = START.astype(np.float32)


def inner(x, batch):
    return batch["slope"] @ x + batch["shift"]


def outer(y, x, batch):
    return 0.5 * jnp.sum((y - batch["target"]) ** 2) + 0.05 * jnp.sum(x**2)


def shape(dtype=jnp.float64):
    return jax.ShapeDtypeStruct((ROWS,), dtype)


TRACKERS = {
    "average": moving_average(RATE),
    "msvr": msvr_tracker(RATE, num_blocks=NUM_BLOCKS, num_sampled=NUM_SAMPLED),
}
CORRECTIONS = {
    "average": 0.0,
    "msvr": reference.msvr_correction(RATE, NUM_BLOCKS, NUM_SAMPLED),
}


def estimator(tracker="average", dtype=jnp.float64, **options):
    tracker = TRACKERS[tracker] if isinstance(tracker, str) else tracker
    options = {"inner_shape": shape(dtype), "num_blocks": NUM_BLOCKS} | options
    return estimate_coupled(inner, outer, tracker=tracker, **options)


def random_rows(rng, *leading):
    return {
        "slope": rng.standard_normal((*leading, ROWS, DIM)),
        "shift": rng.standard_normal((*leading, ROWS)),
        "target": rng.standard_normal((*leading, ROWS)),
    }


def random_draw(rng, least=0, junk=1e3):
    """A few blocks in any order among padding, whose rows hold junk."""
    count = rng.integers(least, NUM_SAMPLED + 1)
    blocks = np.full(NUM_SAMPLED, NUM_BLOCKS)
    blocks[:count] = rng.permutation(NUM_BLOCKS)[:count]
    blocks = rng.permutation(blocks)
    batch = random_rows(rng, NUM_SAMPLED)
    for leaf in batch.values():
        leaf[blocks == NUM_BLOCKS] *= junk
    return {"block_indices": blocks.astype(np.int32), "batch": batch}


def random_draws(seed, which, **options):
    """For each step the extra arguments, stacked: one set of blocks, or two that overlap."""
    rng, draws = np.random.default_rng(seed), []
    for _ in range(NUM_STEPS):
        draw = random_draw(rng, **options)
        if which == "batch":
            draw["jacobian_batch"] = random_rows(rng, NUM_SAMPLED)
        if which == "blocks":
            draw |= {f"jacobian_{k}": v for k, v in random_draw(rng, **options).items()}
        draws.append(draw)
    return draws


def stacked(draws):
    return jax.tree.map(lambda *xs: jnp.stack([jnp.asarray(x) for x in xs]), *draws)


def rows_of(batch, blocks):
    return [
        (int(i), *(batch[k][j] for k in ("slope", "shift", "target"))) for j, i in enumerate(blocks)
    ]


@functools.partial(jax.jit, static_argnums=0)
def follow(optimizer, x, draws):
    """Points, updates and states after each step; the point moves along the updates."""

    def body(carry, draw):
        x, state = carry
        updates, state = optimizer.update(None, state, x, **draw)
        x = optax.apply_updates(x, updates)
        return (x, state), (x, updates, state)

    return jax.lax.scan(body, (x, optimizer.init(x)), draws)[1]


def reference_steps(method, draws, weight=None):
    """Points, directions, values and tables; ``weight`` averages the direction."""
    x, averaged, found = START, None, []
    for draw in draws:
        own = rows_of(draw["batch"], draw["block_indices"])
        other = None
        if "jacobian_batch" in draw:
            blocks = draw.get("jacobian_block_indices", draw["block_indices"])
            other = rows_of(draw["jacobian_batch"], blocks)
        direction = method.step(x, own, other)
        if weight is not None:
            averaged = direction if averaged is None else averaged
            direction = averaged = (1 - weight) * averaged + weight * direction
        x = x - LEARNING_RATE * direction
        found.append((x, direction, method.value, dict(method.table)))
    return found


@functools.cache
def walking(tracker, direction_rate):
    """The estimator, and a plain step to move along."""
    return optax.chain(estimator(tracker, direction_rate=direction_rate), optax.sgd(LEARNING_RATE))


@pytest.mark.parametrize("which", ["one set", "batch", "blocks"])
@pytest.mark.parametrize("direction_rate", [None, DIRECTION_RATE])
@pytest.mark.parametrize("tracker", TRACKERS)
@with_x64
@given(seed=st.integers(0, 2**32 - 1))
def test_steps_equal_the_reference(x64, tracker, direction_rate, which, seed):
    draws = random_draws(seed, which)
    points, updates, (state, *_) = follow(
        walking(tracker, direction_rate), jnp.asarray(START), stacked(draws)
    )
    method = reference.CoupledLeastSquares(NUM_BLOCKS, RATE, CORRECTIONS[tracker], direction_rate)
    for t, (x, direction, value, table) in enumerate(reference_steps(method, draws)):
        close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)
        size = 1 + np.max(np.abs(direction))
        close(points[t], x, atol=1e-10 * size)
        close(updates[t], -LEARNING_RATE * direction, atol=1e-10 * size)
        close(state.estimated_value[t], value)
        assert set(np.flatnonzero(state.visited[t])) == set(table)
        for block in range(NUM_BLOCKS):
            close(state.tracked_value[t, block], table.get(block, np.zeros(ROWS)))


@pytest.mark.parametrize("name", ["sox", "msvr"])
@pytest.mark.parametrize("which", ["one set", "blocks"])
def test_chains_equal_the_reference(x64, name, which):
    options = {
        "tracker_rate": RATE,
        "direction_rate": DIRECTION_RATE,
        "inner_shape": shape(),
        "num_blocks": NUM_BLOCKS,
    }
    if name == "sox":
        optimizer = sox(inner, outer, LEARNING_RATE, **options)
        method = reference.CoupledLeastSquares(NUM_BLOCKS, RATE)
        weight = DIRECTION_RATE
    else:
        optimizer = msvr(inner, outer, LEARNING_RATE, num_sampled=NUM_SAMPLED, **options)
        method = reference.CoupledLeastSquares(
            NUM_BLOCKS, RATE, CORRECTIONS["msvr"], DIRECTION_RATE
        )
        weight = None
    draws = random_draws(5, which)
    points, _, _ = follow(optimizer, jnp.asarray(START), stacked(draws))
    wanted = [x for x, *_ in reference_steps(method, draws, weight)]
    np.testing.assert_allclose(points, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("wrong", ["correction", "swapped", "average"])
def test_control_wrong_variants_leave_the_reference(wrong):
    draws = random_draws(5, "blocks", least=NUM_SAMPLED)
    correction = CORRECTIONS["msvr"]
    arguments = (NUM_BLOCKS, RATE, correction, DIRECTION_RATE)
    right = reference.CoupledLeastSquares(*arguments)
    if wrong == "swapped":
        method = reference.CoupledLeastSquares(*arguments, swapped=True)
    else:
        correction = {"correction": 1 - RATE, "average": 0.0}[wrong]
        method = reference.CoupledLeastSquares(NUM_BLOCKS, RATE, correction, DIRECTION_RATE)
    right, found = ([x for x, *_ in reference_steps(m, draws)] for m in (right, method))
    np.testing.assert_array_equal(found[0], right[0])
    assert np.max(np.abs(np.subtract(found, right))) > 1e-3


# Identities.


def test_one_block_is_the_two_level_estimator(x64):
    draws = random_draws(1, "batch", least=NUM_SAMPLED)
    one = [
        {
            "block_indices": np.zeros(1, np.int32),
            "batch": jax.tree.map(lambda x: x[:1], draw["batch"]),
            "jacobian_batch": jax.tree.map(lambda x: x[:1], draw["jacobian_batch"]),
        }
        for draw in draws
    ]
    # The two-level outer function sees the batch, the coupled one that of the Jacobian.
    for draw in one:
        draw["jacobian_batch"]["target"] = draw["batch"]["target"]
    flat = [
        jax.tree.map(lambda x: x[0], {k: v for k, v in draw.items() if k != "block_indices"})
        for draw in one
    ]
    cases = [
        (moving_average(0.3), None),
        (recursive_tracker(0.2), 0.3),
        (delayed(moving_average(0.3)), None),
    ]
    for tracker, direction_rate in cases:
        options = {"tracker": tracker, "direction_rate": direction_rate, "inner_shape": shape()}
        coupled = estimate_coupled(inner, outer, num_blocks=1, **options)
        plain = estimate_compositional(inner, outer, **options)
        found, wanted = (
            follow(optax.chain(e, optax.sgd(LEARNING_RATE)), jnp.asarray(START), stacked(d))
            for e, d in ((coupled, one), (plain, flat))
        )
        np.testing.assert_allclose(found[0], wanted[0], rtol=1e-12)
        tables = found[2][0].tracked_value[:, 0], wanted[2][0].tracked_value
        np.testing.assert_allclose(*tables, rtol=1e-12)


def test_msvr_with_all_blocks_is_the_recursive_tracker(x64):
    rng = np.random.default_rng(2)
    draws = [
        {"block_indices": rng.permutation(4).astype(np.int32), "batch": random_rows(rng, 4)}
        for _ in range(NUM_STEPS)
    ]
    runs = [
        follow(
            optax.chain(estimator(tracker, num_blocks=4), optax.sgd(LEARNING_RATE)),
            jnp.asarray(START),
            stacked(draws),
        )[0]
        for tracker in (
            msvr_tracker(0.2, num_blocks=4, num_sampled=4),
            recursive_tracker(0.2),
            msvr_tracker(0.2, num_blocks=4, num_sampled=3),
        )
    ]
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-12)
    assert np.max(np.abs(runs[0] - runs[2])) > 1e-3


def test_rates_of_one_are_the_gradient_of_the_plug_in_loss(x64):
    optimizer = sox(
        inner,
        outer,
        LEARNING_RATE,
        tracker_rate=1.0,
        direction_rate=1.0,
        inner_shape=shape(),
        num_blocks=NUM_BLOCKS,
    )
    draws = stacked(random_draws(3, "one set", least=NUM_SAMPLED))
    points, updates, _ = follow(optimizer, jnp.asarray(START), draws)

    def plug_in(x, batch):
        return jnp.mean(jax.vmap(lambda b: outer(inner(x, b), x, b))(batch))

    before = jnp.concatenate([START[None], points[:-1]])
    gradients = jax.vmap(jax.grad(plug_in))(before, draws["batch"])
    np.testing.assert_allclose(updates, -LEARNING_RATE * gradients, rtol=1e-12)


@pytest.mark.parametrize("tracker", TRACKERS)
def test_rows_that_are_not_sampled_keep_their_bits(tracker):
    rng = np.random.default_rng(4)
    update, state, x = _float32(tracker)
    state = state._replace(
        tracked_value=jnp.asarray(rng.standard_normal((NUM_BLOCKS, ROWS)), jnp.float32),
        visited=jnp.asarray([True] * 6 + [False]),
        count=jnp.asarray(3, jnp.int32),
        previous_params=None if state.previous_params is None else 0.9 * x,
    )
    draw = _cast(random_draw(rng) | {"block_indices": np.asarray([5, 7, 2, 7], np.int32)})
    draw |= {
        f"jacobian_{k}": v
        for k, v in _cast(
            random_draw(rng) | {"block_indices": np.asarray([0, 6, 2, 7], np.int32)}
        ).items()
    }
    _, new = update(None, state, x, **draw)
    others = np.asarray([0, 1, 3, 4, 6])
    for name in ("tracked_value", "visited"):
        old_table, new_table = (np.asarray(getattr(s, name)) for s in (state, new))
        assert new_table[others].tobytes() == old_table[others].tobytes()
    assert np.all(
        new.tracked_value[jnp.asarray([2, 5])] != state.tracked_value[jnp.asarray([2, 5])]
    )


def _cast(draw, dtype=np.float32):
    floats = lambda x: x if np.issubdtype(x.dtype, np.integer) else x.astype(dtype)
    return jax.tree.map(floats, draw)


@functools.cache
def _float32(tracker="average", **options):
    estimate = estimator(tracker, jnp.float32, **options)
    x = jnp.asarray(START32)
    return jax.jit(estimate.update), estimate.init(x), x


@pytest.mark.parametrize("which", ["one set", "blocks"])
def test_the_order_of_blocks_does_not_matter(x64, which):
    optimizer = walking("msvr", DIRECTION_RATE)
    draws = random_draws(6, which)
    order = np.random.default_rng(0).permutation(NUM_SAMPLED)
    turned = [jax.tree.map(lambda x: x[order], draw) for draw in draws]
    runs = [follow(optimizer, jnp.asarray(START), stacked(d)) for d in (draws, turned)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), *runs)


# Logarithms.


def log_inner(x, batch):
    return jax.nn.logsumexp(batch @ x) - jnp.log(batch.shape[0])


def log_outer(nu, x, batch):
    del batch
    return nu + 0.01 * jnp.sum(x**2)


@pytest.mark.parametrize("which", ["one set", "blocks"])
def test_logarithms_in_the_table_are_averages_of_exponentials(x64, which):
    rng = np.random.default_rng(7)
    draws = []
    for _ in range(NUM_STEPS):
        draw = {}
        for name in ("", "jacobian_") if which == "blocks" else ("",):
            blocks = random_draw(rng)["block_indices"]
            draw |= {
                f"{name}block_indices": blocks,
                f"{name}batch": rng.standard_normal((NUM_SAMPLED, 5, DIM)),
            }
        draws.append(draw)
    options = {
        "inner_shape": jax.ShapeDtypeStruct((), jnp.float64),
        "num_blocks": NUM_BLOCKS,
    }
    logs = estimate_coupled(log_inner, log_outer, tracker=log_moving_average(0.3), **options)
    plain = estimate_coupled(
        lambda x, batch: jnp.exp(log_inner(x, batch)),
        lambda u, x, batch: log_outer(jnp.log(u), x, batch),
        tracker=moving_average(0.3),
        **options,
    )
    logs, plain = (
        follow(optax.chain(e, optax.sgd(0.3)), jnp.asarray(START), stacked(draws))
        for e in (logs, plain)
    )
    np.testing.assert_allclose(logs[0], plain[0], rtol=1e-10)
    seen = plain[2][0].visited
    np.testing.assert_allclose(
        jnp.where(seen, jnp.exp(logs[2][0].tracked_value), 0), plain[2][0].tracked_value, rtol=1e-10
    )


def test_exponents_of_hundreds_train_in_float32():
    # Offsets of the blocks do not change the gradient: the same path with and without.
    rng = np.random.default_rng(8)
    blocks = np.stack([rng.permutation(NUM_BLOCKS)[:NUM_SAMPLED] for _ in range(300)])
    noise = rng.standard_normal((300, NUM_SAMPLED, 5, DIM))
    paths = []
    for size in (0.0, 500.0):
        offsets = size * np.asarray([1, -1, 1, -1, 0, 1, -1])
        draws = {
            "block_indices": jnp.asarray(blocks, jnp.int32),
            "batch": (jnp.asarray(noise, jnp.float32), jnp.asarray(offsets[blocks], jnp.float32)),
        }
        optimizer = sox(
            lambda x, batch: log_inner(x, batch[0]) + batch[1],
            log_outer,
            0.1,
            tracker=log_moving_average,
            inner_shape=jax.ShapeDtypeStruct((), jnp.float32),
            num_blocks=NUM_BLOCKS,
        )
        x, _, state = follow(optimizer, jnp.asarray(START32), draws)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((x, state)))
        paths.append(x)
    np.testing.assert_allclose(paths[0], paths[1], atol=2e-2)
    assert np.linalg.norm(paths[1][-50:].mean(axis=0)) < 0.2 * np.linalg.norm(START)


@pytest.mark.parametrize("offset", [500.0, -500.0])
def test_exponents_of_hundreds_train_through_the_two_level_estimator(offset):
    batches = jnp.asarray(np.random.default_rng(9).standard_normal((300, 20, DIM)), jnp.float32)
    estimate = estimate_compositional(
        lambda x, batch: log_inner(x, batch) + offset,
        log_outer,
        tracker=log_moving_average(0.1),
        inner_shape=jax.ShapeDtypeStruct((), jnp.float32),
    )
    optimizer = optax.chain(estimate, optax.sgd(0.05))
    x, _, state = follow(optimizer, jnp.asarray(START32), {"batch": batches})
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((x, state)))
    assert np.linalg.norm(x[-1]) < 0.2 * np.linalg.norm(START)


# Padding.


@pytest.mark.parametrize("jacobian", [False, True])
def test_finite_padding_influences_nothing(jacobian):
    # Also where the last block, whose row padding might read, holds quite another exponent.
    estimate = estimate_coupled(
        lambda x, batch: jnp.sum(x) + batch,
        log_outer,
        tracker=log_moving_average(0.1),
        inner_shape=jax.ShapeDtypeStruct((), jnp.float32),
        num_blocks=3,
        direction_rate=0.5,
    )
    x = jnp.asarray(START32)
    state = estimate.init(x)._replace(
        count=jnp.asarray(1, jnp.int32),
        visited=jnp.ones(3, bool),
        tracked_value=jnp.asarray([1.0, 2.0, -500.0]),
        previous_params=x + 0.1,
    )
    own, other = jnp.asarray([1, 3], jnp.int32), jnp.asarray([3, 0], jnp.int32)
    found = []
    for own_junk, other_junk in ((0.0, 0.0), (300.0, -300.0), (-300.0, 300.0)):
        draw = {"block_indices": own, "batch": jnp.asarray([1.5, own_junk])}
        if jacobian:
            draw |= {
                "jacobian_block_indices": other,
                "jacobian_batch": jnp.asarray([other_junk, 0.5]),
            }
        found.append(jax.jit(estimate.update)(None, state, x, **draw))
    assert np.all(np.isfinite(found[0][0]))
    for later in found[1:]:
        jax.tree.map(np.testing.assert_array_equal, later, found[0])


def test_padding_alone_changes_nothing_but_the_count():
    update, state, x = _float32()
    draw = _cast(random_draw(np.random.default_rng(0)))
    draw["block_indices"] = np.full(NUM_SAMPLED, NUM_BLOCKS, np.int32)
    updates, new = update(None, state, x, **draw)
    np.testing.assert_array_equal(updates, 0.0)
    jax.tree.map(
        np.testing.assert_array_equal, new, state._replace(count=jnp.asarray(1, jnp.int32))
    )


# State.


def test_state_lives_apart_from_the_parameters_and_is_donated():
    estimate = estimator("msvr", jnp.float32, direction_rate=DIRECTION_RATE)
    update = jax.jit(
        lambda state, x, draw: estimate.update(None, state, x, **draw), donate_argnums=0
    )
    x = jnp.asarray(START32)
    state = estimate.init(x)
    for draw in random_draws(10, "blocks")[:2]:
        table, before = state.tracked_value, x.unsafe_buffer_pointer()
        updates, state = update(state, x, _cast(draw))
        assert table.is_deleted()
        buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state, updates))]
        assert len({before, *buffers}) == len(buffers) + 1
    _, state = estimate.update(None, state, x, **_cast(draw))  # an eager one may not alias either
    x.delete()
    assert np.all(np.isfinite(state.previous_params))


@pytest.mark.parametrize("tracker", TRACKERS)
def test_types_of_the_state_never_change(tracker):
    estimate = estimator(tracker, jnp.float32, direction_rate=DIRECTION_RATE)
    x = jnp.asarray(START32)
    abstract = jax.eval_shape(estimate.init, jax.ShapeDtypeStruct(x.shape, x.dtype))
    types = lambda tree: jax.tree.map(jax.typeof, tree)
    traces = []

    @jax.jit
    def update(state, x, draw):
        traces.append(None)
        return estimate.update(None, state, x, **draw)

    state = jax.jit(estimate.init)(x)
    assert types(state) == types(estimate.init(x)) == types(abstract)
    assert estimate.init(abstract.direction).tracked_value.shape == (NUM_BLOCKS, ROWS)
    for draw in random_draws(11, "blocks")[:3]:
        updates, new = update(state, x, _cast(draw))
        assert types(new) == types(state)
        assert types(updates) == types(x)
        x, state = optax.apply_updates(x, updates), new
    assert len(traces) == 1


def test_seeds_side_by_side():
    estimate = estimator("msvr", jnp.float32, direction_rate=DIRECTION_RATE)
    optimizer = optax.chain(estimate, optax.sgd(LEARNING_RATE))
    starts = jnp.asarray(np.random.default_rng(12).standard_normal((3, DIM)), jnp.float32)
    draws = [stacked([_cast(d) for d in random_draws(seed, "blocks")]) for seed in range(3)]
    together = jax.vmap(functools.partial(follow, optimizer))(starts, stacked(draws))[0]
    for i, draw in enumerate(draws):
        alone = follow(optimizer, starts[i], draw)[0]
        np.testing.assert_allclose(together[i], alone, rtol=2e-4, atol=1e-4)


def test_half_precision_is_tracked_in_float32():
    half = jnp.bfloat16
    estimate = estimator(moving_average(1e-3), half, direction_rate=0.5)
    x = jnp.asarray(START, half)
    state = estimate.init(x)
    assert state.tracked_value.dtype == state.estimated_value.dtype == jnp.float32
    assert state.previous_params.dtype == state.direction.dtype == half
    batch = {"slope": jnp.zeros((1, ROWS, DIM)), "target": jnp.zeros((1, ROWS))}
    for shift in (1.0, 2.0):
        draw = batch | {"shift": jnp.full((1, ROWS), shift)}
        draw = jax.tree.map(lambda x: x.astype(half), draw)
        updates, new = jax.jit(estimate.update)(
            None, state, x, batch=draw, block_indices=jnp.asarray([3])
        )
        assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
        assert updates.dtype == half
        state = new
    np.testing.assert_allclose(state.tracked_value[3], 1.001, rtol=1e-6)  # 1 in bfloat16


def test_injected_hyperparameters():
    def make(learning_rate, tracker_rate, direction_rate):
        return sox(
            inner,
            outer,
            learning_rate,
            tracker_rate=tracker_rate,
            direction_rate=direction_rate,
            inner_shape=shape(jnp.float32),
            num_blocks=NUM_BLOCKS,
        )

    rates = {"learning_rate": 0.05, "tracker_rate": 0.3, "direction_rate": 0.4}
    x = jnp.asarray(START32)
    draws = stacked([_cast(draw) for draw in random_draws(13, "one set")])
    injected = follow(optax.inject_hyperparams(make)(**rates), x, draws)[0]
    np.testing.assert_allclose(injected, follow(make(**rates), x, draws)[0], rtol=1e-5)


def test_schedules_see_the_count():
    falling = lambda count: 1 / (1 + count)
    rng = np.random.default_rng(14)
    samples = random_rows(rng, NUM_STEPS, 1)
    samples["slope"] *= 0
    draws = {"batch": _cast(samples), "block_indices": jnp.zeros((NUM_STEPS, 1), jnp.int32)}
    state = follow(estimator(moving_average(falling), jnp.float32), jnp.asarray(START32), draws)[2]
    mean = np.cumsum(samples["shift"][:, 0], axis=0) / np.arange(1, NUM_STEPS + 1)[:, None]
    np.testing.assert_allclose(state.tracked_value[:, 0], mean, rtol=1e-5)


# Bad input.


def good_draw(seed=0):
    rng = np.random.default_rng(seed)
    batch = _cast(random_rows(rng, NUM_SAMPLED))
    return {"block_indices": jnp.arange(NUM_SAMPLED), "batch": batch}


def without_axis(batch):
    return jax.tree.map(lambda x: x[0], batch)


BAD = {
    "no batch": (lambda d: d | {"batch": None}, TypeError, r"needs the keyword argument 'batch'"),
    "no indices": (
        lambda d: d | {"block_indices": None},
        TypeError,
        r"needs the keyword argument 'block_indices'.*block_indices=indices",
    ),
    "no batch of the Jacobian": (
        lambda d: d | {"jacobian_block_indices": d["block_indices"]},
        TypeError,
        r"needs the keyword argument 'jacobian_batch'",
    ),
    "floats": (
        lambda d: d | {"block_indices": jnp.ones(NUM_SAMPLED)},
        TypeError,
        r"block_indices must be a vector of integers, got float32\[4\]",
    ),
    "booleans": (
        lambda d: d | {"block_indices": jnp.ones(NUM_SAMPLED, bool)},
        TypeError,
        r"block_indices must be a vector of integers, got bool\[4\]",
    ),
    "rank two": (
        lambda d: d | {"block_indices": jnp.zeros((NUM_SAMPLED, 1), int)},
        TypeError,
        r"block_indices must be a vector of integers, got int32\[4, 1\]",
    ),
    "one number": (
        lambda d: d | {"block_indices": 3},
        TypeError,
        r"block_indices must be a vector of integers, got int32\[\]",
    ),
    "floats for the Jacobian": (
        lambda d: d | {"jacobian_batch": d["batch"], "jacobian_block_indices": jnp.ones(4)},
        TypeError,
        r"jacobian_block_indices must be a vector of integers",
    ),
    "no leading axis": (
        lambda d: d | {"batch": without_axis(d["batch"])},
        ValueError,
        r"^batch\['shift'\] of shape \(2,\) .* block_indices, of length 4",
    ),
    "no leading axis for the Jacobian": (
        lambda d: d | {"jacobian_batch": without_axis(d["batch"])},
        ValueError,
        r"^jacobian_batch\['shift'\] of shape \(2,\) .* of length 4",
    ),
    "a number in the batch": (
        lambda d: d | {"batch": d["batch"] | {"target": 1.0}},
        ValueError,
        r"^batch\['target'\] of shape \(\) .* of length 4",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    spoil, error, message = BAD[case]
    update, state, x = _float32()
    with pytest.raises(error, match=message):
        update(None, state, x, **spoil(good_draw()))


def test_params_are_missing():
    update, state, _ = _float32()
    with pytest.raises(ValueError, match="params are missing"):
        update(None, state, **good_draw())


@pytest.mark.parametrize(
    ("wrong_inner", "wrong_outer", "message"),
    [
        (
            lambda x, b: inner(x, b)[:1],
            outer,
            r"inner returned shapes \(4, 1\), but inner_shape, .* says \(4, 2\)",
        ),
        (inner, lambda y, x, b: y, r"outer must return a scalar, got shapes \(2,\)"),
        (inner, lambda y, x, b: jnp.sum(y)[None], r"outer must return a scalar, got shapes \(1,\)"),
    ],
)
def test_oracles_of_other_shapes_are_named(wrong_inner, wrong_outer, message):
    estimate = estimate_coupled(
        wrong_inner,
        wrong_outer,
        tracker=moving_average(0.1),
        inner_shape=shape(jnp.float32),
        num_blocks=NUM_BLOCKS,
    )
    x = jnp.asarray(START32)
    with pytest.raises(ValueError, match=message):
        estimate.update(None, estimate.init(x), x, **good_draw())


@pytest.mark.parametrize("wrong", [jnp.sum, lambda rows: rows[:, None]], ids=["sum", "column"])
def test_outer_rows_of_other_shapes_are_named(wrong):
    rows = lambda y, x, batch: wrong(jnp.sum(y**2, axis=1))
    estimate = estimate_rows(
        lambda x, batch: jax.vmap(inner, in_axes=(None, 0))(x, batch),
        rows,
        tracker=moving_average(0.1),
        inner_shape=shape(jnp.float32),
        num_blocks=NUM_BLOCKS,
    )
    x = jnp.asarray(START32)
    with pytest.raises(ValueError, match=r"outer returned shapes .*says \(4,\)"):
        estimate.update(None, estimate.init(x), x, **good_draw())


BAD_INDICES = {
    "negative": ([0, -1, 2, 3], "must lie in"),
    "too large": ([0, NUM_BLOCKS + 1, 2, 3], "must lie in"),
    "repeated": ([2, 5, 3, 2], "must not repeat a block"),
}


@pytest.mark.parametrize("name", ["", "jacobian_"])
@pytest.mark.parametrize("case", [None, *BAD_INDICES])
def test_check_finds_bad_indices(case, name):
    # Padding may repeat.
    indices, message = BAD_INDICES.get(case, ([2, NUM_BLOCKS, 0, NUM_BLOCKS], None))
    estimate = estimator("average", jnp.float32, check=True)
    x, draw = jnp.asarray(START32), good_draw()
    draw["jacobian_batch"] = draw["batch"]
    draw["jacobian_block_indices"] = draw["block_indices"]
    draw[f"{name}block_indices"] = jnp.asarray(indices)
    update = lambda state: estimate.update(None, state, x, **draw)[0]
    state = estimate.init(x)
    for wrap in (lambda f: f, jax.jit):
        error, _ = wrap(checkify.checkify(update))(state)
        if message is None:
            error.throw()
        else:
            with pytest.raises(checkify.JaxRuntimeError, match=f"{name}block_indices {message}"):
                error.throw()
    if message is not None:  # an eager step needs no wrapping
        with pytest.raises(checkify.JaxRuntimeError, match=message):
            update(state)


def test_without_check_bad_indices_do_what_is_documented():
    update, state, x = _float32()
    at = lambda *blocks: good_draw() | {"block_indices": jnp.asarray(blocks)}
    # Beyond the end is padding, and negative indices count from the end.
    for odd, even in (((0, 1, 2, 99), (0, 1, 2, NUM_BLOCKS)), ((0, 1, 2, -2), (0, 1, 2, 5))):
        found, wanted = update(None, state, x, **at(*odd)), update(None, state, x, **at(*even))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    # Of a repeated block one row is kept.
    draw = at(0, 3, 2, 3)
    _, new = update(None, state, x, **draw)
    rows = jax.vmap(inner, in_axes=(None, 0))(x, draw["batch"])
    assert any(np.allclose(new.tracked_value[3], rows[j]) for j in (1, 3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_blocks": 0}, "num_blocks must be a whole number"),
        ({"direction_rate": 0.0}, r"direction_rate must lie in \(0, 1\]"),
        ({"direction_rate": 1.5}, r"direction_rate must lie in \(0, 1\]"),
    ],
)
def test_hyperparameters_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        estimator(**options)


def test_chains_check_their_hyperparameters():
    common = {"inner_shape": shape(), "num_blocks": NUM_BLOCKS}
    with pytest.raises(ValueError, match=r"learning_rate must lie in \[0, inf\)"):
        sox(inner, outer, -0.1, **common)
    with pytest.raises(ValueError, match=r"learning_rate must lie in \[0, inf\)"):
        msvr(inner, outer, -0.1, num_sampled=2, **common)
    with pytest.raises(ValueError, match="num_sampled=8 is more than num_blocks=7"):
        msvr(inner, outer, num_sampled=8, **common)
    with pytest.raises(ValueError, match=r"tracker_rate must lie in \(0, 1\)"):
        msvr(inner, outer, num_sampled=2, tracker_rate=1.0, **common)
