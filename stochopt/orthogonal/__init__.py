"""Steps for matrix-shaped parameters: orthogonalized momentum and the polar factor behind it."""

from stochopt.orthogonal.adago import ScaleByAdagoState, adago, scale_by_adago
from stochopt.orthogonal.coefficients import (
    CANS,
    CUBIC,
    JORDAN,
    JORDAN_CONVERGED,
    QUINTIC,
    lengthened,
    polar_express,
)
from stochopt.orthogonal.lmo import (
    LinearMinimizer,
    column_norm,
    euclidean,
    max_norm,
    nuclear,
    product,
    spectral,
)
from stochopt.orthogonal.matrices import EMBEDDINGS_AND_HEADS, hidden_matrices
from stochopt.orthogonal.muon import muon, scale_by_shape
from stochopt.orthogonal.newton_schulz import (
    Orthogonalizer,
    newton_schulz,
    newton_schulz_converged,
    svd_polar,
)
from stochopt.orthogonal.trust_region import ScaleByLmoState, scale_by_lmo, trust_region

__all__ = [
    # Steps
    "adago",
    "scale_by_adago",
    "ScaleByAdagoState",
    "muon",
    "scale_by_shape",
    "trust_region",
    "scale_by_lmo",
    "ScaleByLmoState",
    # Norms
    "LinearMinimizer",
    "spectral",
    "euclidean",
    "max_norm",
    "column_norm",
    "nuclear",
    "product",
    # Polar factors
    "Orthogonalizer",
    "newton_schulz",
    "newton_schulz_converged",
    "svd_polar",
    "JORDAN",
    "JORDAN_CONVERGED",
    "QUINTIC",
    "CANS",
    "CUBIC",
    "polar_express",
    "lengthened",
    # Which leaves
    "hidden_matrices",
    "EMBEDDINGS_AND_HEADS",
]
