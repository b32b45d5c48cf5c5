"""The coupled problem against formulas; kernels; limits of the temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stochopt.compositional import estimate_coupled, log_moving_average
from stochopt.problems.causal import (
    causal_portfolio,
    causal_sdro,
    gaussian_kernel,
    laplace_kernel,
    mean_variance_loss,
)

key = jax.random.key
rng = np.random.default_rng(0)
FEATURES, OUTCOMES = rng.standard_normal((12, 3)), rng.standard_normal((12, 2))
MULTIPLIER, REGULARIZATION = 3.0, 0.2
TEMPERATURE = MULTIPLIER * REGULARIZATION
SLOPES = np.array([0.7, -0.4])


def linear_rule():
    return (lambda key: jnp.zeros((3, 2)), lambda params, x: x @ params)


def linear_loss(decision, outcome):
    return jnp.dot(jnp.asarray(SLOPES, decision.dtype), decision - outcome)


def squared_loss(decision, outcome):
    return jnp.sum(jnp.square(decision - outcome))


def problem(loss=squared_loss, **options):
    options = {
        "multiplier": MULTIPLIER,
        "regularization": REGULARIZATION,
        "rule": linear_rule(),
        "num_sampled": 5,
        "batch_size": 6,
        **options,
    }
    return causal_sdro(FEATURES, OUTCOMES, loss, **options)


PARAMS = rng.standard_normal((3, 2)) / 3


@pytest.mark.parametrize(
    ("kernel", "variance", "kurtosis"),
    [(gaussian_kernel, 0.3 / 2, 3), (laplace_kernel, 2 * 0.3**2, 6)],
)
def test_moments_of_the_kernels(kernel, variance, kurtosis):
    draws = np.asarray(kernel(key(0), (400_000,), 0.3), np.float64)
    assert abs(draws.mean()) < 5 * np.sqrt(variance / len(draws))
    np.testing.assert_allclose(np.mean(draws**2), variance, rtol=0.02)
    np.testing.assert_allclose(np.mean(draws**4) / variance**2, kurtosis, rtol=0.05)


@pytest.mark.parametrize("kernel", [gaussian_kernel, laplace_kernel])
def test_inner_and_outer_by_brute_force(x64, kernel):
    coupled = problem(kernel=kernel)
    batch = coupled.sample(key(3))
    indices, block_batch = coupled.blocks(batch)
    _, noise_of_x, noise_of_y = map(np.asarray, batch)
    total = 0.0
    for place, i in enumerate(np.asarray(indices)):
        values = [
            np.sum(
                ((FEATURES[i] + noise_of_x[place, j]) @ PARAMS - OUTCOMES[i] - noise_of_y[place, j])
                ** 2
            )
            for j in range(6)
        ]
        expected = np.log(np.mean(np.exp(np.array(values) / TEMPERATURE)))
        row = jax.tree.map(lambda leaf, place=place: leaf[place], block_batch)
        value = coupled.inner(PARAMS, row)
        np.testing.assert_allclose(value, expected, rtol=1e-10)
        np.testing.assert_allclose(
            coupled.outer(value, PARAMS, row), TEMPERATURE * expected, rtol=1e-10
        )
        total += TEMPERATURE * expected / 5
    np.testing.assert_allclose(coupled.loss(PARAMS, batch), total, rtol=1e-10)


def test_batches():
    coupled = problem()
    blocks, noise_of_x, noise_of_y = jax.vmap(coupled.sample)(jax.random.split(key(0), 300))
    assert blocks.dtype == jnp.int32
    ordered = np.sort(blocks, axis=1)
    assert np.all(ordered[:, 1:] > ordered[:, :-1])
    assert set(np.ravel(ordered)) == set(range(12))
    assert noise_of_x.shape == (300, 5, 6, 3)
    assert noise_of_y.shape == (300, 5, 6, 2)
    both = np.concatenate([np.ravel(noise_of_x), np.ravel(noise_of_y)])
    np.testing.assert_allclose(both.var(), REGULARIZATION / 2, rtol=0.03)
    assert coupled.num_blocks == 12
    assert coupled.num_sampled == 5
    assert coupled.inner_shape.shape == ()


def slope_of_a_draw():
    """A linear loss of a linear rule is linear in all perturbations, with these slopes."""
    return np.concatenate([PARAMS @ SLOPES, -SLOPES])


def plain():
    return np.mean((FEATURES @ PARAMS - OUTCOMES) @ SLOPES)


@pytest.mark.parametrize("regularization", [0.02, 0.2, 1.0])
def test_robust_loss_of_a_linear_loss_in_closed_form(x64, regularization):
    """Gaussian: |a|^2 / 4 lambda for every regularization; Laplace: finite for lambda > |a|."""
    slopes, options = (
        slope_of_a_draw(),
        {"regularization": regularization, "num_evaluation": 20_000},
    )
    metrics = problem(linear_loss, **options).metrics(PARAMS)
    np.testing.assert_allclose(metrics["train_loss"], plain(), rtol=1e-12)
    excess = metrics["robust_loss"] - metrics["train_loss"]
    # With few pairs, three errors of the mean over draws.
    spread = 3 * np.sqrt(regularization / 2 * np.sum(slopes**2) / 20_000 / 12)
    tilt = 1 + np.sum(slopes**2) / (2 * MULTIPLIER**2 * regularization)
    tolerance = spread * tilt
    assert abs(excess - np.sum(slopes**2) / (4 * MULTIPLIER)) < tolerance
    metrics = problem(linear_loss, kernel=laplace_kernel, **options).metrics(PARAMS)
    exact = -MULTIPLIER * regularization * np.sum(np.log1p(-np.square(slopes / MULTIPLIER)))
    excess = metrics["robust_loss"] - metrics["train_loss"]
    spread = 4 * np.sqrt(2 * np.sum(slopes**2) / 20_000 / 12) * regularization
    assert abs(excess - exact) < spread
    assert exact > 2 * spread or regularization < 0.1, "sharp enough to tell"


def test_little_noise_at_one_temperature_is_the_mean_loss(x64):
    distances = []
    for regularization in (1e-2, 1e-4, 1e-6):
        small = problem(multiplier=0.5 / regularization, regularization=regularization)
        metrics = small.metrics(PARAMS)
        distances.append(abs(metrics["robust_loss"] - metrics["train_loss"]))
    np.testing.assert_array_less(distances, [1.0, 1e-2, 1e-3])
    expected = np.mean(np.sum((FEATURES @ PARAMS - OUTCOMES) ** 2, axis=1))
    np.testing.assert_allclose(metrics["train_loss"], expected, rtol=1e-12)


def test_a_large_multiplier_is_the_mean_under_noise(x64):
    coupled = problem(multiplier=1e6)
    batch = coupled.sample(key(0))
    blocks, noise_of_x, noise_of_y = batch
    x, y = FEATURES[blocks][:, None] + noise_of_x, OUTCOMES[blocks][:, None] + noise_of_y
    expected = np.mean(np.sum((x @ PARAMS - y) ** 2, axis=-1))
    np.testing.assert_allclose(coupled.loss(PARAMS, batch), expected, rtol=1e-4)


def test_test_loss_and_names_of_metrics():
    options = {"test_features": FEATURES + 1, "test_outcomes": OUTCOMES}
    tested = problem(**options)
    metrics = tested.metrics(PARAMS)
    assert set(metrics) == {"robust_loss", "train_loss", "test_loss"}
    assert tested.score == "test_loss"
    expected = np.mean(np.sum(((FEATURES + 1) @ PARAMS - OUTCOMES) ** 2, axis=1))
    np.testing.assert_allclose(metrics["test_loss"], expected, rtol=1e-5)
    assert set(problem().metrics(PARAMS)) == {"robust_loss", "train_loss"}
    assert problem().score is None


def test_the_coupled_estimator_tilts_towards_the_sampled_logarithms(x64):
    """The direction is the mean over pairs of exp(sample - tracked) times the sample's slope."""
    coupled, rate = problem(), 0.3
    estimator = estimate_coupled(
        coupled.inner,
        coupled.outer,
        tracker=log_moving_average(rate),
        inner_shape=jax.ShapeDtypeStruct((), jnp.float64),
        num_blocks=12,
    )
    state = estimator.init(PARAMS)
    tracked = np.full(12, np.nan)
    for t in range(8):
        params = jnp.asarray(PARAMS) * (1 + 0.1 * t)
        indices, batch = coupled.blocks(coupled.sample(key(t)))
        value, slope = jax.vmap(jax.value_and_grad(coupled.inner), in_axes=(None, 0))(params, batch)
        old = np.where(np.isnan(tracked[indices]), value, tracked[indices])
        tracked[indices] = np.logaddexp(np.log1p(-rate) + old, np.log(rate) + value)
        weights = np.exp(value - tracked[indices])
        expected = TEMPERATURE * np.mean(weights[:, None, None] * slope, axis=0)
        direction, state = estimator.update(None, state, params, batch=batch, block_indices=indices)
        np.testing.assert_allclose(direction, expected, rtol=1e-9)
    assert np.ptp(weights) > 0.05, "not all one"


