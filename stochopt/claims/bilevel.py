"""Methods for bilevel problems."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from stochopt.bilevel import (
    amigo,
    bsa,
    bsvrb_v1,
    bsvrb_v2,
    f2sa,
    mrbo,
    rsvrb,
    soba,
    stocbio,
    sustain,
    ttsa,
)
from stochopt.claims.claim import Claim, Constants, Control, powers, powers_of_two
from stochopt.problems import Problem, bilevel_finite_sum, bilevel_quadratic, stacked

_SOBA = "Dagréou et al. 2022, arXiv:2201.13409"
_MRBO = "Yang, Ji, Liang 2021, arXiv:2106.04692"
_SUSTAIN = "Khanduri et al. 2021, arXiv:2102.07367"
_F2SA = "Kwon et al. 2023, arXiv:2301.10945"
_AMIGO = "Arbel, Mairal 2022, arXiv:2111.14580"
_STOCBIO = "Ji, Yang, Liang 2021, arXiv:2010.07962"
_BSA = "Ghadimi, Wang 2018, arXiv:1802.02246"
_TTSA = "Hong et al. 2023, arXiv:2007.05170"
_RSVRB = "Guo et al. 2021, arXiv:2105.02266"
_BSVRB = "Hu et al. 2023, arXiv:2305.18730"

_quadratic = functools.partial(bilevel_quadratic, noise=0.1, start=20.0)
# Half of the blocks in a batch; or all of them, as one lower problem.
_blocks = functools.partial(_quadratic, num_blocks=8, num_sampled=4, lower_curvature=(0.7, 1.4))
_SERIES = {"num_terms": 12, "series_step": 0.4}


def _single() -> Problem:
    return stacked(_quadratic(num_blocks=4, num_sampled=4))


def _without_cross(factory: Callable[..., Any]) -> Callable[..., Any]:
    """The method for a lower problem that seems not to depend on the parameters."""

    @functools.wraps(factory)
    def wrong(upper: Any, lower: Any, *args: Any, **kwargs: Any) -> Any:
        blind = lambda x, y, batch: lower(jax.lax.stop_gradient(x), y, batch)
        return factory(upper, blind, *args, **kwargs)

    wrong.__signature__ = inspect.signature(factory)  # type: ignore[attr-defined]
    return wrong


def _gradient(
    theorem: str,
    factory: Callable[..., Any],
    constants: Constants,
    exponent: float,
    problem: Callable[[], Problem] = _single,
    setting: str = "strongly convex lower problem; noise of bounded variance",
    **more: Any,
) -> Claim:
    """The gradient's norm, with the gradient that forgets the minimizer's motion as control."""
    return Claim(
        setting=setting,
        theorem=theorem,
        problem=problem,
        constants=constants,
        measure="squared_gradient_norm",
        exponent=exponent,
        control=Control("dropped cross term", method={"factory": _without_cross(factory)}),
        **more,
    )


def _with(constants: Constants, **fixed: Any) -> Constants:
    return lambda horizon: {**constants(horizon), **fixed}


_soba = powers(learning_rate=(1, 1 / 2), lower_learning_rate=(3, 1 / 2))
_inner_loops = _with(powers(learning_rate=(2, 1 / 2)), lower_learning_rate=0.2, num_lower_steps=3)
_series = _with(_inner_loops, **_SERIES)
_ttsa = _with(powers(learning_rate=(3, 3 / 5), lower_learning_rate=(2, 2 / 5)), **_SERIES)
_recursive = _with(
    powers(
        learning_rate=(1, 1 / 3),
        lower_learning_rate=(1, 1 / 3),
        lower_rate=(8, 2 / 3),
        direction_rate=(4, 2 / 3),
    ),
    **_SERIES,
)
_bsvrb = powers(
    {"tracker_rate": 0.5},
    learning_rate=(0.8, 1 / 3),
    lower_learning_rate=(0.8, 1 / 3),
    tracker_rate=(16, 2 / 3),
    direction_rate=(4, 2 / 3),
)
# Inner loops and the terms of a series draw batches of their own: up to a dozen times the work.
_SHORT = powers_of_two(7, 13)


def _saba(horizon: Any) -> Mapping[str, Any]:
    del horizon  # any length
    return {"learning_rate": 0.02, "lower_learning_rate": 0.05}


SOBA = (_gradient(_SOBA, soba, _soba, 1 / 2),)
SABA = (
    Claim(
        setting="strongly convex lower problem; finite sums; constant steps",
        theorem=_SOBA,
        problem=bilevel_finite_sum,
        constants=_saba,
        measure="squared_gradient_norm",
        exponent=1.0,  # it is linear, faster than any power
        over="tail",
        control=Control("samples without memory", method={"factory": soba, "takes": "batch"}),
        horizons=powers_of_two(7, 13),
    ),
)
MRBO = (_gradient(_MRBO, mrbo, _recursive, 2 / 3, over="tail", horizons=_SHORT),)
SUSTAIN = (_gradient(_SUSTAIN, sustain, _recursive, 2 / 3, over="tail", horizons=_SHORT),)
AMIGO = (
    _gradient(_AMIGO, amigo, _with(_inner_loops, num_adjoint_steps=3), 1 / 2, horizons=_SHORT),
)
STOCBIO = (_gradient(_STOCBIO, stocbio, _series, 1 / 2, horizons=_SHORT),)
BSA = (_gradient(_BSA, bsa, _series, 1 / 2, horizons=_SHORT),)
TTSA = (_gradient(_TTSA, ttsa, _ttsa, 2 / 5, horizons=_SHORT),)


def _f2sa(horizon: Any) -> Mapping[str, Any]:
    return {
        "penalty": 4 * horizon ** (1 / 7),
        "lower_learning_rate": jnp.minimum(0.2, 6 / horizon ** (4 / 7)),
        "penalized_learning_rate": 1.2 / horizon ** (5 / 7),
        "learning_rate": 4 / horizon ** (5 / 7),
    }


F2SA = (_gradient(_F2SA, f2sa, _f2sa, 2 / 7),)


def _of_blocks(theorem: str, factory: Callable[..., Any], constants: Constants) -> Claim:
    return _gradient(
        theorem,
        factory,
        constants,
        2 / 3,
        problem=_blocks,
        setting="strongly convex lower problems, half of them in a batch",
    )


def _blockwise(
    factory: Callable[..., Any], constants: Constants, wrong: Control
) -> tuple[Claim, Claim]:
    """Claims of the gradient and of the direction, the latter against a control of its own."""
    gradient = _of_blocks(_BSVRB, factory, constants)
    direction = dataclasses.replace(gradient, measure="gradient_error", over="tail", control=wrong)
    return gradient, direction


_bsvrb_v1 = _with(_bsvrb, hessian_floor=0.2)
BSVRB_V1 = _blockwise(
    bsvrb_v1,
    _bsvrb_v1,
    Control("no correction for the motion", constants=_with(_bsvrb_v1, correction=0.0)),
)
# Half of the right coefficient: the lower and adjoint variables swing up.
BSVRB_V2 = _blockwise(
    bsvrb_v2,
    _bsvrb,
    Control("correction of a single block", constants=_with(_bsvrb, correction=1.0)),
)

RSVRB = (_of_blocks(_RSVRB, rsvrb, _with(_bsvrb, hessian_floor=0.1)),)
