"""Messages of bad hyper-parameters and missing arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stochopt import _checks

INTERVALS = {
    "[0, 1)": ([0, 0.5, np.nextafter(1, 0)], [1, -1e-9, 2, float("inf"), float("nan")]),
    "(0, 1]": ([1e-9, 1, 1.0], [0, 1.1, -1]),
    "(0, 1)": ([0.5, 1e-12], [0, 1]),
    "[0, 1]": ([0, 1], [-0.1, 1.1]),
    "[0, inf)": ([0, 1e300], [-1e-300, float("inf"), float("nan")]),
    "(0, inf)": ([1e-300], [0, float("inf")]),
    "[-2, 3]": ([-2, 3, 0], [-2.1, 3.1]),
}


@pytest.mark.parametrize(
    ("interval", "value"), [(i, v) for i, (good, _) in INTERVALS.items() for v in good]
)
@pytest.mark.parametrize("wrap", [float, np.float64, np.array, lambda v: np.array([0.5, v])])
def test_values_inside_pass(interval, value, wrap):
    _checks.check_range("rate", wrap(value), interval)


@pytest.mark.parametrize(
    ("interval", "value"), [(i, v) for i, (_, bad) in INTERVALS.items() for v in bad]
)
@pytest.mark.parametrize("wrap", [float, np.float64, lambda v: np.array([0.5, v])])
def test_values_outside_are_named_with_their_range(interval, value, wrap):
    with pytest.raises(ValueError, match="must lie in") as error:
        _checks.check_range("some_rate", wrap(value), interval)
    assert str(error.value) == f"some_rate must lie in {interval}, got {wrap(value)}."


def test_device_arrays_are_checked():
    _checks.check_range("rate", jnp.asarray(0.5), "(0, 1)")
    with pytest.raises(ValueError, match=r"rate must lie in \(0, 1\)"):
        _checks.check_range("rate", jnp.asarray(1.5), "(0, 1)")


def test_traced_values_and_schedules_pass():
    _checks.check_range("rate", lambda count: -1.0, "(0, 1)")
    jax.jit(lambda v: _checks.check_range("rate", v, "(0, 1)"))(5.0)
    jax.vmap(lambda v: _checks.check_range("rate", v, "(0, 1)"))(jnp.ones(2))
    jax.jit(lambda v: _checks.check_count("period", v))(0)


@pytest.mark.parametrize("value", [1, 7, np.int64(3), np.array(2), np.array([1, 2])])
def test_counts_pass(value):
    _checks.check_count("period", value)


@pytest.mark.parametrize("value", [0, -3, 2.0, True, np.array([1, 0]), "3"])
def test_bad_counts_are_named(value):
    with pytest.raises(ValueError, match="period must be a whole number of at least 1, got"):
        _checks.check_count("period", value)


def test_missing_params():
    _checks.require_params("method", {})
    with pytest.raises(ValueError, match=r"^method: .*params are missing"):
        _checks.require_params("method", None)


def test_missing_extra():
    _checks.require_extra("method", "batch", 0, "batch=batch")
    with pytest.raises(TypeError) as error:
        _checks.require_extra("method", "batch", None, "batch=my_batch")
    assert str(error.value) == (
        "method: update() needs the keyword argument 'batch'; "
        "call update(grads, state, params, batch=my_batch)."
    )


@pytest.mark.parametrize("params", [optax.MaskedNode(), {"a": 1.0, "b": [optax.MaskedNode(), 2.0]}])
def test_masked_trees(params):
    with pytest.raises(TypeError, match=r"^method .*whole params"):
        _checks.require_whole_tree("method", params)


def test_whole_trees_pass():
    _checks.require_whole_tree("method", {"a": 1.0, "b": None, "c": ()})


def test_oracles_of_another_arity_are_named():
    for oracle in (lambda x, step: x, lambda *arguments: 0, jax.jit(lambda x, step, more=1: x)):
        _checks.check_arguments("prox", oracle, "params, step")
    for oracle in (lambda x: x, lambda x, step, more: x, lambda *, params, step: params, 3):
        with pytest.raises(TypeError, match=r"^prox must be a function prox\(params, step\): "):
            _checks.check_arguments("prox", oracle, "params, step")
