"""A step of an inner optimizer on a surrogate, kept as a displacement."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree


def displaced(params: Any, displacement: Any) -> Any:
    """``params + displacement``, in the dtypes of ``params``."""
    return jax.tree.map(lambda x, d: (x.astype(d.dtype) + d).astype(x.dtype), params, displacement)


def inner_step(
    optimizer: optax.GradientTransformationExtraArgs,
    surrogate: Callable[[Any], jax.Array],
    slope: Any,
    state: Any,
    displacement: Any,
    params: Any,
) -> tuple[Any, Any]:
    """Displacement and state after one step; line searches of optax get what they ask for.

    Args:
      optimizer: of the surrogate.
      surrogate: ``surrogate(displacement) -> scalar``.
      slope: of the surrogate at ``displacement``, as optax wants it.
      state: of the optimizer.
      displacement: from ``params`` so far, float32 or wider.
      params: where the surrogate was made.
    """
    at = lambda point: jax.tree.map(lambda p, x: p - x.astype(p.dtype), point, params)
    point = jax.tree.map(lambda x, d: x.astype(d.dtype) + d, params, displacement)
    updates, state = optimizer.update(
        slope,
        state,
        point,
        value=surrogate(displacement),
        grad=slope,
        value_fn=lambda point: surrogate(at(point)),
    )
    return optax.tree.cast_like(optax.tree.add(displacement, updates), displacement), state


def real_dot(a: Any, b: Any, dtype: Any) -> jax.Array:
    """``Re <a, b>`` over all leaves."""
    products = jax.tree.map(lambda x, y: _tree.dot(x, y, dtype), a, b)
    return sum(jax.tree.leaves(products), jnp.zeros([], dtype))
