r"""The polar factor of a matrix, approximately (Newton-Schulz) or exactly (SVD).

For a matrix with reduced singular value decomposition :math:`G = U \Sigma W^*` the *polar factor*
is :math:`\mathrm{Orth}(G) = U W^*`, the nearest matrix with orthonormal rows or columns.

An *orthogonalizer* is any function that maps a batch of matrices, shape ``(..., m, n)``, to their
polar factors, and transposed matrices to transposed polar factors. Methods take it as an argument.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stochopt import _tree
from stochopt._checks import check_count, check_range
from stochopt.orthogonal.coefficients import JORDAN, Table, check_table, polar_express

Orthogonalizer = Callable[[jax.Array], jax.Array]

#: Rows from which on one product of matrices fills the cores of a CPU. There a loop over matrices,
#: each in the cache, beats a batch; and a loop over steps costs little and compiles faster.
LARGE = 128

# The Gram form may lose this part of an eigenvalue before it starts anew.
_TOLERATED_ERROR = 0.1


def newton_schulz(
    x: jax.Array,
    coefficients: Table = JORDAN,
    *,
    dtype: jax.typing.DTypeLike | None = None,
    precision: jax.lax.PrecisionLike = None,
) -> jax.Array:
    r"""Approximates the polar factor by an odd polynomial iteration.

    .. math::

       X_0 = \frac{G}{\|G\|_F}, \qquad
       X_{k+1} = P_k X_k, \quad P_k = a_k I + b_k A_k + c_k A_k^2, \quad A_k = X_k X_k^*,

    one step per triple :math:`(a_k, b_k, c_k)`. The polynomial is odd, so a zero matrix stays zero
    and :math:`\mathrm{Orth}(G^*) = \mathrm{Orth}(G)^*`; a tall matrix is transposed first so that
    :math:`A_k` is the small Gram matrix. Scaling :math:`G` changes nothing, at any magnitude.

    For ``m <= n`` this *direct form* costs :math:`4 m^2 n + 2 m^3` FLOPs a step. All :math:`P_k`
    are polynomials of :math:`A_0` and commute, hence the *Gram form*

    .. math::

       A_{k+1} = P_k^2 A_k, \qquad X_s = \left(P_{s-1} \cdots P_0\right) X_0

    multiplies large matrices only twice: :math:`4 m^2 n + (8 s - 6) m^3` FLOPs for :math:`s` steps.
    It is taken where it is cheaper: for five steps when ``n`` is more than 1.5 times ``m``.
    Rounding errors of :math:`A_0` grow by :math:`a_k^2` in each step where :math:`A_0` has small
    eigenvalues, until the computed :math:`A_k` has negative ones and the iteration explodes. So
    before the machine epsilon of ``dtype`` has grown beyond 0.1, :math:`X` is formed and the Gram
    form starts anew from it: never within five steps in float32, after every second step of
    Jordan's in bfloat16. In float32 both forms agree to 1e-5 on well-conditioned matrices and to
    1e-3 on ill-conditioned ones (5e-3 for ten steps); in bfloat16 both are about as far from the
    exact iteration.

    Args:
      x: batch of matrices, shape ``(..., m, n)``, real or complex.
      coefficients: one triple per step; the number of triples is the number of steps.
      dtype: of the products; ``None`` means float32 or wider. The norm is never narrower than that.
      precision: of the products, as in ``jax.numpy.matmul``.

    Returns:
      Array like ``x``. A matrix with a NaN or an infinite entry gives NaN.

    Raises:
      ValueError: ``coefficients`` are not triples, or ``x`` is not a batch of matrices.

    References:
      Jordan et al., `Muon <https://kellerjordan.github.io/posts/muon/>`_, 2024
    """
    check_matrices(x)
    width = jnp.dtype(_tree.at_least_float32(x.dtype) if dtype is None else dtype)
    return _newton_schulz(x, check_table(coefficients), width, precision)


# Compiled once for each shape also where nothing else is, and one function in the program for all
# equal calls.
@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _newton_schulz(x: jax.Array, table: Table, dtype: Any, precision: Any) -> jax.Array:
    iterate = functools.partial(_iterate, table=table, dtype=dtype, precision=precision)
    batch = x.shape[:-2]
    if batch == (1,):  # a product without a batch axis compiles faster
        return iterate(x[0])[None]
    if len(batch) != 1 or min(x.shape[-2:]) < LARGE:
        return iterate(x)
    return jax.lax.platform_dependent(
        x, cpu=functools.partial(jax.lax.map, iterate), default=iterate
    )


@functools.partial(jax.jit, static_argnames=("table", "dtype", "precision"))
def _iterate(x: jax.Array, *, table: Table, dtype: Any, precision: Any) -> jax.Array:
    tall = x.shape[-2] > x.shape[-1]
    y = normalized(jnp.swapaxes(x, -1, -2) if tall else x).astype(dtype)
    product = functools.partial(jnp.matmul, precision=precision)
    for part in _parts(table, float(jnp.finfo(dtype).eps)):
        y = _form(part, *y.shape[-2:])(y, part, product)
    return (jnp.swapaxes(y, -1, -2) if tall else y).astype(x.dtype)


def _parts(table: Table, epsilon: float) -> list[Table]:
    """Cuts the table where an error of ``epsilon`` would have grown beyond what is tolerated."""
    parts: list[Table] = []
    error = float("inf")
    for triple in table:
        if error > _TOLERATED_ERROR:
            parts.append(())
            error = epsilon
        parts[-1] += (triple,)
        error *= triple[0] ** 2
    return parts


def _form(table: Table, rows: int, columns: int) -> Callable[..., jax.Array]:
    """The form with fewer multiplications for ``rows <= columns``."""
    steps = len(table)
    quintic = steps if any(c for _, _, c in table) else 0
    direct = 2 * steps * columns + quintic * rows
    gram = 2 * columns + (quintic + 3 * (steps - 1)) * rows
    return _gram_form if gram < direct else _direct_form


def _factor(gram: jax.Array, triple: Any, quintic: bool, product: Callable) -> jax.Array:
    """``b A + c A^2``."""
    power = triple[1] * gram
    return power + triple[2] * product(gram, gram) if quintic else power


# Both forms loop over the steps, so that a program holds each product once, not once per step. Not
# for small matrices, where the loop itself would cost as much as a product.


def _direct_form(x: jax.Array, table: Table, product: Callable) -> jax.Array:
    quintic = any(c for _, _, c in table)

    def advance(x: jax.Array, triple: Any) -> jax.Array:
        factor = _factor(product(x, adjoint(x)), triple, quintic, product)
        return triple[0] * x + product(factor, x)

    return _loop(advance, x, table)


def _gram_form(x: jax.Array, table: Table, product: Callable) -> jax.Array:
    quintic = any(c for _, _, c in table)
    identity = jnp.eye(x.shape[-2], dtype=x.dtype)

    def factor(gram: jax.Array, triple: Any) -> jax.Array:
        return triple[0] * identity + _factor(gram, triple, quintic, product)

    def advance(carry: Any, triple: Any) -> Any:
        accumulated, gram = carry
        p = factor(gram, triple)
        return product(p, accumulated), product(p, product(p, gram))

    gram = product(x, adjoint(x))
    first = factor(gram, table[0])
    if len(table) == 1:
        return product(first, x)
    carry = (first, product(first, product(first, gram)))
    accumulated, gram = _loop(advance, carry, table[1:-1])
    return product(product(factor(gram, table[-1]), accumulated), x)


def _loop(advance: Callable[[Any, Any], Any], carry: Any, table: Table) -> Any:
    matrix = jax.tree.leaves(carry)[0]
    if matrix.shape[-2] < LARGE or len(table) < 2:
        return functools.reduce(advance, table, carry)
    if len(set(table)) == 1:  # numbers in the program, not an array to take them from
        return jax.lax.fori_loop(0, len(table), lambda _, carry: advance(carry, table[0]), carry)
    rows = jnp.asarray(table, matrix.dtype)
    return jax.lax.scan(lambda carry, row: (advance(carry, row), None), carry, rows)[0]


def newton_schulz_converged(
    x: jax.Array,
    *,
    tolerance: float = 1e-5,
    max_steps: int = 40,
    precision: jax.lax.PrecisionLike = "highest",
) -> jax.Array:
    r"""The polar factor to a tolerance, from matrix products alone.

    Iterates the direct form of :func:`newton_schulz` with the coefficients of
    :func:`stochopt.orthogonal.polar_express`, whose later steps converge quadratically, until

    .. math:: \|X - X X^* X\|_F \le \varepsilon \|X\|_F

    for every matrix of the batch. The residual is zero where all singular values are zero or one,
    so a matrix without full rank converges too; but a singular value that is tiny relative to the
    largest takes steps to rise: about eight for 1e-3, and one more for each factor of 1.9 below.
    For accelerators, where a singular value decomposition is slow.

    Args:
      x: batch of matrices, shape ``(..., m, n)``, real or complex.
      tolerance: :math:`\varepsilon`; for float32 not below 1e-6.
      max_steps: where to stop in any case.
      precision: of the products, as in ``jax.numpy.matmul``.

    Returns:
      Array like ``x``. Computed in float32 or wider.
    """
    check_matrices(x)
    check_range("tolerance", tolerance, "(0, inf)")
    check_count("max_steps", max_steps)
    product = functools.partial(jnp.matmul, precision=precision)
    dtype = _tree.at_least_float32(x.dtype)
    real = jnp.finfo(dtype).dtype
    table = jnp.asarray(polar_express(9, safety=0.0), dtype)
    norm = lambda y: jnp.sqrt(_tree.dot(y, y, real, axis=(-2, -1)))
    tall = x.shape[-2] > x.shape[-1]
    start = normalized(jnp.swapaxes(x, -1, -2) if tall else x).astype(dtype)

    def unfinished(carry: Any) -> jax.Array:
        step, y, gram = carry
        residual = norm(y - product(gram, y))
        return (step < max_steps) & jnp.any(residual > tolerance * norm(y))

    def advance(carry: Any) -> Any:
        step, y, gram = carry
        a, b, c = table[jnp.minimum(step, len(table) - 1)]
        y = a * y + product(b * gram + c * product(gram, gram), y)
        return step + 1, y, product(y, adjoint(y))

    carry = (jnp.zeros([], jnp.int32), start, product(start, adjoint(start)))
    _, y, _ = jax.lax.while_loop(unfinished, advance, carry)
    return (jnp.swapaxes(y, -1, -2) if tall else y).astype(x.dtype)


def svd_polar(x: jax.Array) -> jax.Array:
    r"""The exact polar factor :math:`U W^*` from a singular value decomposition.

    Singular values below ``max(m, n) * machine epsilon`` times the largest count as zero and their
    directions are dropped, so that a zero matrix maps to zero.

    Args:
      x: batch of matrices, shape ``(..., m, n)``, real or complex.

    Returns:
      Array like ``x``. Computed in float32 or wider.
    """
    check_matrices(x)
    dtype = _tree.at_least_float32(x.dtype)
    u, s, wh = jnp.linalg.svd(normalized(x), full_matrices=False)
    tolerance = max(x.shape[-2:]) * float(jnp.finfo(dtype).eps) * s[..., :1]
    return ((u * (s > tolerance)[..., None, :].astype(dtype)) @ wh).astype(x.dtype)


def check_matrices(x: jax.Array) -> None:
    """Raises ``ValueError`` unless ``x`` is a batch of matrices."""
    if x.ndim < 2:
        raise ValueError(f"x must be a batch of matrices (..., m, n), got shape {x.shape}.")


def adjoint(x: jax.Array) -> jax.Array:
    """Conjugate transposes of a batch of matrices."""
    return jnp.conj(jnp.swapaxes(x, -1, -2))


def normalized(x: jax.Array, axis: tuple[int, ...] = (-2, -1)) -> jax.Array:
    """``x`` over its Euclidean norms along ``axis``, zero where that is zero; float32 or wider.

    Divided by the largest entry first: the square of a float32 beyond 1e19 is no float32.
    """
    dtype = _tree.at_least_float32(x.dtype)
    real = jnp.finfo(dtype).dtype
    y = x.astype(dtype)
    largest = jnp.max(jnp.abs(y), axis=axis, keepdims=True, initial=0.0)
    y = y / divisor(largest).astype(dtype)
    norm = jnp.expand_dims(jnp.sqrt(_tree.dot(y, y, real, axis)), axis)
    return y / jnp.maximum(norm, 1).astype(dtype)  # at least one, unless all entries are zero


def divisor(largest: jax.Array) -> jax.Array:
    """What to divide by to make entries of at most ``largest`` moderate; a normal number for zero.

    Division by a scalar becomes multiplication by its inverse when compiled, and an inverse near
    the end of the range is subnormal and counts as zero: hence at most a 16th of the largest
    number.
    """
    limits = jnp.finfo(largest.dtype)
    return jnp.clip(largest, float(limits.tiny), float(limits.max) / 16)
