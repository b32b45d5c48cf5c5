"""Stochastic model building."""

import functools

from stochopt.catalog.method import Method
from stochopt.claims import model_building as claims
from stochopt.model_building import smb, smb_independent

# From the paper's step size downwards: with its limit of 20 the automatic step size grows, once the
# loss is tiny, until a step kills every unit of a ReLU network.
_ADJUSTED = {"adjust_every": 20, "max_learning_rate": 1.0}

_method = functools.partial(Method, family="model building")

ROWS = (
    _method(
        name="smb",
        factory=smb,
        summary="models the curvature that a rejected step met",
        paper="Birbil et al. 2024, arXiv:2111.07058",
        defaults=_ADJUSTED,
        gradient_counter="num_gradients",
        claims=claims.SMB,
        seeds="map",
    ),
    _method(
        name="smb_independent",
        factory=smb_independent,
        summary="the same with a fresh batch for the model (SMBi)",
        paper="Birbil et al. 2024, arXiv:2111.07058",
        defaults=_ADJUSTED,
        gradient_counter="num_gradients",
        claims=claims.SMB_INDEPENDENT,
        seeds="map",
    ),
)
