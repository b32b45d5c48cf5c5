"""Least squares at the minimizer of a quadratic, both sums over a few samples, closed forms."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem
from stochopt.problems.quadratic_value import quadratic_value

# The index of a sample of the lower function and that of a sample of the upper one.
_Batch = tuple[jax.Array, jax.Array]


def bilevel_finite_sum(
    num_samples: int = 40,
    dimension: int = 4,
    lower_dimension: int = 3,
    ridge: float = 0.1,
    seed: int = 0,
) -> Problem:
    r"""Least squares at the minimizer of a quadratic, finite sums at both levels.

    .. math::

       F(x) = f(x, y(x)), \qquad y(x) = \arg\min_y g(x, y), \qquad
       f = \frac1n \sum_{j=1}^n f_j, \qquad g = \frac1n \sum_{i=1}^n g_i, \\
       f_j(x, y) = \tfrac12 (w_j^T y - d_j)^2 + \tfrac\rho2 \|x\|^2, \qquad
       g_i(x, y) = \tfrac12 y^T A_i y - y^T (B_i x + c_i).

    With bars for means over the samples, :math:`S = \frac1n \sum_j w_j w_j^T` and
    :math:`s = \frac1n \sum_j d_j w_j`, the lower minimizer is
    :math:`y(x) = \bar A^{-1} (\bar B x + \bar c)`, its adjoint
    :math:`p(x) = \bar A^{-1} (S y(x) - s)`, and

    .. math::

       \nabla F(x) = \rho x + \bar B^T p(x), \qquad
       \nabla^2 F = \rho I + \bar B^T \bar A^{-1} S \bar A^{-1} \bar B .

    A batch is a pair of indices drawn independently: of one sample of the lower function, which
    ``lower`` reads, and of one of the upper function, which ``upper`` reads. So a method can keep
    a table of what it saw of each sample, and converge linearly.

    Each :math:`A_i` has eigenvalues of at least 1/2; all data are random.

    Args:
      num_samples: :math:`n`, at least ``lower_dimension``.
      dimension: of :math:`x`.
      lower_dimension: of :math:`y`.
      ridge: :math:`\rho > 0`.
      seed: of the random data.

    References:
      Dagréou et al., `A Framework for Bilevel Optimization that Enables Stochastic and Global
      Variance Reduction Algorithms <https://arxiv.org/abs/2201.13409>`_, 2022
    """
    check_count("num_samples", num_samples)
    check_count("dimension", dimension)
    check_count("lower_dimension", lower_dimension)
    check_range("ridge", ridge, "(0, inf)")
    if num_samples < lower_dimension:
        raise ValueError(f"num_samples must be at least {lower_dimension}, got {num_samples}.")
    rng = np.random.default_rng(seed)
    n, d, p = num_samples, dimension, lower_dimension
    root = rng.standard_normal((n, p, p)) / np.sqrt(p)
    a = root @ root.transpose(0, 2, 1) + 0.5 * np.eye(p)
    # A part in common, or the mean coupling would vanish as the samples become many.
    b = (rng.standard_normal((n, p, d)) + rng.standard_normal((p, d))) / np.sqrt(d)
    c, w = rng.standard_normal((2, n, p))
    targets = w @ rng.standard_normal(p) + rng.standard_normal(n)

    # y(x) = to_lower x + offset, and the adjoint likewise.
    solve = lambda right: np.linalg.solve(a.mean(0), right)
    to_lower, offset = solve(b.mean(0)), solve(c.mean(0))
    second_moment = w.T @ w / n
    to_adjoint = solve(second_moment @ to_lower)
    adjoint_offset = solve(second_moment @ offset - w.T @ targets / n)
    hessian = ridge * np.eye(d) + to_lower.T @ second_moment @ to_lower
    optimum = np.linalg.solve(hessian, -b.mean(0).T @ adjoint_offset)

    def upper(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        _, index = batch
        error = jnp.vdot(jnp.asarray(w)[index], lower_params) - jnp.asarray(targets)[index]
        return (jnp.square(error) + ridge * jnp.vdot(params, params)) / 2

    def lower(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        index, _ = batch
        right = jnp.asarray(b)[index] @ params + jnp.asarray(c)[index]
        return jnp.vdot(lower_params, jnp.asarray(a)[index] @ lower_params / 2 - right)

    def sample(key: jax.Array) -> _Batch:
        for_lower, for_upper = jax.random.split(key)
        return (
            jax.random.randint(for_lower, (), 0, n, jnp.int32),
            jax.random.randint(for_upper, (), 0, n, jnp.int32),
        )

    return Problem(
        name="bilevel-finite-sum",
        summary="least squares at a quadratic's minimizer, finite sums, closed forms",
        init=lambda key: jnp.zeros(d),
        sample=sample,
        upper=upper,
        lower=lower,
        lower_params=jnp.zeros(p),
        num_samples=n,
        sample_indices=lambda batch: batch,
        **quadratic_value(
            hessian,
            optimum,
            lower=lambda params: to_lower @ params + offset,
            adjoint=lambda params: to_adjoint @ params + adjoint_offset,
        ),
    )
