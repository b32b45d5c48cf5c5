"""The outer loop of sliding, around an inner loop of any kind."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import require_params, require_whole_tree

#: ``inner(gradient, center, average) -> (last point, average of the loop, its counts)``.
InnerLoop = Callable[[Any, Any, Any], tuple[Any, Any, Any]]


class Moved(NamedTuple):
    """What an outer step leaves behind."""

    updates: Any  # to the next query point, like params
    prox_center: Any
    averaged_point: Any
    counts: Any  # of the inner loop


def check_update(method: str, updates: Any, params: Any) -> None:
    """Raises ``TypeError`` or ``ValueError`` unless ``update`` got what sliding needs."""
    require_params(method, params)
    require_whole_tree(method, params)
    if updates is None:
        raise TypeError(f"{method}: updates must be the gradient of the expensive part at params.")


def outer_step(
    inner: InnerLoop,
    mixing: jax.Array,
    query_mixing: jax.Array,
    updates: Any,
    state: Any,
    params: Any,
    restart: Any = False,
) -> Moved:
    """One inner loop from the centre; its average goes into the averaged point.

    Args:
      inner: the inner loop.
      mixing: weight of its average in the averaged point.
      query_mixing: weight of the centre in the *next* query point.
      updates: the smooth gradient at the query point.
      state: with ``count``, ``prox_center`` and ``averaged_point``.
      params: the query point.
      restart: whether the next step starts from the averaged point alone.
    """
    first = state.count == 0
    start = lambda old: jax.tree.map(
        lambda x, y: jnp.where(first, x.astype(y.dtype), y), params, old
    )
    center, before = start(state.prox_center), start(state.averaged_point)
    center, average, counts = inner(optax.tree.cast_like(updates, center), center, before)
    average = between(before, average, mixing)
    center = jax.tree.map(lambda x, y: jnp.where(restart, y, x), center, average)
    query = between(average, center, query_mixing)
    move = jax.tree.map(lambda new, old: new - old.astype(new.dtype), query, params)
    return Moved(optax.tree.cast_like(move, params), center, average, counts)


def initial_points(params: Any) -> tuple[Any, Any]:
    """Centre and averaged point before the first step writes them: leaves may be abstract."""
    return _tree.zeros_at_least_float32(params), _tree.zeros_at_least_float32(params)


def between(a: Any, b: Any, weight: jax.Array) -> Any:
    """``(1 - weight) a + weight b`` for each leaf."""
    return jax.tree.map(lambda x, y: x + weight.astype(x.dtype) * (y - x), a, b)
