"""Functions of an expectation: estimators of their gradient, and the chains named after papers."""

from stochopt.compositional.chains import asc_pg, nasa, scgd, scma, scsc, scst
from stochopt.compositional.contrastive import (
    EstimateRobustContrastiveState,
    estimate_contrastive,
    estimate_robust_contrastive,
)
from stochopt.compositional.contrastive_chains import isogclr, sogclr
from stochopt.compositional.coupled import (
    EstimateCoupledState,
    estimate_coupled,
    estimate_rows,
)
from stochopt.compositional.coupled_chains import msvr, sox
from stochopt.compositional.meco import EstimateLikelihoodState, estimate_likelihood, meco
from stochopt.compositional.multi_level import EstimateMultiLevelState, estimate_multi_level
from stochopt.compositional.sampling import sample_blocks
from stochopt.compositional.steps import (
    AverageDirectionState,
    StepCountState,
    average_direction,
    averaged_projection,
    proximal_step,
)
from stochopt.compositional.trackers import (
    Sample,
    Tracker,
    adaptive_log_moving_average,
    delayed,
    extrapolated,
    log_moving_average,
    moving_average,
    msvr_tracker,
    recursive_tracker,
)
from stochopt.compositional.two_level import (
    EstimateCompositionalState,
    estimate_compositional,
)

__all__ = [
    # Methods
    "asc_pg",
    "isogclr",
    "meco",
    "msvr",
    "nasa",
    "scgd",
    "scma",
    "scsc",
    "scst",
    "sogclr",
    "sox",
    # Estimators
    "estimate_compositional",
    "EstimateCompositionalState",
    "estimate_multi_level",
    "EstimateMultiLevelState",
    "estimate_coupled",
    "estimate_rows",
    "EstimateCoupledState",
    "estimate_contrastive",
    "estimate_robust_contrastive",
    "EstimateRobustContrastiveState",
    "estimate_likelihood",
    "EstimateLikelihoodState",
    "sample_blocks",
    # Trackers
    "Tracker",
    "Sample",
    "moving_average",
    "extrapolated",
    "recursive_tracker",
    "msvr_tracker",
    "log_moving_average",
    "adaptive_log_moving_average",
    "delayed",
    # What stands behind an estimator
    "average_direction",
    "AverageDirectionState",
    "proximal_step",
    "averaged_projection",
    "StepCountState",
]
