"""What every method promises about its state: one test per rule, run for every row of the catalog.

The rules themselves are in ``state_checks.py``; ``test_state_checks.py`` feeds each of them a
transformation that breaks it.

The names of all state fields are public, because checkpoints are keyed by them. After a deliberate
change, write them anew with

    PYTHONPATH=tests python tests/acceptance/test_state_rules.py > fields.json
    mv fields.json tests/acceptance/state_fields.json
"""

import contextlib
import functools
import inspect
import io
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import (
    for_each_method,
    hyperparam_factory,
    needs_whole_params,
    required_extras,
    tree_problem,
)
from state_checks import (
    DTYPES,
    SEEDS,
    Case,
    assert_close,
    check_arrays_only,
    check_counters,
    check_counters_saturate,
    check_donation,
    check_never_traces_again,
    check_no_shared_buffers,
    check_plain_nodes,
    check_same_types,
    check_sharding_follows,
    check_wide_scalars,
    counting_objective,
    sharded_params,
    small_params,
)

from stochopt import catalog, orthogonal
from stochopt.experiments import gradient_and_extras

STATE_FIELDS = pathlib.Path(__file__).with_name("state_fields.json")


# The rules, for every method.


@for_each_method
def test_the_state_is_a_tree_of_arrays(method):
    case = Case(method)
    fresh = case.init()
    _, updated = jax.jit(case.step)(case.params, fresh, case.batch)
    for state in (fresh, updated):
        check_arrays_only(state)
        check_plain_nodes(state, case.params)
        check_counters(state)


@for_each_method
def test_counters_saturate(method):
    case = Case(method)
    step = jax.jit(case.step)
    check_counters_saturate(case.init(), lambda state: step(case.params, state, case.batch)[1])


@for_each_method
@DTYPES
def test_update_preserves_types(method, make_params):
    case = Case(method, make_params)
    state = jax.eval_shape(case.init)
    check_wide_scalars(state)
    updates, new = jax.eval_shape(case.step, case.params, state, case.batch)
    check_same_types(state, new)
    check_same_types(case.params, updates)


@for_each_method
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=["bfloat16", "float16"])
def test_a_narrow_value_does_not_change_types(method, dtype):
    case = Case(method)

    def step(params, state):
        grad, extras = gradient_and_extras(case.problem, method, params, case.batch)
        extras = {k: v.astype(dtype) if k == "value" else v for k, v in extras.items()}
        return case.optimizer.update(grad, state, params, **extras)

    state = jax.eval_shape(case.init)
    updates, new = jax.eval_shape(step, case.params, state)
    check_same_types(state, new)
    check_same_types(case.params, updates)


@for_each_method
def test_eager_and_compiled_updates_agree_in_types_and_numbers(method):
    case = Case(method)
    state = case.init()
    eager = case.step(case.params, state, case.batch)
    compiled = jax.jit(case.step)(case.params, state, case.batch)
    check_same_types(state, eager[1])
    check_same_types(eager, compiled)
    assert_close(eager, compiled)
    check_no_shared_buffers(eager[1], case.params)


@for_each_method
def test_init_on_abstract_leaves(method):
    case = Case(method)
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), case.params)
    assert shapes(case.optimizer.init(abstract)) == shapes(case.init())


@for_each_method
def test_init_under_jit_and_vmap(method):
    case = Case(method)
    state = case.init()
    compiled = jax.jit(case.optimizer.init)(case.params)
    check_same_types(state, compiled)
    assert_close(compiled, state, rtol=0)
    stacked = jax.tree.map(lambda x: jnp.stack([x] * SEEDS), case.params)
    batched = jax.vmap(case.optimizer.init)(stacked)
    assert_close(batched, jax.tree.map(lambda x: jnp.stack([x] * SEEDS), state), rtol=0)


@for_each_method
def test_init_shares_no_buffer(method):
    case = Case(method)
    check_no_shared_buffers(case.init(), case.params)


