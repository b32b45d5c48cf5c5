"""Experiments: run a method on a problem, race several, report and draw.

Pictures are in :mod:`stochopt.experiments.plots`, which needs matplotlib.
"""

from stochopt.experiments.race import Entry, RaceResult, Sweep, decades, race
from stochopt.experiments.result import RunResult
from stochopt.experiments.run import Program, Run, gradient_and_extras, run

__all__ = [
    "Entry",
    "Program",
    "RaceResult",
    "Run",
    "RunResult",
    "Sweep",
    "decades",
    "gradient_and_extras",
    "race",
    "run",
]
