"""BSVRB-v1 and -v2: a NumPy reference, lazy and dense motion, the clock, padding, bad input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import checkify
from references import bsvrb as reference

from stochopt import bsvrb_v1, bsvrb_v2
from stochopt.bilevel import block_variables, estimate_blockwise, tracked_hessian, tracked_solution
from stochopt.bilevel.motion import start_clock, tick
from stochopt.compositional import msvr_tracker, recursive_tracker

NUM_BLOCKS, NUM_SAMPLED, DIM, LOWER_DIM, NUM_STEPS = 6, 3, 3, 2, 60
START = np.asarray([0.5, -1.0, 0.8])
LOWER_START = np.asarray([0.3, -0.2])
FLOOR = 1.3
CONSTANT = {"alpha": 0.3, "beta": 0.4, "tau": 0.1, "tau_p": 0.15, "eta": 0.05}
SCHEDULED = {
    "alpha": lambda t: 0.4 / (1 + 0.02 * t),
    "beta": lambda t: 0.5 / (1 + 0.01 * t),
    "tau": lambda t: 0.15 / (1 + 0.03 * t),
    "tau_p": lambda t: 0.12 / (1 + 0.02 * t),
    "eta": lambda t: 0.08 / (1 + 0.02 * t),
}
RATES = {"constant": CONSTANT, "scheduled": SCHEDULED}


def lower(x, y, row):
    squared = y @ y
    couple = y @ (row["B"] @ x + row["c"])
    quartic = reference.QUARTIC * squared**2 / 4
    return y @ row["A"] @ y / 2 - couple + quartic + reference.MIXED * jnp.sum(x) * squared / 2


def upper(x, y, row):
    error = y - row["d"]
    return (error @ error + reference.RIDGE * x @ x) / 2


def random_draws(seed=0, num_steps=NUM_STEPS, among=NUM_BLOCKS, noise=0.1):
    """A few blocks in any order among padding; noisy data, junk in the rows of the padding."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((NUM_BLOCKS, LOWER_DIM, LOWER_DIM)) / 2
    base = {
        "A": root @ root.transpose(0, 2, 1) + np.eye(LOWER_DIM),
        "B": rng.standard_normal((NUM_BLOCKS, LOWER_DIM, DIM)) / 2,
        "c": rng.standard_normal((NUM_BLOCKS, LOWER_DIM)),
        "d": rng.standard_normal((NUM_BLOCKS, LOWER_DIM)),
    }
    blocks = np.full((num_steps, NUM_SAMPLED), NUM_BLOCKS, np.int32)
    for t in range(num_steps):
        count = rng.integers(1, NUM_SAMPLED + 1)
        places = rng.permutation(NUM_SAMPLED)[:count]
        blocks[t, places] = rng.permutation(among)[:count]
    padded = blocks == NUM_BLOCKS
    batch = {}
    for name, table in base.items():
        drawn = noise * rng.standard_normal((num_steps, NUM_SAMPLED, *table.shape[1:]))
        if name == "A":
            drawn = (drawn + np.swapaxes(drawn, -1, -2)) / 2
        # A negative definite junk matrix has no Cholesky factor.
        junk = -100.0 * np.eye(LOWER_DIM) if name == "A" else 100.0
        batch[name] = table[blocks % NUM_BLOCKS] + drawn
        batch[name][padded] = junk
    return {"block_indices": blocks, "batch": batch}


def arrays(draws):
    return jax.tree.map(jnp.asarray, draws)


def state_and_variables(state):
    return state, block_variables(state)


@functools.partial(jax.jit, static_argnums=(0, 3))
def follow(optimizer, x, draws, read=state_and_variables):
    """Points after each step, and what is read of the estimator's state."""

    def body(carry, draw):
        x, state = carry
        updates, state = optimizer.update(None, state, x, **draw)
        x = optax.apply_updates(x, updates)
        return (x, state), (x, *read(state[0]))

    return jax.lax.scan(body, (x, optimizer.init(x)), draws)[1]


