"""The least eigenvalue of a covariance, as the minimum of a ratio."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem


def rayleigh_quotient(
    dimension: int = 20, condition: float = 10.0, batch_size: int = 50, seed: int = 0
) -> Problem:
    r"""The direction in which Gaussian samples vary least.

    .. math::

       F(x) = \frac{\frac12 x^\top C x}{\frac12 \|x\|^2}, \qquad \min F = \lambda_{\min}(C),

    from :math:`x = (1, \dots, 1)`, with the eigenvalues of :math:`C` geometric between
    :math:`1 / \kappa` and 1 in a random basis. It is not convex, but every stationary point that
    is no eigenvector of the least eigenvalue is a saddle or a maximum. A batch is of samples
    :math:`z \sim N(0, C)`, and the loss on it the mean of
    :math:`\langle z, x \rangle^2 / \|x\|^2`.

    ``exact`` has the ``"numerator"`` and the ``"denominator"`` too; the metric ``squared_sine`` is
    that of the angle to the eigenvector.

    Args:
      dimension: :math:`d`, at least 2.
      condition: :math:`\kappa > 1`.
      batch_size: samples in a batch.
      seed: of the basis.
    """
    check_count("dimension", dimension)
    check_range("dimension", dimension, "[2, inf)")
    check_range("condition", condition, "(1, inf)")
    check_count("batch_size", batch_size)
    rng = np.random.default_rng(seed)
    eigenvalues = np.geomspace(1 / condition, 1, dimension)
    basis = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
    covariance = (basis * eigenvalues) @ basis.T
    root = (basis * np.sqrt(eigenvalues)) @ basis.T
    optimum = basis[:, 0]

    def numerator(params: jax.Array) -> jax.Array:
        return params @ (covariance @ params) / 2

    def denominator(params: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(params)) / 2

    def loss(params: jax.Array, batch: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(batch @ params)) / jnp.sum(jnp.square(params))

    def gap(params: jax.Array) -> jax.Array:
        # The difference of the numerators: that of the ratios would lose digits near zero.
        excess = basis * (eigenvalues - eigenvalues[0])
        return params @ (excess @ (basis.T @ params)) / (2 * denominator(params))

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        across = params - optimum * jnp.dot(optimum, params)
        sine = jnp.sum(jnp.square(across)) / jnp.sum(jnp.square(params))
        return {"gap": gap(params), "squared_sine": sine}

    return Problem(
        name="rayleigh-quotient",
        summary="the least eigenvalue of a covariance, a ratio of quadratics",
        init=lambda key: jnp.ones(dimension),
        sample=lambda key: jax.random.normal(key, (batch_size, dimension)) @ root,
        metrics=metrics,
        objective="gap",
        loss=loss,
        optimum=optimum,
        exact={
            "gradient": jax.grad(gap),
            "numerator": numerator,
            "denominator": denominator,
            "curvature": lambda params: jnp.asarray(np.diag(covariance), params.dtype),
        },
    )
