"""Solutions of linear models beside scikit-learn's, and their optimality conditions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.linear_model

from stochopt import blocks
from stochopt import linear_models as lm

RNG = np.random.default_rng(1)
N, D = 60, 24
MATRIX = RNG.standard_normal((N, D)) @ (np.eye(D) + 0.1)  # correlated columns
TRUTH = np.where(np.arange(D) < 6, RNG.standard_normal(D), 0)
TARGETS = MATRIX @ TRUTH + 0.5 * RNG.standard_normal(N)
LABELS = np.where(TARGETS > 0, 1.0, -1.0)

WEIGHT = 0.1
REFERENCES = {
    "lasso": (
        lm.squared(),
        TARGETS,
        lm.l1(WEIGHT),
        sklearn.linear_model.Lasso(WEIGHT, fit_intercept=False, tol=1e-14, max_iter=100_000),
    ),
    "elastic net": (
        lm.squared(),
        TARGETS,
        lm.elastic_net(0.7 * WEIGHT, 0.3 * WEIGHT),
        sklearn.linear_model.ElasticNet(
            WEIGHT, l1_ratio=0.7, fit_intercept=False, tol=1e-14, max_iter=100_000
        ),
    ),
    "logistic": (
        lm.logistic(),
        LABELS,
        lm.l1(WEIGHT / 4),
        sklearn.linear_model.LogisticRegression(
            l1_ratio=1,
            C=4 / (N * WEIGHT),
            fit_intercept=False,
            solver="liblinear",
            tol=1e-12,
            max_iter=10_000,
        ),
    ),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_solutions_are_those_of_scikit_learn(x64, name):
    loss, targets, penalty, estimator = REFERENCES[name]
    expected = estimator.fit(MATRIX, targets).coef_.reshape(-1)
    solutions = {}
    for design in (lm.dense(MATRIX), lm.sparse(MATRIX)):
        model = lm.linear_model(design, targets, loss, penalty)
        solution = lm.solve(model, tolerance=1e-14, order=blocks.shuffled)
        assert solution.relative_gap <= 1e-14
        np.testing.assert_allclose(solution.params, expected, rtol=0, atol=1e-6)
        assert 0 < np.count_nonzero(solution.params) < D
        np.testing.assert_array_equal(solution.params == 0, expected == 0)
        solutions[type(design)] = solution.params
    np.testing.assert_allclose(*solutions.values(), rtol=0, atol=1e-10)


def test_a_group_lasso_meets_its_conditions(x64):
    size, weight = 5, 0.2  # the last group has four
    model = lm.linear_model(lm.dense(MATRIX), TARGETS, lm.squared(), lm.group_lasso(weight, size))
    solution = lm.solve(model, tolerance=1e-14, block_width=size)
    assert solution.relative_gap <= 1e-14
    x = np.array(solution.params)
    gradient = MATRIX.T @ (MATRIX @ x - TARGETS) / N
    kept = 0
    for first in range(0, D, size):
        group, slope = x[first : first + size], gradient[first : first + size]
        if np.any(group):
            kept += 1
            np.testing.assert_allclose(slope, -weight * group / np.linalg.norm(group), atol=1e-6)
        else:
            assert np.linalg.norm(slope) <= weight + 1e-8
    assert 0 < kept < 5
    # Blocks of two groups end there too; single coordinates are no blocks for it.
    wide = lm.solve(model, tolerance=1e-14, block_width=2 * size)
    np.testing.assert_allclose(wide.params, x, rtol=0, atol=1e-6)


def test_descent_with_a_nonconvex_penalty_falls_and_ends_stationary(x64):
    weight, gamma = 0.2, 3.0
    model = lm.linear_model(lm.dense(MATRIX), TARGETS, lm.squared(), lm.mcp(weight, gamma))
    optimizer = lm.linear_model_descent(model)

    def cycle(carry, _):
        x, state = carry
        updates, state = optimizer.update(None, state, x)
        return (optax.apply_updates(x, updates), state), model.objective(x)

    start = jnp.ones(D)
    run = jax.jit(lambda x: jax.lax.scan(cycle, (x, optimizer.init(x)), None, 600))
    (x, _), values = run(start)
    assert np.all(np.diff(values) < 1e-13)
    x = np.array(x)
    gradient = MATRIX.T @ (MATRIX @ x - TARGETS) / N
    slope = np.maximum(weight - np.abs(x) / gamma, 0) * np.sign(x)
    assert np.abs(gradient + slope)[x != 0].max() < 1e-8
    assert np.abs(gradient)[x == 0].max() <= weight
    assert 0 < np.count_nonzero(x) < D
    assert lm.optimality(model, x) < 1e-8 < 1e-2 < lm.optimality(model, start)
    assert np.any(np.abs(x) > gamma * weight)  # where it does not shrink at all


def test_an_unfinished_run_says_so_and_a_start_at_the_solution_stops_at_once(x64):
    loss, targets, penalty, _ = REFERENCES["lasso"]
    model = lm.linear_model(lm.dense(MATRIX), targets, loss, penalty)
    options = {"order": blocks.shuffled}
    short = lm.solve(model, tolerance=1e-14, max_cycles=10, **options)
    assert short.num_cycles == 10
    assert short.relative_gap > 1e-14
    full = lm.solve(model, tolerance=1e-10, **options)
    again = lm.solve(model, full.params, tolerance=1e-9, **options)
    assert again.num_cycles == 0
    np.testing.assert_array_equal(again.params, full.params)
    at_zero = np.mean(np.square(TARGETS)) / 2
    np.testing.assert_allclose(
        full.relative_gap, lm.duality_gap(model, full.params) / at_zero, rtol=1e-3
    )
