r"""Penalties of coefficients: the operators of :mod:`stochopt.proximal` with what optimality needs.

Their numbers are leaves, so a path over weights compiles once. A penalty is a sum over groups of
consecutive entries, single ones but for :func:`group_lasso`; each function takes any number of
whole groups, such as one block of them.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from stochopt import proximal
from stochopt._checks import check_count, check_range


class Penalty(Protocol):
    r"""A penalty :math:`r(x) = \sum_g r_g(x_g)` of a vector, the same for all groups.

    A convex one is a :class:`ConvexPenalty` and has a duality gap.
    """

    @property
    def group_size(self) -> int:
        """Entries in a group."""

    @property
    def largest_step(self) -> Any:
        """Steps of ``prox`` must be below it."""

    def value(self, x: jax.Array) -> jax.Array:
        """The penalty."""

    def prox(self, x: jax.Array, step: Any) -> jax.Array:
        """Its proximal operator."""

    def violation(self, x: jax.Array, gradient: jax.Array) -> jax.Array:
        r"""The distance of :math:`-g` to :math:`\partial r_g(x_g)` for every group."""


class ConvexPenalty(Penalty, Protocol):
    r"""A convex penalty: :math:`r^*` bounds the objective from below."""

    def conjugate(self, v: jax.Array) -> jax.Array:
        r""":math:`r^*(v)` for :math:`v` in its domain."""

    def dual_scale(self, v: jax.Array) -> jax.Array:
        r"""The largest :math:`s \le 1` for which :math:`s v` is in the domain of :math:`r^*`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ElasticNet:
    """See :func:`elastic_net` and :func:`l1`."""

    weight: Any
    ridge_weight: Any

    @property
    def group_size(self) -> int:
        """One."""
        return 1

    @property
    def largest_step(self) -> Any:
        """None is."""
        return jnp.inf

    def value(self, x: jax.Array) -> jax.Array:
        """The penalty."""
        return self._operator().value(x)

    def prox(self, x: jax.Array, step: Any) -> jax.Array:
        """Soft thresholding and scaling."""
        return self._operator()(x, step)

    def violation(self, x: jax.Array, gradient: jax.Array) -> jax.Array:
        """For every entry."""
        return _entry_violation(x, gradient + self.ridge_weight * x, self.weight, self.weight)

    def conjugate(self, v: jax.Array) -> jax.Array:
        """Zero without ridge."""
        excess = jnp.maximum(jnp.abs(v) - self.weight, 0)
        safe = jnp.where(self.ridge_weight > 0, self.ridge_weight, jnp.inf)
        return jnp.sum(jnp.square(excess) / (2 * safe))

    def dual_scale(self, v: jax.Array) -> jax.Array:
        """One with ridge."""
        scale = _scale_to(self.weight, jnp.max(jnp.abs(v)))
        return jnp.where(self.ridge_weight > 0, 1, scale)

    def _operator(self) -> proximal.ProximalOperator:
        return proximal.elastic_net(self.weight, self.ridge_weight)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GroupLasso:
    """See :func:`group_lasso`."""

    weight: Any
    group_size: int = dataclasses.field(metadata={"static": True})

    @property
    def largest_step(self) -> Any:
        """None is."""
        return jnp.inf

    def value(self, x: jax.Array) -> jax.Array:
        """The penalty."""
        return self._operator().value(self._groups(x))

    def prox(self, x: jax.Array, step: Any) -> jax.Array:
        """Every group shrinks or vanishes."""
        return self._operator()(self._groups(x), step).reshape(-1)[: x.shape[0]]

    def violation(self, x: jax.Array, gradient: jax.Array) -> jax.Array:
        """For every group."""
        x, gradient = self._groups(x), self._groups(gradient)
        size = jnp.linalg.norm(x, axis=1, keepdims=True)
        moves = size > 0
        direction = x / jnp.where(moves, size, 1)
        inside = jnp.linalg.norm(gradient + self.weight * direction, axis=1)
        at_zero = jnp.maximum(jnp.linalg.norm(gradient, axis=1) - self.weight, 0)
        return jnp.where(moves[:, 0], inside, at_zero)

    def conjugate(self, v: jax.Array) -> jax.Array:
        """Zero."""
        return jnp.zeros([], v.dtype)

    def dual_scale(self, v: jax.Array) -> jax.Array:
        """From the largest norm of a group."""
        return _scale_to(self.weight, jnp.max(jnp.linalg.norm(self._groups(v), axis=1)))

    def _operator(self) -> proximal.ProximalOperator:
        return proximal.group_lasso(self.weight, axis=1)

    def _groups(self, x: jax.Array) -> jax.Array:
        """One row a group; the last is filled with zeros."""
        return jnp.pad(x, (0, -x.shape[0] % self.group_size)).reshape(-1, self.group_size)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MCP:
    """See :func:`mcp`."""

    weight: Any
    gamma: Any

    @property
    def group_size(self) -> int:
        """One."""
        return 1

    @property
    def largest_step(self) -> Any:
        r""":math:`\gamma`."""
        return self.gamma

    def value(self, x: jax.Array) -> jax.Array:
        """The penalty."""
        return self._operator().value(x)

    def prox(self, x: jax.Array, step: Any) -> jax.Array:
        """Firm thresholding."""
        return self._operator()(x, step)

    def violation(self, x: jax.Array, gradient: jax.Array) -> jax.Array:
        """For every entry."""
        slope = jnp.maximum(self.weight - jnp.abs(x) / self.gamma, 0)
        return _entry_violation(x, gradient, self.weight, slope)

    def _operator(self) -> proximal.ProximalOperator:
        return proximal.mcp(self.weight, self.gamma)


