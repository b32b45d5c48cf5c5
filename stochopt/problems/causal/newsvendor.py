"""The newsvendor with features: how much to order before the demand is known."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from stochopt._checks import check_count, check_range
from stochopt.problems.causal._features import coefficients, correlated_normal, standardized
from stochopt.problems.causal.causal_sdro import Kernel, causal_sdro, gaussian_kernel
from stochopt.problems.problem import Problem

HOLDING, STOCKOUT, SHARPNESS = 0.6, 1.0, 5.0


class NewsvendorData(NamedTuple):
    """Features and demands of :func:`newsvendor_data`, both parts standardized alike."""

    features: jax.Array  # shape=(num_train, dimension)
    outcomes: jax.Array  # shape=(num_train, 1)
    test_features: jax.Array  # shape=(num_test, dimension)
    test_outcomes: jax.Array  # shape=(num_test, 1)
    test_location: jax.Array  # of the demand before truncation, shape=(num_test,)


def newsvendor_loss(decision: jax.Array, outcome: jax.Array) -> jax.Array:
    r"""Costs of stock left over and of demand not met, smoothed.

    .. math::

       \psi(z, y) = 0.6\, p(z - y) + p(y - z), \qquad p(u) = \tfrac15 \log(1 + e^{5 u}),

    summed over products.
    """
    if decision.shape != outcome.shape:
        raise ValueError(f"a decision {decision.shape} for demands {outcome.shape}.")
    over = SHARPNESS * (decision - outcome)
    costs = HOLDING * jax.nn.softplus(over) + STOCKOUT * jax.nn.softplus(-over)
    return jnp.sum(costs) / SHARPNESS


def newsvendor_data(
    key: jax.Array,
    num_train: int = 400,
    num_test: int = 10_000,
    dimension: int = 10,
    *,
    test_shift: float = 0.0,
    test_scale: float = 1.0,
    test_noise: float = 1.0,
) -> NewsvendorData:
    r"""Demands that peak where a hidden index of the features vanishes.

    .. math::

       y = 1.7 \left(\sin 2 s + 2 e^{-16 s^2} + 1\right) + N(0, 1), \qquad s = \beta^T x, \quad
       x \sim N(0, \Sigma), \quad \Sigma_{ij} = 0.5^{|i - j|}, \quad \beta_i \sim U(-0.1, 0.1) ;

    pairs with :math:`y \le 0` are rejected. The features, training and test, are standardized by
    the mean and the deviation of the training features. The test set may come from another
    distribution with the same :math:`\beta`.

    Args:
      key: random key.
      num_train: training pairs.
      num_test: test pairs.
      dimension: of :math:`x`.
      test_shift: added to every feature of the test set.
      test_scale: factor of the features of the test set, before the shift.
      test_noise: standard deviation of the demand in the test set.
    """
    check_count("num_train", num_train)
    check_count("num_test", num_test)
    check_count("dimension", dimension)
    for_index, for_train, for_test = jax.random.split(key, 3)
    beta = coefficients(for_index, dimension)

    def location(x: jax.Array) -> jax.Array:
        s = x @ beta
        return 1.7 * (jnp.sin(2 * s) + 2 * jnp.exp(-16 * s**2) + 1)

    def draw(key: jax.Array, size: int, shift: Any, scale: Any, deviation: Any) -> tuple:
        def attempt(key: jax.Array) -> tuple[jax.Array, jax.Array]:
            for_x, for_y = jax.random.split(key)
            x = shift + scale * correlated_normal(for_x, size, dimension)
            return x, location(x) + deviation * jax.random.normal(for_y, (size,))

        def again(carry: tuple) -> tuple:
            key, x, y = carry
            key, now = jax.random.split(key)
            new_x, new_y = attempt(now)
            return key, jnp.where((y > 0)[:, None], x, new_x), jnp.where(y > 0, y, new_y)

        key, now = jax.random.split(key)
        rejected = lambda carry: jnp.any(carry[2] <= 0)
        _, x, y = jax.lax.while_loop(rejected, again, (key, *attempt(now)))
        return x, y[:, None]

    x, y = draw(for_train, num_train, 0.0, 1.0, 1.0)
    test_x, test_y = draw(for_test, num_test, test_shift, test_scale, test_noise)
    features, test_features = standardized(x, test_x)
    return NewsvendorData(features, y, test_features, test_y, location(test_x))


def newsvendor_oracle(location: Any, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    r"""The best decisions under known demand distributions, and their expected losses.

    The demand is :math:`N(\text{location}, \text{noise}^2)`, given that it is positive. The best
    decision solves :math:`E\, \sigma(5 (z - y)) = 1 / 1.6`, by bisection on Gauss-Legendre nodes
    for a grid of locations; in between both results are interpolated.

    Args:
      location: of the normal distribution, any shape, in [0, 7].
      noise: its standard deviation.

    Returns:
      Decisions and expected losses, shaped like ``location``.
    """
    check_range("location", location, "[0, 7]")
    grid = np.linspace(0, 7, 701)[:, None]
    nodes, weights = np.polynomial.legendre.leggauss(400)
    reach = 8 * noise
    low = np.maximum(grid - reach, 0)
    y = low + (grid + reach - low) * (nodes + 1) / 2
    density = weights * np.exp(-0.5 * np.square((y - grid) / noise))
    density /= density.sum(axis=1, keepdims=True)
    under, over = low - 1, grid + reach
    for _ in range(60):
        z = (under + over) / 2
        share = np.sum(density * scipy.special.expit(SHARPNESS * (z - y)), axis=1, keepdims=True)
        enough = share > STOCKOUT / (HOLDING + STOCKOUT)
        under, over = np.where(enough, under, z), np.where(enough, z, over)
    softplus = lambda u: np.logaddexp(0, SHARPNESS * u) / SHARPNESS
    losses = np.sum(density * (HOLDING * softplus(z - y) + STOCKOUT * softplus(y - z)), axis=1)
    interpolate = lambda values: np.interp(location, grid[:, 0], values)
    return interpolate(z[:, 0]), interpolate(losses)


def causal_newsvendor(
    num_train: int = 400,
    dimension: int = 10,
    multiplier: float = 2.0,
    regularization: float = 0.1,
    kernel: Kernel = gaussian_kernel,
    num_sampled: int = 32,
    batch_size: int = 4,
    seed: int = 0,
) -> Problem:
    r"""Robust newsvendor decisions of a soft forest: :func:`causal_sdro` on random demands.

    Data by :func:`newsvendor_data`, loss :func:`newsvendor_loss`;
    :func:`newsvendor_oracle` has the least expected losses at the test features.

    Args:
      num_train: :math:`n`.
      dimension: of the features.
      multiplier: :math:`\lambda`.
      regularization: :math:`\varepsilon`.
      kernel: of the perturbations.
      num_sampled: pairs in a batch.
      batch_size: draws around each of these pairs.
      seed: of the data.

    References:
      Zhang, Wang, `arXiv:2601.11016 <https://arxiv.org/abs/2601.11016>`_, 2026
    """
    data = newsvendor_data(jax.random.key(seed), num_train, dimension=dimension)
    problem = causal_sdro(
        data.features,
        data.outcomes,
        newsvendor_loss,
        multiplier=multiplier,
        regularization=regularization,
        kernel=kernel,
        test_features=data.test_features,
        test_outcomes=data.test_outcomes,
        num_sampled=num_sampled,
        batch_size=batch_size,
    )
    summary = "robust newsvendor decisions by a soft forest, coupled blocks"
    return dataclasses.replace(problem, name="causal-newsvendor", summary=summary)
