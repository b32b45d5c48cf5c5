"""Cycles on linear models: cost, equality with block descent, kept predictions, the bound."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import types

from stochopt import blocks, proximal
from stochopt import linear_models as lm
from stochopt.experiments import matmul_flops

RNG = np.random.default_rng(0)
N, D = 40, 8
MATRIX = RNG.standard_normal((N, D))
TARGETS = MATRIX[:, 0] - MATRIX[:, 1] + 0.5 * RNG.standard_normal(N)
LABELS = np.where(TARGETS > 0, 1.0, -1.0)


def lasso():
    return lm.linear_model(lm.dense(MATRIX), TARGETS, lm.squared(), lm.l1(0.05))


def cycles(optimizer, start, num_cycles):
    """Points and states after each cycle, stacked."""

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(None, state, x, batch=())
        x = optax.apply_updates(x, updates)
        return (x, state), (x, state)

    return jax.lax.scan(step, (start, optimizer.init(start)), None, num_cycles)[1]


@pytest.mark.parametrize("num_columns", [64, 1024], ids=["own arrays", "slices"])
def test_a_cycle_multiplies_as_much_as_a_gradient(num_columns):
    model = lm.linear_model(
        lm.dense(jnp.ones((50, num_columns))), jnp.ones(50), lm.squared(), lm.l1(0.1)
    )
    x = jnp.zeros(num_columns)
    optimizer = lm.linear_model_descent(model, block_width=16, smoothness=1.0)
    gradient = matmul_flops(model.gradient, x)
    assert gradient == 4 * 50 * num_columns
    refresh = matmul_flops(model.design.matvec, x)
    cycle = matmul_flops(optimizer.update, None, optimizer.init(x), x)
    assert cycle - refresh == gradient  # the branch that computes predictions counts
    # Block descent on the loss as a whole takes a gradient's work for every block.
    loss = lambda x, batch: model.objective(x) - model.penalty.value(x)
    whole = blocks.cyclic_block_descent(loss, blocks.equal_slices(num_columns // 16), 1.0)
    cycle = functools.partial(whole.update, batch=())
    naive = matmul_flops(cycle, None, whole.init(x), x)
    assert naive > num_columns // 16 * gradient / 2


def test_predictions_are_computed_anew_now_and_then_and_stay_accurate():
    model = lasso()  # in float32
    optimizer = lm.linear_model_descent(model, refresh_every=25, order=blocks.random)
    points, states = jax.jit(lambda x: cycles(optimizer, x, 100))(jnp.ones(D))
    # Once in 25 cycles: a cycle takes 1.02 gradients.
    np.testing.assert_array_equal(states.num_predictions, 1 + np.arange(100) // 25)
    exact = np.asarray(points, np.float64) @ MATRIX.astype(np.float32).T.astype(np.float64)
    errors = np.abs(states.predictions - exact).max(axis=1)
    eps = np.finfo(np.float32).eps
    assert 0 < errors.max() < 25 * (D + 2) * eps * np.abs(exact).max()
    np.testing.assert_array_equal(states.predicted_point, points)


def test_moved_params_get_predictions_of_their_own(x64):
    model = lasso()
    optimizer = lm.linear_model_descent(model, block_width=2)
    update = jax.jit(optimizer.update)
    x = jnp.zeros(D)
    state = optimizer.init(x)
    for _ in range(3):
        updates, state = update(None, state, x)
        x = optax.apply_updates(x, updates)
    assert state.num_predictions == 1
    moved = x.at[2].add(1.0)
    expected, _ = update(None, optimizer.init(moved), moved)
    updates, after = update(None, state, moved)
    np.testing.assert_allclose(updates, expected, rtol=0, atol=1e-14)
    assert after.num_predictions == 2
    # A state that takes the moved point for its own makes a wrong step.
    stale, after = update(None, state._replace(predicted_point=moved), moved)
    assert after.num_predictions == 1
    assert np.abs(stale - expected).max() > 0.1
    assert model.objective(moved + stale) > model.objective(moved + expected) + 0.01


@pytest.mark.parametrize("width", [2, 4], ids=["slices", "own arrays"])
def test_a_program_for_every_design_under_strict_promotion(strict, width):
    """Abstract parameters, one compilation, the same types before and after, both designs."""
    points = []
    for design in (lm.dense(MATRIX), lm.sparse(MATRIX)):
        model = lm.linear_model(design, LABELS, lm.logistic(), lm.group_lasso(0.02, 2))
        schedule = lambda count: jnp.where(count > 2, 0.5, 1.0)
        optimizer = lm.linear_model_descent(
            model, block_width=width, order=blocks.shuffled, learning_rate=schedule
        )
        x = jnp.ones(D)
        state = optimizer.init(x)
        abstract = jax.eval_shape(optimizer.init, jax.ShapeDtypeStruct((D,), jnp.float32))
        assert types(abstract) == types(state)
        traces = []

        @functools.partial(jax.jit, donate_argnums=0)
        def update(state, x, optimizer=optimizer, traces=traces):
            traces.append(x)
            return optimizer.update(None, state, x)

        for _ in range(5):
            before = types(state)
            updates, state = update(state, x)
            assert types(state) == before
            assert types(updates) == types(x)
            x = optax.apply_updates(x, updates)
        assert len(traces) == 1
        assert state.num_predictions == 1
        points.append(x)
    np.testing.assert_allclose(*points, rtol=0, atol=1e-6)


def test_the_bound_of_cyclic_descent_holds_with_its_constant(x64):
    model = lm.linear_model(lm.dense(MATRIX), LABELS, lm.logistic(), lm.l1(0.02))
    constant = lm.mahalanobis_smoothness(model, 3)
    norms = [np.linalg.norm(MATRIX[:, j : j + 3], 2) ** 2 for j in (0, 3, 6)]
    np.testing.assert_allclose(lm.block_smoothness(model, 3), np.array(norms) / 4 / N, rtol=1e-12)
    assert lm.block_smoothness(model, 3).max() <= constant
    total = np.zeros((D, D))
    for j, norm in enumerate(norms):
        left = MATRIX * (np.arange(D) >= 3 * j)
        total += norm / 16 / N**2 * left.T @ left
    np.testing.assert_allclose(constant, np.linalg.norm(total, 2) ** 0.5, rtol=1e-12)

    start = jnp.full(D, 2.0)
    optimizer = lm.linear_model_descent(model, block_width=3, smoothness=constant)
    points, _ = jax.jit(lambda x: cycles(optimizer, x, 1000))(start)
    values = np.array(jax.vmap(model.objective)(points))
    assert np.all(np.diff(values) < 1e-14)
    points = np.array(points)
    signs = LABELS[:, None] * MATRIX
    g = -(signs.T @ (1 / (1 + np.exp(signs @ points.T)))).T / N
    at_zero = np.maximum(np.abs(g) - 0.02, 0)
    squares = np.sum(np.where(points == 0, at_zero, g + 0.02 * np.sign(points)) ** 2, axis=1)
    gap = float(model.objective(start) - model.objective(lm.solve(model, tolerance=1e-13).params))
    bound = blocks.cyclic_descent_bound(float(constant), gap, np.arange(1, 1001))
    assert np.all(np.minimum.accumulate(squares) <= bound)
    assert squares[-1] < 1e-12 * squares[0]


@functools.partial(jax.jit, static_argnames=("width", "order", "logistic"))
def points_of_both(matrix, targets, start, weight, width, order, logistic):
    loss = lm.logistic() if logistic else lm.squared()
    model = lm.linear_model(lm.dense(matrix), targets, loss, lm.elastic_net(weight, 0.1))
    constants = lm.block_smoothness(model, width)
    missing = -D % width
    options = {"order": order, "learning_rate": 0.9, "seed": 3}
    ours = cycles(lm.linear_model_descent(model, block_width=width, **options), start, 6)[0]
    padded = jnp.pad(matrix, ((0, 0), (0, missing)))
    whole = lambda x, batch: jnp.mean(loss.value(padded @ x, targets))
    reference = blocks.cyclic_block_descent(
        whole,
        blocks.equal_slices((D + missing) // width),
        constants,
        prox=proximal.elastic_net(weight, 0.1),
        **options,
    )
    return ours, cycles(reference, jnp.pad(start, (0, missing)), 6)[0][:, :D]


@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(0.1, 10),
    weight=st.floats(0, 1),
    form=st.sampled_from(
        [(1, blocks.cyclic, False), (3, blocks.shuffled, True), (3, blocks.cyclic, True)]
    ),
)
@hypothesis.settings(max_examples=30)
def test_a_cycle_is_that_of_block_descent_on_the_whole_loss(seed, scale, weight, form):
    rng = np.random.default_rng(seed)
    matrix, start = scale * rng.standard_normal((N, D)), rng.standard_normal(D)
    targets = np.sign(rng.standard_normal(N))
    with jax.enable_x64(True):
        ours, reference = points_of_both(matrix, targets, start, weight, *form)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-10)