def optimizer_of(version, rates, lazy=True, floor=FLOOR, radius=None, **options):
    options = {
        "lower_learning_rate": rates["tau"],
        "tracker_rate": rates["alpha"],
        "direction_rate": rates["beta"],
        "lower_params": jnp.asarray(LOWER_START),
        "num_blocks": NUM_BLOCKS,
        "num_sampled": NUM_SAMPLED,
        "lazy": lazy,
    } | options
    if version == 1:
        return bsvrb_v1(upper, lower, rates["eta"], hessian_floor=floor, **options)
    extra = {"adjoint_learning_rate": rates["tau_p"], "adjoint_radius": radius}
    return bsvrb_v2(upper, lower, rates["eta"], **extra, **options)


def reference_run(version, rates, draws, correction=None, floor=FLOOR, **options):
    """Points, values, directions' tables and variables before each update moved them."""
    method = reference.BlockwiseBilevel(
        NUM_BLOCKS, LOWER_START, tracks_hessian=version == 1, floor=floor, **options
    )
    x, found = START, []
    for t, blocks in enumerate(draws["block_indices"]):
        at = {k: rate(t) if callable(rate) else rate for k, rate in rates.items()}
        rows = [
            (int(i), *(draws["batch"][k][t, j] for k in "ABcd"))
            for j, i in enumerate(blocks)
            if i < NUM_BLOCKS
        ]
        gamma = correction
        if gamma is None:
            gamma = reference.msvr_correction(at["alpha"], NUM_BLOCKS, NUM_SAMPLED)
        steps = (at["tau"], at["tau_p"])
        direction = method.step(x, rows, at["alpha"], gamma, at["beta"], steps)
        x = x - at["eta"] * direction
        tables = (method.old_y, method.old_p, method.s.copy(), method.u.copy())
        found.append((x, method.value, *tables))
    return method, [np.stack(part) for part in zip(*found, strict=True)]


def assert_equals_reference(run, wanted, version, rtol=1e-9):
    points, state, variables = run
    close = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=rtol)
    x, value, y, p, s, u = wanted
    assert np.max(np.abs(x)) < 10  # nothing runs away, or the tolerance would mean nothing
    close(points, x)
    close(state.estimated_value, value)
    close(variables.lower_params, y)
    close(state.moving.directions.lower_params, s)
    if version == 2:
        close(variables.adjoint, p)
        close(state.moving.directions.adjoint, u)


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("version", [1, 2])
def test_lazy_and_dense_steps_equal_the_reference(x64, version, rates):
    # Block 5 is never sampled; the floor acts in some updates and not in others.
    rates, draws = RATES[rates], random_draws(among=NUM_BLOCKS - 1)
    method, wanted = reference_run(version, rates, draws)
    assert 0.05 < np.mean(method.at_floor) < 0.95
    runs = [
        follow(optimizer_of(version, rates, lazy), jnp.asarray(START), arrays(draws))
        for lazy in (True, False)
    ]
    for run in runs:
        assert_equals_reference(run, wanted, version)
        _, state, variables = run
        assert set(np.flatnonzero(state.visited[-1])) == method.visited == set(range(5))
        np.testing.assert_array_equal(
            variables.lower_params[:, 5], np.tile(LOWER_START, (NUM_STEPS, 1))
        )
        if version == 1:
            for i, matrix in method.hessian.items():
                np.testing.assert_allclose(state.matrices.hessian[-1, i], matrix, rtol=1e-9)
    (points, _, moved), (also, _, also_moved) = runs
    np.testing.assert_allclose(points, also, rtol=1e-10, atol=1e-10)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), moved, also_moved
    )


def test_without_a_floor_damping_is_added_to_the_matrix(x64):
    draws = random_draws(3, 30, noise=0.03)
    _, wanted = reference_run(1, CONSTANT, draws, floor=None, damping=0.5)
    optimizer = optimizer_of(1, CONSTANT, floor=None, damping=0.5)
    assert_equals_reference(follow(optimizer, jnp.asarray(START), arrays(draws)), wanted, 1)
    _, undamped = reference_run(1, CONSTANT, draws, floor=None)
    assert np.max(np.abs(wanted[0] - undamped[0])) > 1e-3


def test_the_hessian_has_a_rate_of_its_own(x64):
    draws = random_draws(4, 20)
    runs = [
        follow(
            optimizer_of(1, CONSTANT, correction=0.0, hessian_rate=rate, floor=None),
            jnp.asarray(START),
            arrays(draws),
        )[1]
        for rate in (None, 0.8)
    ]
    matrices = [run.matrices.hessian for run in runs]
    assert np.max(np.abs(matrices[0] - matrices[1])) > 1e-2
    jax.tree.map(np.testing.assert_array_equal, runs[0].moving.mark, runs[1].moving.mark)


