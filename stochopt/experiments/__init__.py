"""Experiments: run a method on a problem, and race several."""

from stochopt.experiments.run import Program, Run, RunResult, gradient_and_extras, run

__all__ = ["Program", "Run", "RunResult", "gradient_and_extras", "run"]
