"""An l1-penalized quadratic in few unknowns, from its Gram matrix."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

#: Cycles over all coordinates between two looks at the duality gap.
CYCLES = 5


Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


class GramQuadratic(NamedTuple):
    r"""The smooth part of a penalized problem in some of its unknowns.

    .. math:: \tfrac12 x^\top G x - c^\top x + \tfrac12 e

    Attributes:
      gram: :math:`G`, symmetric and positive semidefinite.
      linear: :math:`c`.
      energy: :math:`e`, twice the value at zero.
    """

    gram: jax.Array
    linear: jax.Array
    energy: jax.Array


def lasso_gap(
    penalty: jax.Array, params: jax.Array, slope: jax.Array, energy: jax.Array
) -> jax.Array:
    r"""A bound on how far a lasso is from its minimum: primal minus dual objective.

    With the residual :math:`r = b - A x` and :math:`g = A^\top r / n`, the objective and that of
    the dual problem at the rescaled residual, which is feasible, are

    .. math::

       F(x) = \frac{1}{2n} \|r\|^2 + \lambda \|x\|_1, \qquad
       D(s r) = \frac{1}{2n} \left(\|b\|^2 - \|b - s r\|^2\right), \qquad
       s = \min\left(1, \frac{\lambda}{\|g\|_\infty}\right),

    and :math:`D(s r) \le \min F`. Since :math:`b = r + A x`, the difference is

    .. math:: (1 - s)^2 \frac{\|r\|^2}{2n} + \sum_j (\lambda |x_j| - s\, x_j g_j),

    where no term is negative, so that a small gap is not lost in rounding. An elastic net is a
    lasso with the rows :math:`\sqrt{n \mu} I` below :math:`A` and zeros below :math:`b`.

    Args:
      penalty: :math:`\lambda > 0`.
      params: :math:`x`.
      slope: :math:`g`; for an elastic net :math:`A^\top r / n - \mu x`.
      energy: :math:`\|r\|^2 / n`; for an elastic net :math:`\|r\|^2 / n + \mu \|x\|^2`.
    """
    s = dual_scale(penalty, slope)
    return (1 - s) ** 2 * energy / 2 + jnp.sum(penalty * jnp.abs(params) - s * params * slope)


def dual_scale(penalty: jax.Array, slope: jax.Array) -> jax.Array:
    """The largest factor up to one that makes the residual feasible for the dual problem."""
    return penalty / jnp.maximum(penalty, jnp.max(jnp.abs(slope)))


def minimize_with_l1(
    quadratic: GramQuadratic,
    penalty: jax.Array,
    params: jax.Array,
    tolerance: jax.Array,
    *,
    max_rounds: int = 50,
) -> jax.Array:
    r"""Minimizes a quadratic plus :math:`\lambda \|x\|_1`.

    A round is five cycles of exact coordinate descent, where the update of an unknown is an axpy
    with a row of the Gram matrix. If the last of them changed no sign, :func:`newton_on_support`
    follows: once the support and the signs are those of the minimizer, it ends there. After a step
    that had to be cut, as the support is not yet found, the next one waits twice as many rounds as
    the last. No step raises the objective.

    Args:
      quadratic: the smooth part.
      penalty: :math:`\lambda > 0`.
      params: where to start.
      tolerance: of the duality gap.
      max_rounds: after so many it ends in any case.
    """
    gram, linear, energy = quadratic
    curvature = jnp.diagonal(gram)
    inverse = jnp.where(curvature > 0, 1 / jnp.where(curvature > 0, curvature, 1), 0)

    def move(j: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x, slope = carry
        row = jax.lax.dynamic_index_in_dim(gram, j, keepdims=False)
        target = curvature[j] * x[j] + slope[j]
        new = jnp.sign(target) * jnp.maximum(jnp.abs(target) - penalty, 0) * inverse[j]
        return x.at[j].set(new), slope - (new - x[j]) * row

    def cycle(_: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return jax.lax.fori_loop(0, carry[0].shape[0], move, carry)

    def one_round(carry: Carry) -> Carry:
        x, slope, _, rounds, wait, newton_round = carry
        before, slope = jax.lax.fori_loop(0, CYCLES - 1, cycle, (x, slope))
        x, slope = cycle(None, (before, slope))
        settled = jnp.all(jnp.sign(x) == jnp.sign(before)) & (rounds >= newton_round)
        newton = lambda: newton_on_support(gram, penalty, x, slope)
        x, step = jax.lax.cond(settled, newton, lambda: (x, jnp.ones([], x.dtype)))
        wait = jnp.where(step < 1, 2 * wait, 1)
        newton_round = jnp.where(settled, rounds + wait, newton_round)
        slope = linear - gram @ x  # afresh, so that no rounding piles up
        gap = lasso_gap(penalty, x, slope, energy - x @ (linear + slope))
        return x, slope, gap, rounds + 1, wait, newton_round

    def goes_on(carry: Carry) -> jax.Array:
        return (carry[2] > tolerance) & (carry[3] < max_rounds)

    zero, one = jnp.zeros([], jnp.int32), jnp.ones([], jnp.int32)
    unknown = jnp.full([], jnp.inf, gram.dtype)
    start = params, linear - gram @ params, unknown, zero, one, zero
    return jax.lax.while_loop(goes_on, one_round, start)[0]


def newton_on_support(
    gram: jax.Array, penalty: jax.Array, params: jax.Array, slope: jax.Array
) -> tuple[jax.Array, jax.Array]:
    r"""A Newton step in the nonzero unknowns :math:`S`, cut where the first of them gets to zero.

    .. math:: G_{SS}\, d_S = g_S - \lambda \operatorname{sign}(x_S), \qquad x \leftarrow x + t d

    Without a change of sign the objective is a convex quadratic, along :math:`d` with its minimum
    at :math:`t = 1`, so it falls up to there. What rounding might add is added to the diagonal, so
    that dependent columns do no harm.

    Args:
      gram: :math:`G`.
      penalty: :math:`\lambda`.
      params: :math:`x`.
      slope: :math:`g = c - G x`.

    Returns:
      The new point, and :math:`t \le 1`.
    """
    on = params != 0
    jitter = jnp.finfo(gram.dtype).eps * jnp.trace(gram)
    within = jnp.where(on[:, None] & on, gram, 0) + jnp.diag(jnp.where(on, jitter, 1))
    factor = jnp.linalg.cholesky(within)
    direction = jnp.where(on, slope - penalty * jnp.sign(params), 0)
    direction = jax.scipy.linalg.cho_solve((factor, True), direction)
    direction = jnp.where(jnp.all(jnp.isfinite(direction)), direction, 0)
    crosses = params * direction < 0
    steps = jnp.where(crosses, -params / jnp.where(crosses, direction, 1), jnp.inf)
    step = jnp.minimum(1, jnp.min(steps))
    return jnp.where(steps <= step, 0, params + step * direction), step
