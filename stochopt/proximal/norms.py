"""Norms of whole groups of entries: a group survives or vanishes as one."""

from typing import Any

import jax
import jax.numpy as jnp

from stochopt._checks import check_range
from stochopt.proximal.operator import ProximalOperator, root, scalars, square, total


def l2(weight: Any) -> ProximalOperator:
    r"""The Euclidean norm of the whole tree, not squared: :math:`\lambda \|x\|_2`.

    .. math:: p = \max\left(1 - \frac{s \lambda}{\|v\|_2}, 0\right) v

    Args:
      weight: :math:`\lambda \ge 0`.

    References:
      Parikh, Boyd, `Proximal Algorithms <https://web.stanford.edu/~boyd/papers/prox_algs.html>`_,
      2014, section 6.5.1.
    """
    check_range("weight", weight, "[0, inf)")
    norm = lambda params: root(total(square, params))

    def prox(params: Any, step: Any) -> Any:
        size = norm(params)
        factor = _shrinkage(size, weight, step)
        return jax.tree.map(lambda x: scalars(x, factor)[0] * x, params)

    def function(params: Any) -> jax.Array:
        size = norm(params)
        return scalars(size, weight)[0] * size

    return ProximalOperator(prox, function)


def group_lasso(weight: Any, axis: int | tuple[int, ...] | None = None) -> ProximalOperator:
    r"""The sum of the norms of groups, :math:`\lambda \sum_g \|x_g\|_2`.

    .. math:: p_g = \max\left(1 - \frac{s \lambda}{\|v_g\|_2}, 0\right) v_g

    Every leaf is cut into groups on its own. A group runs along ``axis``, with all other axes
    counting the groups: ``axis=1`` makes a group of every row of a matrix, ``axis=(0, 1, 2)`` of
    every filter of a convolution. For groups that span leaves take :func:`l2` in
    :func:`partition`.

    Args:
      weight: :math:`\lambda \ge 0`. Yuan and Lin multiply it by the root of the group's size, which
        matters when sizes differ; give such groups weights of their own in :func:`partition`.
      axis: the axis or axes along which a group runs; ``None`` makes a group of every leaf.

    References:
      Yuan, Lin, `Model Selection and Estimation in Regression with Grouped Variables
      <https://doi.org/10.1111/j.1467-9868.2005.00532.x>`_, 2006.
    """
    check_range("weight", weight, "[0, inf)")
    norms = lambda x: root(jnp.sum(square(x), axis=axis, keepdims=True))

    def prox(x: jax.Array, step: Any) -> jax.Array:
        return _shrinkage(norms(x), weight, step) * x

    return ProximalOperator(
        lambda params, step: jax.tree.map(lambda x: prox(x, step), params),
        lambda params: total(lambda x: scalars(x, weight)[0] * norms(x), params),
    )


def _shrinkage(norm: jax.Array, weight: Any, step: Any) -> jax.Array:
    """``max(1 - step * weight / norm, 0)``; NaN stays NaN."""
    lam, s = scalars(norm, weight, step)
    vanishes = norm <= s * lam
    return jnp.where(vanishes, 0, 1 - s * lam / jnp.where(vanishes, 1, norm))
