"""The smoothness of a function in each block."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt import _tree
from stochopt._checks import check_arguments, check_count
from stochopt.blocks.gradient import in_block
from stochopt.blocks.partition import Index, Partition


def estimate_block_smoothness(
    loss: Callable[[Any, Any], jax.Array],
    partition: Partition,
    params: Any,
    batch: Any = None,
    *,
    num_iterations: int = 30,
    seed: int = 0,
) -> jax.Array:
    r"""The largest curvature of each block at one point, by power iteration.

    .. math::

       v \leftarrow \frac{\nabla^2_{jj} f(x)\, v}{\|\nabla^2_{jj} f(x)\, v\|}, \qquad
       L_j \approx \|\nabla^2_{jj} f(x)\, v\|,

    from a random :math:`v`; one product of a Hessian and a vector costs about two gradients in the
    block. It approaches the largest modulus of an eigenvalue from below. For a quadratic this is
    :math:`L_j`; otherwise it says nothing about other points, and one should take a multiple:
    ``num_descent_violations`` in the state of :func:`stochopt.blocks.cyclic_block_descent` counts
    where constants were too small.

    Args:
      loss: ``loss(params, batch) -> scalar``, twice differentiable.
      partition: of ``params``, which are real.
      params: the point, :math:`x`.
      batch: passed to ``loss``.
      num_iterations: products for each block.
      seed: of the first :math:`v`.

    Returns:
      An array with one number for each block, in the order of their numbers.

    Raises:
      TypeError: ``loss`` takes other arguments.
      ValueError: ``loss`` returned no scalar, or ``num_iterations`` is not a count.
    """
    check_arguments("loss", loss, "params, batch")
    check_count("num_iterations", num_iterations)
    blocks = partition(params)
    num_blocks = len(blocks.names)
    dtype = _tree.scalar_dtype(*jax.tree.leaves(params))
    keys = jax.random.split(jax.random.key(seed), num_blocks)

    def estimate(index: Index, constants: jax.Array) -> jax.Array:
        slope = jax.grad(in_block(lambda params: loss(params, batch), blocks, params, index))
        block = blocks.take(params, index)
        vector = optax.tree.random_like(keys[index], block, sampler=jax.random.normal)

        def iterate(_: jax.Array, carry: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            vector, norm = carry
            scale = jnp.where(norm > 0, 1 / norm, 0)  # a block without curvature stays at zero
            unit = jax.tree.map(lambda x: _tree.scale(scale, x), vector)
            vector = jax.jvp(slope, (block,), (unit,))[1]
            return vector, optax.tree.norm(vector).astype(dtype)

        start = vector, optax.tree.norm(vector).astype(dtype)
        norm = jax.lax.fori_loop(0, num_iterations, iterate, start)[1]
        return constants.at[index].set(norm)

    return blocks.visit(np.arange(num_blocks), estimate, jnp.zeros(num_blocks, dtype))
