"""Minimizers inside the objective: estimators of hypergradients, chains named after papers."""

from stochopt.bilevel.blockwise import (
    EstimateBlockwiseState,
    block_variables,
    estimate_blockwise,
)
from stochopt.bilevel.bsvrb import bsvrb_v1, bsvrb_v2
from stochopt.bilevel.estimator import (
    EstimateFieldState,
    FieldParams,
    HideState,
    estimate_field,
    hide,
)
from stochopt.bilevel.field import (
    Directions,
    Draw,
    Field,
    FieldSample,
    LowerAndAdjoint,
    LowerAndPenalized,
    LowerOnly,
    adjoint_field,
    penalty_field,
    solver_field,
)
from stochopt.bilevel.hypergradient import (
    LinearSolver,
    LowerProducts,
    conjugate_gradient,
    dense_solve,
    finite_difference_cross,
    implicit_gradient,
    lower_products,
    neumann,
    randomized_neumann,
)
from stochopt.bilevel.inner_loops import amigo, bsa, stocbio, ttsa
from stochopt.bilevel.nested import EstimateNestedState, estimate_nested
from stochopt.bilevel.randomized import (
    EstimateRandomizedState,
    TrackedDerivatives,
    estimate_randomized,
)
from stochopt.bilevel.rsvrb import rsvrb
from stochopt.bilevel.saga import EstimateSagaFieldState, estimate_saga_field
from stochopt.bilevel.schemes import Scheme, tracked_hessian, tracked_solution
from stochopt.bilevel.single_loop import f2sa, mrbo, saba, soba, sustain

__all__ = [
    # Methods
    "amigo",
    "bsa",
    "bsvrb_v1",
    "bsvrb_v2",
    "f2sa",
    "mrbo",
    "rsvrb",
    "saba",
    "soba",
    "stocbio",
    "sustain",
    "ttsa",
    # Estimators
    "estimate_field",
    "EstimateFieldState",
    "FieldParams",
    "hide",
    "HideState",
    "estimate_saga_field",
    "EstimateSagaFieldState",
    "estimate_nested",
    "EstimateNestedState",
    "estimate_blockwise",
    "EstimateBlockwiseState",
    "block_variables",
    "estimate_randomized",
    "EstimateRandomizedState",
    "TrackedDerivatives",
    # Fields
    "Field",
    "FieldSample",
    "Directions",
    "Draw",
    "adjoint_field",
    "LowerAndAdjoint",
    "solver_field",
    "LowerOnly",
    "penalty_field",
    "LowerAndPenalized",
    # Adjoints of blocks
    "Scheme",
    "tracked_solution",
    "tracked_hessian",
    # Hypergradients at a given lower point
    "implicit_gradient",
    "lower_products",
    "LowerProducts",
    "finite_difference_cross",
    "LinearSolver",
    "conjugate_gradient",
    "dense_solve",
    "neumann",
    "randomized_neumann",
]
