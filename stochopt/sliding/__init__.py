"""An expensive smooth part and a cheap one, each at its own price."""

from stochopt.sliding.accelerated import (
    AcceleratedSlidingState,
    saddle_gradient,
    slide_accelerated,
)
from stochopt.sliding.accelerated_policies import (
    AcceleratedPolicy,
    accelerated,
    accelerated_lan_ouyang,
    restart_free_accelerated,
    restart_free_smoothed,
    restart_free_smoothed_minibatch,
)
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
    accelerated_sliding,
    gradient_sliding,
    restart_free_accelerated_sliding,
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
    "accelerated_sliding",
    "restart_free_accelerated_sliding",
    "conditional_gradient_sliding",
    # The transformations behind them
    "slide",
    "slide_accelerated",
    "saddle_gradient",
    "SlidingState",
    "AcceleratedSlidingState",
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
    # Policies with an accelerated inner loop
    "AcceleratedPolicy",
    "accelerated",
    "accelerated_lan_ouyang",
    "restart_free_accelerated",
    "restart_free_smoothed",
    "restart_free_smoothed_minibatch",
    # Geometry
    "Geometry",
    "euclidean",
    "simplex",
    "shift_strong_convexity",
    "ShiftedStrongConvexity",
]
