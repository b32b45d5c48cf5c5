r"""Linear minimization over compact sets: what methods without projections ask of a set.

The sets are those of ``optax.projections`` that are bounded, with the tree as one vector:

============================  =================================
here                          projection
============================  =================================
``simplex(scale)``            ``projection_simplex``
``l1_ball(scale)``            ``projection_l1_ball``
``l2_ball(scale)``            ``projection_l2_ball``
``linf_ball(scale)``          ``projection_linf_ball``
``box(lower, upper)``         ``projection_box``
============================  =================================
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import check_range

__all__ = ["LinearMinimizer", "box", "l1_ball", "l2_ball", "linf_ball", "simplex"]


@dataclasses.dataclass(frozen=True)
class LinearMinimizer:
    r"""A point of a set :math:`C` where a linear function is least, called as ``lmo(slope)``.

    .. math:: v = \arg\min_{v \in C} \mathrm{Re} \langle g, v \rangle

    Args:
      minimize: ``minimize(slope) -> params``, a tree like ``slope``.
      diameter: ``diameter(params) -> scalar``, the largest Euclidean distance of two points of the
        set; gets a tree for its shapes, whose leaves may be abstract.
    """

    minimize: Callable[[Any], Any]
    diameter: Callable[[Any], float]

    def __call__(self, slope: Any) -> Any:
        """The minimizer, a tree like ``slope``."""
        return self.minimize(slope)


def simplex(scale: Any = 1.0) -> LinearMinimizer:
    r""":math:`x_i \ge 0, \sum_i x_i = s`: all on the least entry of the slope.

    Equal entries share, which is as good as any of them.

    Args:
      scale: :math:`s > 0`.
    """
    check_range("scale", scale, "(0, inf)")
    return LinearMinimizer(
        lambda slope: _shared(slope, lambda x: -x, jnp.ones_like, scale),
        lambda params: 2**0.5 * scale if _size(params) > 1 else 0.0,
    )


def l1_ball(scale: Any = 1.0) -> LinearMinimizer:
    r""":math:`\|x\|_1 \le s`: all on the largest entry of the slope, against its sign.

    Equal entries share.

    Args:
      scale: :math:`s > 0`.
    """
    check_range("scale", scale, "(0, inf)")
    return LinearMinimizer(
        lambda slope: _shared(slope, jnp.abs, lambda x: -jnp.sign(x), scale),
        lambda params: 2.0 * scale,
    )


def l2_ball(scale: Any = 1.0) -> LinearMinimizer:
    r""":math:`\|x\|_2 \le s`: against the slope, :math:`-s \, g / \|g\|`; zero where that is zero.

    Args:
      scale: :math:`s > 0`.
    """
    check_range("scale", scale, "(0, inf)")

    def minimize(slope: Any) -> Any:
        norm = optax.tree.norm(_tree.wide(slope))
        factor = -scale / jnp.where(norm > 0, norm, 1)
        return jax.tree.map(lambda x: _tree.scale(factor, x), slope)

    return LinearMinimizer(minimize, lambda params: 2.0 * scale)


def linf_ball(scale: Any = 1.0) -> LinearMinimizer:
    r""":math:`|x_i| \le s`: every entry against its sign.

    Args:
      scale: :math:`s > 0`.
    """
    check_range("scale", scale, "(0, inf)")
    return LinearMinimizer(
        lambda slope: jax.tree.map(lambda x: -jnp.asarray(scale, x.dtype) * jnp.sign(x), slope),
        lambda params: 2.0 * scale * _size(params) ** 0.5,
    )


def box(lower: Any, upper: Any) -> LinearMinimizer:
    r""":math:`l \le x_i \le u`: every entry at the end that its slope asks for; real leaves.

    Args:
      lower: :math:`l`, a number or a tree of numbers or arrays, like ``params`` or a prefix of it.
      upper: :math:`u \ge l`, likewise.
    """

    def over(function: Callable[..., Any], tree: Any) -> Any:
        # Bounds may stand for whole subtrees.
        spread = lambda bound, subtree: jax.tree.map(lambda _: bound, subtree)
        ends = (jax.tree.map(spread, bounds, tree) for bounds in (lower, upper))
        return jax.tree.map(function, tree, *ends)

    def corner(x: jax.Array, low: Any, high: Any) -> jax.Array:
        return jnp.where(x > 0, jnp.asarray(low, x.dtype), jnp.asarray(high, x.dtype))

    def diameter(params: Any) -> Any:
        widths = over(lambda x, low, high: jnp.broadcast_to(high - low, x.shape), params)
        return optax.tree.norm(widths)

    return LinearMinimizer(lambda slope: over(corner, slope), diameter)


def _shared(
    slope: Any,
    merit: Callable[[jax.Array], jax.Array],
    vertex: Callable[[jax.Array], jax.Array],
    scale: Any,
) -> Any:
    """``scale`` times the mean of the vertices whose merit is largest in the whole tree.

    Without indices, so that leaves keep their layout over devices.
    """
    merits = jax.tree.map(lambda x: merit(x.astype(_tree.at_least_float32(x.dtype))), slope)
    dtype = _tree.scalar_dtype(*jax.tree.leaves(slope))
    best = jnp.max(jnp.stack([jnp.max(m).astype(dtype) for m in jax.tree.leaves(merits)]))
    chosen = jax.tree.map(lambda m: m.astype(dtype) == best, merits)
    share = scale / sum(jnp.sum(c).astype(dtype) for c in jax.tree.leaves(chosen))
    return jax.tree.map(
        lambda x, c: jnp.where(c, _tree.scale(share, vertex(x)), jnp.zeros_like(x)), slope, chosen
    )


def _size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
