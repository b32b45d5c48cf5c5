"""Losses of one prediction and one target: value, derivative, curvature, conjugate."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from stochopt._checks import check_range

#: ``function(predictions, targets)``, entry by entry.
Entrywise = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Loss:
    r"""A convex smooth loss :math:`\varphi(z, b)` of a prediction and a target, entry by entry.

    Attributes:
      value: :math:`\varphi(z, b)`.
      derivative: :math:`\varphi'(z, b)` in :math:`z`.
      conjugate: :math:`\varphi^*(u, b) = \sup_z u z - \varphi(z, b)`, infinite where it is not
        finite; its domain is an interval that contains zero.
      curvature: :math:`c \ge \varphi''`.
      labels: the only targets there are; ``None`` for any number.
    """

    value: Entrywise
    derivative: Entrywise
    conjugate: Entrywise
    curvature: float
    labels: tuple[float, ...] | None = None


def squared() -> Loss:
    r"""Half of the squared residual.

    .. math::

       \varphi(z, b) = \frac12 (z - b)^2, \qquad
       \varphi^*(u, b) = \frac{u^2}{2} + u b, \qquad c = 1
    """
    return _SQUARED


def logistic() -> Loss:
    r"""The negative log likelihood of a label :math:`b \in \{-1, 1\}`.

    .. math::

       \varphi(z, b) = \log(1 + e^{-b z}), \qquad
       \varphi^*(u, b) = t \log t + (1 - t) \log(1 - t), \quad t = -u b \in [0, 1], \qquad
       c = \frac14
    """
    return _LOGISTIC


def huber(threshold: float = 1.0) -> Loss:
    r"""Quadratic near the target and linear beyond a threshold.

    .. math::

       \varphi(z, b) = \begin{cases}
         \frac12 (z - b)^2 & |z - b| \le \tau \\
         \tau |z - b| - \frac12 \tau^2 & |z - b| > \tau
       \end{cases} \qquad
       \varphi^*(u, b) = \frac{u^2}{2} + u b, \quad |u| \le \tau, \qquad c = 1

    Args:
      threshold: :math:`\tau > 0`.
    """
    check_range("threshold", threshold, "(0, inf)")

    def value(z: jax.Array, b: jax.Array) -> jax.Array:
        inside = jnp.clip(z - b, -threshold, threshold)
        return inside * (z - b) - jnp.square(inside) / 2

    def conjugate(u: jax.Array, b: jax.Array) -> jax.Array:
        return _within(jnp.abs(u) <= threshold, jnp.square(u) / 2 + u * b)

    return Loss(
        value=value,
        derivative=lambda z, b: jnp.clip(z - b, -threshold, threshold),
        conjugate=conjugate,
        curvature=1.0,
    )


def _logistic_conjugate(u: jax.Array, b: jax.Array) -> jax.Array:
    t = -u * b
    inside = jnp.clip(t, 0, 1)
    return _within((t >= 0) & (t <= 1), xlogy(inside, inside) + xlogy(1 - inside, 1 - inside))


def _within(domain: jax.Array, value: Any) -> jax.Array:
    return jnp.where(domain, value, jnp.inf)


_SQUARED = Loss(
    value=lambda z, b: jnp.square(z - b) / 2,
    derivative=lambda z, b: z - b,
    conjugate=lambda u, b: jnp.square(u) / 2 + u * b,
    curvature=1.0,
)

_LOGISTIC = Loss(
    value=lambda z, b: jax.nn.softplus(-b * z),
    derivative=lambda z, b: -b * jax.nn.sigmoid(-b * z),
    conjugate=_logistic_conjugate,
    curvature=0.25,
    labels=(-1, 1),
)
