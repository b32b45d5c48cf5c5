"""Where the inner steps of sliding happen: the proximal term, its step and its dual norm."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt._checks import check_arguments, check_range
from stochopt._oracles import check_shapes
from stochopt.proximal import Prox, zero
from stochopt.proximal.combine import ridge_added


class Geometry(NamedTuple):
    r"""A Bregman divergence :math:`V` together with the simple part :math:`\chi`.

    Attributes:
      step: ``step(slope, center, center_weight, point, point_weight) -> params``, the minimizer
        over :math:`u` of
        :math:`\langle g, u \rangle + \chi(u) + \beta V(x, u) + \beta' V(y, u)`.
      dual_norm: ``dual_norm(slope) -> scalar``, in which subgradients are bounded.
    """

    step: Callable[[Any, Any, jax.Array, Any, jax.Array], Any]
    dual_norm: Callable[[Any], jax.Array]


def euclidean(prox: Prox | None = None) -> Geometry:
    r""":math:`V(x, u) = \tfrac12 \|u - x\|^2`, and :math:`\chi` by its proximal operator.

    .. math::

       u = \mathrm{prox}_{\chi / s} \left( \frac{\beta x + \beta' y - g}{s} \right),
       \qquad s = \beta + \beta' .

    Args:
      prox: ``prox(params, step) -> params``, of :math:`\chi`; gets the whole tree and a scalar.
        ``None`` for :math:`\chi = 0`; a projection ignores ``step``.

    Raises:
      TypeError: ``prox`` takes other arguments.
      ValueError: ``prox`` returned another structure or other shapes than those of ``params``.
    """
    simple = zero() if prox is None else prox
    check_arguments("prox", simple, "params, step")

    def step(slope: Any, center: Any, beta: jax.Array, point: Any, weight: jax.Array) -> Any:
        total = beta + weight

        def middle(g: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            b, w, s = (scalar.astype(x.dtype) for scalar in (beta, weight, total))
            return (b * x + w * y - g) / s

        target = jax.tree.map(middle, slope, center, point)
        nearest = simple(target, 1 / total)
        check_shapes("prox", nearest, target, "params")
        return nearest

    return Geometry(step, optax.tree.norm)


def simplex(strong_convexity: float = 0.0) -> Geometry:
    r"""The probability simplex, with :math:`V(x, u) = \sum_i u_i \ln(u_i / x_i)`.

    .. math:: u_i \propto \exp \frac{\beta \ln x_i + \beta' \ln y_i - g_i}{\beta + \beta' + \mu}

    Each leaf holds probability vectors along its last axis and must start with positive entries,
    best all equal. :math:`V` is 1-strongly convex in the :math:`\ell_1` norm, so ``smoothness`` and
    ``subgradient_bound`` refer to it: :math:`M` is twice the largest absolute entry of a
    subgradient. From equal entries :math:`V(x_0, x^*) \le \ln d`, an ``initial_distance`` of
    :math:`\sqrt{2 \ln d}`.

    Args:
      strong_convexity: :math:`\mu \ge 0` of :math:`\chi(u) = \mu \sum_i u_i \ln u_i`.
    """
    check_range("strong_convexity", strong_convexity, "[0, inf)")

    def step(slope: Any, center: Any, beta: jax.Array, point: Any, weight: jax.Array) -> Any:
        def tilt(g: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            b, w = beta.astype(x.dtype), weight.astype(x.dtype)
            # An entry that was rounded to zero may come back.
            log = lambda p: jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny))
            return jax.nn.softmax((b * log(x) + w * log(y) - g) / (b + w + strong_convexity))

        return jax.tree.map(tilt, slope, center, point)

    return Geometry(step, lambda slope: optax.tree.norm(slope, ord=jnp.inf))


class ShiftedStrongConvexity(NamedTuple):
    """What :func:`shift_strong_convexity` returns."""

    gradient: optax.GradientTransformation  # stands before the sliding transformation
    prox: Prox
    smoothness: float


def shift_strong_convexity(
    strong_convexity: float, *, smoothness: float, prox: Prox | None = None
) -> ShiftedStrongConvexity:
    r"""Moves strong convexity from the smooth part to the one with the proximal operator.

    Restart-free policies want the modulus in :math:`\chi`. If :math:`f` has it,

    .. math::

       f \leftarrow f - \tfrac{\mu}{2} \|x\|^2, \qquad \chi \leftarrow \chi + \tfrac{\mu}{2} \|x\|^2

    changes nothing in the sum: the gradient loses :math:`\mu x`, the smoothness is
    :math:`L - \mu` (or :math:`\mu`, if that is larger), and
    :math:`\mathrm{prox}_{s \chi}(v)` becomes
    :math:`\mathrm{prox}_{s' \chi}(v / (1 + \mu s))` with :math:`s' = s / (1 + \mu s)`.

    Args:
      strong_convexity: :math:`\mu` in (0, L] of the smooth part.
      smoothness: :math:`L` of the smooth part.
      prox: ``prox(params, step) -> params`` of :math:`\chi`; ``None`` for :math:`\chi = 0`.

    Returns:
      ``(gradient, prox, smoothness)``; ``gradient`` is a transformation to chain in front.

    Examples:
      >>> import optax
      >>> from stochopt.sliding import restart_free_sliding, shift_strong_convexity
      >>> shifted = shift_strong_convexity(0.01, smoothness=1.0)
      >>> optimizer = optax.chain(
      ...     shifted.gradient,
      ...     restart_free_sliding(
      ...         lambda x, batch: abs(x).sum(), prox=shifted.prox, strong_convexity=0.01,
      ...         smoothness=shifted.smoothness, subgradient_bound=2.0, initial_gap=1.0))
    """
    check_range("strong_convexity", strong_convexity, "(0, inf)")
    check_range("smoothness", smoothness, f"[{float(strong_convexity)}, inf)")

    return ShiftedStrongConvexity(
        gradient=optax.add_decayed_weights(-strong_convexity),
        prox=ridge_added(zero() if prox is None else prox, strong_convexity),
        smoothness=max(smoothness - strong_convexity, strong_convexity),
    )