def test_hyper_parameters_and_data_may_be_traced():
    def robust_loss(multiplier, regularization, shift):
        traced = causal_sdro(
            FEATURES + shift,
            OUTCOMES,
            squared_loss,
            multiplier=multiplier,
            regularization=regularization,
            rule=linear_rule(),
            num_sampled=5,
        )
        return traced.metrics(PARAMS)["robust_loss"]

    mapped = jax.jit(jax.vmap(robust_loss))(
        jnp.array([2.0, 4.0]), jnp.array([0.1, 0.3]), jnp.array([0.0, 1.0])
    )
    one_by_one = [robust_loss(2.0, 0.1, 0.0), robust_loss(4.0, 0.3, 1.0)]
    np.testing.assert_allclose(mapped, one_by_one, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        *[({name: 0}, name) for name in ("num_sampled", "batch_size", "num_evaluation")],
        *[({name: 0.0}, name) for name in ("multiplier", "regularization")],
        ({"num_sampled": 13}, "num_sampled"),
        ({"test_features": FEATURES}, "test_features and test_outcomes"),
    ],
)
def test_bad_arguments_are_named(options, named):
    with pytest.raises(ValueError, match=f"^{named} must "):
        problem(**options)


@pytest.mark.parametrize(
    ("features", "outcomes", "named"),
    [
        (FEATURES, OUTCOMES[:, 0], "outcomes"),
        (FEATURES[0], OUTCOMES, "features"),
        (FEATURES, OUTCOMES[:-1], "outcomes"),
    ],
)
def test_pairs_need_matrices_with_as_many_rows(features, outcomes, named):
    with pytest.raises(ValueError, match=f"^{named} must "):
        causal_sdro(features, outcomes, squared_loss, multiplier=1.0, regularization=1.0)


