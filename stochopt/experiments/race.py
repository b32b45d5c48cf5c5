"""A race: several methods on one problem, side by side in one process.

All entries are compiled first and then advance in turn, one record at a time, so that a machine
that slows down slows all of them, and an interruption leaves every entry equally far.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from stochopt.catalog import Method
from stochopt.experiments.result import RunResult
from stochopt.experiments.run import Program, Run, split_traced
from stochopt.problems import Problem


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Values of one hyper-parameter to run every method at."""

    name: str
    values: tuple[Any, ...]


@dataclasses.dataclass(eq=False)
class Entry:
    """One method at one setting. It holds a result, an error, or both."""

    method: Method
    hyperparams: Mapping[str, Any]
    run: Run | None = None
    error: str | None = None

    @property
    def result(self) -> RunResult | None:
        """What was measured so far, ``None`` if nothing was."""
        return self.run.result if self.run is not None and self.run.started else None

    def fail(self, error: Exception) -> None:
        """Keeps the error in one line; the race goes on."""
        first_line = str(error).split("\n")[0]
        self.error = f"{type(error).__name__}: {first_line}"


@dataclasses.dataclass(frozen=True, eq=False)
class RaceResult:
    """What a race measured.

    Attributes:
      problem: the problem.
      entries: every method at every setting, in order.
      num_steps: updates that were asked for.
      seed: of the experiment's random key.
      sweep: the swept hyper-parameter, if any.
      target: value of the objective that counts as solved, if any.
      interrupted: whether it was stopped before the end.
    """

    problem: Problem
    entries: Sequence[Entry]
    num_steps: int
    seed: int
    sweep: Sweep | None
    target: float | None
    interrupted: bool

    @property
    def results(self) -> list[RunResult]:
        """All results, in order."""
        return [entry.result for entry in self.entries if entry.result is not None]

    def by_method(self) -> dict[str, list[RunResult]]:
        """Method name to its results at the settings of the sweep, in order."""
        grouped: dict[str, list[RunResult]] = {}
        for result in self.results:
            grouped.setdefault(result.method, []).append(result)
        return grouped

    def best(self) -> list[RunResult]:
        """For each method the result with the lowest median final objective."""
        return [
            min(results, key=lambda result: np.median(result.final()))
            for results in self.by_method().values()
        ]


def decades(results: Sequence[RunResult], name: str, target: float) -> float:
    """Width, in decades, of the swept values from which the median run reaches ``target``.

    The sum of ``log10(next / this)`` over neighbouring values that both reach it: one lonely value
    has no width.
    """
    points = sorted((r.hyperparams[name], np.median(r.steps_to(target)) < np.inf) for r in results)
    pairs = itertools.pairwise(points)
    return float(sum(np.log10(b / a) for (a, here), (b, there) in pairs if here and there))


def settings(method: Method, sweep: Sweep | None) -> list[dict[str, Any]]:
    """The hyper-parameters a method is run at: one dict per value of the sweep, if it has it."""
    if sweep is None or sweep.name not in method.hyperparams:
        return [{}]
    return [{sweep.name: value} for value in sweep.values]


def race(
    problem: Problem,
    methods: Sequence[Method],
    *,
    num_steps: int,
    num_seeds: int,
    seed: int = 0,
    record_every: int | None = None,
    sweep: Sweep | None = None,
    target: float | None = None,
    on_progress: Callable[[Entry, int], None] = lambda entry, step: None,
) -> RaceResult:
    """Races methods on a problem.

    A method that fails keeps its error message and the others go on; ``KeyboardInterrupt`` ends
    the race early and keeps what was measured.

    Args:
      problem: what to minimize.
      methods: rows of the catalog.
      num_steps: updates of each entry.
      num_seeds: repetitions of each entry.
      seed: of the random key; all entries share starting points and batches.
      record_every: updates between two records; ``None`` makes about 50 records.
      sweep: runs every method that has this hyper-parameter once per value, the others once.
      target: value of the objective that counts as solved; ``None`` takes the problem's.
      on_progress: called as ``on_progress(entry, updates_done)``; with -1 before compilation.

    Returns:
      The results, errors and settings.
    """
    entries = [
        Entry(method, hyperparams) for method in methods for hyperparams in settings(method, sweep)
    ]
    interrupted = False
    try:
        programs: dict[Any, Program] = {}
        for entry in entries:
            on_progress(entry, -1)
            try:
                entry.run = _prepare(
                    entry, problem, programs, seed, num_steps, num_seeds, record_every
                )
            except Exception as error:
                entry.fail(error)
        _advance_in_turn(entries, on_progress)
    except KeyboardInterrupt:
        interrupted = True
    return RaceResult(
        problem=problem,
        entries=entries,
        num_steps=num_steps,
        seed=seed,
        sweep=sweep,
        target=problem.target if target is None else target,
        interrupted=interrupted,
    )


def _prepare(
    entry: Entry,
    problem: Problem,
    programs: dict[Any, Program],
    seed: int,
    num_steps: int,
    num_seeds: int,
    record_every: int | None,
) -> Run:
    """Compiles the entry's program, or reuses the one of the same method at other numbers."""
    static, _ = split_traced(entry.hyperparams)
    signature = (entry.method, tuple(entry.hyperparams), repr(static))
    program = programs.get(signature)
    if program is None:
        program = Program(problem, entry.method, num_seeds, entry.hyperparams)
        programs[signature] = program
    return Run(
        program,
        key=jax.random.key(seed),
        num_steps=num_steps,
        record_every=record_every,
        hyperparams=entry.hyperparams,
    )


def _advance_in_turn(entries: Sequence[Entry], on_progress: Callable[[Entry, int], None]) -> None:
    running: list[tuple[Entry, Iterator[int]]] = [(e, iter(e.run)) for e in entries if e.run]
    while running:
        still = []
        for entry, steps in running:
            try:
                done = next(steps, None)
            except Exception as error:
                entry.fail(error)
                continue
            if done is not None:
                on_progress(entry, done)
                still.append((entry, steps))
        running = still
