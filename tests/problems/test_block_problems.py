"""Problems with blocks: formulas, the least subgradient, constants by brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.linear_model

from stochopt import blocks, catalog
from stochopt.problems import (
    equicorrelated_quadratic,
    logistic_finite_sum,
    sparse_regression,
    sparse_robust_regression,
    tilted,
)

RNG = np.random.default_rng(0)
# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
ROBUST = sparse_robust_regression(6, 30, 3, batch_size=7, weight=0.05)
LASSO = sparse_regression(12, 8, 3, weight=0.2)
QUADRATIC = equicorrelated_quadratic(5, 0.3)


def test_the_quadratic_has_ones_on_the_diagonal_and_one_number_elsewhere(x64):
    hessian = jax.jit(jax.hessian(QUADRATIC.full_loss))(jnp.zeros(5))
    np.testing.assert_allclose(hessian, 0.7 * np.eye(5) + 0.3, atol=1e-15)
    spectrum = np.linalg.eigvalsh(hessian)
    np.testing.assert_allclose(spectrum[[0, -1]], [QUADRATIC.strong_convexity, 2.2])
    assert QUADRATIC.smoothness == 2.2
    x = jnp.asarray(RNG.standard_normal(5))
    np.testing.assert_allclose(QUADRATIC.exact["gradient"](x), hessian @ x)
    assert QUADRATIC.loss(x, QUADRATIC.sample(jax.random.key(0))) == QUADRATIC.metrics(x)["gap"]


def test_the_robust_loss_is_the_mean_of_its_terms_and_a_penalty(x64):
    x = jnp.asarray(RNG.standard_normal(6))
    terms = np.asarray(jax.jit(jax.vmap(ROBUST.smooth, (None, 0)))(x, jnp.arange(30)[:, None]))
    assert np.all((terms >= 0) & (terms < 1))
    np.testing.assert_allclose(ROBUST.full_smooth(x), terms.mean())
    np.testing.assert_allclose(ROBUST.smooth(x, jnp.asarray([4, 9])), terms[[4, 9]].mean())
    penalty = 0.05 * np.abs(x).sum()
    np.testing.assert_allclose(ROBUST.loss(x, jnp.arange(7)), terms[:7].mean() + penalty)
    np.testing.assert_allclose(ROBUST.full_loss(x), terms.mean() + penalty)
    np.testing.assert_allclose(ROBUST.metrics(x)["objective"], terms.mean() + penalty)
    curvature = jax.jit(jax.hessian(ROBUST.full_smooth))(5 * x)
    assert np.linalg.eigvalsh(curvature)[0] < -1e-3  # not convex
    drawn = np.asarray(ROBUST.sample(jax.random.key(1)))
    assert len(set(drawn.tolist())) == 7
    assert drawn.max() < 30


def test_the_lasso_has_the_solution_that_it_says(x64):
    """By scikit-learn, on data read off the oracles; the gap is a difference of objectives."""
    x = jnp.asarray(RNG.standard_normal((3, 12)))
    # The residual of example i is linear: its value at zero is -b_i, its slopes are a_i.
    slope = jax.vmap(jax.grad(LASSO.smooth), (None, 0))
    terms = jnp.arange(8)[:, None]
    values = jax.vmap(LASSO.smooth, (None, 0))(jnp.zeros(12), terms)
    hessians = jax.vmap(jax.hessian(LASSO.smooth), (None, 0))(jnp.zeros(12), terms)
    rows = hessians[:, 0] / jnp.sqrt(hessians[:, 0, 0])[:, None]
    responses = -slope(jnp.zeros(12), terms)[:, 0] / rows[:, 0]
    np.testing.assert_allclose(values, responses**2 / 2)
    model = sklearn.linear_model.Lasso(0.2, fit_intercept=False, tol=1e-14, max_iter=10**5)
    np.testing.assert_allclose(model.fit(rows, responses).coef_, LASSO.optimum, atol=1e-7)
    assert np.count_nonzero(LASSO.optimum) == 3
    gaps = jax.vmap(LASSO.full_loss)(x) - LASSO.full_loss(jnp.asarray(LASSO.optimum))
    np.testing.assert_allclose(jax.vmap(LASSO.metrics)(x)["gap"], gaps)


def test_a_proximal_step_finds_the_zeros_within_the_margin(x64):
    """Not from everywhere: the margin is what decides."""
    away = RNG.standard_normal((200, 12))
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    step = 1 / LASSO.smoothness
    slope = jax.grad(LASSO.full_smooth)
    move = jax.jit(jax.vmap(lambda x: LASSO.prox(x - step * slope(x), step)))
    radius = 0.1 * 0.2 / (2 * LASSO.smoothness)
    outside = LASSO.optimum == 0
    assert np.all(move(LASSO.optimum + radius * away)[:, outside] == 0)
    assert np.any(move(LASSO.optimum + 30 * radius * away)[:, outside] != 0)


def test_the_subgradient_is_the_least_one(x64):
    """Catches the sign of zero, for which the metric of a sparse solution would not vanish."""
    x = jnp.asarray(RNG.standard_normal(6)) * jnp.asarray([1, 0, 1, 0, 0, 1])
    slope = np.asarray(jax.grad(ROBUST.full_smooth)(x))
    signs = np.where(np.asarray(x) == 0, np.clip(-slope / 0.05, -1, 1), np.sign(x))
    np.testing.assert_allclose(ROBUST.exact["subgradient"](x), slope + 0.05 * signs, atol=1e-15)
    expected = np.sum((slope + 0.05 * signs) ** 2)
    np.testing.assert_allclose(ROBUST.metrics(x)["squared_subgradient_norm"], expected)


@pytest.mark.parametrize(
    "problem", [ROBUST, LASSO, QUADRATIC, logistic_finite_sum(num_features=3)], ids=lambda p: p.name
)
def test_the_constants_of_the_blocks_bound_their_curvature_and_are_met(x64, problem):
    """All losses are steepest where their argument vanishes; the robust one nowhere so."""
    smooth = problem.full_unregularized
    start = problem.init(jax.random.key(0))
    of = problem.partition(start)
    hessian = jax.jit(jax.hessian(smooth))
    size = start.size // len(of.names)
    for x in (start, *(jnp.asarray(RNG.standard_normal((5, start.size))))):
        h = np.asarray(hessian(x))
        for j, constant in enumerate(problem.block_smoothness):
            part = slice(j * size, (j + 1) * size)
            curvature = np.linalg.norm(h[part, part], 2)
            assert curvature <= constant * (1 + 1e-12)
            if problem is not ROBUST and x is start:
                np.testing.assert_allclose(curvature, constant)


def test_the_constants_of_a_cycle_bound_the_gradients_it_meets(x64):
    """Differences in block j, of points that differ from it on, or before it."""
    points = jnp.asarray(RNG.standard_normal((200, 2, 6))) / 5
    steps = jnp.asarray(RNG.uniform(0, 1, (200, 1)))
    pairs = jnp.stack([points[:, 0], points[:, 0] + steps * points[:, 1]], axis=1)
    slope = jax.grad(ROBUST.full_smooth)
    of_terms = jax.vmap(lambda x, i: jax.grad(ROBUST.smooth)(x, i[None]), in_axes=(None, 0))

    def ratios(pair, behind):
        x, y = pair
        squares, sampled = 0.0, 0.0
        for j in range(3):
            moves = (jnp.arange(6) // 2 < j) if behind else (jnp.arange(6) // 2 >= j)
            z = jnp.where(moves, y, x)
            part = slice(2 * j, 2 * j + 2)
            squares += jnp.sum((slope(x) - slope(z))[part] ** 2)
            terms = of_terms(x, jnp.arange(30)) - of_terms(z, jnp.arange(30))
            sampled += jnp.mean(jnp.sum(terms[:, part] ** 2, axis=1))
        return jnp.sqrt(jnp.stack([squares, sampled]) / jnp.sum((x - y) ** 2))

    for position, behind in enumerate((False, True)):
        found = jax.jit(jax.vmap(lambda pair, b=behind: ratios(pair, b)))(pairs).max(axis=0)
        for ratio, constants in zip(
            found, (ROBUST.cyclic_smoothness, ROBUST.sampled_cyclic_smoothness), strict=True
        ):
            assert 0.1 * constants[position] < ratio <= constants[position]


def test_constants_of_a_quadratic_by_hand(x64):
    r"""Of the two coordinates of [[2, 1], [1, 3]], each a block.

    Ahead of the first are both, [[4, 2], [2, 1]], of the second itself, 9; behind, the first for
    the second, 1.
    """
    hessian = np.array([[2.0, 1.0], [1.0, 3.0]])
    matrices = [np.outer(row, row) for row in hessian]
    ahead, behind = blocks.mahalanobis_constants(matrices, blocks.equal_slices(2), jnp.zeros(2))
    np.testing.assert_allclose(ahead**2, np.linalg.norm([[4, 2], [2, 10]], 2))
    np.testing.assert_allclose(behind, 1.0)
    # By names, in another order, over two leaves.
    tree = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    partition = blocks.by_labels({"a": "second", "b": "first"})
    again = blocks.mahalanobis_constants(matrices, partition, tree)
    np.testing.assert_allclose(again, (ahead, behind))
    with pytest.raises(ValueError, match=r"matrices must have the shape \(2, 2, 2\), got \(2, 3"):
        blocks.mahalanobis_constants(np.ones((2, 3, 3)), partition, tree)


def test_beside_a_prox_methods_get_the_loss_without_the_penalty(x64):
    """Catches a penalty that counts twice: at the solution page would go on moving."""
    x = jnp.zeros(6)
    batch = jnp.arange(7)
    for problem in (ROBUST, tilted(ROBUST, 0.3)):
        page = catalog.find("page").make(problem, learning_rate=0.5)
        updates, _ = jax.jit(page.update)(None, page.init(x), x, batch=batch)
        wanted = problem.prox(-0.5 * jax.grad(problem.full_smooth)(x), 0.5)
        np.testing.assert_allclose(updates, wanted, atol=1e-15)
    change = jax.grad(tilted(ROBUST, 0.3).full_smooth)(x) - jax.grad(ROBUST.full_smooth)(x)
    size = 0.3 * jnp.linalg.norm(ROBUST.exact["subgradient"](x)) / np.sqrt(6)
    np.testing.assert_allclose(change, jnp.full(6, size), rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "argument", "value"),
    [
        (equicorrelated_quadratic, "num_coordinates", 0),
        (equicorrelated_quadratic, "coupling", 1.0),
        (sparse_regression, "weight", 0.0),
        (sparse_regression, "support_size", 41),
        (sparse_robust_regression, "num_features", 2.5),
        (sparse_robust_regression, "num_examples", 0),
        (sparse_robust_regression, "num_feature_blocks", 5),
        (sparse_robust_regression, "batch_size", 101),
        (sparse_robust_regression, "weight", -1.0),
    ],
)
def test_bad_arguments_are_named(make, argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must "):
        make(**{argument: value})
