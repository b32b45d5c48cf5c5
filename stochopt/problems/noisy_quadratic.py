"""A convex quadratic with a given spectrum, seen through noisy gradients."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stochopt.problems.additive_noise import with_additive_noise
from stochopt.problems.problem import Problem


def noisy_quadratic(
    spectrum: Sequence[float] | np.ndarray = (1.0, 0.5, 0.25), noise: float = 0.5
) -> Problem:
    r"""A quadratic with a given spectrum and Gaussian gradient noise.

    .. math::

       f_\xi(x) = \tfrac12 \sum_i \lambda_i (x_i - x^*_i)^2 + \langle \xi, x \rangle,
       \qquad \xi \sim N\left(0, \tfrac{\sigma^2}{d} I\right),

    from :math:`x = 0`, with :math:`x^*_i = \pm 1` in turn. The smoothness is the largest and the
    strong convexity the smallest :math:`\lambda_i`. Gradient descent with step size :math:`\eta`
    has a closed form: for each coordinate the mean squared distance obeys
    :math:`m_{t+1} = (1 - \eta \lambda_i)^2 m_t + \eta^2 \sigma^2 / d`. So has the proximal point,

    .. math::

       \mathrm{prox}_{\eta f_\xi}(x)_i
       = \frac{x_i + \eta (\lambda_i x^*_i - \xi_i)}{1 + \eta \lambda_i},
       \qquad m_{t+1} = \frac{m_t + \eta^2 \sigma^2 / d}{(1 + \eta \lambda_i)^2} .

    Args:
      spectrum: the eigenvalues :math:`\lambda_i > 0`.
      noise: :math:`\sigma \ge 0`, the root of the expected squared norm of the gradient's error.
    """
    eigenvalues = np.asarray(spectrum, np.float64)
    if (
        eigenvalues.ndim != 1
        or not eigenvalues.size
        or not np.all((eigenvalues > 0) & np.isfinite(eigenvalues))
    ):
        raise ValueError(f"spectrum must be a sequence of positive numbers, got {spectrum}.")
    optimum = np.where(np.arange(eigenvalues.size) % 2 == 0, 1.0, -1.0)

    def gap(params: jax.Array) -> jax.Array:
        return jnp.sum(eigenvalues * jnp.square(params - optimum)) / 2

    def loss_prox(params: jax.Array, step: Any, batch: jax.Array) -> jax.Array:
        return (params + step * (eigenvalues * optimum - batch)) / (1 + step * eigenvalues)

    return with_additive_noise(
        name="noisy-quadratic",
        summary="a convex quadratic with a given spectrum, noisy gradients",
        function=gap,
        gradient=lambda params: jnp.multiply(eigenvalues, params - optimum),
        init=lambda key: jnp.zeros(eigenvalues.size),
        shape=eigenvalues.shape,
        noise=noise,
        metrics=lambda params: {
            "gap": gap(params),
            "squared_distance": jnp.sum(jnp.square(params - optimum)),
        },
        objective="gap",
        loss_prox=loss_prox,
        optimum=optimum,
        smoothness=float(eigenvalues.max()),
        strong_convexity=float(eigenvalues.min()),
    )
