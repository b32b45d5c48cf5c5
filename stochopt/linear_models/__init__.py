"""Generalized linear models: a loss of predictions plus a penalty, by columns."""

from stochopt.linear_models.constants import block_smoothness, mahalanobis_smoothness
from stochopt.linear_models.descent import LinearModelDescentState, linear_model_descent
from stochopt.linear_models.design import DenseDesign, Design, SparseDesign, dense, sparse
from stochopt.linear_models.gram import lasso_gap
from stochopt.linear_models.losses import Loss, huber, logistic, squared
from stochopt.linear_models.model import LinearModel, duality_gap, linear_model, optimality
from stochopt.linear_models.penalties import (
    MCP,
    ConvexPenalty,
    ElasticNet,
    GroupLasso,
    Penalty,
    elastic_net,
    group_lasso,
    l1,
    mcp,
)
from stochopt.linear_models.solver import Solution, solve
from stochopt.linear_models.working_sets import LassoResult, largest_penalty, lasso, lasso_path

__all__ = [
    # Methods
    "linear_model_descent",
    "solve",
    "lasso",
    "lasso_path",
    "LinearModelDescentState",
    "Solution",
    "LassoResult",
    # Models
    "linear_model",
    "duality_gap",
    "optimality",
    "largest_penalty",
    "lasso_gap",
    "LinearModel",
    # Designs
    "dense",
    "sparse",
    "Design",
    "DenseDesign",
    "SparseDesign",
    # Losses
    "squared",
    "logistic",
    "huber",
    "Loss",
    # Penalties
    "l1",
    "elastic_net",
    "group_lasso",
    "mcp",
    "Penalty",
    "ConvexPenalty",
    "ElasticNet",
    "GroupLasso",
    "MCP",
    # Constants
    "block_smoothness",
    "mahalanobis_smoothness",
]
