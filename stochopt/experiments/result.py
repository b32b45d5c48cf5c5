"""What an experiment measured, in memory and on disk."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from stochopt.experiments import storage

_FIELDS_OF_ARRAYS = ("metrics", "warnings", "sums")

#: Counters in a state that speak against a run, to what they have counted.
WARNINGS = {
    "num_truncated": "inner loops cut short",
    "num_large_subgradients": "subgradients beyond their bound",
    "num_descent_violations": "block steps with too small a constant",
}


@dataclasses.dataclass(frozen=True, eq=False)
class RunResult:
    """What an experiment measured; arrays have a leading axis of seeds.

    Attributes:
      problem: name of the problem.
      method: name of the method.
      hyperparams: those that differed from the catalog's defaults.
      objective: name of the metric that was minimized.
      steps: updates done at each record, shape (records,); the first record is the start.
      num_gradients: gradient evaluations spent, shape (seeds, records).
      metrics: name to values, each of shape (seeds, records).
      diverged_at: first update whose parameters were not finite, 0 if none, shape (seeds,).
      seconds: wall-clock seconds of the updates before each record, shape (records,), all seeds
        together, without compilation and metrics; the first is zero.
      compile_seconds: what compiling its program took; the runs of a sweep share a program.
      warnings: name of a counter that speaks against the run to its last value, shape (seeds,):
        what an optimizer's state says of inner loops cut short, or of a bound that did not hold.
      sums: name to sums, over the updates since the record before, of what the program measures
        at every update, each of shape (seeds, records).
    """

    problem: str
    method: str
    hyperparams: dict[str, Any]
    objective: str
    steps: np.ndarray
    num_gradients: np.ndarray
    metrics: dict[str, np.ndarray]
    diverged_at: np.ndarray
    seconds: np.ndarray
    compile_seconds: float
    warnings: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    sums: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def num_seeds(self) -> int:
        """Number of repetitions."""
        return len(self.diverged_at)

    @property
    def values(self) -> np.ndarray:
        """The objective, shape (seeds, records); infinite from where it is not finite."""
        values = self.metrics[self.objective]
        return np.where(np.isfinite(values), values, np.inf)

    def final(self, metric: str | None = None) -> np.ndarray:
        """Last record of a metric (the objective by default), shape (seeds,)."""
        return self.values[:, -1] if metric is None else self.metrics[metric][:, -1]

    def seconds_per_step(self) -> float:
        """Median over chunks of the time one update of one seed takes."""
        done = np.diff(self.steps)
        return float(np.median(self.seconds[1:] / done / self.num_seeds)) if len(done) else np.nan

    def steps_to(self, target: float) -> np.ndarray:
        """First recorded number of updates with the objective at most ``target``; inf if none."""
        reached = self.values <= target
        return np.where(reached.any(1), self.steps[reached.argmax(1)], np.inf)

    def save(self, path: str | Path) -> Path:
        """Writes one NumPy archive; hyper-parameters that are functions are kept by their names."""
        arrays: dict[str, np.ndarray] = {}
        about: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                arrays[field.name] = value
            elif field.name in _FIELDS_OF_ARRAYS:
                arrays |= {f"{field.name}/{name}": array for name, array in value.items()}
            else:
                about[field.name] = value
        return storage.write(path, "result", arrays, about)

    @classmethod
    def load(cls, path: str | Path) -> "RunResult":
        """The result that :meth:`save` has written.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: the file is something else.
        """
        arrays, about = storage.read(path, "result")
        fields: dict[str, Any] = {**about, **{name: {} for name in _FIELDS_OF_ARRAYS}}
        for name, array in arrays.items():
            field, _, key = name.partition("/")
            if key:
                fields[field][key] = array
            else:
                fields[field] = array
        return cls(**fields)