def test_a_ball_acts_in_every_update_only_in_the_dense_form(x64):
    draws = random_draws(1)
    _, wanted = reference_run(2, CONSTANT, draws, radius=0.4)
    x, *_, p, _, _ = wanted
    norms = np.linalg.norm(p, axis=-1)
    assert np.isclose(norms, 0.4).any(axis=0).all()  # every block meets the ball
    assert (norms < 0.39)[30:].any()  # and is not stuck to it
    dense, lazy = (
        follow(optimizer_of(2, CONSTANT, lazy, radius=0.4), jnp.asarray(START), arrays(draws))
        for lazy in (False, True)
    )
    assert_equals_reference(dense, wanted, 2)
    assert np.max(np.abs(lazy[0] - x)) > 1e-4
    # Of the lazy form, what a sampled block becomes lies in the ball.
    for t, blocks in enumerate(draws["block_indices"]):
        rows = blocks[blocks < NUM_BLOCKS]
        kept = lazy[1].moving.variables.adjoint[t, rows]
        assert np.all(np.linalg.norm(kept, axis=-1) <= 0.4 + 1e-12)


@pytest.mark.parametrize("version", [1, 2])
def test_control_the_correction_is_not_that_of_plain_storm(version):
    draws = random_draws()
    _, right = reference_run(version, CONSTANT, draws)
    _, wrong = reference_run(version, CONSTANT, draws, correction=1 - CONSTANT["alpha"])
    # First visits know no correction.
    np.testing.assert_array_equal(wrong[0][0], right[0][0])
    assert np.max(np.abs(wrong[0] - right[0])) > 1e-3


@pytest.mark.parametrize("version", [1, 2])
def test_a_correction_of_ones_own_is_used(x64, version):
    draws = random_draws(2, 20)
    _, wanted = reference_run(version, CONSTANT, draws, correction=0.25)
    optimizer = optimizer_of(version, CONSTANT, correction=0.25)
    assert_equals_reference(follow(optimizer, jnp.asarray(START), arrays(draws)), wanted, version)


def test_an_independent_draw_of_the_blocks_serves_the_direction(x64):
    # Lower variables, and so the first direction's adjoint, follow the batch; the rest the other.
    draws = random_draws(5, 1)
    other = random_draws(6, 1)["batch"]
    at = lambda tree: jax.tree.map(lambda x: jnp.asarray(x[0]), tree)
    draw = at(draws)
    estimate = optimizer_of(1, CONSTANT, floor=None)
    x = jnp.asarray(START)
    state = estimate.init(x)
    update = jax.jit(estimate.update)
    plain, one = update(None, state, x, **draw)
    updates, two = update(None, state, x, **draw, jacobian_batch=at(other))
    jax.tree.map(np.testing.assert_array_equal, one[0].moving, two[0].moving)
    jax.tree.map(np.testing.assert_array_equal, one[0].matrices, two[0].matrices)
    wanted, count = np.zeros(DIM), 0
    for j, i in enumerate(draws["block_indices"][0]):
        if i == NUM_BLOCKS:
            continue
        mine, theirs = ([b[k][0, j] for k in "ABcd"] for b in (draws["batch"], other))
        hessian = reference.lower_hessian(START, LOWER_START, mine)
        p = np.linalg.solve(hessian, LOWER_START - theirs[3])
        wanted += reference.RIDGE * START
        wanted -= reference.cross_product(START, LOWER_START, theirs, p)
        count += 1
    np.testing.assert_allclose(updates, -CONSTANT["eta"] * wanted / count, rtol=1e-10)
    assert np.max(np.abs(updates - plain)) > 1e-3


# The clock.


