r"""Linear minimization over the unit ball of a norm: the step that each norm calls steepest.

A *linear minimizer* maps a pytree :math:`m` to

.. math:: D(m) = \arg\max_{N(d) \le 1} \mathrm{Re} \langle m, d \rangle,

so that :math:`-D(m)` minimizes the linear function. It is a function from a pytree to one of the
same structure, shapes and dtypes; zero is mapped to zero.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from stochopt import _tree
from stochopt.orthogonal import matrices
from stochopt.orthogonal.buckets import BatchFunction, Distribution, map_matrices
from stochopt.orthogonal.newton_schulz import Orthogonalizer, divisor, newton_schulz, normalized

LinearMinimizer = Callable[[optax.Updates], optax.Updates]


def euclidean() -> LinearMinimizer:
    r""":math:`m / \|m\|_2` with the norm of the whole tree: normalized gradient descent."""

    def minimize(tree: optax.Updates) -> optax.Updates:
        leaves = jax.tree.leaves(tree)
        dtype = _tree.scalar_dtype(*leaves)
        # Over the largest entry first, whose square may be beyond the floating-point numbers.
        largest = jnp.stack([jnp.zeros([], dtype), *(_largest(x, dtype) for x in leaves)]).max()

        def unit(x: jax.Array) -> jax.Array:
            wide = _tree.at_least_float32(x.dtype)
            return x.astype(wide) / divisor(largest).astype(wide)

        scaled = jax.tree.map(unit, tree)
        squares = [_tree.dot(x, x, dtype) for x in jax.tree.leaves(scaled)]
        # At least one, unless all entries are zero.
        inverse = 1 / jnp.maximum(jnp.sqrt(sum(squares, jnp.zeros([], dtype))), 1)
        return jax.tree.map(lambda y, x: _tree.scale(inverse, y).astype(x.dtype), scaled, tree)

    return minimize


def max_norm() -> LinearMinimizer:
    r""":math:`\mathrm{sign}(m)`, entry by entry: sign descent. Complex entries become phases."""
    return lambda tree: jax.tree.map(jnp.sign, tree)


def spectral(
    *,
    orthogonalize: Orthogonalizer | None = None,
    weight_dimension_numbers: matrices.DimensionNumbers | None = None,
    distribute: Distribution | None = None,
) -> LinearMinimizer:
    r"""The polar factor of every matrix: the largest singular value of each is the norm.

    Args:
      orthogonalize: function from a batch of matrices to their polar factors; ``None`` means
        :func:`stochopt.orthogonal.newton_schulz`.
      weight_dimension_numbers: as in :func:`stochopt.orthogonal.scale_by_adago`.
      distribute: mesh axis over which to spread the matrices of equal shape, or a layout; not
        inside ``jax.shard_map``.
    """
    polar = newton_schulz if orthogonalize is None else orthogonalize
    return _matrix_by_matrix("spectral", polar, weight_dimension_numbers, distribute)


def nuclear(
    *,
    weight_dimension_numbers: matrices.DimensionNumbers | None = None,
    distribute: Distribution | None = None,
) -> LinearMinimizer:
    r""":math:`u_1 w_1^*`, the leading singular vectors of every matrix: a step of rank one.

    The norm of each matrix is its nuclear norm, the sum of the singular values. A singular value
    decomposition per matrix.

    Args:
      weight_dimension_numbers: as in :func:`stochopt.orthogonal.scale_by_adago`.
      distribute: mesh axis over which to spread the matrices of equal shape, or a layout; not
        inside ``jax.shard_map``.
    """
    return _matrix_by_matrix("nuclear", _leading_pair, weight_dimension_numbers, distribute)


def column_norm(
    *, weight_dimension_numbers: matrices.DimensionNumbers | None = None
) -> LinearMinimizer:
    r"""Normalizes what each single input is mapped to.

    The norm of a matrix is the largest Euclidean norm of the image of a unit vector :math:`e_i`,
    its operator norm from :math:`\ell_1` to :math:`\ell_2`: the largest *column* where a matrix is
    written outputs by inputs, the largest *row* in JAX's layout inputs by outputs. For an embedding
    it normalizes the step of every token.

    Args:
      weight_dimension_numbers: as in :func:`stochopt.orthogonal.scale_by_adago`.
    """

    def normalize(x: jax.Array, axes: matrices.MatrixAxes) -> jax.Array:
        return normalized(x, axes.output).astype(x.dtype)

    def minimize(tree: optax.Updates) -> optax.Updates:
        leaves, treedef = jax.tree.flatten(tree)
        axes = matrices.axes_of("column_norm", weight_dimension_numbers, tree)
        return jax.tree.unflatten(treedef, map(normalize, leaves, axes))

    return minimize


def product(
    hidden: LinearMinimizer,
    others: LinearMinimizer,
    *,
    weight_dimension_numbers: matrices.DimensionNumbers | None = None,
) -> LinearMinimizer:
    r"""One norm for the matrices, another for the rest: :math:`N = \max(N_1, N_2)`.

    Args:
      hidden: for the leaves that are matrices; it gets a tree with ``optax.MaskedNode`` elsewhere.
      others: for all other leaves.
      weight_dimension_numbers: which leaves are matrices; ``None`` means
        :func:`stochopt.orthogonal.hidden_matrices`.
    """
    rule = matrices.or_hidden(weight_dimension_numbers)
    is_entry = lambda n: n is False or isinstance(n, MuonDimensionNumbers)
    is_masked = lambda x: isinstance(x, optax.MaskedNode)

    def minimize(tree: optax.Updates) -> optax.Updates:
        numbers = matrices.resolve(rule, tree)

        def part(wanted: bool) -> optax.Updates:
            keep = lambda n, x: x if (n is not False) is wanted else optax.MaskedNode()
            return jax.tree.map(keep, numbers, tree, is_leaf=is_entry)

        choose = lambda a, b: b if is_masked(a) else a
        return jax.tree.map(choose, hidden(part(True)), others(part(False)), is_leaf=is_masked)

    return minimize


def _matrix_by_matrix(
    name: str,
    function: BatchFunction,
    weight_dimension_numbers: matrices.DimensionNumbers | None,
    distribute: Distribution | None,
) -> LinearMinimizer:
    def minimize(tree: optax.Updates) -> optax.Updates:
        leaves, treedef = jax.tree.flatten(tree)
        axes = matrices.axes_of(name, weight_dimension_numbers, tree)
        matrices.warn_of_tables(name, tree)
        return jax.tree.unflatten(treedef, map_matrices(function, leaves, axes, distribute))

    return minimize


def _leading_pair(x: jax.Array) -> jax.Array:
    u, s, wh = jnp.linalg.svd(x.astype(_tree.at_least_float32(x.dtype)), full_matrices=False)
    pair = u[..., :, :1] * wh[..., :1, :]
    leading = s[..., :1, None].astype(pair.dtype)
    return jnp.where(s[..., :1, None] > 0, pair, leading * pair).astype(x.dtype)  # NaN stays NaN


def _largest(x: Any, dtype: Any) -> jax.Array:
    return jnp.max(jnp.abs(x), initial=0.0).astype(dtype)
