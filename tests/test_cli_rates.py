"""``stochopt rates``: every claim of the catalog, what is written, repeated, refused."""

import json

import pytest
from typer.testing import CliRunner

from stochopt import catalog, cli
from stochopt.cli import rates as rates_module
from stochopt.experiments import plots

pytestmark = pytest.mark.first  # the fixture below takes minutes


def invoke(*arguments):
    return CliRunner().invoke(cli.app, ["rates", *arguments])


# Half the seeds of the command's own: intervals are wider, limits are the same.
QUICK = ("--quick", "--seeds", "16")


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The whole command, once."""
    folder = tmp_path_factory.mktemp("rates")
    return invoke(*QUICK, "--out", str(folder)), folder


def claims_in(folder):
    return json.loads((folder / "rates.json").read_text())["claims"]


def without_times(rows):
    for row in rows:
        for part in ("result", "control"):
            del row[part]["seconds"], row[part]["compile_seconds"]
    return rows


def test_every_claim_holds_and_every_control_fails(quick):
    outcome, folder = quick
    rows = claims_in(folder)
    assert len(rows) == sum(len(method.claims) for method in catalog.methods())
    assert {row["method"] for row in rows} >= {method.name for method in catalog.METHODS}
    for row in rows:
        assert row["verdict"] == "holds", (row["method"], row["setting"], row["verdict"])
        assert row["control"]["verdict"] != "holds", (row["method"], row["control"]["name"])
        measured, predicted = row["result"]["measured"], row["result"]["predicted"]
        assert measured["high"] >= predicted
        assert measured["low"] <= measured["p"] <= measured["high"]
    assert outcome.exit_code == 0, outcome.output


def test_one_picture_for_each_family(quick):
    outcome, folder = quick
    families = {row["family"].replace(" ", "-") for row in claims_in(folder)}
    pictures = {path.stem for path in folder.glob("*.svg")}
    assert pictures == {f"rates-{family}" for family in families}
    assert {path.stem for path in folder.glob("*.png")} == pictures
    for path in folder.iterdir():
        assert str(path) in outcome.output.replace("\n", "")


def test_a_second_run_gives_the_same_table_digit_for_digit(quick, tmp_path):
    outcome, folder = quick
    again = invoke("sgd", "smb", *QUICK, "--out", str(tmp_path))
    names = ("sgd", "smb")
    first = [row for row in without_times(claims_in(folder)) if row["method"] in names]
    second = without_times(claims_in(tmp_path))
    in_order = lambda rows: sorted(rows, key=lambda row: (row["method"], row["setting"]))
    assert in_order(second) == in_order(first)
    numbers = [f"{row['result']['measured']['p']:.3f} [" for row in second]
    for number in numbers:
        assert number in outcome.output
        assert number in again.output


def test_another_seed_gives_other_numbers(tmp_path):
    for seed in ("0", "1"):
        arguments = ["smb_independent", "--quick", "--seeds", "2", "--seed", seed]
        invoke(*arguments, "--out", str(tmp_path / seed))
    a, b = (claims_in(tmp_path / seed)[0]["result"]["errors"] for seed in ("0", "1"))
    assert all(x != y for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["adagoo"], ["adagoo", "adago"]),
        (["adam"], ["no rate is claimed of adam", "sgd"]),
        (["sgd", "--seeds", "1"], ["--seeds"]),
        (["sgd", "--out", "/proc/nowhere"], ["--out", "/proc/nowhere"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_bad_input_is_refused_before_anything_runs(arguments, said, monkeypatch):
    monkeypatch.setattr(rates_module, "check_claims", lambda *a, **k: pytest.fail("it ran"))
    outcome = invoke(*arguments)
    assert outcome.exit_code == 2
    flat = " ".join(outcome.output.replace("│", " ").split())
    for text in said:
        assert text in flat


@pytest.fixture
def only_first_claim(monkeypatch):
    """``sgd`` with one claim on a short ladder, which is too short to hold."""
    import dataclasses

    sgd = catalog.find("sgd")
    claim = dataclasses.replace(sgd.claims[0], horizons=(16, 32, 64, 128, 256, 512))
    short = dataclasses.replace(sgd, claims=(claim, claim))
    monkeypatch.setattr(rates_module, "find_methods", lambda names, argument: [short])


def test_a_claim_that_fails_is_said_and_fails_the_command(only_first_claim, tmp_path):
    outcome = invoke("sgd", "--seeds", "2", "--out", str(tmp_path), "--json")
    assert outcome.exit_code == 1
    row = json.loads(outcome.stdout)["claims"][0]
    assert row["verdict"].startswith("optimum not reached: ")
    assert row["verdict"] in " ".join(outcome.stderr.split())


def test_an_interrupted_check_keeps_its_numbers(only_first_claim, tmp_path, monkeypatch):
    whole = rates_module.check_claims

    def interrupted(methods, *, on_result, **options):
        def stop(result):
            on_result(result)
            raise KeyboardInterrupt

        return whole(methods, on_result=stop, **options)

    monkeypatch.setattr(rates_module, "check_claims", interrupted)
    outcome = invoke("sgd", "--seeds", "2", "--out", str(tmp_path))
    assert outcome.exit_code == 130
    assert len(claims_in(tmp_path)) == 1


def test_a_failing_picture_loses_no_numbers(only_first_claim, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no picture today")

    monkeypatch.setattr(plots, "rates_figure", fail)
    outcome = invoke("sgd", "--seeds", "2", "--out", str(tmp_path))
    assert outcome.exit_code != 0
    assert len(claims_in(tmp_path)) == 2
    assert (tmp_path / "rates.csv").read_text().count("\n") == 1 + 2 * 2 * 2 * 6
