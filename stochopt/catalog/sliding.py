"""An expensive smooth part and a cheap one."""

import functools

from stochopt.catalog.method import Method
from stochopt.claims import sliding as claims
from stochopt.sliding import (
    accelerated_sliding,
    conditional_gradient_sliding,
    gradient_sliding,
    restart_free_accelerated_sliding,
    restart_free_sliding,
    sliding_eval_params,
    stochastic_gradient_sliding,
)

# Constants of the composite problem, where sliding is raced.
_COMPOSITE = {"smoothness": 1.0, "subgradient_bound": 1.0}
_SADDLE = {"smoothness": 1.0, "operator_norm": 0.05}

_method = functools.partial(
    Method,
    family="sliding",
    gradient_of="smooth",
    gradient_counter="num_smooth_gradients",
    eval_params=sliding_eval_params,
)

ROWS = (
    _method(
        name="gradient_sliding",
        factory=gradient_sliding,
        summary="smooth plus nonsmooth: many subgradients for each smooth gradient",
        paper="Lan 2016, arXiv:1406.0919",
        defaults={**_COMPOSITE, "horizon": 100, "initial_distance": 10.0},
        claims=claims.GRADIENT_SLIDING,
    ),
    _method(
        name="stochastic_gradient_sliding",
        factory=stochastic_gradient_sliding,
        summary="the same with subgradients from samples",
        paper="Lan 2016, arXiv:1406.0919",
        defaults={**_COMPOSITE, "noise": 0.5, "horizon": 100, "initial_distance": 10.0},
        claims=claims.STOCHASTIC_GRADIENT_SLIDING,
    ),
    _method(
        name="restart_free_sliding",
        factory=restart_free_sliding,
        summary="the same for strongly convex problems, at a linear rate",
        paper="constants derived here",
        defaults={**_COMPOSITE, "noise": 0.5, "strong_convexity": 0.005, "initial_gap": 10.0},
        claims=claims.RESTART_FREE_SLIDING,
    ),
    _method(
        name="accelerated_sliding",
        factory=accelerated_sliding,
        summary="two smooth parts: an accelerated inner loop for each smooth gradient",
        paper="Lan, Ouyang 2022, doi:10.1007/s10589-022-00365-z; constants derived here",
        defaults={"smoothness": 1.0, "cheap_smoothness": 100.0},
        claims=claims.ACCELERATED_SLIDING,
    ),
    _method(
        name="restart_free_accelerated_sliding",
        factory=restart_free_accelerated_sliding,
        summary="a norm of a linear map, smoothed less and less, at a linear rate",
        paper="complexity: Wu, Xu, Zhang 2026, arXiv:2602.04161; constants derived here",
        defaults={**_SADDLE, "strong_convexity": 0.005, "initial_gap": 10.0},
        claims=claims.RESTART_FREE_ACCELERATED_SLIDING,
    ),
    _method(
        name="conditional_gradient_sliding",
        factory=conditional_gradient_sliding,
        summary="many linear minimizations for each gradient, no projection",
        paper="Lan, Zhou 2016, doi:10.1137/140992382",
        defaults={"smoothness": 1.0, "diameter": 2**0.5},
        claims=claims.CONDITIONAL_GRADIENT_SLIDING,
        gradient_of="loss",
    ),
)
