"""Which leaves of a pytree are matrices, and along which axes.

The vocabulary is optax's ``MuonDimensionNumbers``: reduction axes (inputs, rows), output axes
(columns), and every other axis a batch axis of independent matrices.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from optax.contrib import MuonDimensionNumbers

#: A tree (or tree prefix) of ``MuonDimensionNumbers``, with ``None`` where a leaf is not a matrix;
#: or a function that maps ``params`` to such a tree by looking at paths and shapes only.
DimensionNumbers = Any | Callable[[Any], Any]


def two_dimensional(params: Any) -> Any:
    """The default rule: leaves with two axes are matrices, all others are not."""
    return jax.tree.map(lambda x: MuonDimensionNumbers() if x.ndim == 2 else None, params)


def _is_entry(x: Any) -> bool:
    return x is None or isinstance(x, MuonDimensionNumbers)


def resolve(dimension_numbers: DimensionNumbers | None, tree: Any) -> Any:
    """A tree like ``tree`` that holds ``MuonDimensionNumbers`` or ``False`` at each leaf.

    ``False`` rather than ``None`` marks a leaf that is not a matrix, because ``None`` is an empty
    pytree. Nodes without leaves (``None``, ``optax.MaskedNode``) stay as they are.
    """
    rule = two_dimensional if dimension_numbers is None else dimension_numbers
    numbers = rule(tree) if callable(rule) else rule

    def spread(entry: Any, subtree: Any) -> Any:
        return jax.tree.map(lambda _: False if entry is None else entry, subtree)

    return jax.tree.map(spread, numbers, tree, is_leaf=_is_entry)


def leaves(dimension_numbers: DimensionNumbers | None, tree: Any) -> list[Any]:
    """The entries of :func:`resolve` in the order of ``jax.tree.leaves(tree)``."""
    is_numbers = lambda x: isinstance(x, MuonDimensionNumbers)
    return jax.tree.leaves(resolve(dimension_numbers, tree), is_leaf=is_numbers)


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


def map_matrices(
    function: Callable[[jax.Array], jax.Array], x: jax.Array, axes: MatrixAxes
) -> jax.Array:
    """Applies ``function``, which maps ``(..., m, n)`` to the same shape, along ``axes`` of ``x``.

    On a mesh with explicit axes the matrices are gathered first (batch axes stay sharded) and the
    result goes back to the layout of ``x``: products of a matrix with its own transpose have no
    unambiguous sharding otherwise.
    """
    sharding = jax.typeof(x).sharding
    sharded = any(entry is not None for entry in sharding.spec)
    if sharded:
        spec = [sharding.spec[a] if a in axes.batch else None for a in range(x.ndim)]
        x = jax.reshard(x, jax.NamedSharding(sharding.mesh, jax.P(*spec)))
    order = axes.batch + axes.matrix
    y = x.transpose(order)
    shape = y.shape
    rows, columns = (
        math.prod(x.shape[a] for a in group) for group in (axes.reduction, axes.output)
    )
    y = function(y.reshape(*(x.shape[a] for a in axes.batch), rows, columns))
    inverse = tuple(order.index(axis) for axis in range(x.ndim))
    y = y.reshape(shape).transpose(inverse)
    return jax.reshard(y, sharding) if sharded else y
