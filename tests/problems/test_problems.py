"""The contract of every problem: oracles, batches, metrics, exact quantities and constants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stochopt.problems import PROBLEMS, Problem, logistic

MADE = {name: factory() for name, factory in PROBLEMS.items()}
each_problem = pytest.mark.parametrize("name", PROBLEMS)


def having(field, but=()):
    """Decorator: one test for each problem whose ``field`` is known."""
    names = [name for name in PROBLEMS if getattr(MADE[name], field) and name not in but]
    return pytest.mark.parametrize("name", names)


def key(seed):
    return jax.random.key(seed)


@functools.cache
def initial(name, seed=0):
    """A starting point; compiled once a problem, as a network is built inside."""
    return compiled_init(name)(key(seed))


@functools.cache
def compiled_init(name):
    return jax.jit(MADE[name].init)


@functools.cache
def precise(name):
    """A second instance for double precision: JAX keeps a problem's arrays in one precision."""
    if name == "logistic":  # a small one, for time
        return logistic(num_features=30, num_examples=200)
    return PROBLEMS[name]()


# The contract of every problem.


COMPOSITE = tuple(name for name in PROBLEMS if MADE[name].smooth)
ON_A_SET = tuple(name for name in PROBLEMS if MADE[name].linear_minimizer)


@each_problem
def test_name_and_summary(name):
    problem = MADE[name]
    assert problem.name == name
    assert problem.summary
    assert problem.loss or problem.upper
    assert (problem.upper is None) == (problem.lower is None) == (problem.lower_params is None)
    assert (problem.inner is None) == (problem.outer is None) == (problem.inner_shape is None)
    assert (problem.num_blocks is None) == (problem.blocks is None)
    assert (problem.num_samples is None) == (problem.sample_indices is None)
    assert (problem.smooth is None) == (problem.prox is None)
    others = (problem.nonsmooth, problem.cheap, problem.full_smooth)
    assert (problem.smooth is not None) == any(others)
    assert (problem.operator is None) == (problem.dual is None)
    assert (problem.full_loss is None) == (problem.num_batches is None)
    assert (problem.full_unregularized is None) == (problem.full_loss is None)
    assert (problem.partition is None) == (problem.block_smoothness is None)
    assert (problem.predict is None) == (problem.target_loss is None)
    of_density = ("log_density", "log_noise_density", "sample_noise")
    assert problem.missing(of_density) in ([], list(of_density))


def assert_value_and_slope(value_and_slope, at):
    value, slope = value_and_slope
    assert value.shape == ()
    assert np.isfinite(value)
    assert jax.tree.map(jnp.shape, slope) == jax.tree.map(jnp.shape, at)
    assert optax.tree.norm(slope) > 0


@having("loss")
def test_loss_is_a_finite_scalar_with_a_slope(name):
    problem, params = MADE[name], initial(name)
    loss = lambda params, k: problem.loss(params, problem.sample(k))
    assert_value_and_slope(jax.jit(jax.value_and_grad(loss))(params, key(0)), params)


@having("upper")
def test_upper_and_lower_are_finite_scalars_with_slopes(name):
    problem, params = MADE[name], initial(name)

    @jax.jit
    def everything(params, lower_params, k):
        batch = problem.sample(k)
        if problem.blocks is not None:
            batch = jax.tree.map(lambda x: x[0], problem.blocks(batch)[1])
        # Away from the start, where some slopes may vanish.
        at = jax.tree.map(lambda x: x + 0.3, (params, lower_params))
        return [
            jax.value_and_grad(oracle, argnums)(*at, batch)
            for oracle in (problem.upper, problem.lower)
            for argnums in (0, 1)
        ]

    of_upper, of_upper_in_lower, of_lower, of_lower_in_lower = everything(
        params, problem.lower_params, key(0)
    )
    assert_value_and_slope(of_upper_in_lower, problem.lower_params)
    assert_value_and_slope(of_lower, params)
    assert_value_and_slope(of_lower_in_lower, problem.lower_params)
    # Its params may only matter through the lower variable.
    assert jax.tree.map(jnp.shape, of_upper[1]) == jax.tree.map(jnp.shape, params)


