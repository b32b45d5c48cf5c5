"""The lasso on working sets: optimality in NumPy, scikit-learn, the gap, paths and its parts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
from helpers import trajectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import ElasticNet

from stochopt import blocks, proximal
from stochopt import linear_models as lm
from stochopt.linear_models import dense, largest_penalty, lasso, lasso_gap, lasso_path, sparse
from stochopt.linear_models.gram import GramQuadratic, minimize_with_l1, newton_on_support

TIGHT = 1e-12
with_x64 = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


@functools.cache
def data(num_rows=50, num_features=80):
    """Neighbouring columns are correlated, so that supports are hard to find; two are of zeros."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((num_rows, num_features))
    for j in range(1, num_features):
        matrix[:, j] = 0.8 * matrix[:, j - 1] + 0.6 * matrix[:, j]
    matrix *= rng.uniform(0.3, 3, num_features)
    coefficients = np.where(rng.random(num_features) < 0.2, rng.standard_normal(num_features), 0)
    targets = matrix @ coefficients + rng.standard_normal(num_rows)
    matrix[:, [3, 40]] = 0
    return matrix, targets


def highest(matrix, targets):
    return np.abs(matrix.T @ targets).max() / len(targets)


def objective(matrix, targets, penalty, ridge, x):
    loss = np.mean((matrix @ x - targets) ** 2) / 2
    return loss + penalty * np.abs(x).sum() + ridge / 2 * np.sum(x**2)


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("part", [0.5, 0.1, 0.01])
def test_minimizers(x64, part, ridge):
    """Optimality conditions, and scikit-learn to a gap of 1e-12."""
    matrix, targets = data()
    penalty = part * highest(matrix, targets)
    result = lasso(matrix, targets, penalty, ridge_weight=ridge, tolerance=TIGHT)
    x = np.asarray(result.params)
    slope = matrix.T @ (targets - matrix @ x) / len(targets) - ridge * x
    on = x != 0
    np.testing.assert_allclose(slope[on], penalty * np.sign(x[on]), atol=1e-5 * penalty)
    assert np.all(np.abs(slope) <= penalty * (1 + 1e-5))
    assert result.support_size == on.sum() > 0
    value = objective(matrix, targets, penalty, ridge, x)
    np.testing.assert_allclose(result.objective, value, rtol=1e-12)
    allowed = TIGHT * np.mean(targets**2) / 2
    assert 0 <= result.duality_gap <= allowed
    model = lm.linear_model(
        dense(matrix), jnp.asarray(targets), lm.squared(), lm.elastic_net(penalty, ridge)
    )
    assert lm.duality_gap(model, result.params) <= 10 * allowed

    total = penalty + ridge
    model = ElasticNet(
        alpha=total, l1_ratio=penalty / total, fit_intercept=False, tol=TIGHT, max_iter=1_000_000
    )
    np.testing.assert_allclose(x, model.fit(matrix, targets).coef_, atol=1e-6)


def test_most_of_the_features_are_never_touched(x64):
    """The default tolerance, with a support far smaller than the number of features."""
    matrix, targets = data()
    result = lasso(matrix, targets, 0.5 * highest(matrix, targets))
    assert 1 <= result.support_size < 20
    assert 1 <= result.num_working_sets <= 4


def primal_and_dual(part, ridge, x, scale):
    """The objective, and that of the dual problem at the residual times ``scale``."""
    matrix, targets = data()
    value = objective(matrix, targets, part * highest(matrix, targets), ridge, x)
    left = targets - scale * (targets - matrix @ x)
    dual = (targets @ targets - left @ left) / (2 * len(targets)) - ridge / 2 * scale**2 * x @ x
    return value, dual


@with_x64
@given(
    part=st.sampled_from([0.5, 0.1]),
    near=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    seed=st.integers(0, 9),
)
def test_the_gap_bounds_suboptimality(x64, part, near, seed):
    matrix, targets = data()
    n, penalty, ridge = len(targets), part * highest(matrix, targets), 0.2
    best = np.asarray(solved(part, ridge))
    rng = np.random.default_rng(seed)
    x = near * best + (1 - near) * rng.standard_normal(len(best)) * (rng.random(len(best)) < 0.1)
    residual = targets - matrix @ x
    slope = matrix.T @ residual / n - ridge * x
    energy = residual @ residual / n + ridge * x @ x
    gap = float(lasso_gap(penalty, jnp.asarray(x), jnp.asarray(slope), energy))
    value, dual = primal_and_dual(part, ridge, x, min(1, penalty / np.abs(slope).max()))
    np.testing.assert_allclose(gap, value - dual, rtol=1e-8, atol=1e-10)
    assert gap >= value - objective(matrix, targets, penalty, ridge, best) - 1e-10


