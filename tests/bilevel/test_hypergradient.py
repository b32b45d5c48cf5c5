"""Implicit gradients, their products and solvers: against dense algebra and finite differences."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from stochopt.bilevel.hypergradient import (
    conjugate_gradient,
    dense_solve,
    finite_difference_cross,
    implicit_gradient,
    lower_products,
    neumann,
    randomized_neumann,
)
from stochopt.problems import bilevel_quadratic

key = jax.random.key

X = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(3), "none": None}  # 7 numbers
Y = (jnp.zeros(2), {"c": jnp.zeros((1, 3))})  # 5 numbers


class Pair(NamedTuple):
    """Oracles on trees and on vectors."""

    upper: object
    lower: object
    batch: object


def flat_of(tree):
    return ravel_pytree(tree)[0]


def tree_like(tree, vector):
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape), tree)
    return ravel_pytree(zeros)[1](jnp.asarray(vector, float))


def quadratic(seed=0):
    """g = y'Ay/2 - y'(Bx + c) and f = |y - d|^2/2 + |x|^2/5, data in the batch."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((5, 5))
    batch = {
        "A": root @ root.T / 5 + 0.5 * np.eye(5),
        "B": rng.standard_normal((5, 7)),
        "c": rng.standard_normal(5),
        "d": rng.standard_normal(5),
    }

    def lower(x, y, batch):
        return y @ (batch["A"] @ y / 2 - batch["B"] @ x - batch["c"])

    def upper(x, y, batch):
        return jnp.sum((y - batch["d"]) ** 2) / 2 + jnp.sum(x**2) / 5

    return Pair(upper, lower, jax.tree.map(lambda x: jnp.asarray(x, float), batch))


def curved(seed=0):
    """Neither level quadratic; the lower one strongly convex, and nonlinear in both together."""
    rng = np.random.default_rng(seed)
    batch = {
        "W": rng.standard_normal((6, 5)),
        "V": rng.standard_normal((6, 7)) / 2,
        "B": rng.standard_normal((5, 7)) / 2,
    }

    def lower(x, y, batch):
        margins = batch["W"] @ y + batch["V"] @ x
        weights = jnp.exp(batch["V"] @ jnp.sin(x))
        penalty = jnp.sum(y**2) / 2 + jnp.sum(y**4) / 10
        return jnp.sum(weights * jax.nn.softplus(margins)) + penalty - y @ batch["B"] @ x

    def upper(x, y, batch):
        return jnp.sum(jnp.cos(y + batch["B"] @ x)) + jnp.sum(y**2) + jnp.sum(jnp.sin(x))

    return Pair(upper, lower, jax.tree.map(lambda x: jnp.asarray(x, float), batch))


PAIRS = {"quadratic": quadratic, "curved": curved}
each_pair = pytest.mark.parametrize("name", PAIRS)


def on_trees(pair):
    """The same oracles, of trees."""
    wrap = lambda oracle: lambda x, y, batch: oracle(flat_of(x), flat_of(y), batch)
    return pair._replace(upper=wrap(pair.upper), lower=wrap(pair.lower))