def test_the_clock_keeps_late_differences():
    # Constant steps: the rounding errors of a sum all have one sign.
    step, late, more = np.float32(1e-3), 1_000_000, 1_000
    ticks = lambda clock, n: jax.lax.fori_loop(
        0, n, lambda _, c: (tick(c[0], (step,)), c[1] + step), clock
    )

    @jax.jit
    def run():
        middle = ticks((start_clock(1, jnp.float32), jnp.float32(0)), late)
        return middle, ticks(middle, more)

    (middle, plain), (end, plain_end) = run()
    wanted = more * float(step)
    (a,), (b,) = middle.now, end.now
    difference = (b[0] - a[0]) + (b[1] - a[1])  # in float32, as rows are read
    assert difference.dtype == jnp.float32
    np.testing.assert_allclose(difference, wanted, rtol=1e-6)
    assert abs(float(plain_end - plain) / wanted - 1) > 1e-3
    (c,) = end.before
    np.testing.assert_allclose((b[0] - c[0]) + (b[1] - c[1]), step, rtol=1e-6)


@pytest.mark.parametrize("version", [1, 2])
def test_float32_blocks_seen_late_stand_where_they_should(version):
    # As if 1e6 updates had passed: a block that waited since lands at y - (A_t - A_i) s.
    draws = jax.tree.map(lambda x: jnp.asarray(x[0]), random_draws(7, 1))
    floats = lambda x: x if x.dtype == jnp.int32 else x.astype(jnp.float32)
    draw = jax.tree.map(floats, draws)
    x = jnp.asarray(START, jnp.float32)
    optimizer = optimizer_of(version, CONSTANT, lower_params=jnp.asarray(LOWER_START, jnp.float32))
    state = optimizer.init(x)
    _, state = jax.jit(optimizer.update)(None, state, x, **draw)
    moving = state[0].moving
    late = lambda mark: mark.at[..., 0].set(9e4)
    clock = jax.tree.map(lambda now: now.at[0].set(9e4 + 0.0078125), state[0].clock)
    marked = moving._replace(mark=jax.tree.map(late, moving.mark))
    clock = jax.tree.map(lambda now: now.at[1].set(0.001), clock)
    marked = marked._replace(mark=jax.tree.map(lambda m: m.at[..., 1].set(0.0), marked.mark))
    waiting = state[0]._replace(moving=marked, clock=clock, count=jnp.asarray(10**6, jnp.int32))
    got = block_variables(waiting).lower_params
    wanted = moving.variables.lower_params - 0.0088125 * moving.directions.lower_params
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


# Rows.


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("version", [1, 2])
def test_rows_that_are_not_sampled_keep_their_bits(version, lazy):
    draws = jax.tree.map(lambda x: x[:8], random_draws(8))
    optimizer = optimizer_of(version, CONSTANT, lazy)
    _, states, _ = follow(optimizer, jnp.asarray(START, jnp.float32), arrays(draws))
    # The dense form moves the variables of all blocks, and never their directions.
    kept = lambda s: (s.moving if lazy else s.moving.directions, s.matrices, s.visited)
    for t in range(1, 8):
        before, after = (jax.tree.map(lambda x, k=k: x[k], kept(states)) for k in (t - 1, t))
        rest = np.setdiff1d(np.arange(NUM_BLOCKS), draws["block_indices"][t])
        own = np.setdiff1d(np.arange(NUM_BLOCKS), rest)
        jax.tree.map(
            lambda a, b, rest=rest: np.testing.assert_array_equal(a[rest], b[rest]), before, after
        )
        turned = (
            states.moving.directions.lower_params[t] != states.moving.directions.lower_params[t - 1]
        )
        assert set(np.flatnonzero(np.any(turned, axis=-1))) == set(own)


