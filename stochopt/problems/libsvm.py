"""The text format of LIBSVM's data sets: ``label index:value index:value ...``, from index 1."""

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

#: A file in LIBSVM's text format, or rows and labels; a label counts as 1 where positive, else -1.
Source = str | PathLike[str] | tuple[Any, Any]


def read_libsvm(path: str | PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Reads a data set with sparse rows into a dense array.

    Args:
      path: of the text file.

    Returns:
      The rows, as wide as the greatest index, and their labels; both float32.

    Raises:
      ValueError: a line is not in this format, which the message names, or there is none.
    """
    entries, labels = [], []
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        try:
            words = line.split("#")[0].split()
            if not words:
                continue
            label, *pairs = words
            split = [pair.split(":") for pair in pairs]
            entries.append({int(index): float(value) for index, value in split})
            labels.append(float(label))
            if min(entries[-1], default=1) < 1:
                raise ValueError("indices count from 1")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if not entries:
        raise ValueError(f"{path} holds no examples.")
    width = max((max(row, default=0) for row in entries), default=0)
    rows = np.zeros((len(entries), width), np.float32)
    for row, found in zip(rows, entries, strict=True):
        row[np.fromiter(found, int, len(found)) - 1] = list(found.values())
    return rows, np.asarray(labels, np.float32)


def read_examples(name: str, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels of a source, float32; errors say its name."""
    if isinstance(source, (str, PathLike)):
        if not Path(source).is_file():
            raise FileNotFoundError(f"{name} must be a file in LIBSVM's format, got {source!s}.")
        return read_libsvm(source)
    rows, labels = (np.asarray(array, np.float32) for array in source)
    if rows.ndim != 2 or labels.shape != rows.shape[:1]:
        shapes = f"{rows.shape} and {labels.shape}"
        raise ValueError(f"{name} must be rows and as many labels, got shapes {shapes}.")
    return rows, labels
