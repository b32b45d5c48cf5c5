"""Least squares on expected rows: one inner expectation for each of many blocks."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem
from stochopt.problems.quadratic_value import quadratic_value

# Block indices, noise of the rows and noise of the values, on a leading axis over the blocks.
_Batch = tuple[jax.Array, jax.Array, jax.Array]


def coupled_least_squares(
    num_blocks: int = 50,
    num_sampled: int = 5,
    dimension: int = 6,
    row_noise: float = 0.5,
    value_noise: float = 0.1,
    seed: int = 0,
) -> Problem:
    r"""Least squares on expected rows, a finite sum of functions of expectations.

    .. math::

       F(x) = \frac1n \sum_{i=1}^n f_i(E g_i(x)), \qquad
       g_i(x) = (\bar a_i + \sigma_a e)^T x + \sigma_v \nu, \qquad f_i(u) = \tfrac12 (u - b_i)^2,

    with :math:`e, \nu` standard normal. With the rows :math:`\bar a_i^T` in :math:`\bar A`,
    :math:`\nabla F(x) = \frac1n \bar A^T (\bar A x - b)` and the minimizer is
    :math:`x^* = (\bar A^T \bar A)^{-1} \bar A^T b`. The naive plug-in gradient, which evaluates
    :math:`f_i` at one sample of :math:`g_i`, settles on average at
    :math:`(\frac1n \bar A^T \bar A + \sigma_a^2 I)^{-1} \frac1n \bar A^T b` instead.

    A batch holds one sample for each of a few blocks, drawn without replacement. :math:`\bar A` and
    :math:`b` are random.

    Args:
      num_blocks: :math:`n`, at least the dimension.
      num_sampled: blocks in a batch, at most all of them.
      dimension: of :math:`x`.
      row_noise: :math:`\sigma_a`.
      value_noise: :math:`\sigma_v`.
      seed: of the random data.

    References:
      Wang, Yang, `Finite-Sum Coupled Compositional Stochastic Optimization
      <https://arxiv.org/abs/2202.12396>`_, 2022
    """
    check_count("num_blocks", num_blocks)
    check_count("num_sampled", num_sampled)
    check_count("dimension", dimension)
    check_range("row_noise", row_noise, "[0, inf)")
    check_range("value_noise", value_noise, "[0, inf)")
    if num_sampled > num_blocks:
        raise ValueError(f"num_sampled must be at most {num_blocks}, got {num_sampled}.")
    if num_blocks < dimension:
        raise ValueError(f"num_blocks must be at least {dimension}, got {num_blocks}.")
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((num_blocks, dimension))
    b = a @ rng.standard_normal(dimension) + 0.5 * rng.standard_normal(num_blocks)

    hessian = a.T @ a / num_blocks
    right = a.T @ b / num_blocks
    optimum = np.linalg.solve(hessian, right)
    error = np.linalg.solve(hessian + row_noise**2 * np.eye(dimension), right) - optimum

    def inner(params: jax.Array, batch: _Batch) -> jax.Array:
        block, noise_of_row, noise_of_value = batch
        row = jnp.asarray(a)[block] + row_noise * noise_of_row
        return jnp.vdot(row, params) + value_noise * noise_of_value

    def outer(value: jax.Array, params: jax.Array, batch: _Batch) -> jax.Array:
        del params
        block, _, _ = batch
        return jnp.square(value - jnp.asarray(b)[block]) / 2

    def sample(key: jax.Array) -> _Batch:
        for_blocks, for_rows, for_values = jax.random.split(key, 3)
        return (
            jax.random.permutation(for_blocks, num_blocks)[:num_sampled].astype(jnp.int32),
            jax.random.normal(for_rows, (num_sampled, dimension)),
            jax.random.normal(for_values, (num_sampled,)),
        )

    def loss(params: jax.Array, batch: _Batch) -> jax.Array:
        plug_in = lambda batch_i: outer(inner(params, batch_i), params, batch_i)
        return jnp.mean(jax.vmap(plug_in)(batch))

    return Problem(
        name="coupled-least-squares",
        summary="least squares on expected rows, coupled blocks, closed forms",
        init=lambda key: jnp.zeros(dimension),
        sample=sample,
        loss=loss,
        inner=inner,
        outer=outer,
        num_blocks=num_blocks,
        blocks=lambda batch: (batch[0], batch),
        levels={"limit of the naive gradient": float(error @ hessian @ error / 2)},
        **quadratic_value(
            hessian,
            optimum,
            inner=lambda params: a @ params,
        ),
    )
