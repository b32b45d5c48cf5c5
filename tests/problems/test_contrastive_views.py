"""Contrastive views: the global losses against loops over all pairs, scipy and Monte Carlo."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from stochopt.compositional import sogclr
from stochopt.problems import contrastive_views, robust_contrastive_views

X = np.array([0.4, -0.7, 0.2])
TEMPERATURE, RADIUS, LOW, HIGH = 0.1, 0.7, 0.1, 0.7
KEYS = jax.random.split(jax.random.key(0), 40_000)


def all_features(problem, num_examples=12):
    """Unit features of all views, found by drawing; an example's views differ in their features."""
    indices, (first, second) = jax.jit(jax.vmap(problem.sample))(KEYS[:300])
    indices, views = np.repeat(indices.ravel(), 2), np.stack([first, second], axis=2)
    views = views.reshape(-1, X.size)
    features = np.stack([views @ X, np.ones(len(views))], axis=1)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return [np.unique(features[indices == i], axis=0) for i in range(num_examples)]


def term(features, i, temperature):
    """The loss of one example, by loops."""
    own = features[i]
    positive = np.mean([a @ b for a, b in itertools.product(own, own)])
    others = np.concatenate(features[:i] + features[i + 1 :])
    exponents = [a @ z / temperature for a, z in itertools.product(own, others)]
    return temperature * np.log(np.mean(np.exp(exponents))) - positive


def test_loss_is_the_mean_over_all_pairs_of_views(x64):
    problem = contrastive_views()
    features = all_features(problem)
    assert [len(own) for own in features] == [2] * 12
    wanted = np.mean([term(features, i, TEMPERATURE) for i in range(12)])
    np.testing.assert_allclose(problem.metrics(jnp.asarray(X))["loss"], wanted, rtol=1e-12)


def test_robust_loss_takes_the_best_temperature_of_each_example(x64):
    """scipy minimizes each term; catches a wrong sign of the slope and a forgotten radius."""
    problem = robust_contrastive_views(radius=RADIUS, min_temperature=LOW, max_temperature=HIGH)
    features = all_features(problem)
    best = [
        scipy.optimize.minimize_scalar(
            lambda t, i=i: term(features, i, t) + RADIUS * t,
            bounds=(LOW, HIGH),
            method="bounded",
            options={"xatol": 1e-10},
        )
        for i in range(12)
    ]
    x = jnp.asarray(X)
    temperatures = problem.exact["temperature"](x)
    assert LOW + 0.01 < np.max(temperatures) < HIGH - 0.01
    np.testing.assert_allclose(temperatures, [b.x for b in best], atol=2e-6)
    np.testing.assert_allclose(problem.metrics(x)["loss"], np.mean([b.fun for b in best]))


@pytest.mark.parametrize("make", [contrastive_views, robust_contrastive_views])
def test_gradient_matches_finite_differences(x64, make):
    problem = make()
    loss = lambda x: problem.metrics(jnp.asarray(x))["loss"]
    slopes = scipy.optimize.approx_fprime(X, loss, 1e-6)
    np.testing.assert_allclose(problem.exact["gradient"](jnp.asarray(X)), slopes, atol=2e-6)


def test_normalizers_are_expectations_over_batches(x64):
    """A batch's mean over its other examples is unbiased inside the logarithm, and not outside."""
    problem = contrastive_views()
    x = jnp.asarray(X)
    optimizer = sogclr(problem.embed, num_examples=12, temperature=TEMPERATURE, tracker_rate=1.0)

    @jax.jit
    @jax.vmap
    def sampled(key):
        indices, views = problem.sample(key)
        _, state = optimizer.update(None, optimizer.init(x), x, batch=views, block_indices=indices)
        coupled = state[0]
        return jnp.where(coupled.visited, coupled.tracked_value, jnp.nan)

    rows = np.asarray(sampled(KEYS))
    inner = problem.exact["inner"](x)
    count = np.sum(np.isfinite(rows), axis=0)
    error = np.nanstd(np.exp(rows), axis=0) / np.sqrt(count) / np.exp(inner)
    deviation = np.nanmean(np.exp(rows), axis=0) / np.exp(inner) - 1
    assert np.all(np.abs(deviation) < 4 * error)
    assert np.all(error < 0.02)
    assert np.mean(np.nanmean(rows, axis=0) - inner) < -0.05


def test_loss_of_a_batch_is_what_sogclr_without_memory_descends(x64):
    problem = contrastive_views()
    batch = problem.sample(jax.random.key(3))
    x = jnp.asarray(X)
    optimizer = sogclr(problem.embed, 1.0, num_examples=12, tracker_rate=1.0, direction_rate=1.0)
    step, _ = optimizer.update(None, optimizer.init(x), x, batch=batch[1], block_indices=batch[0])
    np.testing.assert_allclose(-step, jax.grad(problem.loss)(x, batch), rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "wrong", "name"),
    [
        (contrastive_views, {"num_examples": 0}, "num_examples"),
        (contrastive_views, {"num_sampled": 1}, "num_sampled"),
        (contrastive_views, {"num_sampled": 13}, "num_sampled"),
        (contrastive_views, {"num_views": 0}, "num_views"),
        (contrastive_views, {"dimension": 0}, "dimension"),
        (contrastive_views, {"spread": -1.0}, "spread"),
        (contrastive_views, {"temperature": 0.0}, "temperature"),
        (robust_contrastive_views, {"min_temperature": 0.0}, "min_temperature"),
        (robust_contrastive_views, {"max_temperature": 0.01}, "max_temperature"),
        (robust_contrastive_views, {"radius": -1.0}, "radius"),
    ],
)
def test_wrong_numbers_are_named(make, wrong, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        make(**wrong)
