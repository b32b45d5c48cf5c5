"""The library proper is light: no experiment package comes with it."""

import subprocess
import sys

import pytest


def modules_after(statement):
    code = f"{statement}; import sys; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


def test_importing_stochopt_pulls_in_no_extra():
    loaded = modules_after("import stochopt")
    extras = {"flax", "matplotlib", "sklearn", "typer", "rich", "scipy.optimize"}
    assert "stochopt.orthogonal.adago" in loaded  # the list is the right one
    assert loaded & extras == set()
    assert not [name for name in loaded if name.startswith(("stochopt.problems", "stochopt.exp"))]


@pytest.mark.parametrize(
    ("missing", "statement"),
    [
        ("flax", "from stochopt import problems; problems.digits()"),
        ("flax", "from stochopt import problems; problems.friedman()"),
        ("flax", "from stochopt import problems; problems.text()"),
        ("sklearn", "from stochopt import problems; problems.digits()"),
        ("matplotlib", "import stochopt.experiments.plots"),
        ("typer", "import stochopt.cli"),
    ],
)
def test_a_missing_extra_is_named(missing, statement):
    code = f"import sys; sys.modules[{missing!r}] = None; {statement}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'stochopt[experiments]'" in done.stderr.splitlines()[-1]
