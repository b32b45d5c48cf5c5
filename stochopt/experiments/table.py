"""A table of text, for a terminal or a page."""

from typing import NamedTuple


class Table(NamedTuple):
    """A table of text."""

    heads: list[str]
    rows: list[list[str]]
    best: set[tuple[int, int]]  # (row, column) of the best objective and of the best score
    notes: list[str]
    left: set[int]  # columns of words, aligned to the left


def words(name: str) -> str:
    """A metric or hyper-parameter as a head says it."""
    return name.replace("_", " ")
