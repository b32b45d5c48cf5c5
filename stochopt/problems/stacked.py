"""The blocks of a bilevel problem as one lower problem, for methods that know no blocks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from stochopt.problems.problem import Problem


def stacked(problem: Problem) -> Problem:
    r"""The same bilevel problem with the lower variables of all blocks side by side.

    For the blocks :math:`\mathcal B` of a batch, :math:`|\mathcal B| = B`,

    .. math::

       f(x, y) = \frac1B \sum_{i \in \mathcal B} f_i(x, y_i), \qquad
       g(x, y) = \sum_{i \in \mathcal B} g_i(x, y_i),

    so that each block keeps its own curvature; the adjoint variables are :math:`p_i / B`. A
    variable of the blocks that a batch does not hold has the gradient zero. Where a batch holds all
    blocks, the mean of :math:`g` is strongly convex; where it does not, products with one Hessian
    are about its own blocks only, so that series of several draws make no sense.

    Args:
      problem: with ``upper``, ``lower`` and ``blocks``.
    """
    upper, lower, blocks = problem.upper, problem.lower, problem.blocks
    if upper is None or lower is None or blocks is None or problem.num_blocks is None:
        raise ValueError(f"problem {problem.name!r} has no blocks of lower problems.")
    num_blocks, num_sampled = problem.num_blocks, problem.num_sampled
    copies = lambda x: jnp.tile(x, (num_blocks,) + (1,) * jnp.ndim(x))

    def over_blocks(oracle: Any, reduce: Any) -> Any:
        def stacked_oracle(params: Any, table: Any, batch: Any) -> jax.Array:
            indices, of_blocks = blocks(batch)
            rows = jax.tree.map(lambda y: y[indices], table)
            return reduce(jax.vmap(oracle, in_axes=(None, 0, 0))(params, rows, of_blocks))

        return stacked_oracle

    exact = dict(problem.exact)
    if "adjoint" in exact:
        of_blocks = exact["adjoint"]
        exact["adjoint"] = lambda x: jax.tree.map(lambda p: p / num_sampled, of_blocks(x))
    return dataclasses.replace(
        problem,
        name=f"{problem.name}-stacked",
        upper=over_blocks(upper, jnp.mean),
        lower=over_blocks(lower, jnp.sum),
        lower_params=jax.tree.map(copies, problem.lower_params),
        num_blocks=None,
        blocks=None,
        exact=exact,
    )
