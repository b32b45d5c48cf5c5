"""The language model: its text, its windows, and that no prediction sees what it predicts."""

import functools
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stochopt.problems import text
from stochopt.problems.text import VOCABULARY, corpus, encode

CONTEXT = 4
SMALL = text(layers=1, width=8, heads=2, context=CONTEXT, batch_size=64)

key = jax.random.key


def decode(tokens):
    return "".join(VOCABULARY[token] for token in np.asarray(tokens))


@functools.cache
def whole():
    joined = "\n".join(topics[name] for name in sorted(topics))
    return "".join(c for c in joined if c == "\n" or " " <= c <= "~")


@functools.cache
def confident(seed=0):
    """Parameters of ``SMALL`` with a large head, for predictions far from uniform."""
    params = jax.jit(SMALL.init)(key(seed))
    params["head"] = optax.tree.scale(50.0, params["head"])
    return params


@functools.cache
def total_loss():
    """The sum, not the mean, of the losses of one window of any length."""
    loss = jax.jit(jax.vmap(lambda params, w: SMALL.loss(params, w[None]), in_axes=(None, 0)))
    return lambda params, windows: (windows.shape[1] - 1) * loss(params, windows)


def each_next(window):
    """The window once for every possible next character behind it."""
    every = jnp.arange(len(VOCABULARY))[:, None]
    return jnp.concatenate([jnp.broadcast_to(window, (len(every), len(window))), every], axis=1)


def next_log_probabilities(params, window):
    """Of the character behind the window, from the loss alone."""
    return jax.nn.log_softmax(-total_loss()(params, each_next(window)))


# The text.


def test_the_vocabulary_is_newline_and_printable_ascii():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 96
    assert "\n" in VOCABULARY
    assert VOCABULARY.isascii()
    assert VOCABULARY.replace("\n", "").isprintable()


def test_encoding_round_trip():
    tokens = encode(VOCABULARY)
    np.testing.assert_array_equal(tokens, np.arange(96))
    assert decode(encode("a = {~1}\n")) == "a = {~1}\n"
    assert decode(encode("“so”\tß…\x7f – a\r\n\x00")) == "so  a\n"


def test_the_last_tenth_is_for_testing():
    train, test = corpus()
    assert len(test) == pytest.approx(0.1 * len(whole()), abs=1)
    assert decode(np.concatenate([train, test])) == whole()
    with pytest.raises(ValueError, match="read-only"):
        train[0] = 1


def test_batches_are_contiguous_windows_of_all_the_training_text():
    windows = jax.jit(jax.vmap(text(context=64).sample))(jax.random.split(key(0), 100))
    assert windows.shape == (100, 16, 65)
    train = decode(corpus()[0])
    starts = np.array([train.find(decode(window)) for window in windows.reshape(-1, 65)])
    assert starts.min() >= 0, "a window is not in the training text"
    # A repeated passage is found at its first place, hence the wide bounds.
    deciles = np.histogram(starts, bins=10, range=(0, len(train)))[0] / len(starts)
    assert np.all((deciles > 0.03) & (deciles < 0.2))


def test_metrics_are_over_64_fixed_windows_without_overlap():
    params = confident()
    metrics, loss = jax.jit(SMALL.metrics), jax.jit(SMALL.loss)
    found, again = metrics(params), metrics(params)
    length = 9 * len(whole()) // 10
    for name, part in {"train": whole()[:length], "test": whole()[length:]}.items():
        starts = len(part) // 64 * np.arange(64)
        windows = np.stack([encode(part[i : i + CONTEXT + 1]) for i in starts])
        expected = loss(params, jnp.asarray(windows, jnp.int32))
        np.testing.assert_allclose(found[f"{name}_loss"], expected, rtol=1e-6)
        assert found[f"{name}_loss"] == again[f"{name}_loss"]
    assert SMALL.objective == "train_loss"
    assert SMALL.score == "test_loss"


# The model.


def test_matrices_are_separate_and_recognizable():
    shapes = jax.eval_shape(text(layers=2, width=8, heads=2, context=5).init, key(0))
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree.leaves_with_path(shapes)
    }
    block = {f"{name}/kernel": (8, 8) for name in ("query", "key", "value", "out")}
    block |= {"up/kernel": (8, 32), "down/kernel": (32, 8)}
    norms = ("attention_norm", "perceptron_norm")
    block |= {f"{norm}/{name}": (8,) for norm in norms for name in ("scale", "bias")}
    expected = {f"blocks/{i}/{name}": shape for i in (0, 1) for name, shape in block.items()}
    expected |= {"norm/scale": (8,), "norm/bias": (8,), "head/kernel": (8, 96)}
    expected |= {"token_embed/embedding": (96, 8), "position_embed/embedding": (5, 8)}
    assert found == expected


@pytest.mark.parametrize("length", range(1, CONTEXT + 1))
def test_no_prediction_sees_its_target_or_later_characters(length):
    # Then the model is a distribution of texts: over all next characters, the probabilities of
    # the longer texts add up to that of the shorter one. Any leak breaks the sum.
    window = jnp.asarray(encode("while"[: length - 1] + "x"), jnp.int32)
    longer = total_loss()(confident(), each_next(window))
    shorter = total_loss()(confident(), window[None])[0] if length > 1 else 0.0
    assert np.ptp(longer) > 1, "the predictions are far from uniform"
    np.testing.assert_allclose(jax.nn.logsumexp(-longer), -shorter, atol=1e-4)


@pytest.mark.parametrize("position", range(CONTEXT))
def test_a_prediction_sees_every_character_before_it(position):
    window = encode("with")
    changed = window.copy()
    changed[position] = encode("Q")[0]
    before, after = (next_log_probabilities(confident(), jnp.asarray(w)) for w in (window, changed))
    assert np.abs(before - after).max() > 0.01


def test_a_prediction_sees_the_order_of_the_characters():
    # One layer of attention without positions would not.
    one, other = (
        next_log_probabilities(confident(), jnp.asarray(encode(w))) for w in ("abcd", "bacd")
    )
    assert np.abs(one - other).max() > 0.01


def test_the_first_predictions_are_nearly_uniform():
    problem = text()
    metrics = jax.jit(lambda k: problem.metrics(problem.init(k)))
    for value in metrics(key(0)).values():
        np.testing.assert_allclose(value, np.log(96), atol=0.15)


def test_adam_learns_more_than_the_frequencies_of_characters():
    problem = text(layers=1, width=32, heads=2, context=16)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def train(params, keys):
        def step(carry, k):
            params, state = carry
            grads = jax.grad(problem.loss)(params, problem.sample(k))
            updates, state = optimizer.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

    params = train(jax.jit(problem.init)(key(0)), jax.random.split(key(1), 200))
    frequencies = np.bincount(corpus()[0]) / len(corpus()[0])
    entropy = -np.sum(frequencies * np.log(frequencies, where=frequencies > 0, out=0 * frequencies))
    assert entropy > 3
    metrics = jax.jit(problem.metrics)(params)
    # Below one nat, so soon, a prediction would have seen its target.
    assert 1 < metrics["train_loss"] < entropy - 0.5
    assert 1 < metrics["test_loss"] < entropy - 0.5
