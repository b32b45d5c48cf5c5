"""What the commands share: the console, tables, folders to write to, interruption."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text
import typer

from stochopt import catalog
from stochopt.experiments.table import Table


def make_console(*, stderr: bool = False) -> rich.console.Console:
    """The terminal, or a wide plain page where there is none."""
    console = rich.console.Console(stderr=stderr)
    if not console.is_terminal:  # a file has no width that a table must fit
        console.width = 200
    return console


def interrupt(signum: int, frame: Any) -> None:
    """A signal handler: treat the signal as Ctrl-C."""
    raise KeyboardInterrupt


def writable(folder: Path) -> Path:
    """The folder, made if need be; refused at once if nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise typer.BadParameter(
            f"cannot write to {folder}: {error.strerror}", param_hint="--out"
        ) from None
    return folder


def print_table(console: rich.console.Console, content: Table) -> None:
    """Prints a table with its notes, the best cells in bold."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for position, head in enumerate(content.heads):
        left = position in content.left
        table.add_column(head, justify="left" if left else "right", overflow="fold")
    for index, row in enumerate(content.rows):
        bold = ["bold" if (index, column) in content.best else "" for column in range(len(row))]
        table.add_row(*map(rich.text.Text, row, bold))
    console.print(table)
    for note in content.notes:
        console.print(note, style="dim", highlight=False)


def find_methods(names: Sequence[str], argument: str) -> list[catalog.Method]:
    """The rows of the catalog; an unknown name is refused with the nearest ones."""
    try:
        return [catalog.find(name.strip()) for name in dict.fromkeys(names)]
    except catalog.UnknownMethodError as error:
        raise typer.BadParameter(str(error), param_hint=argument) from None