@for_each_method
def test_donation_after_an_eager_init_and_an_eager_update(method):
    check_donation(Case(method))


@for_each_method
def test_none_leaves(method):
    case = Case(method, lambda: {**small_params(), "frozen": None})
    updates, state = jax.jit(case.step)(case.params, case.init(), case.batch)
    assert updates["frozen"] is None
    check_arrays_only(state)
    without = Case(method)
    expected, _ = jax.jit(without.step)(without.params, without.init(), without.batch)
    assert_close({k: v for k, v in updates.items() if k != "frozen"}, expected)


@for_each_method
def test_inside_masked(method):
    # As real losses do, the objective looks parameters up by name: it needs the whole tree.
    objective = lambda p: jnp.sum((p["matrix"] - 1.0) ** 2) + jnp.sum((p["vector"] - 1.0) ** 2)
    case = Case(method, objective=objective)
    masked = Case(
        method,
        objective=objective,
        optimizer=optax.masked(case.optimizer, {"matrix": True, "vector": False}),
    )
    state = masked.init()
    check_arrays_only(state)
    if needs_whole_params(method):
        with pytest.raises(TypeError, match=r"optax\.masked"):
            masked.step(masked.params, state, masked.batch)
    else:
        updates, new = masked.step(masked.params, state, masked.batch)
        check_same_types(state, new)
        alone = Case(method, lambda: {"matrix": small_params()["matrix"]})
        expected, _ = alone.step(alone.params, alone.init(), alone.batch)
        assert_close(updates["matrix"], expected["matrix"])
        gradient, _ = gradient_and_extras(masked.problem, method, masked.params, masked.batch)
        assert_close(updates["vector"], gradient["vector"])


@for_each_method
def test_no_second_trace(method):
    objective, calls = counting_objective()
    case = Case(method, objective=objective)
    check_never_traces_again(case, calls, lambda state: state)


def float_hyperparams(method):
    """Hyper-parameters that are a float in the catalog, or else by the factory's own default."""
    parameters = inspect.signature(method.factory).parameters
    floats = {}
    for name, value in method.hyperparams.items():
        candidates = [v for v in (value, parameters[name].default) if isinstance(v, float)]
        floats |= dict.fromkeys([name], candidates[0]) if candidates else {}
    assert floats, "nothing to change"
    return floats


@for_each_method
def test_no_second_trace_when_hyperparameters_change(method):
    objective, calls = counting_objective()
    factory = hyperparam_factory(tree_problem(small_params, objective), method)
    floats = float_hyperparams(method)
    static = set(method.hyperparams) - set(floats)
    optimizer = optax.inject_hyperparams(factory, static_args=static)(**floats)
    case = Case(method, objective=objective, optimizer=optimizer)
    assert set(case.init().hyperparams) == set(floats)

    def changed(state):
        halved = {name: 0.5 * value for name, value in state.hyperparams.items()}
        return state._replace(hyperparams=halved)

    check_never_traces_again(case, calls, changed)
    step = jax.jit(case.step)
    full, _ = step(case.params, case.init(), case.batch)
    half, _ = step(case.params, changed(case.init()), case.batch)
    assert not np.allclose(full["vector"], half["vector"], rtol=1e-3), "nothing depends on them"


@for_each_method
def test_seeds_under_vmap_equal_a_loop(method):
    case = Case(method)
    factors = jnp.linspace(0.5, 1.5, SEEDS)
    params = jax.tree.map(lambda x: jnp.stack([f * x for f in factors]), case.params)

    def two_steps(params, batch):
        carry = params, case.optimizer.init(params)
        for _ in range(2):
            carry = case.advance(*carry, batch)
        return carry

    batched = jax.jit(jax.vmap(two_steps))(params, factors)
    single = jax.jit(two_steps)
    for i in range(SEEDS):
        one = lambda tree, i=i: jax.tree.map(lambda x: x[i], tree)
        assert_close(one(batched), single(one(params), factors[i]))


