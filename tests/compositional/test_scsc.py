"""SCSC and its estimator against numbers worked by hand, a NumPy reference, and identities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from references import scsc as reference

from stochopt import scsc
from stochopt.compositional import estimate_compositional, recursive_tracker

with_x64 = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


def run(optimizer, params, batches, **extras):
    """Parameters and states after each batch, compiled once."""
    state, history = optimizer.init(params), []

    @jax.jit
    def step(params, state, batch, extras):
        updates, state = optimizer.update(None, state, params, batch=batch, **extras)
        return optax.apply_updates(params, updates), state

    for t, batch in enumerate(batches):
        now = {name: values[t] for name, values in extras.items()}
        params, state = step(params, state, batch, now)
        history.append((params, state))
    return history


# By hand: g(x) = z x, f(u) = u^2 / 2, both rates 1/2, x = 1 and draws z = 2, 4, 1:
# u = 2, x = 1 - 2 * 2 / 2; u = (2 - 4) / 2 ... exact in binary.
DRAWS = (2.0, 4.0, 1.0)
OTHER_DRAWS = (2.0, 3.0, 5.0)  # at the old point, in the wrong variant
GOLDEN = ((2.0, -1.0), (-5.0, 9.0), (7.0, 5.5))  # u, x


def test_worked_example():
    inner, outer = lambda x, z: z * x, lambda u, x, z: u**2 / 2
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    optimizer = scsc(inner, outer, 0.5, tracker_rate=0.5, inner_shape=shape)
    history = run(optimizer, jnp.asarray(1.0), DRAWS)
    for (x, state), (u, expected) in zip(history, GOLDEN, strict=True):
        assert optax.tree.get(state, "tracked_value") == u
        assert optax.tree.get(state, "estimated_value") == u**2 / 2
        assert x == expected


def worked_example_of_the_reference(old_draws=None, **variant):
    method = reference.Scsc(
        lambda x, z: z * x, lambda x, z: np.diag([z]), lambda u: u, 0.5, 0.5, **variant
    )
    x, found = np.ones(1), []
    for t, z in enumerate(DRAWS):
        x = method.step(x, z, None if old_draws is None else old_draws[t])
        found.append((method.tracked[0], x[0]))
    return found


def test_reference_gives_the_worked_example():
    assert tuple(worked_example_of_the_reference()) == GOLDEN


@pytest.mark.parametrize(
    "variant", [{"old_draws": OTHER_DRAWS}, {"corrected": False}], ids=["other sample", "average"]
)
def test_control_wrong_trackers_fail(variant):
    found = worked_example_of_the_reference(**variant)
    assert found[0] == GOLDEN[0], "the first step has no past"
    assert not np.allclose(found[1:], GOLDEN[1:], rtol=1e-9)
    assert not np.isclose(found[1][0], GOLDEN[1][0], rtol=1e-9)


# Step by step against the reference.

SHAPES = {"a": (2,), "b": {"c": (), "d": (2, 1)}}
SIZE, INNER = 5, 3


class Composition:
    """A random non-linear inner function of all leaves and a quadratic with a cosine outside."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.matrix = rng.standard_normal((INNER, SIZE))
        self.target = rng.standard_normal(INNER)
        self.start = rng.standard_normal(SIZE)
        self.batches = 0.3 * rng.standard_normal((30, INNER, SIZE))

    def inner(self, x, batch, module=np):
        return module.tanh((self.matrix + batch) @ x)

    def jacobian(self, x, batch):
        return (1 - self.inner(x, batch) ** 2)[:, None] * (self.matrix + batch)

    def outer(self, u, module=np):
        return module.sum((u - self.target) ** 2) + module.sum(module.cos(u))

    def outer_gradient(self, u):
        return 2 * (u - self.target) - np.sin(u)


def decaying(count):
    return 0.3 / (1 + count) ** 0.5