def test_a_residual_that_is_not_rescaled_is_no_bound(x64):
    """The negative control: at zero it says that this is the minimizer."""
    best = np.asarray(solved(0.1, 0.2))
    zero = np.zeros_like(best)
    value, dual = primal_and_dual(0.1, 0.2, zero, 1.0)
    lower, _ = primal_and_dual(0.1, 0.2, best, 1.0)
    assert value - dual < 1e-10 < value - lower


@functools.cache
def solved(part, ridge):
    matrix, targets = data()
    penalty = part * highest(matrix, targets)
    return lasso(matrix, targets, penalty, ridge_weight=ridge, tolerance=TIGHT).params


def test_a_path_is_its_cold_solves(x64):
    matrix, targets = data()
    penalties = highest(matrix, targets) * np.array([1.0, 0.5, 0.1, 0.3])
    path = lasso_path(matrix, targets, penalties, tolerance=TIGHT)
    assert path.params.shape == (4, matrix.shape[1])
    assert not path.params[0].any()
    for penalty, x, gap in zip(penalties, path.params, path.duality_gap, strict=True):
        cold = lasso(matrix, targets, penalty, tolerance=TIGHT)
        np.testing.assert_allclose(x, cold.params, atol=1e-6)
        assert gap <= TIGHT * np.mean(targets**2) / 2


def test_a_start_at_the_minimizer_is_the_end(x64):
    matrix, targets = data()
    penalty = 0.1 * highest(matrix, targets)
    x = lasso(matrix, targets, penalty, tolerance=TIGHT).params
    again = lasso(matrix, targets, penalty, start=x, tolerance=1e-11)
    assert again.num_working_sets == 0
    np.testing.assert_array_equal(again.params, x)


def test_sparse_is_dense(x64):
    matrix, targets = data()
    matrix = np.where(np.abs(matrix) < 1, 0, matrix)
    penalty = 0.1 * highest(matrix, targets)
    expected = lasso(dense(matrix), targets, penalty, tolerance=TIGHT).params
    for form in (sparse(matrix), scipy.sparse.csr_array(matrix)):
        found = lasso(form, targets, penalty, tolerance=TIGHT).params
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_dependent_columns(x64):
    """Every column twice: minimizers are many, their gap and their sum are not."""
    matrix, targets = data()
    half = matrix[:, :40]
    penalty = 0.1 * highest(half, targets)
    twice = lasso(np.c_[half, half], targets, penalty, tolerance=TIGHT)
    single = lasso(half, targets, penalty, tolerance=TIGHT)
    np.testing.assert_allclose(twice.objective, single.objective, rtol=1e-10)
    np.testing.assert_allclose(np.sum(np.split(twice.params, 2), 0), single.params, atol=1e-5)


def test_zeros(x64):
    """Columns of zeros, targets of zeros, and penalties on both sides of the largest."""
    matrix, targets = data()
    top = float(largest_penalty(matrix, targets))
    np.testing.assert_allclose(top, highest(matrix, targets))
    assert lasso(matrix, targets, 1.0001 * top).support_size == 0
    assert lasso(matrix, targets, 0.99 * top).support_size > 0
    assert not lasso(matrix, targets, 0.01 * top).params[jnp.array([3, 40])].any()
    of_nothing = lasso(matrix, 0 * targets, 0.1)
    assert not of_nothing.params.any()
    assert of_nothing.duality_gap == of_nothing.num_working_sets == 0


def test_single_precision():
    matrix, targets = (array.astype(np.float32) for array in data())
    penalty = 0.1 * highest(matrix, targets)
    result = lasso(matrix, targets, penalty)
    assert result.params.dtype == np.float32
    exact = matrix.astype(float), targets.astype(float)
    model = ElasticNet(
        alpha=penalty, l1_ratio=1, fit_intercept=False, tol=TIGHT, max_iter=1_000_000
    )
    best = objective(*exact, penalty, 0, model.fit(*exact).coef_)
    found = objective(*exact, penalty, 0, np.asarray(result.params, float))
    assert found - best <= 1e-6 * np.mean(targets**2) / 2
    with pytest.warns(RuntimeWarning, match="duality gap"):
        lasso(matrix, targets, penalty, tolerance=1e-14)


