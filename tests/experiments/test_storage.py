"""Results and half-finished runs on disk: saved, loaded, resumed bit for bit, refused by name."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tree_problem

from stochopt import catalog, problems
from stochopt.experiments import Program, Run, RunResult, run


def small_run(method="scsc", num_steps=20, seed=0, **hyperparams):
    problem, row = problems.quadratic_composition(), catalog.find(method)
    program = Program(problem, row, 3, hyperparams)
    return Run(program, key=jax.random.key(seed), num_steps=num_steps, hyperparams=hyperparams)


def assert_same(a, b):
    """All that is not a time, bit for bit."""
    for field in dataclasses.fields(RunResult):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name not in ("seconds", "compile_seconds"):
            jax.tree.map(np.testing.assert_array_equal, x, y)


def test_a_result_is_saved_and_loaded(tmp_path):
    experiment = small_run(learning_rate=0.01, tracker_rate=catalog.inverse_sqrt(0.2, 10))
    list(experiment)
    saved = experiment.result
    loaded = RunResult.load(saved.save(tmp_path / "result.npz"))
    assert loaded.hyperparams["learning_rate"] == 0.01
    assert loaded.hyperparams["tracker_rate"] == "<lambda>"  # a function is kept by its name
    assert_same(dataclasses.replace(loaded, hyperparams=saved.hyperparams), saved)
    np.testing.assert_array_equal(loaded.seconds, saved.seconds)
    assert loaded.num_seeds == 3
    assert list(tmp_path.iterdir()) == [tmp_path / "result.npz"]


RESUME = """
import jax, sys
from stochopt import catalog, problems
from stochopt.experiments import run
run(problems.quadratic_composition(), catalog.find("scsc"), key=jax.random.key(0), num_steps=20,
    num_seeds=3, checkpoint=sys.argv[1]).save(sys.argv[2])
"""


def test_an_interrupted_run_resumes_bit_for_bit_in_another_process(tmp_path):
    whole = small_run()
    list(whole)
    half = small_run()
    for step in half:
        if step == 10:
            break
    half.save(tmp_path / "half.npz")
    paths = [tmp_path / "half.npz", tmp_path / "result.npz"]
    subprocess.run([sys.executable, "-W", "error", "-c", RESUME, *map(str, paths)], check=True)
    assert_same(RunResult.load(paths[1]), whole.result)
    # Here too the same experiment goes on from where it stopped.
    assert list(half) == list(range(11, 21))
    assert_same(half.result, whole.result)


def test_a_checkpoint_is_written_after_every_record(tmp_path, monkeypatch):
    path, arguments = tmp_path / "run.npz", {"key": jax.random.key(1), "num_steps": 12}
    problem, method = problems.cosine(), catalog.find("smb_independent")
    whole = run(problem, method, **arguments)
    save = Run.save

    def stop_at_five(self, path):
        save(self, path)
        if self._rows[-1][0] == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", stop_at_five)
    with pytest.raises(KeyboardInterrupt):
        run(problem, method, **arguments, checkpoint=path)
    monkeypatch.setattr(Run, "save", save)
    assert_same(run(problem, method, **arguments, checkpoint=path), whole)
    # Done: nothing is left to do, and the numbers are still there.
    assert_same(run(problem, method, **arguments, checkpoint=path), whole)


def test_narrow_parameters_survive_the_file(tmp_path):
    """NumPy's archives have no bfloat16."""
    problem = tree_problem(lambda: jnp.full(3, 2.0, jnp.bfloat16))
    program = Program(problem, catalog.find("adam"), 2)
    runs = [Run(program, key=jax.random.key(0), num_steps=6) for _ in range(2)]
    steps = iter(runs[0])
    assert [next(steps) for _ in range(3)] == [0, 1, 2]
    runs[1].load(runs[0].save(tmp_path / "run.npz"))
    assert list(runs[1]) == list(steps) == [3, 4, 5, 6]
    assert_same(runs[0].result, runs[1].result)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"num_steps": 30}, "num_steps 20 there, 30 here; records"),
        ({"seed": 1}, "key"),
        ({"learning_rate": 0.3}, "hyperparams {} there, {'learning_rate': 0.3} here"),
        ({"method": "sgd"}, "method scsc there, sgd here"),
    ],
)
def test_a_file_of_another_run_is_refused(tmp_path, other, named):
    experiment = small_run()
    list(experiment)
    experiment.save(tmp_path / "run.npz")
    with pytest.raises(ValueError, match=f"is of another run: {named}"):
        small_run(**other).load(tmp_path / "run.npz")


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 torn"])
def test_a_malformed_file_is_named(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    for load in (RunResult.load, small_run().load):
        with pytest.raises(ValueError, match=r"broken\.npz is not a file of stochopt"):
            load(path)


def test_a_missing_file_and_another_kind_of_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        RunResult.load(tmp_path / "nowhere.npz")
    experiment = small_run()
    list(experiment)
    with pytest.raises(ValueError, match="holds a half-finished run, not a result"):
        RunResult.load(experiment.save(tmp_path / "run.npz"))
    np.savez(tmp_path / "arrays.npz", x=np.ones(2))
    with pytest.raises(ValueError, match=r"arrays\.npz is not a file of stochopt"):
        RunResult.load(tmp_path / "arrays.npz")
