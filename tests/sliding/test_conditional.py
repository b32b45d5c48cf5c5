"""Conditional gradient sliding: NumPy trajectories, the bound, what an inner loop costs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stochopt import lmo, sliding
from stochopt.problems import simplex_quadratic

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
FACTOR = RNG.standard_normal((6, 6))
H = FACTOR.T @ FACTOR / 6
B = H @ [0.4, 0.3, 0.2, 0.1, 0.0, 0.0]  # a solution within a face
L, D = float(np.linalg.norm(H, 2)), 2**0.5
START = np.eye(6)[3]


def gradient(x):
    return H @ x - B


def make(minimizer=None, **options):
    minimizer = lmo.simplex() if minimizer is None else minimizer
    return sliding.conditional_gradient_sliding(
        minimizer, **{"smoothness": L, "diameter": D, **options}
    )


def run(optimizer, num_steps, start=START, gradient=gradient):
    """Query points and states after each step, stacked."""

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(gradient(x), state, x)
        return (x + updates, state), (x + updates, state)

    x = jnp.asarray(start)
    scan = jax.jit(lambda carry: jax.lax.scan(step, carry, None, num_steps)[1])
    return scan((x, optimizer.init(x)))


def reference(num_steps):
    """NumPy: query points, averages, and linear minimizations so far."""
    x, y, total, history = START, START, 0, []
    for k in range(1, num_steps + 1):
        beta, gamma, eta = 3 * L / (k + 1), 3 / (k + 2), L * D**2 / (k * (k + 1))
        g, u = gradient((1 - gamma) * y + gamma * x), x
        while True:
            q = g + beta * (u - x)
            v = np.eye(6)[np.argmin(q)]
            total += 1
            if q @ (u - v) <= eta:
                break
            u = u + min(1, q @ (u - v) / (beta * (v - u) @ (v - u))) * (v - u)
        x, y = u, (1 - gamma) * y + gamma * u
        following = 3 / (k + 3)
        history.append(((1 - following) * y + following * x, y, total))
    return history


def test_trajectory_of_the_reference():
    expected = reference(50)
    queries, states = run(make(), 50)
    assert expected[-1][2] > 60
    for k, (query, average, total) in enumerate(expected):
        np.testing.assert_allclose(queries[k], query, atol=1e-12)
        np.testing.assert_allclose(states.averaged_point[k], average, atol=1e-12)
        assert states.num_linear_minimizations[k] == total
    assert states.num_smooth_gradients[-1] == 50
    assert states.num_truncated[-1] == 0


PROBLEM = simplex_quadratic(noise=0.0)
NUM_STEPS = np.arange(1, 201)


def gaps(**options):
    """On the simplex in 50 dimensions, with the bound."""
    optimizer = sliding.conditional_gradient_sliding(
        PROBLEM.linear_minimizer, smoothness=1.0, diameter=D, **options
    )
    _, states = run(optimizer, 200, PROBLEM.init(None), PROBLEM.exact["subgradient"])
    found = jax.vmap(lambda y: PROBLEM.metrics(y)["gap"])(states.averaged_point)
    return np.asarray(found), sliding.conditional_sliding_bound(1.0, D, NUM_STEPS), states


def test_every_gap_is_within_the_bound():
    gap, bound, states = gaps()
    assert np.all((gap >= 0) & (gap <= bound))
    assert gap[-1] > 0.01 * bound[-1]  # it is the right order
    assert states.num_linear_minimizations[-1] < 1000  # of the order of the bound's inverse
    np.testing.assert_allclose(bound[-1], 15 / (201 * 202))


def test_inner_loops_that_are_cut_are_counted_and_lose_the_bound():
    gap, bound, states = gaps(max_inner=1)  # looks once and never moves
    assert states.num_linear_minimizations[-1] == 200
    assert states.num_truncated[-1] > 100
    assert np.all(gap[-100:] > bound[-100:])


def test_all_points_stay_in_the_set():
    queries, states = run(make(), 50)
    for points in (queries, states.averaged_point, states.prox_center):
        assert np.all(points >= 0)
        np.testing.assert_allclose(points.sum(axis=1), 1, rtol=1e-12)


def test_single_precision_does_not_chase_rounding():
    """Accuracies of late steps are below the rounding of the Wolfe gap."""
    optimizer = sliding.conditional_gradient_sliding(
        lmo.l2_ball(1.0), smoothness=1.0, diameter=2.0, max_inner=200
    )
    target = jnp.asarray(RNG.standard_normal(30), jnp.float32)
    start = jnp.zeros(30, jnp.float32).at[0].set(1)
    _, states = run(optimizer, 3000, start, lambda x: 10 * x - 10 * target)
    assert states.averaged_point.dtype == jnp.float32
    assert states.num_truncated[-1] == 0


def test_a_gradient_that_is_not_a_number_ends_the_inner_loop():
    optimizer = make()
    x = jnp.asarray(START)
    _, state = jax.jit(optimizer.update)(jnp.nan * x, optimizer.init(x), x)
    assert state.num_linear_minimizations == 1


def test_the_point_to_evaluate_is_found_in_a_chain():
    optimizer = optax.chain(optax.identity(), make())
    x = jnp.asarray(START)
    state = optimizer.init(x)
    np.testing.assert_array_equal(sliding.sliding_eval_params(state, x), START)
    updates, state = optimizer.update(gradient(x), state, x)
    np.testing.assert_array_equal(
        sliding.sliding_eval_params(state, x + updates), state[1].averaged_point
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("smoothness", 0), ("smoothness", -1), ("diameter", 0), ("max_inner", 0), ("max_inner", 1.5)],
)
def test_bad_constants_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must "):
        make(**{name: value})


def test_bad_oracles_and_arguments_are_named():
    with pytest.raises(TypeError, match=r"^linear_minimizer must be a function linear_min"):
        make(lambda: 0)
    x = jnp.asarray(START)
    short = make(lambda slope: slope[:2])
    with pytest.raises(ValueError, match=r"^linear_minimizer returned shapes"):
        short.update(x, short.init(x), x)
    with pytest.raises(TypeError, match="gradient of the expensive part"):
        make().update(None, make().init(x), x)


# Linear minimizers.

PROJECTIONS = optax.projections
LOW, HIGH = {"a": -0.5, "b": np.array([0.0, -1.0])}, {"a": 1.0, "b": np.array([2.0, 0.5])}
LIKE = {"a": np.zeros((2, 3)), "b": np.zeros(2)}
SETS = {
    "simplex": (lmo.simplex(1.5), lambda x: PROJECTIONS.projection_simplex(x, 1.5)),
    "l1_ball": (lmo.l1_ball(1.5), lambda x: PROJECTIONS.projection_l1_ball(x, 1.5)),
    "l2_ball": (lmo.l2_ball(1.5), lambda x: PROJECTIONS.projection_l2_ball(x, 1.5)),
    "linf_ball": (lmo.linf_ball(1.5), lambda x: PROJECTIONS.projection_linf_ball(x, 1.5)),
    "box": (
        lmo.box(LOW, HIGH),
        lambda x: PROJECTIONS.projection_box(
            x, {**LOW, "a": jnp.full((2, 3), -0.5)}, {**HIGH, "a": jnp.full((2, 3), 1.0)}
        ),
    ),
}
each_set = pytest.mark.parametrize("name", SETS)


def random_trees(count, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: 2 * rng.standard_normal((count, *x.shape)), LIKE)


@each_set
def test_linear_minimizers_end_in_the_set_and_below_all_of_it(name):
    """The set is that of optax's projection, which is another algorithm."""
    minimizer, project = SETS[name]
    slopes, points = random_trees(20), jax.jit(jax.vmap(project))(random_trees(50, seed=1))
    best = jax.jit(jax.vmap(minimizer))(slopes)
    flat = lambda tree: np.concatenate(
        [np.reshape(x, (len(x), -1)) for x in jax.tree.leaves(tree)], 1
    )
    np.testing.assert_allclose(flat(jax.vmap(project)(best)), flat(best), rtol=1e-9, atol=1e-9)
    values = flat(slopes) @ flat(points).T
    assert np.all(values >= np.sum(flat(slopes) * flat(best), axis=1)[:, None] - 1e-9)
    far = np.linalg.norm(flat(best)[:, None] - flat(best)[None], axis=-1).max()
    opposite = flat(jax.vmap(minimizer)(jax.tree.map(jnp.negative, slopes)))
    attained = max(far, np.linalg.norm(flat(best) - opposite, axis=1).max())
    np.testing.assert_allclose(minimizer.diameter(LIKE), attained, rtol=1e-9)


@pytest.mark.parametrize("name", ["simplex", "l1_ball"])
def test_equal_entries_share(name):
    """What a broken tie would break on one device only, and twice the scale on another."""
    slope = {"a": jnp.array([2.0, -3.0, -3.0]), "b": jnp.array([-3.0])}
    found = SETS[name][0](slope)
    np.testing.assert_allclose(found["a"], [0, 0.5, 0.5])
    np.testing.assert_allclose(found["b"], [0.5])
    zero = SETS[name][0](jax.tree.map(jnp.zeros_like, slope))
    assert np.all(np.isfinite(zero["a"]))


def test_a_zero_slope_has_a_minimizer_too():
    np.testing.assert_array_equal(lmo.l2_ball()(jnp.zeros(3)), jnp.zeros(3))


@pytest.mark.parametrize("factory", [lmo.simplex, lmo.l1_ball, lmo.l2_ball, lmo.linf_ball])
def test_bad_scales_are_named(factory):
    with pytest.raises(ValueError, match=r"^scale must "):
        factory(0.0)
