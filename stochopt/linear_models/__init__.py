"""Generalized linear models: a loss of predictions plus a penalty, by columns."""

from stochopt.linear_models.design import DenseDesign, Design, SparseDesign, dense, sparse
from stochopt.linear_models.losses import Loss, huber, logistic, squared
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

__all__ = [
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
]
