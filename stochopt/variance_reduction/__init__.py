"""Gradients with less noise than a batch has: estimators, and the chains named after papers."""

from stochopt.variance_reduction.anchored import (
    EstimateAnchoredState,
    estimate_page,
    estimate_spider,
    estimate_svrg,
)
from stochopt.variance_reduction.chains import page, saga, storm, svrg
from stochopt.variance_reduction.saga import EstimateSagaState, estimate_saga
from stochopt.variance_reduction.storm import EstimateStormState, estimate_storm

__all__ = [
    # Methods
    "page",
    "storm",
    "svrg",
    "saga",
    # Estimators
    "estimate_page",
    "estimate_spider",
    "estimate_svrg",
    "EstimateAnchoredState",
    "estimate_storm",
    "EstimateStormState",
    "estimate_saga",
    "EstimateSagaState",
]
