"""The newsvendor: demands, loss, and the best decisions against optimization on samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats

from stochopt.problems.causal import (
    causal_newsvendor,
    newsvendor_data,
    newsvendor_loss,
    newsvendor_oracle,
)

key = jax.random.key
draw = jax.jit(newsvendor_data, static_argnames=("num_train", "num_test", "dimension"))


def softplus(u):
    return np.logaddexp(0, 5 * u) / 5


def test_loss(x64):
    z, y = np.array([1.0, 2.0]), np.array([3.0, 1.5])
    expected = np.sum(0.6 * softplus(z - y) + softplus(y - z))
    np.testing.assert_allclose(newsvendor_loss(jnp.asarray(z), jnp.asarray(y)), expected)
    with pytest.raises(ValueError, match="a decision"):
        newsvendor_loss(jnp.zeros(3), jnp.zeros((3, 1)))


def expected_loss(z, location, noise):
    density = scipy.stats.truncnorm(-location / noise, np.inf, location, noise).pdf
    integrand = lambda y: (0.6 * softplus(z - y) + softplus(y - z)) * density(y)
    low = max(location - 9 * noise, 0)
    return scipy.integrate.quad(integrand, low, location + 9 * noise, points=[z], limit=200)[0]


@pytest.mark.parametrize(("location", "noise"), [(0.0, 1.0), (1.3, 1.0), (5.0, 1.0), (2.0, 1.5)])
def test_best_decisions_minimize_the_expected_loss(location, noise):
    at = lambda z: expected_loss(z, location, noise)
    found = scipy.optimize.minimize_scalar(
        at, bounds=(-1, 9), method="bounded", options={"xatol": 1e-7}
    )
    decision, loss = newsvendor_oracle(location, noise)
    np.testing.assert_allclose(decision, found.x, atol=1e-4)
    np.testing.assert_allclose(loss, found.fun, rtol=1e-6)


def test_floor_far_from_truncation():
    """0.6450, above 1.6 phi(Phi^-1(1 / 1.6)) = 0.6067 of the loss without smoothing."""
    assert newsvendor_oracle(6.5)[1] == pytest.approx(0.6450, abs=5e-5)
    quantile = scipy.stats.norm.ppf(1 / 1.6)
    assert 1.6 * scipy.stats.norm.pdf(quantile) == pytest.approx(0.6067, abs=5e-5)


def test_demands(x64):
    data = draw(key(0), num_train=60_000, num_test=40_000, dimension=3)
    assert np.all(data.outcomes > 0)
    x = np.asarray(data.features)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(x.std(0), 1, rtol=1e-12)
    # Rejection hardly bends the correlations where demands are far from zero.
    places = np.arange(3)
    expected = 0.5 ** np.abs(places[:, None] - places)
    np.testing.assert_allclose(np.corrcoef(x.T), expected, atol=0.02)
    # Given the location, the demand is a truncated normal variable.
    location, y = np.asarray(data.test_location), np.asarray(data.test_outcomes)[:, 0]
    uniform = scipy.stats.truncnorm(-location, np.inf, location).cdf(y)
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert np.corrcoef(uniform, location)[0, 1] == pytest.approx(0, abs=0.02)


def test_location_is_the_function_of_a_hidden_index(x64):
    """A quadratic form of the features explains what the index explains: a peak of 5.1 at zero."""
    data = draw(key(1), num_train=10, num_test=5_000, dimension=2)
    location = np.asarray(data.test_location)
    assert location.max() == pytest.approx(5.1, abs=0.1)
    x = np.asarray(data.test_features)

    def misfit(parameters):
        s = x @ parameters[:2] + parameters[2]
        return 1.7 * (np.sin(2 * s) + 2 * np.exp(-16 * s**2) + 1) - location

    starts = [np.array([a, b, 0.0]) for a in (-0.05, 0.05) for b in (-0.05, 0.05)]
    fits = [scipy.optimize.least_squares(misfit, start) for start in starts]
    assert min(fit.cost for fit in fits) < 1e-12


def test_shifts_of_the_test_set_leave_the_training_set_alone():
    make = lambda shift, scale, noise: draw(
        key(2), 50, 20_000, 4, test_shift=shift, test_scale=scale, test_noise=noise
    )
    plain, shifted, noisy = make(0.0, 1.0, 1.0), make(1.0, 2.0, 1.0), make(0.0, 1.0, 2.0)
    for other in (shifted, noisy):
        np.testing.assert_array_equal(plain.features, other.features)
        np.testing.assert_array_equal(plain.outcomes, other.outcomes)
    ratio = np.std(shifted.test_features, axis=0) / np.std(plain.test_features, axis=0)
    np.testing.assert_allclose(ratio, 2, rtol=0.05)
    assert np.all(np.mean(shifted.test_features, axis=0) > 0.5)
    residual = lambda data: np.std(data.test_outcomes[:, 0] - data.test_location)
    assert residual(noisy) > 1.4 * residual(plain)


def test_no_rule_beats_the_floor(x64):
    data = draw(key(3), 10, 20_000, 4)
    decision, floor = newsvendor_oracle(data.test_location)
    losses = lambda z: np.asarray(
        jax.vmap(newsvendor_loss)(jnp.asarray(z)[:, None], data.test_outcomes)
    )
    best = losses(decision)
    assert abs(best.mean() - floor.mean()) < 4 * best.std() / np.sqrt(len(best))
    for wrong in (decision + 0.3, decision - 0.3, np.full(len(decision), np.median(decision))):
        difference = losses(wrong) - best
        assert difference.mean() > 4 * difference.std() / np.sqrt(len(best))


def test_the_problem():
    problem = causal_newsvendor(num_train=30, dimension=4, num_sampled=8, batch_size=2)
    params, batch = jax.jit(lambda k: (problem.init(k), problem.sample(k)))(key(0))
    assert problem.name == "causal-newsvendor"
    assert problem.num_blocks == 30
    assert params["leaves"].shape == (8, 20, 1)
    assert np.isfinite(jax.jit(problem.loss)(params, batch))
    metrics = jax.jit(problem.metrics)(params)
    assert metrics["robust_loss"] > metrics["train_loss"] > 0.645, "the start orders nothing"
