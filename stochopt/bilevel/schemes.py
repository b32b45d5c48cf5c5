r"""What a blockwise method keeps of the system :math:`\nabla^2_{yy} g_i\, p_i = \nabla_y f_i`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from stochopt._checks import check_range
from stochopt._oracles import scalar_oracle
from stochopt.bilevel.field import LowerAndAdjoint, LowerOnly
from stochopt.bilevel.hypergradient import Lower, Upper, lower_products


class Scheme(NamedTuple):
    """The variables of a block, their directions, and the adjoint variable that follows.

    All functions are about one block; the estimator maps them over the sampled ones.

    Attributes:
      start: ``start(lower_params)``, the moving variables at the start, a NamedTuple.
      directions: ``directions(params, variables, batch_i)``, like ``variables``.
      hessian: ``hessian(params, variables, batch_i)``, a matrix to be tracked, or ``None``.
      kept: what is kept of a tracked matrix.
      adjoint: ``adjoint(variables, matrix, slope)``, :math:`p_i` from the slope of ``upper`` in the
        lower variable.
    """

    start: Callable[[Any], Any]
    directions: Callable[[Any, Any, Any], Any]
    hessian: Callable[[Any, Any, Any], jax.Array] | None
    kept: Callable[[jax.Array], jax.Array]
    adjoint: Callable[[Any, Any, Any], Any]


def tracked_solution(upper: Upper, lower: Lower) -> Scheme:
    r"""Moves :math:`p_i` along :math:`\nabla^2_{yy} g_i\, p_i - \nabla_y f_i`, like a variable."""

    def directions(params: Any, variables: LowerAndAdjoint, batch: Any) -> LowerAndAdjoint:
        y, p = variables
        products = lower_products(lower, params, y, batch, p)
        slope = jax.grad(scalar_oracle("upper", upper), argnums=1)(params, y, batch)
        return LowerAndAdjoint(products.gradient, optax.tree.sub(products.hessian_product, slope))

    return Scheme(
        start=lambda y: LowerAndAdjoint(y, optax.tree.zeros_like(y)),
        directions=directions,
        hessian=None,
        kept=lambda matrix: matrix,
        adjoint=lambda variables, matrix, slope: variables.adjoint,
    )


def tracked_hessian(lower: Lower, *, floor: float | None = None, damping: float = 0.0) -> Scheme:
    r"""Tracks the matrix :math:`H_i` and solves :math:`(H_i + \delta I)\, p_i = \nabla_y f_i`.

    Args:
      lower: of one block.
      floor: :math:`\mu > 0`, the least eigenvalue of what is kept,
        :math:`U \max(\Lambda, \mu) U^T` for :math:`H = U \Lambda U^T`: the nearest such matrix, at
        the price of an eigendecomposition; ``None`` keeps the symmetric part as it is.
      damping: :math:`\delta \ge 0`, added when the system is solved: cheap, and enough where the
        lower problem is strongly convex at every sample. A matrix that is not positive definite
        gives NaN.
    """
    if floor is not None:
        check_range("floor", floor, "(0, inf)")
    check_range("damping", damping, "[0, inf)")
    lower = scalar_oracle("lower", lower)

    def directions(params: Any, variables: LowerOnly, batch: Any) -> LowerOnly:
        return LowerOnly(jax.grad(lower, argnums=1)(params, variables.lower_params, batch))

    def hessian(params: Any, variables: LowerOnly, batch: Any) -> jax.Array:
        flat, unravel = ravel_pytree(variables.lower_params)
        return jax.hessian(lambda y: lower(params, unravel(y), batch))(flat)

    def kept(matrix: jax.Array) -> jax.Array:
        symmetric = (matrix + matrix.T) / 2
        if floor is None:
            return symmetric
        values, vectors = jnp.linalg.eigh(symmetric)
        return (vectors * jnp.maximum(values, floor)[None]) @ vectors.T

    def adjoint(variables: LowerOnly, matrix: jax.Array, slope: Any) -> Any:
        del variables
        flat, unravel = ravel_pytree(slope)
        damped = matrix.astype(flat.dtype) + damping * jnp.eye(len(flat), dtype=flat.dtype)
        factor = jax.scipy.linalg.cho_factor(damped, lower=True)
        return unravel(jax.scipy.linalg.cho_solve(factor, flat))

    return Scheme(LowerOnly, directions, hessian, kept, adjoint)


def adjoint_of_rows(scheme: Scheme, *rows: Any) -> Any:
    """``scheme.adjoint`` of some blocks: variables, matrices and slopes by rows."""
    together = lambda *rows: jax.vmap(scheme.adjoint)(*rows)
    if scheme.hessian is None:
        return together(*rows)
    # A batched factorization waits for threads of the pool that runs it: on two cores, forever if
    # something beside it does so too (jaxlib 0.10).
    one_by_one = lambda *rows: jax.lax.map(lambda row: scheme.adjoint(*row), rows)
    return jax.lax.platform_dependent(*rows, cpu=one_by_one, default=together)


def hypergradient_of_rows(
    upper: Upper,
    lower: Lower,
    params: Any,
    lower_params: Any,
    adjoint_of: Callable[[Any], Any],
    batch: Any,
    weights: jax.Array,
) -> tuple[jax.Array, Any, jax.Array]:
    r"""Value, direction and least curvature of some blocks.

    The direction is the gradient in ``params`` of
    :math:`\sum_i w_i (f_i(x, y_i) - \langle \nabla_y g_i(x, y_i), p_i \rangle)` at fixed
    :math:`y, p`: one backward pass for all blocks.

    Args:
      upper: of one block.
      lower: of one block.
      params: :math:`x`.
      lower_params: :math:`y_i`, a row for each block.
      adjoint_of: from the slopes of ``upper`` in the lower variables to :math:`p_i`, by rows.
      batch: a row for each block.
      weights: :math:`w_i`.
    """
    in_rows = (None, 0, 0)
    upper, lower = scalar_oracle("upper", upper), scalar_oracle("lower", lower)
    slopes = jax.vmap(jax.grad(upper, argnums=1), in_rows)(params, lower_params, batch)
    adjoint = adjoint_of(slopes)

    def along(params: Any, y: Any, p: Any, batch: Any) -> jax.Array:
        """The derivative of the lower function along p."""
        return jax.jvp(lambda y: lower(params, y, batch), (y,), (p,))[1]

    def curvature(y: Any, p: Any, batch: Any) -> jax.Array:
        second = jax.jvp(lambda y: along(params, y, p, batch), (y,), (p,))[1]
        squared = optax.tree.vdot(p, p)
        return jnp.where(squared > 0, second / jnp.where(squared > 0, squared, 1), jnp.inf)

    def total(params: Any) -> tuple[jax.Array, jax.Array]:
        values = jax.vmap(upper, in_rows)(params, lower_params, batch)
        below = jax.vmap(along, (None, 0, 0, 0))(params, lower_params, adjoint, batch)
        return jnp.sum(weights * (values - below)), jnp.sum(weights * values)

    direction, value = jax.grad(total, has_aux=True)(params)
    curvatures = jax.vmap(curvature)(lower_params, adjoint, batch)
    # Conjugated, as optax wants complex gradients; nothing changes for real ones.
    return value, optax.tree.conj(direction), jnp.min(jnp.where(weights > 0, curvatures, jnp.inf))
