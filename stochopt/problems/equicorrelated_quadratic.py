"""A quadratic whose coordinates are all coupled alike, on which the cyclic order is slow."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.blocks.partition import equal_slices
from stochopt.problems.problem import Problem


def equicorrelated_quadratic(num_coordinates: int = 20, coupling: float = 0.8) -> Problem:
    r"""A quadratic whose Hessian has ones on its diagonal and one number everywhere else.

    .. math:: f(x) = \frac12 x^T H x, \qquad H = (1 - c) I + c \mathbf 1 \mathbf 1^T

    The coordinates are the blocks, each of curvature one. In random orders, coordinate descent
    takes few passes; in the cyclic one the more, the more coordinates there are. It starts at a
    normal vector. Batches are empty.

    The eigenvalues are :math:`1 - c` and :math:`1 + (d - 1) c`. The metric ``gap`` is :math:`f(x)`
    itself, as the minimum is zero.

    Args:
      num_coordinates: :math:`d`.
      coupling: :math:`c` in [0, 1).

    References:
      Sun, Ye, `Worst-case Complexity of Cyclic Coordinate Descent
      <https://doi.org/10.1007/s10107-019-01437-5>`_, Mathematical Programming 2021
    """
    check_count("num_coordinates", num_coordinates)
    check_range("coupling", coupling, "[0, 1)")

    def full_loss(params: jax.Array) -> jax.Array:
        squares = (1 - coupling) * jnp.sum(jnp.square(params))
        return (squares + coupling * jnp.square(jnp.sum(params))) / 2

    return Problem(
        name="equicorrelated-quadratic",
        summary="all coordinates coupled alike, slow in the cyclic order",
        init=lambda key: jax.random.normal(key, (num_coordinates,)),
        sample=lambda key: (),
        metrics=lambda params: {"gap": full_loss(params)},
        objective="gap",
        loss=lambda params, batch: full_loss(params),
        full_loss=full_loss,
        num_batches=1,
        partition=equal_slices(num_coordinates),
        optimum=np.zeros(num_coordinates),
        exact={"gradient": jax.grad(full_loss)},
        smoothness=1 + (num_coordinates - 1) * coupling,
        block_smoothness=np.ones(num_coordinates),
        strong_convexity=1 - coupling,
    )
