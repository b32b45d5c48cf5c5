"""Every step against the numerical minimizer of its model, written down once more in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from stochopt.model_based import (
    duality_gap,
    iterated_prox,
    least_absolute_multipliers,
    prox_subgradient,
    stochastic_prox_linear,
    stochastic_prox_point,
    truncated_model,
)
from stochopt.problems import phase_retrieval, square_prox

STEPS = (1e-3, 0.03, 1.0, 30.0, 1e3)


def residuals(x, batch):
    a, b = batch
    return (a @ x) ** 2 - b


def loss(x, batch):
    return jnp.mean(jnp.abs(residuals(x, batch)))


def instance(rng, size, dimension=4):
    a = rng.standard_normal((size, dimension))
    b = rng.standard_normal(size) ** 2
    return rng.standard_normal(dimension), (a, b)


def step_of(method):
    """``step(learning_rate, x, batch)``, the point after one update, and the state."""

    def step(learning_rate, x, batch):
        optimizer = method(learning_rate)
        value, grad = jax.value_and_grad(loss)(x, batch)
        updates, state = optimizer.update(grad, optimizer.init(x), x, value=value, batch=batch)
        return optax.apply_updates(x, updates), state

    return jax.jit(step)


# The methods, and their models in NumPy: of y, at x, on a batch.


def line(y, x, a, b):
    p = a @ x
    slope = np.mean(2 * (np.sign(p**2 - b) * p)[:, None] * a, axis=0)
    return np.mean(np.abs(p**2 - b)) + slope @ (y - x)


MODELS = {
    "prox_subgradient": (
        lambda lr: prox_subgradient(
            lr,
            prox=lambda x, step: jnp.sign(x) * jnp.maximum(jnp.abs(x) - 0.3 * step, 0),
        ),
        lambda y, x, a, b: line(y, x, a, b) + 0.3 * np.sum(np.abs(y)),
    ),
    "truncated_model": (
        lambda lr: truncated_model(lr, lower_bound=0.1),
        lambda y, x, a, b: max(line(y, x, a, b), 0.1),
    ),
    "stochastic_prox_linear": (
        lambda lr: stochastic_prox_linear(residuals, lr),
        lambda y, x, a, b: np.mean(np.abs((a @ x) ** 2 - b + 2 * (a @ x) * (a @ (y - x)))),
    ),
    "stochastic_prox_point": (
        lambda lr: stochastic_prox_point(
            lambda x, step, batch: square_prox(x, step, batch[0][0], batch[1][0]), lr
        ),
        lambda y, x, a, b: np.mean(np.abs((a @ y) ** 2 - b)),
    ),
}


def excess(model, y, x, batch, lr, rng, num_directions=200):
    """How much lower the regularized model is somewhere near ``y``, relative to its change.

    Nearness is on all scales. The regularized models are convex but for the proximal point's,
    whose global minimum is searched below.
    """
    value = lambda z: model(z, x, *batch) + np.sum((z - x) ** 2) / (2 * lr)
    scale = np.linalg.norm(y - x) + 1e-12
    here, least = value(y), np.inf
    for _ in range(num_directions):
        direction = rng.standard_normal(len(x))
        least = min(least, value(y + scale * 10 ** rng.uniform(-4, 0.5) * direction))
    # Towards the start and on, where a step of the wrong length shows.
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
        least = min(least, value(x + factor * (y - x)))
    return (here - least) / (value(x) - here + 1e-12)


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, size) for name in MODELS for size in (1, 3) if (name[-5:], size) != ("point", 3)],
)
def test_the_step_minimizes_the_regularized_model(x64, name, size):
    method, model = MODELS[name]
    step, rng = step_of(method), np.random.default_rng(size)
    wrong = 0
    for lr in STEPS:
        for _ in range(6):
            x, batch = instance(rng, size)
            y, state = step(lr, x, batch)
            y = np.asarray(y)
            assert excess(model, y, x, batch, lr, rng) < 1e-9
            assert optax.tree.get(state, "subproblem_gap") < 1e-9
            # Control: a step that is five per cent too short does not minimize it.
            wrong += excess(model, x + 0.95 * (y - x), x, batch, lr, rng) > 1e-4
    assert wrong >= 25  # of 30; some steps are as long as rounding


# The proximal point of phase retrieval.


def brute_force(x, lr, a, b):
    """The least value of the problem, on ever finer grids along ``a``."""
    p, norm = a @ x, np.linalg.norm(a)
    value = lambda t: np.abs((p + t * norm) ** 2 - b) + t**2 / (2 * lr)
    best, reach = 0.0, 1.1 * (np.abs(p) + np.sqrt(b)) / norm + 1e-3
    for points in (100_001, 4001, 4001, 4001):
        grid = best + np.linspace(-reach, reach, points)
        best, reach = grid[np.argmin(value(grid))], 10 * reach / points
    return value(best)


def test_proximal_point_of_phase_retrieval_by_brute_force(x64):
    rng = np.random.default_rng(0)
    prox = jax.jit(square_prox)
    kinds = {"outside": 0, "inside": 0, "kink": 0, "other sign": 0}
    subgradient_is_worse = 0
    for _ in range(200):
        x, (a, b) = instance(rng, 1, dimension=5)
        a, b, lr = a[0], b[0], 10 ** rng.uniform(-3, 3)
        y = np.asarray(prox(x, lr, a, b))
        value = lambda y, x=x, a=a, b=b, lr=lr: (
            np.abs((a @ y) ** 2 - b) + np.sum((y - x) ** 2) / (2 * lr)
        )
        least = brute_force(x, lr, a, b)
        assert value(y) <= least * (1 + 1e-10) + 1e-14
        np.testing.assert_allclose(value(y), least, rtol=1e-7, atol=1e-10)
        at_kink = abs((a @ y) ** 2 - b) < 1e-9
        side = "outside" if (a @ y) ** 2 > b else "inside"
        kinds["kink" if at_kink else side] += 1
        kinds["other sign"] += (a @ y) * (a @ x) < 0
        step = x - lr * np.sign((a @ x) ** 2 - b) * 2 * (a @ x) * a
        subgradient_is_worse += value(step) > least + 1e-6
    # Every candidate matters: a formula without one of them would have been noticed.
    assert min(kinds["outside"], kinds["inside"], kinds["kink"]) >= 10, kinds
    assert subgradient_is_worse >= 150


@pytest.mark.parametrize("b", [0.0, 1.0])
def test_proximal_point_at_the_degenerate_places(x64, b):
    prox, zero = jax.jit(square_prox), np.zeros(3)
    # No information.
    np.testing.assert_array_equal(prox(np.ones(3), 1.0, zero, b), 1.0)
    # On the ridge in the middle: stay while the penalty is the steeper one, else to one side.
    a = np.array([1.0, 0, 0])
    np.testing.assert_array_equal(prox(zero, 0.4, a, b), 0.0)
    np.testing.assert_allclose(np.abs(prox(zero, 5.0, a, b)), [np.sqrt(b), 0, 0])
    # Without a length, a projection onto the nearer of the two solutions.
    y = prox(np.array([0.3, 1.0, 2.0]), 1e12, a, b)
    np.testing.assert_allclose(y, [np.sqrt(b), 1, 2], atol=1e-12)


# The dual problem on a box.


@pytest.mark.parametrize("lr", [1e-3, 0.1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("size", [2, 7, 12])
def test_multipliers_against_bounded_least_squares(x64, size, lr):
    rng = np.random.default_rng(size)
    solve = jax.jit(least_absolute_multipliers)
    for _ in range(4):
        z = rng.standard_normal((size, 14))
        c = rng.standard_normal(size) * 10 ** rng.uniform(-2, 2)
        matrix = lr / size * z @ z.T
        found = np.asarray(solve(matrix, c))
        root = np.linalg.cholesky(matrix).T
        reference = scipy.optimize.lsq_linear(
            root, np.linalg.solve(root.T, c), (-1, 1), method="bvls", tol=1e-15
        ).x
        value = lambda m, c=c, matrix=matrix: c @ m - m @ matrix @ m / 2
        np.testing.assert_allclose(value(found), value(reference), rtol=1e-12)
        np.testing.assert_allclose(found, reference, atol=1e-4)
        assert np.all(np.abs(found) <= 1)


@pytest.mark.parametrize("lr", [1e-3, 1.0, 1e3])
def test_multipliers_of_more_residuals_than_parameters(x64, lr):
    """The matrix is singular; primal and dual value, in NumPy, meet."""
    rng = np.random.default_rng(0)
    z, c = rng.standard_normal((40, 5)), rng.standard_normal(40)
    matrix = lr / 40 * z @ z.T
    found = np.asarray(jax.jit(least_absolute_multipliers)(matrix, c))
    move = -lr / 40 * z.T @ found
    primal = np.mean(np.abs(c + z @ move)) + move @ move / (2 * lr)
    dual = (c @ found - found @ matrix @ found / 2) / 40
    np.testing.assert_allclose(primal, dual, atol=1e-9)
    np.testing.assert_allclose(duality_gap(matrix, c, found), primal - dual, atol=1e-12)
    # Control: the gap sees multipliers that are slightly off.
    assert duality_gap(matrix, c, 0.99 * found) > 1e-6


def test_multipliers_in_single_precision_report_what_they_reach():
    rng = np.random.default_rng(0)
    z, c = rng.standard_normal((100, 5)), rng.standard_normal(100)
    solve = jax.jit(least_absolute_multipliers)
    for lr, tolerance in ((0.1, 1e-6), (10.0, 1e-4), (1e6, 1.0)):
        matrix = jnp.asarray(lr / 100 * z @ z.T, jnp.float32)
        found = solve(matrix, jnp.asarray(c, jnp.float32))
        assert np.all(np.isfinite(found))
        assert duality_gap(matrix, jnp.asarray(c, jnp.float32), found) < tolerance


@pytest.mark.parametrize("size", [1, 3])
def test_multipliers_at_the_ends(size):
    solve, c = jax.jit(least_absolute_multipliers), jnp.arange(1.0, size + 1)
    # Without curvature to the bounds, without residuals nowhere, and no number stays none.
    np.testing.assert_allclose(solve(jnp.zeros((size, size)), c), 1, rtol=1e-5)
    np.testing.assert_array_equal(solve(jnp.eye(size), jnp.zeros(size)), 0)
    assert np.all(np.isnan(solve(jnp.eye(size), c * jnp.nan)))


# The iterated proximal operator.


def test_iterated_prox_obeys_its_bound(x64):
    """On absolute values of a line, where the operator has a closed form; an equality nearly."""
    rng = np.random.default_rng(0)
    ratios = []
    for num_steps in (1, 3, 10, 100, 1000):
        prox = jax.jit(iterated_prox(lambda x, a: jnp.abs(a @ x), num_steps))
        for _ in range(5):
            x, a, lr = rng.standard_normal(3), rng.standard_normal(3), 10 ** rng.uniform(-2, 2)
            exact = x - np.clip(a @ x / (a @ a), -lr, lr) * a
            bound = 4 * lr * np.linalg.norm(a) / np.sqrt(num_steps + 2)
            ratios.append(np.linalg.norm(prox(x, lr, a) - exact) / bound)
    assert np.max(ratios) < 1
    assert np.max(ratios) > 0.05


def test_iterated_prox_makes_nearly_the_same_path(x64):
    """A hundred gradients an update, where the closed form has none."""
    problem = phase_retrieval(4, 20, 1, 0.0)
    batches = jax.vmap(problem.sample)(jax.random.split(jax.random.key(0), 200))
    ends = {}
    for num_steps in (1, 100):
        for lr in (0.03, 0.5):
            prox = iterated_prox(problem.loss, num_steps)
            ends[num_steps, lr] = _path(problem, prox, lr, batches)
    exact = _path(problem, problem.loss_prox, 0.03, batches)
    assert exact < 1e-6
    assert ends[100, 0.03] < 1e-2
    # Control: one step is the subgradient method, which long steps lead astray.
    assert ends[1, 0.5] > 0.1 or np.isnan(ends[1, 0.5])


def _path(problem, prox, lr, batches):
    optimizer = stochastic_prox_point(prox, lr)

    def step(carry, batch):
        x, state = carry
        updates, state = optimizer.update(None, state, x, batch=batch)
        return (optax.apply_updates(x, updates), state), None

    x = problem.init(jax.random.key(1))
    (x, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, batches))((x, optimizer.init(x)))
    return float(problem.metrics(x)["gap"])