def random_point(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(7), rng.standard_normal(5), rng.standard_normal(5)


def minimizer(pair, x):
    """The lower minimizer by Newton's method with a safeguard, to the last digits."""
    value = jax.jit(lambda y: pair.lower(x, y, pair.batch))
    slope, hessian = jax.jit(jax.grad(value)), jax.jit(jax.hessian(value))
    y = np.zeros(5)
    for _ in range(50):
        step = np.linalg.solve(hessian(y), slope(y))
        while value(y - step) > value(y) + 1e-13:
            step /= 2
        y = y - step
    assert np.linalg.norm(slope(y)) < 1e-13
    return y


# Products.


@each_pair
def test_products_by_dense_algebra(x64, name):
    pair = PAIRS[name]()
    x, y, p = random_point()
    trees = on_trees(pair)
    found = jax.jit(lower_products, static_argnums=0)(
        trees.lower, tree_like(X, x), tree_like(Y, y), pair.batch, tree_like(Y, p)
    )
    slope = jax.grad(pair.lower, 1)
    hessian = jax.jacfwd(slope, 1)(x, y, pair.batch)
    cross = jax.jacfwd(slope, 0)(x, y, pair.batch)
    np.testing.assert_allclose(flat_of(found.gradient), slope(x, y, pair.batch), rtol=1e-11)
    np.testing.assert_allclose(flat_of(found.hessian_product), hessian @ p, rtol=1e-10)
    np.testing.assert_allclose(flat_of(found.cross_product), p @ cross, rtol=1e-10)
    for tree, like in zip(found, (Y, Y, X), strict=True):
        assert jax.tree.map(jnp.shape, tree) == jax.tree.map(jnp.shape, like)


@each_pair
def test_one_pass_equals_two(x64, name):
    pair = PAIRS[name]()
    x, y, p = map(jnp.asarray, random_point(1))
    found = lower_products(pair.lower, x, y, pair.batch, p)
    slope = jax.grad(pair.lower, 1)
    gradient, for_hessian = jax.vjp(lambda y: slope(x, y, pair.batch), y)
    _, for_cross = jax.vjp(lambda x: slope(x, y, pair.batch), x)
    np.testing.assert_array_equal(found.gradient, gradient)
    np.testing.assert_array_equal(found.hessian_product, for_hessian(p)[0])
    np.testing.assert_array_equal(found.cross_product, for_cross(p)[0])


# Cross products by finite differences.


def cross_error(pair, x, y, p, **options):
    """Relative error of finite differences in the present precision."""
    exact = lower_products(pair.lower, x, y, pair.batch, p).cross_product
    found = finite_difference_cross(pair.lower, x, y, pair.batch, p, **options)
    return float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact))


def in_precision(dtype, *trees):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), trees)


@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float32, 1e-4), (jnp.float64, 1e-10)])
def test_finite_differences_of_a_quadratic_are_exact_but_for_rounding(x64, dtype, bound):
    pair = quadratic()
    (batch,) = in_precision(dtype, pair.batch)
    x, y, p = in_precision(dtype, *random_point())
    for factor in (1e-3, 1, 1e3):  # the length of the vector does not matter
        assert cross_error(pair._replace(batch=batch), x, y, factor * p) < bound


@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float32, 1e-3), (jnp.float64, 1e-9)])
@pytest.mark.parametrize("size", [0.1, 1, 3])
def test_default_scale_of_finite_differences_is_a_good_one(x64, dtype, bound, size):
    pair = curved()
    (batch,) = in_precision(dtype, pair.batch)
    x, y, p = in_precision(dtype, *random_point())
    pair, y = pair._replace(batch=batch), size * y
    error = cross_error(pair, x, y, p)
    assert error < bound
    others = [cross_error(pair, x, y, p, scale=scale) for scale in 10.0 ** np.arange(-9, 1)]
    assert error < 10 * min(others)
    assert max(others) > 100 * error, "some scales are bad"


def test_scale_is_the_distance_moved(x64):
    """For g = x y^3 the quotient is 3 y^2 p + s^2 p, with p of norm one."""
    lower = lambda x, y, batch: x * y**3
    for scale in (0.1, 0.5):
        found = finite_difference_cross(
            lower, jnp.array(1.0), jnp.array(2.0), None, jnp.array(-3.0), scale=scale
        )
        np.testing.assert_allclose(found, -3 * (12 + scale**2), rtol=1e-12)


def test_finite_differences_along_zero_are_zero():
    pair = on_trees(curved())
    zero = finite_difference_cross(pair.lower, X, Y, pair.batch, Y)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(zero))
    assert jax.tree.structure(zero) == jax.tree.structure(X)


# Solvers.


