"""The log-partition function: closed forms against integrals and Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats

from stochopt.problems import log_partition

key = jax.random.key

OPTIONS = {
    "default": {},
    "other": {
        "mean": -0.7,
        "noise_mean": 0.4,
        "noise_variance": 2.0,
        "num_noise": 3,
        "num_data": 5,
    },
}
DEFAULTS = {
    "mean": 1.5,
    "noise_mean": 0.0,
    "noise_variance": 3.0,
    "num_noise": 8,
    "num_data": 8,
}
# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
GAUSSIAN = {name: log_partition(**options) for name, options in OPTIONS.items()}
each_problem = pytest.mark.parametrize("name", OPTIONS)


def integral(function):
    return scipy.integrate.quad(lambda x: float(np.exp(function(x))), -40, 40, limit=200)[0]


def log_normalizer(problem, theta):
    density = jax.jit(problem.log_density)
    return np.log(integral(lambda x: density(theta, x)))


@each_problem
def test_densities_by_integration(x64, name):
    problem = GAUSSIAN[name]
    options = {**DEFAULTS, **OPTIONS[name]}
    noise, density = jax.jit(problem.log_noise_density), jax.jit(problem.log_density)
    assert integral(noise) == pytest.approx(1, rel=1e-9)
    for theta in (-1.0, 0.3, 1.5):
        exact = problem.exact["inner"](jnp.asarray(theta))
        np.testing.assert_allclose(exact, log_normalizer(problem, theta), rtol=1e-9)
        second = integral(lambda x, theta=theta: 2 * density(theta, x) - noise(x))
        variance = options["noise_variance"]
        exponent = (theta - options["noise_mean"]) ** 2 / (2 * variance - 1)
        stated = variance / np.sqrt(2 * variance - 1) * np.exp(exponent)
        np.testing.assert_allclose(second / np.exp(2 * exact), stated, rtol=1e-8)


@each_problem
def test_samples_have_the_stated_distributions(name):
    problem = log_partition(**OPTIONS[name])
    options = {**DEFAULTS, **OPTIONS[name]}
    data, noise = jax.vmap(problem.sample)(jax.random.split(key(0), 1000))
    assert data.shape == (1000, options["num_data"])
    assert noise.shape == (1000, options["num_noise"])
    of_noise = scipy.stats.norm(options["noise_mean"], np.sqrt(options["noise_variance"]))
    alone = jax.vmap(problem.sample_noise)(jax.random.split(key(1), 3000))
    for drawn, law in (
        (data, scipy.stats.norm(options["mean"], 1)),
        (noise, of_noise),
        (alone, of_noise),
    ):
        assert scipy.stats.kstest(np.ravel(drawn), law.cdf).pvalue > 1e-3


@each_problem
def test_mean_ratio_and_gradient_by_monte_carlo(x64, name):
    problem, draws = GAUSSIAN[name], 20_000
    theta = jnp.asarray(0.6)

    def estimate(k):
        first, second = jax.random.split(k)
        value, pullback = jax.vjp(lambda t: problem.inner(t, problem.sample(first)), theta)
        exact = problem.exact["inner"](theta)
        slopes = jax.grad(problem.outer, argnums=(0, 1))(exact, theta, problem.sample(second))
        ratio = jnp.exp(value - exact)
        return ratio, slopes[0] * ratio * pullback(1.0)[0] + slopes[1]

    ratios, slopes = jax.jit(jax.vmap(estimate))(jax.random.split(key(0), draws))
    assert abs(ratios.mean() - 1) < 5 * ratios.std() / np.sqrt(draws)
    deviation = slopes.mean() - problem.exact["gradient"](theta)
    assert abs(deviation) < 5 * slopes.std() / np.sqrt(draws)
    assert slopes.std() / np.sqrt(draws) < 0.02


@each_problem
def test_metrics_and_gradient_are_those_of_the_objective(x64, name):
    problem = GAUSSIAN[name]
    mean = {**DEFAULTS, **OPTIONS[name]}["mean"]
    function = lambda theta: log_normalizer(problem, theta) - theta * mean
    found = scipy.optimize.minimize_scalar(function, bounds=(-4, 4), method="bounded").x
    np.testing.assert_allclose(problem.optimum, found, atol=1e-5)
    for theta in (-1.0, 0.3, 1.2):
        metrics = problem.metrics(jnp.asarray(theta))
        gap = function(theta) - function(mean)
        np.testing.assert_allclose(metrics["gap"], gap, rtol=1e-8)
        np.testing.assert_allclose(metrics["squared_distance"], (theta - mean) ** 2, rtol=1e-12)
        slope = (function(theta + 1e-4) - function(theta - 1e-4)) / 2e-4
        found = problem.exact["gradient"](jnp.asarray(theta))
        np.testing.assert_allclose(found, slope, rtol=1e-6)


@each_problem
def test_naive_gradient_settles_where_stated(x64, name):
    # By Monte Carlo: its mean vanishes there, and not at the optimum.
    problem = GAUSSIAN[name]
    (level,) = problem.levels.values()
    away = np.sign(problem.optimum) * np.sqrt(2 * level)
    keys = jax.random.split(key(1), 100_000)
    slopes = jax.jit(
        jax.vmap(lambda x, k: jax.grad(problem.loss)(x, problem.sample(k)), in_axes=(None, 0))
    )
    deviations = []
    for point in (problem.optimum + away, problem.optimum):
        drawn = slopes(jnp.asarray(point), keys)
        deviations.append(float(np.abs(drawn.mean()) / drawn.std() * np.sqrt(len(keys))))
    assert deviations[0] < 5
    assert deviations[1] > 20


def test_naive_gradient_runs_to_the_bound_with_narrow_noise():
    # The largest of eight points of N(0, 1) has mean 1.42 < 1.5: nothing holds theta back.
    (level,) = log_partition(noise_variance=1.0).levels.values()
    assert level == pytest.approx((4 - 1.5) ** 2 / 2, rel=1e-3)


@each_problem
def test_logarithm_of_a_mean_is_that_of_the_points(x64, name):
    problem = GAUSSIAN[name]
    data, noise = problem.sample(key(0))
    theta = jnp.asarray(0.4)
    ratios = [np.exp(problem.log_density(theta, z) - problem.log_noise_density(z)) for z in noise]
    np.testing.assert_allclose(problem.inner(theta, (data, noise)), np.log(np.mean(ratios)))
    fit = np.mean([problem.log_density(theta, x) for x in data])
    np.testing.assert_allclose(problem.outer(2.0, theta, (data, noise)), 2 - fit)


@pytest.mark.parametrize(
    "options",
    [
        {"mean": 4.0},
        {"noise_mean": np.inf},
        {"noise_variance": 0.5},
        {"num_noise": 0},
        {"num_data": 0},
    ],
)
def test_bad_arguments_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} must "):
        log_partition(**options)
