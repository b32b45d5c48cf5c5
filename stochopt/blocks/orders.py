"""In which order a cycle visits the blocks: functions ``order(key, num_blocks) -> numbers``."""

from collections.abc import Callable

import jax
import numpy as np

#: ``order(key, num_blocks)``: a NumPy array, the same in every cycle, or one that depends on the
#: key. Any length will do.
OrderOfCycle = Callable[[jax.Array, int], np.ndarray | jax.Array]


def cyclic(key: jax.Array, num_blocks: int) -> np.ndarray:
    """The order of the blocks, always."""
    del key
    return np.arange(num_blocks)


def shuffled(key: jax.Array, num_blocks: int) -> jax.Array:
    """Every block once, in an order drawn anew for each cycle."""
    return jax.random.permutation(key, num_blocks)


def random(key: jax.Array, num_blocks: int) -> jax.Array:
    """As many blocks as there are, each drawn among all: some twice, some not at all."""
    return jax.random.randint(key, (num_blocks,), 0, num_blocks)
