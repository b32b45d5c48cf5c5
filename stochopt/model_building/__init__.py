"""Stochastic model building: step sizes from a model of the curvature that a step met."""

from stochopt.model_building.smb import SmbIndependentState, SmbState, smb, smb_independent

__all__ = ["SmbIndependentState", "SmbState", "smb", "smb_independent"]
