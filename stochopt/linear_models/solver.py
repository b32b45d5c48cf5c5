"""A convex linear model solved to a relative duality gap."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt._checks import check_count, check_range
from stochopt.blocks import OrderOfCycle, cyclic
from stochopt.linear_models.descent import linear_model_descent
from stochopt.linear_models.model import LinearModel, convex_penalty, duality_gap


class Solution(NamedTuple):
    """What :func:`solve` returns."""

    params: jax.Array
    relative_gap: jax.Array  # shape=()
    num_cycles: jax.Array  # shape=(), dtype=int32


def solve(
    model: LinearModel,
    start: Any = None,
    *,
    tolerance: Any = 1e-6,
    max_cycles: int = 10_000,
    check_every: int = 10,
    block_width: int = 1,
    order: OrderOfCycle = cyclic,
    seed: int = 0,
) -> Solution:
    r"""Cycles of :func:`linear_model_descent` until the duality gap is small.

    It stops when the :func:`duality_gap` is at most ``tolerance`` times :math:`F(0)`. A check costs
    as much as a cycle. One loop is compiled for designs of one shape and penalties of one kind,
    whatever their weights.

    Args:
      model: with a convex penalty.
      start: of the coefficients; ``None`` for zeros.
      tolerance: at least zero.
      max_cycles: at most so many, rounded up to a multiple of ``check_every``.
      check_every: cycles from one computation of the gap to the next.
      block_width: see :func:`linear_model_descent`.
      order: see :func:`linear_model_descent`.
      seed: see :func:`linear_model_descent`.

    Raises:
      TypeError: the penalty is not convex.
      ValueError: a number is out of range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from stochopt import linear_models as lm
      >>> design = lm.dense([[1.0, 1.0], [1.0, -1.0]])
      >>> model = lm.linear_model(design, jnp.array([4.0, 1.0]), lm.squared(), lm.l1(0.25))
      >>> print(lm.solve(model).params)
      [2.25 1.25]
    """
    convex_penalty("solve", model)
    check_range("tolerance", tolerance, "[0, inf)")
    check_count("max_cycles", max_cycles)
    check_count("check_every", check_every)
    if start is None:
        start = jnp.zeros(model.design.shape[1], model.design.dtype)
    return _solve(model, start, tolerance, max_cycles, check_every, block_width, order, seed)


@functools.partial(jax.jit, static_argnames=("check_every", "block_width", "order", "seed"))
def _solve(
    model: LinearModel,
    start: jax.Array,
    tolerance: Any,
    max_cycles: Any,
    check_every: int,
    block_width: int,
    order: OrderOfCycle,
    seed: int,
) -> Solution:
    optimizer = linear_model_descent(model, block_width=block_width, order=order, seed=seed)
    at_zero = model.objective(jnp.zeros_like(start))
    scale = jnp.where(at_zero > 0, at_zero, 1)

    def cycle(_: Any, carry: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
        x, state = carry
        updates, state = optimizer.update(None, state, x)
        return optax.apply_updates(x, updates), state

    def unfinished(carry: tuple[jax.Array, Any, jax.Array]) -> jax.Array:
        _, state, gap = carry
        return (gap > tolerance * scale) & (state.count < max_cycles)

    def cycles(carry: tuple[jax.Array, Any, jax.Array]) -> tuple[jax.Array, Any, jax.Array]:
        x, state = jax.lax.fori_loop(0, check_every, cycle, carry[:2])
        return x, state, duality_gap(model, x)

    carry = start, optimizer.init(start), duality_gap(model, start)
    x, state, gap = jax.lax.while_loop(unfinished, cycles, carry)
    return Solution(x, gap / scale, state.count)
