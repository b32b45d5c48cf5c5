"""Files of named arrays with a few words about them: one NumPy archive, written at one stroke."""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_ABOUT, _KIND = "about", "kind"


def write(path: str | Path, kind: str, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> Path:
    """Writes ``path``; a reader, or a crash, finds the old file or the new one, never a half.

    Args:
      path: where to; the suffix is taken as it is.
      kind: what the file holds, which :func:`read` asks for.
      arrays: name to array.
      about: anything JSON can hold; functions and the like are kept by their names.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    content: dict[str, Any] = {
        **arrays,
        _ABOUT: np.array(json.dumps({_KIND: kind, **plain(about)})),
    }
    with partial.open("wb") as file:
        np.savez(file, **content)
    os.replace(partial, path)
    return path


def read(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The ``(arrays, about)`` of a file that :func:`write` has written.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is something else, or of another kind; the message names it.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(str(arrays.pop(_ABOUT)))
        found = about.pop(_KIND)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a file of stochopt.experiments: {error}") from error
    if found != kind:
        raise ValueError(f"{path} holds a {found}, not a {kind}.")
    return arrays, about


def plain(value: Any) -> Any:
    """``value`` as JSON gives it back: tuples as lists, and what JSON lacks by its name."""
    return json.loads(json.dumps(value, default=lambda x: getattr(x, "__name__", str(x))))
