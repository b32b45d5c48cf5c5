"""Handwritten digits: scikit-learn's bundled 8 x 8 images, by a perceptron or a small CNN.

1,797 images in 10 classes, pixels scaled to [0, 1]. The split is fixed: every fifth image (index
divisible by 5) is for testing, 360 images; the other 1,437 are for training.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt.problems.problem import Problem

BATCH_SIZE = 64


def digits_data() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images, one a row, and labels of the parts ``"train"`` and ``"test"``."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits problems need scikit-learn: pip install 'stochopt[experiments]'."
        ) from error
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    test = np.arange(len(labels)) % 5 == 0
    return {
        "train": (images[~test], labels[~test].astype(np.int32)),
        "test": (images[test], labels[test].astype(np.int32)),
    }


def _classification(name: str, summary: str, make_module: Callable, target: float) -> Problem:
    from stochopt.problems._flax import functional

    init, apply = functional(make_module)
    data = digits_data()
    images, labels = data["train"]

    def mean_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def sample(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        index = jax.random.randint(key, (BATCH_SIZE,), 0, len(labels))
        return jnp.asarray(images)[index], jnp.asarray(labels)[index]

    def predict(params: dict, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        return apply(params, batch[0])

    def target_loss(logits: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        return mean_loss(logits, batch[1])

    def metrics(params: dict) -> dict[str, jax.Array]:
        measured = {}
        for part, (x, y) in data.items():
            logits = apply(params, jnp.asarray(x))
            measured[f"{part}_loss"] = mean_loss(logits, jnp.asarray(y))
            measured[f"{part}_accuracy"] = jnp.mean(logits.argmax(-1) == y, dtype=jnp.float32)
        return measured

    return Problem(
        name=name,
        summary=summary,
        init=init,
        sample=sample,
        metrics=metrics,
        objective="train_loss",
        score="test_accuracy",
        target=target,
        loss=lambda params, batch: target_loss(predict(params, batch), batch),
        predict=predict,
        target_loss=target_loss,
    )


def digits() -> Problem:
    """Perceptron 64-128-64-10 with ReLU on the digits; minibatches of 64."""
    from stochopt.problems._flax import nnx

    class Perceptron(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.hidden1 = nnx.Linear(64, 128, rngs=rngs)
            self.hidden2 = nnx.Linear(128, 64, rngs=rngs)
            self.head = nnx.Linear(64, 10, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.head(nnx.relu(self.hidden2(nnx.relu(self.hidden1(x)))))

    return _classification(
        "digits", "handwritten digits, perceptron 64-128-64-10", Perceptron, target=0.05
    )


def convolve_by_product(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
    """Convolution with zero padding to the same size and stride one, as one matrix product.

    Inside a compiled loop XLA's CPU backend has no fast convolution; a product stays fast.

    Args:
      x: images, shape (batch, height, width, channels).
      kernel: shape (odd, odd, channels, outputs).
    """
    rows, columns, channels, outputs = kernel.shape
    height, width = x.shape[1:3]
    padding = ((0, 0), (rows // 2, rows // 2), (columns // 2, columns // 2), (0, 0))
    padded = jnp.pad(x, padding)
    shifted = [
        padded[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)
    ]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(rows * columns * channels, outputs)


def digits_cnn() -> Problem:
    """Two convolutions and a linear head on the digits; minibatches of 64."""
    from stochopt.problems._flax import nnx

    class Cnn(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            convolve = convolve_by_product
            self.conv1 = nnx.Conv(1, 16, (3, 3), conv_general_dilated=convolve, rngs=rngs)
            self.conv2 = nnx.Conv(16, 32, (3, 3), conv_general_dilated=convolve, rngs=rngs)
            self.head = nnx.Linear(2 * 2 * 32, 10, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = x.reshape(-1, 8, 8, 1)
            for conv in (self.conv1, self.conv2):
                x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), strides=(2, 2))
            return self.head(x.reshape(-1, 2 * 2 * 32))

    return _classification(
        "digits-cnn", "handwritten digits, two convolutions and a head", Cnn, target=0.05
    )
