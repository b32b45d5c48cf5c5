"""What a check of rates says in rows: a table to read, CSV and JSON to keep."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stochopt.experiments import provenance
from stochopt.experiments.evidence import ClaimResult
from stochopt.experiments.fit import LEVEL
from stochopt.experiments.rates import RateResult
from stochopt.experiments.table import Table, words


def measure_words(result: RateResult) -> str:
    """The measure as a head: what is averaged, and over which part of a run."""
    return words(result.measure) + (", last quarter" if result.over == "tail" else "")


def table(results: Sequence[ClaimResult]) -> Table:
    """One row per claim. It holds no times, so that the same seeds give the same table."""
    heads = [
        "method",
        "theorem",
        "measure",
        "predicted",
        f"measured [{LEVEL:.0%}]",
        "limit",
        "control",
        "verdict",
    ]
    rows = [
        [
            r.method.name,
            f"{r.claim.theorem} ({r.claim.setting})",
            measure_words(r.result),
            ("= " if r.claim.two_sided else ">= ") + f"{r.claim.exponent:.3f}",
            _measured(r.result),
            f"{r.result.residual:.2%}",
            ("passes: " if r.control.holds else "fails: ")
            + f"{r.control.name}, {_measured(r.control)}",
            r.verdict,
        ]
        for r in results
    ]
    notes = [
        "p of O(N^-p), N gradient evaluations, each run with the constants for its length; "
        ">= from an upper bound, = from a closed form",
        "limit: gradient norm over the last quarter of the longest run, of its start",
    ]
    return Table(heads, rows, set(), notes, left={0, 1, 2, 6, 7})


def _measured(result: RateResult) -> str:
    if result.fit is None:
        return "-"
    return f"{result.fit.exponent:.3f} [{result.fit.low:.3f}, {result.fit.high:.3f}]"


def as_json(results: Sequence[ClaimResult]) -> dict[str, Any]:
    """The content of the JSON file; numbers that are not finite become ``None``."""
    rows = [
        {
            "method": r.method.name,
            "family": r.method.family,
            "setting": r.claim.setting,
            "theorem": r.claim.theorem,
            "holds": r.holds,
            "verdict": r.verdict,
            "result": _rate(r.result),
            "control": _rate(r.control),
        }
        for r in results
    ]
    return provenance.finite({"run": provenance.environment(), "claims": rows})


def _rate(result: RateResult) -> dict[str, Any]:
    fit = result.fit
    return {
        "name": result.name,
        "problem": result.problem,
        "measure": result.measure,
        "over": result.over,
        "predicted": result.exponent,
        "two_sided": result.two_sided,
        "measured": None if fit is None else {"p": fit.exponent, "low": fit.low, "high": fit.high},
        "residual": result.residual,
        "verdict": result.verdict,
        "horizons": result.horizons.tolist(),
        "gradients": result.costs.tolist(),
        "errors": result.errors.mean(axis=0).tolist() if len(result.errors) else [],
        "fitted": [] if fit is None else fit.used.tolist(),
        "seconds": result.seconds,
        "compile_seconds": result.compile_seconds,
    }


def write_json(results: Sequence[ClaimResult], path: Path) -> None:
    """Provenance, and for every claim the rates of the method and of its control."""
    path.write_text(json.dumps(as_json(results), indent=1, allow_nan=False), encoding="utf-8")


def write_csv(results: Sequence[ClaimResult], path: Path) -> None:
    """One row per claim, part (method or control), seed and horizon."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        what = ["method", "setting", "variant", "measure", "over"]
        writer.writerow([*what, "seed", "horizon", "gradients", "error"])
        for r in results:
            for part in (r.result, r.control):
                head = [r.method.name, r.claim.setting, part.name, part.measure, part.over]
                for seed, errors in enumerate(part.errors):
                    for row in zip(part.horizons, part.costs, errors, strict=True):
                        writer.writerow([*head, seed, *row])
