"""What a race says in rows: a table to read, CSV and JSON to keep."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from stochopt.experiments import provenance
from stochopt.experiments.race import Entry, RaceResult, decades
from stochopt.experiments.result import WARNINGS, RunResult
from stochopt.experiments.table import Table, words

#: The method that times and gradients are compared with, where it takes part.
REFERENCE = "adam"


def label(method: str, hyperparams: Any) -> str:
    """A method with the hyper-parameters that differ from the catalog's, as in a legend."""
    settings = ", ".join(f"{name}={_short(value)}" for name, value in hyperparams.items())
    return f"{method} ({settings})" if settings else method


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else getattr(value, "__name__", str(value))


def reference_seconds(race: RaceResult) -> tuple[str, float] | None:
    """Name and time per step of the entry that times are compared with."""
    by_method = race.by_method()
    if not by_method:
        return None
    name = REFERENCE if REFERENCE in by_method else next(iter(by_method))
    return name, float(np.median([r.seconds_per_step() for r in by_method[name]]))


def summarize(race: RaceResult) -> list[dict[str, Any]]:
    """One row per entry, with numbers; what was not measured is ``None``."""
    reference = reference_seconds(race)
    return [_summary(race, entry, reference) for entry in race.entries]


def _summary(race: RaceResult, entry: Entry, reference: tuple[str, float] | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "optimizer": entry.method.name,
        "hyperparams": dict(entry.hyperparams),
        "status": entry.error or "finished",
    }
    result = entry.result
    if result is None or reference is None:
        return row
    row["steps"] = int(result.steps[-1])
    row["status"] = entry.error or _status(race, result)
    row["final"] = _mean_and_spread(result.final())
    if race.problem.score is not None:
        row["score"] = _mean_and_spread(result.final(race.problem.score))
    row["gradients"] = _mean_and_spread(result.num_gradients[:, -1])
    row["seconds_per_step"] = result.seconds_per_step()
    row["relative_time"] = row["seconds_per_step"] / reference[1]
    row["compile_seconds"] = result.compile_seconds
    if race.target is not None:
        reached = result.steps_to(race.target)
        row["steps_to_target"] = float(np.median(reached))
        row["seeds_at_target"] = int(np.isfinite(reached).sum())
    return row


def _status(race: RaceResult, result: RunResult) -> str:
    diverged = result.diverged_at[result.diverged_at > 0]
    if len(diverged):
        share = "" if len(diverged) == result.num_seeds else f" ({len(diverged)} seeds)"
        return f"diverged at step {int(diverged.min())}{share}"
    end = "finished" if result.steps[-1] == race.num_steps else "interrupted"
    counted = {WARNINGS[name]: int(np.max(counts)) for name, counts in result.warnings.items()}
    return "; ".join([end, *(f"{count} {what}" for what, count in counted.items() if count)])


def _mean_and_spread(values: np.ndarray) -> dict[str, float]:
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        return {"mean": math.inf, "spread": math.inf}
    return {"mean": float(values.mean()), "spread": float(values.std(ddof=min(1, len(values) - 1)))}


def decades_by_method(race: RaceResult) -> dict[str, float]:
    """Method to the decades of the swept hyper-parameter that reach the target."""
    if race.sweep is None or race.target is None:
        return {}
    return {
        method: decades(results, race.sweep.name, race.target)
        for method, results in race.by_method().items()
        if race.sweep.name in results[0].hyperparams
    }


def table(race: RaceResult) -> Table:
    """The race as a table, entries in their order."""
    reference = reference_seconds(race)
    rows = summarize(race)
    score = race.problem.score
    heads = ["optimizer", f"final {words(race.problem.objective)}"]
    heads += [words(score)] if score else []
    heads += ["gradients", "time/step [µs]"]
    heads += [f"time / {reference[0]}"] if reference else []
    heads += [f"steps to {race.target:g}"] if race.target is not None else []
    heads += ["status"]

    body = []
    for row in rows:
        cells = [label(row["optimizer"], row["hyperparams"])]
        if "final" in row:
            cells.append(_plus_minus(row["final"], "{:.2e}", "{:.0e}"))
            if score:
                cells.append(_plus_minus(row["score"], "{:.4f}", "{:.4f}"))
            cells.append(f"{row['gradients']['mean']:.0f}")
            cells.append(f"{1e6 * row['seconds_per_step']:.0f}")
            cells.append(f"{row['relative_time']:.2f}x")
            if race.target is not None:
                cells.append(_steps_to_target(row, race))
        else:
            cells += ["-"] * (len(heads) - 2)
        body.append([*cells, row["status"]])
    left = {0, len(heads) - 1}
    return Table(heads, body, _best_cells(race, rows), _footnotes(race), left)


