"""Minimizers inside the objective: estimators of hypergradients, and the chains named after papers."""

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
from stochopt.bilevel.saga import EstimateSagaFieldState, estimate_saga_field
from stochopt.bilevel.schemes import Scheme, tracked_hessian, tracked_solution
from stochopt.bilevel.single_loop import f2sa, mrbo, saba, soba, sustain