def a_system(seed=0):
    """A matrix with eigenvalues in [1/2, 3], its products on trees, and a right side."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    matrix = basis @ np.diag(np.linspace(0.5, 3, 5)) @ basis.T
    product = lambda vector, term: tree_like(Y, jnp.asarray(matrix) @ flat_of(vector))
    return matrix, product, rng.standard_normal(5)


def powers(matrix, b, step_size, length):
    """(I - eta H)^k b for k below a length."""
    return [np.linalg.matrix_power(np.eye(5) - step_size * matrix, k) @ b for k in range(length)]


EXACT = {
    "conjugate gradient": lambda **options: conjugate_gradient(tolerance=1e-13, **options),
    "dense": dense_solve,
    "neumann": lambda **options: neumann(400, 0.3, **options),
}


@pytest.mark.parametrize("solver", EXACT)
@pytest.mark.parametrize("damping", [0.0, 0.2])
def test_solvers_solve(x64, solver, damping):
    matrix, product, b = a_system()
    found = EXACT[solver](damping=damping)(product, tree_like(Y, b))
    expected = np.linalg.solve(matrix + damping * np.eye(5), b)
    np.testing.assert_allclose(flat_of(found), expected, rtol=1e-11)
    assert jax.tree.structure(found) == jax.tree.structure(Y)


def test_conjugate_gradients_stop(x64):
    matrix, product, b = a_system()
    first = conjugate_gradient(max_steps=1)(product, tree_like(Y, b))
    np.testing.assert_allclose(flat_of(first), b * (b @ b) / (b @ matrix @ b), rtol=1e-12)
    rough = flat_of(conjugate_gradient(tolerance=0.1)(product, tree_like(Y, b)))
    residual = np.linalg.norm(matrix @ rough - b) / np.linalg.norm(b)
    assert 1e-10 < residual < 0.1
    nothing = conjugate_gradient()(product, tree_like(Y, np.zeros(5)))
    np.testing.assert_array_equal(flat_of(nothing), np.zeros(5))


def test_dense_solve_reads_the_symmetric_part(x64):
    matrix, _, b = a_system()
    skew = np.triu(np.ones((5, 5)), 1)
    product = lambda vector, term: jnp.asarray(matrix + skew - skew.T) @ vector
    found = dense_solve()(product, jnp.asarray(b))
    np.testing.assert_allclose(found, np.linalg.solve(matrix, b), rtol=1e-11)


@pytest.mark.parametrize("num_terms", [1, 2, 3, 7])
def test_neumann_has_exactly_its_number_of_terms(x64, num_terms):
    matrix, product, b = a_system()
    step_size = 0.3
    found = flat_of(neumann(num_terms, step_size)(product, tree_like(Y, b)))
    terms = powers(matrix, b, step_size, num_terms + 1)
    np.testing.assert_allclose(found, step_size * sum(terms[:num_terms]), rtol=1e-12)
    one_more = step_size * sum(terms)
    assert np.linalg.norm(found - one_more) > 1e-2, "one term more is another number"


def test_bias_of_neumann(x64):
    matrix, product, b = a_system()
    exact, step_size, mu = np.linalg.solve(matrix, b), 0.3, 0.5
    for num_terms in (1, 5, 20, 60):
        found = flat_of(neumann(num_terms, step_size)(product, tree_like(Y, b)))
        left = np.linalg.matrix_power(np.eye(5) - step_size * matrix, num_terms) @ b
        np.testing.assert_allclose(
            found - exact, -np.linalg.solve(matrix, left), rtol=1e-9, atol=1e-13
        )
        bound = (1 - step_size * mu) ** num_terms * np.linalg.norm(b) / mu
        assert bound / 10 < np.linalg.norm(found - exact) <= bound


def test_neumann_takes_a_fresh_sample_for_each_factor(x64):
    rng = np.random.default_rng(0)
    roots = rng.standard_normal((3, 5, 5))
    matrices = roots @ roots.transpose(0, 2, 1) / 5
    b, step_size = rng.standard_normal(5), 0.2
    product = lambda vector, term: jnp.asarray(matrices)[term] @ vector
    last, total = b, b
    for matrix in matrices:
        last = last - step_size * matrix @ last
        total = total + last
    solver = neumann(4, step_size)
    assert solver.num_draws == 3
    np.testing.assert_allclose(solver(product, jnp.asarray(b)), step_size * total, rtol=1e-12)
    # All three, and no fourth: a missing number is seen.
    for missing, finite in ((0, False), (2, False), (3, True)):
        marks = jnp.zeros(5).at[missing].set(jnp.nan)
        marked = lambda vector, term, marks=marks: product(vector, term) + marks[term]
        assert np.all(np.isfinite(solver(marked, jnp.asarray(b)))) == finite


def test_randomized_neumann_draws_every_length_alike(x64):
    matrix, product, b = a_system()
    num_terms, step_size, draws = 4, 0.3, 2000
    solver = randomized_neumann(num_terms, step_size)
    assert solver.num_draws == 3
    right = tree_like(Y, b)
    keys = jax.random.split(key(0), draws)
    found = jax.jit(jax.vmap(lambda k: flat_of(solver(product, right, k))))(keys)
    candidates = step_size * num_terms * np.array(powers(matrix, b, step_size, num_terms))
    distances = np.linalg.norm(found[:, None] - candidates, axis=2)
    length = distances.argmin(1)
    assert distances.min(1).max() < 1e-12
    counts, share = np.bincount(length, minlength=num_terms), 1 / num_terms
    assert np.all(np.abs(counts - draws * share) < 5 * np.sqrt(draws * share * (1 - share)))
    # Each length once has the mean of the sum.
    once = [found[np.flatnonzero(length == k)[0]] for k in range(num_terms)]
    series = flat_of(neumann(num_terms, step_size)(product, right))
    np.testing.assert_allclose(np.mean(once, 0), series, rtol=1e-12)


def test_randomized_neumann_draws_no_sample_beyond_its_length(x64):
    product = lambda vector, term: vector * jnp.where(jnp.asarray(term) < 2, 1.0, jnp.nan)
    solver = jax.jit(lambda k: randomized_neumann(3, 0.1)(product, jnp.ones(2), k))
    assert np.all(np.isfinite([solver(k) for k in jax.random.split(key(0), 20)]))


# Gradients.


@functools.cache
def differences_of_the_objective(name):
    """Central differences at half the random point, with the lower problem solved at each."""
    pair, x = PAIRS[name](), random_point()[0] / 2
    objective = lambda x: float(pair.upper(x, minimizer(pair, x), pair.batch))
    return np.array([(objective(x + e) - objective(x - e)) / 2e-5 for e in 1e-5 * np.eye(7)])


@each_pair
@pytest.mark.parametrize("solver", EXACT)
def test_implicit_gradient_by_finite_differences(x64, name, solver):
    """Catches a lost or wrongly signed cross term as well as a wrong linear system."""
    pair = PAIRS[name]()
    x = random_point()[0] / 2
    y = minimizer(pair, x)
    step_size = 0.9 / np.linalg.eigvalsh(jax.hessian(pair.lower, 1)(x, y, pair.batch))[-1]
    exact = {**EXACT, "neumann": lambda: neumann(1000, step_size)}[solver]()
    gradient = jax.jit(implicit_gradient(*on_trees(pair)[:2], solver=exact))
    found, adjoint = gradient(tree_like(X, x), tree_like(Y, y), pair.batch)
    assert jax.tree.structure(found) == jax.tree.structure(X)
    assert jax.tree.structure(adjoint) == jax.tree.structure(Y)

    slope = differences_of_the_objective(name)
    assert np.linalg.norm(slope) > 0.1
    np.testing.assert_allclose(flat_of(found), slope, rtol=0, atol=1e-8)
    # What is left when the minimizer is held fixed, and what the other sign of p would give.
    direct = jax.grad(pair.upper)(x, y, pair.batch)
    assert np.linalg.norm(direct - slope) > 0.1
    assert np.linalg.norm(2 * direct - flat_of(found) - slope) > 0.1


def test_adjoint_solves_its_system(x64):
    pair = curved()
    x, y, _ = random_point()
    _, adjoint = implicit_gradient(pair.upper, pair.lower, solver=dense_solve())(x, y, pair.batch)
    hessian = jax.hessian(pair.lower, 1)(x, y, pair.batch)
    slope = jax.grad(pair.upper, 1)(x, y, pair.batch)
    np.testing.assert_allclose(adjoint, np.linalg.solve(hessian, slope), rtol=1e-10)


def test_default_solver_is_good_in_single_precision():
    pair = quadratic()
    x, y, _ = in_precision(jnp.float32, *random_point())
    found = implicit_gradient(pair.upper, pair.lower)(x, y, pair.batch)
    exact = implicit_gradient(pair.upper, pair.lower, solver=dense_solve())(x, y, pair.batch)
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_blocks_by_vmap_give_the_gradient_of_their_mean(x64):
    problem = bilevel_quadratic()
    batch = jax.tree.map(
        lambda x: jnp.zeros((problem.num_blocks, *x.shape[1:]), x.dtype), problem.sample(key(0))
    )._replace(block=jnp.arange(problem.num_blocks))
    gradient = implicit_gradient(problem.upper, problem.lower, solver=dense_solve())
    x = jnp.linspace(-1, 1, 4)
    found, adjoint = jax.jit(jax.vmap(gradient, in_axes=(None, 0, 0)))(
        x, problem.exact["lower"](x), batch
    )
    np.testing.assert_allclose(found.mean(0), problem.exact["gradient"](x), rtol=1e-9)
    np.testing.assert_allclose(adjoint, problem.exact["adjoint"](x), rtol=1e-9)


def stacked_hessians(pair, count):
    """Batches whose Hessians differ: each the pair's own plus another multiple of the identity."""
    extra = jnp.arange(count)[:, None, None] * jnp.eye(5) / 10
    batches = jax.tree.map(lambda x: jnp.repeat(x[None], count, 0), pair.batch)
    return {**batches, "A": batches["A"] + extra}


