"""Correlated features, and the scale on which a rule sees them."""

import jax
import jax.numpy as jnp
import numpy as np


def correlated_normal(key: jax.Array, size: int, dimension: int) -> jax.Array:
    r"""Rows from :math:`N(0, \Sigma)` with :math:`\Sigma_{ij} = 0.5^{|i - j|}`."""
    places = np.arange(dimension)
    factor = np.linalg.cholesky(0.5 ** np.abs(places[:, None] - places))
    draws = jax.random.normal(key, (size, dimension))
    return draws @ jnp.asarray(factor.T, draws.dtype)


def coefficients(key: jax.Array, dimension: int) -> jax.Array:
    """The direction of the hidden index, uniform in [-0.1, 0.1]."""
    return jax.random.uniform(key, (dimension,), minval=-0.1, maxval=0.1)


def standardized(train: jax.Array, test: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both by the mean and the deviation of the training features."""
    mean, deviation = jnp.mean(train, axis=0), jnp.std(train, axis=0)
    return (train - mean) / deviation, (test - mean) / deviation
