"""Stochastic model building: step sizes from a model of the curvature that a step met."""

from stochopt.model_building.groups import GroupFn
from stochopt.model_building.smb import SmbState, smb
from stochopt.model_building.smb_independent import SmbIndependentState, smb_independent

__all__ = ["GroupFn", "SmbIndependentState", "SmbState", "smb", "smb_independent"]
