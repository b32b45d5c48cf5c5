"""The accelerated transformation: trajectories of NumPy, trees, counters, limits, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from references import accelerated_loops as reference

import stochopt
from stochopt import proximal, sliding

L, MU, L_H = 1.0, 0.05, 30.0
RNG = np.random.default_rng(0)
CURVATURE, STIFF = np.linspace(0.1, L, 6), np.linspace(0, L_H, 6)
TARGET, CENTER = RNG.standard_normal((2, 6))
OPERATOR, SHIFT = RNG.standard_normal((9, 6)), RNG.standard_normal(9)
NORM = float(np.linalg.norm(OPERATOR, 2))
DUAL = proximal.dual_of_l1(9)
START = np.zeros(6)
pytestmark = pytest.mark.usefixtures("x64")


def gradient(x):
    return CURVATURE * (x - TARGET)


def cheap(x, batch):
    return jnp.sum(STIFF * (x - CENTER) ** 2) / 2


def cheap_gradient(x, batch, smoothing):
    return jax.grad(cheap)(x, batch)


def operator(x):
    return OPERATOR @ x - SHIFT


def prox(v, step):
    return v / (1 + MU * step)


def slide(policy, gradient=cheap_gradient, **options):
    geometry = options.pop("geometry", sliding.euclidean(prox))
    return sliding.slide_accelerated(policy, gradient, geometry=geometry, **options)


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


SMOOTH = {
    "accelerated": (sliding.accelerated(L, L_H), reference.convex(L, L_H)),
    "accelerated_lan_ouyang": (
        sliding.accelerated_lan_ouyang(L, L_H, 1.0),
        reference.lan_ouyang(L, L_H),
    ),
    "restart_free_accelerated": (
        sliding.restart_free_accelerated(L, MU, L_H, 1.0),
        reference.restart_free(L, MU, L_H),
    ),
}
SADDLE = {
    "restart_free_smoothed": (
        sliding.restart_free_smoothed(L, MU, NORM, 4.5, 30.0),
        reference.smoothed(L, MU, NORM, 4.5, 120.0),
    ),
    "restart_free_smoothed_minibatch": (
        sliding.restart_free_smoothed_minibatch(L, MU, NORM, 4.5, 30.0, 1.0),
        reference.smoothed_minibatch(L, MU, NORM, 4.5, 120.0),
    ),
}


def pulled_back(x, eta):
    return OPERATOR.T @ np.clip((OPERATOR @ x - SHIFT) / eta, -1, 1)


@pytest.mark.parametrize("name", [*SMOOTH, *SADDLE])
def test_trajectory_of_the_reference(name):
    ours, theirs = (SMOOTH | SADDLE)[name]
    if name in SADDLE:
        optimizer, slope = slide(ours, sliding.saddle_gradient(operator, DUAL)), pulled_back
    else:
        optimizer, slope = slide(ours), lambda x, eta: STIFF * (x - CENTER)
    expected = reference.run(theirs, gradient, slope, prox, START, 20)
    found = run(optimizer, 19)
    assert expected[-1][2] > 100  # inner steps
    for (query, _, _), (x, _) in zip(expected[1:], found, strict=True):
        np.testing.assert_allclose(x, query, rtol=1e-9, atol=1e-12)
    for (_, x_bar, total), (_, state) in zip(expected[:-1], found, strict=True):
        np.testing.assert_allclose(state.averaged_point, x_bar, rtol=1e-9, atol=1e-12)
        assert state.num_cheap_gradients == state.num_prox == total
    assert found[-1][1].count == found[-1][1].num_smooth_gradients == 19


def test_methods_are_their_policies():
    convex = stochopt.accelerated_sliding(cheap, smoothness=L, cheap_smoothness=L_H, prox=prox)
    saddle = stochopt.restart_free_accelerated_sliding(
        operator, DUAL, smoothness=L, strong_convexity=MU, operator_norm=NORM, initial_gap=30.0,
        prox=prox,
    )  # fmt: skip
    pairs = [
        (convex, slide(SMOOTH["accelerated"][0])),
        (
            saddle,
            slide(SADDLE["restart_free_smoothed"][0], sliding.saddle_gradient(operator, DUAL)),
        ),
    ]
    for method, transformation in pairs:
        for (x, _), (y, _) in zip(run(method, 5), run(transformation, 5), strict=True):
            np.testing.assert_array_equal(x, y)


def test_without_a_cheap_part_it_is_accelerated_gradient_descent():
    """One inner step: gap N^2 is bounded, and gradient descent is slower."""
    curvature = np.geomspace(1e-4, 1, 50)
    policy = sliding.accelerated(1.0, 1e-6, np.sqrt(50.0))
    zero = lambda x, batch, smoothing: 0 * x
    optimizer = sliding.slide_accelerated(policy, zero)
    found = run(optimizer, 200, np.zeros(50), lambda x: curvature * (x - 1.0))
    gap = lambda x: float(np.sum(curvature * (x - 1) ** 2) / 2)
    assert found[-1][1].num_cheap_gradients == 200
    for k, (_, state) in enumerate(found, 1):
        assert gap(state.averaged_point) <= policy.bound(k) <= 4 * 50 / k**2
    assert gap(1 - (1 - curvature) ** 200) > 3 * gap(found[-1][1].averaged_point)


def test_the_batch_of_the_update_reaches_the_cheap_gradient():
    policy = SMOOTH["accelerated"][0]
    shifted = lambda x, batch, smoothing: STIFF * (x - batch)
    with_batch = run(slide(policy, shifted), 3, batch=jnp.asarray(CENTER))
    np.testing.assert_allclose(with_batch[-1][0], run(slide(policy), 3)[-1][0], rtol=1e-12)


def test_any_trees_of_parameters_and_values(strict):
    """Differences of a matrix in two directions, as a dictionary; a leaf that is not there."""
    differences = lambda p: {"down": jnp.diff(p["a"], axis=0), "right": jnp.diff(p["a"], axis=1)}
    dual = proximal.dual_of_l1(7)
    policy = sliding.restart_free_smoothed(1.0, 0.5, 3.0, dual.diameter, 10.0)
    data = jnp.asarray(RNG.standard_normal((2, 3)))
    of_tree = sliding.slide_accelerated(policy, sliding.saddle_gradient(differences, dual))
    flat = lambda x: jnp.concatenate([jnp.diff(x.reshape(2, 3), axis=i).ravel() for i in (0, 1)])
    of_vector = sliding.slide_accelerated(policy, sliding.saddle_gradient(flat, dual))
    params = {"a": jnp.zeros((2, 3)), "b": [None]}
    state = of_tree.init(params)
    step = jax.jit(lambda p, s: of_tree.update({"a": p["a"] - data, "b": [None]}, s, p))
    for x, _ in run(of_vector, 4, np.zeros(6), lambda x: x - data.ravel()):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["a"].ravel(), x, rtol=1e-12)


def test_low_precision_parameters_keep_their_dtype_and_a_wide_state():
    optimizer = slide(SADDLE["restart_free_smoothed"][0], sliding.saddle_gradient(operator, DUAL))
    narrow = run(optimizer, 20, START.astype(jnp.bfloat16))
    x, state = narrow[-1]
    assert x.dtype == jnp.bfloat16
    assert state.averaged_point.dtype == jnp.float32
    assert sliding.sliding_eval_params(state, x).dtype == jnp.bfloat16
    wide = run(optimizer, 20, START.astype(np.float32))
    np.testing.assert_allclose(state.averaged_point, wide[-1][1].averaged_point, atol=0.05)


def test_point_to_evaluate_from_inside_a_chain():
    policy = SMOOTH["accelerated"][0]
    chained = run(optax.chain(optax.identity(), slide(policy)), 3)
    (x, state), (_, alone) = chained[-1], run(slide(policy), 3)[-1]
    found = sliding.sliding_eval_params(state, x)
    np.testing.assert_array_equal(found, alone.averaged_point)
    assert not np.allclose(found, x)
    np.testing.assert_array_equal(sliding.sliding_eval_params(slide(policy).init(x), x), x)


def test_on_the_simplex():
    """The step is that of the geometry: it stays there and meets the bound."""
    cost = np.linspace(0.0, 1.0, 8)
    policy = sliding.accelerated(0.1, 1.0, np.sqrt(2 * np.log(8)))
    cheap = lambda x, batch, smoothing: cost + (x - np.eye(8)[0])
    optimizer = slide(policy, cheap, geometry=sliding.simplex())
    objective = lambda x: 0.05 * jnp.sum(x**2) + cost @ x + jnp.sum((x - np.eye(8)[0]) ** 2) / 2
    vertex = np.eye(8)[0]  # the slope there grows along the simplex: 0.1, and cost elsewhere
    history = run(optimizer, 60, np.full(8, 1 / 8), lambda x: 0.1 * x)
    for k, (x, state) in enumerate(history, 1):
        for point in (x, state.averaged_point):
            np.testing.assert_allclose(jnp.sum(point), 1, rtol=1e-12)
            assert jnp.all(point >= 0)
        assert objective(state.averaged_point) - objective(vertex) <= policy.bound(k)


def test_growing_inner_loops_compile_once():
    traces = []

    def counted(x):
        traces.append(None)
        return operator(x)

    policy = SADDLE["restart_free_smoothed"][0]
    optimizer = slide(policy, sliding.saddle_gradient(counted, DUAL))
    lengths = [int(policy.inner_length(k)) for k in (1.0, 30.0, 60.0)]
    assert lengths[0] < lengths[1] < lengths[2]
    step = jax.jit(lambda x, state: optimizer.update(gradient(x), state, x))
    x = jnp.zeros(6)
    state = optimizer.init(x)
    _, state = step(x, state)
    after_first = len(traces)
    for _ in range(59):
        updates, state = step(x, state)
        x = optax.apply_updates(x, updates)
    assert state.count == 60
    assert len(traces) == after_first


def test_truncated_inner_loops_are_counted_and_counters_stay_at_their_maximum():
    policy = SADDLE["restart_free_smoothed"][0]
    wanted = [int(policy.inner_length(float(k))) for k in range(1, 13)]
    limit = wanted[5]
    assert wanted[0] < limit < wanted[-1]
    optimizer = slide(policy, sliding.saddle_gradient(operator, DUAL), max_inner=limit)
    _, state = run(optimizer, 12)[-1]
    assert state.num_truncated == sum(t > limit for t in wanted)
    assert state.num_cheap_gradients == state.num_prox == sum(min(t, limit) for t in wanted)
    full = state._replace(num_cheap_gradients=jnp.int32(2**31 - 2))
    _, state = optimizer.update(gradient(START), full, jnp.asarray(START))
    assert state.num_cheap_gradients == 2**31 - 1


@pytest.mark.parametrize("max_inner", [0, -1, 2.5, 2**31])
def test_bad_length(max_inner):
    with pytest.raises(ValueError, match=r"^max_inner must "):
        slide(sliding.accelerated(L, L_H), max_inner=max_inner)


def test_oracles_that_do_not_fit_are_named():
    policy = sliding.accelerated(L, L_H)
    saddle = SADDLE["restart_free_smoothed"][0]
    x = jnp.zeros(6)

    def update(optimizer):
        return optimizer.update(x, optimizer.init(x), x)

    with pytest.raises(ValueError, match=r"^gradient returned shapes"):
        update(slide(policy, lambda x, batch, smoothing: x[:3]))
    with pytest.raises(ValueError, match=r"^dual returned shapes"):
        update(slide(saddle, sliding.saddle_gradient(operator, lambda v, smoothing: v[:3])))
    with pytest.raises(ValueError, match=r"^num_values is 8, but the values .* have 9"):
        update(slide(saddle, sliding.saddle_gradient(operator, proximal.dual_of_l1(8))))
    with pytest.raises(ValueError, match=r"^cheap must return a scalar"):
        update(
            stochopt.accelerated_sliding(lambda x, batch: x, smoothness=1.0, cheap_smoothness=1.0)
        )


def test_missing_arguments_of_update():
    optimizer = slide(sliding.accelerated(L, L_H))
    x = jnp.zeros(6)
    state = optimizer.init(x)
    with pytest.raises(ValueError, match="params are missing"):
        optimizer.update(x, state)
    with pytest.raises(TypeError, match="gradient of the expensive part"):
        optimizer.update(None, state, x)
    with pytest.raises(TypeError, match="whole params"):
        optimizer.update(x, state, optax.MaskedNode())
