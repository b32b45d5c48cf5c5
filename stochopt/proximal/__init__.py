"""Proximal operators of penalties and sets, each of which knows the value of its penalty."""

from stochopt.proximal.combine import elastic_net, partition, plus_ridge
from stochopt.proximal.dual import DualMap, dual_of_group_norms, dual_of_l1, dual_of_max
from stochopt.proximal.nonconvex import mcp, scad
from stochopt.proximal.norms import group_lasso, l2
from stochopt.proximal.nuclear import nuclear_norm
from stochopt.proximal.operator import Prox, ProximalOperator
from stochopt.proximal.separable import l1, ridge, zero
from stochopt.proximal.sets import box, indicator
from stochopt.proximal.total_variation import total_variation

__all__ = [
    "ProximalOperator",
    "Prox",
    # Entry by entry
    "zero",
    "l1",
    "ridge",
    "elastic_net",
    "mcp",
    "scad",
    # Groups, matrices, signals
    "l2",
    "group_lasso",
    "nuclear_norm",
    "total_variation",
    # Sets
    "indicator",
    "box",
    # Combinations
    "plus_ridge",
    "partition",
    # Maxima over dual variables, smoothed
    "DualMap",
    "dual_of_l1",
    "dual_of_group_norms",
    "dual_of_max",
]
