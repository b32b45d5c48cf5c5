"""The few tree helpers that ``optax.tree`` lacks."""

from typing import Any

import jax
import jax.numpy as jnp


def at_least_float32(dtype: Any) -> Any:
    """``dtype``, or float32 if that is wider; complex dtypes stay complex."""
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def scalar_dtype(*leaves: Any) -> Any:
    """The dtype of scalars that accompany ``leaves``: real, and float32 or wider.

    A running sum in bfloat16 stalls after a few hundred terms, so a scalar is never narrower than
    float32; it follows float64 leaves so that nothing is lost there.
    """
    reals = [jnp.finfo(leaf.dtype).dtype for leaf in leaves]
    return max([jnp.dtype(jnp.float32), *reals], key=lambda dtype: jnp.finfo(dtype).bits)


def copy(tree: Any) -> Any:
    """New buffers with the same values, so that state never shares memory with ``params``."""
    return jax.tree.map(jnp.copy, tree)


def scale(factor: jax.Array, leaf: jax.Array) -> jax.Array:
    """``factor * leaf`` computed in the leaf's dtype or float32, in the leaf's dtype."""
    wide = at_least_float32(leaf.dtype)
    return (factor.astype(wide) * leaf.astype(wide)).astype(leaf.dtype)


def dot(a: jax.Array, b: jax.Array, dtype: Any, axis: Any = None) -> jax.Array:
    """``Re <a, b>`` over ``axis``, accumulated in the real ``dtype``."""
    product = lambda x, y: jnp.sum(x.astype(dtype) * y.astype(dtype), axis=axis)
    if jnp.iscomplexobj(a):
        return product(a.real, b.real) + product(a.imag, b.imag)
    return product(a, b)


def moving_average(old: Any, new: Any, weight: Any) -> Any:
    """``weight * old + (1 - weight) * new`` for each leaf, in the dtype of ``old``.

    Computed in float32 or wider; ``weight`` is the one on the old value, as optax's ``b1`` is.
    """

    def average(m: jax.Array, x: jax.Array) -> jax.Array:
        wide = at_least_float32(m.dtype)
        return jnp.asarray(weight * m.astype(wide) + (1 - weight) * x.astype(wide), m.dtype)

    return jax.tree.map(average, old, new)


def expand(rows: jax.Array, like: jax.Array) -> jax.Array:
    """``rows`` with axes of size one behind, to broadcast against ``like`` from the left."""
    return jnp.expand_dims(rows, tuple(range(rows.ndim, like.ndim)))


def where_rows(rows: jax.Array, a: Any, b: Any) -> Any:
    """The rows of the leaves of ``a`` where ``rows``, and those of ``b`` elsewhere."""
    return jax.tree.map(lambda x, y: jnp.where(expand(rows, x), x, y), a, b)


def wide(tree: Any) -> Any:
    """The tree in float32 or wider."""
    return jax.tree.map(lambda x: x.astype(at_least_float32(x.dtype)), tree)


def zeros_at_least_float32(tree: Any) -> Any:
    """Zeros like the leaves and laid out as they are, float32 or wider; leaves may be abstract."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=at_least_float32(x.dtype)), tree)


def corrected(new: Any, old: Any, there: Any, weight: Any) -> Any:
    """``new + weight * (old - there)`` for each leaf, in the dtype of ``new``.

    Computed in float32 or wider.
    """

    def correct(x: jax.Array, y: jax.Array, z: jax.Array) -> jax.Array:
        wide = at_least_float32(x.dtype)
        difference = weight * (y.astype(wide) - z.astype(wide))
        return jnp.asarray(x.astype(wide) + difference, x.dtype)

    return jax.tree.map(correct, new, old, there)


def add_scaled(tree: Any, factor: Any, other: Any) -> Any:
    """``tree + factor * other`` for each leaf, in the dtype of ``tree``.

    Computed in float32 or wider.
    """

    def add(x: jax.Array, y: jax.Array) -> jax.Array:
        wide = at_least_float32(x.dtype)
        return jnp.asarray(x.astype(wide) + factor * y.astype(wide), x.dtype)

    return jax.tree.map(add, tree, other)
