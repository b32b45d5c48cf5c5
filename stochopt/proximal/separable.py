"""Penalties of the modulus of each entry."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stochopt._checks import check_range
from stochopt.proximal.operator import ProximalOperator, scalars, square, total


def zero() -> ProximalOperator:
    """No penalty: every point stays where it is."""
    none = lambda params: total(jnp.zeros_like, params)
    return ProximalOperator(lambda params, step: params, none)


def l1(weight: Any) -> ProximalOperator:
    r"""The lasso penalty :math:`\lambda \sum_i |x_i|`, whose operator is soft thresholding.

    .. math:: p_i = \mathrm{sign}(v_i) \max(|v_i| - s \lambda, 0)

    Of a complex entry the modulus shrinks and the phase stays.

    Args:
      weight: :math:`\lambda \ge 0`.

    References:
      Parikh, Boyd, `Proximal Algorithms <https://web.stanford.edu/~boyd/papers/prox_algs.html>`_,
      2014, section 6.5.2.
    """
    check_range("weight", weight, "[0, inf)")

    def shrink(size: jax.Array, step: Any) -> jax.Array:
        lam, s = scalars(size, weight, step)
        return jnp.maximum(size - s * lam, 0)

    return of_moduli(shrink, lambda size: scalars(size, weight)[0] * size)


def ridge(weight: Any) -> ProximalOperator:
    r"""Half of the squared norm, :math:`\frac{\mu}{2} \|x\|^2`, whose operator is a scaling.

    .. math:: p = \frac{v}{1 + s \mu}

    Args:
      weight: :math:`\mu \ge 0`.

    References:
      Parikh, Boyd, `Proximal Algorithms <https://web.stanford.edu/~boyd/papers/prox_algs.html>`_,
      2014, section 6.1.1.
    """
    check_range("weight", weight, "[0, inf)")

    def prox(x: jax.Array, step: Any) -> jax.Array:
        mu, s = scalars(x, weight, step)
        return x / (1 + s * mu)

    return ProximalOperator(
        lambda params, step: jax.tree.map(lambda x: prox(x, step), params),
        lambda params: total(lambda x: scalars(x, weight)[0] / 2 * square(x), params),
    )


def of_moduli(
    shrink: Callable[[jax.Array, Any], jax.Array], penalty: Callable[[jax.Array], jax.Array]
) -> ProximalOperator:
    """The operator that maps each modulus by ``shrink(modulus, step)`` and keeps the phase."""

    def prox(x: jax.Array, step: Any) -> jax.Array:
        size = jnp.abs(x)
        if not jnp.iscomplexobj(x):
            return jnp.sign(x) * shrink(size, step)
        # jnp.sign has no derivative where the phase turns.
        return x * (shrink(size, step) / jnp.where(size == 0, 1, size))

    return ProximalOperator(
        lambda params, step: jax.tree.map(lambda x: prox(x, step), params),
        lambda params: total(lambda x: penalty(jnp.abs(x)), params),
    )