def l1(weight: Any) -> ElasticNet:
    r"""The lasso penalty :math:`\lambda \|x\|_1`: :func:`elastic_net` without ridge.

    Args:
      weight: :math:`\lambda \ge 0`.
    """
    return elastic_net(weight, 0.0)


def elastic_net(weight: Any, ridge_weight: Any) -> ElasticNet:
    r"""Lasso and ridge, :math:`\lambda \|x\|_1 + \frac{\mu}{2} \|x\|^2`.

    .. math:: r^*(v) = \frac{1}{2 \mu} \sum_k \max(|v_k| - \lambda, 0)^2

    and for :math:`\mu = 0` zero where all :math:`|v_k| \le \lambda`.

    Args:
      weight: :math:`\lambda \ge 0`.
      ridge_weight: :math:`\mu \ge 0`.
    """
    check_range("weight", weight, "[0, inf)")
    check_range("ridge_weight", ridge_weight, "[0, inf)")
    return ElasticNet(weight, ridge_weight)


def group_lasso(weight: Any, group_size: int) -> GroupLasso:
    r"""The norms of consecutive groups of one size, :math:`\lambda \sum_g \|x_g\|_2`.

    Args:
      weight: :math:`\lambda \ge 0`.
      group_size: entries in a group; the last one may have fewer.
    """
    check_range("weight", weight, "[0, inf)")
    check_count("group_size", group_size)
    return GroupLasso(weight, group_size)


def mcp(weight: Any, gamma: Any = 3.0) -> MCP:
    r"""The minimax concave penalty, see :func:`stochopt.proximal.mcp`; not convex.

    Its slope falls from :math:`\lambda` at zero to none beyond :math:`\gamma \lambda`. Steps must
    be below :math:`\gamma`, so every column needs :math:`c \|A_j\|^2 / n > 1 / \gamma`.

    Args:
      weight: :math:`\lambda \ge 0`.
      gamma: :math:`\gamma > 0`.
    """
    check_range("weight", weight, "[0, inf)")
    check_range("gamma", gamma, "(0, inf)")
    return MCP(weight, gamma)


def _entry_violation(x: jax.Array, gradient: jax.Array, kink: Any, slope: Any) -> jax.Array:
    """For a penalty of moduli with the slope ``kink`` at zero and ``slope`` at ``x``."""
    at_zero = jnp.maximum(jnp.abs(gradient) - kink, 0)
    return jnp.where(x == 0, at_zero, jnp.abs(gradient + slope * jnp.sign(x)))


def _scale_to(bound: Any, norm: jax.Array) -> jax.Array:
    """The largest factor of at most one that takes ``norm`` to at most ``bound``."""
    return jnp.where(norm > bound, bound / jnp.where(norm > bound, norm, 1), 1)
