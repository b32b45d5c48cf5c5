"""Weights of examples: the data, the lower solution, its gradient, and whether cleaning works."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stochopt.problems import hyper_cleaning
from stochopt.problems.digits import digits_data

key = jax.random.key

# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
PRECISE = hyper_cleaning()
WHOLE = np.arange(300, dtype=np.int32), np.arange(300, dtype=np.int32)
everywhere = pytest.mark.parametrize("scale", [0.0, 1.0, 5.0, 50.0])


def random_weights(scale, seed=0):
    return jnp.asarray(scale * np.random.default_rng(seed).standard_normal(300))


def examples(problem, part):
    """Rows and labels, read from the slopes of the oracles at zero, with full weight.

    The slope of a cross-entropy there is the row times the class probabilities less the label's
    indicator, one tenth everywhere but for the label.
    """
    full, zero = jnp.full(300, 100.0), jnp.zeros_like(problem.lower_params)

    def slope(index):
        batch = jnp.stack([index, index])[:, None]
        return jax.grad((problem.lower, problem.upper)[part], 1)(full, zero, batch)

    slopes = np.asarray(jax.jit(jax.vmap(slope))(jnp.arange(300)))
    biases = slopes[:, -1]
    labels = biases.argmin(1)
    np.testing.assert_allclose(biases, 0.1 - np.eye(10)[labels], atol=1e-6)
    other = (labels + 1) % 10
    return 10 * slopes[np.arange(300), :, other], labels


def test_parts_are_disjoint_and_half_of_the_training_labels_are_wrong():
    problem = hyper_cleaning()
    images, labels = digits_data()["train"]
    (train, given), (validation, validation_labels) = (examples(problem, part) for part in (0, 1))
    np.testing.assert_allclose(train.mean(0)[:-1], 0, atol=1e-6)
    np.testing.assert_array_equal(validation[:, -1].round(4), 1)
    # Rows are images less the mean of the training ones, which is that of all at first sight.
    nearest = lambda rows, mean: np.array(
        [np.square(row[:-1] + mean - images).sum(1).argmin() for row in rows]
    )
    origin = images[nearest(train, images.mean(0))].mean(0)
    of_train, of_validation = nearest(train, origin), nearest(validation, origin)
    np.testing.assert_allclose(train[:, :-1] + origin, images[of_train], atol=1e-5)
    np.testing.assert_allclose(validation[:, :-1] + origin, images[of_validation], atol=1e-5)
    assert len(np.unique(np.concatenate([of_train, of_validation]))) == 600
    np.testing.assert_array_equal(validation_labels, labels[of_validation])
    wrong = given != labels[of_train]
    assert wrong.sum() == 150
    # A wrong label is any other class.
    shifts = np.bincount((given - labels[of_train])[wrong] % 10, minlength=10)
    assert shifts[0] == 0
    assert np.all(shifts[1:] > 0)
    # The metrics know which ones.
    metrics = problem.metrics(jnp.where(wrong, -100.0, 100.0))
    assert (metrics["clean_weight"], metrics["wrong_weight"]) == (1, 0)


@everywhere
@pytest.mark.parametrize("decay", [1e-3, 1e-2, 1.0])
def test_lower_solution_is_stationary(x64, scale, decay):
    """The lower problem is strongly convex, so that the slope bounds the distance."""
    problem = PRECISE if decay == 1e-2 else hyper_cleaning(decay=decay)
    slope = jax.jit(lambda x: jax.grad(problem.lower, 1)(x, problem.exact["lower"](x), WHOLE))
    for seed in range(3):
        assert np.linalg.norm(slope(random_weights(scale, seed))) / decay < 1e-9


def test_lower_solution_in_single_precision():
    problem = hyper_cleaning(decay=1e-3)
    x = jnp.full(300, 10.0)  # all labels trusted, the hardest
    slope = jax.jit(jax.grad(problem.lower, 1))
    found = slope(x, problem.exact["lower"](x), WHOLE)
    assert np.linalg.norm(found) < 1e-6 * np.linalg.norm(slope(x, problem.lower_params, WHOLE))


@everywhere
def test_adjoint_solves_its_system(x64, scale):
    problem, x = PRECISE, random_weights(scale)

    @jax.jit
    def residual(x):
        w, p = problem.exact["lower"](x), problem.exact["adjoint"](x)
        slope = jax.grad(problem.upper, 1)(x, w, WHOLE)
        product = jax.jvp(lambda w: jax.grad(problem.lower, 1)(x, w, WHOLE), (w,), (p,))[1]
        return jnp.linalg.norm(product - slope), jnp.linalg.norm(slope)

    left, size = residual(x)
    assert left < 1e-12 * size


@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
def test_gradient_by_finite_differences(x64, scale):
    problem, x = PRECISE, random_weights(scale)
    objective = jax.jit(lambda x: problem.upper(x, problem.exact["lower"](x), WHOLE))
    np.testing.assert_allclose(problem.metrics(x)["validation_loss"], objective(x), rtol=1e-12)
    gradient = np.asarray(jax.jit(problem.exact["gradient"])(x))
    rng = np.random.default_rng(1)
    for direction in (*rng.standard_normal((5, 300)), gradient / np.linalg.norm(gradient)):
        slope = (objective(x + 1e-4 * direction) - objective(x - 1e-4 * direction)) / 2e-4
        np.testing.assert_allclose(gradient @ direction, slope, rtol=0, atol=1e-8)
    assert np.linalg.norm(gradient) > 1e-3
    # All of it comes through the lower problem.
    assert np.all(np.asarray(jax.grad(problem.upper)(x, problem.lower_params, WHOLE)) == 0)


def test_slopes_of_minibatches_are_unbiased(x64):
    problem, draws = PRECISE, 1000
    x, w = random_weights(1.0), problem.exact["lower"](jnp.zeros(300))

    def slopes(batch):
        of_lower = jax.grad(problem.lower, (0, 1))(x, w, batch)
        return of_lower, jax.grad(problem.upper, 1)(x, w, batch)

    many = jax.jit(lambda keys: jax.lax.map(lambda k: slopes(problem.sample(k)), keys))
    drawn = many(jax.random.split(key(2), draws))
    for found, exact in zip(*map(jax.tree.leaves, (drawn, slopes(WHOLE))), strict=True):
        error = np.std(found, axis=0) / np.sqrt(draws)
        deviation = np.mean(found, axis=0) - exact
        assert np.linalg.norm(exact) > 3 * np.linalg.norm(error), "it is told from zero"
        assert np.all(np.abs(deviation) < 6 * error + 1e-12)
        assert np.linalg.norm(deviation) < 1.5 * np.linalg.norm(error)


def test_a_batch():
    batch = jax.jit(jax.vmap(hyper_cleaning(batch_size=5).sample))(jax.random.split(key(0), 2000))
    for indices in batch:
        assert indices.shape == (2000, 5)
        assert indices.dtype == jnp.int32
        counts = np.bincount(np.ravel(indices), minlength=300)
        assert len(counts) == 300
        assert np.all(np.abs(counts - 10_000 / 300) < 5 * np.sqrt(10_000 / 300))
    assert not np.array_equal(*batch)


def wrong_labels(problem):
    """Which training labels are wrong: the weights that the metrics count as such."""
    slope = jax.grad(lambda x: problem.metrics(x)["wrong_weight"])(jnp.zeros(300))
    return np.asarray(slope) > 0


def test_level_is_the_objective_without_the_wrong_labels(x64):
    problem, wrong = PRECISE, wrong_labels(PRECISE)
    assert wrong.sum() == 150
    (level,) = problem.levels.values()
    metrics = problem.metrics(jnp.where(wrong, -40.0, 40.0))
    np.testing.assert_allclose(metrics["validation_loss"], level, rtol=1e-6)
    # It matters: at the start, half of the labels do harm.
    start = problem.metrics(problem.init(key(0)))
    assert start["validation_loss"] > level + 0.5
    assert start["test_accuracy"] < metrics["test_accuracy"] - 0.1


def test_metrics_of_the_test_part(x64):
    """From the images, not from what the problem keeps of them."""
    problem = PRECISE
    data = digits_data()
    rows, _ = examples(problem, 1)
    images, labels = data["train"]
    train, _ = examples(problem, 0)
    first = images[np.square(train[0, :-1] + images.mean(0) - images).sum(1).argmin()]
    mean = first - train[0, :-1]
    images, labels = data["test"]
    x = random_weights(1.0)
    w = np.asarray(problem.exact["lower"](x))
    logits = np.hstack([images - mean, np.ones((len(images), 1))]) @ w
    found = problem.metrics(x)
    accuracy = np.mean(logits.argmax(1) == labels)
    np.testing.assert_allclose(found["test_accuracy"], accuracy, rtol=1e-6)
    losses = -jax.nn.log_softmax(logits)[np.arange(len(labels)), labels]
    np.testing.assert_allclose(found["test_loss"], losses.mean(), rtol=1e-5)
    predicted = (rows @ w).argmax(1)
    accuracy = np.mean(predicted == examples(problem, 1)[1])
    np.testing.assert_allclose(found["validation_accuracy"], accuracy, rtol=1e-6)


def test_descent_finds_the_wrong_labels():
    problem = hyper_cleaning()
    optimizer = optax.adam(0.1)

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(problem.exact["gradient"](x), state)
        return (optax.apply_updates(x, updates), state), None

    start = problem.init(key(0))
    run = jax.jit(lambda x: jax.lax.scan(step, (x, optimizer.init(x)), None, length=100)[0][0])
    found = run(start)
    metrics = jax.jit(problem.metrics)(found)
    assert metrics["validation_loss"] < next(iter(problem.levels.values()))
    assert metrics["clean_weight"] > 0.85
    assert metrics["wrong_weight"] < 0.15
    assert metrics["test_accuracy"] > 0.85


def test_without_corruption_there_are_no_wrong_labels():
    problem = hyper_cleaning(corruption=0.0, num_train=100, num_validation=50)
    metrics = problem.metrics(problem.init(key(0)))
    assert metrics["wrong_weight"] == 0
    assert metrics["clean_weight"] == 0.5


def test_seeds_draw_another_split():
    start = hyper_cleaning().init(key(0))
    values = [hyper_cleaning(seed=seed).metrics(start)["validation_loss"] for seed in (0, 1)]
    assert abs(values[0] - values[1]) > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        *[{name: 0} for name in ("num_train", "num_validation", "batch_size")],
        *[{"corruption": value} for value in (-0.1, 1.0)],
        *[{"decay": value} for value in (0.0, 1e-4)],
        {"num_train": 1138},
    ],
)
def test_bad_arguments_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must "):
        hyper_cleaning(**options)
