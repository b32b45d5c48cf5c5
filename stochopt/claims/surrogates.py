"""Surrogates: rates in gradients of the expensive loss, whatever the inner loops cost."""

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

from stochopt.claims.claim import Claim, Control, powers_of_two
from stochopt.problems import proxy_quadratic, target_logistic

_WOODWORTH = "Woodworth, Mishchenko, Bach 2023, arXiv:2302.03542"
_LAVINGTON = "Lavington et al. 2023, arXiv:2302.02607"
_BIASED = Control("gradients biased by 5 %", bias=0.05)


def _proxy(smoothness: float, distance: float, learning_rate: Any) -> Mapping[str, Any]:
    curvature = smoothness + distance + 1 / learning_rate
    return {
        "learning_rate": learning_rate,
        "inner_optimizer": optax.sgd(1 / curvature),
        "max_inner": 30,
    }


PROXY_PROX = (
    Claim(
        setting="smooth; exact gradients, a proxy at distance 0.5",
        theorem=_WOODWORTH,
        problem=functools.partial(proxy_quadratic, noise=0.0),
        constants=lambda horizon: _proxy(10.0, 0.5, 1.0),
        measure="squared_gradient_norm",
        exponent=1.0,
        over="tail",
        control=_BIASED,
        horizons=powers_of_two(3, 9),
    ),
    Claim(
        setting="smooth; noise of bounded variance, a convex proxy at distance 0.05",
        theorem=_WOODWORTH,
        problem=functools.partial(proxy_quadratic, smoothness=1.0, proxy_distance=0.05, noise=0.05),
        constants=lambda horizon: _proxy(1.0, 0.05, jnp.minimum(6.0, 8 / horizon**0.5)),
        measure="squared_gradient_norm",
        exponent=1 / 2,
        control=_BIASED,
        horizons=powers_of_two(6, 13),
    ),
)


def _targets(scale: Any) -> Mapping[str, Any]:
    smoothness = 0.27  # of the loss, and of the surrogates as the model is linear
    return {
        "target_step": 800.0,  # four times the number of examples
        "inner_optimizer": optax.sgd(scale / smoothness),
        "num_inner": 5,
    }


TARGET_SURROGATE = (
    Claim(
        setting="smooth in the targets; exact target gradients",
        theorem=_LAVINGTON,
        problem=functools.partial(target_logistic, noise=0.0),
        constants=lambda horizon: _targets(1.0),
        measure="squared_gradient_norm",
        exponent=1.0,
        over="tail",
        control=_BIASED,
        horizons=powers_of_two(4, 10),
    ),
    Claim(
        setting="smooth in the targets; target gradients with noise of bounded variance",
        theorem="that of SGD, as one inner step is SGD: Ghadimi, Lan 2013, arXiv:1309.5549",
        problem=functools.partial(target_logistic, noise=0.005),
        constants=lambda horizon: _targets(jnp.minimum(1.0, 8 / horizon**0.5)),
        measure="squared_gradient_norm",
        exponent=1 / 2,
        control=_BIASED,
        horizons=powers_of_two(6, 13),
    ),
)
