"""A known function seen through gradients with additive noise: what several problems share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_range
from stochopt.problems.problem import Problem

#: Probability of the rare, large value of skewed noise.
RARE = 0.1


def gaussian(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Independent standard normal numbers."""
    return jax.random.normal(key, shape)


def skewed(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    r"""Independent numbers of mean 0 and variance 1 that are 3 with probability 1/10, else -1/3.

    Their median is far from their mean, so a method that looks at the sign or the direction of a
    single sample is led astray, while one that averages first is not.
    """
    large = np.sqrt((1 - RARE) / RARE)
    return jnp.where(jax.random.bernoulli(key, RARE, shape), large, -1 / large)


def with_additive_noise(
    *,
    function: Callable[[jax.Array], jax.Array],
    gradient: Callable[[jax.Array], jax.Array],
    init: Callable[[jax.Array], jax.Array],
    shape: tuple[int, ...],
    noise: float,
    distribution: Callable[[jax.Array, tuple[int, ...]], jax.Array] = gaussian,
    metrics: Callable[[jax.Array], dict[str, jax.Array]],
    **fields: Any,
) -> Problem:
    r"""The problem :math:`f_\xi(x) = f(x) + \langle \xi, x \rangle` with :math:`E \xi = 0`.

    Args:
      function: :math:`f`, of one array.
      gradient: :math:`\nabla f` in closed form.
      init: ``init(key) -> params``.
      shape: of ``params``.
      noise: :math:`\sigma = (E \|\xi\|^2)^{1/2}`, over all entries together.
      distribution: of the entries of the noise, with mean 0 and variance 1.
      metrics: as in :class:`stochopt.problems.Problem`.
      **fields: the other fields of :class:`stochopt.problems.Problem`.
    """
    check_range("noise", noise, "[0, inf)")
    scale = noise / np.sqrt(np.prod(shape))

    def sample(key: jax.Array) -> jax.Array:
        return scale * distribution(key, shape)

    def loss(params: jax.Array, batch: jax.Array) -> jax.Array:
        return function(params) + jnp.sum(batch * params)

    return Problem(
        init=init,
        sample=sample,
        metrics=metrics,
        loss=loss,
        exact={"gradient": gradient},
        noise=float(noise),
        **fields,
    )
