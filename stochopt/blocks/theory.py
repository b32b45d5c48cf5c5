"""What is proved of cyclic block descent: constants, steps and bounds."""

from typing import Any, NamedTuple

import jax
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.blocks.partition import Partition


class CyclicSmoothness(NamedTuple):
    """What :func:`mahalanobis_constants` returns."""

    ahead: float  # L-hat, of the blocks from j on
    behind: float  # L-tilde, of the blocks before j


def mahalanobis_constants(matrices: Any, partition: Partition, params: Any) -> CyclicSmoothness:
    r"""The two smoothness constants of a cycle over blocks, :math:`\hat L` and :math:`\tilde L`.

    .. math::

       \hat L^2 = \Big\| \sum_j \hat Q_j \Big\|, \qquad
       \tilde L^2 = \Big\| \sum_j \tilde Q_j \Big\|, \qquad
       \|\nabla_j f(x) - \nabla_j f(y)\|^2 \le (x - y)^T Q_j (x - y),

    where :math:`\hat Q_j` is :math:`Q_j` with the rows and columns of the blocks before :math:`j`
    set to zero, and :math:`\tilde Q_j` with all others set to zero. For a quadratic with Hessian
    :math:`H` the matrices are :math:`H_j^T H_j`, from the rows of a block. For finite sums with
    sampled gradients they must hold for single terms in the mean square.

    Args:
      matrices: :math:`Q_j`, positive semidefinite, one for each block in the order of their
        numbers, shape (blocks, entries, entries). Entries are counted leaf by leaf.
      partition: of ``params``.
      params: real; leaves may be abstract.

    Returns:
      ``(ahead, behind)``, Python numbers.

    Raises:
      ValueError: there is not one matrix for each block, or they have other sizes than ``params``.
    """
    matrices = np.asarray(matrices, np.float64)
    leaves, structure = jax.tree.flatten(params)
    ends = np.cumsum([0, *(leaf.size for leaf in leaves)])
    num_entries = int(ends[-1])
    pieces = np.split(np.arange(num_entries), ends[1:-1])
    positions = [x.reshape(leaf.shape) for x, leaf in zip(pieces, leaves, strict=True)]
    blocks = partition(params)
    num_blocks = len(blocks.names)
    shape = (num_blocks, num_entries, num_entries)
    if matrices.shape != shape:
        raise ValueError(f"matrices must have the shape {shape}, got {matrices.shape}.")
    block_of = np.zeros(num_entries, int)
    for j in range(num_blocks):
        taken = blocks.take(jax.tree.unflatten(structure, positions), j)
        for part in jax.tree.leaves(taken):
            block_of[np.ravel(part)] = j
    first, last = np.minimum.outer(block_of, block_of), np.maximum.outer(block_of, block_of)
    number = np.arange(num_blocks)[:, None, None]
    ahead = np.sum(np.where(first >= number, matrices, 0), axis=0)
    behind = np.sum(np.where(last < number, matrices, 0), axis=0)
    return CyclicSmoothness(*(float(np.linalg.norm(q, 2) ** 0.5) for q in (ahead, behind)))


def cyclic_descent_bound(smoothness: Any, gap: Any, num_cycles: Any) -> Any:
    r"""What :func:`cyclic_block_descent` guarantees of the least squared distance to stationarity.

    .. math::

       \min_{k \le K} \mathrm{dist}^2(0, \partial F(x_k)) \le \frac{8 \hat L (F(x_0) - \min F)}{K},

    with steps :math:`1 / \hat L` in every block, see
    :func:`~stochopt.blocks.mahalanobis_constants`.

    Args:
      smoothness: :math:`\hat L`.
      gap: at least :math:`F(x_0) - \min F`.
      num_cycles: :math:`K`.
    """
    return 8 * smoothness * gap / num_cycles


def vr_cyclic_step(
    block_smoothness: Any,
    cyclic_smoothness: tuple[float, float],
    *,
    num_terms: int,
    batch_size: int,
) -> Any:
    r"""The step for which :func:`vr_cyclic_descent_bound` is proved.

    .. math::

       \eta = \frac{1}{2 \left(\max_j L_j + \sqrt{a} \sqrt{\hat L^2 + \tilde L^2}\right)}, \qquad
       a = \frac{n}{b^2}

    It is the one of all blocks, :math:`\eta_j = \eta`: with ``smoothness=1 / step`` and
    ``learning_rate=1`` in :func:`vr_cyclic_block_descent`.

    Args:
      block_smoothness: :math:`L_j`.
      cyclic_smoothness: :math:`(\hat L, \tilde L)` of single terms in the mean square, see
        :func:`mahalanobis_constants`.
      num_terms: :math:`n` of the finite sum.
      batch_size: :math:`b`, for the probability :math:`b / (n + b)` of full gradients.
    """
    check_range("block_smoothness", block_smoothness, "(0, inf)")
    check_count("num_terms", num_terms)
    check_count("batch_size", batch_size)
    both = np.hypot(*cyclic_smoothness)
    return 1 / (2 * (np.max(block_smoothness) + num_terms**0.5 / batch_size * both))


def vr_cyclic_descent_bound(step: Any, gap: Any, num_cycles: Any) -> Any:
    r"""What :func:`vr_cyclic_block_descent` guarantees of the squared distance to stationarity.

    .. math::

       \frac1K \sum_{k \le K} E\, \mathrm{dist}^2(0, \partial F(x_k))
       \le \frac{21 (F(x_0) - \min F)}{\eta K}

    with the step of :func:`vr_cyclic_step` in every block and a batch of its own for each.

    Args:
      step: :math:`\eta`.
      gap: at least :math:`F(x_0) - \min F`.
      num_cycles: :math:`K`.
    """
    return 21 * gap / (step * num_cycles)
