"""SCSC."""

import functools
from collections.abc import Mapping
from typing import Any

import optax

from stochopt.claims.claim import Claim, Control
from stochopt.problems import quadratic_composition

_problem = functools.partial(quadratic_composition, matrix_noise=0.1, vector_noise=0.05, ridge=0.5)
_PAPER = "Chen, Sun, Yin 2021, arXiv:2008.10847"


def _constants(horizon: Any) -> Mapping[str, Any]:
    return {"learning_rate": 2 / horizon**0.5, "tracker_rate": 4 / horizon**0.5}


# The gradient of the outer function at one sample, as if it were linear.
_NAIVE = {"factory": optax.sgd, "gradient_of": "loss", "estimates": {}}

GRADIENT = Claim(
    setting="smooth outer and inner function; noise of bounded variance",
    theorem=_PAPER,
    problem=_problem,
    constants=_constants,
    measure="squared_gradient_norm",
    exponent=1 / 2,
    control=Control(
        "naive plug-in gradient",
        constants=lambda horizon: {"learning_rate": 2 / horizon**0.5},
        method=_NAIVE,
    ),
)

TRACKER = Claim(
    setting="smooth outer and inner function; noise of bounded variance; tracker",
    theorem=_PAPER,
    problem=_problem,
    constants=_constants,
    measure="inner_error",
    over="tail",
    exponent=1 / 2,
    control=Control(
        "constant weight on the new sample",
        constants=lambda horizon: {**_constants(horizon), "tracker_rate": 0.1},
    ),
)

SCSC = (GRADIENT, TRACKER)
