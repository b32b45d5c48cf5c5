"""What all cycles over blocks have in common."""

from typing import Any

import jax
import optax

from stochopt import _tree


def cycle_key(key: jax.Array | None, seed: int, count: jax.Array) -> jax.Array:
    """The key of a cycle: the one that ``update`` got, or that of its number."""
    return jax.random.fold_in(jax.random.key(seed), count) if key is None else key


def displacement(point: Any, params: Any) -> Any:
    """From ``params`` to a wide point, in the dtypes of ``params``."""
    return optax.tree.cast_like(optax.tree.sub(point, _tree.wide(params)), params)
