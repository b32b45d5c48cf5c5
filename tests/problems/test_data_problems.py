"""Digits and Friedman's function: data as documented, sizes of the networks, the convolution."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from stochopt.problems import digits, digits_cnn, friedman
from stochopt.problems.digits import BATCH_SIZE, convolve_by_product

MADE = {"digits": digits(), "digits-cnn": digits_cnn(), "friedman": friedman()}

key = jax.random.key


@functools.cache
def initial(name):
    """A starting point; compiled, as a network is built inside."""
    return jax.jit(MADE[name].init)(key(0))


# Digits.


def test_digits_batches_are_training_images_only():
    images, labels = load_digits(return_X_y=True)
    rows = {(im / 16).astype(np.float32).tobytes(): i for i, im in enumerate(images)}
    assert len(rows) == 1797, "the images are distinct"
    xs, ys = jax.jit(jax.vmap(MADE["digits"].sample))(jax.random.split(key(0), 200))
    assert xs.shape == (200, BATCH_SIZE, 64)
    assert ys.dtype == jnp.int32
    index = np.array([rows[x.tobytes()] for x in np.asarray(xs).reshape(-1, 64)])
    assert np.all(index % 5 != 0), "a test image was drawn"
    np.testing.assert_array_equal(labels[index], np.ravel(ys))
    assert len(np.unique(index)) > 0.99 * 1437, "some training images are never drawn"


def test_digits_metrics_are_over_the_stated_split():
    # The network's own predictions, from its loss on single images.
    images, labels = load_digits(return_X_y=True)
    problem, params = MADE["digits"], initial("digits")
    single = jax.jit(
        jax.vmap(lambda x, y: problem.loss(params, (x[None], y[None])), in_axes=(0, None))
    )
    x = jnp.asarray(images / 16, jnp.float32)
    losses = np.stack([single(x, jnp.int32(label)) for label in range(10)], axis=1)
    np.testing.assert_allclose(np.exp(-losses).sum(1), 1, rtol=1e-4)  # probabilities
    test = np.arange(1797) % 5 == 0
    assert (test.sum(), (~test).sum()) == (360, 1437)
    metrics = problem.metrics(params)
    for part, chosen in {"train": ~test, "test": test}.items():
        true = losses[np.arange(1797), labels][chosen]
        np.testing.assert_allclose(metrics[f"{part}_loss"], true.mean(), rtol=1e-4)
        right = (losses.argmin(1) == labels)[chosen]
        np.testing.assert_allclose(metrics[f"{part}_accuracy"], right.mean(), atol=2e-3)


def test_sizes_of_the_networks():
    count = lambda problem: sum(
        x.size for x in jax.tree.leaves(jax.eval_shape(problem.init, key(0)))
    )
    assert count(MADE["digits"]) == 64 * 128 + 128 + 128 * 64 + 64 + 64 * 10 + 10
    assert count(MADE["digits-cnn"]) == 9 * 16 + 16 + 9 * 16 * 32 + 32 + 128 * 10 + 10
    assert count(MADE["friedman"]) == 10 * 64 + 64 + 64 * 64 + 64 + 64 + 1


# Friedman's function.


def test_friedman_data_follow_the_formula_standardized():
    problem = MADE["friedman"]
    x = np.random.default_rng(0).uniform(size=(3000, 10))
    y = (
        10 * np.sin(np.pi * x[:, 0] * x[:, 1])
        + 20 * (x[:, 2] - 0.5) ** 2
        + 10 * x[:, 3]
        + 5 * x[:, 4]
    )
    y = (y - y[:2000].mean()) / y[:2000].std()
    rows = {np.float32(2 * a - 1).tobytes(): i for i, a in enumerate(x)}
    xs, ys = jax.jit(jax.vmap(problem.sample))(jax.random.split(key(0), 400))
    index = np.array([rows[a.tobytes()] for a in np.asarray(xs).reshape(-1, 10)])
    assert index.max() < 2000, "a test point was drawn"
    assert len(np.unique(index)) > 1990, "some training points are never drawn"
    np.testing.assert_allclose(np.ravel(ys), y[index], rtol=1e-5, atol=1e-6)


def test_friedman_is_standardized():
    # A network that says zero has the mean square of the targets as its error: one in training.
    problem = MADE["friedman"]
    zero = optax.tree.zeros_like(initial("friedman"))
    metrics = problem.metrics(zero)
    np.testing.assert_allclose(metrics["train_loss"], 1, rtol=1e-5)
    np.testing.assert_allclose(metrics["test_loss"], 1, rtol=0.1)
    assert metrics["test_loss"] != metrics["train_loss"]
    _, ys = jax.jit(jax.vmap(problem.sample))(jax.random.split(key(0), 100))
    np.testing.assert_allclose(ys.mean(), 0, atol=0.05)


@pytest.mark.parametrize("shape", [(3, 3, 2, 4), (5, 3, 1, 2)])
def test_the_convolution_by_product_is_a_convolution(shape):
    for_x, for_kernel = jax.random.split(jax.random.key(0))
    x = jax.random.normal(for_x, (2, 6, 5, shape[2]))
    kernel = jax.random.normal(for_kernel, shape)
    dimensions = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=dimensions, precision="highest"
    )
    np.testing.assert_allclose(convolve_by_product(x, kernel), expected, rtol=1e-5, atol=1e-5)
