"""Block descent: Gauss-Seidel, bounds, orders, the cost of a block, PAGE, bad arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stochopt import blocks, proximal
from stochopt.experiments import matmul_flops
from stochopt.variance_reduction import page

RNG = np.random.default_rng(0)
NUM_BLOCKS = 4


def trajectory(optimizer, start, num_cycles, batches=()):
    """Points and states after each cycle, stacked."""

    def step(carry, batch):
        x, state = carry
        updates, state = optimizer.update(None, state, x, batch=batch)
        x = optax.apply_updates(x, updates)
        return (x, state), (x, state)

    start = jax.tree.map(jnp.asarray, start)
    scan = jax.jit(lambda carry, batches: jax.lax.scan(step, carry, batches, num_cycles)[1])
    return scan((start, optimizer.init(start)), batches)


def test_exact_block_solves_are_the_gauss_seidel_recursion(x64):
    d, m = 12, 4
    factor = RNG.standard_normal((24, d))
    hessian, rhs = factor.T @ factor / 24 + 0.1 * np.eye(d), RNG.standard_normal(d)
    start, size = RNG.standard_normal(d), d // m
    H, b = jnp.asarray(hessian), jnp.asarray(rhs)

    def solve(x, index, batch):
        rows = jax.lax.dynamic_slice_in_dim(H, index * size, size)
        square = jax.lax.dynamic_slice_in_dim(rows, index * size, size, axis=1)
        block = jax.lax.dynamic_slice_in_dim(x, index * size, size)
        rest = jax.lax.dynamic_slice_in_dim(b, index * size, size) - rows @ x
        return block + jnp.linalg.solve(square, rest)

    optimizer = blocks.cyclic_block_minimization(solve, blocks.equal_slices(m))
    points, states = trajectory(optimizer, start, 20)
    lower = hessian * (np.arange(d)[:, None] // size >= np.arange(d) // size)
    optimum = np.linalg.solve(hessian, rhs)
    error, expected = start - optimum, []
    for _ in range(20):
        error = -np.linalg.solve(lower, (hessian - lower) @ error)
        expected.append(optimum + error)
    np.testing.assert_allclose(points, expected, rtol=0, atol=1e-12)
    assert states.num_block_solves[-1] == 20 * m
    # Jacobi, which does not use the blocks before, is another recursion.
    diagonal = hessian * (np.arange(d)[:, None] // size == np.arange(d) // size)
    jacobi = start - np.linalg.solve(diagonal, hessian @ start - rhs)
    assert np.abs(points[0] - jacobi).max() > 1e-3


# mean of r^2 / (1 + r^2), whose second derivative is at most 2, plus a lasso penalty
N, D, SIZE, WEIGHT = 40, 8, 2, 0.01
A, B = RNG.standard_normal((N, D)), RNG.standard_normal(N)
NORMS = np.array([np.linalg.norm(A[:, j : j + SIZE], 2) ** 2 for j in range(0, D, SIZE)])
FROM = np.minimum.outer(np.arange(D), np.arange(D)) // SIZE  # the first block of two entries
GRAM = 4 / N**2 * A.T @ A
L_HAT = float(
    np.linalg.norm(sum(NORMS[j] * np.where(j <= FROM, GRAM, 0) for j in range(NUM_BLOCKS)), 2)
    ** 0.5
)
SLICES = blocks.equal_slices(NUM_BLOCKS)
LASSO = proximal.l1(WEIGHT)


def loss(x, batch):
    squares = jnp.square(batch[0] @ x - batch[1])
    return jnp.mean(squares / (1 + squares))


def full_loss(x):
    return loss(x, (jnp.asarray(A), jnp.asarray(B)))


def all_rows(x, batch):
    return full_loss(x)


def objective(x):
    return full_loss(x) + LASSO.value(x)


def squared_residual(x):
    """Squared distance of zero to the subdifferential."""
    g = jax.grad(full_loss)(x)
    at_zero = jnp.maximum(jnp.abs(g) - WEIGHT, 0)
    return jnp.sum(jnp.where(x == 0, at_zero, g + WEIGHT * jnp.sign(x)) ** 2)


def test_cyclic_descent_is_monotone_below_its_bound_and_ends_linearly(x64):
    start = np.zeros(D)
    optimizer = blocks.cyclic_block_descent(all_rows, SLICES, L_HAT, prox=LASSO)
    points, states = trajectory(optimizer, start, 2000)
    values = np.array(jax.vmap(objective)(points))
    residuals = np.minimum.accumulate(np.array(jax.vmap(squared_residual)(points)))
    assert np.all(np.diff(values) < 1e-14)
    cycles = np.arange(1, 2001)
    bound = blocks.cyclic_descent_bound(L_HAT, float(objective(start)), cycles)
    assert np.all(residuals <= bound)
    assert residuals[-1] < 1e-20
    assert states.num_descent_violations[-1] == 0
    assert states.num_block_gradients[-1] == 2000 * NUM_BLOCKS

    small = blocks.cyclic_block_descent(all_rows, SLICES, 2 / N * NORMS / 50, prox=LASSO)
    points, states = trajectory(small, start, 50)
    assert states.num_descent_violations[-1] > 10
    assert np.any(np.diff(jax.vmap(objective)(points)) > 1e-3)


def test_one_block_is_proximal_page_and_certain_coins_are_cyclic_descent(x64):
    rows = RNG.integers(N, size=(30, 8))
    batches = (jnp.asarray(A[rows]), jnp.asarray(B[rows]))
    start = np.ones(D)
    options = {"num_batches": 5, "prox": LASSO}
    make = lambda partition, **kwargs: blocks.vr_cyclic_block_descent(
        loss, full_loss, partition, L_HAT, **{**options, **kwargs}
    )
    whole, states = trajectory(make(blocks.equal_slices(1)), start, 30, batches)
    reference, page_states = trajectory(
        page(loss, full_loss, 1 / L_HAT, **options), start, 30, batches
    )
    np.testing.assert_allclose(whole, reference, rtol=0, atol=1e-12)
    counted = optax.tree.get(page_states, "num_gradients")
    np.testing.assert_array_equal(states.num_block_gradients, counted)

    exact = blocks.cyclic_block_descent(all_rows, SLICES, L_HAT, prox=LASSO)
    reference, _ = trajectory(exact, start, 30)
    certain, _ = trajectory(make(SLICES, refresh_probability=1.0), start, 30, batches)
    np.testing.assert_allclose(certain, reference, rtol=0, atol=1e-12)
    # Corrections on all samples keep exact gradients exact: the points before are the right ones.
    everything = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (30, NUM_BLOCKS, *x.shape)),
        (jnp.asarray(A), jnp.asarray(B)),
    )
    corrected, _ = trajectory(
        make(SLICES, refresh_probability=1e-9, resample="block"), start, 30, everything
    )
    np.testing.assert_allclose(corrected, reference, rtol=0, atol=1e-12)
    noisy, _ = trajectory(make(SLICES), start, 30, batches)
    assert np.abs(noisy - reference).max() > 1e-4


def test_cyclic_order_is_slow_where_random_orders_are_not(x64):
    d, coupling = 20, 0.8
    quadratic = lambda x, batch: ((1 - coupling) * jnp.sum(x**2) + coupling * jnp.sum(x) ** 2) / 2
    start = np.random.default_rng(0).standard_normal(d)
    cycles = {}
    for order in (blocks.cyclic, blocks.random, blocks.shuffled):
        optimizer = blocks.cyclic_block_descent(quadratic, blocks.equal_slices(d), 1.0, order=order)
        points, _ = trajectory(optimizer, start, 600)
        gaps = np.array(jax.vmap(lambda x: quadratic(x, None))(points))
        assert gaps[-1] < 1e-6 * quadratic(start, None)  # in every order
        cycles[order.__name__] = int(np.argmax(gaps < 1e-6 * quadratic(start, None))) + 1
    assert cycles["cyclic"] > 4 * cycles["random"] > 4
    assert cycles["cyclic"] > 4 * cycles["shuffled"] > 4


def test_the_gradient_of_a_layer_does_not_cost_that_of_the_network():
    m, width = 6, 5
    params = {f"layer_{j}": jnp.ones((width, width)) for j in range(m)}
    inputs = jnp.ones((7, width))

    def network(params, batch=None):
        x = inputs
        for j in range(m):
            x = jnp.tanh(x @ params[f"layer_{j}"])
        return jnp.sum(x)

    unit = 2 * 7 * width * width
    partition = blocks.by_path(lambda path: path)
    layers = partition(params)
    assert layers.names == tuple(params)
    assert matmul_flops(jax.grad(network), params) == (3 * m - 1) * unit
    for j in range(m):
        gradient = lambda params, j=j: blocks.block_value_and_grad(network, layers, params, j)
        assert matmul_flops(gradient, params) == (2 * m - j) * unit
    optimizer = blocks.cyclic_block_descent(network, partition, 100.0)
    cycle = lambda params: optimizer.update(None, optimizer.init(params), params, batch=())
    # All of its gradients, and the value at its end.
    assert matmul_flops(cycle, params) == (m * (3 * m + 1) // 2 + m) * unit


def test_blocks_of_leaves_have_their_own_constants_operators_and_orders():
    params = {"a": jnp.ones(3), "b": {"w": jnp.ones((2, 2)), "c": jnp.ones(2)}}
    curvature = {"a": 2.0, "b": 3.0}

    def separable(params, batch):
        squares = jax.tree.map(lambda x: jnp.sum(jnp.square(x - 2.0)), params)
        return squares["a"] + 1.5 * (squares["b"]["w"] + squares["b"]["c"])

    partition = blocks.by_labels({"a": "a", "b": "b"})
    estimated = blocks.estimate_block_smoothness(separable, partition, params)
    np.testing.assert_allclose(estimated, [2.0, 3.0], rtol=1e-5)
    for order in (blocks.cyclic, blocks.shuffled):
        optimizer = blocks.cyclic_block_descent(
            separable,
            partition,
            curvature,
            prox={"a": proximal.l1(1.0), "b": proximal.zero()},
            order=order,
        )
        updates, state = jax.jit(optimizer.update)(None, optimizer.init(params), params, batch=())
        moved = optax.apply_updates(params, updates)
        np.testing.assert_allclose(moved["a"], 1.5, rtol=1e-6)  # 2 - 1 / curvature
        np.testing.assert_allclose(moved["b"]["w"], 2.0, rtol=1e-6)
        assert state.num_descent_violations == 0


def test_bad_arguments_name_the_block_and_the_argument():
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    zero = lambda params, batch: jnp.zeros([])
    with pytest.raises(ValueError, match=r"do not cover the leaf params\['b'\]"):
        blocks.by_labels({"a": 0})(params)
    with pytest.raises(ValueError, match=r"block 'left' is empty"):
        blocks.by_labels({"a": 0, "b": 1, "c": "left"})(params)
    with pytest.raises(ValueError, match=r"name\('b'\) is None"):
        blocks.by_path({"a": 1}.get)(params)
    with pytest.raises(ValueError, match=r"num_blocks = 2 .* params\['a'\], of shape \(3,\)"):
        blocks.equal_slices(2)(params)
    partition = blocks.by_labels({"a": "x", "b": "y"})
    with pytest.raises(ValueError, match=r"smoothness\['y'\] must lie in"):
        blocks.cyclic_block_descent(zero, partition, {"x": 1.0, "y": 0.0})
    run = lambda optimizer: optimizer.update(None, optimizer.init(params), params, batch=())
    with pytest.raises(ValueError, match=r"smoothness needs .* missing \['y'\]"):
        run(blocks.cyclic_block_descent(zero, partition, {"x": 1.0}))
    prox = dict.fromkeys("xyz", proximal.zero())
    with pytest.raises(ValueError, match=r"prox needs .* unknown \['z'\]"):
        run(blocks.cyclic_block_descent(zero, partition, 1.0, prox=prox))
    with pytest.raises(ValueError, match="one for each of the 2 blocks"):
        run(blocks.cyclic_block_descent(zero, partition, np.ones(3)))
    with pytest.raises(ValueError, match="loss must return a scalar"):
        run(blocks.cyclic_block_descent(lambda params, batch: params["a"], partition, 1.0))
    with pytest.raises(ValueError, match="resample must be"):
        blocks.vr_cyclic_block_descent(
            zero, lambda p: p, partition, 1.0, num_batches=2, resample="step"
        )
    reduced = blocks.vr_cyclic_block_descent(
        zero, lambda p: jnp.zeros([]), partition, 1.0, num_batches=2, resample="block"
    )
    with pytest.raises(TypeError, match="needs the keyword argument 'batch'"):
        reduced.update(None, reduced.init(params), params)
    with pytest.raises(ValueError, match="leading axis of the blocks, of length 2"):
        reduced.update(None, reduced.init(params), params, batch=jnp.ones(3))
