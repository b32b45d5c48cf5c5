"""The oracles of variance reduction, and their gradients."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from stochopt._oracles import check_scalar

#: ``loss(params, batch) -> scalar``, the mean over a batch.
Loss = Callable[[Any, Any], jax.Array]
#: ``full_loss(params) -> scalar``, the mean over all samples.
FullLoss = Callable[[Any], jax.Array]


def gradient_of(name: str, oracle: Callable[..., jax.Array]) -> Callable[..., Any]:
    """The gradient in the first argument; ``ValueError`` unless the oracle returns a scalar."""

    def scalar(*arguments: Any) -> jax.Array:
        value = oracle(*arguments)
        check_scalar(name, value)
        return value

    # Conjugated, as optax wants complex gradients; nothing changes for real ones.
    return lambda *arguments: optax.tree.conj(jax.grad(scalar)(*arguments))
