"""The command line: ``stochopt list``, ``stochopt race`` and ``stochopt rates``."""

import sys

try:
    import rich  # noqa: F401
    import typer
except ImportError:
    sys.exit("The command line needs an extra: pip install 'stochopt[experiments]'.")

from stochopt.cli.listing import list_methods
from stochopt.cli.race import race_command
from stochopt.cli.rates import rates_command

app = typer.Typer(
    help="Stochastic optimization in optax's shape: list methods, race them, check their rates.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("list")(list_methods)
app.command("race")(race_command)
app.command("rates")(rates_command)


def main() -> None:
    """Entry point of the ``stochopt`` command."""
    app()


if __name__ == "__main__":
    main()
