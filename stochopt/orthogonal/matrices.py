"""Which leaves of a pytree are matrices, and along which axes.

The vocabulary is optax's ``MuonDimensionNumbers``: reduction axes (inputs, rows), output axes
(columns), and every other axis a batch axis of independent matrices.
"""

import math
import re
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from optax.contrib import MuonDimensionNumbers

#: A tree (or tree prefix) of ``MuonDimensionNumbers``, with ``None`` where a leaf is not a matrix;
#: or a function that maps ``params`` to such a tree by looking at paths and shapes only.
DimensionNumbers = Any | Callable[[Any], Any]

#: Paths of leaves that are matrices by shape but tables of vectors by nature.
EMBEDDINGS_AND_HEADS = (
    r"(?i)embed|(^|[/_])(head|lm_?head|logits|wte|wpe|vocab|vocabulary|classifier)(/|$)"
)


def hidden_matrices(
    *, exclude: str = EMBEDDINGS_AND_HEADS, stacked: str | None = None
) -> Callable[[Any], Any]:
    r"""The rule that takes the matrices inside a network and leaves out its ends.

    A leaf is a matrix if

    - it has two axes, inputs first; or
    - it has four, its path contains ``conv``, and it reduces over more than one channel: a kernel
      of shape (height, width, inputs, outputs), whose first three axes are reduction axes. (One
      input channel means a depthwise convolution, or the first one.)

    Paths are keys joined by ``/``, such as ``blocks/0/attention/query/kernel``.

    Args:
      exclude: regular expression; leaves whose path contains it are no matrices. The default,
        ``stochopt.orthogonal.EMBEDDINGS_AND_HEADS``, finds every path that contains ``embed``, or
        has a key ``head``, ``lm_head``, ``logits``, ``wte``, ``wpe``, ``vocab``, ``vocabulary`` or
        ``classifier`` (alone or after an underscore). Join another one to it with ``|``.
      stacked: regular expression; the first axis of leaves whose path contains it is a batch axis
        (the layers of a model that scans over its layers), and the rest is judged without it.

    Returns:
      Function from ``params`` to a tree of ``MuonDimensionNumbers`` and ``None``.
    """

    def numbers(path: Any, leaf: Any) -> MuonDimensionNumbers | None:
        name = path_name(path)
        if re.search(exclude, name):
            return None
        first = 1 if stacked is not None and re.search(stacked, name) else 0
        axes = leaf.ndim - first
        if axes == 2:
            return MuonDimensionNumbers(first, first + 1)
        if axes == 4 and "conv" in name.lower() and leaf.shape[first + 2] > 1:
            return MuonDimensionNumbers((first, first + 1, first + 2), first + 3)
        return None

    return lambda params: jax.tree_util.tree_map_with_path(numbers, params)


def or_hidden(dimension_numbers: DimensionNumbers | None) -> DimensionNumbers:
    """What whole methods take for ``None``."""
    return hidden_matrices() if dimension_numbers is None else dimension_numbers


def path_name(path: Any) -> str:
    """The keys of a path joined by ``/``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def two_dimensional(params: Any) -> Any:
    """The rule that takes every leaf with two axes."""
    return jax.tree.map(lambda x: MuonDimensionNumbers() if x.ndim == 2 else None, params)


def _is_entry(x: Any) -> bool:
    return x is None or isinstance(x, MuonDimensionNumbers)


def resolve(dimension_numbers: DimensionNumbers, tree: Any) -> Any:
    """A tree like ``tree`` that holds ``MuonDimensionNumbers`` or ``False`` at each leaf.

    ``False`` rather than ``None`` marks a leaf that is not a matrix, because ``None`` is an empty
    pytree. Nodes without leaves (``None``, ``optax.MaskedNode``) stay as they are.
    """
    numbers = dimension_numbers(tree) if callable(dimension_numbers) else dimension_numbers

    def spread(entry: Any, subtree: Any) -> Any:
        return jax.tree.map(lambda _: False if entry is None else entry, subtree)

    return jax.tree.map(spread, numbers, tree, is_leaf=_is_entry)


class MatrixAxes(NamedTuple):
    """The axes of one array, sorted into roles; all non-negative, in the array's own order."""

    batch: tuple[int, ...]
    reduction: tuple[int, ...]
    output: tuple[int, ...]

    @property
    def matrix(self) -> tuple[int, ...]:
        """Every axis that belongs to a single matrix."""
        return self.reduction + self.output


def matrix_axes(x: Any, numbers: MuonDimensionNumbers, name: str = "") -> MatrixAxes:
    """Sorts the axes of ``x``; raises ``ValueError`` that names the leaf if they do not fit."""

    def normalize(axes: Any) -> tuple[int, ...]:
        axes = (axes,) if isinstance(axes, int) else tuple(axes)
        if any(not -x.ndim <= axis < x.ndim for axis in axes):
            raise ValueError(f"{numbers} does not fit leaf {name or '<root>'} of shape {x.shape}.")
        return tuple(axis % x.ndim for axis in axes)

    reduction, output = normalize(numbers.reduction_axis), normalize(numbers.output_axis)
    repeated = len({*reduction, *output}) < len(reduction + output)
    if repeated or not reduction or not output:
        raise ValueError(
            f"{numbers}: reduction and output axes must be distinct and not empty "
            f"(leaf {name or '<root>'} of shape {x.shape})."
        )
    batch = tuple(axis for axis in range(x.ndim) if axis not in reduction + output)
    return MatrixAxes(batch, reduction, output)


def axes_of(method: str, dimension_numbers: DimensionNumbers | None, tree: Any) -> list[MatrixAxes]:
    """The axes of every leaf of ``tree``, in the order of ``jax.tree.leaves``.

    Args:
      method: name for messages.
      dimension_numbers: ``None`` means that every leaf has two axes.
      tree: of arrays, all of which are to be matrices.

    Raises:
      ValueError: a leaf is no matrix; the message names it.
    """
    numbers = resolve(two_dimensional if dimension_numbers is None else dimension_numbers, tree)
    entries = jax.tree.leaves(numbers, is_leaf=lambda x: isinstance(x, MuonDimensionNumbers))
    axes = []
    for (path, leaf), entry in zip(jax.tree_util.tree_leaves_with_path(tree), entries, strict=True):
        name = path_name(path) or "<root>"
        if entry is False:
            raise ValueError(
                f"{method}: leaf {name} of shape {leaf.shape} is not a matrix; give "
                "weight_dimension_numbers, or use stochopt.adago, stochopt.muon or "
                "stochopt.trust_region, which take all leaves."
            )
        axes.append(matrix_axes(leaf, entry, name))
    return axes


def warn_of_tables(method: str, tree: Any) -> None:
    """A ``UserWarning`` for each leaf of ``tree`` that is an embedding or a head by its name."""
    for path, _ in jax.tree_util.tree_leaves_with_path(tree):
        if re.search(EMBEDDINGS_AND_HEADS, path_name(path)):
            warnings.warn(
                f"{method}: leaf {path_name(path)} is an embedding or an output head by its name "
                "and is treated as a matrix. Such tables usually train better with Adam: see "
                "stochopt.orthogonal.hidden_matrices.",
                UserWarning,
                stacklevel=3,
            )


def fans(x: Any, axes: MatrixAxes) -> tuple[int, int]:
    """Numbers of inputs (rows) and of outputs (columns) of the matrices in ``x``."""
    size = lambda group: math.prod(x.shape[axis] for axis in group)
    return size(axes.reduction), size(axes.output)
