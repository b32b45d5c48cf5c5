"""The rules about a method's state, as functions that start with ``check_``."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import (
    make_step,
    tree_problem,
    types,
)

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
    if state is None:  # what a method with these arguments does not need
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
    """Catches state made from a shape alone: it would be replicated, or move at every step.

    A table whose rows (or the rows of them) are like a parameter follows it behind its first axes.
    """
    of_shape = {leaf.shape: leaf.sharding for leaf in jax.tree.leaves(params)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path)
        lead = next((k for k in range(3) if leaf.shape[k:] in of_shape), None)
        if lead is None:
            assert leaf.sharding.is_fully_replicated, f"{name} is {leaf.sharding}"
            continue
        like = of_shape[leaf.shape[lead:]]
        expected = jax.NamedSharding(like.mesh, jax.P(*[None] * lead, *like.spec))
        same = leaf.sharding.is_equivalent_to(expected, leaf.ndim)
        assert same, f"{name}: {leaf.sharding} is not the parameter's {expected}"


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
