"""Counters that grow by more than one."""

import jax
import jax.numpy as jnp


def add(count: jax.Array, number: jax.typing.ArrayLike) -> jax.Array:
    """The sum with a number of at least zero; the counter stays at its maximum."""
    room = jnp.iinfo(count.dtype).max - count
    return count + jnp.minimum(jnp.asarray(number, count.dtype), room)
