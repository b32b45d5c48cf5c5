"""Whether a proximal operator acts on each entry by itself."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_separable(prox: Any, like: Any) -> None:
    """Raises ``ValueError`` if an entry of the result depends on another entry of the point.

    It is tried at one random point: an operator may pass that depends on others elsewhere.

    Args:
      prox: ``prox(params, step) -> params``.
      like: a tree of arrays or abstract arrays.
    """
    rng = np.random.default_rng(0)
    leaves, structure = jax.tree.flatten(like)
    points = [10 * rng.standard_normal(x.shape) for x in leaves]
    halves = [np.arange(x.size).reshape(x.shape) % 2 == 0 for x in leaves]
    others = [np.where(half, 3 * x + 1, x) for half, x in zip(halves, points, strict=True)]

    def at(point: list[np.ndarray]) -> list[jax.Array]:
        arrays = [jnp.asarray(x, like.dtype) for x, like in zip(point, leaves, strict=True)]
        return jax.tree.leaves(prox(jax.tree.unflatten(structure, arrays), 0.5))

    with jax.ensure_compile_time_eval():
        results = list(zip(halves, at(points), at(others), strict=True))
    for half, here, there in results:
        if isinstance(here, jax.core.Tracer):
            return  # a traced weight has no value yet
        if not np.array_equal(np.asarray(here)[~half], np.asarray(there)[~half]):
            raise ValueError(
                "prox is not separable: what it does to one entry depends on others, but the "
                "entries of params are to move by themselves."
            )
