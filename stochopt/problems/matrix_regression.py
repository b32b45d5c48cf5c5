"""Least squares for a matrix, the smallest problem of the methods for matrix-shaped parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.additive_noise import skewed, with_additive_noise
from stochopt.problems.problem import Problem


def matrix_regression(
    rows: int = 4, columns: int = 3, noise: float = 0.5, start: float = 1.0, seed: int = 0
) -> Problem:
    r"""Least squares for a matrix, with skewed gradient noise.

    .. math::

       f_\Xi(W) = \frac{1}{2n} \|X W - Y\|_F^2 + \langle \Xi, W \rangle,

    with a random :math:`X`, :math:`n = 8` times ``rows``, and random targets :math:`Y` that no
    :math:`W` fits exactly; :math:`W^* = X^+ Y`. The entries of :math:`\Xi` are independent with
    mean zero: rarely large and positive, mostly small and negative. Orthogonalizing a single noisy
    gradient therefore points the wrong way near the optimum, orthogonalizing an average does not.
    The start lies at spectral distance ``start`` from :math:`W^*`, in a random direction with all
    singular values equal.

    Args:
      rows: of :math:`W`.
      columns: of :math:`W`.
      noise: :math:`\sigma \ge 0`, the root of :math:`E \|\Xi\|_F^2`.
      start: spectral norm of :math:`W - W^*` at the start.
      seed: of the random data.
    """
    check_count("rows", rows)
    check_count("columns", columns)
    check_range("start", start, "(0, inf)")
    rng = np.random.default_rng(seed)
    examples = 8 * rows
    x = rng.standard_normal((examples, rows))
    y = x @ rng.standard_normal((rows, columns)) + rng.standard_normal((examples, columns))
    hessian = x.T @ x / examples
    optimum = np.linalg.solve(hessian, x.T @ y / examples)
    eigenvalues = np.linalg.eigvalsh(hessian)

    def gradient(params: jax.Array) -> jax.Array:
        return jnp.matmul(hessian, params - optimum)

    def gap(params: jax.Array) -> jax.Array:
        return jnp.sum((params - optimum) * gradient(params)) / 2

    def init(key: jax.Array) -> jax.Array:
        u, _, vh = jnp.linalg.svd(jax.random.normal(key, (rows, columns)), full_matrices=False)
        return jnp.add(optimum, start * (u @ vh))

    residual = y - x @ optimum
    offset = float(np.sum(residual**2) / (2 * examples))
    return with_additive_noise(
        name="matrix-regression",
        summary="least squares for a matrix, skewed gradient noise",
        function=lambda params: gap(params) + offset,
        gradient=gradient,
        init=init,
        shape=(rows, columns),
        noise=noise,
        distribution=skewed,
        metrics=lambda params: {
            "gap": gap(params),
            "squared_distance": jnp.sum(jnp.square(params - optimum)),
        },
        objective="gap",
        optimum=optimum,
        smoothness=float(eigenvalues[-1]),
        strong_convexity=float(eigenvalues[0]),
    )
