"""Design matrices, dense or sparse, one protocol: products, blocks of columns, chosen columns."""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from stochopt import _tree
from stochopt._checks import check_count


class Design(Protocol):
    r"""A matrix :math:`A` of samples times features, a pytree whose leaves are its entries.

    Column blocks are consecutive and of one width, which must divide the number of columns: see
    :meth:`padded`. The width is that of the vector that goes in or a Python number; the number of
    the block may be traced.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and features, :math:`(n, d)`."""

    @property
    def dtype(self) -> Any:
        """Of the entries, float32 or wider."""

    def matvec(self, x: jax.Array) -> jax.Array:
        """The predictions :math:`A x`."""

    def rmatvec(self, v: jax.Array) -> jax.Array:
        r""":math:`A^\top v`."""

    def block_rmatvec(self, index: Any, v: jax.Array, width: int) -> jax.Array:
        r""":math:`A_j^\top v` for the block of columns with number ``index``."""

    def block_update(self, z: jax.Array, index: Any, change: jax.Array) -> jax.Array:
        r""":math:`z + A_j \delta`: the predictions after a block has changed by ``change``."""

    def squared_column_norms(self) -> jax.Array:
        r""":math:`\|A_{\cdot k}\|^2` for every column."""

    def columns(self, indices: jax.Array) -> jax.Array:
        """Columns as a dense array (n, k); the index :math:`d` gives a column of zeros."""

    def padded(self, width: int) -> "Design":
        """With columns of zeros behind, so that ``width`` divides their number."""

    def cut(self, width: int) -> tuple["Design", ...]:
        """Every block of columns as a design of its own; copies the entries."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DenseDesign:
    """See :func:`dense`.

    Attributes:
      transposed: the matrix transposed, (d, n): a block of columns is one piece of memory.
    """

    transposed: jax.Array

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and features."""
        num_columns, num_rows = self.transposed.shape
        return num_rows, num_columns

    @property
    def dtype(self) -> Any:
        """Of the entries."""
        return self.transposed.dtype

    def matvec(self, x: jax.Array) -> jax.Array:
        """The predictions."""
        return x @ self.transposed

    def rmatvec(self, v: jax.Array) -> jax.Array:
        """The product of the transposed matrix."""
        return self.transposed @ v

    def block_rmatvec(self, index: Any, v: jax.Array, width: int) -> jax.Array:
        """The product of a transposed block."""
        return self._block(index, width) @ v

    def block_update(self, z: jax.Array, index: Any, change: jax.Array) -> jax.Array:
        """Predictions after the change of a block."""
        return z + change @ self._block(index, change.shape[0])

    def squared_column_norms(self) -> jax.Array:
        """Of every column."""
        return jnp.sum(jnp.square(self.transposed), axis=1)

    def columns(self, indices: jax.Array) -> jax.Array:
        """Columns as a dense array."""
        return self.transposed.at[indices].get(mode="fill", fill_value=0).T

    def padded(self, width: int) -> "DenseDesign":
        """With columns of zeros behind."""
        return DenseDesign(_pad_rows(self.transposed, width, 0))

    def cut(self, width: int) -> tuple["DenseDesign", ...]:
        """Every block of columns as a design."""
        return tuple(map(DenseDesign, _cut_rows(self.transposed, width)))

    def _block(self, index: Any, width: int) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(self.transposed, index * width, width)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SparseDesign:
    """See :func:`sparse`.

    Columns are stored side by side, all as long as the fullest one. A matrix in coordinates, such
    as ``jax.experimental.sparse.BCOO``, has no cheap slice of columns: it would search all entries
    for those of a block. The price is memory where few columns are much fuller than the rest.

    Attributes:
      rows: row numbers of the nonzeros of each column, int32 (d, max_nonzeros); ``num_rows`` where
        a column has fewer, which all products drop.
      values: the nonzeros, of the same shape, zero where a column has fewer.
      num_rows: the number of samples.
    """

    rows: jax.Array
    values: jax.Array
    num_rows: int = dataclasses.field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and features."""
        return self.num_rows, self.values.shape[0]

    @property
    def dtype(self) -> Any:
        """Of the entries."""
        return self.values.dtype

    def matvec(self, x: jax.Array) -> jax.Array:
        """The predictions."""
        return _scatter(jnp.zeros(self.num_rows, self.dtype), self.rows, self.values, x)

    def rmatvec(self, v: jax.Array) -> jax.Array:
        """The product of the transposed matrix."""
        return _gather(v, self.rows, self.values)

    def block_rmatvec(self, index: Any, v: jax.Array, width: int) -> jax.Array:
        """The product of a transposed block."""
        return _gather(v, *self._block(index, width))

    def block_update(self, z: jax.Array, index: Any, change: jax.Array) -> jax.Array:
        """Predictions after the change of a block."""
        return _scatter(z, *self._block(index, change.shape[0]), change)

    def squared_column_norms(self) -> jax.Array:
        """Of every column."""
        return jnp.sum(jnp.square(self.values), axis=1)

    def columns(self, indices: jax.Array) -> jax.Array:
        """Columns as a dense array."""
        rows = self.rows.at[indices].get(mode="fill", fill_value=self.num_rows)
        values = self.values.at[indices].get(mode="fill", fill_value=0)
        out = jnp.zeros((self.num_rows, indices.shape[0]), self.dtype)
        return out.at[rows, jnp.arange(indices.shape[0])[:, None]].add(values, mode="drop")

    def padded(self, width: int) -> "SparseDesign":
        """With columns of zeros behind."""
        rows = _pad_rows(self.rows, width, self.num_rows)
        return SparseDesign(rows, _pad_rows(self.values, width, 0), self.num_rows)

    def cut(self, width: int) -> tuple["SparseDesign", ...]:
        """Every block of columns as a design."""
        pairs = zip(_cut_rows(self.rows, width), _cut_rows(self.values, width), strict=True)
        return tuple(SparseDesign(*pair, self.num_rows) for pair in pairs)

    def _block(self, index: Any, width: int) -> tuple[jax.Array, jax.Array]:
        cut = lambda x: jax.lax.dynamic_slice_in_dim(x, index * width, width)
        return cut(self.rows), cut(self.values)


def dense(matrix: Any) -> DenseDesign:
    """A design from an array of samples times features.

    Args:
      matrix: real, of shape (n, d); narrower than float32 is widened. Kept transposed, so this
        copies it.

    Raises:
      ValueError: ``matrix`` has other axes, none at all, or is complex.
    """
    matrix = jnp.asarray(matrix)
    _check_matrix("dense", matrix)
    return DenseDesign(matrix.T.astype(_entries_dtype(matrix.dtype)))


def sparse(matrix: Any) -> SparseDesign:
    """A design that keeps the nonzeros of each column, padded to the length of the fullest.

    Args:
      matrix: a SciPy sparse matrix or a NumPy array, real, of shape (n, d).

    Raises:
      ValueError: ``matrix`` has other axes, none at all, or is complex.
    """
    matrix = matrix if scipy.sparse.issparse(matrix) else np.asarray(matrix)
    _check_matrix("sparse", matrix)
    by_column = scipy.sparse.csc_array(matrix)
    by_column.sum_duplicates()
    num_rows, num_columns = by_column.shape
    lengths = np.diff(by_column.indptr)
    column = np.repeat(np.arange(num_columns), lengths)
    place = np.arange(by_column.nnz) - by_column.indptr[column]
    longest = max(int(lengths.max()), 1)
    rows = np.full((num_columns, longest), num_rows, np.int32)
    values = np.zeros((num_columns, longest), by_column.dtype)
    rows[column, place], values[column, place] = by_column.indices, by_column.data
    entries = jnp.asarray(values)
    return SparseDesign(jnp.asarray(rows), entries.astype(_entries_dtype(entries.dtype)), num_rows)


def _check_matrix(function: str, matrix: Any) -> None:
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{function}: matrix needs samples and features, got {matrix.shape}.")
    if np.issubdtype(matrix.dtype, np.complexfloating):
        raise ValueError(f"{function}: matrix must be real, got {matrix.dtype}.")


def _entries_dtype(dtype: Any) -> Any:
    is_float = jnp.issubdtype(dtype, jnp.floating)
    return _tree.at_least_float32(dtype) if is_float else jnp.zeros([]).dtype


def _pad_rows(array: jax.Array, width: int, value: Any) -> jax.Array:
    check_count("width", width)
    missing = -array.shape[0] % width
    return jnp.pad(array, ((0, missing), (0, 0)), constant_values=value) if missing else array


def _cut_rows(array: jax.Array, width: int) -> list[jax.Array]:
    return [array[start : start + width] for start in range(0, array.shape[0], width)]


def _gather(v: jax.Array, rows: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.sum(values * jnp.take(v, rows, mode="fill", fill_value=0), axis=1)


def _scatter(z: jax.Array, rows: jax.Array, values: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.asarray(z).at[rows].add(values * x[:, None], mode="drop")
