"""Trees, dtypes, transformations of JAX, and bad arguments."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stochopt.model_based import (
    iterated_prox,
    prox_subgradient,
    stochastic_prox_linear,
    stochastic_prox_point,
    truncated_model,
)


def residuals(params, batch):
    """Three numbers from a tree whose leaves may be None, narrow or complex."""
    total = sum(jnp.sum(jnp.abs(x.astype(_wide(x))) ** 2) for x in jax.tree.leaves(params))
    return total * jnp.array([1.0, 0.5, 2.0]) - batch


def loss(params, batch):
    return jnp.mean(jnp.abs(residuals(params, batch)))


def _wide(x):
    return jnp.complex64 if jnp.iscomplexobj(x) else jnp.float32


def shrink(params, step):
    return jax.tree.map(lambda x: (x / (1 + 0.1 * step)).astype(x.dtype), params)


def make_prox_subgradient(learning_rate):
    return prox_subgradient(learning_rate, prox=shrink)


def make_prox_linear(learning_rate):
    return stochastic_prox_linear(residuals, learning_rate)


def make_prox_point(learning_rate):
    return stochastic_prox_point(iterated_prox(loss, 3), learning_rate)


METHODS = {
    "prox_subgradient": make_prox_subgradient,
    "truncated_model": lambda learning_rate: truncated_model(learning_rate),
    "stochastic_prox_linear": make_prox_linear,
    "stochastic_prox_point": make_prox_point,
}
for_each_method = pytest.mark.parametrize("name", METHODS)
BATCH = jnp.array([3.0, 1.0, 0.1])


def params():
    return {
        "narrow": jnp.full((2, 3), 0.5, jnp.bfloat16),
        "complex": jnp.array([1 + 2j, 0.5j], jnp.complex64),
        "none": None,
        "scalar": jnp.float32(2.0),
    }


def update(optimizer, x, state, batch):
    value, grad = jax.value_and_grad(loss)(x, batch)
    grad = jax.tree.map(jnp.conj, grad)
    return optimizer.update(grad, state, x, value=value, batch=batch)


@for_each_method
def test_trees_of_many_kinds_under_jit_and_vmap(name):
    optimizer, x = METHODS[name](0.01), params()
    step = jax.jit(lambda x, s, b: update(optimizer, x, s, b))
    state = optimizer.init(x)
    program = step.lower(x, state, BATCH)
    updates, state = step(x, state, BATCH)
    same = lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype)
    assert jax.tree.all(jax.tree.map(same, updates, x))
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, optimizer.init(x))
    assert state.count == 1
    moved = optax.apply_updates(x, updates)
    assert loss(moved, BATCH) < loss(x, BATCH)
    # Batched over runs each gets its own.
    batches = jnp.stack([BATCH, 2 * BATCH])
    together, _ = jax.jit(jax.vmap(lambda b: step(x, optimizer.init(x), b)))(batches)
    alone, _ = step(x, optimizer.init(x), batches[1])
    close = lambda a, b: np.testing.assert_allclose(
        np.asarray(a[1], np.complex64), np.asarray(b, np.complex64), rtol=1e-2, atol=1e-6
    )
    jax.tree.map(close, together, alone)
    # A second step is the same program: nothing changes its type.
    assert step.lower(moved, state, BATCH).as_text() == program.as_text()
    _, again = step(moved, state, BATCH)
    assert again.count == 2


@for_each_method
def test_complex_parameters_are_pairs_of_real_ones(name):
    optimizer = METHODS[name](0.05)
    first = jax.jit(lambda x: update(optimizer, x, optimizer.init(x), BATCH)[0])
    z = jnp.array([1 + 2j, -0.5j, 0.3], jnp.complex64)
    pair = jnp.stack([z.real, z.imag])
    moved, expected = first(z), first(pair)
    np.testing.assert_allclose(jnp.stack([moved.real, moved.imag]), expected, rtol=1e-4, atol=1e-6)


@for_each_method
def test_learning_rates_are_injected_and_zero_stays(name):
    x = jnp.array([1.0, -2.0])
    optimizer = optax.inject_hyperparams(METHODS[name])(learning_rate=0.0)
    step = jax.jit(lambda s: update(optimizer, x, s, BATCH))
    state = optimizer.init(x)
    program = step.lower(state).as_text()
    updates, state = step(state)
    np.testing.assert_array_equal(updates, 0.0)
    state.hyperparams["learning_rate"] = jnp.float32(0.1)
    updates, _ = step(state)
    plain = METHODS[name](0.1)
    expected = jax.jit(lambda: update(plain, x, plain.init(x), BATCH)[0])()
    np.testing.assert_allclose(updates, expected, rtol=1e-5)
    assert step.lower(state).as_text() == program


@for_each_method
def test_strict_promotion(strict, name):
    x = {"a": jnp.ones((2, 2), jnp.float32), "b": jnp.ones(3, jnp.float32)}
    optimizer = METHODS[name](jnp.float32(0.1))
    jax.eval_shape(lambda: update(optimizer, x, optimizer.init(x), BATCH))


def test_a_loss_at_its_bound_and_a_gradient_of_zero_do_not_move():
    optimizer = truncated_model(np.inf, lower_bound=0.5)
    x = jnp.ones(2)
    for value, grad in ((0.5, jnp.ones(2)), (0.2, jnp.ones(2)), (1.0, jnp.zeros(2))):
        updates, _ = optimizer.update(grad, optimizer.init(x), x, value=value)
        np.testing.assert_array_equal(updates, 0.0)


def test_no_number_in_is_no_number_out():
    optimizer = stochastic_prox_linear(residuals, 0.1)
    x = jnp.ones(2)
    updates, _ = optimizer.update(None, optimizer.init(x), x, batch=BATCH.at[1].set(jnp.nan))
    assert np.all(np.isnan(updates))


# Bad arguments.


@for_each_method
@pytest.mark.parametrize("rate", [-0.1, np.nan])
def test_bad_learning_rates(name, rate):
    with pytest.raises(ValueError, match=r"^learning_rate must lie in \[0, inf"):
        METHODS[name](rate)


def test_bad_hyperparameters():
    for bound in (np.inf, np.nan):
        with pytest.raises(ValueError, match=r"^lower_bound must lie in"):
            truncated_model(0.1, lower_bound=bound)
    for num_steps in (0, 2.5):
        with pytest.raises(ValueError, match=r"^num_steps must be a whole number"):
            iterated_prox(loss, num_steps)


@pytest.mark.parametrize(
    ("method", "missing"),
    [
        (METHODS["truncated_model"], "value"),
        (METHODS["stochastic_prox_linear"], "batch"),
        (METHODS["stochastic_prox_point"], "batch"),
    ],
)
def test_missing_extra_arguments_are_named(method, missing):
    optimizer, x = method(0.1), jnp.ones(2)
    extras = {"value": 1.0, "batch": BATCH}
    extras.pop(missing)
    with pytest.raises(TypeError, match=f"needs the keyword argument '{missing}'"):
        optimizer.update(x, optimizer.init(x), x, **extras)
    with pytest.raises(ValueError, match="params are missing"):
        optimizer.update(x, optimizer.init(x), value=1.0, batch=BATCH)


@pytest.mark.parametrize("name", ["stochastic_prox_linear", "stochastic_prox_point"])
def test_oracles_do_not_see_masked_leaves(name):
    x = {"a": jnp.ones(2), "b": jnp.ones(2)}
    optimizer = optax.masked(METHODS[name](0.1), {"a": True, "b": False})
    with pytest.raises(TypeError, match="evaluates its oracles at the whole params"):
        optimizer.update(x, optimizer.init(x), x, batch=BATCH)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: prox_subgradient(0.1, prox=lambda x: x), "prox must be a function prox(params"),
        (
            lambda: stochastic_prox_linear(lambda x: x, 0.1),
            "residuals must be a function residuals(params, batch)",
        ),
        (
            lambda: stochastic_prox_point(lambda x, step: x, 0.1),
            "loss_prox must be a function loss_prox(params, step, batch)",
        ),
    ],
)
def test_oracles_of_the_wrong_arity(make, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    "result", [jnp.ones((2, 2)), jnp.ones(0), jnp.ones(2, int), jnp.ones(2, complex), 1.0, [1.0]]
)
def test_residuals_that_are_no_vector(result):
    optimizer, x = stochastic_prox_linear(lambda x, batch: result, 0.1), jnp.ones(2)
    with pytest.raises(ValueError, match=r"^residuals must return a real scalar or a vector"):
        optimizer.update(None, optimizer.init(x), x, batch=0)


@pytest.mark.parametrize("result", [jnp.ones(3), {"a": jnp.ones(2)}])
def test_proximal_operators_of_the_wrong_structure(result):
    x = jnp.ones(2)
    optimizer = prox_subgradient(0.1, prox=lambda params, step: result)
    with pytest.raises(ValueError, match=r"^prox returned shapes"):
        optimizer.update(x, optimizer.init(x), x)
    optimizer = stochastic_prox_point(lambda params, step, batch: result, 0.1)
    with pytest.raises(ValueError, match=r"^loss_prox returned shapes"):
        optimizer.update(x, optimizer.init(x), x, batch=0)
