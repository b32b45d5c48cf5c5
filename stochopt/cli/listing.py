"""``stochopt list``."""

import inspect
import json
from typing import Annotated, Any

import rich.box
import rich.table
import typer

from stochopt import catalog
from stochopt.cli.console import make_console
from stochopt.problems import PROBLEMS


def list_methods(
    json_output: Annotated[bool, typer.Option("--json", help="Machine-readable rows.")] = False,
) -> None:
    """Lists methods with family, paper and the oracles they need, and the problems."""
    rows: list[dict[str, Any]] = [
        {
            "name": method.name,
            "family": method.family,
            "paper": method.paper,
            "oracles": list(method.oracles),
            "summary": method.summary,
        }
        for method in catalog.methods()
    ]
    if json_output:
        print(json.dumps(rows, indent=1))
        return
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True, min_width=max(len(row["name"]) for row in rows))
    for head in ("family", "oracles", "paper", "what it does"):
        table.add_column(head, no_wrap=True, overflow="ellipsis")
    for row in rows:
        oracles = ", ".join(row["oracles"])
        table.add_row(row["name"], row["family"], oracles, row["paper"], row["summary"])
    console = make_console()
    console.print(table)
    console.print("Any other optimizer of optax races by its path, such as contrib.dog.\n")
    console.print("Problems:")
    width = max(map(len, PROBLEMS))
    for name, factory in PROBLEMS.items():
        first_line = (inspect.getdoc(factory) or "").split("\n")[0]
        console.print(f"  {name:{width}}  {first_line}", highlight=False, no_wrap=True)
