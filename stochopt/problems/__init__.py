"""Problems with their oracles, metrics and known solutions. None of them knows a solver."""

from collections.abc import Callable

from stochopt.problems.bilevel_finite_sum import bilevel_finite_sum
from stochopt.problems.bilevel_quadratic import bilevel_quadratic
from stochopt.problems.bilevel_rank_one import bilevel_rank_one
from stochopt.problems.causal_gaussian import causal_gaussian
from stochopt.problems.contrastive_views import contrastive_views, robust_contrastive_views
from stochopt.problems.coupled_least_squares import coupled_least_squares
from stochopt.problems.digits import digits, digits_cnn
from stochopt.problems.entropic_risk import entropic_risk
from stochopt.problems.equicorrelated_quadratic import equicorrelated_quadratic
from stochopt.problems.feature_regularization import feature_regularization
from stochopt.problems.friedman import friedman
from stochopt.problems.hyper_cleaning import hyper_cleaning
from stochopt.problems.log_partition import log_partition
from stochopt.problems.logistic import logistic
from stochopt.problems.logistic_finite_sum import logistic_finite_sum
from stochopt.problems.matrix_regression import matrix_regression
from stochopt.problems.noisy_quadratic import noisy_quadratic
from stochopt.problems.noisy_squares import noisy_squares
from stochopt.problems.nonconvex import cosine, polyak_lojasiewicz
from stochopt.problems.phase_retrieval import phase_retrieval, square_prox
from stochopt.problems.portfolio import portfolio
from stochopt.problems.problem import ORACLES, Problem
from stochopt.problems.proxy_quadratic import proxy_quadratic
from stochopt.problems.quadratic_composition import quadratic_composition
from stochopt.problems.rayleigh_quotient import rayleigh_quotient
from stochopt.problems.reweighted_logistic import reweighted_logistic
from stochopt.problems.ridge_hyperparameter import ridge_hyperparameter
from stochopt.problems.separable_composite import separable_composite
from stochopt.problems.simplex_quadratic import simplex_quadratic
from stochopt.problems.sparse_regression import sparse_regression
from stochopt.problems.sparse_robust_regression import sparse_robust_regression
from stochopt.problems.stacked import stacked
from stochopt.problems.stiff_composite import stiff_composite
from stochopt.problems.streaming_absolute_loss import streaming_absolute_loss
from stochopt.problems.target_logistic import target_logistic
from stochopt.problems.text import text
from stochopt.problems.tilted import tilted

#: What the command line can race on: name to factory.
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "bilevel-finite-sum": bilevel_finite_sum,
    "bilevel-quadratic": bilevel_quadratic,
    "causal-gaussian": causal_gaussian,
    "contrastive-views": contrastive_views,
    "cosine": cosine,
    "coupled-least-squares": coupled_least_squares,
    "digits": digits,
    "digits-cnn": digits_cnn,
    "entropic-risk": entropic_risk,
    "equicorrelated-quadratic": equicorrelated_quadratic,
    "friedman": friedman,
    "hyper-cleaning": hyper_cleaning,
    "log-partition": log_partition,
    "logistic": logistic,
    "logistic-finite-sum": logistic_finite_sum,
    "matrix-regression": matrix_regression,
    "noisy-quadratic": noisy_quadratic,
    "noisy-squares": noisy_squares,
    "phase-retrieval": phase_retrieval,
    "polyak-lojasiewicz": polyak_lojasiewicz,
    "portfolio": portfolio,
    "proxy-quadratic": proxy_quadratic,
    "quadratic-composition": quadratic_composition,
    "rayleigh-quotient": rayleigh_quotient,
    "ridge-hyperparameter": ridge_hyperparameter,
    "robust-contrastive-views": robust_contrastive_views,
    "separable-composite": separable_composite,
    "simplex-quadratic": simplex_quadratic,
    "sparse-regression": sparse_regression,
    "sparse-robust-regression": sparse_robust_regression,
    "stiff-composite": stiff_composite,
    "streaming-absolute-loss": streaming_absolute_loss,
    "target-logistic": target_logistic,
    "text": text,
}

__all__ = [
    "ORACLES",
    "PROBLEMS",
    "Problem",
    "bilevel_finite_sum",
    "bilevel_quadratic",
    "bilevel_rank_one",
    "causal_gaussian",
    "contrastive_views",
    "cosine",
    "coupled_least_squares",
    "digits",
    "digits_cnn",
    "entropic_risk",
    "equicorrelated_quadratic",
    "feature_regularization",
    "friedman",
    "hyper_cleaning",
    "log_partition",
    "logistic",
    "logistic_finite_sum",
    "matrix_regression",
    "noisy_quadratic",
    "noisy_squares",
    "phase_retrieval",
    "polyak_lojasiewicz",
    "portfolio",
    "proxy_quadratic",
    "quadratic_composition",
    "rayleigh_quotient",
    "reweighted_logistic",
    "ridge_hyperparameter",
    "robust_contrastive_views",
    "separable_composite",
    "square_prox",
    "simplex_quadratic",
    "sparse_regression",
    "sparse_robust_regression",
    "stacked",
    "target_logistic",
    "streaming_absolute_loss",
    "text",
    "stiff_composite",
    "tilted",
]
