r"""The quadratic model of stochastic model building, and its minimizer.

A rejected trial step :math:`s = -\alpha g` leaves a measured change of gradient
:math:`y = g(x + s) - g(x)`. SMB (Birbil et al.) moves by :math:`-B^{-1} h` with

.. math::

   B = \frac{s y^T + y s^T + 2 \sigma I}{\|s\|^2}, \qquad
   2 \sigma = \|s\| \|y\| - s^T y + \frac{\|s\| \|g\|}{\eta},

where :math:`h` is the gradient to step along: :math:`h = g` in SMB, the rejected gradient of an
earlier batch in SMBi. The published solution of this system (coefficients :math:`c_g, c_s, c_y`
over :math:`\theta = (s^T y + 2 \sigma)^2 - \|s\|^2 \|y\|^2`) subtracts nearly equal numbers. We
use the eigenvectors instead. With unit vectors :math:`\hat s = -\hat g` and :math:`\hat y`, the
matrix :math:`s y^T + y s^T` has eigenvectors :math:`p = \hat y - \hat g` and
:math:`m = -\hat g - \hat y`, so that :math:`\|s\|^2 B` has the eigenvalues

.. math::

   \lambda_p = \|s\| \left(\tfrac{\|g\|}{\eta} + 2 \|y\|\right), \quad
   \lambda_m = \|s\| \tfrac{\|g\|}{\eta}, \quad
   \lambda_0 = \|s\| \left(\tfrac{\|g\|}{\eta} + \|y\| + \hat g^T y\right),

the last on everything orthogonal to both. All three are positive, and nothing cancels when the
last is formed by :math:`\|y\| + \hat g^T y = \|y\| \|m\|^2 / 2`. For :math:`h = g` nothing is left
outside the span of the first two and the step collapses to
:func:`~stochopt.model_building.model.same_batch_step`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from stochopt.model_building.groups import Groups

_BLIND_SHRINKAGE = 0.1  # of the trial step, where the model is not finite


def _safe_ratio(
    numerator: jax.typing.ArrayLike, denominator: jax.Array, otherwise: float
) -> jax.Array:
    zero = denominator == 0
    return jnp.where(zero, otherwise, numerator / jnp.where(zero, 1, denominator))


def _norm(groups: Groups, tree: Any) -> jax.Array:
    return jnp.sqrt(groups.dot(tree, tree))


def same_batch_step(
    groups: Groups, alpha: jax.Array, eta: jax.typing.ArrayLike, g: Any, y: Any
) -> Any:
    r"""SMB's step :math:`-B^{-1} g`, group by group.

    .. math::

       s_+ = -\alpha \eta \left( \frac{1 + \rho}{2} g + \eta \rho \, y \right),
       \qquad \rho = \frac{\|g\|}{\|g\| + 2 \eta \|y\|}.

    No curvature (:math:`y = 0`) gives :math:`-\alpha \eta g`; isotropic curvature
    (:math:`y = c s`) gives the step size :math:`1 / (2 c + 1 / (\alpha \eta))`: a trial step that
    is far too long becomes half a Newton step. A zero gradient gives a zero step, and a group
    whose numbers are not finite moves by :math:`-0.1 \alpha g`.

    Args:
      groups: which leaves share a model.
      alpha: trial step size.
      eta: :math:`\eta` in (0, 1), which bounds the step: :math:`\|s_+\| \le \eta \|s\|`.
      g: the gradient.
      y: the change of gradient along the trial step :math:`-\alpha g`.

    Returns:
      The step, like ``g``.
    """
    g_norm, y_norm = _norm(groups, g), _norm(groups, y)
    rho = _safe_ratio(g_norm, g_norm + 2 * eta * y_norm, 1.0)
    step = groups.combine((-alpha * eta * (1 + rho) / 2, g), (-alpha * jnp.square(eta) * rho, y))
    return _or_blind(groups, jnp.isfinite(rho + y_norm), step, alpha, g)


def independent_batch_step(
    groups: Groups, alpha: jax.Array, eta: jax.typing.ArrayLike, h: Any, g: Any, y: Any
) -> Any:
    r"""SMBi's step :math:`-B^{-1} h`, group by group.

    With the eigenvectors :math:`p, m` of the module text,

    .. math::

       s_+ = -\frac{\alpha \|g\|}{\lambda} \left( h
         - \frac{\eta \|y\|}{2 (\|g\| + 2 \eta \|y\|)} (p^T h) \, p
         + \frac{\eta \|y\|}{2 \|g\|} (m^T h) \, m \right),
       \qquad \lambda = \frac{\|g\|}{\eta} + \frac{\|y\| \|m\|^2}{2} .

    Where the new batch has no gradient (:math:`g = 0`) there was no trial step and the model is
    empty: the step is :math:`-\alpha \eta h`. A group whose numbers are not finite moves by
    :math:`-0.1 \alpha h`.

    Args:
      groups: which leaves share a model.
      alpha: trial step size.
      eta: :math:`\eta` in (0, 1).
      h: the rejected gradient, from an earlier batch.
      g: the new batch's gradient.
      y: its change along the trial step :math:`-\alpha g`.

    Returns:
      The step, like ``h``.
    """
    g_norm, y_norm = _norm(groups, g), _norm(groups, y)
    per_g, per_y = _safe_ratio(1.0, g_norm, 0.0), _safe_ratio(1.0, y_norm, 0.0)
    p = groups.combine((per_y, y), (-per_g, g))
    m = groups.combine((-per_y, y), (-per_g, g))
    scale = -alpha * _safe_ratio(g_norm, g_norm / eta + y_norm * groups.dot(m, m) / 2, 0.0)
    on_p = -_safe_ratio(eta * y_norm, g_norm + 2 * eta * y_norm, 0.0) / 2 * groups.dot(p, h)
    on_m = eta * y_norm * per_g / 2 * groups.dot(m, h)
    modelled = g_norm > 0
    coefficients = (jnp.where(modelled, scale, -alpha * eta), scale * on_p, scale * on_m)
    step = groups.combine(*zip(coefficients, (h, p, m), strict=True))
    finite = jnp.isfinite(sum(coefficients) + g_norm + y_norm)
    return _or_blind(groups, finite, step, alpha, h)


def _or_blind(groups: Groups, finite: jax.Array, step: Any, alpha: jax.Array, h: Any) -> Any:
    """``step`` where the numbers of the group are finite, else a short step along ``-h``."""
    blind = groups.combine((jnp.full(finite.shape, -_BLIND_SHRINKAGE * alpha), h))
    return groups.where(finite, step, blind)
