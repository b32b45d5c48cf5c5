"""What every method promises about its state: one test per rule, run for every row of the catalog.

The rules are functions that start with ``check_``; the last part of this file feeds each of them a
transformation that breaks the rule.

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
    make_step,
    required_extras,
    tree_problem,
    types,
)

from stochopt import catalog, orthogonal
from stochopt.experiments import gradient_and_extras

STATE_FIELDS = pathlib.Path(__file__).with_name("state_fields.json")
SEEDS = 3


def small_params(matrix=jnp.float32, vector=jnp.float32):
    return {
        "matrix": jnp.linspace(-1.0, 2.0, 6).reshape(3, 2).astype(matrix),
        "vector": jnp.linspace(0.5, -2.0, 4).astype(vector),
    }


DTYPES = pytest.mark.parametrize(
    "make_params",
    [
        pytest.param(functools.partial(small_params, matrix, vector), id=name)
        for name, matrix, vector in [
            ("float32", jnp.float32, jnp.float32),
            ("bfloat16", jnp.bfloat16, jnp.bfloat16),
            ("mixed", jnp.bfloat16, jnp.float32),
        ]
    ],
)


class Case:
    """A transformation on a problem that offers every oracle."""

    def __init__(self, method, make_params=small_params, objective=None, optimizer=None):
        self.method = method
        self.problem = tree_problem(make_params, objective)
        self.optimizer = optimizer or method.make(self.problem)
        self.step = make_step(self.problem, method, self.optimizer)
        self.params = make_params()
        self.batch = jnp.float32(1.1)

    def init(self):
        return self.optimizer.init(self.params)

    def advance(self, params, state, batch):
        updates, state = self.step(params, state, batch)
        return optax.apply_updates(params, updates), state


# The checks.


def check_arrays_only(state):
    """Catches Python numbers, strings, functions, typed keys and weak types."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path)
        assert isinstance(leaf, jax.Array), f"{name} is a {type(leaf).__name__}, not an array"
        assert not jnp.issubdtype(leaf.dtype, jax.dtypes.extended), f"{name} is a typed key"
        assert not leaf.weak_type, f"{name} is weakly typed"


def check_plain_nodes(state, params):
    """Catches own node classes, which a checkpoint cannot name, and bare tuples as states."""
    if jax.tree.structure(state) == jax.tree.structure(params) or isinstance(state, jax.Array):
        return
    assert isinstance(state, tuple | dict), f"{type(state).__name__} is not a NamedTuple"
    for child in state.values() if isinstance(state, dict) else state:
        is_node = not jax.tree_util.all_leaves([child])
        if is_node:
            check_plain_nodes(child, params)


def check_counters(state):
    """Catches counters that are not int32."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jnp.issubdtype(leaf.dtype, jnp.integer):
            assert leaf.dtype == jnp.int32, f"{jax.tree_util.keystr(path)} is {leaf.dtype}"


def check_counters_saturate(state, update):
    """Catches ``count + 1``: ``update(state)`` must not wrap a full counter to a negative one."""
    is_counter = lambda x: jnp.issubdtype(x.dtype, jnp.integer)
    full = jax.tree.map(
        lambda x: jnp.full_like(x, jnp.iinfo(x.dtype).max) if is_counter(x) else x, state
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(update(full)):
        assert not is_counter(leaf) or np.all(leaf >= 0), f"{jax.tree_util.keystr(path)} wrapped"


def check_wide_scalars(state):
    """Catches sums in the parameters' dtype, which stall in bfloat16."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if leaf.ndim == 0 and jnp.issubdtype(leaf.dtype, jnp.inexact):
            bits = jnp.finfo(leaf.dtype).bits
            assert bits >= 32, f"{jax.tree_util.keystr(path)} is {leaf.dtype}"


def check_same_types(old, new):
    """Catches a change of structure, shape, dtype, weak type or sharding."""
    assert jax.tree.structure(old) == jax.tree.structure(new)
    named = jax.tree_util.tree_leaves_with_path(types(old))
    for (path, before), after in zip(named, jax.tree.leaves(types(new)), strict=True):
        assert before == after, f"{jax.tree_util.keystr(path)}: {before} became {after}"


def check_no_shared_buffers(state, params):
    """Catches aliases, which donation would free twice or free under the user's hands."""
    owner = {x.unsafe_buffer_pointer(): "params" for x in jax.tree.leaves(params)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if leaf.size:
            name, pointer = jax.tree_util.keystr(path), leaf.unsafe_buffer_pointer()
            assert pointer not in owner, f"{name} shares its buffer with {owner[pointer]}"
            owner[pointer] = name


def check_donation(case):
    """Catches the same in the form that users meet it."""
    # keep_unused: an alias counts even where this very step does not read it.
    donating = jax.jit(case.advance, donate_argnums=(0, 1), keep_unused=True)
    params = jax.tree.map(jnp.copy, case.params)
    state = case.optimizer.init(params)
    for _ in range(2):
        params, state = donating(params, state, case.batch)
    _, state = case.step(params, state, case.batch)
    params, state = donating(params, state, case.batch)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))


def check_sharding_follows(state, params):
    """Catches state made from a shape alone: it would be replicated, or move at every step."""
    of_shape = {leaf.shape: leaf.sharding for leaf in jax.tree.leaves(params)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path)
        if leaf.shape in of_shape:
            expected = of_shape[leaf.shape]
            same = leaf.sharding.is_equivalent_to(expected, leaf.ndim)
            assert same, f"{name}: {leaf.sharding} is not the parameter's {expected}"
        else:
            assert leaf.sharding.is_fully_replicated, f"{name} is {leaf.sharding}"


