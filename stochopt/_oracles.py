"""Clear errors for oracles that return, or get, other shapes than they should."""

from typing import Any

import jax


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: tuple(x.shape), tree)


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
                f"{length}: inner and outer are mapped over it."
            )