@each_problem
def test_metrics_are_finite_scalars(name):
    problem = MADE[name]
    metrics = jax.jit(problem.metrics)(initial(name))
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
        np.testing.assert_allclose(a, d, rtol=3e-7)  # a product may be rounded once less
        assert not np.array_equal(a, c)


@pytest.mark.parametrize("name", ["digits", "digits-cnn", "friedman", "text"])
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


# What is known exactly, in double precision.

UNBIASED = having(
    "exact",
    but=[name for name, p in MADE.items() if p.inner or p.embed or not p.loss or p.noise is None],
)
DRAWS = 4000


@functools.cache
def drawn_gradients(name):
    """Function of a point and a key: many gradients of the loss, flat, one a row."""
    problem = precise(name)

    @jax.jit
    def draw(x, k):
        slope = lambda k: jnp.ravel(jax.grad(problem.loss)(x, problem.sample(k)))
        return jax.lax.map(slope, jax.random.split(k, DRAWS), batch_size=200)

    return lambda x, k: np.asarray(draw(jnp.asarray(x), k))


def exact_slope(problem):
    """The gradient; of a composite problem a subgradient, nearly everywhere the gradient."""
    return problem.exact.get("gradient", problem.exact.get("subgradient"))


@functools.cache
def exact_gradients(name):
    return jax.jit(jax.vmap(precise(name).exact["gradient"]))


def near_start(name, seed=0):
    start = precise(name).init(key(0))
    return start + 0.3 * np.random.default_rng(seed).standard_normal(start.shape)


@having("exact")
def test_exact_gradient_has_the_form_of_the_params(name):
    params = initial(name)
    found = exact_slope(MADE[name])(params)
    assert (found.shape, found.dtype) == (params.shape, params.dtype)


@having("exact")
def test_exact_gradient_is_that_of_the_objective(x64, name):
    problem, x = precise(name), near_start(name)
    slope = jax.grad(lambda x: problem.metrics(x)[problem.objective])(jnp.asarray(x))
    found = exact_slope(problem)(x)
    np.testing.assert_allclose(found, slope, rtol=1e-9, atol=1e-12)


@UNBIASED
def test_gradients_of_the_loss_scatter_around_the_exact_one_as_stated(x64, name):
    problem, draw = precise(name), drawn_gradients(name)
    exact = lambda x: np.ravel(exact_slope(problem)(jnp.asarray(x)))
    x = near_start(name)
    drawn = draw(x, key(0))
    error = drawn.std(0) / np.sqrt(DRAWS)
    assert np.linalg.norm(exact(x)) > 5 * np.linalg.norm(error), "it is told from zero"
    deviation = drawn.mean(0) - exact(x)
    assert np.all(np.abs(deviation) < 5 * error)
    assert np.linalg.norm(deviation) < 2.5 * np.linalg.norm(error)
    # Of these the noise is stated at the optimum; elsewhere it is the same anywhere.
    x = problem.optimum if name in ("logistic", "noisy-squares") else x + 1
    errors = draw(x, key(1)) - exact(x)
    found = np.sqrt(np.mean(np.sum(errors**2, axis=1)))
    np.testing.assert_allclose(problem.noise, found, rtol=0.05)


@functools.cache
def extreme_directions(name, steepest):
    """Points with the direction in which the exact gradient changes most, or least, there.

    By power iteration at the start, at the optimum, and far away, where a logistic loss is flat.
    """
    problem = precise(name)
    slope = problem.exact["gradient"]

    @jax.jit
    def iterate(x, v):
        def step(_, v):
            bend = jax.jvp(slope, (x,), (v,))[1]
            v = bend if steepest else 1.01 * problem.smoothness * v - bend  # never zero
            return v / jnp.linalg.norm(v)

        return jax.lax.fori_loop(0, 1000, step, v)

    start = problem.init(key(0))
    # A seed of its own: the problems' data come from seed 0, and may be orthogonal to the rest.
    v, far = np.random.default_rng(123).standard_normal((2, *start.shape))
    points = [start, jnp.asarray(problem.optimum), jnp.asarray(1e3 * far)]
    return [(np.asarray(x), np.asarray(iterate(x, v))) for x in points]


