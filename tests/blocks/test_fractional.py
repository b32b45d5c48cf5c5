"""Coordinate descent for ratios: Rayleigh quotients, lines solved globally, kinks, intervals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import trajectory

from stochopt import blocks
from stochopt.problems import rayleigh_quotient

PROBLEM = rayleigh_quotient(10)
RAYLEIGH = tuple(
    (lambda params, batch, name=name: PROBLEM.exact[name](params))
    for name in ("numerator", "denominator")
)


def curvature():
    return PROBLEM.exact["curvature"](jnp.ones(10))


@pytest.mark.parametrize(
    ("method", "proximity"),
    [
        (blocks.fractional_coordinate_descent, 0.0),
        (blocks.parametric_coordinate_descent, 0.5),
    ],
)
def test_the_limit_of_a_rayleigh_quotient_is_the_least_eigenvalue(x64, method, proximity):
    optimizer = method(*RAYLEIGH, curvature(), proximity=proximity)
    start = PROBLEM.init(jax.random.key(0))
    points, states = trajectory(optimizer, start, 300)
    matrix = np.asarray(jax.jit(jax.hessian(PROBLEM.exact["numerator"]))(jnp.zeros(10)))
    values = np.einsum("ki,ij,kj->k", points, matrix, points) / np.sum(points**2, axis=1)
    np.testing.assert_allclose(values[-1], np.linalg.eigvalsh(matrix)[0], rtol=1e-10)
    assert np.all(np.diff(values) <= 1e-14)
    least = np.linalg.eigvalsh(matrix)[0]
    print(
        f"{method.__name__} with {proximity}: 1e-8 in {1 + np.argmax(values - least < 1e-8)} cycles"
    )
    assert states.num_coordinate_steps[-1] == 3000
    assert states.num_descent_violations[-1] == 0


def test_ratios_of_quadratics_are_minimized_globally(x64):
    """Against a fine grid: a stationary point may as well be the maximum."""
    grid = np.concatenate([np.linspace(-50, 50, 200001), [0.0]])
    at = lambda q, t: q[0] + q[1] * t + q[2] / 2 * t**2
    candidates = jax.jit(blocks.minimizers_of_ratio)
    found = np.zeros(2, int)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        above = rng.standard_normal(3) + np.array([0, 0, 2.0])
        a, b = rng.standard_normal(2)
        below = np.array([1 + a**2 + b**2, 2 * a, 2.0])  # positive everywhere
        line = blocks.CoordinateLine(0.0, jnp.asarray(above), jnp.asarray(below), above[0])
        steps = np.asarray(candidates(line))
        values = at(above, steps) / at(below, steps)
        found[np.argmin(values)] += 1
        assert values.min() <= (at(above, grid) / at(below, grid)).min() + 1e-12
        slopes = (above[1] + above[2] * steps) * at(below, steps)
        slopes -= at(above, steps) * (below[1] + below[2] * steps)
        np.testing.assert_allclose(slopes / (1 + steps**2), 0, atol=1e-9)
    assert found.min() > 3, "neither root is always the minimum"


@pytest.mark.parametrize("name", ["ratio", "difference"])
def test_lines_with_a_kink_are_minimized_globally(x64, name):
    grid, weight = np.linspace(-20, 20, 100001), 0.8
    at = lambda q, t: q[0] + q[1] * t + q[2] / 2 * t**2
    minimizers = {
        "ratio": blocks.minimizers_of_ratio,
        "difference": blocks.minimizers_of_difference,
    }
    candidates = jax.jit(blocks.with_l1_kink(minimizers[name], weight))
    sides = np.zeros(3, int)  # of the entry: the other one, the kink, its own
    for seed in range(60):
        rng = np.random.default_rng(seed)
        entry, a = rng.standard_normal(2)
        above = np.array([rng.uniform(0, 3), *(2 * rng.standard_normal(1)), 4.0])
        below, kink = np.array([1 + a**2, 2 * a, 2.0]), np.abs(entry)
        start = above[0] / below[0]

        def merit(t, above=above, below=below, entry=entry, kink=kink, start=start):
            numerator = at(above, t) + weight * (np.abs(entry + t) - kink)
            if name == "ratio":
                return numerator / at(below, t)
            return numerator - start * at(below, t)

        if merit(grid).min() >= (2.0 if name == "ratio" else merit(1e3 * np.ones(1))[0]):
            continue  # the infimum is at infinity

        line = blocks.CoordinateLine(entry, jnp.asarray(above), jnp.asarray(below), start)
        steps = np.asarray(candidates(line))
        best = steps[np.nanargmin(merit(steps))]
        assert merit(best) <= merit(grid).min() + 1e-12
        sides[1 + int(np.sign(np.round((entry + best) * entry, 12)))] += 1
    assert sides.min() > 3


# A lasso over a norm: not convex, with kinks above.
D, LASSO = 6, 0.3
FACTOR = np.random.default_rng(3).standard_normal((12, D))
GRAM, TARGET = FACTOR.T @ FACTOR / 12 + np.eye(D), np.random.default_rng(4).standard_normal(D)


def squares(x, batch=None):
    return x @ (jnp.asarray(GRAM) @ x) / 2 - x @ jnp.asarray(TARGET) + 1


def norm_and_one(x, batch=None):
    return jnp.sum(x**2) / 2 + 1


def penalty(x):
    return LASSO * jnp.sum(jnp.abs(x))


def numpy_ratio(x):
    above = x @ GRAM @ x / 2 - x @ TARGET + 1 + LASSO * np.abs(x).sum()
    return above / (x @ x / 2 + 1)


@pytest.mark.parametrize("name", ["ratio", "difference"])
def test_limits_with_kinks_are_minima_along_every_coordinate(x64, name):
    start = np.random.default_rng(5).standard_normal(D)
    method, candidates, proximity = {
        "ratio": (blocks.fractional_coordinate_descent, blocks.minimizers_of_ratio, 0.0),
        "difference": (
            blocks.parametric_coordinate_descent,
            blocks.minimizers_of_difference,
            float(numpy_ratio(start)),
        ),
    }[name]
    optimizer = method(
        squares,
        norm_and_one,
        jnp.asarray(np.diag(GRAM)),
        penalty=penalty,
        proximity=proximity,
        candidates=blocks.with_l1_kink(candidates, LASSO),
        order=blocks.shuffled,
    )
    points, states = trajectory(optimizer, start, 300)
    values = np.array([numpy_ratio(x) for x in (start, *np.asarray(points))])
    assert np.all(np.diff(values) <= 1e-14)
    x = np.asarray(points[-1])
    assert 0 < np.count_nonzero(x) < D
    for i in range(D):
        along = lambda t, i=i: numpy_ratio(x + t * np.eye(D)[i])
        near = [
            scipy.optimize.minimize_scalar(along, bounds=b, method="bounded")
            for b in ((-3, 0), (0, 3))
        ]
        assert min(found.fun for found in near) >= values[-1] - 1e-9
    assert states.num_descent_violations[-1] == 0
    if name == "difference":
        return
    # Candidates that do not know the kinks never put an entry on one.
    blind = method(
        squares,
        norm_and_one,
        jnp.asarray(np.diag(GRAM)),
        penalty=penalty,
        proximity=proximity,
        candidates=candidates,
    )
    points, _ = trajectory(blind, start, 300)
    assert np.all(points[-1] != 0)
    others = np.array([numpy_ratio(x) for x in (start, *np.asarray(points))])
    assert np.all(np.diff(others) <= 1e-14), "but the objective does not rise"
    assert others[-1] > values[-1] + 1e-4


@pytest.mark.parametrize(
    ("method", "merit"),
    [
        (blocks.fractional_coordinate_descent, lambda a, b, ratio: a / b),
        (blocks.parametric_coordinate_descent, lambda a, b, ratio: a - ratio * b),
    ],
)
def test_one_cycle_in_numpy(x64, method, merit):
    """The two models, coordinate by coordinate, minimized by a grid and a line search."""
    x, theta = np.random.default_rng(6).standard_normal(D), 3.0
    diagonal = 1.5 * np.diag(GRAM)  # larger than need be: the model is not the function
    optimizer = method(squares, norm_and_one, jnp.asarray(diagonal), proximity=theta)
    points, _ = trajectory(optimizer, x.copy(), 1)
    for i in range(D):
        value, slope = x @ GRAM @ x / 2 - x @ TARGET + 1, GRAM[i] @ x - TARGET[i]
        below = x @ x / 2 + 1

        def model(t, value=value, slope=slope, below=below, entry=x[i], c=diagonal[i] + theta):
            above = value + t * slope + c / 2 * t**2
            return merit(above, below + t * entry + t**2 / 2, value / below)

        grid = np.linspace(-20, 20, 4001)
        best = grid[np.argmin(model(grid))]
        x[i] += scipy.optimize.minimize_scalar(
            model, bounds=(best - 0.02, best + 0.02), method="bounded", options={"xatol": 1e-12}
        ).x
    np.testing.assert_allclose(points[0], x, atol=1e-6)


def test_entries_stay_in_an_interval_and_reach_its_ends(x64):
    within = blocks.on_interval(blocks.minimizers_of_difference, -0.5, 0.5)
    optimizer = blocks.parametric_coordinate_descent(
        squares, norm_and_one, jnp.asarray(np.diag(GRAM)), candidates=within
    )
    points, _ = trajectory(optimizer, np.zeros(D), 100)
    x = np.asarray(points[-1])
    assert np.all(np.abs(points) <= 0.5 + 1e-15)
    assert np.any(np.abs(x) == 0.5)
    smooth = lambda x: (x @ GRAM @ x / 2 - x @ TARGET + 1) / (x @ x / 2 + 1)
    for i in range(D):
        for entry in np.linspace(-0.5, 0.5, 101):
            other = x.copy()
            other[i] = entry
            assert smooth(other) >= smooth(x) - 1e-9


def test_candidates_of_ones_own_and_concave_denominators(x64):
    """A quadratic over a concave root: its limit is the global minimum."""
    below = lambda x, batch: jnp.sqrt(10 + jnp.sum(x))
    grid = jnp.linspace(-1.0, 1.0, 2001)
    start = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([0.5])}
    flat = lambda tree: jnp.concatenate([tree["a"], tree["b"]])
    above = lambda tree, batch: jnp.sum(jnp.square(flat(tree) - 0.5)) / 2 + 1
    optimizer = blocks.fractional_coordinate_descent(
        above, lambda tree, batch: below(flat(tree), None), 1.0, candidates=lambda line: grid
    )
    points, _ = trajectory(optimizer, start, 30)
    function = lambda x: (np.sum((x - 0.5) ** 2) / 2 + 1) / np.sqrt(10 + np.sum(x))
    best = scipy.optimize.minimize(function, np.ones(3)).x
    np.testing.assert_allclose(flat(jax.tree.map(lambda x: x[-1], points)), best, atol=2e-3)


def test_narrow_params_and_curvatures_that_are_too_small():
    optimizer = blocks.fractional_coordinate_descent(*RAYLEIGH, 2.0)
    starts = jnp.ones((2, 10), jnp.bfloat16)
    points, _ = jax.vmap(lambda x: trajectory(optimizer, x, 30))(starts)
    assert points.dtype == jnp.bfloat16
    x = np.asarray(points[0, -1], float)
    assert PROBLEM.exact["numerator"](x) / PROBLEM.exact["denominator"](x) < 0.12
    small = blocks.fractional_coordinate_descent(*RAYLEIGH, 1e-2)
    _, states = trajectory(small, jnp.ones(10), 3)
    assert states.num_descent_violations[-1] > 10


def test_bad_arguments():
    method = blocks.fractional_coordinate_descent
    with pytest.raises(ValueError, match="curvature must lie in"):
        method(*RAYLEIGH, 0.0)
    with pytest.raises(ValueError, match=r"curvature\['a'\] must lie in"):
        method(*RAYLEIGH, {"a": -1.0})
    with pytest.raises(ValueError, match="curvature has shapes"):
        method(*RAYLEIGH, jnp.ones(3)).init(jnp.ones(10))
    with pytest.raises(ValueError, match="proximity must lie in"):
        blocks.parametric_coordinate_descent(*RAYLEIGH, 1.0, proximity=-1.0)
    with pytest.raises(TypeError, match="candidates must be a function"):
        method(*RAYLEIGH, 1.0, candidates=lambda: None)
    with pytest.raises(TypeError, match="denominator must be a function"):
        method(RAYLEIGH[0], lambda x: x, 1.0)
    with pytest.raises(ValueError, match="weight must lie in"):
        blocks.with_l1_kink(blocks.minimizers_of_ratio, -1.0)
    with pytest.raises(ValueError, match="high must lie in"):
        blocks.on_interval(blocks.minimizers_of_ratio, 1.0, 0.0)
    vector = method(RAYLEIGH[0], lambda x, batch: x, 1.0)
    with pytest.raises(ValueError, match="denominator must return a scalar"):
        vector.update(None, vector.init(jnp.ones(10)), jnp.ones(10))
    optimizer = blocks.parametric_coordinate_descent(*RAYLEIGH, 1.0)
    with pytest.raises(ValueError, match=r"parametric_coordinate_descent.* params are missing"):
        optimizer.update(None, optimizer.init(jnp.ones(10)))
