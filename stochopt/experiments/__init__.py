"""Experiments: run a method on a problem, race several, measure convergence rates.

Pictures are in :mod:`stochopt.experiments.plots`, which needs matplotlib.
"""

from stochopt.experiments.evidence import ClaimResult, check_claim, check_claims, measure_claim
from stochopt.experiments.fit import Fit, power_law
from stochopt.experiments.flops import matmul_flops
from stochopt.experiments.race import Entry, RaceResult, Sweep, decades, race
from stochopt.experiments.rates import RateResult, measure_rate
from stochopt.experiments.result import RunResult
from stochopt.experiments.run import Program, Run, gradient_and_extras, run

__all__ = [
    "ClaimResult",
    "Entry",
    "Fit",
    "Program",
    "RaceResult",
    "RateResult",
    "Run",
    "RunResult",
    "Sweep",
    "check_claim",
    "check_claims",
    "decades",
    "gradient_and_extras",
    "matmul_flops",
    "measure_claim",
    "measure_rate",
    "power_law",
    "race",
    "run",
]
