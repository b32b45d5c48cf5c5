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

the last on everything orthogonal to both. All three are positive. For :math:`h = g` nothing is
left outside the span of the first two and the step collapses to :func:`same_batch_step`.
"""

import jax
import jax.numpy as jnp


def _safe_ratio(
    numerator: jax.typing.ArrayLike, denominator: jax.Array, otherwise: float
) -> jax.Array:
    zero = denominator == 0
    return jnp.where(zero, otherwise, numerator / jnp.where(zero, 1, denominator))


def same_batch_step(
    alpha: jax.Array, eta: jax.typing.ArrayLike, g_norm: jax.Array, y_norm: jax.Array
) -> tuple[jax.Array, jax.Array]:
    r"""Coefficients of SMB's step :math:`c_g g + c_y y`.

    .. math::

       s_+ = -\alpha \eta \left( \frac{1 + \rho}{2} g + \eta \rho \, y \right),
       \qquad \rho = \frac{\|g\|}{\|g\| + 2 \eta \|y\|}.

    No curvature (:math:`y = 0`) gives :math:`-\alpha \eta g`; isotropic curvature
    (:math:`y = c s`) gives the step size :math:`1 / (2 c + 1 / (\alpha \eta))`: a trial step that
    is far too long becomes half a Newton step. A zero gradient gives a zero step.

    Args:
      alpha: trial step size.
      eta: :math:`\eta` in (0, 1), which bounds the step: :math:`\|s_+\| \le \eta \|s\|`.
      g_norm: :math:`\|g\|`.
      y_norm: :math:`\|y\|`.

    Returns:
      The coefficients :math:`(c_g, c_y)`.
    """
    rho = _safe_ratio(g_norm, g_norm + 2 * eta * y_norm, 1.0)
    return -alpha * eta * (1 + rho) / 2, -alpha * jnp.square(eta) * rho


def independent_batch_step(
    alpha: jax.Array,
    eta: jax.typing.ArrayLike,
    g_norm: jax.Array,
    y_norm: jax.Array,
    gy: jax.Array,
    gh: jax.Array,
    yh: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    r"""Coefficients of SMBi's step :math:`-B^{-1} h = c_h h + c_g g + c_y y`.

    With the eigenvectors :math:`p, m` of the module text,

    .. math::

       s_+ = -\frac{\alpha \|g\|}{\lambda} \left( h
         - \frac{\eta \|y\|}{2 (\|g\| + 2 \eta \|y\|)} (p^T h) \, p
         + \frac{\eta \|y\|}{2 \|g\|} (m^T h) \, m \right),
       \qquad \lambda = \frac{\|g\|}{\eta} + \|y\| + \hat g^T y.

    Where the new batch has no gradient (:math:`g = 0`) there was no trial step and the model is
    empty: the step is :math:`-\alpha \eta h`.

    Args:
      alpha: trial step size.
      eta: :math:`\eta` in (0, 1).
      g_norm: :math:`\|g\|`, the new batch's gradient.
      y_norm: :math:`\|y\|`.
      gy: :math:`g^T y`.
      gh: :math:`g^T h`.
      yh: :math:`y^T h`.

    Returns:
      The coefficients :math:`(c_h, c_g, c_y)`.
    """
    inverse_g, inverse_y = _safe_ratio(1.0, g_norm, 0.0), _safe_ratio(1.0, y_norm, 0.0)
    along_g, along_y = gh * inverse_g, yh * inverse_y
    p_h, m_h = along_y - along_g, -along_g - along_y
    on_p = -_safe_ratio(eta * y_norm, g_norm + 2 * eta * y_norm, 0.0) / 2 * p_h
    on_m = eta * y_norm * inverse_g / 2 * m_h
    scale = -alpha * _safe_ratio(g_norm, g_norm / eta + y_norm + gy * inverse_g, 0.0)
    moved = g_norm > 0
    return (
        jnp.where(moved, scale, -alpha * eta),
        jnp.where(moved, -scale * (on_p + on_m) * inverse_g, 0.0),
        jnp.where(moved, scale * (on_p - on_m) * inverse_y, 0.0),
    )
