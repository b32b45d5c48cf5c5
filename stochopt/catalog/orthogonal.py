"""Orthogonalized momentum."""

import functools

import optax

from stochopt.catalog.method import Method
from stochopt.claims import orthogonal as claims
from stochopt.orthogonal import adago, muon, trust_region

_method = functools.partial(Method, family="orthogonal")

ROWS = (
    _method(
        name="adago",
        factory=adago,
        summary="AdaGrad step sizes on orthogonalized momentum; AdamW for vectors",
        paper="Zhang et al. 2025, arXiv:2509.02981",
        estimates={"gradient": lambda state: optax.tree.get(state, "ScaleByAdagoState").mu},
        claims=claims.ADAGO,
    ),
    _method(
        name="muon",
        factory=muon,
        summary="orthogonalized momentum on hidden matrices; AdamW for the rest",
        paper="Jordan et al. 2024, kellerjordan.github.io/posts/muon",
        estimates={"gradient": lambda state: optax.tree.get(state, "ScaleByLmoState").mu},
        claims=claims.MUON,
    ),
    _method(
        name="trust_region",
        factory=trust_region,
        summary="steps of fixed length in any norm along the averaged gradient",
        paper="Kovalev 2025, arXiv:2503.12645",
        defaults={"learning_rate": 0.02},
        estimates={"gradient": lambda state: optax.tree.get(state, "ScaleByLmoState").mu},
        claims=claims.TRUST_REGION,
    ),
)
