"""Greedy block descent: rules, updates, rates, variable blocks, bad arguments."""

import hypothesis
import hypothesis.extra.numpy
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import trajectory

from stochopt import blocks, proximal

M, SIZE = 5, 3
D = M * SIZE
SLICES = blocks.equal_slices(M)


def spd(seed, d=D, coupling=1.0):
    """A matrix with coupled and badly scaled coordinates."""
    rng = np.random.default_rng(seed)
    a = (rng.standard_normal((3 * d, d)) + coupling) * np.exp(rng.standard_normal(d))
    return a.T @ a / (3 * d) + 0.01 * np.eye(d)


def diagonal_blocks(matrix, size=SIZE):
    return np.stack([matrix[i : i + size, i : i + size] for i in range(0, len(matrix), size)])


HESSIAN = spd(0)
SQUARES = diagonal_blocks(HESSIAN)
LIPSCHITZ = np.linalg.eigvalsh(SQUARES)[:, -1]
DIAGONAL = np.abs(SQUARES).sum(-1).ravel()
START = np.random.default_rng(1).standard_normal(D)


def quadratic(x, batch=None):
    return x @ (jnp.asarray(HESSIAN) @ x) / 2


def gaps_of(points):
    """Of the quadratic at the start and the points, in NumPy."""
    points = np.concatenate([START[None], points])
    return np.sum(points @ HESSIAN * points, axis=1) / 2


def numpy_scores(gradient, smoothness, diagonal, squares):
    g = gradient.reshape(M, SIZE)
    return {
        "GS": (g**2).sum(1),
        "GSL": (g**2).sum(1) / smoothness,
        "GSD": (g**2 / diagonal.reshape(M, SIZE)).sum(1),
        "GSQ": np.array([v @ np.linalg.solve(h, v) for v, h in zip(g, squares, strict=True)]),
    }


def test_rules_are_the_scores_of_the_table(x64):
    factors = blocks.block_cholesky(SQUARES)
    rules = {
        "GS": blocks.gauss_southwell,
        "GSL": blocks.gauss_southwell_lipschitz(LIPSCHITZ),
        "GSD": blocks.gauss_southwell_diagonal(DIAGONAL),
        "GSQ": blocks.gauss_southwell_quadratic(factors),
    }
    of = SLICES(START)
    score = jax.jit(lambda g: {name: rule(of, START, g) for name, rule in rules.items()})
    disagreements = 0
    for gradient in np.random.default_rng(0).standard_normal((20, D)):
        expected = numpy_scores(gradient, LIPSCHITZ, DIAGONAL, SQUARES)
        found = score(gradient)
        for name in rules:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-10)
            assert of.largest(found[name]) == np.argmax(expected[name])
        disagreements += len({int(np.argmax(scores)) for scores in expected.values()}) > 1
    assert disagreements > 3


def test_squares_choose_another_block_than_absolute_values():
    """Sums of absolute values, as some code has them, prefer many small entries."""
    gradient = jnp.array([3.0, 0.0, 2.0, 2.0])
    partition = blocks.equal_slices(2)
    loss = lambda x, batch: jnp.sum(jnp.square(x)) / 2
    assert np.argmax(np.abs(gradient).reshape(2, 2).sum(1)) == 1
    unit = np.stack([np.eye(2), np.eye(2)])
    rules = [
        blocks.gauss_southwell,
        blocks.gauss_southwell_lipschitz(1.0),
        blocks.gauss_southwell_diagonal(np.ones(4)),
        blocks.gauss_southwell_quadratic(blocks.block_cholesky(unit)),
        blocks.proximal_gauss_southwell(1.0, proximal.zero()),
    ]

    @jax.jit
    def steps(x):
        update = blocks.gradient_update(1.0)
        made = [blocks.greedy_block_descent(loss, partition, rule, update) for rule in rules]
        return [optimizer.update(None, optimizer.init(x), x)[0] for optimizer in made]

    for updates in steps(gradient):
        np.testing.assert_array_equal(updates, [-3.0, 0.0, 0.0, 0.0])


