"""What all cycles over blocks have in common."""

from typing import Any

import jax
import optax

from stochopt import _tree


def cycle_key(key: jax.Array | None, seed: int, count: jax.Array) -> jax.Array:
    """The key of a cycle: the one that ``update`` got, or that of its number."""
    return jax.random.fold_in(jax.random.key(seed), count) if key is None else key


def wide(params: Any) -> Any:
    """``params`` in float32 or wider: points within a cycle."""
    return jax.tree.map(lambda x: x.astype(_tree.at_least_float32(x.dtype)), params)


def displacement(point: Any, params: Any) -> Any:
    """From ``params`` to a wide point, in the dtypes of ``params``."""
    return optax.tree.cast_like(optax.tree.sub(point, wide(params)), params)
