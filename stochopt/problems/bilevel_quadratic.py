"""Quadratics above quadratics: one lower problem for each of many blocks, with closed forms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem
from stochopt.problems.quadratic_value import quadratic_value


class _Batch(NamedTuple):
    """One draw for each of a few blocks, on a leading axis; standard normal but for the indices."""

    block: jax.Array  # shape=(num_sampled,), dtype=int32
    matrix: (
        jax.Array
    )  # noise of A, symmetric, shape=(num_sampled, lower_dimension, lower_dimension)
    coupling: jax.Array  # noise of B, shape=(num_sampled, lower_dimension, dimension)
    vector: jax.Array  # noise of c, shape=(num_sampled, lower_dimension)
    target: jax.Array  # noise of d, shape=(num_sampled, lower_dimension)


def bilevel_quadratic(
    num_blocks: int = 20,
    num_sampled: int = 5,
    dimension: int = 4,
    lower_dimension: int = 3,
    noise: float = 0.3,
    ridge: float = 0.1,
    start: float = 0.0,
    lower_curvature: tuple[float, float] | None = None,
    seed: int = 0,
) -> Problem:
    r"""The mean of quadratics at the minimizers of quadratics, one for each block.

    .. math::

       F(x) = \frac1m \sum_{i=1}^m f_i(x, y_i(x)), \qquad y_i(x) = \arg\min_y g_i(x, y), \\
       f_i(x, y) = \tfrac12 \|y - d_i\|^2 + \tfrac\rho2 \|x\|^2, \qquad
       g_i(x, y) = \tfrac12 y^T A_i y - y^T (B_i x + c_i).

    The lower minimizers are :math:`y_i(x) = A_i^{-1} (B_i x + c_i)`, their adjoints
    :math:`p_i(x) = A_i^{-1} (y_i(x) - d_i)`, and

    .. math::

       \nabla F(x) = \rho x + \frac1m \sum_i B_i^T p_i(x), \qquad
       \nabla^2 F = \rho I + \frac1m \sum_i B_i^T A_i^{-2} B_i, \qquad
       x^* = (\nabla^2 F)^{-1} \frac1m \sum_i B_i^T A_i^{-1} (d_i - A_i^{-1} c_i) .

    A batch holds one draw for each of a few blocks, taken without replacement: of :math:`A_i`,
    :math:`B_i`, :math:`c_i` and :math:`d_i` with normal noise of standard deviation :math:`\sigma`
    in every entry, independently. Of the noise of :math:`A_i` only the symmetric part matters,
    which has :math:`\sigma / \sqrt2` off the diagonal; a draw may be indefinite. ``upper`` reads
    :math:`d_i` only and ``lower`` the others. A batch is a named tuple with the indices in
    ``block``: an independent draw of the same blocks, for the cross derivative, is
    ``problem.sample(key)._replace(block=batch.block)``.

    All data are random. :math:`A_i` is 1/2 and a Wishart matrix of mean 1, whose eigenvalues differ
    much, unless a range is given for them. There is no ``loss``: no function of one draw has a
    meaningful gradient without an estimate of the lower minimizer.

    Args:
      num_blocks: :math:`m`.
      num_sampled: blocks in a batch, at most all of them.
      dimension: of :math:`x`.
      lower_dimension: of each :math:`y_i`.
      noise: :math:`\sigma`.
      ridge: :math:`\rho > 0`.
      start: every entry of :math:`x` at the start; far away, the noise that the blocks' differences
        make at the optimum is small beside the gradient at the start.
      lower_curvature: positive range of the eigenvalues of :math:`A_i`, uniform in it.
      seed: of the random data.

    References:
      Hu, Qiu, Guo, Zhang, Yang, `Blockwise Stochastic Variance-Reduced Methods with Parallel
      Speedup for Multi-Block Bilevel Optimization <https://arxiv.org/abs/2305.18730>`_, 2023
    """
    check_count("num_blocks", num_blocks)
    check_count("num_sampled", num_sampled)
    check_count("dimension", dimension)
    check_count("lower_dimension", lower_dimension)
    check_range("noise", noise, "[0, inf)")
    check_range("ridge", ridge, "(0, inf)")
    check_range("start", start, "(-inf, inf)")
    if lower_curvature is not None:
        least, most = lower_curvature
        check_range("lower_curvature", least, "(0, inf)")
        check_range("lower_curvature", most, f"[{least}, inf)")
    if num_sampled > num_blocks:
        raise ValueError(f"num_sampled must be at most {num_blocks}, got {num_sampled}.")
    rng = np.random.default_rng(seed)
    m, n, p = num_blocks, dimension, lower_dimension
    root = rng.standard_normal((m, p, p)) / np.sqrt(p)
    if lower_curvature is None:
        a = root @ root.transpose(0, 2, 1) + 0.5 * np.eye(p)
    else:
        directions, _ = np.linalg.qr(root)
        curvatures = rng.uniform(*lower_curvature, (m, p, 1))
        a = directions @ (curvatures * directions.transpose(0, 2, 1))
    b = rng.standard_normal((m, p, n)) / np.sqrt(n)
    c, d = rng.standard_normal((2, m, p))

    # y_i(x) = to_lower_i x + offset_i, and the adjoints likewise.
    solve = lambda right: np.linalg.solve(a, right)
    to_lower, offset = solve(b), solve(c[..., None])[..., 0]
    to_adjoint, adjoint_offset = solve(to_lower), solve((offset - d)[..., None])[..., 0]
    hessian = ridge * np.eye(n) + np.einsum("mpi,mpj->ij", to_lower, to_lower) / m
    optimum = np.linalg.solve(hessian, -np.einsum("mpi,mp->i", b, adjoint_offset) / m)

    def upper(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        error = lower_params - jnp.asarray(d)[batch.block] - noise * batch.target
        return (jnp.vdot(error, error) + ridge * jnp.vdot(params, params)) / 2

    def lower(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        matrix = jnp.asarray(a)[batch.block] + noise * batch.matrix
        coupling = jnp.asarray(b)[batch.block] + noise * batch.coupling
        right = coupling @ params + jnp.asarray(c)[batch.block] + noise * batch.vector
        return jnp.vdot(lower_params, matrix @ lower_params / 2 - right)

    def sample(key: jax.Array) -> _Batch:
        for_blocks, *keys = jax.random.split(key, 5)
        blocks = jax.random.permutation(for_blocks, m)[:num_sampled].astype(jnp.int32)
        shapes = ((p, p), (p, n), (p,), (p,))
        noises = (
            jax.random.normal(key, (num_sampled, *shape))
            for key, shape in zip(keys, shapes, strict=True)
        )
        return _Batch(blocks, *noises)

    return Problem(
        name="bilevel-quadratic",
        summary="quadratics at the minimizers of quadratics, blocks, closed forms",
        init=lambda key: jnp.full(n, float(start)),
        sample=sample,
        upper=upper,
        lower=lower,
        lower_params=jnp.zeros(p),
        num_blocks=m,
        blocks=lambda batch: (batch.block, batch),
        **quadratic_value(
            hessian,
            optimum,
            lower=lambda params: to_lower @ params + offset,
            adjoint=lambda params: to_adjoint @ params + adjoint_offset,
        ),
    )
