"""Problems: closed forms against independent solvers, oracles, batches, data as documented."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from sklearn.datasets import load_digits

from stochopt.problems import (
    ORACLES,
    PROBLEMS,
    Problem,
    logistic,
    quadratic_composition,
)
from stochopt.problems.digits import BATCH_SIZE, convolve_by_product

MADE = {name: factory() for name, factory in PROBLEMS.items()}
each_problem = pytest.mark.parametrize("name", PROBLEMS)


def key(seed):
    return jax.random.key(seed)


@functools.cache
def initial(name, seed=0):
    """A starting point; compiled once a problem, as a network is built inside."""
    return compiled_init(name)(key(seed))


@functools.cache
def compiled_init(name):
    return jax.jit(MADE[name].init)


# The contract of every problem.


@each_problem
def test_name_and_summary(name):
    problem = MADE[name]
    assert problem.name == name
    assert problem.summary
    assert problem.missing(("loss",)) == []
    assert set(problem.missing(ORACLES)) <= {"inner", "outer"}
    assert (problem.inner is None) == (problem.outer is None) == (problem.inner_shape is None)


@each_problem
def test_oracles_and_metrics_are_finite_scalars(name):
    problem = MADE[name]

    @jax.jit
    def everything(params, k):
        batch = problem.sample(k)
        value, g = jax.value_and_grad(problem.loss)(params, batch)
        return g, value, problem.metrics(params)

    params = initial(name)
    g, value, metrics = everything(params, key(0))
    assert jax.tree.map(jnp.shape, g) == jax.tree.map(jnp.shape, params)
    assert value.shape == ()
    assert optax.tree.norm(g) > 0
    wanted = {problem.objective, problem.score} - {None}
    assert wanted <= set(metrics)
    for metric in metrics.values():
        assert metric.shape == ()
        assert metric.dtype == jnp.float32
        assert np.isfinite(metric)


@each_problem
def test_batches_are_a_function_of_the_key(name):
    problem = MADE[name]
    sample = jax.jit(problem.sample)
    first, again, other = sample(key(1)), sample(key(1)), sample(key(2))
    eager = problem.sample(key(1))
    for a, b, c, d in zip(*map(jax.tree.leaves, (first, again, other, eager)), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, d)
        assert not np.array_equal(a, c)


@pytest.mark.parametrize("name", ["digits", "digits-cnn", "friedman"])
def test_starting_points_are_a_function_of_the_key(name):
    init = compiled_init(name)
    first, again, other = init(key(1)), init(key(1)), init(key(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert optax.tree.norm(optax.tree.sub(first, other)) > 1e-3


@each_problem
def test_problems_cannot_be_changed(name):
    with pytest.raises(AttributeError):
        MADE[name].name = "other"


def test_missing_oracles_are_listed_in_order():
    problem = Problem(
        name="n",
        summary="s",
        init=lambda k: 0.0,
        sample=lambda k: 0.0,
        metrics=lambda p: {},
        objective="o",
        outer=lambda u, p, b: u,
    )
    assert problem.missing(("inner", "outer", "loss")) == ["inner", "loss"]
    assert problem.inner_shape is None


# The quadratic composition.

OPTIONS = {
    "default": {},
    "other": {
        "dimension": 3,
        "inner_dimension": 4,
        "matrix_noise": 0.8,
        "vector_noise": 0.3,
        "ridge": 0.5,
        "seed": 7,
    },
}
QUADRATIC = {name: quadratic_composition(**options) for name, options in OPTIONS.items()}
each_quadratic = pytest.mark.parametrize("name", OPTIONS)


def quiet(problem):
    """The batch without noise, at which the inner function is its own mean."""
    return optax.tree.zeros_like(problem.sample(key(0)))


def objective(problem):
    batch = quiet(problem)
    return jax.jit(lambda x: problem.outer(problem.inner(x, batch), x, batch))


def minimize(function, gradient, size):
    result = scipy.optimize.minimize(
        lambda x: float(function(x)),
        np.ones(size),
        jac=lambda x: np.asarray(gradient(x), np.float64),
        method="BFGS",
        options={"gtol": 1e-9},
    )
    return result.x


@each_quadratic
def test_inner_function_is_unbiased_with_the_stated_noise(x64, name):
    problem = QUADRATIC[name]
    options = {"matrix_noise": 0.5, "vector_noise": 0.1, **OPTIONS[name]}
    x = jnp.linspace(-1, 1, len(problem.optimum))
    draw = jax.jit(jax.vmap(lambda k: problem.inner(x, problem.sample(k))))
    draws = draw(jax.random.split(key(0), 10_000))
    mean = problem.inner(x, quiet(problem))
    variance = options["matrix_noise"] ** 2 * jnp.sum(x**2) + options["vector_noise"] ** 2
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * np.sqrt(variance / 10_000))
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.1)
    correlation = np.corrcoef(draws.T) - np.eye(draws.shape[1])
    assert np.abs(correlation).max() < 0.05


@each_quadratic
def test_optimum_minimizes_the_objective(x64, name):
    problem = QUADRATIC[name]
    function = objective(problem)
    found = minimize(function, jax.grad(function), len(problem.optimum))
    np.testing.assert_allclose(found, problem.optimum, rtol=1e-6, atol=1e-8)


@each_quadratic
def test_metrics_measure_the_objective(x64, name):
    problem = QUADRATIC[name]
    function, rng = objective(problem), np.random.default_rng(0)
    for _ in range(3):
        x = rng.standard_normal(len(problem.optimum))
        metrics = problem.metrics(jnp.asarray(x))
        gap = function(x) - function(problem.optimum)
        np.testing.assert_allclose(metrics["gap"], gap, rtol=1e-9)
        distance = np.sum((x - problem.optimum) ** 2)
        np.testing.assert_allclose(metrics["squared_distance"], distance, rtol=1e-12)
        slope = scipy.optimize.approx_fprime(x, lambda x: float(function(x)), 1e-6)
        np.testing.assert_allclose(metrics["squared_gradient_norm"], slope @ slope, rtol=1e-4)
    at_optimum = problem.metrics(jnp.asarray(problem.optimum))
    assert all(abs(v) < 1e-20 for v in at_optimum.values())


@each_quadratic
def test_naive_gradient_settles_where_stated(x64, name):
    # The expected plug-in loss, by quadrature that is exact for a quadratic in the noise:
    # the mean over plus and minus sqrt(n) along each of the n coordinates of the noise.
    problem = QUADRATIC[name]
    zero = quiet(problem)
    flat, unflatten = jax.flatten_util.ravel_pytree(zero)
    nodes = np.sqrt(flat.size) * np.concatenate([np.eye(flat.size), -np.eye(flat.size)])
    batches = jax.vmap(unflatten)(jnp.asarray(nodes))
    mean_loss = jax.jit(lambda x: jnp.mean(jax.vmap(problem.loss, in_axes=(None, 0))(x, batches)))
    settled = minimize(mean_loss, jax.grad(mean_loss), len(problem.optimum))
    (level,) = problem.levels.values()
    np.testing.assert_allclose(problem.metrics(jnp.asarray(settled))["gap"], level, rtol=1e-6)
    assert level > 1e-3, "the bias is worth a line"
    # Monte Carlo, as a check of the quadrature: the mean naive gradient vanishes there, and not at
    # the optimum.
    keys = jax.random.split(key(1), 10_000)
    naive = lambda x, k: jax.grad(problem.loss)(x, problem.sample(k))
    slopes = jax.jit(jax.vmap(naive, in_axes=(None, 0)))
    deviations = []
    for point in (settled, problem.optimum):
        drawn = slopes(jnp.asarray(point), keys)
        deviations.append(np.abs(drawn.mean(0)) / drawn.std(0) * np.sqrt(len(keys)))
    assert np.all(deviations[0] < 5)
    assert np.any(deviations[1] > 8)


@each_quadratic
def test_without_matrix_noise_the_naive_gradient_is_unbiased(name):
    options = {**OPTIONS[name], "matrix_noise": 0.0}
    (level,) = quadratic_composition(**options).levels.values()
    assert level == pytest.approx(0, abs=1e-20)


def test_quadratic_shapes():
    problem = QUADRATIC["other"]
    matrix, vector = problem.sample(key(0))
    assert (matrix.shape, vector.shape) == ((4, 3), (4,))
    assert problem.inner_shape == jax.ShapeDtypeStruct((4,), jnp.float32)
    params = problem.init(key(0))
    np.testing.assert_array_equal(params, np.zeros(3))
    value = problem.inner(params, (matrix, vector))
    plug_in = problem.outer(value, params, (matrix, vector))
    assert problem.loss(params, (matrix, vector)) == plug_in
    other = quadratic_composition(seed=1)
    assert not np.allclose(other.optimum, QUADRATIC["default"].optimum)


# Logistic regression.


@pytest.fixture(scope="module")
def small_logistic():
    return logistic(num_features=5, num_examples=40, batch_size=3, decay=0.02)


def test_logistic_loss_is_the_formula(x64, small_logistic):
    signed = np.random.default_rng(0).standard_normal((4, 5))
    x = np.linspace(-2, 2, 5)
    expected = np.mean(np.log1p(np.exp(-signed @ x))) + 0.01 * x @ x
    found = small_logistic.loss(jnp.asarray(x), jnp.asarray(signed))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_logistic_gradient_equals_finite_differences(x64, small_logistic):
    batch = jnp.asarray(small_logistic.sample(key(0)), jnp.float64)
    function = jax.jit(lambda x: small_logistic.loss(x, batch))
    x = np.linspace(-1, 1, 5)
    assert (
        scipy.optimize.check_grad(
            lambda x: float(function(x)), lambda x: np.asarray(jax.grad(function)(x)), x
        )
        < 1e-6
    )


def test_logistic_data_follow_the_documented_recipe(x64, small_logistic):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, 5)) / np.sqrt(5)
    truth = rng.standard_normal(5)
    signs = rng.uniform(size=40)
    probability = 1 / (1 + np.exp(-rows @ truth * 4 * np.sqrt(5) / np.linalg.norm(truth)))
    labels = np.where(signs < probability, 1, -1)
    x = np.linspace(-1, 1, 5)
    expected = np.mean(np.log1p(np.exp(-labels * (rows @ x)))) + 0.01 * x @ x
    found = small_logistic.metrics(jnp.asarray(x))["train_loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_logistic_batches_average_to_the_whole(small_logistic):
    batch = small_logistic.sample(key(0))
    assert batch.shape == (3, 5)
    x = jnp.linspace(-1, 1, 5)
    losses = jax.jit(jax.vmap(lambda k: small_logistic.loss(x, small_logistic.sample(k))))(
        jax.random.split(key(0), 5000)
    )
    error = 5 * losses.std() / np.sqrt(5000)
    np.testing.assert_allclose(losses.mean(), small_logistic.metrics(x)["train_loss"], atol=error)


def test_logistic_defaults():
    problem = MADE["logistic"]
    assert problem.sample(key(0)).shape == (16, 1000)
    params = problem.init(key(0))
    assert params.shape == (1000,)
    np.testing.assert_allclose(problem.metrics(params)["train_loss"], np.log(2), rtol=1e-6)


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
