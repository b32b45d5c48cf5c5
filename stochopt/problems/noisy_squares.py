"""Squares of numbers, measured with noise: weakly convex, with an exact gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.phase_retrieval import square_prox
from stochopt.problems.problem import Problem

# Which coordinates were measured, and the measurements.
_Batch = tuple[jax.Array, jax.Array]


def noisy_squares(
    dimension: int = 10, batch_size: int = 1, noise: float = 1.0, start: float = 3.0
) -> Problem:
    r"""The absolute deviations of squares from noisy measurements of them.

    .. math::

       f(x) = \frac1d \sum_j E \left| x_j^2 - b \right|, \qquad b \sim U[1 - w, 1 + w] .

    Phase retrieval along the axes. A sample measures one coordinate; its loss has kinks and is
    2-weakly convex. The expectation has none:

    .. math::

       f(x) = \frac1d \sum_j h(x_j^2 - 1) + \frac{w}{2}, \qquad
       h(r) = \begin{cases} r^2 / (2 w) & |r| \le w \\ |r| - w / 2 & \text{else} \end{cases}, \\
       \nabla_j f(x) = \frac{2 x_j}{d}\, \mathrm{clip}\left(\frac{x_j^2 - 1}{w}, -1, 1\right) .

    The minimizers have :math:`x_j = \pm 1`; where some :math:`x_j` is zero lie maxima and saddle
    points. The metric ``gap`` is :math:`f(x) - w / 2`. At the optimum the gradient of a batch of
    :math:`m` has the noise :math:`2 / \sqrt m`.

    The oracle ``residuals`` is :math:`x_j^2 - b`; with batches of one example there is also
    ``loss_prox``, by :func:`square_prox`.

    Args:
      dimension: :math:`d`.
      batch_size: measurements in a batch, each of a random coordinate.
      noise: :math:`w` in (0, 1].
      start: :math:`x_j` at the start.
    """
    check_count("dimension", dimension)
    check_count("batch_size", batch_size)
    check_range("noise", noise, "(0, 1]")

    def residuals(params: jax.Array, batch: _Batch) -> jax.Array:
        coordinates, measured = batch
        return jnp.square(params[coordinates]) - measured

    def loss(params: jax.Array, batch: _Batch) -> jax.Array:
        return jnp.mean(jnp.abs(residuals(params, batch)))

    def loss_prox(params: jax.Array, step: Any, batch: _Batch) -> jax.Array:
        coordinates, measured = batch
        axis = jax.nn.one_hot(coordinates[0], dimension, dtype=params.dtype)
        return square_prox(params, step, axis, measured[0])

    def sample(key: jax.Array) -> _Batch:
        for_noise, for_coordinates = jax.random.split(key)
        return (
            jax.random.randint(for_coordinates, (batch_size,), 0, dimension, jnp.int32),
            jax.random.uniform(for_noise, (batch_size,), minval=1 - noise, maxval=1 + noise),
        )

    def gap(params: jax.Array) -> jax.Array:
        error = jnp.abs(jnp.square(params) - 1)
        huber = jnp.where(error <= noise, jnp.square(error) / (2 * noise), error - noise / 2)
        return jnp.mean(huber)

    def gradient(params: jax.Array) -> jax.Array:
        error = (jnp.square(params) - 1) / noise
        return 2 * params / dimension * jnp.clip(error, -1, 1)

    return Problem(
        name="noisy-squares",
        summary="squares measured with noise: weakly convex, an exact gradient",
        init=lambda key: jnp.full(dimension, float(start)),
        sample=sample,
        metrics=lambda params: {
            "gap": gap(params),
            "squared_distance": jnp.sum(jnp.square(jnp.abs(params) - 1)),
        },
        objective="gap",
        loss=loss,
        residuals=residuals,
        loss_prox=loss_prox if batch_size == 1 else None,
        optimum=np.ones(dimension),
        exact={"gradient": gradient},
        noise=2 / batch_size**0.5,
    )
