"""The smoothness of the mean loss in blocks of columns."""

import jax
import jax.numpy as jnp

from stochopt._checks import check_count
from stochopt.linear_models.model import LinearModel


def block_smoothness(model: LinearModel, block_width: int = 1) -> jax.Array:
    r"""The smoothness of the mean loss in each block of columns.

    .. math:: L_j = \frac{c}{n} \|A_j\|_2^2

    with the spectral norm, from the eigenvalues of :math:`A_j^\top A_j`. That takes
    :math:`2 n d w` operations for blocks of width :math:`w > 1`, as much as :math:`w / 2`
    gradients.

    Args:
      model: its loss gives :math:`c`.
      block_width: :math:`w`; the last block may be narrower.

    Returns:
      One number for each block; zero where all its columns are.
    """
    check_count("block_width", block_width)
    num_samples, num_columns = model.design.shape
    if block_width == 1:
        norms = model.design.squared_column_norms()
    else:
        starts = jnp.arange(0, num_columns, block_width)

        def squared_norm(start: jax.Array) -> jax.Array:
            columns = model.design.columns(start + jnp.arange(block_width))
            return jnp.linalg.eigvalsh(columns.T @ columns)[-1]

        norms = jax.lax.map(squared_norm, starts)
    return model.loss.curvature / num_samples * norms


def mahalanobis_smoothness(model: LinearModel, block_width: int = 1) -> jax.Array:
    r"""The constant :math:`\hat L` of cyclic descent on the mean loss.

    .. math::

       \hat L^2 = \Big\| \sum_j \hat Q_j \Big\|_2, \qquad
       Q_j = \frac{c^2 \|A_j\|_2^2}{n^2} A^\top A,

    where :math:`\hat Q_j` is :math:`Q_j` with the rows and columns of the blocks before :math:`j`
    set to zero. With steps :math:`1 / \hat L` in all blocks
    :func:`stochopt.blocks.cyclic_descent_bound` holds. Forms :math:`A^\top A`: for moderate
    :math:`d`.

    Args:
      model: its loss gives :math:`c`.
      block_width: columns in a block; the last may have fewer.
    """
    num_samples, num_columns = model.design.shape
    columns = model.design.columns(jnp.arange(num_columns))
    gram = columns.T @ columns
    block = jnp.arange(num_columns) // block_width
    # An entry is in the sum once for each block up to the first one that it belongs to.
    weights = jnp.cumsum(block_smoothness(model, block_width))[jnp.minimum.outer(block, block)]
    total = model.loss.curvature / num_samples * weights * gram
    return jnp.sqrt(jnp.linalg.eigvalsh(total)[-1])
