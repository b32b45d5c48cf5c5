"""``stochopt race``."""

import ast
import dataclasses
import json
import math
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import rich.console
import rich.progress
import typer

from stochopt import catalog
from stochopt.cli.console import find_methods, interrupt, make_console, print_table, writable
from stochopt.experiments import report
from stochopt.experiments.race import Entry, RaceResult, Sweep, race, settings
from stochopt.experiments.table import words
from stochopt.problems import PROBLEMS, Problem, logistic_finite_sum
from stochopt.problems.libsvm import read_examples

DEFAULT_RACE = "adago,smb,adam,contrib.muon,sgd"


def race_command(
    problem_name: Annotated[
        str,
        typer.Argument(
            metavar="PROBLEM",
            help="See `stochopt list`; or libsvm:PATH, logistic regression on a file of examples.",
        ),
    ] = "digits",
    optimizers: Annotated[
        str, typer.Option(help="Names from `stochopt list`, separated by commas.")
    ] = DEFAULT_RACE,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of each optimizer.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Updates of each optimizer.")] = 1000,
    sweep: Annotated[
        str | None,
        typer.Option(metavar="NAME=V1,V2,...", help="Values of one hyper-parameter to try."),
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="Objective that counts as solved; default: the problem's.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random key.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for CSV, JSON and pictures; default: race/PROBLEM.")
    ] = None,
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the JSON record instead of a table.")
    ] = False,
) -> None:
    """Races optimizers on a problem, seed by seed on the same starting points and batches.

    Every entry gets the same number of updates. Ctrl-C ends the race early and keeps what was
    measured.
    """
    methods = find_methods(optimizers.split(","), "--optimizers")
    chosen_sweep = _parse_sweep(sweep, methods)
    problem = _find_problem(problem_name)
    _check_entries(problem, methods, chosen_sweep)
    folder = writable(out or Path("race") / problem.name)

    console = make_console(stderr=json_output)
    signal.signal(signal.SIGTERM, interrupt)
    with _Progress(console, methods, steps, chosen_sweep) as progress:
        result = race(
            problem,
            methods,
            num_steps=steps,
            num_seeds=seeds,
            seed=seed,
            sweep=chosen_sweep,
            target=target,
            on_progress=progress,
        )
    # Numbers first: no later error loses them.
    report.write_csv(result, folder / "race.csv")
    report.write_json(result, folder / "race.json")
    if json_output:
        print(json.dumps(report.as_json(result), indent=1))
    else:
        print_table(console, report.table(result))
    written = [folder / "race.csv", folder / "race.json", *_draw(result, folder)]
    console.print("written: " + ", ".join(str(path) for path in written), soft_wrap=True)
    if not result.results:
        raise typer.Exit(1)
    if result.interrupted:
        raise typer.Exit(130)


def _draw(result: RaceResult, folder: Path) -> list[Path]:
    """Race picture and, with a sweep, the sweep's; nothing was measured, nothing is drawn."""
    from stochopt.experiments import plots  # matplotlib takes a second, only for pictures

    if not result.results:
        return []
    paths = plots.save(plots.race_figure(result), folder / "race")
    if result.sweep is not None:
        paths += plots.save(plots.sweep_figure(result), folder / "sweep")
    return paths


def _find_problem(name: str) -> Problem:
    kind, _, path = name.partition(":")
    if kind == "libsvm":
        return _of_file(Path(path))
    if name not in PROBLEMS:
        raise typer.BadParameter(
            f"unknown problem {name!r}; {catalog.nearest(name, list(PROBLEMS))}",
            param_hint="PROBLEM",
        )
    return PROBLEMS[name]()


def _of_file(path: Path) -> Problem:
    """Logistic regression with a ridge on a file in LIBSVM's text format."""
    try:
        examples = read_examples("libsvm:PATH", path)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="PROBLEM") from None
    # The size for which the theorems of variance reduction are best.
    batch_size = math.isqrt(len(examples[1]) - 1) + 1
    problem = logistic_finite_sum(examples, batch_size=batch_size, regularization=0.0, decay=1e-3)
    return dataclasses.replace(
        problem, name=f"libsvm-{path.stem}", summary="logistic regression with a ridge"
    )


def _parse_sweep(text: str | None, methods: Sequence[catalog.Method]) -> Sweep | None:
    if text is None:
        return None
    name, _, values = text.partition("=")
    having = [method for method in methods if name in method.hyperparams]
    try:
        parsed = [ast.literal_eval(value.strip()) for value in values.split(",")]
        if not all(type(value) in (int, float) for value in parsed):
            raise ValueError
    except (ValueError, SyntaxError):
        raise typer.BadParameter(
            f"expected NAME=V1,V2,... with numbers, got {text!r}", param_hint="--sweep"
        ) from None
    if not having:
        known = sorted({name for method in methods for name in method.hyperparams})
        raise typer.BadParameter(
            f"no optimizer here has a hyper-parameter {name!r}; {catalog.nearest(name, known)}",
            param_hint="--sweep",
        )
    # Whole numbers stay whole only for hyper-parameters that count something.
    counts = any(_is_count(method.hyperparams[name]) for method in having)
    return Sweep(name, tuple(parsed if counts else map(float, parsed)))


def _is_count(default: Any) -> bool:
    return default is None or type(default) is int


def _check_entries(
    problem: Problem, methods: Sequence[catalog.Method], sweep: Sweep | None
) -> None:
    """Builds every transformation once, so that bad arguments stop the race before it starts."""
    for method in methods:
        for hyperparams in settings(method, sweep):
            try:
                method.make(problem, **hyperparams)
            except (TypeError, ValueError) as error:
                hint = "; --sweep NAME=VALUE gives one" if isinstance(error, TypeError) else ""
                raise typer.BadParameter(
                    f"{method.name}: {error}{hint}", param_hint="--optimizers"
                ) from None


class _Progress:
    """One live bar per method on a terminal; a plain line per method's tenth elsewhere."""

    def __init__(
        self,
        console: rich.console.Console,
        methods: Sequence[catalog.Method],
        num_steps: int,
        sweep: Sweep | None,
    ):
        self._console, self._num_steps = console, num_steps
        self._done: dict[int, int] = {}
        self._live = rich.progress.Progress(
            rich.progress.TextColumn("{task.description:28}"),
            rich.progress.BarColumn(bar_width=30),
            rich.progress.TaskProgressColumn(),
            rich.progress.TextColumn("{task.fields[state]:24}"),
            rich.progress.TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks = {
            method.name: self._live.add_task(
                method.name, total=len(settings(method, sweep)) * num_steps, state="waiting"
            )
            for method in methods
        }

    def __enter__(self) -> "_Progress":
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def __call__(self, entry: Entry, step: int) -> None:
        name = entry.method.name
        if entry.run is None:
            self._live.update(self._tasks[name], state="compiling")
            return
        advance = step - self._done.get(id(entry), 0)
        self._done[id(entry)] = step
        objective = words(entry.run.program.problem.objective)
        state = f"{objective} {entry.run.latest():.2e}"
        self._live.update(self._tasks[name], advance=advance, state=state)
        tenth = max(1, self._num_steps // 10)
        if not self._console.is_terminal and step // tenth > (step - advance) // tenth:
            self._console.print(f"{name}: {step} of {self._num_steps} updates, {state}")