@pytest.mark.parametrize("value", [0.0, 100.0])
@pytest.mark.parametrize("version", [1, 2])
def test_padding_changes_nothing(x64, version, value):
    # Rows of zeros have a singular Hessian.
    draws = random_draws(9, 10)
    pad = lambda x, value: np.concatenate([x, np.full((10, 2, *x.shape[2:]), value, x.dtype)], 1)
    wider = {
        "block_indices": pad(draws["block_indices"], NUM_BLOCKS),
        "batch": jax.tree.map(lambda x: pad(x, value), draws["batch"]),
    }
    optimizer = optimizer_of(version, CONSTANT, floor=None)
    runs = [follow(optimizer, jnp.asarray(START), arrays(d)) for d in (draws, wider)]
    assert np.all(np.isfinite(runs[0][0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), *runs)


# Convexity.


def estimate_once(scheme, curvatures, lower, floor_rate=0.3):
    """One update on blocks whose Hessians are the given diagonals."""
    x = jnp.ones(1)
    estimate = estimate_blockwise(
        lambda x, y, batch: jnp.sum(y) + jnp.sum(x**2),
        lower,
        scheme,
        tracker=recursive_tracker(floor_rate),
        lower_params=jnp.ones(2),
        num_blocks=len(curvatures),
        learning_rates=(0.1,) * len(scheme.start(jnp.ones(2))),
    )
    indices = jnp.arange(len(curvatures), dtype=jnp.int32)
    state, states, update = estimate.init(x), [], jax.jit(estimate.update)
    for _ in range(3):
        direction, state = update(
            None, state, x, batch=jnp.asarray(curvatures), block_indices=indices
        )
        states.append((direction, state))
    return states


def bowl(x, y, diagonal):
    return jnp.sum(diagonal * y**2) / 2 - jnp.sum(x) * jnp.sum(y)


def test_the_curvature_tells_a_lower_problem_that_is_not_convex():
    saddles = [[2.0, 2.0], [1.0, -3.0]]
    upper = lambda x, y, batch: jnp.sum(y) + jnp.sum(x**2)
    good = estimate_once(tracked_solution(upper, bowl), [[2.0, 2.0], [1.0, 3.0]], bowl)
    bad = estimate_once(tracked_solution(upper, bowl), saddles, bowl)
    # p is zero in the first update, and has no curvature.
    assert 1.0 <= good[-1][1].curvature <= 3.0
    assert bad[-1][1].curvature < 0
    floored = estimate_once(tracked_hessian(bowl, floor=0.5), saddles, bowl)
    for direction, state in floored:
        # The sampled Hessian is seen, not the kept one.
        assert state.curvature < 0
        values = np.linalg.eigvalsh(state.matrices.hessian)
        np.testing.assert_allclose(values, [[2.0, 2.0], [0.5, 1.0]], rtol=1e-5)
        assert np.all(np.isfinite(direction))


def test_kept_matrices_are_symmetric_and_at_least_the_floor():
    rng = np.random.default_rng(0)
    kept = jax.vmap(tracked_hessian(bowl, floor=0.7).kept)
    matrices = rng.standard_normal((20, 4, 4)).astype(np.float32)
    got = kept(jnp.asarray(matrices))
    np.testing.assert_allclose(got, np.swapaxes(got, 1, 2), atol=1e-5)
    assert np.min(np.linalg.eigvalsh(got)) > 0.7 - 1e-5
    above = matrices @ np.swapaxes(matrices, 1, 2) + 0.8 * np.eye(4, dtype=np.float32)
    np.testing.assert_allclose(kept(jnp.asarray(above)), above, rtol=1e-4, atol=1e-5)


# Bad input.


def plain_estimator(**options):
    options = {
        "tracker": msvr_tracker(0.1, num_blocks=NUM_BLOCKS, num_sampled=NUM_SAMPLED),
        "lower_params": jnp.zeros(LOWER_DIM),
        "num_blocks": NUM_BLOCKS,
        "learning_rates": (0.1, 0.1),
    } | options
    return estimate_blockwise(upper, lower, tracked_solution(upper, lower), **options)


def test_clear_errors_of_update():
    estimate, x = plain_estimator(), jnp.asarray(START, jnp.float32)
    state = estimate.init(x)
    draw = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), random_draws(0, 1))
    update = lambda params=x, **changes: estimate.update(None, state, params, **(draw | changes))
    with pytest.raises(TypeError, match=r"estimate_blockwise: .*'batch'"):
        update(batch=None)
    with pytest.raises(TypeError, match=r"estimate_blockwise: .*'block_indices'"):
        update(block_indices=None)
    with pytest.raises(TypeError, match=r"estimate_blockwise: block_indices must be .* integers"):
        update(block_indices=jnp.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="params are missing"):
        update(None)
    with pytest.raises(TypeError, match=r"optax\.masked"):
        update({"a": x, "b": optax.MaskedNode()})
    no_axis = jax.tree.map(lambda leaf: leaf[0], draw["batch"])
    with pytest.raises(ValueError, match=r"^batch.* needs the leading axis of block_indices"):
        update(batch=no_axis)
    with pytest.raises(ValueError, match=r"^jacobian_batch.* needs the leading axis"):
        update(jacobian_batch=no_axis)


