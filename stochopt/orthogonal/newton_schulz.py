r"""The polar factor of a matrix, approximately (Newton-Schulz) or exactly (SVD).

For a matrix with reduced singular value decomposition :math:`G = U \Sigma W^*` the *polar factor*
is :math:`\mathrm{Orth}(G) = U W^*`, the nearest matrix with orthonormal rows or columns.

An *orthogonalizer* is any function that maps a batch of matrices, shape ``(..., m, n)``, to their
polar factors. Methods take it as an argument.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from stochopt import _tree

Orthogonalizer = Callable[[jax.Array], jax.Array]

#: Keller Jordan's coefficients: steep at zero, so that five steps lift small singular values to
#: the band [0.68, 1.2] instead of converging to one.
JORDAN = ((3.4445, -4.7750, 2.0315),) * 5


def _adjoint(x: jax.Array) -> jax.Array:
    return jnp.conj(jnp.swapaxes(x, -1, -2))


def newton_schulz(
    x: jax.Array,
    coefficients: Sequence[tuple[float, float, float]] = JORDAN,
    *,
    eps: float = 1e-8,
) -> jax.Array:
    r"""Approximates the polar factor by an odd polynomial iteration.

    .. math::

       X_0 = \frac{G}{\|G\|_F + \varepsilon}, \qquad
       X_{k+1} = a_k X_k + \left(b_k A_k + c_k A_k^2\right) X_k, \quad A_k = X_k X_k^*,

    one step per triple :math:`(a_k, b_k, c_k)`. The polynomial is odd, so a zero matrix stays zero
    and :math:`\mathrm{Orth}(G^*) = \mathrm{Orth}(G)^*`; a tall matrix is transposed first so that
    :math:`A_k` is the small Gram matrix. Cost for ``m <= n``: :math:`4 m^2 n + 2 m^3` FLOPs a step.

    Args:
      x: batch of matrices, shape ``(..., m, n)``, real or complex.
      coefficients: one triple per step; the number of triples is the number of steps.
      eps: added to the norm, in the units of ``x``.

    Returns:
      Array like ``x``. Computed in float32 or wider.

    References:
      Jordan et al., `Muon <https://kellerjordan.github.io/posts/muon/>`_, 2024
    """
    dtype = _tree.at_least_float32(x.dtype)
    y = x.astype(dtype)
    tall = y.shape[-2] > y.shape[-1]
    if tall:
        y = _adjoint(y)
    norm = jnp.sqrt(_tree.dot(y, y, jnp.finfo(dtype).dtype, axis=(-2, -1)))
    y = y / (norm[..., None, None] + eps).astype(dtype)
    for a, b, c in coefficients:
        gram = y @ _adjoint(y)
        y = a * y + (b * gram + c * (gram @ gram)) @ y
    if tall:
        y = _adjoint(y)
    return y.astype(x.dtype)


def svd_polar(x: jax.Array) -> jax.Array:
    r"""The exact polar factor :math:`U W^*` from a singular value decomposition.

    Singular values below ``max(m, n) * machine epsilon`` times the largest count as zero and their
    directions are dropped, so that a zero matrix maps to zero.

    Args:
      x: batch of matrices, shape ``(..., m, n)``, real or complex.

    Returns:
      Array like ``x``. Computed in float32 or wider.
    """
    dtype = _tree.at_least_float32(x.dtype)
    u, s, wh = jnp.linalg.svd(x.astype(dtype), full_matrices=False)
    tolerance = max(x.shape[-2:]) * float(jnp.finfo(dtype).eps) * s[..., :1]
    return ((u * (s > tolerance)[..., None, :].astype(dtype)) @ wh).astype(x.dtype)
