"""Bounds on the value after a step, and whether they hold."""

from typing import Any

import jax
import jax.numpy as jnp

from stochopt import _tree

# Values that differ by fewer units of rounding count as equal.
_ROUNDING = 100


def dot(a: Any, b: Any, dtype: Any) -> jax.Array:
    """The inner product of two trees, accumulated in the real ``dtype``."""
    products = jax.tree.map(lambda x, y: _tree.dot(x, y, dtype), a, b)
    return sum(jax.tree.leaves(products), jnp.zeros([], dtype))


def bound_of_terms(*terms: jax.Array) -> jax.Array:
    """Their sum, with room for the rounding where large terms cancel."""
    stacked = jnp.stack(terms)
    unit = _ROUNDING * jnp.finfo(stacked.dtype).eps
    return jnp.sum(stacked) + unit * jnp.sum(jnp.abs(stacked))


def exceeds(value: jax.Array, bound: jax.Array) -> jax.Array:
    """Whether the value is above the bound, beyond rounding; NaN is above everything."""
    value = value.astype(bound.dtype)
    unit = _ROUNDING * jnp.finfo(bound.dtype).eps
    return ~(value <= bound + unit * (jnp.abs(value) + jnp.abs(bound)))
