"""Problems with their oracles, metrics and known solutions. None of them knows a solver."""

from collections.abc import Callable

from stochopt.problems.digits import digits, digits_cnn
from stochopt.problems.friedman import friedman
from stochopt.problems.logistic import logistic
from stochopt.problems.matrix_regression import matrix_regression
from stochopt.problems.noisy_quadratic import noisy_quadratic
from stochopt.problems.nonconvex import cosine, polyak_lojasiewicz
from stochopt.problems.phase_retrieval import phase_retrieval
from stochopt.problems.problem import ORACLES, Problem
from stochopt.problems.quadratic_composition import quadratic_composition
from stochopt.problems.text import text
from stochopt.problems.tilted import tilted

#: What the command line can race on: name to factory.
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "cosine": cosine,
    "digits": digits,
    "digits-cnn": digits_cnn,
    "friedman": friedman,
    "logistic": logistic,
    "matrix-regression": matrix_regression,
    "noisy-quadratic": noisy_quadratic,
    "phase-retrieval": phase_retrieval,
    "polyak-lojasiewicz": polyak_lojasiewicz,
    "quadratic-composition": quadratic_composition,
    "text": text,
}

__all__ = [
    "ORACLES",
    "PROBLEMS",
    "Problem",
    "cosine",
    "digits",
    "digits_cnn",
    "friedman",
    "logistic",
    "matrix_regression",
    "noisy_quadratic",
    "phase_retrieval",
    "polyak_lojasiewicz",
    "quadratic_composition",
    "text",
    "tilted",
]
