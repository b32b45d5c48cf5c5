"""Convex sets: the proximal operator of an indicator function is the projection."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stochopt._checks import check_range
from stochopt.proximal.operator import ProximalOperator


def indicator(
    projection: Callable[..., Any], *args: Any, tolerance: float = 1e-4
) -> ProximalOperator:
    r"""Zero on a set and infinity outside; the projection, whatever the step.

    .. math::

       r(x) = \begin{cases} 0 & x \in C \\ \infty & x \notin C \end{cases}
       \qquad p = \Pi_C(v)

    The sets of optax are ``indicator(projection_simplex)``, ``indicator(projection_l1_ball,
    radius)``, ``indicator(projection_halfspace, normal, bound)`` and so on, with the names of
    ``optax.projections``. They take the tree as one vector.

    Args:
      projection: ``projection(params, *args) -> params`` onto a closed set.
      *args: its other arguments.
      tolerance: how far from its projection a point may lie to count as inside, as a multiple of
        the larger of one and its norm. Sums and bounds hold up to rounding only.
    """
    check_range("tolerance", tolerance, "[0, inf)")

    def value(params: Any) -> jax.Array:
        distance = optax.tree.norm(optax.tree.sub(params, projection(params, *args)))
        allowed = tolerance * jnp.maximum(1, optax.tree.norm(params))
        return jnp.where(distance <= allowed, 0, jnp.inf).astype(distance.dtype)

    return ProximalOperator(lambda params, step: projection(params, *args), value)


def box(lower: Any, upper: Any, *, tolerance: float = 1e-4) -> ProximalOperator:
    r"""The indicator of :math:`l \le x_i \le u`: entries are clipped.

    Args:
      lower: :math:`l`, a number or a tree of numbers or arrays, like ``params`` or a prefix of it.
      upper: :math:`u`, likewise.
      tolerance: as in :func:`indicator`.
    """

    def projection(params: Any) -> Any:
        # The projection of optax takes bounds of the tree's own structure.
        spread = lambda bound, subtree: jax.tree.map(lambda _: bound, subtree)
        like = lambda bounds: jax.tree.map(spread, bounds, params)
        return optax.projections.projection_box(params, like(lower), like(upper))

    return indicator(projection, tolerance=tolerance)
