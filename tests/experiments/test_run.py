"""The compiled runner against a plain loop, and what it does when things go wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import for_each_method, make_step, tree_problem, with_smoothness

from stochopt import catalog, problems
from stochopt.experiments import Program, Run, run


def vector_problem():
    return tree_problem(lambda: {"w": jnp.full((2, 2), 3.0), "b": jnp.zeros(3)})


def plain_loop(problem, method, key, num_steps, num_seeds, **hyperparams):
    """What the runner must compute: final parameters of each seed, step by step in Python."""
    optimizer = method.make(problem, **hyperparams)
    step = jax.jit(make_step(problem, method, optimizer))
    start_keys, sample_keys = (jax.random.split(k, num_seeds) for k in jax.random.split(key))
    finals = []
    for start_key, sample_key in zip(start_keys, sample_keys, strict=True):
        params = problem.init(start_key)
        state = optimizer.init(params)
        for t in range(num_steps):
            batch = problem.sample(jax.random.fold_in(sample_key, t))
            own_key = jax.random.fold_in(sample_key, 2**31 + t)  # of a second draw
            updates, state = step(params, state, batch, own_key)
            params = optax.apply_updates(params, updates)
        finals.append(method.eval_params(state, params))
    return finals


@for_each_method
def test_the_runner_equals_a_plain_loop(method):
    problem, key = vector_problem(), jax.random.key(3)
    method = with_smoothness(method, 100.0)  # neither unstable nor already at zero
    result = run(problem, method, key=key, num_steps=12, num_seeds=2, record_every=5)
    finals = plain_loop(problem, method, key, 12, 2)
    expected = [problem.metrics(params)["objective"] for params in finals]
    np.testing.assert_allclose(result.final(), expected, rtol=1e-5)
    assert result.steps.tolist() == [0, 5, 10, 12]


def test_the_point_to_evaluate_is_the_methods_own():
    """Catches a runner that measures the query point of an averaging method."""
    problem, key = vector_problem(), jax.random.key(0)
    method = catalog.find("contrib.schedule_free_adamw")
    result = run(problem, method, key=key, num_steps=10, learning_rate=0.1)
    (final,) = plain_loop(problem, method, key, 10, 1, learning_rate=0.1)
    np.testing.assert_allclose(result.final()[0], problem.metrics(final)["objective"], rtol=1e-5)
    unaveraged = dataclasses.replace(method, eval_params=lambda state, params: params)
    wrong = run(problem, unaveraged, key=key, num_steps=10, learning_rate=0.1)
    assert abs(wrong.final()[0] - result.final()[0]) > 1e-3


def test_records_do_not_change_the_numbers():
    problem, method = problems.quadratic_composition(), catalog.find("scsc")
    program = Program(problem, method, num_seeds=3)
    finals = []
    for record_every in (1, 7, 30):
        experiment = Run(program, key=jax.random.key(1), num_steps=30, record_every=record_every)
        assert list(experiment)[-1] == 30
        finals.append(experiment.result.final())
    np.testing.assert_array_equal(finals[0], finals[1])
    np.testing.assert_array_equal(finals[0], finals[2])


def test_seeds_are_independent_and_reproducible():
    problem, method = problems.quadratic_composition(), catalog.find("scsc")
    first = run(problem, method, key=jax.random.key(1), num_steps=20, num_seeds=4)
    again = run(problem, method, key=jax.random.key(1), num_steps=20, num_seeds=4)
    np.testing.assert_array_equal(first.values, again.values)
    assert len(set(first.final().tolist())) == 4


@pytest.mark.parametrize("name", ["smb", "sgd"])
def test_vmap_and_map_over_seeds_agree(name):
    problem, method = vector_problem(), catalog.find(name)
    finals = [
        run(
            problem,
            dataclasses.replace(method, seeds=seeds),
            key=jax.random.key(0),
            num_steps=6,
            num_seeds=3,
        ).final()
        for seeds in ("vmap", "map")
    ]
    np.testing.assert_allclose(finals[0], finals[1], rtol=1e-5)


def test_gradients_are_counted_by_the_state_or_one_a_step():
    problem = vector_problem()
    by_step = run(problem, catalog.find("sgd"), key=jax.random.key(0), num_steps=6, num_seeds=2)
    np.testing.assert_array_equal(by_step.num_gradients, [by_step.steps] * 2)
    # Far too long a step: every trial is rejected and costs a second gradient.
    rejected = run(
        problem, catalog.find("smb"), key=jax.random.key(0), num_steps=6, learning_rate=1.0
    )
    np.testing.assert_array_equal(rejected.num_gradients, [2 * rejected.steps])


def test_divergence_is_dated_to_the_step():
    problem, key = vector_problem(), jax.random.key(0)
    result = run(problem, catalog.find("sgd"), key=key, num_steps=40, learning_rate=1e4)
    method = catalog.find("sgd")
    first = next(
        n
        for n in range(1, 41)
        if not np.isfinite(
            float(optax.tree.norm(plain_loop(problem, method, key, n, 1, learning_rate=1e4)[0]))
        )
    )
    assert result.diverged_at.tolist() == [first]
    assert np.isinf(result.final()[0])


def test_a_sweep_over_floats_compiles_once():
    traces = []

    def objective(params):
        traces.append(None)
        return jnp.sum(params**2)

    problem = tree_problem(lambda: jnp.ones(2), objective)
    program = Program(problem, catalog.find("sgd"), 1, {"learning_rate": 0.1})
    before, finals = len(traces), []
    for rate in (0.1, 0.2, 0.3):
        settings = {"learning_rate": rate}
        experiment = Run(program, key=jax.random.key(0), num_steps=3, hyperparams=settings)
        assert list(experiment)
        finals.append(experiment.result.final()[0])
    assert len(traces) == before
    assert finals[0] > finals[1] > finals[2]


def test_steps_to_a_target_is_the_first_record_that_reaches_it():
    problem = vector_problem()
    result = run(
        problem,
        catalog.find("sgd"),
        key=jax.random.key(0),
        num_steps=30,
        num_seeds=2,
        record_every=3,
    )
    reached = result.steps_to(1.0)
    for seed in range(2):
        position = int(np.flatnonzero(result.steps == reached[seed])[0])
        assert result.values[seed, position] <= 1.0 < result.values[seed, position - 1]
    assert np.isinf(result.steps_to(-1.0)).all()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"num_steps": 0}, "num_steps"),
        ({"record_every": 0}, "record_every"),
        ({"record_every": [2, 6]}, "record_every"),
        ({"num_seeds": 0}, "num_seeds"),
    ],
)
def test_bad_lengths_name_the_argument(arguments, name):
    with pytest.raises(ValueError, match=name):
        run(
            vector_problem(),
            catalog.find("sgd"),
            key=jax.random.key(0),
            **{"num_steps": 5, **arguments},
        )


def test_records_where_they_are_asked_for():
    result = run(
        vector_problem(),
        catalog.find("sgd"),
        key=jax.random.key(0),
        num_steps=9,
        record_every=(7, 2, 2),
    )
    assert result.steps.tolist() == [0, 2, 7, 9]


def test_sums_are_over_the_updates_since_the_record_before():
    """Catches sums from the start, and sums taken after instead of before the update."""
    problem, method = vector_problem(), catalog.find("sgd")
    each = lambda point, params, state: {"b": jnp.sum(point["b"]), "one": jnp.ones([])}
    program = Program(problem, method, 2, each_update=each)
    experiment = Run(program, key=jax.random.key(0), num_steps=5, record_every=[3])
    assert list(experiment) == [0, 3, 5]
    sums = experiment.result.sums
    np.testing.assert_array_equal(sums["one"], [[0, 3, 2]] * 2)
    finals = [plain_loop(problem, method, jax.random.key(0), n, 2)[1] for n in range(5)]
    at = [np.sum(params["b"]) for params in finals]
    np.testing.assert_allclose(sums["b"][1], [0, sum(at[:3]), sum(at[3:])], rtol=1e-6)
