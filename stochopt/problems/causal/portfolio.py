"""Portfolios that depend on features: mean and variance of the returns."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from stochopt._checks import check_range
from stochopt.problems.causal.causal_sdro import (
    DecisionLoss,
    Kernel,
    causal_sdro,
    gaussian_kernel,
)
from stochopt.problems.problem import Problem


def mean_variance_loss(reward: float = 1.0) -> DecisionLoss:
    r"""Squared deviation of a portfolio's return from its expectation, minus a reward for it.

    .. math::

       \psi\left((a, \beta), r\right) = (r^T w - \beta)^2 - \eta\, r^T w, \qquad
       w = \text{softmax}(a) .

    The last entry :math:`\beta` of a decision is the rule's own guess of the expected return: at
    its best value the expectation of the first term is the variance. The weights :math:`w` are
    positive and sum to one.

    Args:
      reward: :math:`\eta \ge 0`.
    """
    check_range("reward", reward, "[0, inf)")

    def loss(decision: jax.Array, outcome: jax.Array) -> jax.Array:
        if len(decision) != len(outcome) + 1:
            raise ValueError(
                f"a decision has one entry more than there are assets, got {len(decision)} for "
                f"{len(outcome)} assets."
            )
        gained = jnp.dot(jax.nn.softmax(decision[:-1]), outcome)
        return jnp.square(gained - decision[-1]) - reward * gained

    return loss


def causal_portfolio(
    features: Any,
    returns: Any,
    *,
    reward: float = 1.0,
    multiplier: Any,
    regularization: Any,
    kernel: Kernel = gaussian_kernel,
    test_features: Any = None,
    test_returns: Any = None,
    num_sampled: int = 32,
    batch_size: int = 4,
) -> Problem:
    r"""Robust portfolios of a soft forest, on data of yours.

    :func:`causal_sdro` with the loss :func:`mean_variance_loss`. This loss grows like a square, so
    its exponentials under the Gaussian kernel have an expectation only where
    :math:`\lambda > \|w\|^2`, which :math:`\lambda > 1` ensures, and under the Laplace kernel
    nowhere. Features and returns get noise of the same size: bring them to comparable scales.

    Args:
      features: shape (n, features).
      returns: of all assets over the period that follows, shape (n, assets).
      reward: :math:`\eta`, of the expected return.
      multiplier: :math:`\lambda`.
      regularization: :math:`\varepsilon`.
      kernel: of the perturbations.
      test_features: further features for ``test_loss``.
      test_returns: their returns.
      num_sampled: pairs in a batch.
      batch_size: draws around each of these pairs.

    References:
      Zhang, Wang, `arXiv:2601.11016 <https://arxiv.org/abs/2601.11016>`_, 2026
    """
    problem = causal_sdro(
        features,
        returns,
        mean_variance_loss(reward),
        multiplier=multiplier,
        regularization=regularization,
        kernel=kernel,
        num_outputs=jnp.shape(returns)[-1] + 1,
        test_features=test_features,
        test_outcomes=test_returns,
        num_sampled=num_sampled,
        batch_size=batch_size,
    )
    summary = "robust portfolios of a soft forest, coupled blocks"
    return dataclasses.replace(problem, name="causal-portfolio", summary=summary)
