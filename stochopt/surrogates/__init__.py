"""Cheap stand-ins for an expensive loss: many steps for each of its gradients."""

from stochopt.surrogates.proxy_prox import ProxyStepState, proxy_prox, proxy_step
from stochopt.surrogates.target_steps import AlongTargets, TargetStep, armijo, given
from stochopt.surrogates.target_surrogate import TargetSurrogateState, target_surrogate

__all__ = [
    # Methods
    "proxy_prox",
    "target_surrogate",
    # The step behind proxy_prox
    "proxy_step",
    "ProxyStepState",
    # Step sizes of target surrogates
    "TargetStep",
    "AlongTargets",
    "given",
    "armijo",
    "TargetSurrogateState",
]
