"""An objective that is quadratic after all: what is known of several problems."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def quadratic_value(
    hessian: np.ndarray, optimum: np.ndarray, **exact: Callable[[Any], Any]
) -> dict[str, Any]:
    r"""The fields of a :class:`stochopt.problems.Problem` that follow from its value.

    .. math:: F(x) = \min F + \tfrac12 (x - x^*)^T H (x - x^*)

    Args:
      hessian: :math:`H`, positive definite.
      optimum: :math:`x^*`.
      **exact: what is known exactly beside the gradient.

    Returns:
      Metrics, optimum, exact quantities and constants.
    """
    eigenvalues = np.linalg.eigvalsh(hessian)

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        error = params - optimum
        return {
            "gap": jnp.vdot(error, hessian @ error) / 2,
            "squared_distance": jnp.vdot(error, error),
        }

    return {
        "metrics": metrics,
        "objective": "gap",
        "optimum": optimum,
        "exact": {"gradient": lambda params: hessian @ (params - optimum), **exact},
        "smoothness": float(eigenvalues[-1]),
        "strong_convexity": float(eigenvalues[0]),
    }
