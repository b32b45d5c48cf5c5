"""Groups of leaves that share one model."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp

from stochopt import _tree

#: From a leaf's key path to the label of its group; leaves with one label share one model.
GroupFn = Callable[[tuple[Any, ...]], Hashable]


class Groups:
    """Sums over groups of leaves, and the way back from one number a group to the leaves."""

    def __init__(self, tree: Any, group_fn: GroupFn | None, dtype: Any):
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        labels = list(range(len(paths))) if group_fn is None else [group_fn(p) for p in paths]
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        self.of_leaf = [numbers[label] for label in labels]
        self.size = len(numbers)
        self.dtype = dtype

    def dot(self, a: Any, b: Any) -> jax.Array:
        """``Re <a, b>`` of each group, shape ``(groups,)``."""
        sums = [jnp.zeros([], self.dtype)] * self.size
        for group, x, y in zip(self.of_leaf, jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            sums[group] += _tree.dot(x, y, self.dtype)
        return jnp.stack(sums) if sums else jnp.zeros([0], self.dtype)

    def combine(self, *terms: tuple[jax.Array, Any]) -> Any:
        """Sum of ``coefficient[group] * leaf`` over the terms, in the dtypes of the first tree."""
        coefficients, trees = zip(*terms, strict=True)

        def weigh(group: int, *row: jax.Array) -> jax.Array:
            wide = _tree.at_least_float32(row[0].dtype)
            pairs = zip(coefficients, row, strict=True)
            return sum(c[group].astype(wide) * x.astype(wide) for c, x in pairs).astype(
                row[0].dtype
            )

        return jax.tree.map(weigh, self._numbered(trees[0]), *trees)

    def where(self, condition: jax.Array, a: Any, b: Any) -> Any:
        """Leaf by leaf ``a`` where the condition of its group holds, else ``b``."""
        choose = lambda group, x, y: jnp.where(condition[group], x, y)
        return jax.tree.map(choose, self._numbered(a), a, b)

    def _numbered(self, tree: Any) -> Any:
        return jax.tree.unflatten(jax.tree.structure(tree), self.of_leaf)
