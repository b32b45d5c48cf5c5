"""From a flax nnx module to the two pure functions that a problem needs."""

from collections.abc import Callable
from typing import Any

import jax

try:
    from flax import nnx
except ImportError as error:
    raise ImportError("This problem needs flax: pip install 'stochopt[experiments]'.") from error


def functional(
    make_module: Callable[[nnx.Rngs], nnx.Module],
) -> tuple[Callable[[jax.Array], Any], Callable[[Any, jax.Array], jax.Array]]:
    """Splits a module into ``init(key) -> params`` and ``apply(params, inputs) -> outputs``.

    ``params`` is a plain nested dict of arrays. The module must hold nothing but parameters.
    """
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: make_module(nnx.Rngs(0))), nnx.Param)

    def init(key: jax.Array) -> Any:
        _, state = nnx.split(make_module(nnx.Rngs(key)), nnx.Param)
        return nnx.to_pure_dict(state)

    def apply(params: Any, inputs: jax.Array) -> jax.Array:
        state = jax.tree.unflatten(jax.tree.structure(abstract), jax.tree.leaves(params))
        return nnx.merge(graphdef, state)(inputs)

    return init, apply