def differences(name, steepest):
    """Differences of points and of their exact gradients, flat, one a row.

    The pairs of points are near and far, and at last along the extreme directions.
    """
    optimum = np.asarray(precise(name).optimum)
    rng = np.random.default_rng(0)
    shape, scales = (60, *optimum.shape), (60,) + (1,) * optimum.ndim
    x = optimum + rng.choice([0.1, 1.0, 10.0], scales) * rng.standard_normal(shape)
    y = x + rng.choice([1e-2, 1.0, 10.0], scales) * rng.standard_normal(shape)
    points, directions = map(np.stack, zip(*extreme_directions(name, steepest), strict=True))
    x, y = np.concatenate([x, points]), np.concatenate([y, points + 0.01 * directions])
    slopes = exact_gradients(name)
    change = np.asarray(slopes(x)) - np.asarray(slopes(y))
    return (x - y).reshape(len(x), -1), change.reshape(len(x), -1)


@having(
    "smoothness", but=[*COMPOSITE, *ON_A_SET, *(n for n in PROBLEMS if MADE[n].optimum is None)]
)
def test_smoothness_is_the_least_lipschitz_constant_of_the_gradient(x64, name):
    steps, changes = differences(name, steepest=True)
    ratios = np.linalg.norm(changes, axis=1) / np.linalg.norm(steps, axis=1)
    smoothness = precise(name).smoothness
    assert ratios.max() <= smoothness * (1 + 1e-9)
    assert ratios.max() >= 0.9 * smoothness


@having("strong_convexity", but=("polyak-lojasiewicz", *COMPOSITE, *ON_A_SET))
def test_strong_convexity_bounds_the_curvature_from_below(x64, name):
    steps, changes = differences(name, steepest=False)
    ratios = np.sum(changes * steps, axis=1) / np.sum(steps**2, axis=1)
    mu = precise(name).strong_convexity
    assert ratios.min() >= mu * (1 - 1e-9)
    assert ratios.min() <= mu * 1.1


@having("exact", but=[*COMPOSITE, *ON_A_SET, *(n for n in PROBLEMS if MADE[n].optimum is None)])
def test_exact_gradient_vanishes_at_the_optimum(x64, name):
    found = precise(name).exact["gradient"](jnp.asarray(precise(name).optimum))
    assert np.linalg.norm(np.ravel(found)) < 1e-9


@having("linear_minimizer")
def test_the_optimum_on_a_set_is_where_no_direction_leads_down(x64, name):
    """And in the set: a mean of values of the linear minimizer."""
    problem, optimum = precise(name), jnp.asarray(precise(name).optimum)
    slope = exact_slope(problem)(optimum)
    assert np.vdot(slope, optimum - problem.linear_minimizer(slope)) < 1e-12
    for direction in np.random.default_rng(0).standard_normal((50, *optimum.shape)):
        assert np.vdot(direction, problem.linear_minimizer(direction) - optimum) <= 1e-12


OPTIMUM_KNOWN = [name for name in PROBLEMS if MADE[name].optimum is not None]


@pytest.mark.parametrize("name", OPTIMUM_KNOWN)
def test_no_point_is_better_than_the_optimum(x64, name):
    problem = precise(name)
    objective = jax.jit(jax.vmap(lambda x: problem.metrics(x)[problem.objective]))
    rng = np.random.default_rng(0)
    shape = np.shape(problem.optimum)
    scales = np.repeat([1e-3, 0.1, 1.0, 10.0], 50).reshape(200, *(1,) * len(shape))
    around = problem.optimum + scales * rng.standard_normal((200, *shape))
    if name in ON_A_SET:  # between the optimum and points of the set
        vertices = np.stack([problem.linear_minimizer(x) for x in around])
        around = problem.optimum + np.minimum(scales, 1) * (vertices - problem.optimum)
    values = np.asarray(objective(np.concatenate([problem.optimum[None], around])))
    assert np.all(values[1:] > values[0])
    if problem.objective == "gap":
        assert abs(values[0]) < 1e-12
