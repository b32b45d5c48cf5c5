"""Races: fairness, failures, interruptions, and what is written down."""

import csv
import dataclasses
import json
import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import tree_problem

from stochopt import catalog
from stochopt.experiments import plots, report
from stochopt.experiments.race import RaceResult, Sweep, decades, race
from stochopt.experiments.result import RunResult
from stochopt.problems import bilevel_quadratic, separable_composite


@pytest.fixture
def problem():
    built = tree_problem(lambda: jnp.full(3, 2.0))
    return dataclasses.replace(built, target=0.5, score="objective")


def methods(*names):
    return [catalog.find(name) for name in names]


def broken_method():
    """Builds fine and fails when it is traced."""

    def update(updates, state, params=None):
        raise RuntimeError("broken inside")

    factory = lambda learning_rate=0.1: optax.GradientTransformation(lambda p: (), update)
    return dataclasses.replace(catalog.find("sgd"), name="broken", factory=factory, defaults={})


def small_race(problem, names=("sgd", "smb"), **options):
    return race(problem, methods(*names), **{"num_steps": 10, "num_seeds": 2, **options})


def test_all_entries_share_starting_points(problem):
    result = small_race(problem)
    first, second = result.results
    np.testing.assert_array_equal(first.values[:, 0], second.values[:, 0])


def test_a_failing_method_does_not_stop_the_others(problem):
    result = race(problem, [broken_method(), *methods("sgd")], num_steps=4, num_seeds=1)
    failed, fine = result.entries
    assert failed.error == "RuntimeError: broken inside"
    assert failed.result is None
    assert fine.result.steps[-1] == 4
    rows = report.summarize(result)
    assert [row["status"] for row in rows] == ["RuntimeError: broken inside", "finished"]
    assert report.table(result).rows[0][1] == "-"


def test_an_interruption_keeps_what_was_measured_and_entries_stay_level(problem):
    def stop(entry, step):
        if entry.method.name == "smb" and step >= 5:
            raise KeyboardInterrupt

    result = small_race(problem, on_progress=stop, record_every=1)
    assert result.interrupted
    lengths = [run.steps[-1] for run in result.results]
    assert lengths == [5, 5]
    assert {row["status"] for row in report.summarize(result)} == {"interrupted"}


def test_divergence_is_a_row(problem):
    sweep = Sweep("learning_rate", (0.1, 1e12))
    result = small_race(problem, ("sgd",), sweep=sweep)
    good, bad = report.summarize(result)
    assert good["status"] == "finished"
    step = result.results[1].diverged_at
    assert bad["status"] == f"diverged at step {step.min()}"
    assert report.table(result).rows[1][1] == "not finite"


def test_a_lower_step_that_is_too_long_diverges():
    sweep = Sweep("lower_learning_rate", (0.05, 5.0))
    result = small_race(bilevel_quadratic(noise=0.0), ("bsvrb_v2",), sweep=sweep, num_steps=200)
    good, bad = report.summarize(result)
    assert good["status"] == "finished"
    assert bad["status"].startswith("diverged at step")


def test_counters_that_speak_against_a_run_are_in_its_row(tmp_path):
    problem = separable_composite(dimension=4, noise=0.0)
    sweep = Sweep("max_inner", (1, 1_000_000))
    result = small_race(problem, ("restart_free_sliding",), sweep=sweep, num_steps=10)
    short, whole = report.summarize(result)
    assert short["status"] == "finished; 10 inner loops cut short"
    loaded = RunResult.load(result.results[0].save(tmp_path / "short.npz"))
    assert loaded.warnings["num_truncated"].tolist() == [10] * loaded.num_seeds
    assert whole["status"] == "finished"
    sweep = Sweep("subgradient_bound", (1e-3, 1.0))  # the first is far below 2 w sqrt(d) = 0.2
    result = small_race(problem, ("gradient_sliding",), sweep=sweep, num_steps=2)
    low, enough = report.summarize(result)
    assert low["status"].endswith(" subgradients beyond their bound")
    assert enough["status"] == "finished"


def test_a_sweep_skips_methods_without_the_hyper_parameter(problem):
    result = small_race(problem, ("sgd", "polyak_sgd"), sweep=Sweep("learning_rate", (0.1, 0.2)))
    assert [dict(entry.hyperparams) for entry in result.entries] == [
        {"learning_rate": 0.1},
        {"learning_rate": 0.2},
        {},
    ]


def test_best_takes_the_lowest_median(problem):
    result = small_race(problem, ("sgd",), sweep=Sweep("learning_rate", (1e-4, 0.1, 1e-3)))
    (best,) = result.best()
    assert best.hyperparams == {"learning_rate": 0.1}


def result_with(rate, final):
    """A one-seed result that ends at ``final``."""
    values = np.array([[1.0, final]])
    return RunResult(
        problem="p",
        method="m",
        hyperparams={"learning_rate": rate},
        objective="loss",
        steps=np.array([0, 1]),
        num_gradients=np.array([[0, 1]]),
        metrics={"loss": values},
        diverged_at=np.zeros(1, int),
        seconds=np.array([0.0, 1.0]),
        compile_seconds=0.0,
    )


