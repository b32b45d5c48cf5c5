"""Where two methods are the same method, of this library or of optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stochopt.compositional import proximal_step
from stochopt.model_based import (
    iterated_prox,
    prox_subgradient,
    stochastic_prox_linear,
    stochastic_prox_point,
    truncated_model,
)
from stochopt.problems import phase_retrieval

RATES = np.array([0.01, 0.3, 20.0])


def line(params, batch):
    """A residual that is linear in a tree of parameters."""
    a, b = batch
    return sum(jnp.vdot(u, v) for u, v in zip(jax.tree.leaves(a), params.values(), strict=True)) - b


def square(params, batch):
    return line(params, batch) ** 2 + params["w"][0, 0] - 1


def draw(key):
    keys = jax.random.split(key, 3)
    a = {"b": jax.random.normal(keys[0], (2,)), "w": jax.random.normal(keys[1], (2, 3))}
    return a, jax.random.normal(keys[2])


def paths(method, residual, rates=RATES, num_steps=30):
    """All points of runs on the absolute residual, one draw at a time, for each learning rate."""
    loss = lambda params, batch: jnp.abs(residual(params, batch))
    start = {"b": jnp.array([0.3, -1.0]), "w": jnp.linspace(-1, 1, 6).reshape(2, 3)}
    batches = jax.vmap(draw)(jax.random.split(jax.random.key(7), num_steps))

    def run(rate):
        optimizer = optax.with_extra_args_support(method(rate))

        def step(carry, batch):
            params, state = carry
            value, grad = jax.value_and_grad(loss)(params, batch)
            updates, state = optimizer.update(grad, state, params, value=value, batch=batch)
            params = optax.apply_updates(params, updates)
            return (params, state), jnp.concatenate([params["b"], params["w"].ravel()])

        return jax.lax.scan(step, (start, optimizer.init(start)), batches)[1]

    return np.asarray(jax.jit(jax.vmap(run))(jnp.asarray(rates)))


def assert_same(one, other, residual=square, **tolerances):
    expected = paths(other, residual)
    assert np.ptp(expected, axis=1).max(axis=1).min() > 1e-2, "one does not move"
    tolerances = {"rtol": 1e-8, "atol": 1e-10, **tolerances}
    np.testing.assert_allclose(paths(one, residual), expected, **tolerances)


def test_without_a_bound_the_truncated_model_is_a_line(x64):
    assert_same(lambda rate: truncated_model(rate, lower_bound=-np.inf), optax.sgd, line)
    assert_same(prox_subgradient, optax.sgd, line)


@pytest.mark.parametrize("bound", [0.0, 0.2])
def test_truncated_model_is_polyaks_step_of_optax(x64, bound):
    assert_same(
        lambda rate: truncated_model(rate, lower_bound=bound),
        lambda rate: optax.polyak_sgd(rate, f_min=bound, variant="sps+"),
    )


def test_prox_subgradient_is_the_proximal_step(x64):
    def prox(params, step):
        shrink = lambda x: jnp.sign(x) * jnp.maximum(jnp.abs(x) - 0.1 * step, 0)
        return jax.tree.map(shrink, params)

    method = lambda rate: prox_subgradient(rate, prox=prox)
    assert_same(method, lambda rate: proximal_step(rate, prox), line)


def test_one_residual_makes_prox_linear_the_truncated_model(x64):
    assert_same(lambda rate: stochastic_prox_linear(square, rate), truncated_model)


def test_a_linear_residual_makes_prox_linear_the_proximal_point(x64):
    def exact(params, step, batch):
        a = batch[0]
        squared_norm = sum(jnp.sum(x**2) for x in jax.tree.leaves(a))
        t = jnp.clip(-line(params, batch) / squared_norm, -step, step)
        return jax.tree.map(lambda x, y: x + t * y, params, a)

    point = lambda rate: stochastic_prox_point(exact, rate)
    assert_same(lambda rate: stochastic_prox_linear(line, rate), point, line)
    # Control: on a residual that is not linear they differ.
    assert not np.allclose(paths(point, line), paths(truncated_model, square))


def test_copies_of_one_residual_are_the_one(x64):
    copies = lambda params, batch: jnp.stack([square(params, batch)] * 3)
    batch_form = lambda rate: stochastic_prox_linear(copies, rate)
    assert_same(batch_form, truncated_model, atol=1e-5, rtol=1e-5)


def test_one_inner_step_is_a_subgradient_step(x64):
    loss = lambda params, batch: jnp.abs(line(params, batch))
    iterated = lambda rate: stochastic_prox_point(iterated_prox(loss, 1), rate)
    assert_same(iterated, prox_subgradient, line)


def test_schedules_are_followed(x64):
    schedule = lambda start: lambda count: start / jnp.sqrt(1.0 + count)
    falling = lambda method: lambda start: method(schedule(start))
    assert_same(falling(prox_subgradient), falling(optax.sgd), line)
    prox_linear = falling(lambda rate: stochastic_prox_linear(square, rate))
    assert_same(prox_linear, falling(truncated_model))
    constant, shorter = paths(truncated_model, square), paths(falling(truncated_model), square)
    assert not np.allclose(constant, shorter)


def test_on_phase_retrieval_the_four_agree_for_short_steps(x64):
    """All models touch the loss: for short steps they move alike, to first order in the step."""
    problem = phase_retrieval(6, 20, 1, 0.0)
    methods = (
        truncated_model,
        lambda rate: stochastic_prox_linear(problem.residuals, rate),
        lambda rate: stochastic_prox_point(problem.loss_prox, rate),
    )

    @jax.jit
    def errors(rate):
        x, batch = problem.init(jax.random.key(0)), problem.sample(jax.random.key(1))
        value, grad = jax.value_and_grad(problem.loss)(x, batch)
        extras = {"value": value, "batch": batch}
        moves = [m(rate).update(grad, m(rate).init(x), x, **extras)[0] for m in methods]
        size = jnp.linalg.norm(rate * grad)
        return jnp.stack([jnp.linalg.norm(move + rate * grad) / size for move in moves])

    for rate in (1e-4, 1e-5):
        assert np.all(errors(rate) < 100 * rate)