BAD_INDICES = {
    "negative": ([0, -1, 2], "must lie in"),
    "too large": ([0, NUM_BLOCKS + 1, 2], "must lie in"),
    "repeated": ([2, 5, 2], "must not repeat a block"),
}


@pytest.mark.parametrize("case", [None, *BAD_INDICES])
def test_check_finds_bad_indices(case):
    # Padding may repeat.
    indices, message = BAD_INDICES.get(case, ([NUM_BLOCKS, 0, NUM_BLOCKS], None))
    estimate, x = plain_estimator(check=True), jnp.asarray(START, jnp.float32)
    draw = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), random_draws(0, 1))
    draw["block_indices"] = jnp.asarray(indices)
    update = lambda state: estimate.update(None, state, x, **draw)[0]
    error, _ = jax.jit(checkify.checkify(update))(estimate.init(x))
    if message is None:
        error.throw()
        return
    with pytest.raises(checkify.JaxRuntimeError, match=f"block_indices {message}"):
        error.throw()
    with pytest.raises(checkify.JaxRuntimeError, match=message):  # an eager step needs no wrapping
        update(estimate.init(x))


def test_an_upper_function_that_is_no_scalar_is_refused():
    wide = lambda x, y, row: y - row["d"]
    estimate = estimate_blockwise(
        wide,
        lower,
        tracked_hessian(lower),
        tracker=recursive_tracker(0.1),
        lower_params=jnp.zeros(LOWER_DIM),
        num_blocks=NUM_BLOCKS,
        learning_rates=(0.1,),
    )
    x = jnp.asarray(START, jnp.float32)
    draw = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), random_draws(0, 1))
    with pytest.raises(ValueError, match="upper must return a scalar"):
        jax.eval_shape(lambda: estimate.update(None, estimate.init(x), x, **draw))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rates": (0.1, -0.1)}, "^learning_rates must lie"),
        ({"learning_rates": (0.1,)}, "^learning_rates has 1 entries for 2 variables"),
        ({"num_blocks": 0}, "^num_blocks must"),
        ({"direction_rate": 0.0}, "^direction_rate must lie"),
        ({"direction_rate": 1.5}, "^direction_rate must lie"),
    ],
)
def test_clear_errors_of_the_estimator(options, message):
    with pytest.raises(ValueError, match=message):
        plain_estimator(**options)


@pytest.mark.parametrize(
    ("version", "options", "name"),
    [
        (1, {"lower_learning_rate": -0.1}, "lower_learning_rate"),
        (1, {"tracker_rate": 0.0}, "tracker_rate"),
        (1, {"hessian_rate": 1.5}, "tracker_rate"),
        (1, {"direction_rate": 0.0}, "direction_rate"),
        (1, {"correction": -1.0}, "correction"),
        (1, {"floor": 0.0}, "floor"),
        (1, {"damping": -1.0}, "damping"),
        (1, {"num_blocks": 0}, "num_blocks"),
        (1, {"num_sampled": 0}, "num_sampled"),
        (2, {"lower_learning_rate": -0.1}, "lower_learning_rate"),
        (2, {"radius": 0.0}, "adjoint_radius"),
        (2, {"direction_rate": 2.0}, "direction_rate"),
    ],
)
def test_clear_errors_of_hyper_parameters(version, options, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        optimizer_of(version, CONSTANT, **options)


@pytest.mark.parametrize(("version", "name"), [(1, "eta"), (2, "eta"), (2, "tau_p")])
def test_negative_steps_are_refused(version, name):
    with pytest.raises(ValueError, match="learning_rate must lie"):
        optimizer_of(version, CONSTANT | {name: -0.1})


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("version", [1, 2])
def test_no_silent_promotion(version, lazy):
    floats = lambda x: x if x.dtype == np.int32 else x.astype(np.float32)
    draws = jax.tree.map(floats, random_draws(0, 3))
    start = jnp.asarray(LOWER_START, jnp.float32)
    optimizer = optimizer_of(version, CONSTANT, lazy, radius=0.5, lower_params=start)
    points, _, _ = follow(optimizer, jnp.asarray(START, jnp.float32), arrays(draws))
    assert points.dtype == jnp.float32