@pytest.mark.parametrize(
    ("finals", "width"),
    [
        ((0.0, 0.0, 0.0, 0.0), 3.0),
        ((0.9, 0.0, 0.0, np.nan), 1.0),
        ((0.0, 0.9, 0.0, 0.9), 0.0),  # lonely values have no width
        ((0.0, 0.0, 0.9, 0.0), 1.0),
        ((0.9, 0.9, 0.9, 0.9), 0.0),
    ],
)
def test_decades_are_the_width_between_neighbours_that_reach_the_target(finals, width):
    results = [result_with(10.0**k, final) for k, final in enumerate(finals)]
    assert decades(results[::-1], "learning_rate", 0.5) == pytest.approx(width)


def test_csv_holds_every_number(problem, tmp_path):
    result = small_race(problem, sweep=Sweep("learning_rate", (0.1, 0.2)), record_every=5)
    report.write_csv(result, tmp_path / "race.csv")
    with (tmp_path / "race.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 2 * 3  # entries x seeds x records
    measured = {
        (run.method, run.hyperparams["learning_rate"], seed, int(step)): run.values[seed, i]
        for run in result.results
        for seed in range(2)
        for i, step in enumerate(run.steps)
    }
    for row in rows:
        key = (row["optimizer"], float(row["learning_rate"]), int(row["seed"]), int(row["step"]))
        assert float(row["objective"]) == pytest.approx(measured.pop(key), rel=1e-6)
    assert not measured


def test_json_is_strict_and_complete(problem, tmp_path):
    result = small_race(problem, ("sgd",), sweep=Sweep("learning_rate", (0.1, 1e12)))
    report.write_json(result, tmp_path / "race.json")
    refuse = lambda name: pytest.fail(f"{name} is not JSON")
    content = json.loads((tmp_path / "race.json").read_text(), parse_constant=refuse)
    assert content["run"]["seed"] == 0
    assert set(content["run"]["versions"]) == {"stochopt", "jax", "jaxlib", "optax", "numpy"}
    assert content["summary"][1]["final"]["mean"] is None  # diverged
    assert len(content["curves"]) == 2


def test_times_are_relative_to_adam_where_it_races(problem):
    result = small_race(problem, ("sgd", "adam"))
    rows = report.summarize(result)
    assert rows[1]["relative_time"] == pytest.approx(1.0)
    assert "time / adam" in report.table(result).heads


def test_table_marks_the_best(problem):
    result = small_race(problem, ("sgd",), sweep=Sweep("learning_rate", (1e-4, 0.1)))
    assert (1, 1) in report.table(result).best


@pytest.mark.parametrize(
    ("hyperparams", "text"),
    [
        ({}, "smb"),
        ({"eta": 0.5, "adjust_every": 20}, "smb (eta=0.5, adjust_every=20)"),
        ({"group_fn": len, "adjust_every": None}, "smb (group_fn=len, adjust_every=None)"),
    ],
)
def test_labels_show_what_differs_from_the_defaults(hyperparams, text):
    assert report.label("smb", hyperparams) == text


def test_quartiles_survive_infinities():
    low, middle, high = report.quartiles(np.array([[1.0], [2.0], [np.inf], [3.0], [np.inf]]))
    assert (low[0], middle[0]) == (2.0, 3.0)
    assert math.isinf(high[0])


def test_pictures_show_every_method_in_its_colour(problem, tmp_path):
    result = small_race(problem, sweep=Sweep("learning_rate", (0.01, 0.1, 1e12)))
    figure = plots.race_figure(result)
    for ax in figure.axes:
        curves = [line for line in ax.get_lines() if not line.get_label().startswith("_")]
        assert [line.get_color() for line in curves] == [plots.color("sgd"), plots.color("smb")]
    spent = figure.axes[1].get_lines()[1].get_xdata()
    best = next(run for run in result.best() if run.method == "smb")
    np.testing.assert_array_equal(spent, np.median(best.num_gradients, axis=0))
    png, svg = plots.save(figure, tmp_path / "race")
    assert png.stat().st_size > 10_000
    assert svg.read_text().startswith("<?xml")

    (ax,) = plots.sweep_figure(result).axes
    curve = ax.get_lines()[0]
    np.testing.assert_allclose(curve.get_xdata(), [0.01, 0.1, 1e12])
    assert np.isfinite(curve.get_ydata()).all()  # what diverged stands at the rim


def test_methods_that_share_a_colour_differ_in_dashes():
    styles = plots._styles(["sgd", "sgd", "adam"])
    assert styles[0]["color"] == styles[1]["color"]
    assert styles[0]["linestyle"] != styles[1]["linestyle"]


def test_an_empty_race_has_no_rows_to_compare():
    empty = RaceResult(tree_problem(lambda: jnp.ones(1)), [], 1, 0, None, None, True)
    assert report.summarize(empty) == []
    assert report.table(empty).rows == []