def _best_cells(race: RaceResult, rows: list[dict[str, Any]]) -> set[tuple[int, int]]:
    best = set()
    # An accuracy is better when larger, a loss when smaller.
    signs = {"final": 1.0, "score": -1.0 if "accuracy" in (race.problem.score or "") else 1.0}
    for column, (name, sign) in enumerate(signs.items(), start=1):
        measured = [
            (sign * row[name]["mean"], index) for index, row in enumerate(rows) if name in row
        ]
        if measured and math.isfinite(min(measured)[0]):
            best.add((min(measured)[1], column))
    return best


def _footnotes(race: RaceResult) -> list[str]:
    num_seeds = max((r.num_seeds for r in race.results), default=0)
    notes = [
        f"mean ± standard deviation over {num_seeds} seeds; median time of one update of one seed, "
        "compilation and metrics apart; gradients: evaluations spent on average"
    ]
    if race.target is not None:
        notes.append(f"steps to a {words(race.problem.objective)} of {race.target:g}: median")
    if (found := decades_by_method(race)) and race.sweep is not None:
        widths = ", ".join(f"{method} {width:.2f}" for method, width in found.items())
        notes.append(f"decades of {race.sweep.name} that reach it: {widths}")
    return notes


def _plus_minus(value: dict[str, float], form: str, spread_form: str) -> str:
    if not math.isfinite(value["mean"]):
        return "not finite"
    return f"{form.format(value['mean'])} ± {spread_form.format(value['spread'])}"


def _steps_to_target(row: dict[str, Any], race: RaceResult) -> str:
    reached, total = row["seeds_at_target"], len(race.results[0].diverged_at)
    steps = row["steps_to_target"]
    text = f"{steps:.0f}" if math.isfinite(steps) else "-"
    return text if reached in (0, total) else f"{text} ({reached} of {total})"


def write_csv(race: RaceResult, path: Path) -> None:
    """One row per entry, seed and record, with every metric."""
    names = sorted({name for result in race.results for name in result.metrics})
    settings = sorted({name for result in race.results for name in result.hyperparams})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["optimizer", *settings, "seed", "step", "num_gradients", *names])
        for result in race.results:
            chosen = [result.hyperparams.get(name, "") for name in settings]
            for seed in range(result.num_seeds):
                for record, step in enumerate(result.steps):
                    measured = [result.metrics[name][seed, record] for name in names]
                    spent = result.num_gradients[seed, record]
                    writer.writerow([result.method, *chosen, seed, step, spent, *measured])


def write_json(race: RaceResult, path: Path) -> None:
    """Provenance, one summary per entry and the curves over seeds."""
    path.write_text(json.dumps(as_json(race), indent=1, allow_nan=False), encoding="utf-8")


def as_json(race: RaceResult) -> dict[str, Any]:
    """The content of the JSON file; numbers that are not finite become ``None``."""
    content = {
        "run": {
            **provenance.environment(),
            "problem": race.problem.name,
            "seed": race.seed,
            "steps": race.num_steps,
        },
        "objective": race.problem.objective,
        "target": race.target,
        "interrupted": race.interrupted,
        "summary": summarize(race),
        "decades": decades_by_method(race),
        "curves": [_curve(result) for result in race.results],
    }
    return provenance.finite(content)


def _curve(result: RunResult) -> dict[str, Any]:
    low, middle, high = quartiles(result.values)
    return {
        "optimizer": result.method,
        "hyperparams": result.hyperparams,
        "steps": result.steps.tolist(),
        "num_gradients": np.median(result.num_gradients, axis=0).tolist(),
        "lower_quartile": low.tolist(),
        "median": middle.tolist(),
        "upper_quartile": high.tolist(),
    }


def quartiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower quartile, median and upper quartile over the leading axis of seeds."""
    # Linear interpolation between a number and infinity is not a number; the neighbour is.
    q = np.quantile(values, [0.25, 0.5, 0.75], axis=0, method="higher")
    return q[0], q[1], q[2]