def test_batches_of_the_hessian_are_one_for_each_product(x64):
    pair, step_size = quadratic(), 0.2
    x, y, _ = random_point()
    gradient = implicit_gradient(pair.upper, pair.lower, solver=neumann(3, step_size))
    batches = stacked_hessians(pair, 2)
    found, adjoint = jax.jit(gradient)(x, y, pair.batch, hessian_batches=batches)
    b = np.asarray(y - pair.batch["d"])
    first = b - step_size * batches["A"][0] @ b
    second = first - step_size * batches["A"][1] @ first
    np.testing.assert_allclose(adjoint, step_size * (b + first + second), rtol=1e-12)
    # The cross derivative, as the rest, belongs to the batch.
    expected = 0.4 * x + adjoint @ pair.batch["B"]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    # Without them the batch is for all.
    _, plain = gradient(x, y, pair.batch)
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], 2, 0), pair.batch)
    _, same = gradient(x, y, pair.batch, hessian_batches=repeated)
    np.testing.assert_allclose(plain, same, rtol=1e-13)
    assert np.linalg.norm(plain - adjoint) > 1e-3


@pytest.mark.parametrize(
    "solver",
    [conjugate_gradient(damping=0.1), dense_solve(), neumann(3, 0.1), randomized_neumann(3, 0.1)],
    ids=["conjugate gradient", "dense", "neumann", "randomized neumann"],
)
def test_under_strict_promotion_jit_and_vmap(strict, solver):
    pair = on_trees(quadratic())
    gradient = implicit_gradient(pair.upper, pair.lower, solver=solver)
    x, y = optax.tree.ones_like(X), optax.tree.ones_like(Y)
    call = lambda x, k: gradient(x, y, pair.batch, key=k)
    keys = jax.random.split(key(0), 3)
    xs = jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, -leaf]), x)
    together = jax.jit(jax.vmap(call))(xs, keys)
    for i in range(3):
        alone = call(jax.tree.map(lambda leaf, i=i: leaf[i], xs), keys[i])
        for a, b in zip(*map(jax.tree.leaves, (together, alone)), strict=True):
            assert a.dtype == jnp.float32
            np.testing.assert_allclose(a[i], b, rtol=2e-5, atol=2e-5)


