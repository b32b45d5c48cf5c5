"""AdaGO, Muon and the trust-region method."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stochopt.claims.claim import Claim, Control, powers_of_two
from stochopt.orthogonal import adago, max_norm, muon, svd_polar, trust_region
from stochopt.problems import matrix_regression

_ADAGO = "Zhang, Liu, Schaeffer 2025, arXiv:2509.02981"
_KOVALEV = "Kovalev 2025, arXiv:2503.12645"
_EXACT = {"orthogonalize": svd_polar}  # the theorems are about the exact polar factor
_NOISELESS = powers_of_two(6, 14)


def _stochastic(horizon: Any) -> Mapping[str, Any]:
    return {
        **_EXACT,
        "learning_rate": 2 / horizon**0.375,
        "momentum": 1 - 4 / horizon**0.5,
        "min_step_size": 0.5 / horizon**0.75,
    }


def _deterministic(horizon: Any) -> Mapping[str, Any]:
    return {
        **_EXACT,
        "learning_rate": 1.0,
        "momentum": 0.0,
        "min_step_size": 1 / horizon**0.5,
    }


def _without_floor(horizon: Any) -> Mapping[str, Any]:
    return {**_EXACT, "learning_rate": 1.0, "momentum": 0.0, "min_step_size": 0.0}


@functools.wraps(adago)
def _without_root(**hyperparams: Any) -> optax.GradientTransformationExtraArgs:
    """AdaGO with a step size over the accumulator itself, not over its root."""
    right = adago(**hyperparams)

    def update_fn(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> Any:
        updates, state = right.update(updates, state, params, **extra_args)
        accumulator = optax.tree.get(state, "ScaleByAdagoState").accumulator
        return jax.tree.map(lambda u, v: u / v**0.5, updates, accumulator), state

    return optax.GradientTransformationExtraArgs(right.init, update_fn)


STOCHASTIC = Claim(
    setting="smooth; noise of bounded variance",
    theorem=_ADAGO,
    problem=functools.partial(matrix_regression, noise=0.2),
    constants=_stochastic,
    measure="gradient_norm",
    exponent=1 / 4,
    control=Control(
        "weights of the momentum exchanged",
        constants=lambda horizon: {**_stochastic(horizon), "momentum": 4 / horizon**0.5},
    ),
)

# What the momentum is for: its error, squared, is what the proof of the rate above needs.
MOMENTUM = Claim(
    setting="smooth; noise of bounded variance; momentum",
    theorem=_ADAGO,
    problem=functools.partial(matrix_regression, noise=0.2),
    constants=_stochastic,
    measure="gradient_error",
    over="tail",
    exponent=1 / 2,
    control=Control(
        "constant momentum",
        constants=lambda horizon: {**_stochastic(horizon), "momentum": 0.75},
    ),
)

DETERMINISTIC = Claim(
    setting="smooth; no noise",
    theorem=_ADAGO,
    problem=functools.partial(matrix_regression, noise=0.0, start=10.0),
    constants=_deterministic,
    measure="gradient_norm",
    exponent=1 / 2,
    control=Control(
        "floor on the step size that does not shrink",
        constants=lambda horizon: {**_deterministic(horizon), "min_step_size": 1.0},
    ),
    horizons=_NOISELESS,
)

WITHOUT_FLOOR = Claim(
    setting="smooth; no noise; no floor, any learning rate",
    theorem="stochopt, derived on its page",
    problem=functools.partial(matrix_regression, noise=0.0, start=10.0),
    constants=_without_floor,
    measure="gradient_norm",
    exponent=1 / 2,
    control=Control("accumulator without the root", method={"factory": _without_root}),
    horizons=_NOISELESS,
)

ADAGO = (STOCHASTIC, MOMENTUM, DETERMINISTIC, WITHOUT_FLOOR)


def _radius(horizon: Any, factor: float) -> Mapping[str, Any]:
    """The constants that make every term of the bound equally small: see the method's page.

    The bound is then attained, not merely obeyed, and a finite ladder may bend the measured
    exponent to either side of 1/4 by 0.01 or 0.02.
    """
    return {"learning_rate": factor / horizon**0.75, "momentum": 1 - 1 / horizon**0.5}


_FROM_AFAR = functools.partial(matrix_regression, noise=0.2, start=2.0)


def _averaged_afterwards(factory: Any, direction: Any) -> Any:
    """The method with momentum of directions in place of the direction of the momentum."""

    @functools.wraps(factory)
    def wrong(*, learning_rate: Any, momentum: Any, **_: Any) -> optax.GradientTransformation:
        return optax.chain(
            optax.stateless(lambda g, _: jax.tree.map(direction, g)),
            optax.ema(momentum, debias=False),
            optax.scale_by_learning_rate(learning_rate),
        )

    return wrong


MUON = (
    Claim(
        setting="smooth; noise of bounded variance; no Nesterov",
        theorem=_KOVALEV,
        problem=_FROM_AFAR,
        constants=lambda horizon: {**_EXACT, "nesterov": False, **_radius(horizon, 4.0)},
        measure="gradient_norm",
        exponent=1 / 4,
        control=Control(
            "orthogonalized before averaging",
            method={"factory": _averaged_afterwards(muon, svd_polar)},
        ),
    ),
)

TRUST_REGION = (
    Claim(
        setting="smooth; noise of bounded variance; largest entry as norm",
        theorem=_KOVALEV,
        problem=_FROM_AFAR,
        constants=lambda horizon: {"lmo": max_norm(), **_radius(horizon, 2.0)},
        measure="gradient_norm",
        exponent=1 / 4,
        control=Control(
            "signs before averaging",
            method={"factory": _averaged_afterwards(trust_region, jnp.sign)},
        ),
    ),
    Claim(
        setting="smooth; no noise; largest entry as norm",
        theorem=_KOVALEV,
        problem=functools.partial(matrix_regression, noise=0.0, start=10.0),
        constants=lambda horizon: {
            "lmo": max_norm(),
            "learning_rate": 10 / horizon**0.5,
            "momentum": 0.0,
        },
        measure="gradient_norm",
        exponent=1 / 2,
        control=Control(
            "radius that does not shrink",
            constants=lambda horizon: {"lmo": max_norm(), "learning_rate": 1.0, "momentum": 0.0},
        ),
        horizons=_NOISELESS,
    ),
)
