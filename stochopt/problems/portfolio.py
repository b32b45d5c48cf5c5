"""Mean and variance of a portfolio: the variance holds the mean, an expectation inside another."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem
from stochopt.problems.quadratic_value import quadratic_value


def portfolio(
    num_assets: int = 6, risk_aversion: float = 1.0, batch_size: int = 1, seed: int = 0
) -> Problem:
    r"""The mean-variance portfolio, a function of an expected return with a closed form.

    .. math::

       F(w) = -\mu^T w + \lambda\, w^T \Sigma w = E f_r(E g_{r'}(w)), \qquad
       g_{r'}(w) = (w, r'^T w), \qquad f_r(a, b) = -b + \lambda (r^T a - b)^2,

    for weights :math:`w` of either sign and independent returns :math:`r, r' \sim N(\mu, \Sigma)`.
    The minimizer is :math:`w^* = \Sigma^{-1} \mu / (2 \lambda)`. The naive plug-in gradient with
    :math:`m` returns on either side takes :math:`\lambda (1 + \frac1m)` for the aversion to risk,
    and settles on average at :math:`w^* m / (m + 1)` instead.

    :math:`\mu` and the positive definite :math:`\Sigma` are random.

    Args:
      num_assets: dimension of :math:`w`.
      risk_aversion: :math:`\lambda > 0`.
      batch_size: :math:`m`, returns of a batch for :math:`g`, and as many others for :math:`f`.
      seed: of the random data.

    References:
      Wang, Liu, Fang, `Accelerating Stochastic Composition Optimization
      <https://arxiv.org/abs/1607.07329>`_, 2017
    """
    check_count("num_assets", num_assets)
    check_range("risk_aversion", risk_aversion, "(0, inf)")
    check_count("batch_size", batch_size)
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0.2, 1.0, num_assets)
    root = rng.standard_normal((num_assets, num_assets)) / np.sqrt(num_assets)
    covariance = root @ root.T + 0.3 * np.eye(num_assets)
    factor = np.linalg.cholesky(covariance)

    hessian = 2 * risk_aversion * covariance
    optimum = np.linalg.solve(hessian, mean)

    def portfolio_returns(weights: jax.Array, noise: jax.Array) -> jax.Array:
        return jnp.dot(mean, weights) + noise @ (factor.T @ weights)

    def inner(params: jax.Array, batch: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        noise, _ = batch
        return params, jnp.mean(portfolio_returns(params, noise))

    def outer(
        value: tuple[jax.Array, jax.Array], params: jax.Array, batch: tuple[jax.Array, jax.Array]
    ) -> jax.Array:
        del params
        weights, expected_return = value
        _, noise = batch
        risk = jnp.mean(jnp.square(portfolio_returns(weights, noise) - expected_return))
        return -expected_return + risk_aversion * risk

    def sample(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        for_inner, for_outer = jax.random.split(key)
        shape = (batch_size, num_assets)
        return jax.random.normal(for_inner, shape), jax.random.normal(for_outer, shape)

    error = optimum / (batch_size + 1)
    return Problem(
        name="portfolio",
        summary="mean and variance of a portfolio, a closed form",
        init=lambda key: jnp.zeros(num_assets),
        sample=sample,
        loss=lambda params, batch: outer(inner(params, batch), params, batch),
        inner=inner,
        outer=outer,
        levels={"limit of the naive gradient": float(error @ hessian @ error / 2)},
        **quadratic_value(
            hessian,
            optimum,
            inner=lambda params: (params, jnp.dot(mean, params)),
        ),
    )
