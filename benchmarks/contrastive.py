"""Contrastive pre-training on the digits: tracked normalizers against the plain batch loss.

Every row sees the same number of images, has the same learning rates of Adam to choose from and the
same seeds. The rate is the one with the best median accuracy of a linear probe on the training
images without a label; the test images choose nothing. The loss is the global one, over all pairs
of training images.

    python benchmarks/contrastive.py
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from stochopt.compositional import (
    estimate_contrastive,
    estimate_robust_contrastive,
    sample_blocks,
)

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
LABELS_PER_CLASS = 10


class Encoder(nnx.Module):
    """Perceptron 64-128-64; the projection behind it serves the loss only."""

    def __init__(self, rngs: nnx.Rngs):
        self.hidden1 = nnx.Linear(64, 128, rngs=rngs)
        self.hidden2 = nnx.Linear(128, 64, rngs=rngs)
        self.projection = nnx.Linear(64, 32, rngs=rngs)

    def represent(self, x: jax.Array) -> jax.Array:
        """What a probe sees."""
        return nnx.relu(self.hidden2(nnx.relu(self.hidden1(x))))

    def __call__(self, x: jax.Array) -> jax.Array:
        """What the loss sees."""
        return self.projection(self.represent(x))


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, test images and labels; every fifth image is for testing."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    test = np.arange(len(labels)) % 5 == 0
    return images[~test], labels[~test], images[test], labels[test]


def augmentation(images: np.ndarray):
    """``augment(key, indices) -> views``: shifts by a pixel, a hole of 2 x 2 pixels, noise."""
    padded = np.pad(images.reshape(-1, 8, 8), ((0, 0), (1, 1), (1, 1)))
    shifts = [padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    shifted = jnp.asarray(np.stack(shifts).reshape(9, len(images), 64))
    holes = np.ones((49, 8, 8), np.float32)
    for k, (i, j) in enumerate(np.ndindex(7, 7)):
        holes[k, i : i + 2, j : j + 2] = 0
    holes = jnp.asarray(holes.reshape(49, 64))

    def augment(key: jax.Array, indices: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 3)
        shift = jax.random.randint(keys[0], indices.shape, 0, len(shifted))
        hole = jax.random.randint(keys[1], indices.shape, 0, len(holes))
        noise = 0.1 * jax.random.normal(keys[2], (*indices.shape, 64))
        return shifted[shift, indices] * holes[hole] + noise

    return augment


def pretrain(make, images: np.ndarray, batch_size: int, num_images: int, num_seeds: int):
    """Parameters for each seed and each learning rate, after ``num_images`` images."""
    num_steps, augment = num_images // batch_size, augmentation(images)
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: Encoder(nnx.Rngs(0))))
    embed = lambda params, views: nnx.merge(graphdef, params)(views)

    def batches(key):
        keys = jax.random.split(key, 3)
        indices = sample_blocks(keys[0], len(images), batch_size)
        return (augment(keys[1], indices), augment(keys[2], indices)), indices

    def train(key, rate):
        schedule = lambda count: rate * optax.cosine_decay_schedule(1.0, num_steps)(count)
        estimator = make(embed, num_examples=len(images))
        optimizer = optax.chain(estimator, optax.adam(schedule))
        params = nnx.split(Encoder(nnx.Rngs(key)))[1]

        def step(carry, t):
            params, state = carry
            batch, indices = batches(jax.random.fold_in(key, t))
            updates, state = optimizer.update(
                None, state, params, batch=batch, block_indices=indices
            )
            return (optax.apply_updates(params, updates), state), None

        start = params, optimizer.init(params)
        return jax.lax.scan(step, start, jnp.arange(num_steps))[0][0]

    keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    over = jax.vmap(jax.vmap(train, in_axes=(None, 0)), in_axes=(0, None))
    params = jax.block_until_ready(jax.jit(over)(keys, jnp.asarray(RATES)))
    return lambda seed, rate: nnx.merge(graphdef, jax.tree.map(lambda x: x[seed, rate], params))


def few_labels(labels: np.ndarray) -> np.ndarray:
    """The first images of each class."""
    return np.concatenate([np.flatnonzero(labels == k)[:LABELS_PER_CLASS] for k in range(10)])


def probe(train, test) -> float:
    """Accuracy in percent of a logistic regression on standardized features."""
    (x, y), (x_test, y_test) = train, test
    if not np.all(np.isfinite(x)):
        return 10.0  # a destroyed network guesses
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-3
    model = LogisticRegression(C=0.1, max_iter=500).fit((x - mean) / scale, y)
    return 100 * model.score((x_test - mean) / scale, y_test)


def accuracies(represent, data) -> tuple[float, float, float]:
    """With few labels, on the other training images and on the test images; with all, on test."""
    x, y, x_test, y_test = data
    x, x_test = np.asarray(represent(x)), np.asarray(represent(x_test))
    few = few_labels(y)
    rest = np.setdiff1d(np.arange(len(y)), few)
    return (
        probe((x[few], y[few]), (x[rest], y[rest])),
        probe((x[few], y[few]), (x_test, y_test)),
        probe((x, y), (x_test, y_test)),
    )


def global_loss(embed, images: np.ndarray, temperature: float, num_draws: int = 10) -> jax.Array:
    """The global contrastive loss over all training images, by ten draws of two views of each."""
    augment, everyone = augmentation(images), jnp.arange(len(images))
    others = ~jnp.eye(len(images), dtype=bool)

    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        features = [embed(augment(k, everyone)) for k in jax.random.split(key)]
        first, second = (f / jnp.linalg.norm(f, axis=1, keepdims=True) for f in features)
        terms = [jnp.exp(a @ z.T / temperature) for a in (first, second) for z in (first, second)]
        total = sum(jnp.sum(term, axis=1, where=others) for term in terms)
        return jnp.sum(first * second, axis=1), total / (4 * (len(images) - 1))

    similar, means = jax.lax.map(draw, jax.random.split(jax.random.key(7), num_draws))
    return jnp.mean(temperature * jnp.log(means.mean(axis=0)) - similar.mean(axis=0))


def cells(found: np.ndarray) -> str:
    """Median and range of each column."""
    rows = zip(np.median(found, axis=0), found.min(axis=0), found.max(axis=0), strict=True)
    return " | ".join(f"{middle:.3g} [{low:.3g}, {high:.3g}]" for middle, low, high in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=0.2)
    arguments = parser.parse_args()
    data = digits()
    images, tau = data[0], arguments.temperature
    number = arguments.epochs * len(images)

    def tracked(rate):
        return partial(estimate_contrastive, temperature=tau, tracker_rate=rate)

    methods = {
        "batch loss, 32": (tracked(1.0), 32),
        "batch loss, 512": (tracked(1.0), 512),
        "tracked at rate 0.3, 32": (tracked(0.3), 32),
        "tracked at rate 0.9, 32": (tracked(0.9), 32),
        "individual temperatures, 32": (partial(estimate_robust_contrastive, temperature=tau), 32),
    }
    loss = nnx.jit(lambda encoder: global_loss(encoder, images, tau))
    measure = lambda e: [*accuracies(e.represent, data), float(loss(e))]
    print(f"{number} images, {arguments.seeds} seeds, temperature {tau:g}: median [min, max]")
    columns = "row, updates, rate, 100 labels train, 100 labels test, all labels test, global loss"
    print(columns.replace(", ", " | "))
    print(f"pixels | 0 | | {cells(np.array([accuracies(lambda x: x, data)]))} |")
    untrained = [Encoder(nnx.Rngs(jax.random.key(seed))) for seed in range(arguments.seeds)]
    print(f"untrained | 0 | | {cells(np.array([measure(encoder) for encoder in untrained]))}")
    for name, (make, batch_size) in methods.items():
        begin = time.perf_counter()
        encoder = pretrain(make, images, batch_size, number, arguments.seeds)
        seconds = time.perf_counter() - begin
        found = np.array(
            [
                [measure(encoder(seed, rate)) for rate in range(len(RATES))]
                for seed in range(arguments.seeds)
            ]
        )
        medians = np.median(found, axis=0)
        best = int(np.argmax(medians[:, 0]))
        print(f"{name} | {number // batch_size} | {RATES[best]:g} | {cells(found[:, best])}")
        for column, title in ((0, "100 labels train"), (3, "global loss")):
            pairs = zip(RATES, medians[:, column], strict=True)
            print(f"    {title} by rate:", ", ".join(f"{r:g}: {m:.3g}" for r, m in pairs))
        print(f"    {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
