"""Robust decisions that depend on features: data, losses and the coupled problem."""

from stochopt.problems.causal.causal_sdro import (
    causal_sdro,
    gaussian_kernel,
    laplace_kernel,
)
from stochopt.problems.causal.inventory import (
    InventoryData,
    causal_inventory,
    dual_vertices,
    inventory_data,
    substitution_loss,
)
from stochopt.problems.causal.newsvendor import (
    NewsvendorData,
    causal_newsvendor,
    newsvendor_data,
    newsvendor_loss,
    newsvendor_oracle,
)
from stochopt.problems.causal.portfolio import causal_portfolio, mean_variance_loss

__all__ = [
    # Problems
    "causal_sdro",
    "causal_newsvendor",
    "causal_inventory",
    "causal_portfolio",
    # Kernels
    "gaussian_kernel",
    "laplace_kernel",
    # Data and losses
    "NewsvendorData",
    "newsvendor_data",
    "newsvendor_loss",
    "newsvendor_oracle",
    "InventoryData",
    "inventory_data",
    "substitution_loss",
    "dual_vertices",
    "mean_variance_loss",
]
