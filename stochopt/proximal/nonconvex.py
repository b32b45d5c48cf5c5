"""Penalties that are flat far from zero: what is large is not shrunk."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_range
from stochopt.proximal.operator import ProximalOperator, scalars
from stochopt.proximal.separable import of_moduli


def mcp(weight: Any, gamma: Any = 3.0) -> ProximalOperator:
    r"""The minimax concave penalty.

    .. math::

       r(x) = \sum_i \begin{cases}
         \lambda |x_i| - \dfrac{x_i^2}{2 \gamma} & |x_i| \le \gamma \lambda \\
         \dfrac{\gamma \lambda^2}{2} & |x_i| > \gamma \lambda
       \end{cases}
       \qquad
       p_i = \begin{cases}
         \dfrac{\mathrm{sign}(v_i) \max(|v_i| - s \lambda, 0)}{1 - s / \gamma}
           & |v_i| \le \gamma \lambda \\
         v_i & |v_i| > \gamma \lambda
       \end{cases}

    With :math:`\|x\|^2 / (2 \gamma)` added it is convex, so the minimizer is unique for steps
    :math:`s < \gamma`. A larger one raises ``ValueError``; a larger one that is traced gives NaN.

    Args:
      weight: :math:`\lambda \ge 0`, the slope at zero.
      gamma: :math:`\gamma > 0`; the penalty is flat beyond :math:`\gamma \lambda`.

    References:
      Zhang, `Nearly Unbiased Variable Selection Under Minimax Concave Penalty
      <https://arxiv.org/abs/1002.4734>`_, 2010.
    """
    check_range("weight", weight, "[0, inf)")
    check_range("gamma", gamma, "(0, inf)")

    def shrink(size: jax.Array, step: Any) -> jax.Array:
        _require_below("mcp", step, "gamma", gamma)
        lam, knee, s = scalars(size, weight, gamma, step)
        inner = jnp.maximum(size - s * lam, 0) / (1 - s / knee)
        return _nan_unless(s < knee, jnp.where(size > knee * lam, size, inner))

    def penalty(size: jax.Array) -> jax.Array:
        lam, knee = scalars(size, weight, gamma)
        inside = jnp.minimum(size, knee * lam)
        return lam * inside - inside**2 / (2 * knee)

    return of_moduli(shrink, penalty)


def scad(weight: Any, a: Any = 3.7) -> ProximalOperator:
    r"""The smoothly clipped absolute deviation.

    .. math::

       r(x) = \sum_i \begin{cases}
         \lambda |x_i| & |x_i| \le \lambda \\
         \dfrac{2 a \lambda |x_i| - x_i^2 - \lambda^2}{2 (a - 1)} & \lambda < |x_i| \le a \lambda \\
         \dfrac{(a + 1) \lambda^2}{2} & |x_i| > a \lambda
       \end{cases}

    .. math::

       p_i = \begin{cases}
         \mathrm{sign}(v_i) \max(|v_i| - s \lambda, 0) & |v_i| \le (1 + s) \lambda \\
         \dfrac{(a - 1) v_i - \mathrm{sign}(v_i)\, s a \lambda}{a - 1 - s}
           & (1 + s) \lambda < |v_i| \le a \lambda \\
         v_i & |v_i| > a \lambda
       \end{cases}

    With :math:`\|x\|^2 / (2 (a - 1))` added it is convex, so the minimizer is unique for steps
    :math:`s < a - 1`. A larger one raises ``ValueError``; a larger one that is traced gives NaN.

    Args:
      weight: :math:`\lambda \ge 0`, the slope at zero.
      a: :math:`a > 1`; the penalty is flat beyond :math:`a \lambda`. The paper takes
        :math:`a > 2`, which allows a step of one.

    References:
      Fan, Li, `Variable Selection via Nonconcave Penalized Likelihood and its Oracle Properties
      <https://doi.org/10.1198/016214501753382273>`_, 2001.
    """
    check_range("weight", weight, "[0, inf)")
    check_range("a", a, "(1, inf)")

    def shrink(size: jax.Array, step: Any) -> jax.Array:
        _require_below("scad", step, "a - 1", a - 1)
        lam, knee, s = scalars(size, weight, a, step)
        inner = jnp.maximum(size - s * lam, 0)
        middle = ((knee - 1) * size - s * knee * lam) / (knee - 1 - s)
        outside = jnp.where(size > knee * lam, size, middle)
        return _nan_unless(s < knee - 1, jnp.where(size > (1 + s) * lam, outside, inner))

    def penalty(size: jax.Array) -> jax.Array:
        lam, knee = scalars(size, weight, a)
        bent = jnp.clip(size, lam, knee * lam)
        rise = (bent - lam) * ((2 * knee - 1) * lam - bent) / (2 * (knee - 1))
        return lam * jnp.minimum(size, lam) + rise

    return of_moduli(shrink, penalty)


def _require_below(method: str, step: Any, name: str, bound: Any) -> None:
    """Raises ``ValueError`` for a step that is known not to be below ``bound``."""
    if isinstance(step, jax.core.Tracer) or isinstance(bound, jax.core.Tracer):
        return
    if not np.all(np.asarray(step) < np.asarray(bound)):
        raise ValueError(f"{method}: the step must be less than {name} = {bound}, got {step}.")


def _nan_unless(valid: jax.Array, size: jax.Array) -> jax.Array:
    """``size``, but NaN for a traced step that is too large, which cannot raise."""
    return jnp.where(valid, size, jnp.nan)
