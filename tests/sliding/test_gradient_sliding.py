"""The sliding transformation: trajectories of NumPy, trees, counters, errors, geometries."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from references import prox_sliding as reference

from stochopt import sliding

L, MU, WEIGHT, M = 1.0, 0.05, 0.3, 2 * 0.3 * np.sqrt(6)
RNG = np.random.default_rng(0)
CURVATURE, TARGET, KINK = np.linspace(0.1, L, 6), *RNG.standard_normal((2, 6))
START = np.zeros(6)
pytestmark = pytest.mark.usefixtures("x64")


def gradient(x):
    return CURVATURE * (x - TARGET)


def nonsmooth(x, batch):
    return WEIGHT * jnp.sum(jnp.abs(x - KINK))


def prox(v, step):
    return v / (1 + MU * step)


def slide(policy, **options):
    return sliding.slide(policy, jax.grad(nonsmooth), geometry=sliding.euclidean(prox), **options)


def run(optimizer, num_steps, start=START, gradient=gradient, **extras):
    """``(query point of the next step, state)`` after each step."""
    step = jax.jit(lambda x, state: optimizer.update(gradient(x), state, x, **extras))
    x, history = jnp.asarray(start), []
    state = optimizer.init(x)
    for _ in range(num_steps):
        updates, state = step(x, state)
        x = optax.apply_updates(x, updates)
        history.append((x, state))
    return history


POLICIES = {
    "fixed_horizon": (
        sliding.fixed_horizon(L, M, 12, 4.0),
        reference.fixed_horizon(L, M**2, 12, 1.5 * 8.0),
    ),
    "multi_phase": (
        sliding.multi_phase(L, 0.5, M, 3.0),
        reference.multi_phase(L, 0.5, M**2 / 2, 3.0),
    ),
    "restart_free": (
        sliding.restart_free(L, MU, M, 3.0),
        reference.restart_free(L, MU, 4 * M**2, 1.75 * 3.0),
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_trajectory_of_the_reference(x64, name):
    ours, theirs = POLICIES[name]
    subgradient = lambda u: WEIGHT * np.sign(u - KINK)
    expected = reference.run(
        theirs, gradient, subgradient, prox, START, 20, mu=ours.strong_convexity
    )
    found = run(slide(ours), 19)
    assert expected[-1][2] > 200  # inner steps
    for (query, _, _), (x, _) in zip(expected[1:], found, strict=True):
        np.testing.assert_allclose(x, query, rtol=1e-9, atol=1e-12)
    for (_, x_bar, total), (_, state) in zip(expected[:-1], found, strict=True):
        np.testing.assert_allclose(state.averaged_point, x_bar, rtol=1e-9, atol=1e-12)
        assert state.num_subgradients == state.num_prox == total
    assert found[-1][1].count == found[-1][1].num_smooth_gradients == 19


def test_methods_are_their_policies():
    constants = {"smoothness": L, "subgradient_bound": M, "prox": prox}
    pairs = [
        (
            sliding.gradient_sliding(nonsmooth, horizon=9, initial_distance=4.0, **constants),
            sliding.fixed_horizon(L, M, 9, 4.0),
        ),
        (
            sliding.stochastic_gradient_sliding(
                nonsmooth, lambda key: None, noise=0.2, horizon=9, initial_distance=4.0, **constants
            ),
            sliding.fixed_horizon(L, M, 9, 4.0, noise=0.2),
        ),
        (
            sliding.restart_free_sliding(
                nonsmooth, strong_convexity=MU, initial_gap=3.0, **constants
            ),
            sliding.restart_free(L, MU, M, 3.0),
        ),
    ]
    for method, policy in pairs:
        for (x, _), (y, _) in zip(run(method, 9), run(slide(policy), 9), strict=True):
            np.testing.assert_array_equal(x, y)


def test_without_a_nonsmooth_part_it_is_accelerated_gradient_descent():
    """One inner step, no subgradient: gap N^2 is bounded, and gradient descent is slower."""
    curvature = np.geomspace(1e-4, 1, 50)
    policy = sliding.fixed_horizon(1.0, 1e-6, 200, np.sqrt(50.0))
    zero = lambda x, batch: 0 * x
    found = run(sliding.slide(policy, zero), 200, np.zeros(50), lambda x: curvature * (x - 1.0))
    gap = lambda x: float(np.sum(curvature * (x - 1) ** 2) / 2)
    assert found[-1][1].num_subgradients == 200
    for k, (_, state) in enumerate(found, 1):
        assert gap(state.averaged_point) <= 6 * 25 / (k * (k + 1))
    assert gap(1 - (1 - curvature) ** 200) > 3 * gap(found[-1][1].averaged_point)


def test_samples_are_fresh_in_every_inner_step_and_a_function_of_the_key():
    """The mean of many small steps needs many draws; one draw for all of them would stay put."""
    policy = sliding.SlidingPolicy(
        lambda k: 1.0, lambda k: 1.0, lambda k: 4000.0, subgradient_bound=1.0
    )
    optimizer = sliding.slide(
        policy, lambda u, batch: batch, sample=lambda key: jax.random.normal(key, (3,))
    )
    x = jnp.zeros(3)

    @jax.jit
    def update(count, key=None):
        state = optimizer.init(x)._replace(count=count)
        return optimizer.update(0 * x, state, x, key=key)[0]

    first, second = (update(jnp.int32(count)) for count in (0, 1))
    other = update(jnp.int32(0), jax.random.key(5))
    for move in (first, second, other):
        assert 0 < np.abs(move).max() < 0.1
    assert not np.allclose(first, second)
    assert not np.allclose(first, other)
    np.testing.assert_array_equal(first, update(jnp.int32(0)))


def test_the_batch_of_the_update_reaches_the_subgradient():
    policy = POLICIES["restart_free"][0]
    shifted = lambda x, batch: WEIGHT * jnp.sum(jnp.abs(x - batch))
    optimizer = sliding.slide(policy, jax.grad(shifted), geometry=sliding.euclidean(prox))
    with_batch = run(optimizer, 5, batch=jnp.asarray(KINK))
    np.testing.assert_array_equal(with_batch[-1][0], run(slide(policy), 5)[-1][0])


def split(x):
    return {"a": x[:2].reshape(1, 2), "b": [x[2:], None]}


def test_any_tree(strict):
    policy = POLICIES["restart_free"][0]
    of_tree = lambda u, batch: (
        WEIGHT * jnp.sum(jnp.abs(u["a"][0] - KINK[:2]))
        + WEIGHT * jnp.sum(jnp.abs(u["b"][0] - KINK[2:]))
    )
    optimizer = sliding.slide(
        policy,
        jax.grad(of_tree),
        geometry=sliding.euclidean(lambda v, step: jax.tree.map(lambda x: prox(x, step), v)),
    )
    flat = lambda tree: jnp.concatenate([tree["a"][0], tree["b"][0]])
    params = split(jnp.asarray(START))
    state = optimizer.init(params)
    step = jax.jit(lambda p, s: optimizer.update(split(gradient(flat(p))), s, p))
    for x, _ in run(slide(policy), 5):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(flat(params), x, rtol=1e-12)


def test_low_precision_parameters_keep_their_dtype_and_a_wide_state():
    """The average of a long loop stalls in bfloat16."""
    policy = sliding.restart_free(L, MU, M, 3.0)
    optimizer = slide(policy)
    narrow = run(optimizer, 30, START.astype(jnp.bfloat16))
    wide = run(optimizer, 30, START.astype(np.float32))
    x, state = narrow[-1]
    assert x.dtype == jnp.bfloat16
    assert state.averaged_point.dtype == jnp.float32
    assert sliding.sliding_eval_params(state, x).dtype == jnp.bfloat16
    np.testing.assert_allclose(state.averaged_point, wide[-1][1].averaged_point, atol=0.03)


def test_point_to_evaluate_from_inside_a_chain():
    policy = POLICIES["restart_free"][0]
    chained = run(optax.chain(optax.identity(), slide(policy)), 5)
    (x, state), (_, alone) = chained[-1], run(slide(policy), 5)[-1]
    found = sliding.sliding_eval_params(state, x)
    np.testing.assert_array_equal(found, alone.averaged_point)
    assert not np.allclose(found, x)
    before = sliding.sliding_eval_params(slide(policy).init(x), x)
    np.testing.assert_array_equal(before, x)
    with pytest.raises(ValueError, match="sliding_eval_params needs the state of a sliding"):
        sliding.sliding_eval_params(optax.EmptyState(), x)


def test_a_move_by_someone_else_is_forgotten():
    """The same gradient leads to the same next query point, wherever ``params`` are."""
    optimizer = slide(POLICIES["restart_free"][0])
    x, state = run(optimizer, 3)[-1]
    g, moved = gradient(x), x + 0.7
    here, there = (optimizer.update(g, state, at) for at in (x, moved))
    np.testing.assert_allclose(moved + there[0], x + here[0], rtol=1e-12)
    np.testing.assert_array_equal(there[1].averaged_point, here[1].averaged_point)


def test_strong_convexity_is_moved_to_the_prox():
    """The shifted parts have the same sum: they meet in the minimizer, which is known."""
    curvature = np.linspace(0.4, 1.0, 6)
    shifted = sliding.shift_strong_convexity(0.3, smoothness=1.0, prox=prox)
    assert shifted.smoothness == 0.7
    optimizer = optax.chain(
        shifted.gradient,
        sliding.restart_free_sliding(
            nonsmooth, smoothness=shifted.smoothness, strong_convexity=0.3, subgradient_bound=M,
            initial_gap=3.0, prox=shifted.prox,
        ),
    )  # fmt: skip
    x, state = run(optimizer, 60, gradient=lambda x: curvature * (x - TARGET))[-1]
    total = curvature + MU
    middle = curvature * TARGET / total - KINK
    shrunk = np.sign(middle) * np.maximum(np.abs(middle) - WEIGHT / total, 0)
    np.testing.assert_allclose(sliding.sliding_eval_params(state, x), KINK + shrunk, atol=5e-3)
    # prox of the sum by its optimality condition: u - v + step (grad of ridge + 0.3 u) = 0.
    v, step = jnp.asarray(TARGET), 1.7
    u = shifted.prox(v, step)
    np.testing.assert_allclose(u - v + step * (MU * u + 0.3 * u), 0, atol=1e-12)
    assert sliding.shift_strong_convexity(0.8, smoothness=1.0).smoothness == 0.8


def test_sliding_on_the_simplex():
    """Stays there and meets its bound."""
    cost, vertex = np.linspace(0.0, 1.0, 8), np.eye(8)[0]
    smooth = lambda x: 0.05 * jnp.sum((x - 1 / 8) ** 2)
    rest = lambda x, batch: cost @ x + 0.5 * jnp.max(jnp.abs(x - vertex))
    policy = sliding.fixed_horizon(1.0, 2 * 1.5, 30, np.sqrt(2 * np.log(8)))
    optimizer = sliding.slide(policy, jax.grad(rest), geometry=sliding.simplex())
    # Mass that leaves the vertex gains at most 0.1 in the smooth part and costs at least 0.5.
    gap = lambda x: smooth(x) + rest(x, None) - smooth(vertex) - rest(vertex, None)
    history = run(optimizer, 30, np.full(8, 1 / 8), jax.grad(smooth))
    for k, (x, state) in enumerate(history, 1):
        for point in (x, state.averaged_point):
            np.testing.assert_allclose(jnp.sum(point), 1, rtol=1e-12)
            assert jnp.all(point >= 0)
        assert 0 <= gap(state.averaged_point) <= policy.bound(k)


def test_entropy_step_solves_its_subproblem():
    mu, beta, weight = 0.3, jnp.asarray(0.7), jnp.asarray(2.0)
    x, y = jax.nn.softmax(RNG.standard_normal((2, 5)))
    slope = RNG.standard_normal(5)
    u = sliding.simplex(mu).step(slope, x, beta, y, weight)
    relative = lambda u, x: jnp.sum(u * jnp.log(u / x))
    total = lambda u: (
        slope @ u + mu * u @ jnp.log(u) + beta * relative(u, x) + weight * relative(u, y)
    )
    derivative = jax.grad(total)(u)  # constant on the simplex
    np.testing.assert_allclose(derivative, derivative[0], rtol=1e-9)
    np.testing.assert_allclose(u.sum(), 1)


def test_growing_inner_loops_compile_once():
    traces = []

    def counted(x, batch):
        traces.append(None)
        return nonsmooth(x, batch)

    policy = sliding.restart_free(L, MU, M, 3.0)
    optimizer = sliding.slide(policy, jax.grad(counted), geometry=sliding.euclidean(prox))
    lengths = [int(policy.inner_length(k)) for k in (1.0, 75.0, 150.0)]
    assert lengths[0] < lengths[1] < lengths[2]
    step = jax.jit(lambda x, state: optimizer.update(gradient(x), state, x))
    x = jnp.zeros(6, jnp.float32)
    state = optimizer.init(x)
    _, state = step(x, state)
    after_first = len(traces)
    for _ in range(149):
        updates, state = step(x, state)
        x = optax.apply_updates(x, updates)
    assert state.count == 150
    assert len(traces) == after_first


def test_truncated_inner_loops_are_counted():
    policy = sliding.fixed_horizon(L, M, 12, 1.0)
    wanted = [int(policy.inner_length(float(k))) for k in range(1, 13)]
    assert sum(t > 500 for t in wanted) not in (0, 12)
    _, state = run(slide(policy, max_inner=500), 12)[-1]
    assert state.num_truncated == sum(t > 500 for t in wanted)
    assert state.num_subgradients == sum(min(t, 500) for t in wanted)
    _, state = run(slide(policy), 12)[-1]
    assert state.num_truncated == 0


def test_counters_stay_at_their_maximum():
    optimizer = slide(sliding.fixed_horizon(L, M, 12, 1.0))
    x = jnp.zeros(6)
    full = optimizer.init(x)._replace(num_subgradients=jnp.int32(2**31 - 2))
    _, state = optimizer.update(gradient(x), full, x)
    assert state.num_subgradients == 2**31 - 1


@pytest.mark.parametrize(("bound", "flagged"), [(M, False), (M / 2, True)])
def test_a_bound_given_as_the_lipschitz_constant_is_flagged(bound, flagged):
    _, state = run(slide(sliding.restart_free(L, MU, bound, 3.0)), 3)[-1]
    assert (state.num_large_subgradients > 0) == flagged
    assert state.num_large_subgradients <= state.num_subgradients


@pytest.mark.parametrize(("noise", "flagged"), [(1.0, False), (0.1, True)])
def test_noise_that_is_declared_is_not_flagged(noise, flagged):
    noisy = lambda x, batch: nonsmooth(x, None) + batch @ x
    optimizer = sliding.slide(
        sliding.restart_free(L, MU, M, 3.0, noise=noise),
        jax.grad(noisy),
        sample=lambda key: jax.random.normal(key, (6,)) / np.sqrt(6),
        geometry=sliding.euclidean(prox),
    )
    _, state = run(optimizer, 5)[-1]
    assert (state.num_large_subgradients > 0.01 * state.num_subgradients) == flagged


@pytest.mark.parametrize("max_inner", [0, -1, 2.5, 2**31])
def test_bad_length(max_inner):
    with pytest.raises(ValueError, match=r"^max_inner must "):
        slide(sliding.fixed_horizon(L, M, 5, 1.0), max_inner=max_inner)


def test_oracles_that_do_not_fit_are_named():
    policy = sliding.fixed_horizon(L, M, 5, 1.0)
    x = jnp.zeros(6)

    def update(**options):
        optimizer = sliding.slide(
            policy, options.pop("subgradient", jax.grad(nonsmooth)), **options
        )
        return optimizer.update(x, optimizer.init(x), x)

    with pytest.raises(ValueError, match=r"^subgradient returned shapes"):
        update(subgradient=lambda u, batch: u[:3])
    with pytest.raises(ValueError, match=r"^prox returned shapes"):
        update(geometry=sliding.euclidean(lambda v, step: v[:3]))
    with pytest.raises(TypeError, match=r"^prox must be a function prox\(params, step\)"):
        sliding.euclidean(lambda v: v)
    method = sliding.gradient_sliding(
        lambda x, batch: x, smoothness=1.0, subgradient_bound=1.0, horizon=5, initial_distance=1.0
    )
    with pytest.raises(ValueError, match=r"^nonsmooth must return a scalar"):
        method.update(x, method.init(x), x)


def test_missing_arguments_of_update():
    optimizer = slide(sliding.fixed_horizon(L, M, 5, 1.0))
    x = jnp.zeros(6)
    state = optimizer.init(x)
    with pytest.raises(ValueError, match="params are missing"):
        optimizer.update(x, state)
    with pytest.raises(TypeError, match="gradient of the expensive part"):
        optimizer.update(None, state, x)
    with pytest.raises(TypeError, match="whole params"):
        optimizer.update(x, state, optax.MaskedNode())
