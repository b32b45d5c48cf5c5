"""Sliding: rates in smooth gradients, whatever the inner loops cost."""

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from stochopt.claims.claim import Claim, Control, powers_of_two
from stochopt.problems import separable_composite, simplex_quadratic, stiff_composite

_LAN = "Lan 2016, arXiv:1406.0919"
_easier = functools.partial(separable_composite, condition=10.0, weight=0.02)

_DISTANCE = 5.0  # 4.72 from the start to the solution
_GAP = 8.0  # 7.58 at the start


def _fixed_horizon(horizon: Any) -> Mapping[str, Any]:
    horizon = jnp.asarray(horizon).astype(int)
    return {
        "smoothness": 1.0,
        "subgradient_bound": 0.4,
        "horizon": horizon,
        "initial_distance": _DISTANCE,
    }


def _stochastic(horizon: Any) -> Mapping[str, Any]:
    return {**_fixed_horizon(horizon), "noise": 0.2}


def _restart_free(horizon: Any) -> Mapping[str, Any]:
    del horizon  # any length
    return {
        "smoothness": 1.0,
        "subgradient_bound": 1.0,
        "strong_convexity": 0.005,
        "initial_gap": _GAP,
        "noise": 0.5,
    }


def _accelerated(horizon: Any) -> Mapping[str, Any]:
    del horizon  # any length
    return {"smoothness": 1.0, "cheap_smoothness": 100.0}


def _restart_free_accelerated(horizon: Any) -> Mapping[str, Any]:
    del horizon  # any length
    return {
        "smoothness": 1.0,
        "strong_convexity": 0.005,
        "operator_norm": 0.05,
        "initial_gap": _GAP,
    }


# Inner loops grow with the fourth power of the horizon, or exponentially.
_sliding = functools.partial(
    Claim,
    measure="squared_distance",
    over="tail",
    control=Control("biased gradient", bias=0.05),
    horizons=powers_of_two(2, 8),
)

GRADIENT_SLIDING = (
    _sliding(
        setting="smooth plus nonsmooth, convex; exact subgradients",
        theorem=_LAN,
        problem=functools.partial(_easier, noise=0.0),
        constants=_fixed_horizon,
        exponent=2.0,
    ),
)
STOCHASTIC_GRADIENT_SLIDING = (
    _sliding(
        setting="smooth plus nonsmooth, convex; subgradients with bounded variance",
        theorem=_LAN,
        problem=functools.partial(_easier, noise=0.2),
        constants=_stochastic,
        exponent=2.0,
    ),
)
RESTART_FREE_SLIDING = (
    _sliding(
        setting="smooth plus nonsmooth, strongly convex; subgradients with bounded variance",
        theorem="constants derived in its documentation",
        problem=separable_composite,
        constants=_restart_free,
        exponent=1.0,  # it is linear, faster than any power
        horizons=(16, 32, 64, 128, 192, 256, 320),
    ),
)
ACCELERATED_SLIDING = (
    _sliding(
        setting="two smooth parts, convex; exact gradients",
        theorem="constants derived in its documentation",
        problem=functools.partial(stiff_composite, noise=0.0),
        constants=_accelerated,
        exponent=2.0,
    ),
)
RESTART_FREE_ACCELERATED_SLIDING = (
    _sliding(
        setting="smooth plus a norm of a linear map, strongly convex; exact gradients",
        theorem="constants derived in its documentation",
        problem=functools.partial(separable_composite, noise=0.0),
        constants=_restart_free_accelerated,
        exponent=1.0,  # it is linear, faster than any power
        horizons=(16, 32, 64, 128, 256, 384, 512),
    ),
)

# Equal prices would make the set blind to the bias of the control, whose entries are equal.
_PRICES = np.geomspace(0.5, 2.0, 20)
CONDITIONAL_GRADIENT_SLIDING = (
    _sliding(
        setting="smooth, convex on a compact set; linear minimization",
        theorem="Lan, Zhou 2016, doi:10.1137/140992382",
        problem=functools.partial(simplex_quadratic, dimension=20, prices=_PRICES, noise=0.0),
        constants=lambda horizon: {"smoothness": 1.0, "diameter": 2.75},  # 2.73
        exponent=2.0,
        horizons=powers_of_two(3, 10),
    ),
)
