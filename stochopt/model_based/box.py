"""Least absolute residuals near a point, through the dual problem on a box."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_CENTERING = 0.1  # of the complementarity, which falls about tenfold in an iteration
_TO_THE_BOUNDARY = 0.99  # of the way
_MAX_ITERATIONS = 50  # about 15 are the rule


class _Iterate(NamedTuple):
    count: jax.Array  # type: ignore[assignment]
    inside: jax.Array  # the multipliers l, strictly within the box
    above: jax.Array  # multiplier of l <= 1
    below: jax.Array  # multiplier of l >= -1


def least_absolute_multipliers(matrix: jax.Array, residuals: jax.Array) -> jax.Array:
    r"""The dual solution of a problem of least absolute residuals.

    .. math::

       \min_s\; \frac1m \sum_i |c_i + \langle z_i, s \rangle| + \frac{1}{2 \eta} \|s\|^2

    is solved by :math:`s = -\frac{\eta}{m} \sum_i \lambda_i z_i` with

    .. math::

       \lambda = \arg\max_{\lambda \in [-1, 1]^m}\; c^T \lambda - \frac12 \lambda^T A \lambda,
       \qquad A_{ij} = \frac{\eta}{m} \langle z_i, z_j \rangle .

    One residual has the closed form :math:`\lambda = \mathrm{clip}(c / A, -1, 1)`. More of them
    take a primal-dual interior point method, each iteration of which factorizes one matrix of size
    :math:`m`; their number hardly depends on :math:`A`, which may be singular. It ends when
    :func:`duality_gap` is at the level of rounding in :math:`c - A \lambda`. That is coarse where
    entries of :math:`A` are large, from long steps on more residuals than parameters.

    Args:
      matrix: :math:`A`, positive semidefinite, of shape (m, m).
      residuals: :math:`c`, of shape (m,).

    Returns:
      :math:`\lambda`, of shape (m,), within the box.
    """
    if residuals.size == 1:
        curvature = matrix[0, 0]
        flat = curvature <= 0
        ratio = residuals / jnp.where(flat, 1, curvature)
        return jnp.where(flat, jnp.sign(residuals), jnp.clip(ratio, -1, 1))

    eps = jnp.finfo(residuals.dtype).eps
    # A ridge of the size of rounding: a singular matrix may have slightly negative eigenvalues.
    ridge = (
        residuals.size * eps * jnp.trace(matrix) * jnp.eye(residuals.size, dtype=residuals.dtype)
    )

    def unsolved(at: _Iterate) -> jax.Array:
        terms = jnp.abs(residuals) + jnp.abs(matrix) @ jnp.abs(at.inside)
        above_rounding = duality_gap(matrix, residuals, at.inside) > 4 * eps * jnp.mean(terms)
        return above_rounding & (at.count < _MAX_ITERATIONS)

    def iterate(at: _Iterate) -> _Iterate:
        to_top, to_bottom = jnp.maximum(1 - at.inside, eps), jnp.maximum(1 + at.inside, eps)
        complementarity = jnp.mean(at.above * to_top + at.below * to_bottom) / 2
        target = _CENTERING * complementarity
        slope = residuals - matrix @ at.inside - target / to_top + target / to_bottom
        hessian = matrix + ridge + jnp.diag(at.above / to_top + at.below / to_bottom)
        move = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(hessian), slope)
        above = (target + at.above * move) / to_top - at.above
        below = (target - at.below * move) / to_bottom - at.below
        # How often the longest positive step goes into the whole one.
        shares = jnp.stack([move / to_top, -move / to_bottom, -above / at.above, -below / at.below])
        length = jnp.minimum(1.0, _TO_THE_BOUNDARY / jnp.maximum(jnp.max(shares), 1e-3))
        new = _Iterate(
            count=at.count + 1,
            inside=at.inside + length * move,
            above=at.above + length * above,
            below=at.below + length * below,
        )
        # Where rounding spoils the matrix, the last iterate is the best that there is.
        usable = jnp.all(jnp.isfinite(jnp.concatenate(new[1:])))
        last = at._replace(count=jnp.full_like(at.count, _MAX_ITERATIONS))
        return jax.tree.map(lambda a, b: jnp.where(usable, a, b), new, last)

    scale = jnp.mean(jnp.abs(residuals))
    start = _Iterate(
        count=jnp.zeros([], jnp.int32),
        inside=0 * residuals,  # not a number where a residual is none, and so is the step
        above=jnp.maximum(residuals, 0)
        + scale,  # above - below is the residual, as at the solution
        below=jnp.maximum(-residuals, 0) + scale,
    )
    return jnp.clip(jax.lax.while_loop(unsolved, iterate, start).inside, -1, 1)


def duality_gap(matrix: jax.Array, residuals: jax.Array, multipliers: jax.Array) -> jax.Array:
    r"""How far the step of some multipliers in the box is from the least value, at most.

    .. math:: \frac1m \sum_i \left(|r_i| - \lambda_i r_i\right), \qquad r = c - A \lambda .
    """
    remaining = residuals - matrix @ multipliers
    return jnp.mean(jnp.abs(remaining) - multipliers * remaining)