def check_never_traces_again(case, objective_calls, states):
    """Catches types that change after the first call, and numbers that became constants."""
    advance = jax.jit(case.advance)
    params, state = advance(case.params, states(case.init()), case.batch)
    before = objective_calls()
    for _ in range(2):
        params, state = advance(params, states(state), case.batch)
    assert objective_calls() == before, "the second call was traced again"


def assert_close(actual, expected, rtol=1e-5):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6)


def counting_objective():
    """An objective, and a function that says how often it was traced."""
    calls = []

    def objective(params):
        calls.append(1)
        return sum(jnp.sum((x - 1.0) ** 2) for x in jax.tree.leaves(params))

    return objective, lambda: len(calls)


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
    calls_oracles = method.gradient_of is None or required_extras(method)
    if calls_oracles:
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


def sharded_params(mesh):
    if mesh is None:
        place = lambda x, *spec: x
    else:
        place = lambda x, *spec: jax.device_put(x, jax.NamedSharding(mesh, jax.P(*spec)))
    return {
        "matrix": place(jnp.linspace(-1.0, 2.0, 32).reshape(8, 4), "x", "y"),
        "vector": place(jnp.linspace(0.5, -2.0, 16), ("x", "y")),
        "replicated": place(jnp.linspace(1.5, -2.0, 5)),
    }


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


# Negative controls: each check must reject what it is there to catch.


def toy(init, update):
    """Gradient descent with the state ``init(params)``, next ``update(state, params)``."""

    def update_fn(updates, state, params=None, **extra_args):
        del extra_args
        return jax.tree.map(lambda g: -0.1 * g, updates), update(state, params)

    return optax.GradientTransformationExtraArgs(init, update_fn)


def same(state, params):
    return state


def case_of(init, update=same, **options):
    # The row only says that the gradient of the loss comes in.
    row = catalog.Method("toy", lambda: None, "none", "a wrong transformation", "none")
    return Case(row, optimizer=toy(init, update), **options)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (lambda: 0, "is a int"),
        (lambda: "adam", "is a str"),
        (lambda: jnp.sin, "not an array"),
        (lambda: np.zeros(2), "is a ndarray"),
        (lambda: jnp.asarray(1.0), "weak"),
        (lambda: jax.random.key(0), "typed key"),
    ],
)
def test_leaves_that_are_not_arrays_are_rejected(leaf, message):
    with pytest.raises(AssertionError, match=message):
        check_arrays_only(optax.TraceState(trace=leaf()))


def test_an_own_node_class_is_rejected():
    @jax.tree_util.register_pytree_node_class
    class Own:
        tree_flatten = lambda self: ((jnp.zeros(2),), None)
        tree_unflatten = classmethod(lambda cls, aux, children: cls())

    with pytest.raises(AssertionError, match="Own is not a NamedTuple"):
        check_plain_nodes((optax.EmptyState(), Own()), small_params())


def test_a_narrow_counter_is_rejected():
    with pytest.raises(AssertionError, match="int16"):
        check_counters(optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int16)))


def test_a_counter_that_wraps_is_rejected():
    with pytest.raises(AssertionError, match="wrapped"):
        check_counters_saturate(
            {"count": jnp.zeros([], jnp.int32)}, lambda s: {"c": s["count"] + 1}
        )


def test_a_narrow_accumulator_is_rejected():
    with pytest.raises(AssertionError, match="bfloat16"):
        check_wide_scalars({"accumulator": jnp.zeros([], jnp.bfloat16)})


@pytest.mark.parametrize(
    "changed",
    [
        lambda x: x.astype(jnp.bfloat16),
        lambda x: x[None],
        lambda x: jnp.asarray(2.0),  # weakly typed
    ],
)
def test_changed_types_are_rejected(changed):
    old = {"scale": jnp.zeros([], jnp.float32)}
    with pytest.raises(AssertionError, match="became"):
        check_same_types(old, jax.tree.map(changed, old))


@pytest.mark.parametrize(
    "init",
    [
        lambda params: params,
        lambda params: jax.tree.map(jnp.asarray, params),  # converts nothing, copies nothing
        lambda params: (zeros := jnp.zeros(3), zeros),
    ],
    ids=["params", "asarray", "one buffer twice"],
)
def test_shared_buffers_are_rejected(init):
    case = case_of(init)
    with pytest.raises(AssertionError, match="shares its buffer"):
        check_no_shared_buffers(case.init(), case.params)
    with pytest.raises(Exception, match=r"donate|deleted"):
        check_donation(case)


def test_an_eager_alias_is_rejected_by_donation():
    case = case_of(lambda params: jax.tree.map(jnp.zeros_like, params), lambda s, params: params)
    check_no_shared_buffers(case.init(), case.params)
    with pytest.raises(Exception, match=r"donate|deleted"):
        check_donation(case)


@pytest.mark.parametrize("options", [{}, {"axis_types": (jax.sharding.AxisType.Auto,) * 2}])
def test_state_made_from_shapes_is_rejected_on_a_mesh(options):
    mesh = jax.make_mesh((4, 2), ("x", "y"), **options)
    with jax.set_mesh(mesh):
        params = sharded_params(mesh)
        with pytest.raises(AssertionError, match="not the parameter's"):
            check_sharding_follows(jax.tree.map(lambda x: jnp.zeros(x.shape), params), params)


def test_a_number_in_the_state_is_traced_again():
    objective, calls = counting_objective()
    # A Python number before the first update, an array after it.
    init, update = (
        lambda params: {"count": 0},
        lambda s, params: {"count": s["count"] + jnp.int32(1)},
    )
    case = case_of(init, update, objective=objective)
    with pytest.raises(AssertionError, match="traced again"):
        check_never_traces_again(case, calls, lambda state: state)


if __name__ == "__main__":
    print(json.dumps(all_field_names(), indent=2))
