"""The proximal operator of a loss from its gradients, step by step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stochopt import _tree
from stochopt._checks import check_count
from stochopt.model_based.models import LossProx


def iterated_prox(loss: Callable[[Any, Any], jax.Array], num_steps: int = 10) -> LossProx:
    r"""Approximates the proximal operator of any loss by a few of its gradients.

    .. math::

       y_0 = x, \qquad
       y_{k+1} = (1 - w_k)\, y_k + w_k \left(x - \eta\, \nabla f(y_k)\right), \qquad
       w_k = \frac{2}{k + 2}

    So :math:`y_K` is :math:`x` minus :math:`\eta` times an average of gradients, and there is no
    step size to choose. This is the conditional gradient method on the dual problem: for a convex
    :math:`f` with gradients of norm at most :math:`G`,

    .. math:: \|y_K - \mathrm{prox}_{\eta f}(x)\| \le \frac{4 \eta G}{\sqrt{K + 2}} .

    One step is a gradient step. Where the loss is only weakly convex, keep :math:`\eta` below one
    over its constant, so that the problem is convex.

    Args:
      loss: ``loss(params, batch) -> scalar``; may have kinks.
      num_steps: :math:`K`, gradients in each update.

    Returns:
      ``loss_prox(params, step, batch) -> params``.
    """
    check_count("num_steps", num_steps)

    def loss_prox(params: Any, step: Any, batch: Any) -> Any:
        def advance(k: jax.Array, y: Any) -> Any:
            slope = jax.tree.map(jnp.conj, jax.grad(loss)(y, batch))
            return _tree.moving_average(y, _tree.add_scaled(params, -step, slope), k / (k + 2))

        return jax.lax.fori_loop(0, num_steps, advance, params)

    return loss_prox
