"""Characters of English: a small causal transformer on the text of Python's own manual.

The text is what CPython ships for ``help()`` in ``pydoc_data.topics``, the topics in sorted order
joined by newlines: about 465,000 characters with Python 3.11. It differs between versions of
Python, and so do losses, a little. The vocabulary does not: newline and the 95 printable
characters of ASCII; any other character, such as a typographic quote, is dropped.

The last tenth is for testing, the rest for training. The manual repeats itself: some passages of
the last tenth, such as those on ``while`` and ``with``, also stand word for word in the rest. The
last tenth is also the easier part: early in training the test loss is below the training loss.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt import _checks
from stochopt.problems.problem import Problem

VOCABULARY = "\n" + "".join(map(chr, range(32, 127)))
METRIC_WINDOWS = 64


def encode(text: str) -> np.ndarray:
    """Indices into ``VOCABULARY``; a character that is not in it is dropped."""
    codes = np.frombuffer(text.encode("ascii", "ignore"), np.uint8)
    index = np.full(128, 255, np.uint8)
    index[[ord(character) for character in VOCABULARY]] = np.arange(len(VOCABULARY))
    tokens = index[codes]
    return tokens[tokens != 255]


@functools.cache
def corpus() -> tuple[np.ndarray, np.ndarray]:
    """The tokens for training and those for testing."""
    from pydoc_data.topics import topics

    tokens = encode("\n".join(topics[name] for name in sorted(topics)))
    tokens.setflags(write=False)  # all callers share it
    cut = 9 * len(tokens) // 10
    return tokens[:cut], tokens[cut:]


def _metric_windows(part: np.ndarray, length: int) -> np.ndarray:
    """The first ``length`` tokens of each of 64 equal pieces, shape (64, length)."""
    size = len(part) // METRIC_WINDOWS
    return part[: METRIC_WINDOWS * size].reshape(METRIC_WINDOWS, size)[:, :length]


def text(
    layers: int = 2, width: int = 64, heads: int = 4, context: int = 64, batch_size: int = 16
) -> Problem:
    """Next character of the text of Python's manual, by a small causal transformer.

    A batch holds random windows of ``context + 1`` characters of the training text; the loss is
    the mean cross entropy of each character but the first given those before it, in nats.
    ``train_loss`` and ``test_loss`` are the same over 64 fixed windows each, evenly spaced and
    without overlap.

    The blocks normalize before attention and before the perceptron; only normalizations have
    biases. Embeddings (``token_embed``, ``position_embed``) and the untied ``head`` can be told
    from the matrices of the ``blocks`` by their names.

    Args:
      layers: number of blocks.
      width: of the stream between blocks; a perceptron's hidden layer is four times as wide.
      heads: of each attention; they divide ``width``.
      context: the most characters that a prediction sees.
      batch_size: windows in a batch.
    """
    _checks.check_count("layers", layers)
    _checks.check_count("width", width)
    _checks.check_count("heads", heads)
    _checks.check_count("context", context)
    _checks.check_count("batch_size", batch_size)
    if width % heads:
        raise ValueError(f"width must be a multiple of heads, got {width} and {heads} heads.")
    train, test = corpus()
    room = len(test) // METRIC_WINDOWS
    if context >= room:
        raise ValueError(
            f"context must be less than {room}, so that {METRIC_WINDOWS} windows fit into the text "
            f"for testing, got {context}."
        )
    windows = {
        "train_loss": _metric_windows(train, context + 1),
        "test_loss": _metric_windows(test, context + 1),
    }

    from stochopt.problems._flax import functional, nnx

    linear = functools.partial(nnx.Linear, use_bias=False)

    class Block(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
            self.query = linear(width, width, rngs=rngs)
            self.key = linear(width, width, rngs=rngs)
            self.value = linear(width, width, rngs=rngs)
            self.out = linear(width, width, rngs=rngs)
            self.perceptron_norm = nnx.LayerNorm(width, rngs=rngs)
            self.up = linear(width, 4 * width, rngs=rngs)
            self.down = linear(4 * width, width, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            y = self.attention_norm(x)
            by_head = [
                project(y).reshape(*y.shape[:2], heads, width // heads)
                for project in (self.query, self.key, self.value)
            ]
            attended = jax.nn.dot_product_attention(*by_head, is_causal=True)
            x = x + self.out(attended.reshape(x.shape))
            return x + self.down(nnx.gelu(self.up(self.perceptron_norm(x))))

    class Transformer(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            # A small head: the first predictions are nearly uniform.
            small = nnx.initializers.normal(0.02)
            self.token_embed = nnx.Embed(len(VOCABULARY), width, rngs=rngs)
            self.position_embed = nnx.Embed(context, width, rngs=rngs)
            self.blocks = nnx.List([Block(rngs) for _ in range(layers)])
            self.norm = nnx.LayerNorm(width, rngs=rngs)
            self.head = linear(width, len(VOCABULARY), kernel_init=small, rngs=rngs)

        def __call__(self, tokens: jax.Array) -> jax.Array:
            positions = jnp.arange(tokens.shape[1])
            x = self.token_embed(tokens) + self.position_embed(positions)
            for block in self.blocks:
                x = block(x)
            return self.head(self.norm(x))

    init, apply = functional(Transformer)

    def sample(key: jax.Array) -> jax.Array:
        start = jax.random.randint(key, (batch_size, 1), 0, len(train) - context)
        return jnp.asarray(train)[start + jnp.arange(context + 1)].astype(jnp.int32)

    def loss(params: dict, batch: jax.Array) -> jax.Array:
        logits = apply(params, batch[:, :-1])
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]).mean()

    def metrics(params: dict) -> dict[str, jax.Array]:
        return {name: loss(params, jnp.asarray(fixed)) for name, fixed in windows.items()}

    return Problem(
        name="text",
        summary=f"characters of Python's manual, transformer of {layers} layers, width {width}",
        init=init,
        sample=sample,
        metrics=metrics,
        objective="train_loss",
        score="test_loss",
        target=1.6,
        loss=loss,
    )
