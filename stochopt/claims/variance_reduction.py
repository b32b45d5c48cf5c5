"""Variance reduction: rates in gradients of batches, full gradients counted as what they cost."""

import functools
from collections.abc import Mapping
from typing import Any

import optax

from stochopt.claims.claim import Claim, Constants, Control, powers, powers_of_two
from stochopt.problems import cosine, logistic_finite_sum

_nonconvex = functools.partial(logistic_finite_sum, regularization=0.02)
_strongly_convex = functools.partial(logistic_finite_sum, regularization=0.0, decay=0.02)


def _constant(learning_rate: float) -> Constants:
    return lambda horizon: {"learning_rate": learning_rate}


_SGD: Mapping[str, Any] = {
    "factory": optax.sgd,
    "gradient_of": "loss",
    "takes": "batch",
    "gradient_counter": None,
    "estimates": {},
}
_uncorrected = Control("gradients of batches, uncorrected", method=_SGD)

_storm = powers(learning_rate=(4, 1 / 3), direction_rate=(16, 2 / 3))


def _momentum(horizon: Any) -> Mapping[str, Any]:
    return {**_storm(horizon), "correction": 0.0}


_of_cosine = functools.partial(
    Claim,
    setting="smooth, not convex; noise of bounded variance",
    theorem="Cutkosky, Orabona 2019, arXiv:1905.10018",
    problem=functools.partial(cosine, noise=0.3),
    constants=_storm,
    exponent=2 / 3,
    control=Control("momentum, its lag uncorrected", constants=_momentum),
)

STORM = (
    _of_cosine(measure="squared_gradient_norm"),
    _of_cosine(measure="gradient_error", over="tail"),
)

PAGE = (
    Claim(
        setting="finite sum, smooth, not convex; constant steps",
        theorem="Li, Bao, Zhang, Richtárik 2021, arXiv:2008.10898",
        problem=_nonconvex,
        constants=_constant(6.0),
        measure="squared_gradient_norm",
        exponent=1.0,
        control=_uncorrected,
        horizons=powers_of_two(8, 13),
    ),
)

# Linear, faster than any power: the exponent stands for all of them.
_linear = functools.partial(
    Claim,
    setting="finite sum, smooth and strongly convex; constant steps",
    problem=_strongly_convex,
    constants=_constant(1.5),
    measure="squared_gradient_norm",
    exponent=2.0,
    over="tail",
    control=_uncorrected,
    horizons=powers_of_two(5, 10),
)

SVRG = (_linear(theorem="Johnson, Zhang 2013, NIPS"),)
SAGA = (_linear(theorem="Defazio, Bach, Lacoste-Julien 2014, arXiv:1407.0202"),)