@for_each_method
def test_scan_equals_a_loop(method):
    case = Case(method)
    batches = jnp.linspace(0.8, 1.2, 4)
    body = lambda carry, batch: (case.advance(*carry, batch), None)
    scanned, _ = jax.jit(lambda carry: jax.lax.scan(body, carry, batches))(
        (case.params, case.init())
    )
    advance, carry = jax.jit(case.advance), (case.params, case.init())
    for batch in batches:
        carry = advance(*carry, batch)
    assert_close(scanned, carry)


@for_each_method
def test_unknown_extra_arguments_are_swallowed(method):
    case = Case(method)
    assert inspect.signature(case.optimizer.update).parameters, "update takes no arguments"

    def step(params, state, **unknown):
        grad, extras = gradient_and_extras(case.problem, method, params, case.batch)
        return case.optimizer.update(grad, state, params, **extras, **unknown)

    state = case.init()
    expected = jax.eval_shape(step, case.params, state)
    got = jax.eval_shape(lambda p, s: step(p, s, nobody_expects_this=object()), case.params, state)
    check_same_types(expected, got)


@for_each_method
def test_missing_extra_arguments_are_named(method):
    required = required_extras(method)
    for name, message in required.items():
        assert f"'{name}'" in message
        assert f"{name}=" in message, "the message does not say what to pass"
    if method.gradient_of is None:
        assert required, "an estimator that needs nothing estimates nothing"
    case = Case(method)
    call = lambda: case.optimizer.update(case.params, case.init(), case.params)
    with pytest.raises(TypeError) if required else contextlib.nullcontext():
        jax.eval_shape(call)


@for_each_method
def test_missing_params_are_named(method):
    case = Case(method)

    def without_params():
        grad, extras = gradient_and_extras(case.problem, method, case.params, case.batch)
        return case.optimizer.update(grad, case.init(), **extras)

    try:
        jax.eval_shape(without_params)
    except ValueError as error:
        message = str(error)
    else:
        return  # it does without them
    assert "params" in message