@hypothesis.given(
    gradient=hypothesis.extra.numpy.arrays(np.float32, D, elements=st.floats(-100, 100, width=32)),
    constant=st.floats(2.0**-6, 2.0**6),
)
def test_equal_constants_make_the_lipschitz_rule_the_plain_one(gradient, constant):
    sliced = SLICES(gradient)
    plain = blocks.gauss_southwell(sliced, gradient, jnp.asarray(gradient))
    equal = blocks.gauss_southwell_lipschitz(constant)(sliced, gradient, jnp.asarray(gradient))
    # The same order; a division may make neighbours equal but never swap them.
    assert plain[sliced.largest(equal)] >= (1 - 1e-6) * plain.max()
    np.testing.assert_allclose(equal, plain / np.float32(constant), rtol=1e-6)


def block_steps(matrices, starts):
    """Steps to a relative gap of 1e-8 with exact block solves, by rule: name to one a problem.

    No more than 1600: a problem that takes longer counts as that.
    """
    m, size, steps = 16, 4, 1600
    partition = blocks.equal_slices(m)
    squares_of = lambda H: jnp.stack(
        [H[i : i + size, i : i + size] for i in range(0, m * size, size)]
    )

    def greedy(make_rule):
        def gaps(H, x):
            squares = squares_of(H)
            factors = blocks.block_cholesky(squares)
            loss = lambda x, batch: x @ (H @ x) / 2
            optimizer = blocks.greedy_block_descent(
                loss, partition, make_rule(squares, factors), blocks.matrix_update(factors)
            )

            def step(carry, _):
                x, state = carry
                updates, state = optimizer.update(None, state, x)
                return (x + updates, state), loss(x + updates, None)

            return jax.lax.scan(step, (x, optimizer.init(x)), length=steps)[1]

        return gaps

    def in_order(H, x, order):
        inverses = jnp.linalg.inv(squares_of(H))

        def step(x, index):
            rows = index * size + jnp.arange(size)
            x = x.at[rows].add(-inverses[index] @ (H[rows] @ x))
            return x, x @ (H @ x) / 2

        return jax.lax.scan(step, x, order)[1]

    lipschitz = lambda squares: jnp.linalg.eigvalsh(squares)[:, -1]
    dominating = lambda squares: jnp.sum(jnp.abs(squares), axis=-1).ravel()
    methods = {
        "GSQ": greedy(lambda squares, factors: blocks.gauss_southwell_quadratic(factors)),
        "GSD": greedy(lambda squares, _: blocks.gauss_southwell_diagonal(dominating(squares))),
        "GSL": greedy(lambda squares, _: blocks.gauss_southwell_lipschitz(lipschitz(squares))),
        "GS": greedy(lambda squares, _: blocks.gauss_southwell),
    }
    begin = np.array([x @ H @ x / 2 for H, x in zip(matrices, starts, strict=True)])
    gaps = {name: jax.jit(jax.vmap(f))(matrices, starts) for name, f in methods.items()}
    shape = (len(starts), steps)
    fixed = jax.jit(jax.vmap(in_order))
    gaps["cyclic"] = fixed(matrices, starts, np.broadcast_to(np.arange(steps) % m, shape))
    gaps["random"] = fixed(matrices, starts, np.random.default_rng(0).integers(m, size=shape))
    found = {}
    for name, path in gaps.items():
        small = np.asarray(path) < 1e-8 * begin[:, None]
        found[name] = np.where(small[:, -1], small.argmax(1) + 1, steps)
    return found


