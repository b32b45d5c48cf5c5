"""Functions of an expectation: estimators of their gradient, and the chains named after papers."""

from stochopt.compositional.trackers import (
    RecursiveTrackerState,
    Tracker,
    TrackerUpdateFn,
    recursive_tracker,
)
from stochopt.compositional.two_level import (
    EstimateCompositionalState,
    estimate_compositional,
    scsc,
)

__all__ = [
    "EstimateCompositionalState",
    "RecursiveTrackerState",
    "Tracker",
    "TrackerUpdateFn",
    "estimate_compositional",
    "recursive_tracker",
    "scsc",
]
