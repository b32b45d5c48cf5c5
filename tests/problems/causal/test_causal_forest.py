"""The soft regression forest against a loop over points, trees and nodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from stochopt.problems._flax import functional
from stochopt.problems.causal.forest import SoftRegressionForest, default_depth

key = jax.random.key


def make(num_features=3, num_outputs=2, num_trees=4, depth=None, seed=0):
    forest = SoftRegressionForest(num_features, num_outputs, num_trees, depth, rngs=nnx.Rngs(seed))
    rng = np.random.default_rng(seed)  # far from the flat start
    for parameter in (forest.weight, forest.bias, forest.leaves):
        shape = parameter[...].shape
        parameter[...] = jnp.asarray(rng.standard_normal(shape), parameter[...].dtype)
    return forest


def weight_in_loop(forest, x, tree, level, place, depth):
    """Shares of the leaves under one node, in the order of the leaves, from the root down."""
    if level == depth:
        return {place: 1.0}
    gate = 2**level - 1 + place
    slope, bias = np.asarray(forest.weight[...]), np.asarray(forest.bias[...])
    share = 1 / (1 + np.exp(-(slope[:, gate, tree] @ x + bias[gate, tree])))
    shares = {}
    for part, child in ((share, place), (1 - share, place + 2**level)):
        below = weight_in_loop(forest, x, tree, level + 1, child, depth)
        shares |= {leaf: part * weight for leaf, weight in below.items()}
    return shares


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_output_is_that_of_a_loop(x64, depth):
    forest = make(depth=depth)
    leaves = np.asarray(forest.leaves[...])
    points = np.random.default_rng(1).standard_normal((5, 3))
    found, weights = forest(jnp.asarray(points)), forest.leaf_weights(jnp.asarray(points))
    assert found.shape == (5, 2)
    assert weights.shape == (5, 2**depth, 4)
    for x, outputs, weight in zip(points, found, weights, strict=True):
        expected = np.zeros(2)
        for tree in range(4):
            shares = weight_in_loop(forest, x, tree, 0, 0, depth)
            assert sorted(shares) == list(range(2**depth))
            for leaf, share in shares.items():
                np.testing.assert_allclose(weight[leaf, tree], share, rtol=1e-12)
                expected += share * leaves[leaf, tree] / 4
        np.testing.assert_allclose(outputs, expected, rtol=1e-12)


def test_weights_sum_to_one_far_out_too():
    forest = make(depth=4)
    points = 50 * jax.random.normal(key(0), (200, 3))
    weights = forest.leaf_weights(points)
    assert np.all(weights >= 0)
    np.testing.assert_allclose(jnp.sum(weights, axis=1), 1, rtol=1e-6)


def test_any_leading_axes():
    forest = make()
    points = jax.random.normal(key(0), (2, 5, 3))
    assert forest(points).shape == (2, 5, 2)
    np.testing.assert_allclose(forest(points)[1, 3], forest(points[1, 3]), rtol=1e-6)


@pytest.mark.parametrize(("features", "depth"), [(1, 1), (2, 2), (5, 4), (8, 4), (10, 5), (20, 6)])
def test_default_depth_and_sizes(features, depth):
    assert default_depth(features) == depth
    init, apply = functional(lambda rngs: SoftRegressionForest(features, rngs=rngs))
    params = jax.jit(init)(key(0))
    assert params["weight"].shape == (features, 2**depth - 1, 20)
    assert params["leaves"].shape == (2**depth, 20, 1)
    outputs = jax.jit(apply)(params, jnp.zeros((3, features)))
    assert np.all((outputs > 0) & (outputs < 0.1)), "a mean of leaves in [0, 0.1]"


def test_start():
    forest = SoftRegressionForest(20, rngs=nnx.Rngs(0))
    assert float(jnp.std(forest.weight[...])) == pytest.approx(0.1, rel=0.02)
    assert float(jnp.std(forest.bias[...])) == pytest.approx(0.1, rel=0.1)
    assert float(jnp.mean(forest.leaves[...])) == pytest.approx(0.05, rel=0.05)
    assert 0 <= float(jnp.min(forest.leaves[...])) < float(jnp.max(forest.leaves[...])) <= 0.1