def test_better_rules_take_fewer_block_steps(x64):
    """A quarter of the coordinates has a common factor; all have scales of their own."""
    d, n, problems = 64, 150, 20
    matrices = []
    for seed in range(problems):
        rng = np.random.default_rng(seed)
        factor = 1.2 * rng.standard_normal((n, 1)) * (np.arange(d) < d // 4)
        a = (rng.standard_normal((n, d)) + factor) * np.exp(1.3 * rng.standard_normal(d))
        matrices.append(a.T @ a / n + 0.01 * np.eye(d))
    starts = np.random.default_rng(99).standard_normal((problems, d))
    steps = block_steps(np.stack(matrices), starts)
    for name, found in steps.items():
        print(f"{name:7s} median {np.median(found):6.0f}  from {found.min()} to {found.max()}")
    mean = {name: np.exp(np.mean(np.log(found))) for name, found in steps.items()}
    assert abs(np.log(mean["GSD"] / mean["GSQ"])) < 0.1
    assert mean["GSL"] > 1.03 * max(mean["GSD"], mean["GSQ"])
    assert mean["GS"] > 1.25 * mean["GSL"]
    assert mean["cyclic"] > 1.1 * mean["GS"]
    assert mean["random"] > 1.2 * mean["cyclic"]
    assert max(found.max() for name, found in steps.items() if name.startswith("G")) < 1600


def strong_convexity_in_norm(matrix, roots):
    """Of ``x^T matrix x / 2`` in the norm ``sum_b |roots_b^T x_b|``, by ascent from many points.

    The norm is the largest ``<c, x>`` over ``c_b = roots_b u_b`` with unit vectors, so the inverse
    is the largest ``c^T matrix^-1 c``, a convex function of each.
    """
    inverse, rng, best = np.linalg.inv(matrix), np.random.default_rng(0), 0.0
    for _ in range(50):
        u = rng.standard_normal((M, SIZE))
        for _ in range(200):
            u /= np.linalg.norm(u, axis=1, keepdims=True)
            c = np.einsum("bij,bj->bi", roots, u).ravel()
            v = inverse @ c
            u = np.einsum("bji,bj->bi", roots, v.reshape(M, SIZE))
        best = max(best, c @ v)
    return 1 / best


def test_each_step_has_the_rate_of_the_norm_of_its_rule(x64):
    factors = blocks.block_cholesky(SQUARES)
    of_constants = np.sqrt(LIPSCHITZ)[:, None, None] * np.eye(SIZE)
    cases = [
        (blocks.gauss_southwell_lipschitz(LIPSCHITZ), of_constants),
        (blocks.gauss_southwell_quadratic(factors), np.linalg.cholesky(SQUARES)),
    ]
    for rule, roots in cases:
        update = blocks.matrix_update(factors)
        optimizer = blocks.greedy_block_descent(quadratic, SLICES, rule, update)
        points, states = trajectory(optimizer, START, 150)
        gaps = gaps_of(points)
        rate = 1 - strong_convexity_in_norm(HESSIAN, roots)
        assert 0.5 < rate < 1 - 1e-3
        assert np.all(gaps[1:] <= rate * gaps[:-1] + 1e-15 * gaps[0])
        assert states.num_descent_violations[-1] == 0
        # The block with the least score breaks the bound.
        worst = lambda *args, rule=rule: -rule(*args)
        optimizer = blocks.greedy_block_descent(quadratic, SLICES, worst, update)
        points, _ = trajectory(optimizer, START, 20)
        gaps = gaps_of(points)
        assert np.any(gaps[1:] > rate * gaps[:-1])


def test_matrix_steps_minimize_a_quadratic_over_the_block(x64):
    updates = {
        "blocks": blocks.matrix_update(blocks.block_cholesky(SQUARES)),
        "gathered": blocks.submatrix_update(HESSIAN),
        "newton": blocks.newton_update(),
    }
    slope = HESSIAN @ START
    pick = int(np.argmax((slope.reshape(M, SIZE) ** 2).sum(1)))
    rows = np.arange(pick * SIZE, (pick + 1) * SIZE)
    expected = START.copy()
    expected[rows] -= np.linalg.solve(HESSIAN[np.ix_(rows, rows)], slope[rows])
    updates["gradient"] = blocks.gradient_update(LIPSCHITZ)

    @jax.jit
    def steps(x):
        moved = {}
        for name, update in updates.items():
            optimizer = blocks.greedy_block_descent(
                quadratic, SLICES, blocks.gauss_southwell, update
            )
            moved[name] = x + optimizer.update(None, optimizer.init(x), x)[0]
        return moved

    ends = steps(jnp.asarray(START))
    for name in ("blocks", "gathered", "newton"):
        np.testing.assert_allclose(ends[name], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose((HESSIAN @ expected)[rows], 0, atol=1e-12)
    # The gradient step of the same block does not.
    there = START.copy()
    there[rows] -= slope[rows] / LIPSCHITZ[pick]
    np.testing.assert_allclose(ends["gradient"], there, rtol=0, atol=1e-12)
    assert np.abs(there - expected).max() > 1e-3


def test_blocks_of_leaves_with_matrices_of_their_own(x64):
    params = {"a": jnp.asarray(START[:2]), "b": {"w": jnp.asarray(START[2:6].reshape(2, 2))}}
    params["c"] = jnp.asarray(START[6:])
    partition = blocks.by_labels({"a": "left", "b": "left", "c": "right"})
    flat = lambda tree: jax.flatten_util.ravel_pytree(tree)[0]
    loss = lambda params, batch: quadratic(flat(params))
    of = partition(params)
    function = lambda params: loss(params, None)
    hessians = jax.jit(
        lambda params: {
            name: blocks.block_hessian(function, of, params, index)
            for index, name in enumerate(of.names)
        }
    )(params)
    np.testing.assert_allclose(hessians["left"], HESSIAN[:6, :6], atol=1e-12)
    factors = blocks.block_cholesky(hessians)
    rule = blocks.gauss_southwell_quadratic(factors)
    slope = HESSIAN @ START
    halves = [np.arange(6), np.arange(6, D)]
    steps = [np.linalg.solve(HESSIAN[np.ix_(r, r)], slope[r]) for r in halves]
    scores = [slope[r] @ step for r, step in zip(halves, steps, strict=True)]
    found = jax.jit(lambda params: rule(of, params, jax.grad(function)(params)))(params)
    np.testing.assert_allclose(found, scores, rtol=1e-10)
    pick = int(np.argmax(scores))
    expected = START.copy()
    expected[halves[pick]] -= steps[pick]
    for update in (blocks.matrix_update(factors), blocks.submatrix_update(HESSIAN)):
        optimizer = blocks.greedy_block_descent(loss, partition, rule, update)
        updates, state = jax.jit(optimizer.update)(None, optimizer.init(params), params)
        np.testing.assert_allclose(flat(optax.apply_updates(params, updates)), expected, atol=1e-12)
        assert state.num_descent_violations == 0


def valley(x, batch=None):
    """Rosenbrock's function of pairs, not convex."""
    a, b = x[::2], x[1::2]
    return (100 * (b - a**2) ** 2 + (1 - a) ** 2).sum()


def test_newton_steps_descend_where_the_hessian_is_indefinite(x64):
    start = np.array([-1.2, 1.0, 0.0, 3.0, 2.0, -1.0])
    hessian_and_slope = jax.jit(lambda x: (jax.hessian(valley)(x), jax.grad(valley)(x)))
    hessian, slope = hessian_and_slope(start)
    assert np.linalg.eigvalsh(hessian[2:4, 2:4])[0] < 0
    optimizer = blocks.greedy_block_descent(
        valley, blocks.equal_slices(3), blocks.gauss_southwell, blocks.newton_update()
    )
    points, states = trajectory(optimizer, start, 150)
    values = np.array([valley(x) for x in (start, *np.asarray(points))])
    assert np.all(np.diff(values) <= 0)
    np.testing.assert_allclose(points[-1], 1.0, atol=1e-10)
    assert states.num_descent_violations[-1] == 0
    # Without the line search the second step goes up.
    once = start - np.linalg.solve(hessian, slope)
    hessian, slope = hessian_and_slope(once)
    twice = once - np.linalg.solve(hessian, slope)
    assert valley(twice) > 100 * valley(once)


def test_variable_blocks_are_the_largest_coordinates(x64):
    tau = 4
    partition = blocks.largest_coordinates(tau)
    slope = HESSIAN @ START
    curvature = np.diag(HESSIAN)
    cases = {
        "plain": (blocks.gauss_southwell, slope**2),
        "scaled": (blocks.gauss_southwell_lipschitz(curvature), slope**2 / curvature),
        "diagonal": (blocks.gauss_southwell_diagonal(curvature), slope**2 / curvature),
    }
    chosen = {}
    for name, (rule, scores) in cases.items():
        rows = np.sort(np.argsort(-scores)[:tau])
        expected = START.copy()
        expected[rows] -= np.linalg.solve(HESSIAN[np.ix_(rows, rows)], slope[rows])
        optimizer = blocks.greedy_block_descent(
            quadratic, partition, rule, blocks.submatrix_update(HESSIAN)
        )
        points, states = trajectory(optimizer, START, 60)
        np.testing.assert_allclose(points[0], expected, rtol=0, atol=1e-12)
        assert states.num_descent_violations[-1] == 0
        chosen[name] = tuple(rows)
    assert chosen["plain"] != chosen["scaled"] == chosen["diagonal"]
    gaps = gaps_of(points)
    assert gaps[-1] < 1e-5 * gaps[0]
    # The set that moved has a larger sum of scores than any fixed block of its size.
    scores = slope**2 / curvature
    fixed = scores[: tau * (D // tau)].reshape(-1, tau).sum(1).max()
    assert scores[np.asarray(points[0]) != START].sum() > fixed


# A lasso with a ridge, of another condition.
WEIGHT, RIDGE = 0.3, 1.0


def shifted(x, batch=None):
    return quadratic(x) + RIDGE / 2 * jnp.sum(jnp.square(x)) - jnp.sum(x)


def slope_of_shifted(x):
    return HESSIAN @ x + RIDGE * x - 1


def lassos_of(points):
    points = np.concatenate([START[None], points])
    others = RIDGE / 2 * np.square(points) - points + WEIGHT * np.abs(points)
    return gaps_of(points[1:]) + others.sum(1)


def numpy_decreases(x, slope, smoothness):
    scores = []
    for j in range(M):
        rows = slice(j * SIZE, (j + 1) * SIZE)
        v = x[rows] - slope[rows] / smoothness[j]
        u = np.sign(v) * np.maximum(np.abs(v) - WEIGHT / smoothness[j], 0)
        d = u - x[rows]
        model = slope[rows] @ d + smoothness[j] / 2 * d @ d
        scores.append(WEIGHT * (np.abs(x[rows]).sum() - np.abs(u).sum()) - model)
    return np.array(scores)


def test_proximal_rule_takes_the_largest_decrease_of_the_model(x64):
    prox, smoothness = proximal.l1(WEIGHT), LIPSCHITZ + RIDGE
    curvature = np.diag(HESSIAN) + RIDGE
    rule = blocks.proximal_gauss_southwell(smoothness, prox)
    slope = slope_of_shifted(START)
    rules = {
        "one": rule,
        "named": blocks.proximal_gauss_southwell(
            dict(enumerate(smoothness)), dict.fromkeys(range(M), prox)
        ),
        "bare": blocks.proximal_gauss_southwell(smoothness, proximal.zero()),
    }
    of = SLICES(START)
    scores = jax.jit(lambda g: {name: r(of, jnp.asarray(START), g) for name, r in rules.items()})
    found = scores(slope)
    np.testing.assert_allclose(found["one"], numpy_decreases(START, slope, smoothness), rtol=1e-10)
    np.testing.assert_allclose(found["named"], found["one"], rtol=1e-12)
    halves = (slope.reshape(M, SIZE) ** 2).sum(1) / (2 * smoothness)
    np.testing.assert_allclose(found["bare"], halves, rtol=1e-10)

    optimizer = blocks.greedy_block_descent(
        shifted, SLICES, rule, blocks.gradient_update(smoothness, prox)
    )
    points, _ = trajectory(optimizer, START, 3000)
    values = lassos_of(points)
    assert np.all(np.diff(values) <= 1e-14 * np.abs(values[:-1]))
    # As sure as the model says, in each step.
    before = np.concatenate([START[None], points[:30]])
    sure = [numpy_decreases(x, slope_of_shifted(x), smoothness).max() for x in before]
    assert np.all(values[:31] - values[1:32] >= np.array(sure) - 1e-12)
    # Stationary: zero is in the subdifferential.
    x = np.asarray(points[-1])
    g = slope_of_shifted(x)
    residual = np.where(x == 0, np.maximum(np.abs(g) - WEIGHT, 0), g + WEIGHT * np.sign(x))
    assert np.abs(residual).max() < 1e-7
    assert 0 < np.count_nonzero(x) < D

    variable = blocks.greedy_block_descent(
        shifted,
        blocks.largest_coordinates(4),
        blocks.proximal_gauss_southwell(curvature, prox),
        blocks.gradient_update(4 * curvature, prox),
    )
    others, _ = trajectory(variable, START, 3000)
    assert np.all(np.diff(lassos_of(others)) <= 1e-13)
    np.testing.assert_allclose(lassos_of(others)[-1], values[-1], atol=1e-6)
    assert np.all(np.count_nonzero(np.diff(others[:10], axis=0), axis=1) <= 4)


def test_constants_that_are_too_small_are_counted(x64):
    rule = blocks.gauss_southwell
    small = blocks.block_cholesky(SQUARES / 4)
    for update in (blocks.gradient_update(LIPSCHITZ / 4), blocks.matrix_update(small)):
        optimizer = blocks.greedy_block_descent(quadratic, SLICES, rule, update)
        _, states = trajectory(optimizer, START, 10)
        assert states.num_descent_violations[-1] == 10
    assert states.count[-1] == 10


def test_narrow_params_keep_their_dtype(strict):
    dtype = jnp.bfloat16
    x = jnp.asarray(START, dtype)
    weights = jnp.asarray(DIAGONAL, jnp.float32)
    loss = lambda x, batch: jnp.sum(weights * (x.astype(jnp.float32) - 1) ** 2)
    square = 2 * np.apply_along_axis(np.diag, 1, DIAGONAL.reshape(M, SIZE))
    factors = blocks.block_cholesky(square)
    optimizer = blocks.greedy_block_descent(
        loss,
        SLICES,
        blocks.gauss_southwell_quadratic(factors),
        blocks.matrix_update(factors),
    )
    update = jax.jit(optimizer.update, donate_argnums=(1,))
    state = optimizer.init(x)
    for _ in range(M):
        updates, state = update(None, state, x)
        assert updates.dtype == dtype
        x = optax.apply_updates(x, updates)
    assert x.dtype == dtype
    np.testing.assert_allclose(x.astype(jnp.float32), 1.0, rtol=0.02)
    many = jax.jit(jax.vmap(lambda x: optimizer.update(None, optimizer.init(x), x)[0]))
    starts = jnp.asarray([START, -START], dtype)
    alone = update(None, optimizer.init(starts[1]), starts[1])[0]
    np.testing.assert_array_equal(many(starts)[1], alone)


def test_bad_arguments_name_the_block_and_the_argument():
    x, zero = jnp.ones(4), lambda params, batch: jnp.sum(params)
    two = blocks.equal_slices(2)
    eye = np.stack([np.eye(2), np.eye(2)])

    def run(update, rule=blocks.gauss_southwell, partition=two, params=x, loss=zero):
        optimizer = blocks.greedy_block_descent(loss, partition, rule, update)
        return optimizer.update(None, optimizer.init(params), params)

    gradient = blocks.gradient_update(1.0)
    with pytest.raises(ValueError, match=r"matrices\[1\] must be symmetric positive definite"):
        blocks.block_cholesky(eye * np.array([1.0, -1.0])[:, None, None])
    with pytest.raises(ValueError, match=r"matrices\['b'\] must be symmetric"):
        blocks.block_cholesky({"a": eye[0], "b": np.array([[1.0, 0.5], [0.0, 1.0]])})
    with pytest.raises(ValueError, match=r"matrices\['a'\] must be square"):
        blocks.block_cholesky({"a": np.ones((2, 3))})
    with pytest.raises(ValueError, match=r"shape \(num_blocks, size, size\)"):
        blocks.block_cholesky(np.eye(2))
    with pytest.raises(ValueError, match="one for each of the 2 blocks, got 3"):
        run(blocks.matrix_update(blocks.block_cholesky(np.ones((3, 1, 1)))))
    with pytest.raises(ValueError, match=r"of each slice.* 2 entries, .* \(1, 1\)"):
        run(blocks.matrix_update(blocks.block_cholesky(np.ones((2, 1, 1)))))
    with pytest.raises(ValueError, match=r"matrices needs .* missing \[1\]"):
        run(blocks.matrix_update(blocks.block_cholesky({0: np.eye(2)})))
    with pytest.raises(ValueError, match=r"matrix must have shape \(4, 4\)"):
        run(blocks.submatrix_update(np.eye(2)))
    with pytest.raises(ValueError, match="diagonal has shapes"):
        run(gradient, blocks.gauss_southwell_diagonal(np.ones(2)))
    with pytest.raises(ValueError, match=r"diagonal\['a'\] must lie in"):
        blocks.gauss_southwell_diagonal({"a": np.array([1.0, 0.0])})
    with pytest.raises(ValueError, match=r"smoothness\[1\] must lie in"):
        blocks.gauss_southwell_lipschitz({0: 1.0, 1: -1.0})
    with pytest.raises(ValueError, match=r"rule returned shapes \(3,\)"):
        run(gradient, lambda blocks, params, gradient: jnp.zeros(3))
    with pytest.raises(TypeError, match=r"prox\['a'\] must be a ProximalOperator"):
        blocks.proximal_gauss_southwell(1.0, {"a": lambda params, step: params})
    with pytest.raises(TypeError, match="update must be a function"):
        blocks.greedy_block_descent(zero, two, blocks.gauss_southwell, lambda: None)
    with pytest.raises(ValueError, match="prox is not separable"):
        run(blocks.gradient_update(1.0, proximal.l2(1.0)), partition=blocks.largest_coordinates(2))
    run(blocks.gradient_update(1.0, proximal.l2(1.0)))  # of fixed blocks it may be
    with pytest.raises(ValueError, match="num_coordinates = 5 is more than the 4 entries"):
        blocks.largest_coordinates(5)(x)
    with pytest.raises(ValueError, match="needs one array, got 2 leaves"):
        blocks.largest_coordinates(1)({"a": x, "b": x})
    with pytest.raises(ValueError, match="loss must return a scalar"):
        run(gradient, loss=lambda params, batch: params)
    with pytest.raises(ValueError, match="sufficient_decrease must lie in"):
        blocks.newton_update(sufficient_decrease=1.0)
    with pytest.raises(ValueError, match="params are missing"):
        blocks.greedy_block_descent(zero, two, blocks.gauss_southwell, gradient).update(
            None, None, None
        )
