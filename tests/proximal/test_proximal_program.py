"""Dtypes, transformations, derivatives, bad input, and proximal steps with these operators."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import types
from jax.test_util import check_grads

from stochopt.compositional import proximal_step
from stochopt.proximal import (
    box,
    elastic_net,
    group_lasso,
    indicator,
    l1,
    l2,
    mcp,
    nuclear_norm,
    partition,
    plus_ridge,
    ridge,
    scad,
    total_variation,
    zero,
)

#: From a weight to an operator. Total variation has tests of its own.
OPERATORS = {
    "zero": lambda weight: zero(),
    "l1": l1,
    "ridge": ridge,
    "elastic_net": lambda weight: elastic_net(weight, 0.7),
    "mcp": mcp,
    "scad": scad,
    "l2": l2,
    "group_lasso": lambda weight: group_lasso(weight, axis=-1),
    "nuclear_norm": nuclear_norm,
    "box": lambda weight: box(-weight, 0.4),
    "partition": lambda weight: partition({0: l1(weight), 1: l2(0.3)}, {"a": 0, "b": 1}),
}
each = pytest.mark.parametrize("name", OPERATORS)


def tree(seed=0, dtype=float):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)
    return {"a": draw(4, 3), "b": draw(2, 3)}


@each
def test_dtypes_stay(name, strict):
    operator, wide = OPERATORS[name](0.3), tree(dtype=np.float32)
    expected = operator(wide, 0.5)
    assert types(expected) == types(wide)
    narrow = tree(dtype=jnp.bfloat16)
    # A step of another dtype does not promote the leaves.
    for step in (0.5, np.float64(0.5), jnp.float32(0.5), jnp.bfloat16(0.5)):
        found = operator(narrow, step)
        assert types(found) == types(narrow)
        close = lambda x, y: np.testing.assert_allclose(np.float32(x), y, atol=0.03)
        jax.tree.map(close, found, expected)
    assert operator.value(narrow).dtype == jnp.float32


@each
def test_double_precision_stays(x64, name):
    operator = OPERATORS[name](np.float32(0.3))
    params = tree() | {"b": jnp.float32(tree()["b"])}
    assert types(operator(params, jnp.float32(0.5))) == types(params)
    assert operator.value(params).dtype == jnp.float64
    assert operator.value({"a": params["b"], "b": params["b"]}).dtype == jnp.float32


@pytest.mark.parametrize(
    "name", sorted(set(OPERATORS) - {"total_variation"})
)  # has tests of its own
def test_transformations(x64, name):
    prox = jax.jit(lambda x, weight, step: OPERATORS[name](weight)(x, step))
    trees, weights, steps = [tree(seed) for seed in range(3)], (0.0, 0.3, 1.0), (0.9, 0.5, 0.0)
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    together = jax.vmap(prox)(batch, jnp.array(weights), jnp.array(steps))
    for i, (x, weight, step) in enumerate(zip(trees, weights, steps, strict=True)):
        compare = lambda many, one, i=i: np.testing.assert_allclose(many[i], one, atol=1e-13)
        jax.tree.map(compare, together, prox(x, weight, step))
    if name not in ("box", "partition"):  # without a step nothing moves
        jax.tree.map(compare, together, trees[2])
    check_grads(prox, (trees[0], 0.31, 0.53), order=1, modes=("fwd", "rev"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize(
    "matrix",
    [2 * np.eye(3, 2), np.outer([1.0, 2.0], [1.0, 1.0, 3.0]), np.zeros((2, 3))],
    ids=["repeated", "rank one", "zero"],
)
def test_derivatives_at_repeated_and_at_no_singular_values(x64, matrix, dtype):
    prox = jax.jit(lambda x, step: nuclear_norm(0.5)(x, step))
    check_grads(prox, (jnp.asarray(matrix, dtype), 0.7), 1, ("fwd", "rev"), rtol=1e-6, atol=1e-7)


def test_control_the_derivative_of_the_decomposition_fails_there(x64):
    def naive(x):
        u, sigma, vh = jnp.linalg.svd(x, full_matrices=False)
        return jnp.sum((u * jnp.maximum(sigma - 0.35, 0)) @ vh)

    assert not np.all(np.isfinite(jax.grad(naive)(2 * jnp.eye(3, 2))))


@pytest.mark.parametrize("operator", [l2(0.5), group_lasso(0.5), l1(0.5)])
@pytest.mark.parametrize("dtype", [float, complex])
def test_gradients_at_zero(operator, dtype):
    x = jnp.zeros(3, dtype)
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(operator(x, 1.0).real))(x), 0)
    assert np.all(np.isfinite(jax.grad(operator.value)(x)))


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - {"nuclear_norm"}))
def test_nan_is_passed_on(name):
    x = tree()
    x = x | {"a": x["a"].at[1, 2].set(jnp.nan)}
    assert np.isnan(OPERATORS[name](0.3)(x, 0.5)["a"]).any()


# Bad input.


@each
def test_negative_steps(name):
    with pytest.raises(ValueError, match=r"step must lie in \[0, inf\), got -0.1"):
        OPERATORS[name](0.3)(tree(), -0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: l1(-1.0), r"weight must lie in \[0, inf\)"),
        (lambda: ridge(-1.0), r"weight must lie in \[0, inf\)"),
        (lambda: l2(float("nan")), r"weight must lie in \[0, inf\)"),
        (lambda: group_lasso(-1.0), r"weight must lie in \[0, inf\)"),
        (lambda: nuclear_norm(-1.0), r"weight must lie in \[0, inf\)"),
        (lambda: total_variation(-1.0), r"weight must lie in \[0, inf\)"),
        (lambda: elastic_net(-1.0, 1.0), r"^weight must lie in \[0, inf\)"),
        (lambda: elastic_net(1.0, -1.0), r"ridge_weight must lie in \[0, inf\)"),
        (lambda: plus_ridge(l1(1.0), -1.0), r"weight must lie in \[0, inf\)"),
        (lambda: indicator(abs, tolerance=-1.0), r"tolerance must lie in \[0, inf\)"),
    ],
)
def test_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_vector_is_no_matrix():
    for call in (nuclear_norm(1.0).value, lambda x: nuclear_norm(1.0)(x, 1.0)):
        with pytest.raises(
            ValueError, match=r"nuclear_norm: a leaf of shape \(3,\) is not a matrix"
        ):
            call(jnp.ones(3))


# In a chain.


def minimize(optimizer, gradient, x, steps=400):
    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(gradient(x), state, x)
        return (optax.apply_updates(x, updates), state), None

    run = jax.jit(lambda x: jax.lax.scan(step, (x, optimizer.init(x)), length=steps)[0][0])
    return run(x)


@pytest.mark.parametrize("make", [l1, mcp, lambda weight: plus_ridge(l1(weight), 0.1)])
def test_proximal_gradient_descent_solves_the_lasso_and_its_relatives(x64, make):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((30, 8)) / np.sqrt(30), rng.standard_normal(30)
    weight, rate = 0.6, 0.3
    operator = make(weight)
    gradient = lambda x: a.T @ (a @ x - b)
    x = minimize(proximal_step(rate, operator), gradient, jnp.zeros(8), 1500)
    np.testing.assert_allclose(operator(x - rate * gradient(x), rate), x, atol=1e-10)
    slope = np.asarray(-gradient(x)) - (0.1 * x if make not in (l1, mcp) else 0)
    is_zero = np.asarray(x) == 0
    assert 0 < is_zero.sum() < 8  # exactly zero, in spite of x + (y - x)
    assert np.abs(slope[is_zero]).max() <= weight + 1e-9
    if make is not mcp:
        np.testing.assert_allclose(slope[~is_zero], weight * np.sign(x[~is_zero]), atol=1e-9)


def test_behind_adam_in_a_partition_of_optax():
    params = {"w": jnp.full((3, 2), 0.02), "b": jnp.full(2, 0.02)}
    optimizer = optax.chain(
        optax.scale_by_adam(),
        optax.partition(
            {
                "sparse": proximal_step(0.01, l1(100.0)),
                "free": optax.scale_by_learning_rate(0.01),
            },
            {"w": "sparse", "b": "free"},
        ),
    )
    moved = minimize(optimizer, lambda p: jax.tree.map(jnp.ones_like, p), params, 3)
    np.testing.assert_array_equal(moved["w"], 0)
    np.testing.assert_allclose(moved["b"], -0.01, rtol=1e-4)
