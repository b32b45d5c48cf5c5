"""Negative controls: each check of a state must reject what it is there to catch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from state_checks import (
    Case,
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

from stochopt import catalog


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