def test_it_says_when_it_ends_early(x64):
    matrix, targets = data()
    with pytest.warns(RuntimeWarning, match="after 1 working sets"):
        lasso(matrix, targets, 0.01 * highest(matrix, targets), max_working_sets=1)


def test_newton_ends_on_the_right_support(x64):
    """Five cycles do not reach it; the step that follows does."""
    matrix, targets = data()
    matrix = matrix[:, 4:20]
    n, penalty = len(targets), 0.02 * highest(matrix, targets)
    quadratic = GramQuadratic(matrix.T @ matrix / n, matrix.T @ targets / n, targets @ targets / n)
    quadratic = jax.tree.map(jnp.asarray, quadratic)
    minimize = jax.jit(minimize_with_l1, static_argnames="max_rounds")
    best = minimize(quadratic, penalty, jnp.zeros(16), 1e-15)
    start = jnp.where(best != 0, best + 0.01 * jnp.sign(best), 0)
    found = minimize(quadratic, penalty, start, 0.0, max_rounds=1)
    np.testing.assert_allclose(found, best, atol=1e-12)

    # From far away the step is cut where the first coefficient gets to zero.
    far = jnp.where(jnp.arange(16) % 2, 1.0, -1.0)
    slope = quadratic.linear - quadratic.gram @ far
    cut, step = newton_on_support(quadratic.gram, penalty, far, slope)
    assert 0 < step < 1
    assert jnp.all(cut * far >= 0)
    assert jnp.sum(cut == 0) == 1
    value = functools.partial(objective, matrix, targets, penalty, 0.0)
    assert value(np.asarray(cut)) < value(np.asarray(far))


def test_descent_finds_the_support_near_the_minimizer(x64):
    r"""Zeros are exact as soon as :math:`|x - x^*| \le \delta / 2 L`, :math:`\delta` the slack.

    No later cycle leaves the ball of a level set that is within this distance.
    """
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((200, 20)) + rng.standard_normal((200, 1))
    targets = matrix[:, :3] @ np.array([1.0, -2.0, 0.5]) + rng.standard_normal(200)
    hessian = matrix.T @ matrix / 200
    penalty = 0.1 * highest(matrix, targets)
    best = np.asarray(lasso(matrix, targets, penalty, tolerance=1e-14).params)
    off = best == 0
    slack = np.min(penalty - np.abs(matrix.T @ (targets - matrix @ best) / 200)[off])
    eigenvalues = np.linalg.eigvalsh(hessian)
    radius = slack / (2 * eigenvalues[-1])
    low = eigenvalues[0] / 2 * min(radius, 0.9 * np.abs(best[~off]).min()) ** 2
    assert 3 <= off.sum() < 18

    loss = lambda x, batch: jnp.mean((jnp.asarray(matrix) @ x - jnp.asarray(targets)) ** 2) / 2
    optimizer = blocks.cyclic_block_descent(
        loss, blocks.equal_slices(20), np.diag(hessian), prox=proximal.l1(penalty).prox
    )
    start = jnp.asarray(10 * rng.standard_normal(20))
    points = np.asarray(trajectory(optimizer, start, 400, batch=())[0])
    value = functools.partial(objective, matrix, targets, penalty, 0.0)
    near = np.array([value(x) - value(best) <= low for x in points])
    found = np.array([np.array_equal(np.sign(x), np.sign(best)) for x in points])
    first = np.argmax(near)
    assert near[first:].all()
    assert found[first + 1 :].all()
    assert not found[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"penalty": 0.0}, "penalty must lie in"),
        ({"penalty": np.nan}, "penalty must lie in"),
        ({"ridge_weight": -1.0}, "ridge_weight must lie in"),
        ({"tolerance": 0.0}, "tolerance must lie in"),
        ({"max_working_sets": 0}, "max_working_sets must be"),
        ({"targets": np.zeros(3)}, "targets must have one number for each of the 50 rows"),
        ({"start": np.zeros(3)}, "start must have one number for each of the 80 columns"),
        ({"matrix": np.zeros(3)}, "matrix needs samples and features"),
    ],
)
def test_errors(change, message):
    matrix, targets = data()
    arguments = {"matrix": matrix, "targets": targets, "penalty": 0.1} | change
    with pytest.raises(ValueError, match=message):
        lasso(**arguments)


def test_errors_of_a_path():
    matrix, targets = data()
    for wrong in (0.1, [], [0.1, -1.0]):
        with pytest.raises(ValueError, match="penalties must"):
            lasso_path(matrix, targets, wrong)