def test_narrow_parameters_keep_their_dtype(strict):
    lower = lambda x, y, batch: jnp.sum(y * y) - jnp.sum(x * y)
    upper = lambda x, y, batch: jnp.sum(y * y)
    x = y = jnp.ones(3, jnp.bfloat16)
    for solver in (conjugate_gradient(), dense_solve(), neumann(20, 0.25)):
        found, adjoint = implicit_gradient(upper, lower, solver=solver)(x, y, None)
        assert found.dtype == adjoint.dtype == jnp.bfloat16
        np.testing.assert_array_equal(adjoint.astype(jnp.float32), np.ones(3))
        np.testing.assert_array_equal(found.astype(jnp.float32), np.ones(3))
    cross = finite_difference_cross(lower, x, y, None, jnp.ones(3, jnp.float32))
    assert cross.dtype == jnp.bfloat16
    np.testing.assert_allclose(cross.astype(jnp.float32), -np.ones(3), rtol=1e-2)


def test_vectors_may_be_wider_than_the_lower_variable(strict):
    lower = lambda x, y, batch: jnp.sum(y * y) - jnp.sum(x * y)
    x = y = jnp.ones(3, jnp.bfloat16)
    products = lower_products(lower, x, y, None, jnp.ones(3, jnp.float32))
    np.testing.assert_array_equal(products.hessian_product.astype(jnp.float32), 2 * np.ones(3))
    assert {leaf.dtype for leaf in products} == {jnp.dtype(jnp.bfloat16)}


