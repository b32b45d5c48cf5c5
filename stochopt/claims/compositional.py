"""Methods for functions of an expectation."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from stochopt.claims.claim import Claim, Constants, Control, powers, powers_of_two
from stochopt.compositional import log_moving_average
from stochopt.problems import (
    Problem,
    contrastive_views,
    coupled_least_squares,
    entropic_risk,
    log_partition,
    quadratic_composition,
    robust_contrastive_views,
)

_problem = functools.partial(quadratic_composition, matrix_noise=0.1, vector_noise=0.05, ridge=0.5)
_WANG = "Wang, Fang, Liu 2017, arXiv:1411.3803"
_ASC_PG = "Wang, Liu, Fang 2017, arXiv:1607.07329"
_NASA = "Ghadimi, Ruszczynski, Wang 2020, arXiv:1812.01094"
_SCSC = "Chen, Sun, Yin 2021, arXiv:2008.10847"
_SCST = "Chen, Zhou 2019, arXiv:1902.02715"
_SOX = "Wang, Yang 2022, arXiv:2202.12396"
_MSVR = "Jiang et al. 2022, arXiv:2207.08540"
_MECO = "Jiang et al. 2023, arXiv:2306.07485"
_SOGCLR = "Yuan et al. 2022, arXiv:2202.12387"
_ISOGCLR = "Qiu et al. 2023, arXiv:2305.11965"

# The gradient of the outer function at one sample, as if it were linear.
_NAIVE = {
    "factory": optax.sgd,
    "gradient_of": "loss",
    "takes": "batch",
    "independent_jacobian": False,
    "estimates": {},
}


def _gradient(
    theorem: str, constants: Constants, exponent: float, rate: str = "learning_rate", **more: Any
) -> Claim:
    """The gradient's norm, with the naive plug-in gradient as control."""

    def naive(horizon: Any) -> Mapping[str, Any]:
        return {"learning_rate": constants(horizon)[rate]}

    claim: dict[str, Any] = {
        "setting": "smooth outer and inner function; noise of bounded variance",
        "problem": _problem,
        "measure": "squared_gradient_norm",
        **more,
    }
    return Claim(
        theorem=theorem,
        constants=constants,
        exponent=exponent,
        control=Control("naive plug-in gradient", constants=naive, method=_NAIVE),
        **claim,
    )


def _estimate(
    name: str,
    theorem: str,
    constants: Constants,
    exponent: float,
    control: Control | Constants,
    problem: Callable[[], Problem] = _problem,
) -> Claim:
    """The error of what is tracked; the usual control is a weight that does not shrink."""
    if not isinstance(control, Control):
        fixed = control
        control = Control(
            "constant weight on the new sample",
            constants=lambda horizon: {**constants(horizon), **fixed(horizon)},
        )
    return Claim(
        setting=f"smooth outer and inner function; noise of bounded variance; {name}",
        theorem=theorem,
        problem=problem,
        constants=constants,
        measure={"tracker": "inner_error", "direction": "gradient_error"}[name],
        over="tail",
        exponent=exponent,
        control=control,
    )


_scgd = powers(learning_rate=(2, 3 / 5), tracker_rate=(2, 2 / 5))
_asc_pg = powers(learning_rate=(2, 5 / 9), tracker_rate=(3, 4 / 9))
_scma = powers(learning_rate=(0.8, 1 / 2), tracker_rate=(12, 1 / 2), direction_rate=(12, 1 / 2))
_scsc = powers(learning_rate=(2, 1 / 2), tracker_rate=(4, 1 / 2))
_scst = powers(learning_rate=(1, 1 / 3), tracker_rate=(4, 2 / 3), direction_rate=(4, 2 / 3))
_SHARED = Control("one draw for value and Jacobian", method={"independent_jacobian": False})
_fixed_tracker = powers(tracker_rate=(0.1, 0))
_fixed_direction = powers(direction_rate=(0.5, 0))


def _nasa(horizon: Any) -> Mapping[str, Any]:
    return {
        "step": 1 / horizon**0.5,
        "tracker_weight": 8.0,
        "direction_weight": 8.0,
        "learning_rate": 0.7,
    }


SCGD = (
    _gradient(_WANG, _scgd, 2 / 5),
    _estimate("tracker", _WANG, _scgd, 2 / 5, _fixed_tracker),
)
ASC_PG = (
    _gradient(_ASC_PG, _asc_pg, 4 / 9),
    _estimate("tracker", _ASC_PG, _asc_pg, 4 / 9, _fixed_tracker),
)
NASA = (
    _gradient(_NASA, _nasa, 1 / 2, rate="step"),
    _estimate(
        "direction", _NASA, _nasa, 1 / 2, lambda horizon: {"direction_weight": 0.5 * horizon**0.5}
    ),
)
SCMA = (
    _gradient(_NASA, _scma, 1 / 2),
    _estimate("direction", _NASA, _scma, 1 / 2, _fixed_direction),
)
SCSC = (
    _gradient(_SCSC, _scsc, 1 / 2),
    _estimate("tracker", _SCSC, _scsc, 1 / 2, _fixed_tracker),
)
SCST = (
    _gradient(_SCST, _scst, 2 / 3, over="tail"),
    _estimate("tracker", _SCST, _scst, 2 / 3, _fixed_tracker),
    # A shared draw leaves a bias of the order of the tracker's rate over the direction's.
    _estimate("direction", _SCST, _scst, 2 / 3, _SHARED),
)

