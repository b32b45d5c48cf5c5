"""One row per method: factory, family, paper, what it needs, how to run it, what it claims."""

import difflib

from stochopt.catalog import (
    bilevel,
    blocks,
    compositional,
    model_based,
    model_building,
    optax_methods,
    orthogonal,
    sliding,
    surrogates,
    variance_reduction,
)
from stochopt.catalog.method import Method, inverse_sqrt

__all__ = [
    "METHODS",
    "Method",
    "UnknownMethodError",
    "find",
    "inverse_sqrt",
    "methods",
    "nearest",
]

#: All of our methods, in the order of tables.
METHODS = (
    *orthogonal.ROWS,
    *model_building.ROWS,
    *model_based.ROWS,
    *compositional.ROWS,
    *bilevel.ROWS,
    *sliding.ROWS,
    *surrogates.ROWS,
    *variance_reduction.ROWS,
    *blocks.ROWS,
)


class UnknownMethodError(ValueError):
    """No method of that name; the message offers the nearest ones."""


def methods(*, optax_too: bool = True) -> tuple[Method, ...]:
    """Our methods, and optax's that have a default learning rate."""
    others = [optax_methods.row(path) for path in optax_methods.DEFAULTS] if optax_too else []
    return METHODS + tuple(filter(None, others))


def find(name: str) -> Method:
    """The method of that name.

    Raises:
      UnknownMethodError: there is none; the message names the nearest.
    """
    for method in METHODS:
        if method.name == name:
            return method
    if found := optax_methods.row(name.removeprefix("optax.")):
        return found
    known = [method.name for method in methods()]
    raise UnknownMethodError(f"unknown optimizer {name!r}; {nearest(name, known)}")


def nearest(name: str, known: list[str]) -> str:
    """Says which of the ``known`` names a misspelt one may have meant."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known are {', '.join(known)}."
