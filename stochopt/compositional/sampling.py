"""Draws of blocks without repetition."""

import jax
import jax.numpy as jnp

from stochopt._checks import check_count


def sample_blocks(key: jax.Array, num_blocks: int, num_sampled: int) -> jax.Array:
    """Draws distinct blocks, every ordered choice with the same probability.

    Takes time and memory in proportion to ``num_sampled`` (times its logarithm), however many
    blocks there are; ``jax.random.choice`` without replacement takes time in proportion to
    ``num_blocks``. Repeated draws are drawn anew until none is left: no block is preferred, because
    nothing depends on what a block is called.

    Args:
      key: random key.
      num_blocks: how many there are.
      num_sampled: how many to draw, at most ``num_blocks``.

    Returns:
      ``int32[num_sampled]``, in [0, ``num_blocks``).
    """
    check_count("num_blocks", num_blocks)
    check_count("num_sampled", num_sampled)
    if num_sampled > num_blocks:
        raise ValueError(f"num_sampled={num_sampled} is more than num_blocks={num_blocks}.")
    if 2 * num_sampled >= num_blocks:
        return jax.random.permutation(key, num_blocks)[:num_sampled].astype(jnp.int32)
    draw = lambda key: jax.random.randint(key, (num_sampled,), 0, num_blocks, jnp.int32)

    def repeated(blocks: jax.Array) -> jax.Array:
        """Which draws have an earlier equal one."""
        order = jnp.argsort(blocks, stable=True)
        ordered = blocks[order]
        later = jnp.concatenate([jnp.zeros(1, bool), ordered[1:] == ordered[:-1]])
        return jnp.zeros(num_sampled, bool).at[order].set(later)

    def again(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        key, blocks = carry
        key, now = jax.random.split(key)
        return key, jnp.where(repeated(blocks), draw(now), blocks)

    key, now = jax.random.split(key)
    unfinished = lambda carry: jnp.any(repeated(carry[1]))
    return jax.lax.while_loop(unfinished, again, (key, draw(now)))[1]
