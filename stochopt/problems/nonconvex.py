"""Smooth functions that are not convex, with known stationary points and noisy gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count
from stochopt.problems.additive_noise import with_additive_noise
from stochopt.problems.problem import Problem


def cosine(dimension: int = 10, noise: float = 0.5, start: float = 2.0) -> Problem:
    r"""Smooth and not convex, with stationary points on a grid.

    .. math:: f_\xi(x) = \sum_i (1 - \cos x_i) + \langle \xi, x \rangle

    The smoothness is 1. The gradient :math:`(\sin x_i)_i` vanishes exactly where every
    :math:`x_i / \pi` is whole; where all of these are even lie the minima, of value 0, elsewhere
    maxima and saddle points. Every coordinate starts at ``start``; beyond :math:`\pi / 2` the
    curvature there is negative.

    Args:
      dimension: of :math:`x`.
      noise: :math:`\sigma \ge 0`, the root of the expected squared norm of the gradient's error.
      start: :math:`x_i` at the start.
    """
    check_count("dimension", dimension)

    def function(params: jax.Array) -> jax.Array:
        return jnp.sum(2 * jnp.square(jnp.sin(params / 2)))  # 1 - cos x without cancellation

    def squared_distance(params: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(params - np.pi * jnp.round(params / np.pi)))

    return with_additive_noise(
        name="cosine",
        summary="smooth and not convex, stationary points on a grid",
        function=function,
        gradient=jnp.sin,
        init=lambda key: jnp.full(dimension, start),
        shape=(dimension,),
        noise=noise,
        metrics=lambda params: {
            "gap": function(params),
            "squared_distance": squared_distance(params),
        },
        objective="gap",
        optimum=np.zeros(dimension),
        smoothness=1.0,
    )


def polyak_lojasiewicz(dimension: int = 10, noise: float = 0.5, start: float = 3.0) -> Problem:
    r"""Not convex, but without any other stationary point than the minimum.

    .. math:: f_\xi(x) = \sum_i \left(x_i^2 + 3 \sin^2 x_i\right) + \langle \xi, x \rangle

    The smoothness is 8, and the Polyak-Lojasiewicz inequality
    :math:`\|\nabla f(x)\|^2 \ge 2 \mu f(x)` holds with :math:`\mu = 1/32`. The curvature
    :math:`2 + 6 \cos 2 x_i` changes its sign twice in every interval of length :math:`\pi`.

    Args:
      dimension: of :math:`x`.
      noise: :math:`\sigma \ge 0`, the root of the expected squared norm of the gradient's error.
      start: :math:`x_i` at the start.

    References:
      Karimi, Nutini, Schmidt, `Linear Convergence of Gradient and Proximal-Gradient Methods Under
      the Polyak-Lojasiewicz Condition <https://arxiv.org/abs/1608.04636>`_, 2016
    """
    check_count("dimension", dimension)

    def function(params: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(params) + 3 * jnp.square(jnp.sin(params)))

    return with_additive_noise(
        name="polyak-lojasiewicz",
        summary="not convex, but every stationary point is the minimum",
        function=function,
        gradient=lambda params: 2 * params + 3 * jnp.sin(2 * params),
        init=lambda key: jnp.full(dimension, start),
        shape=(dimension,),
        noise=noise,
        metrics=lambda params: {
            "gap": function(params),
            "squared_distance": jnp.sum(jnp.square(params)),
        },
        objective="gap",
        optimum=np.zeros(dimension),
        smoothness=8.0,
        strong_convexity=1 / 32,
    )