def test_mean_variance_loss(x64):
    returns = np.array([0.1, -0.2, 0.3])
    decision = np.array([0.5, -1.0, 2.0, 0.04])
    weights = np.exp(decision[:3]) / np.sum(np.exp(decision[:3]))
    gained = weights @ returns
    found = mean_variance_loss(3.0)(jnp.asarray(decision), jnp.asarray(returns))
    np.testing.assert_allclose(found, (gained - 0.04) ** 2 - 3.0 * gained, rtol=1e-12)
    with pytest.raises(ValueError, match="one entry more"):
        mean_variance_loss()(jnp.zeros(3), jnp.zeros(3))


def test_portfolios_learn_from_data():
    """Of two assets one gains where the feature is positive, the other where it is not."""
    features = np.random.default_rng(1).standard_normal((60, 1)).astype(np.float32)
    returns = np.concatenate([np.sign(features), -np.sign(features)], axis=1)
    problem = causal_portfolio(
        features, returns, reward=2.0, multiplier=20.0, regularization=0.01, num_sampled=20
    )
    optimizer = optax.adam(0.05)
    params = problem.init(key(0))

    def step(carry, key):
        params, state = carry
        updates, state = optimizer.update(
            jax.grad(problem.loss)(params, problem.sample(key)), state
        )
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys)[0][0])
    before = problem.metrics(params)["train_loss"]
    params = run((params, optimizer.init(params)), jax.random.split(key(1), 300))
    after = problem.metrics(params)["train_loss"]
    assert before > -0.3, "half and half gains nothing"
    assert after < -1.5, "of -2 for knowing"
