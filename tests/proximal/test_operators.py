"""Each operator minimizes what it says: optimality, Moreau's decomposition, firm nonexpansion."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from optax import projections

from stochopt.proximal import (
    ProximalOperator,
    box,
    elastic_net,
    group_lasso,
    indicator,
    l1,
    l2,
    nuclear_norm,
    partition,
    plus_ridge,
    ridge,
    total_variation,
    zero,
)

SHAPES = {"a": (3, 2), "b": (2, 2, 3)}
#: From a weight to an operator; the first also for complex leaves.
NORMS = {
    "l1": l1,
    "ridge": ridge,
    "elastic_net": lambda weight: elastic_net(weight, 0.7),
    "l2": l2,
    "group_lasso": lambda weight: group_lasso(weight, axis=-1),
    "group_lasso of leaves": group_lasso,
    "nuclear_norm": nuclear_norm,
    "plus_ridge": lambda weight: plus_ridge(l2(0.4), weight),
    "partition": lambda weight: partition({0: l1(weight), 1: l2(0.3)}, {"a": 0, "b": 1}),
}
CONVEX = NORMS | {
    "zero": lambda weight: zero(),
    "total_variation": total_variation,
    "box": lambda weight: box(-weight, 0.4, tolerance=1e-12),
    "simplex": lambda weight: indicator(projections.projection_simplex, tolerance=1e-12),
    "l1 ball": lambda weight: indicator(
        projections.projection_l1_ball, 1 + weight, tolerance=1e-12
    ),
}

with_x64 = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**16)
weights = st.sampled_from([0.0, 0.1, 0.6, 5.0])
steps = st.sampled_from([0.01, 0.5, 1.0, 3.0])


def tree(rng, scale=1.0, dtype=float, count=None):
    def leaf(shape):
        shape = shape if count is None else (count, *shape)
        x = scale * rng.standard_normal(shape)
        return jnp.asarray(x if dtype is float else x + 1j * scale * rng.standard_normal(shape))

    return {name: leaf(shape) for name, shape in SHAPES.items()}


def real(vector):
    return jnp.concatenate([vector.real, vector.imag]) if jnp.iscomplexobj(vector) else vector


def vector(params):
    return real(ravel_pytree(params)[0])


def gaps(operator, point, step, minimizer, others):
    r"""``r(q) - r(p) - <(v - p) / s, q - p>`` at other points ``q``.

    Where all of them are at least zero, ``(v - p) / s`` is a subgradient at ``p``, and the convex
    problem is solved.
    """
    slope = (vector(point) - vector(minimizer)) / step

    def gap(other):
        rise = operator.value(other) - operator.value(minimizer)
        return rise - slope @ (vector(other) - vector(minimizer))

    return jax.vmap(gap)(others)


@functools.cache
def solved(name):
    """The minimizers for two points, and the smallest gap of the first of them.

    It is looked for around the minimizer and among other points' minimizers, which lie on kinks.
    """

    @jax.jit
    def solve(point, second, weight, step, away, step_of_gap):
        operator = CONVEX[name](weight)
        minimizer = operator(point, step)
        moved = jax.tree.map(lambda p, d: p + d, minimizer, away)
        kinks = jax.lax.map(lambda other: operator(other, step), away)
        found = [gaps(operator, point, step_of_gap, minimizer, others) for others in (moved, kinks)]
        return minimizer, operator(second, step), jnp.concatenate(found).min()

    return solve


def solve(name, seed, weight, step, dtype=float, distance=1.0, off=1.0):
    """Two points of a seed, their minimizers, and the smallest gap."""
    rng = np.random.default_rng(seed)
    point, away = tree(rng, dtype=dtype), displacements(rng, dtype)
    second = jax.tree.map(lambda x, d: x + distance * d, point, tree(rng, dtype=dtype))
    found = solved(name)(point, second, weight, step, away, off * step)
    return point, second, *found


def displacements(rng, dtype):
    """Displacements of all sizes, many of them along one coordinate."""
    draws = tree(rng, dtype=dtype, count=60)
    size = 10.0 ** rng.uniform(-4, 1, 60)
    scaled = lambda x: x * size.reshape(-1, *[1] * (x.ndim - 1)) * (rng.random(x.shape) < 0.3)
    return jax.tree.map(scaled, draws)


def check(name, seed, weight, step, distance, dtype):
    x, y, px, py, gap = solve(name, seed, weight, step, dtype, distance)
    assert gap >= -1e-9 * (1 + weight + 1 / step)
    shift = vector(px) - vector(py)
    assert shift @ shift <= (vector(x) - vector(y)) @ shift + 1e-12


@pytest.mark.parametrize("name", CONVEX)
@with_x64
@given(seed=seeds, weight=weights, step=steps, distance=st.sampled_from([1e-3, 0.1, 2.0]))
def test_optimality_and_firm_nonexpansiveness(x64, name, seed, weight, step, distance):
    check(name, seed, weight, step, distance, float)


@pytest.mark.parametrize("name", NORMS)
@with_x64
@given(seed=seeds, weight=weights, step=steps, distance=st.sampled_from([1e-3, 0.1, 2.0]))
def test_the_same_for_complex_leaves(x64, name, seed, weight, step, distance):
    check(name, seed, weight, step, distance, complex)


@pytest.mark.parametrize("name", [*NORMS, "total_variation"])
def test_control_the_gap_finds_a_step_that_is_off(x64, name):
    assert solve(name, 0, 0.3, 0.5)[-1] >= -1e-12
    assert solve(name, 0, 0.3, 0.5, off=0.9)[-1] < -1e-6


def test_control_firm_nonexpansiveness_excludes_reflections():
    # 2 prox - identity is nonexpansive, but not firmly.
    x, y, prox = jnp.array([0.2, 2.0]), jnp.array([-0.2, 2.0]), l1(1.0)
    shift = 2 * (prox(x, 1.0) - prox(y, 1.0)) - (x - y)
    assert shift @ shift > (x - y) @ shift


# The operators of the conjugates, in numpy.


def clip_norm(x, radius, axis=None):
    norm = np.sqrt(np.sum(np.abs(x) ** 2, axis=axis, keepdims=True))
    return x * np.minimum(1, radius / norm)


def clip_singular_values(x, radius):
    u, sigma, vh = np.linalg.svd(x, full_matrices=False)
    return (u * np.minimum(sigma, radius)[..., None, :]) @ vh


CONJUGATES = {
    "l1": lambda y, weight, step: y / np.maximum(np.abs(y) / weight, 1),
    "ridge": lambda y, weight, step: y / (1 + 1 / (step * weight)),
    "group_lasso": lambda y, weight, step: clip_norm(y, weight, -1),
    "group_lasso of leaves": lambda y, weight, step: clip_norm(y, weight),
    "nuclear_norm": lambda y, weight, step: clip_singular_values(y, weight),
}


@pytest.mark.parametrize("name", CONJUGATES)
@pytest.mark.parametrize("dtype", [float, complex])
@with_x64
@given(seed=seeds, weight=st.sampled_from([0.1, 0.6, 5.0]), step=steps)
def test_moreau_decomposition(x64, name, dtype, seed, weight, step):
    point, _, found, *_ = solve(name, seed, weight, step, dtype)

    def expected(v):
        v = np.asarray(v)
        return v - step * CONJUGATES[name](v / step, weight, step)

    compare = lambda p, v: np.testing.assert_allclose(p, expected(v), rtol=1e-11, atol=1e-12)
    jax.tree.map(compare, found, point)


@with_x64
@given(seed=seeds, weight=st.sampled_from([0.1, 0.6, 5.0]), step=steps)
def test_moreau_decomposition_of_the_norm_of_the_whole_tree(x64, seed, weight, step):
    point, _, found, *_ = solve("l2", seed, weight, step)
    v, found = np.asarray(vector(point)), vector(found)
    np.testing.assert_allclose(found, v - step * clip_norm(v / step, weight), atol=1e-12)


# Values and closed forms.


def test_values(x64):
    x = {"m": jnp.array([[3.0, -4.0], [0.0, 2.0]])}
    singular = np.linalg.svd(np.asarray(x["m"]), compute_uv=False)
    expected = [
        (zero(), 0),
        (l1(0.5), 4.5),
        (ridge(0.5), 29 / 4),
        (elastic_net(0.5, 2.0), 4.5 + 29),
        (l2(0.5), np.sqrt(29) / 2),
        (group_lasso(0.5), np.sqrt(29) / 2),
        (group_lasso(0.5, axis=1), 3.5),
        (group_lasso(0.5, axis=0), (3 + np.sqrt(20)) / 2),
        (group_lasso(0.5, axis=(0, 1)), np.sqrt(29) / 2),
        (nuclear_norm(0.5), singular.sum() / 2),
        (total_variation(0.5), 4.5),
        (total_variation(0.5, axis=0), 4.5),
        (box(-4.0, 3.0), 0),
        (box(-4.0, 2.0), np.inf),
        (box({"m": -4.0}, {"m": jnp.array([3.0, 2.0])}), 0),
        (plus_ridge(l1(1.0), 1.0), 9 + 29 / 2),
        (partition({"all": l1(1.0), "none": l2(1.0)}, "all"), 9),
    ]
    for operator, value in expected:
        np.testing.assert_allclose(operator.value(x), value, rtol=1e-14)


def test_a_point_moved_to_a_set_counts_as_inside():
    x = jnp.asarray(np.random.default_rng(0).standard_normal(10_000), jnp.float32)
    simplex = indicator(projections.projection_simplex)
    assert simplex.value(x) == np.inf
    assert simplex.value(simplex(x, 1.0)) == 0
    assert indicator(projections.projection_simplex, tolerance=1e-3).value(x * 0 + 1e-4) == 0
    assert simplex.value(x * 0 + 1.1e-4) == np.inf


def test_elastic_net_in_closed_form(x64):
    v = jnp.linspace(-3, 3, 31)
    found = elastic_net(0.5, 2.0)(v, 0.7)
    expected = np.sign(v) * np.maximum(np.abs(v) - 0.35, 0) / (1 + 1.4)
    np.testing.assert_allclose(found, expected, atol=1e-15)


# Partitions.


def test_partition_by_prefix_and_by_function(x64):
    params = {"net": {"w": jnp.ones((2, 2)), "v": -jnp.ones(3)}, "bias": jnp.full(2, 5.0)}
    operators = {"sparse": l2(1.0), "free": zero()}
    by_name = lambda tree: {"net": "sparse", "bias": "free"}
    for labels in ({"net": "sparse", "bias": "free"}, by_name):
        operator = partition(operators, labels)
        moved = operator(params, 0.5)
        # One norm over both leaves of the label.
        shrunk = 1 - 0.5 / np.sqrt(7)
        np.testing.assert_allclose(moved["net"]["w"], shrunk, rtol=1e-14)
        np.testing.assert_allclose(moved["net"]["v"], -shrunk, rtol=1e-14)
        np.testing.assert_array_equal(moved["bias"], 5)
        np.testing.assert_allclose(operator.value(params), np.sqrt(7), rtol=1e-14)


def test_leaves_that_are_none_or_masked_stay():
    params = {"a": jnp.full(2, 3.0), "b": None, "c": optax.MaskedNode()}
    labels = {"a": 0, "b": 0, "c": 0}
    for operator in (l1(1.0), l2(1.0), total_variation(1.0), partition({0: l1(1.0)}, labels)):
        moved = operator(params, 1.0)
        assert jax.tree.structure(moved) == jax.tree.structure(params)
        assert np.isfinite(operator.value(params))


def test_a_label_without_an_operator():
    operator = partition({"sparse": l1(1.0)}, {"a": "sparse", "b": "spare"})
    message = r"partition: no operator for \[\"'spare'\"\], only for \[\"'sparse'\"\]"
    with pytest.raises(ValueError, match=message):
        operator({"a": jnp.ones(2), "b": jnp.ones(2)}, 1.0)


def test_an_operator_of_your_own_works_in_float32():
    seen = []

    def prox(params, step):
        seen.append(params.dtype)
        return params / (1 + step)

    operator = ProximalOperator(prox, lambda params: 0.5 * jnp.sum(params**2))
    moved = operator(jnp.ones(2, jnp.bfloat16), 0.5)
    assert seen == [jnp.float32]
    assert moved.dtype == jnp.bfloat16
    assert operator.value(jnp.ones(2, jnp.bfloat16)).dtype == jnp.float32