# Bad input.


def test_oracles_that_return_no_scalar_are_named():
    vector = lambda x, y, batch: x * y
    scalar = lambda x, y, batch: jnp.sum(x * y)
    x = jnp.ones(2)
    with pytest.raises(ValueError, match=r"^lower must return a scalar, got shapes \(2,\)"):
        lower_products(vector, x, x, None, x)
    with pytest.raises(ValueError, match=r"^lower must return a scalar"):
        finite_difference_cross(vector, x, x, None, x)
    with pytest.raises(ValueError, match=r"^upper must return a scalar"):
        implicit_gradient(vector, scalar)(x, x, None)
    with pytest.raises(ValueError, match=r"^lower must return a scalar"):
        implicit_gradient(scalar, vector)(x, x, None)


@pytest.mark.parametrize("products", [lower_products, finite_difference_cross])
@pytest.mark.parametrize("vector", [jnp.ones(3), (jnp.ones(2),), jnp.ones(())])
def test_a_vector_of_another_shape_is_named(products, vector):
    lower = lambda x, y, batch: jnp.sum(x * y)
    with pytest.raises(ValueError, match=r"^vector has shapes"):
        products(lower, jnp.ones(2), jnp.ones(2), None, vector)


def test_a_missing_key_is_named():
    oracle = lambda x, y, batch: jnp.sum(x * y)
    gradient = implicit_gradient(oracle, oracle, solver=randomized_neumann(3, 0.1))
    with pytest.raises(TypeError, match=r"^randomized_neumann: .*key="):
        gradient(jnp.ones(2), jnp.ones(2), None)


@pytest.mark.parametrize("solver", [neumann(4, 0.1), randomized_neumann(4, 0.1)])
def test_too_few_batches_of_the_hessian_are_named(solver):
    """They would otherwise be read twice: an index beyond the end means the last."""
    pair = quadratic()
    gradient = implicit_gradient(pair.upper, pair.lower, solver=solver)
    x, y, _ = in_precision(jnp.float32, *random_point())
    for batches in (stacked_hessians(pair, 2), 1.0):
        with pytest.raises(ValueError, match=r"^hessian_batches.* of length 3 or more"):
            gradient(x, y, pair.batch, hessian_batches=batches, key=key(0))
    gradient(x, y, pair.batch, hessian_batches=stacked_hessians(pair, 3), key=key(0))


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: conjugate_gradient(max_steps=0), "max_steps"),
        (lambda: conjugate_gradient(tolerance=-1), "tolerance"),
        (lambda: conjugate_gradient(damping=-1), "damping"),
        (lambda: dense_solve(damping=-1), "damping"),
        (lambda: neumann(0, 0.1), "num_terms"),
        (lambda: neumann(2.5, 0.1), "num_terms"),
        (lambda: neumann(2, 0), "step_size"),
        (lambda: neumann(2, 0.1, damping=-1), "damping"),
        (lambda: randomized_neumann(0, 0.1), "num_terms"),
        (lambda: randomized_neumann(2, -0.1), "step_size"),
        (lambda: finite_difference_cross(None, None, None, None, None, scale=0), "scale"),
    ],
)
def test_bad_arguments_are_named(make, argument):
    with pytest.raises(ValueError, match=f"^{argument} must "):
        make()
