"""The command line: what it prints, writes and refuses."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from stochopt import catalog, cli
from stochopt.cli import race as race_module
from stochopt.problems import PROBLEMS

SMALL = ["quadratic-composition", "--optimizers", "scsc,sgd", "--steps", "20", "--seeds", "2"]


def invoke(*arguments):
    return CliRunner().invoke(cli.app, list(arguments))


def test_list_names_every_method_and_problem_on_one_line_each():
    lines = invoke("list").output.splitlines()
    for name in [method.name for method in catalog.methods()] + list(PROBLEMS):
        assert sum(line.split()[:1] == [name] for line in lines) == 1, name


def test_list_as_json():
    rows = json.loads(invoke("list", "--json").output)
    assert {"name", "family", "paper", "oracles", "summary"} == set(rows[0])


def test_race_writes_numbers_and_pictures(tmp_path):
    outcome = invoke("race", *SMALL, "--out", str(tmp_path / "new"))
    assert outcome.exit_code == 0, outcome.output
    written = {path.name for path in (tmp_path / "new").iterdir()}
    assert written == {"race.csv", "race.json", "race.png", "race.svg"}
    assert "final gap" in outcome.output


def test_race_with_a_sweep_as_json(tmp_path):
    arguments = ["--sweep", "learning_rate=0.001,0.01", "--out", str(tmp_path), "--json"]
    outcome = CliRunner().invoke(cli.app, ["race", *SMALL, *arguments])
    assert outcome.exit_code == 0, outcome.output
    content = json.loads(outcome.stdout)
    assert [row["hyperparams"]["learning_rate"] for row in content["summary"]] == [
        0.001,
        0.01,
        0.001,
        0.01,
    ]
    assert (tmp_path / "sweep.png").exists()


def test_race_on_a_file_of_examples(tmp_path):
    """Separable by the first feature, so a few steps lower the loss from log 2."""
    rng = np.random.default_rng(0)
    rows = [f"{sign:+.0f} 1:{sign * 2:.1f} 3:{x:.3f}" for sign in (-1, 1) for x in rng.random(32)]
    file = tmp_path / "examples.txt"
    file.write_text("\n".join(rows))
    options = ["--optimizers", "sgd,svrg", "--steps", "20", "--seeds", "1", "--json"]
    arguments = ["race", f"libsvm:{file}", *options, "--out", str(tmp_path / "out")]
    outcome = CliRunner().invoke(cli.app, arguments)
    assert outcome.exit_code == 0, outcome.output
    content = json.loads(outcome.stdout)
    assert content["run"]["problem"] == "libsvm-examples"
    assert all(row["final"]["mean"] < 0.2 for row in content["summary"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["race", "digts"], ["digits", "digts"]),
        (["race", "libsvm:nowhere.txt"], ["nowhere.txt", "LIBSVM"]),
        (["race", "libsvm:/dev/null"], ["/dev/null"]),
        (["race", "digits", "--optimizers", "adam,adagoo"], ["adagoo", "adago"]),
        (["race", "digits", "--optimizers", "scsc"], ["inner", "outer"]),
        (["race", *SMALL, "--sweep", "learning_rat=1"], ["learning_rat", "learning_rate"]),
        (["race", *SMALL, "--sweep", "learning_rate=fast"], ["NAME=V1,V2"]),
        (["race", *SMALL, "--sweep", "learning_rate"], ["NAME=V1,V2"]),
        (["race", *SMALL, "--sweep", "learning_rate=-1"], ["learning_rate", "[0, inf)"]),
        (["race", *SMALL, "--steps", "0"], ["--steps"]),
        (["race", *SMALL, "--seeds", "0"], ["--seeds"]),
        (["race", *SMALL, "--out", "/proc/nowhere"], ["--out", "/proc/nowhere"]),
        (["race", "digits", "--optimizers", "rmsprop"], ["rmsprop", "learning_rate"]),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_bad_input_is_refused_before_the_race(arguments, said, monkeypatch):
    monkeypatch.setattr(race_module, "race", lambda *a, **k: pytest.fail("the race started"))
    outcome = invoke(*arguments)
    assert outcome.exit_code == 2
    flat = " ".join(outcome.output.replace("│", " ").split())
    for text in said:
        assert text in flat


def test_an_interrupted_race_keeps_its_numbers(tmp_path, monkeypatch):
    whole = race_module.race

    def interrupted(*arguments, on_progress, **options):
        def stop(entry, step):
            if step >= 10:
                raise KeyboardInterrupt
            on_progress(entry, step)

        return whole(*arguments, on_progress=stop, **options)

    monkeypatch.setattr(race_module, "race", interrupted)
    outcome = invoke("race", *SMALL, "--out", str(tmp_path))
    assert outcome.exit_code == 130
    assert "interrupted" in outcome.output
    assert (tmp_path / "race.csv").read_text().count("\n") > 2
    assert (tmp_path / "race.png").exists()


def test_a_failing_picture_loses_no_numbers(tmp_path, monkeypatch):
    from stochopt.experiments import plots

    def fail(*arguments):
        raise RuntimeError("no picture today")

    monkeypatch.setattr(plots, "race_figure", fail)
    outcome = invoke("race", *SMALL, "--out", str(tmp_path))
    assert outcome.exit_code != 0
    assert (tmp_path / "race.csv").exists()
    assert json.loads((tmp_path / "race.json").read_text())["summary"]
