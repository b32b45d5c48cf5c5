"""Weights of examples for many regressions: the split, the exact quantities, the file format."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stochopt.problems import reweighted_logistic
from stochopt.problems.libsvm import read_libsvm
from stochopt.problems.reweighted_logistic import signed_parts

NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 80, 20, 30
NUM_BLOCKS, NUM_SAMPLED, BATCH_SIZE = 6, 2, 4
RIDGE = 0.02


def examples(number, seed):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((number, 5)) * (rng.uniform(size=(number, 5)) < 0.6)
    truth = np.array([1.0, -2.0, 0.5, 0.0, 1.0])
    labels = np.where(rows @ truth + rng.standard_normal(number) > 0, 1, -1)
    return rows.astype(np.float32), labels


TRAINING, TESTING = examples(NUM_TRAIN + NUM_VALIDATION, 0), examples(NUM_TEST, 1)


def small(**changes):
    sizes = {"num_blocks": NUM_BLOCKS, "num_sampled": NUM_SAMPLED, "batch_size": BATCH_SIZE}
    return reweighted_logistic(TRAINING, TESTING, **(sizes | {"ridge": RIDGE} | changes))


def whole(problem):
    """A batch with all blocks, and for each of them all examples."""
    batch = problem.sample(jax.random.key(0))
    everything = lambda n: jnp.tile(jnp.arange(n, dtype=jnp.int32), (NUM_BLOCKS, 1))
    blocks = jnp.arange(NUM_BLOCKS, dtype=jnp.int32)
    return batch._replace(
        block=blocks, train=everything(NUM_TRAIN), validation=everything(NUM_VALIDATION)
    )


def some_weights(seed=0):
    return jnp.asarray(2 * np.random.default_rng(seed).standard_normal(NUM_TRAIN))


def test_the_last_fifth_is_for_validation():
    rows, labels = TRAINING
    signed = np.column_stack([np.ones(len(rows)), rows]) * labels[:, None]
    parts = signed_parts(TRAINING, TESTING)
    np.testing.assert_array_equal(parts.train, signed[:NUM_TRAIN].astype(np.float32))
    np.testing.assert_array_equal(parts.validation, signed[NUM_TRAIN:].astype(np.float32))
    assert parts.test.shape == (NUM_TEST, 6)


def test_shapes_of_a_batch_and_of_what_is_exact():
    problem = small()
    params = problem.init(jax.random.key(0))
    assert params.shape == (NUM_TRAIN,)
    assert problem.lower_params.shape == (6,)
    assert (problem.num_blocks, problem.num_sampled) == (NUM_BLOCKS, NUM_SAMPLED)
    batches = jax.vmap(problem.sample)(jax.random.split(jax.random.key(1), 200))
    assert batches.block.shape == (200, NUM_SAMPLED)
    assert batches.train.shape == batches.validation.shape == (200, NUM_SAMPLED, BATCH_SIZE)
    assert np.all(batches.block[:, 0] != batches.block[:, 1])
    for indices, number in zip(batches, (NUM_BLOCKS, NUM_TRAIN, NUM_VALIDATION), strict=True):
        np.testing.assert_array_equal(np.unique(indices), np.arange(number))
    for name in ("lower", "adjoint"):
        assert problem.exact[name](params).shape == (NUM_BLOCKS, 6)


def test_exact_quantities_are_those_of_the_oracles(x64):
    problem, params = small(), some_weights()
    batch, rows = whole(problem), (None, 0, 0)
    table, adjoint = problem.exact["lower"](params), problem.exact["adjoint"](params)
    slope = jax.grad(problem.lower, 1)
    np.testing.assert_allclose(jax.vmap(slope, rows)(params, table, batch), 0, atol=1e-13)
    hessians = jax.vmap(jax.hessian(problem.lower, 1), rows)(params, table, batch)
    wanted = jax.vmap(jax.grad(problem.upper, 1), rows)(params, table, batch)
    np.testing.assert_allclose(jnp.einsum("mij,mj->mi", hessians, adjoint), wanted, atol=1e-13)
    value = jnp.mean(jax.vmap(problem.upper, rows)(params, table, batch))
    np.testing.assert_allclose(problem.metrics(params)["validation_loss"], value, rtol=1e-12)


def test_gradient_against_finite_differences(x64):
    problem, params = small(), some_weights()
    loss = jax.jit(lambda x: problem.metrics(x)["validation_loss"])
    gradient = problem.exact["gradient"](params)
    for seed in range(3):
        direction = some_weights(seed + 1)
        quotient = (loss(params + 1e-4 * direction) - loss(params - 1e-4 * direction)) / 2e-4
        np.testing.assert_allclose(gradient @ direction, quotient, rtol=1e-6)


def test_single_precision_is_enough():
    problem = small()
    slopes = jax.vmap(jax.grad(problem.lower, 1), (None, 0, 0))
    for scale in (0, 1, 10):
        params = scale * some_weights().astype(jnp.float32)
        found = slopes(params, problem.exact["lower"](params), whole(problem))
        np.testing.assert_allclose(found, 0, atol=1e-6)


def test_test_losses_and_accuracies():
    problem = small()
    params = some_weights().astype(jnp.float32)
    metrics = problem.metrics(params)
    scores = signed_parts(TRAINING, TESTING).test @ np.asarray(problem.exact["lower"](params)).T
    temperatures = np.linspace(1.1, 10.9, NUM_BLOCKS)
    np.testing.assert_allclose(metrics["test_accuracy"], np.mean(scores > 0), rtol=1e-6)
    losses = np.logaddexp(0, -scores / temperatures)
    np.testing.assert_allclose(metrics["test_loss"], np.mean(losses), rtol=1e-5)
    weights = 1 / (1 + np.exp(-np.asarray(params)))
    np.testing.assert_allclose(metrics["mean_weight"], np.mean(weights), rtol=1e-5)


def test_files_are_read_and_padded_to_one_width(tmp_path):
    training, testing = tmp_path / "train.txt", tmp_path / "test.txt"
    training.write_text("+1 1:1 3:0.5\n-1 2:2 # comment\n\n-1\n1 1:1\n0 4:-1\n")
    testing.write_text("-1 2:1\n")
    rows, labels = read_libsvm(training)
    wanted = [[1, 0, 0.5, 0], [0, 2, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1]]
    np.testing.assert_array_equal(rows, wanted)
    np.testing.assert_array_equal(labels, [1, -1, -1, 1, 0])
    assert rows.dtype == labels.dtype == np.float32
    parts = signed_parts(training, str(testing))
    np.testing.assert_array_equal(parts.train[1], [-1, 0, -2, 0, 0])
    np.testing.assert_array_equal(parts.validation, [[-1, 0, 0, 0, 1]])
    np.testing.assert_array_equal(parts.test, [[-1, 0, -1, 0, 0]])


@pytest.mark.parametrize("line", ["1 a:1", "1 2", "x 1:1", "1 0:1", "1 -1:2"])
def test_bad_lines_are_named(tmp_path, line):
    path = tmp_path / "bad.txt"
    path.write_text(f"1 1:1\n{line}\n")
    with pytest.raises(ValueError, match=r"bad\.txt, line 2: "):
        read_libsvm(path)


def test_a_file_without_examples_is_named(tmp_path):
    path = tmp_path / "empty.txt"
    path.write_text("\n# nothing\n")
    with pytest.raises(ValueError, match=r"empty\.txt holds no examples"):
        read_libsvm(path)


@pytest.mark.parametrize("name", ["training", "testing"])
def test_bad_sources_are_named(tmp_path, name):
    good = {"training": TRAINING, "testing": TESTING}
    with pytest.raises(FileNotFoundError, match=f"^{name} must be a file .*nowhere"):
        reweighted_logistic(**good | {name: tmp_path / "nowhere"})
    with pytest.raises(ValueError, match=f"^{name} must be rows "):
        reweighted_logistic(**good | {name: (np.zeros((5, 2)), np.zeros(4))})


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_blocks", 0), ("num_sampled", 7), ("batch_size", 2.5), ("ridge", 0)],
)
def test_bad_arguments_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must "):
        small(**{name: value})
    with pytest.raises(ValueError, match=r"^training must hold at least 5 examples"):
        reweighted_logistic(examples(4, 0), TESTING)
