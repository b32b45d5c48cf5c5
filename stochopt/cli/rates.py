"""``stochopt rates``."""

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import rich.console
import rich.progress
import typer

from stochopt import catalog
from stochopt.claims import Claim
from stochopt.cli.console import find_methods, interrupt, make_console, print_table, writable
from stochopt.experiments import rates_report
from stochopt.experiments.evidence import ClaimResult, check_claims


def rates_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[METHOD]...", help="Default: every method with a claim."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="Repetitions of each run.")] = 32,
    seed: Annotated[int, typer.Option(help="Of the random key.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Shorter ladders, for tests.")] = False,
    out: Annotated[Path, typer.Option(help="Folder for CSV, JSON and pictures.")] = Path("rates"),
    json_output: Annotated[
        bool, typer.Option("--json", help="Print the JSON record instead of a table.")
    ] = False,
) -> None:
    """Measures the convergence rates that the methods claim, each beside a wrong variant.

    Exits with 1 unless every claim holds and every wrong variant fails. Ctrl-C ends early and keeps
    what was measured.
    """
    methods = _with_claims(names)
    folder = writable(out)
    console = make_console(stderr=json_output)
    signal.signal(signal.SIGTERM, interrupt)
    with _Progress(console, methods) as progress:
        results = check_claims(
            methods,
            num_seeds=seeds,
            seed=seed,
            quick=quick,
            on_progress=progress,
            on_result=progress.finish,
        )
    # Numbers first: no later error loses them.
    rates_report.write_csv(results, folder / "rates.csv")
    rates_report.write_json(results, folder / "rates.json")
    if json_output:
        print(json.dumps(rates_report.as_json(results), indent=1))
    else:
        print_table(console, rates_report.table(results))
    parts = [part for r in results for part in (r.result, r.control)]
    running, compiling = (
        sum(getattr(part, name) for part in parts) for name in ("seconds", "compile_seconds")
    )
    console.print(f"running {running:.0f} s, compiling {compiling:.0f} s", highlight=False)
    written = [folder / "rates.csv", folder / "rates.json", *_draw(results, folder)]
    console.print("written: " + ", ".join(str(path) for path in written), soft_wrap=True)
    if len(results) < sum(len(method.claims) for method in methods):
        raise typer.Exit(130)
    if not all(result.holds for result in results):
        raise typer.Exit(1)


def _with_claims(names: Sequence[str] | None) -> list[catalog.Method]:
    claiming = [method for method in catalog.methods() if method.claims]
    if not names:
        return claiming
    methods = find_methods(names, "METHOD")
    if silent := [method.name for method in methods if not method.claims]:
        having = ", ".join(method.name for method in claiming)
        raise typer.BadParameter(
            f"no rate is claimed of {', '.join(silent)}; claims have {having}.",
            param_hint="METHOD",
        )
    return methods


def _draw(results: Sequence[ClaimResult], folder: Path) -> list[Path]:
    """One picture for each family."""
    from stochopt.experiments import plots  # matplotlib takes a second, only for pictures

    paths: list[Path] = []
    for family in dict.fromkeys(r.method.family for r in results):
        measured = [r for r in results if r.method.family == family and len(r.result.errors)]
        if measured:
            name = "rates-" + family.replace(" ", "-")
            paths += plots.save(plots.rates_figure(measured), folder / name)
    return paths


class _Progress:
    """One live bar over all claims on a terminal; a plain line per finished claim elsewhere."""

    def __init__(self, console: rich.console.Console, methods: Sequence[catalog.Method]):
        self._console = console
        self._live = rich.progress.Progress(
            rich.progress.TextColumn("{task.description:60}"),
            rich.progress.BarColumn(bar_width=30),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        total = sum(len(method.claims) for method in methods)
        self._task = self._live.add_task("", total=total)

    def __enter__(self) -> "_Progress":
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def __call__(self, method: catalog.Method, claim: Claim, part: str, horizon: int) -> None:
        doing = f"{horizon} updates" if horizon else "compiling"
        which = method.name if part == "method" else f"{method.name}, {claim.control.name}"
        self._live.update(self._task, description=f"{which}: {doing}"[:60])

    def finish(self, result: ClaimResult) -> None:
        self._live.advance(self._task)
        self._console.print(
            f"{result.method.name}, {rates_report.measure_words(result.result)}: {result.verdict}",
            highlight=False,
        )
