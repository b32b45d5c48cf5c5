"""Clear errors for oracles that return, or get, other shapes than they should."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: tuple(jnp.shape(x)), tree)


def check_shapes(oracle: str, value: Any, expected: Any, source: str) -> None:
    """Raises ``ValueError`` unless the value of an oracle has the expected structure and shapes.

    Args:
      oracle: its name.
      value: what it returned.
      expected: a tree of arrays or abstract arrays.
      source: where the expectation comes from.
    """
    got, wanted = _shapes(value), _shapes(expected)
    if got != wanted:
        raise ValueError(f"{oracle} returned shapes {got}, but {source} says {wanted}.")


def check_scalar(oracle: str, value: Any) -> None:
    """Raises ``ValueError`` unless an oracle returned one number."""
    if getattr(value, "shape", None) != ():
        raise ValueError(f"{oracle} must return a scalar, got shapes {_shapes(value)}.")


def check_leading_axis(name: str, tree: Any, length: int, of_what: str) -> None:
    """Raises ``ValueError`` unless every leaf of an argument has a leading axis of ``length``."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        shape = tuple(getattr(leaf, "shape", ()))
        if not shape or shape[0] != length:
            where = jax.tree_util.keystr(path)
            raise ValueError(
                f"{name}{where} of shape {shape} needs the leading axis of {of_what}, of length "
                f"{length}: the oracles are mapped over it."
            )


def check_like(name: str, value: Any, expected: Any, source: str) -> None:
    """Raises ``ValueError`` unless an argument has the expected structure and shapes.

    Args:
      name: of the argument.
      value: what was passed; leaves may be numbers.
      expected: a tree of arrays or abstract arrays.
      source: what it must be like.
    """
    got, wanted = _shapes(value), _shapes(expected)
    if got != wanted:
        raise ValueError(f"{name} has shapes {got}, but {source} has {wanted}.")


def scalar_oracle(name: str, oracle: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """``oracle(params, lower_params, batch)`` that names itself where something does not fit.

    It must return a scalar. Where it raises, the same error gets a note with the shapes of what it
    was called with: of one block, where there are blocks.
    """

    def named(params: Any, lower_params: Any, batch: Any) -> jax.Array:
        try:
            value = oracle(params, lower_params, batch)
        except Exception as error:
            arguments = {"params": params, "lower_params": lower_params, "batch": batch}
            shapes = ", ".join(f"{k} of shapes {_shapes(v)}" for k, v in arguments.items())
            note = f"{name}(params, lower_params, batch) got {shapes}."
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
            raise
        check_scalar(name, value)
        return value

    return named
