"""Steps for matrix-shaped parameters: orthogonalized momentum and the polar factor behind it."""

from stochopt.orthogonal.adago import ScaleByAdagoState, adago, scale_by_adago
from stochopt.orthogonal.newton_schulz import JORDAN, Orthogonalizer, newton_schulz, svd_polar

__all__ = [
    "JORDAN",
    "Orthogonalizer",
    "ScaleByAdagoState",
    "adago",
    "newton_schulz",
    "scale_by_adago",
    "svd_polar",
]