# Blocks: the table follows at the speed of B / n, here 1/10.
_blocks = functools.partial(coupled_least_squares, row_noise=0.3)
_sox = powers(learning_rate=(0.4, 1 / 2), tracker_rate=(25, 1 / 2), direction_rate=(8, 1 / 2))
_msvr = powers(
    {"tracker_rate": 0.5},
    learning_rate=(0.8, 1 / 3),
    tracker_rate=(12, 2 / 3),
    direction_rate=(6, 2 / 3),
)
# Exponentials: the tracker of the logarithm.
_entropic = powers(learning_rate=(0.4, 1 / 2), tracker_rate=(12, 1 / 2), direction_rate=(8, 1 / 2))


def _sox_of_logarithms(horizon: Any) -> Mapping[str, Any]:
    return {**_entropic(horizon), "tracker": log_moving_average}


SOX = (
    _gradient(_SOX, _sox, 1 / 2, problem=_blocks),
    _estimate("tracker", _SOX, _sox, 1 / 2, _fixed_tracker, problem=_blocks),
    _estimate("direction", _SOX, _sox, 1 / 2, _fixed_direction, problem=_blocks),
    _gradient(
        _SOX,
        _sox_of_logarithms,
        1 / 2,
        problem=entropic_risk,
        setting="smooth; noise of bounded variance; log-domain table",
    ),
)
MSVR = (
    _gradient(_MSVR, _msvr, 2 / 3, problem=_blocks, over="tail"),
    _estimate("direction", _MSVR, _msvr, 2 / 3, _SHARED, problem=_blocks),
)


def _clip(theta: Any) -> Any:
    return jnp.clip(theta, -4, 4)


_meco = powers(learning_rate=(0.5, 1 / 2), tracker_rate=(4, 1 / 2), direction_rate=(4, 1 / 2))


def _meco_horizon(horizon: Any) -> Mapping[str, Any]:
    return {**_meco(horizon), "projection": _clip, "num_noise": 8}


def _meco_falling(horizon: Any) -> Mapping[str, Any]:
    del horizon  # any length

    def over_time(factor: float, shift: float, most: float) -> optax.Schedule:
        return lambda count: jnp.minimum(most, factor / (count + shift))

    return {
        "learning_rate": over_time(2, 10, 0.5),
        "tracker_rate": over_time(6, 5, 1.0),
        "direction_rate": over_time(6, 5, 1.0),
        "projection": _clip,
        "num_noise": 64,
    }


MECO = (
    _gradient(_MECO, _meco_horizon, 1 / 2, problem=log_partition),
    Claim(
        setting="Polyak-Lojasiewicz; noise of bounded variance; any length",
        theorem=_MECO,
        problem=log_partition,
        constants=_meco_falling,
        measure="gap",
        exponent=1.0,
        over="tail",
        control=Control(
            "constant learning rate",
            constants=lambda horizon: {**_meco_falling(horizon), "learning_rate": 0.1},
        ),
    ),
)

# The embedding is flat: gradients and curvatures are about a quarter.
_sogclr = powers(
    {"learning_rate": 2.0},
    learning_rate=(2, 1 / 2),
    tracker_rate=(8, 1 / 2),
    direction_rate=(8, 1 / 2),
)
_temperatures = {"temperature": 0.3, "min_temperature": 0.1, "radius": 0.7}
_of_temperatures = powers(temperature_learning_rate=(1, 1 / 2), temperature_rate=(8, 1 / 2))


def _isogclr(horizon: Any) -> Mapping[str, Any]:
    return {**_sogclr(horizon), **_of_temperatures(horizon), **_temperatures}


SOGCLR = (
    _gradient(_SOGCLR, _sogclr, 1 / 2, problem=contrastive_views),
    _estimate("tracker", _SOGCLR, _sogclr, 1 / 2, _fixed_tracker, problem=contrastive_views),
)
ISOGCLR = (
    Claim(
        setting="smooth embedding; noise of bounded variance; temperatures inside their bounds",
        theorem=_ISOGCLR,
        problem=functools.partial(
            robust_contrastive_views, num_sampled=8, min_temperature=0.1, radius=0.7
        ),
        constants=_isogclr,
        measure="squared_gradient_norm",
        exponent=1 / 2,
        control=Control("gradients biased by 10 %", bias=0.1),
        horizons=powers_of_two(8, 15),
    ),
)
