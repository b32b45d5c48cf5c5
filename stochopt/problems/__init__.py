"""Problems with their oracles, metrics and known solutions. None of them knows a solver."""

from collections.abc import Callable

from stochopt.problems.digits import digits, digits_cnn
from stochopt.problems.friedman import friedman
from stochopt.problems.logistic import logistic
from stochopt.problems.problem import ORACLES, Problem
from stochopt.problems.quadratic_composition import quadratic_composition

#: What the command line can race on: name to factory.
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "digits": digits,
    "digits-cnn": digits_cnn,
    "friedman": friedman,
    "logistic": logistic,
    "quadratic-composition": quadratic_composition,
}

__all__ = [
    "ORACLES",
    "PROBLEMS",
    "Problem",
    "digits",
    "digits_cnn",
    "friedman",
    "logistic",
    "quadratic_composition",
]
