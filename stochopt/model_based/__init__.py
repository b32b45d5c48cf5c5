"""Models of the sampled loss, better than a line: long steps on weakly convex problems."""

from stochopt.model_based.box import duality_gap, least_absolute_multipliers
from stochopt.model_based.iterated_prox import iterated_prox
from stochopt.model_based.methods import (
    prox_subgradient,
    stochastic_prox_linear,
    stochastic_prox_point,
    truncated_model,
)
from stochopt.model_based.models import prox_linear, prox_point, subgradient, truncated
from stochopt.model_based.step import Model, ModelBasedStepState, Move, Sample, model_based_step

__all__ = [
    "Model",
    "ModelBasedStepState",
    "Move",
    "Sample",
    "duality_gap",
    "iterated_prox",
    "least_absolute_multipliers",
    "model_based_step",
    "prox_linear",
    "prox_point",
    "prox_subgradient",
    "stochastic_prox_linear",
    "stochastic_prox_point",
    "subgradient",
    "truncated",
    "truncated_model",
]