@for_each_method
def test_a_checkpoint_goes_on_bit_for_bit(method):
    case = Case(method)
    advance = jax.jit(case.advance)
    params, state = advance(*advance(case.params, case.init(), case.batch), case.batch)

    named = jax.tree_util.tree_leaves_with_path((params, state))
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in named}
    assert len(arrays) == len(named)
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)

    shape = jax.eval_shape(lambda: (case.params, case.init()))
    with np.load(file) as saved:
        restored = jax.tree_util.tree_map_with_path(
            lambda path, _: saved[jax.tree_util.keystr(path)], shape
        )
    expected = advance(params, state, case.batch)
    resumed = advance(*restored, case.batch)
    for x, y in zip(jax.tree.leaves(resumed), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(x, y)


# Meshes.


@for_each_method
@pytest.mark.parametrize("mesh_axes", ["default", "auto"])
def test_sharding_follows_the_parameters(method, mesh_axes):
    options = {"auto": {"axis_types": (jax.sharding.AxisType.Auto,) * 2}}.get(mesh_axes, {})
    mesh = jax.make_mesh((4, 2), ("x", "y"), **options)
    single = Case(method, lambda: sharded_params(None))
    expected = single.params, single.init()
    advance = jax.jit(single.advance)
    for _ in range(2):
        expected = advance(*expected, single.batch)

    with jax.set_mesh(mesh):
        case = Case(method, lambda: sharded_params(mesh))
        state = case.init()
        check_sharding_follows(state, case.params)
        advance, (params, new) = jax.jit(case.advance), (case.params, state)
        for _ in range(2):
            params, new = advance(params, new, case.batch)
        check_same_types(state, new)
        check_same_types(case.params, params)
        check_sharding_follows(new, case.params)
        assert_close(jax.device_get((params, new)), jax.device_get(expected), rtol=1e-4)


@for_each_method
def test_eager_update_keeps_the_sharding(method):
    mesh = jax.make_mesh((4, 2), ("x", "y"))
    with jax.set_mesh(mesh):
        case = Case(method, lambda: sharded_params(mesh))
        state = case.init()
        updates, new = case.step(case.params, state, case.batch)
        check_same_types(state, new)
        check_same_types(case.params, updates)
        check_sharding_follows(new, case.params)


# Names.


def field_names(method):
    """Key paths of the state for a fixed tree of parameters."""
    case = Case(method)
    paths = jax.tree_util.tree_leaves_with_path(jax.eval_shape(case.init))
    return [jax.tree_util.keystr(path) for path, _ in paths]


def all_field_names():
    return {method.name: field_names(method) for method in catalog.METHODS}


@for_each_method
def test_state_fields_are_pinned(method):
    pinned = json.loads(STATE_FIELDS.read_text())
    assert field_names(method) == pinned.get(method.name), "see the head of this file"


def test_every_pinned_state_has_a_method():
    assert set(json.loads(STATE_FIELDS.read_text())) == {m.name for m in catalog.METHODS}


def own_field_names(state):
    """Names of NamedTuple fields anywhere in a state."""
    paths = jax.tree_util.tree_leaves_with_path(state)
    keys = {key for path, _ in paths for key in path}
    return {key.name for key in keys if isinstance(key, jax.tree_util.GetAttrKey)}


@for_each_method
def test_diagnostics_are_found_by_name(method):
    state = Case(method).init()
    names = own_field_names(state)
    assert not names & {"value", "grad"}, "optax's line searches read these"
    diagnostics = {"step_size", "estimated_value", "tracking_error"}
    diagnostics |= {name for name in names if name.startswith("num_")}
    for name in sorted(names & diagnostics):
        found = optax.tree.get(state, name)  # raises when two fields have the name
        assert jax.tree.leaves(found), name
    if method.gradient_counter is not None:
        assert optax.tree.get(state, method.gradient_counter).dtype == jnp.int32


# Strict numerics.


def standard_promotion(factory):
    """``factory`` of an optimizer whose ``update`` runs with JAX's usual promotion of dtypes."""

    @functools.wraps(factory)
    def relaxed(*args, **kwargs):
        optimizer = optax.with_extra_args_support(factory(*args, **kwargs))

        def update(*args, **kwargs):
            with jax.numpy_dtype_promotion("standard"):
                return optimizer.update(*args, **kwargs)

        return optax.GradientTransformationExtraArgs(optimizer.init, update)

    return relaxed


@for_each_method
@DTYPES
def test_no_silent_promotion(method, make_params, strict, monkeypatch):
    # optax's own optimizers promote silently (Adam's bias correction does); only those parts are
    # let off, so that whatever is ours around them stays under test.
    for name, factory in inspect.getmembers(optax, inspect.isfunction):
        is_optimizer = "learning_rate" in inspect.signature(factory).parameters
        if is_optimizer and not name.startswith("scale_by"):
            monkeypatch.setattr(optax, name, standard_promotion(factory))
    case = Case(method, make_params, objective=_strict_objective)
    jax.eval_shape(case.step, case.params, case.init(), case.batch)


def _strict_objective(params):
    leaves = jax.tree.leaves(params)
    return sum(jnp.sum(jnp.square(x.astype(jnp.float32) - 1.0)) for x in leaves)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.complex64])
@pytest.mark.parametrize("polar", [orthogonal.newton_schulz, orthogonal.svd_polar])
def test_no_silent_promotion_in_scale_by_adago(dtype, polar, strict):
    optimizer = orthogonal.scale_by_adago(0.1, orthogonalize=polar)
    params = jnp.ones((3, 2), dtype)
    jax.eval_shape(lambda: optimizer.update(params, optimizer.init(params)))


if __name__ == "__main__":
    print(json.dumps(all_field_names(), indent=2))
