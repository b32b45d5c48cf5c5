"""Models of a sampled loss."""

import functools

from stochopt.catalog.method import Method
from stochopt.claims import model_based as claims
from stochopt.model_based import (
    prox_subgradient,
    stochastic_prox_linear,
    stochastic_prox_point,
    truncated_model,
)

_method = functools.partial(Method, family="model based", defaults={"learning_rate": 0.05})

ROWS = (
    _method(
        name="prox_subgradient",
        factory=prox_subgradient,
        summary="the loss as a line, a regularizer as it is",
        paper="Davis, Drusvyatskiy 2019, arXiv:1803.06523",
        gradient_of="unregularized",
        claims=claims.PROX_SUBGRADIENT,
    ),
    _method(
        name="truncated_model",
        factory=truncated_model,
        summary="subgradient steps that end at a lower bound of the loss",
        paper="Asi, Duchi 2019, arXiv:1810.05633",
        claims=claims.TRUNCATED_MODEL,
    ),
    _method(
        name="stochastic_prox_linear",
        factory=stochastic_prox_linear,
        summary="absolute values of smooth functions, kinks kept",
        paper="Davis, Drusvyatskiy 2019, arXiv:1803.06523",
        gradient_of=None,
        claims=claims.STOCHASTIC_PROX_LINEAR,
    ),
    _method(
        name="stochastic_prox_point",
        factory=stochastic_prox_point,
        summary="the minimizer of the sampled loss itself, near the point",
        paper="Davis, Drusvyatskiy 2019, arXiv:1803.06523",
        gradient_of=None,
        claims=claims.STOCHASTIC_PROX_POINT,
    ),
)
