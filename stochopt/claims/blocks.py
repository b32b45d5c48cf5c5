"""Block descent: rates in gradients in blocks, full ones counted as what they cost."""

import functools

from stochopt.blocks import cyclic_block_descent
from stochopt.claims.claim import Claim, Constants, Control, powers_of_two
from stochopt.problems import (
    equicorrelated_quadratic,
    logistic_finite_sum,
    sparse_robust_regression,
)

# All of the examples in a batch: exact gradients.
_exact = functools.partial(sparse_robust_regression, batch_size=100)
_strongly_convex = functools.partial(logistic_finite_sum, regularization=0.0, decay=0.02)


def _constant(learning_rate: float) -> Constants:
    return lambda horizon: {"learning_rate": learning_rate}


_biased = Control("gradients biased by 5 %", bias=0.05)
_uncorrected = Control(
    "gradients of batches, uncorrected", method={"factory": cyclic_block_descent}
)

# Steps of about the inverse of the constant of a cycle. It ends linearly, faster than the bound.
_stationary = functools.partial(
    Claim,
    constants=_constant(0.25),
    measure="squared_subgradient_norm",
    exponent=1.0,
    over="tail",
    horizons=powers_of_two(5, 10),
)

# Linear, faster than any power: the exponent stands for all of them.
_linear = functools.partial(
    Claim,
    constants=_constant(1.0),
    measure="squared_gradient_norm",
    exponent=2.0,
    over="tail",
    horizons=powers_of_two(5, 10),
)

_CAI = "Cai, Song, Wright, Diakonikolas 2023, arXiv:2212.05088"

CYCLIC_BLOCK_DESCENT = (
    _stationary(
        setting="composite, smooth part not convex; exact gradients",
        theorem=_CAI,
        problem=_exact,
        control=_biased,
    ),
    _linear(
        setting="strongly convex quadratic, slow in the cyclic order; exact gradients",
        theorem="Beck, Tetruashvili 2013, doi:10.1137/120887679",
        problem=equicorrelated_quadratic,
        control=_biased,
    ),
)
VR_CYCLIC_BLOCK_DESCENT = (
    _stationary(
        setting="composite finite sum, smooth part not convex; constant steps",
        theorem=_CAI,
        problem=sparse_robust_regression,
        control=_uncorrected,
    ),
    _linear(
        setting="finite sum, smooth and strongly convex; constant steps",
        theorem=_CAI,
        problem=_strongly_convex,
        control=_uncorrected,
    ),
)
