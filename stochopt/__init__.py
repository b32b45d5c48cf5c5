"""Stochastic optimization that optax does not cover, in optax's own shape.

Every name here is a factory of an ``optax.GradientTransformationExtraArgs``; the parts they are
chained from live in the family packages, and penalties in :mod:`stochopt.proximal`.
"""

from stochopt import (
    bilevel,
    blocks,
    compositional,
    lmo,
    model_based,
    model_building,
    orthogonal,
    proximal,
    sliding,
    surrogates,
    variance_reduction,
)
from stochopt.bilevel import (
    amigo,
    bsa,
    bsvrb_v1,
    bsvrb_v2,
    f2sa,
    mrbo,
    rsvrb,
    saba,
    soba,
    stocbio,
    sustain,
    ttsa,
)
from stochopt.blocks import cyclic_block_descent, vr_cyclic_block_descent
from stochopt.compositional import (
    asc_pg,
    isogclr,
    meco,
    msvr,
    nasa,
    scgd,
    scma,
    scsc,
    scst,
    sogclr,
    sox,
)
from stochopt.model_based import (
    prox_subgradient,
    stochastic_prox_linear,
    stochastic_prox_point,
    truncated_model,
)
from stochopt.model_building import smb, smb_independent
from stochopt.orthogonal import adago, muon, trust_region
from stochopt.sliding import (
    accelerated_sliding,
    conditional_gradient_sliding,
    gradient_sliding,
    restart_free_accelerated_sliding,
    restart_free_sliding,
    stochastic_gradient_sliding,
)
from stochopt.surrogates import proxy_prox, target_surrogate
from stochopt.variance_reduction import page, saga, storm, svrg

__version__ = "0.1.0"

__all__ = [
    # Matrix-shaped steps
    "adago",
    "muon",
    "trust_region",
    # Model building
    "smb",
    "smb_independent",
    # Models of the sampled loss
    "prox_subgradient",
    "truncated_model",
    "stochastic_prox_linear",
    "stochastic_prox_point",
    # Functions of an expectation
    "scgd",
    "asc_pg",
    "nasa",
    "scma",
    "scsc",
    "scst",
    "sox",
    "msvr",
    "meco",
    "sogclr",
    "isogclr",
    # A minimizer inside the objective
    "soba",
    "saba",
    "mrbo",
    "sustain",
    "f2sa",
    "amigo",
    "stocbio",
    "bsa",
    "ttsa",
    "bsvrb_v1",
    "bsvrb_v2",
    "rsvrb",
    # An expensive smooth part and a cheap one
    "gradient_sliding",
    "stochastic_gradient_sliding",
    "restart_free_sliding",
    "accelerated_sliding",
    "restart_free_accelerated_sliding",
    # An expensive smooth function on a set without a projection
    "conditional_gradient_sliding",
    # An expensive loss and something cheap that resembles it
    "proxy_prox",
    "target_surrogate",
    # Less noise than a batch has
    "page",
    "storm",
    "svrg",
    "saga",
    # One block of the parameters at a time
    "cyclic_block_descent",
    "vr_cyclic_block_descent",
    # Families
    "bilevel",
    "blocks",
    "compositional",
    "lmo",
    "model_based",
    "model_building",
    "orthogonal",
    "proximal",
    "sliding",
    "surrogates",
    "variance_reduction",
]