@pytest.mark.parametrize("rate", [0.1, decaying], ids=["number", "schedule"])
@pytest.mark.parametrize("tracker_rate", [0.2, decaying, 1.0], ids=["number", "schedule", "one"])
def test_thirty_steps_equal_the_reference(x64, rate, tracker_rate):
    problem = Composition(seed=0)
    method = reference.Scsc(
        problem.inner, problem.jacobian, problem.outer_gradient, rate, tracker_rate
    )
    flat = lambda tree: jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])
    tree = {
        "a": jnp.asarray(problem.start[:2]),
        "b": {"c": jnp.asarray(problem.start[2]), "d": jnp.asarray(problem.start[3:, None])},
    }
    optimizer = scsc(
        lambda params, batch: {"u": problem.inner(flat(params), batch, jnp)},
        lambda u, params, batch: problem.outer(u["u"], jnp),
        rate,
        tracker_rate=tracker_rate,
        inner_shape={"u": jax.ShapeDtypeStruct((INNER,), jnp.float64)},
    )
    expected = problem.start
    for (params, state), batch in zip(
        run(optimizer, tree, problem.batches), problem.batches, strict=True
    ):
        expected = method.step(expected, batch)
        np.testing.assert_allclose(flat(params), expected, rtol=1e-9, atol=1e-12)
        tracked = optax.tree.get(state, "tracked_value")["u"]
        np.testing.assert_allclose(tracked, method.tracked, rtol=1e-9)
        value = optax.tree.get(state, "estimated_value")
        np.testing.assert_allclose(value, problem.outer(method.tracked), rtol=1e-9)


@pytest.mark.parametrize("variant", ["other sample", "average"])
def test_control_wrong_trackers_leave_the_reference(variant):
    problem = Composition(seed=0)
    arguments = (problem.inner, problem.jacobian, problem.outer_gradient, 0.1, 0.2)
    right = reference.Scsc(*arguments)
    wrong = reference.Scsc(*arguments, corrected=variant != "average")
    x = y = problem.start
    for t, batch in enumerate(problem.batches):
        x = right.step(x, batch)
        y = wrong.step(y, batch, problem.batches[t - 1] if variant == "other sample" else None)
    assert not np.allclose(x, y, rtol=1e-3)


# Identities of the estimator.


def quadratic(problem):
    inner = lambda x, batch: problem.inner(x, batch, jnp)
    outer = lambda u, x, batch: problem.outer(u, jnp) + jnp.sum(batch) * jnp.sum(x**2)
    return inner, outer


def estimator(rate, problem):
    shape = jax.ShapeDtypeStruct((INNER,), jnp.float64)
    inner, outer = quadratic(problem)
    return estimate_compositional(inner, outer, tracker=recursive_tracker(rate), inner_shape=shape)


