"""Smooth plus nonsmooth, each at its own price: many subgradients for each smooth gradient."""

from stochopt.sliding.conditional import (
    ConditionalSlidingState,
    conditional_gradient_sliding,
    conditional_sliding_bound,
)
from stochopt.sliding.geometry import (
    Geometry,
    ShiftedStrongConvexity,
    euclidean,
    shift_strong_convexity,
    simplex,
)
from stochopt.sliding.gradient_sliding import SlidingState, slide, sliding_eval_params
from stochopt.sliding.methods import (
    gradient_sliding,
    restart_free_sliding,
    stochastic_gradient_sliding,
)
from stochopt.sliding.policies import (
    SlidingPolicy,
    any_time,
    fixed_horizon,
    multi_phase,
    restart_free,
    restart_free_from_distance,
    restart_free_minibatch,
)

__all__ = [
    # Methods
    "gradient_sliding",
    "stochastic_gradient_sliding",
    "restart_free_sliding",
    "conditional_gradient_sliding",
    # The transformation behind them
    "slide",
    "SlidingState",
    "sliding_eval_params",
    # Without a projection
    "ConditionalSlidingState",
    "conditional_sliding_bound",
    # Policies
    "SlidingPolicy",
    "fixed_horizon",
    "any_time",
    "multi_phase",
    "restart_free",
    "restart_free_minibatch",
    "restart_free_from_distance",
    # Geometry
    "Geometry",
    "euclidean",
    "simplex",
    "shift_strong_convexity",
    "ShiftedStrongConvexity",
]
