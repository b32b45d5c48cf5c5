"""The nuclear norm: soft thresholding of singular values."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from stochopt._checks import check_range
from stochopt.proximal.operator import ProximalOperator, scalars, total


def nuclear_norm(weight: Any) -> ProximalOperator:
    r"""The sum of the singular values of every matrix, :math:`\lambda \|X\|_*`.

    .. math:: P = U \max(\Sigma - s \lambda, 0) V^*, \qquad V = U \Sigma V^*

    The last two axes of a leaf are those of a matrix and the others count matrices. One singular
    value decomposition for each. The operator is differentiable where no singular value equals
    :math:`s \lambda`, and so is this one: repeated singular values and zeros do no harm.

    Args:
      weight: :math:`\lambda \ge 0`.

    Raises:
      ValueError: a leaf has fewer than two axes.

    References:
      Cai, Candès, Shen, `A Singular Value Thresholding Algorithm for Matrix Completion
      <https://arxiv.org/abs/0810.3286>`_, 2010. The derivative: Candès, Sing-Long, Trzasko,
      `Unbiased Risk Estimates for Singular Value Thresholding and Spectral Estimators
      <https://arxiv.org/abs/1210.4139>`_, 2013.
    """
    check_range("weight", weight, "[0, inf)")

    def prox(x: jax.Array, step: Any) -> jax.Array:
        lam, s = scalars(x, weight, step)
        return _threshold_singular_values(_matrices(x), s * lam)

    def norms(x: jax.Array) -> jax.Array:
        return scalars(x, weight)[0] * jnp.linalg.svd(_matrices(x), compute_uv=False)

    return ProximalOperator(
        lambda params, step: jax.tree.map(lambda x: prox(x, step), params),
        lambda params: total(norms, params),
    )


def _matrices(x: jax.Array) -> jax.Array:
    if x.ndim < 2:
        raise ValueError(f"nuclear_norm: a leaf of shape {x.shape} is not a matrix.")
    return x


_svd = functools.partial(jnp.linalg.svd, full_matrices=False)


@jax.custom_jvp
def _threshold_singular_values(x: jax.Array, threshold: jax.Array) -> jax.Array:
    u, sigma, vh = _svd(x)
    return (u * jnp.maximum(sigma - threshold, 0)[..., None, :]) @ vh


@_threshold_singular_values.defjvp
def _threshold_singular_values_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    r"""The derivative of :math:`U f(\Sigma) V^*` without that of the decomposition.

    In the bases of the singular vectors the Hermitian part of the tangent is multiplied by the
    divided differences :math:`(f_i - f_j) / (\sigma_i - \sigma_j)`, the skew part by
    :math:`(f_i + f_j) / (\sigma_i + \sigma_j)`, and what lies outside of them by
    :math:`f_i / \sigma_i`.
    """
    (x, threshold), (dx, dthreshold) = primals, tangents
    u, sigma, vh = _svd(x)
    f = jnp.maximum(sigma - threshold, 0)
    adjoint = lambda a: jnp.swapaxes(a, -1, -2).conj()
    safe_divide = lambda a, b: jnp.where(a == 0, 0, a / jnp.where(a == 0, 1, b))
    row, column = (lambda a: a[..., :, None]), (lambda a: a[..., None, :])

    # f is piecewise linear: within a piece the divided difference is its slope.
    is_kept = sigma > threshold
    both = row(is_kept) & column(is_kept)
    gap = jnp.where(both, 1, row(sigma) - column(sigma))
    differences = jnp.where(both, 1, safe_divide(row(f) - column(f), gap))
    sums = safe_divide(row(f) + column(f), row(sigma) + column(sigma))

    inside = adjoint(u) @ dx @ adjoint(vh)
    hermitian, skew = (inside + adjoint(inside)) / 2, (inside - adjoint(inside)) / 2
    moved = differences * hermitian + sums * skew
    ratio = column(safe_divide(f, sigma))
    left = dx @ adjoint(vh) - u @ inside  # of columns outside the range of u
    above = adjoint(u) @ dx - inside @ vh  # of rows outside the range of v
    shift = column(jnp.where(is_kept, dthreshold, 0)) * u

    value = (u * column(f)) @ vh
    tangent = (u @ moved + left * ratio - shift) @ vh + (u * ratio) @ above
    return value, tangent