def test_rate_one_is_the_naive_plug_in_gradient(x64):
    problem = Composition(seed=1)
    inner, outer = quadratic(problem)
    naive = jax.jit(jax.value_and_grad(lambda x, z: outer(inner(x, z), x, z)))
    method = estimator(1.0, problem)
    update = jax.jit(lambda state, x, z: method.update(None, state, x, batch=z))
    x = jnp.asarray(problem.start)
    state = method.init(x)
    for batch in problem.batches[:10]:
        found, state = update(state, x, batch)
        value, g = naive(x, batch)
        np.testing.assert_allclose(found, g, rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(state.estimated_value, value, rtol=1e-14)
        x = x - 0.05 * found


@with_x64
@given(seed=st.integers(0, 2**16))
def test_without_noise_it_is_the_exact_gradient(x64, seed):
    # Any rate, any motion.
    rng = np.random.default_rng(seed)
    for t, (found, exact) in enumerate(
        zip(*noiseless(rng.standard_normal((6, SIZE))), strict=True)
    ):
        np.testing.assert_allclose(found, exact, rtol=1e-11, atol=1e-13, err_msg=f"step {t}")


@jax.jit
def noiseless(path):
    problem = Composition(seed=2)
    inner, outer = quadratic(problem)
    method, zero = estimator(0.05, problem), jnp.zeros((INNER, SIZE))

    def body(state, x):
        found, state = method.update(None, state, x, batch=zero)
        return state, found

    exact = jax.grad(lambda x: outer(inner(x, zero), x, zero))
    return jax.lax.scan(body, method.init(path[0]), path)[1], jax.vmap(exact)(path)


def test_terms_in_params_of_the_outer_function_are_differentiated(x64):
    inner, outer = lambda x, z: x[:1], lambda u, x, z: u[0] ** 2 + 3 * x[1] + z * x[0]
    method = estimate_compositional(
        inner,
        outer,
        tracker=recursive_tracker(0.5),
        inner_shape=jax.ShapeDtypeStruct((1,), jnp.float64),
    )
    x = jnp.asarray([2.0, 7.0])
    found, state = method.update(None, method.init(x), x, batch=10.0)
    np.testing.assert_allclose(found, [4 + 10, 3], rtol=1e-14)
    np.testing.assert_allclose(state.estimated_value, 4 + 21 + 20, rtol=1e-14)


def test_jacobian_batch_enters_the_jacobian_only(x64):
    problem = Composition(seed=3)
    pairs = problem.batches[:15], problem.batches[15:]
    method = reference.Scsc(problem.inner, problem.jacobian, problem.outer_gradient, 0.1, 0.2)
    optimizer = scsc(
        lambda x, z: problem.inner(x, z, jnp),
        lambda u, x, z: problem.outer(u, jnp),
        0.1,
        tracker_rate=0.2,
        inner_shape=jax.ShapeDtypeStruct((INNER,), jnp.float64),
    )
    history = run(optimizer, jnp.asarray(problem.start), pairs[0], jacobian_batch=pairs[1])
    expected = problem.start
    for (x, state), batch, other in zip(history, *pairs, strict=True):
        expected = method.step(expected, batch, jacobian_batch=other)
        np.testing.assert_allclose(x, expected, rtol=1e-9)
        np.testing.assert_allclose(
            optax.tree.get(state, "tracked_value"), method.tracked, rtol=1e-9
        )


def test_the_same_jacobian_batch_changes_nothing(x64):
    problem = Composition(seed=4)
    method, x = estimator(0.3, problem), jnp.asarray(problem.start)
    z = problem.batches[0]
    a, _ = method.update(None, method.init(x), x, batch=z)
    b, _ = method.update(None, method.init(x), x, batch=z, jacobian_batch=z)
    np.testing.assert_allclose(a, b, rtol=1e-14)


def test_incoming_updates_and_unknown_arguments_are_ignored(x64):
    problem = Composition(seed=5)
    method, x = estimator(0.3, problem), jnp.asarray(problem.start)
    z = problem.batches[0]
    a, _ = method.update(None, method.init(x), x, batch=z)
    b, _ = method.update(x * jnp.nan, method.init(x), x, batch=z, unknown=object(), value=1.0)
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("wrap", [lambda u: u, lambda u: {"v": (u[:2], {"w": u[2:]}), "n": None}])
def test_inner_value_may_be_any_tree(x64, wrap):
    problem = Composition(seed=6)
    inner = lambda x, z: wrap(problem.inner(x, z, jnp))
    outer = lambda u, x, z: problem.outer(
        jnp.concatenate([jnp.ravel(v) for v in jax.tree.leaves(u)]), jnp
    )
    x, batches = jnp.asarray(problem.start), problem.batches[:5]
    shape = jax.eval_shape(inner, x, batches[0])
    found = run(scsc(inner, outer, 0.1, tracker_rate=0.2, inner_shape=shape), x, batches)
    method = reference.Scsc(problem.inner, problem.jacobian, problem.outer_gradient, 0.1, 0.2)
    expected = problem.start
    for batch in batches:
        expected = method.step(expected, batch)
    np.testing.assert_allclose(found[-1][0], expected, rtol=1e-9)


def test_half_precision_params():
    inner, outer = lambda x, z: z * x, lambda u, x, z: jnp.sum(u**2)
    x = jnp.ones(2, jnp.bfloat16)
    shape = jax.eval_shape(inner, x, jnp.bfloat16(1))
    optimizer = scsc(inner, outer, 0.1, tracker_rate=0.5, inner_shape=shape)
    ((moved, state),) = run(optimizer, x, [jnp.bfloat16(2)])
    assert moved.dtype == jnp.bfloat16
    assert optax.tree.get(state, "tracked_value").dtype == jnp.float32
    assert optax.tree.get(state, "estimated_value").dtype == jnp.float32
    np.testing.assert_allclose(np.float32(moved), 0.2, rtol=0.02)


def test_complex_params_equal_their_real_pair(x64):
    # |E z|^2 and more, the same function of a complex number and of its two parts.
    def inner(x, batch):
        return jnp.stack([batch * x[0] + x[1] ** 2, x[1] - batch])

    outer = lambda u, x, batch: jnp.sum((u - 1.0) ** 2)
    shape = jax.ShapeDtypeStruct((2,), jnp.float64)
    options = {"learning_rate": 0.05, "tracker_rate": 0.3, "inner_shape": shape}
    batches = [1.0, 0.7, 1.3]
    pair = run(scsc(inner, outer, **options), jnp.asarray([0.5, -0.4]), batches)
    of_complex = lambda z, batch: inner(jnp.stack([z.real, z.imag]), batch)
    found = run(
        scsc(of_complex, lambda u, z, b: outer(u, None, b), **options),
        jnp.asarray(0.5 - 0.4j),
        batches,
    )
    for (z, _), (x, _) in zip(found, pair, strict=True):
        np.testing.assert_allclose([z.real, z.imag], x, rtol=1e-9)


# Errors.

SHAPE = jax.ShapeDtypeStruct((), jnp.float32)
MAKE = {
    "scsc": functools.partial(scsc, lambda x, z: jnp.sum(x), lambda u, x, z: u, inner_shape=SHAPE),
    "estimator": lambda: estimate_compositional(
        lambda x, z: jnp.sum(x),
        lambda u, x, z: u,
        tracker=recursive_tracker(0.1),
        inner_shape=SHAPE,
    ),
}


@pytest.mark.parametrize("name", MAKE)
def test_missing_arguments_are_named(name):
    optimizer, x = MAKE[name](), jnp.ones(2)
    state = optimizer.init(x)
    with pytest.raises(TypeError, match=r"'batch'; call update\(grads, state, params, batch=batch"):
        optimizer.update(None, state, x)
    with pytest.raises(ValueError, match="params are missing"):
        optimizer.update(None, state, batch=1.0)


def test_masked_params_are_refused():
    optimizer = MAKE["estimator"]()
    params = {"a": jnp.ones(2), "b": optax.MaskedNode()}
    with pytest.raises(TypeError, match="behind it, not around it"):
        optimizer.update(None, optimizer.init(params), params, batch=1.0)


@pytest.mark.parametrize(
    ("name", "value", "interval"),
    [
        ("learning_rate", -0.1, "[0, inf)"),
        ("tracker_rate", 0.0, "(0, 1]"),
        ("tracker_rate", 1.5, "(0, 1]"),
    ],
)
def test_hyper_parameters_out_of_range(name, value, interval):
    with pytest.raises(ValueError, match="must lie in") as error:
        MAKE["scsc"](**{name: value})
    assert f"{name} must lie in {interval}, got {value}" in str(error.value)


def test_traced_hyper_parameters_pass():
    @jax.jit
    def step(rate, tracker_rate):
        optimizer = MAKE["scsc"](rate, tracker_rate=tracker_rate)
        x = jnp.ones(2)
        return optimizer.update(None, optimizer.init(x), x, batch=0.0)[0]

    np.testing.assert_allclose(step(0.25, 0.5), -0.25, rtol=1e-6)
