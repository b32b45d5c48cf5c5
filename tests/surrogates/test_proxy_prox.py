"""Proxies: identities, the accuracy of inner loops, guarantees, and what does not matter: L."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import stochopt
from stochopt.problems import proxy_quadratic
from stochopt.surrogates import proxy_step

pytestmark = pytest.mark.usefixtures("x64")
RNG = np.random.default_rng(0)
DIMENSION = 5


def random_matrix(seed, low=0.2, high=3.0):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))
    return q * np.linspace(low, high, DIMENSION) @ q.T


H, H_PROXY = random_matrix(0), random_matrix(1)
X, G = RNG.standard_normal((2, DIMENSION))
proxy = lambda x, batch: x @ H_PROXY @ x / 2 + jnp.sum(x)
zero = lambda x, batch: 0.0 * jnp.sum(x)


def move(optimizer, gradient=G, x=X, **extras):
    """The first displacement and the state after it."""
    x = jnp.asarray(x)
    return jax.jit(lambda g, s: optimizer.update(g, s, x, **extras))(gradient, optimizer.init(x))


def solved(proxy, eta, **options):
    """To the last digits; no curvature here is above 4."""
    descent = optax.sgd(1 / (4 + 1 / eta))
    return stochopt.proxy_prox(proxy, eta, inner_optimizer=descent, max_inner=3000, **options)


def test_without_a_proxy_it_is_gradient_descent():
    for eta in (0.01, 1.0, 30.0):
        found, _ = move(solved(zero, eta))
        np.testing.assert_allclose(found, -eta * G, rtol=1e-10)


def test_with_the_target_as_proxy_it_is_the_proximal_point():
    """Also of a target that is not quadratic: by the optimality condition of the point."""
    target = lambda x, batch: jnp.sum(jnp.log(jnp.cosh(x - 1.0))) + x @ H @ x / 2
    slope = jax.grad(lambda x: target(x, None))
    for eta in (0.1, 2.0):
        d, _ = move(solved(target, eta), slope(jnp.asarray(X)))
        np.testing.assert_allclose(slope(X + d) + d / eta, 0, atol=1e-10)


def test_closed_form_for_a_quadratic_proxy():
    """Whatever its linear part is."""
    for eta in (0.1, 2.0):
        found, _ = move(solved(proxy, eta))
        expected = -np.linalg.solve(H_PROXY + np.eye(DIMENSION) / eta, G)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("inner", [optax.sgd(0.3), optax.adam(0.1)], ids=["sgd", "adam"])
def test_one_inner_step_is_the_inner_optimizer_on_the_target(inner):
    """Over several updates, so its state goes on, and whatever the proxy is."""
    optimizer = stochopt.proxy_prox(proxy, 0.7, inner_optimizer=inner, max_inner=1)
    x, y = jnp.asarray(X), jnp.asarray(X)
    ours, theirs = optimizer.init(x), inner.init(y)
    for g in RNG.standard_normal((4, DIMENSION)):
        d, ours = optimizer.update(g, ours, x)
        e, theirs = inner.update(g, theirs, y)
        np.testing.assert_allclose(d, e, rtol=1e-14)
        x, y = x + d, y + e


def test_averages_gradients_and_goes_part_of_the_way():
    eta, beta, alpha = 0.5, 0.3, 0.8
    optimizer = solved(proxy, eta, direction_rate=beta, outer_learning_rate=alpha)
    x, average = jnp.asarray(X), None
    state = optimizer.init(x)
    step = jax.jit(optimizer.update)
    inverse = np.linalg.inv(H_PROXY + np.eye(DIMENSION) / eta)
    for g in RNG.standard_normal((3, DIMENSION)):
        average = g if average is None else (1 - beta) * average + beta * g
        d, state = step(g, state, x)
        np.testing.assert_allclose(d, -alpha * inverse @ average, rtol=1e-9)


def reference(eta, rate, accuracy, max_inner):
    """NumPy: displacement, steps, and the accuracy reached."""
    d, k = np.zeros(DIMENSION), 0
    slope = G
    while k < max_inner and not eta * np.linalg.norm(slope) < accuracy * np.linalg.norm(d):
        d, k = d - rate * slope, k + 1
        slope = G + H_PROXY @ d + d / eta
    return d, k, eta * np.linalg.norm(slope) / np.linalg.norm(d)


@pytest.mark.parametrize(
    ("accuracy", "max_inner", "missed"), [(0.3, 100, 0), (1e-3, 100, 0), (1e-3, 7, 1), (0.0, 7, 0)]
)
def test_inner_loops_end_where_they_are_accurate(accuracy, max_inner, missed):
    optimizer = proxy_step(
        proxy, 2.0, inner_optimizer=optax.sgd(0.25), accuracy=accuracy, max_inner=max_inner
    )
    d, state = move(optimizer)
    expected, steps, reached = reference(2.0, 0.25, accuracy, max_inner)
    np.testing.assert_allclose(d, expected, rtol=1e-12)
    np.testing.assert_allclose(state.inner_accuracy, reached, rtol=1e-9)
    assert state.num_proxy_gradients == steps + 1  # and the one at the start
    assert state.num_target_gradients == 1
    assert state.num_truncated == missed
    assert (steps == max_inner) == (missed or accuracy == 0)


def descents(scale, num_steps=40):
    """Both sides of the two inequalities at every step, for a target that is not convex."""
    delta = 1.0  # of the cosines, of which the proxy knows nothing
    smooth = lambda x: x @ (50 * H) @ x / 2
    target = lambda x: smooth(x) + jnp.sum(jnp.cos(x))
    eta, accuracy = 1 / (2 * delta), 0.1
    optimizer = proxy_step(
        lambda x, batch: scale * smooth(x), eta, accuracy=accuracy, max_inner=10_000,
        inner_optimizer=optax.sgd(1 / (150 * scale + 2)),
    )  # fmt: skip

    def step(carry, _):
        x, state = carry
        d, state = optimizer.update(jax.grad(target)(x), state, x)
        norm = jnp.linalg.norm
        decrease = (1 / (2 * eta) - delta / 2) * norm(d) ** 2
        slope = norm(jax.grad(target)(x + d))
        out = target(x) - target(x + d), decrease, slope, (delta + (1 + accuracy) / eta) * norm(d)
        return (x + d, state), (*out, state.num_truncated)

    x = jnp.asarray(10 * X)
    (_, _), out = jax.jit(lambda c: jax.lax.scan(step, c, None, num_steps))((x, optimizer.init(x)))
    return map(np.asarray, (target(x), *out))


def test_each_step_decreases_and_ends_at_a_small_gradient():
    start, fell, decrease, slope, limit, truncated = descents(1.0)
    assert truncated[-1] == 0
    assert np.all(fell >= decrease - 1e-9)
    assert np.all(slope <= limit + 1e-9)
    steps, least = np.arange(1, 41), -DIMENSION
    bound = 2 * 3.2**2 * (start - least) / steps
    assert np.all(np.minimum.accumulate(slope**2) <= bound)


def test_a_proxy_that_is_not_scaled_as_the_target_loses_the_guarantee():
    """Such as a mean over a batch that is divided by the size of the data once more."""
    _, _, _, slope, limit, _ = descents(0.1)
    assert np.any(slope > 2 * limit)


def gradients_to(target, smoothness, distance):
    """Gradients until the squared norm is small, and truncated loops; 0 if never."""
    problem = proxy_quadratic(20, smoothness, 0.01, distance, noise=0.0)
    eta = 1 / (2 * distance)
    optimizer = proxy_step(
        problem.proxy, eta, accuracy=0.2, max_inner=10_000,
        inner_optimizer=optax.sgd(1 / (smoothness + 3 * distance)),
    )  # fmt: skip

    def step(carry, _):
        x, state = carry
        g = problem.exact["gradient"](x)
        d, state = optimizer.update(g, state, x)
        return (x + d, state), jnp.sum(g**2)

    x = problem.init(jax.random.key(0))
    (_, state), squares = jax.jit(lambda c: jax.lax.scan(step, c, None, 150))(
        (x, optimizer.init(x))
    )
    assert state.num_truncated == 0
    steps = np.arange(1, 150)
    least = np.minimum.accumulate(np.asarray(squares))[1:]
    # 18 for exact inner problems; the gap at the start is 1/2.
    assert np.all(least <= 2 * 3.4**2 * distance * 0.5 / steps)
    return int(np.argmax(squares <= target))


def test_gradients_depend_on_the_distance_of_the_proxy_and_not_on_the_smoothness():
    flat, steep = (gradients_to(1e-3, smoothness, 0.5) for smoothness in (10.0, 1000.0))
    assert 10 < steep <= flat < 100
    assert gradients_to(1e-3, 1000.0, 0.1) < 0.4 * steep


@pytest.mark.parametrize("share", [1 / 3, 0.03])
def test_with_noise_the_moreau_envelope_is_as_flat_as_that_of_sgd(share):
    """On quadratics the gradient of the envelope is known; the share is that of 1 / delta."""
    delta, num_steps = 0.1, 400
    problem = proxy_quadratic(5, 10.0, 0.2, delta, noise=2.0)  # so the proxy is convex
    eta = share / delta
    hessian = jax.hessian(lambda x: problem.metrics(x)["gap"])(jnp.zeros(5))
    envelope = 2 * delta * jnp.linalg.solve(hessian + 2 * delta * jnp.eye(5), hessian)
    optimizer = proxy_step(
        problem.proxy, eta, accuracy=1e-3, max_inner=10_000,
        inner_optimizer=optax.sgd(1 / (10 + delta + 1 / eta)),
    )  # fmt: skip

    def run(key):
        def step(carry, key):
            x, state = carry
            square = jnp.sum((envelope @ (x - problem.optimum)) ** 2)
            d, state = optimizer.update(jax.grad(problem.loss)(x, problem.sample(key)), state, x)
            return (x + d, state), square

        x = problem.init(key)
        return jax.lax.scan(step, (x, optimizer.init(x)), jax.random.split(key, num_steps))[1]

    found = np.mean(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 16)))
    bound = 2 * (1 + share) * 0.5 / (eta * num_steps) + 4 * share * problem.noise**2
    assert 1e-3 * bound < found <= bound


GOOD = {"learning_rate": 0.1, "accuracy": 0.1, "max_inner": 3, "direction_rate": 0.5}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0), ("learning_rate", -1), ("accuracy", -0.1), ("max_inner", 0),
        ("max_inner", 1.5), ("direction_rate", 0), ("direction_rate", 1.1),
        ("outer_learning_rate", 0),
    ],
)  # fmt: skip
def test_bad_hyperparameters_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must "):
        stochopt.proxy_prox(proxy, **{**GOOD, name: value}, inner_optimizer=optax.sgd(0.1))


def test_bad_oracles_and_arguments_are_named():
    make = lambda proxy: proxy_step(proxy, 0.1, inner_optimizer=optax.sgd(0.1))
    with pytest.raises(TypeError, match=r"^proxy must be a function proxy\(params, batch\)"):
        make(lambda x: x)
    with pytest.raises(ValueError, match=r"^proxy must return a scalar"):
        move(make(lambda x, batch: x))
    x = jnp.asarray(X)
    optimizer = make(proxy)
    with pytest.raises(TypeError, match="gradient of the target"):
        optimizer.update(None, optimizer.init(x), x)


def test_the_proxy_sees_the_batch():
    scaled = lambda x, batch: batch * proxy(x, None)
    found, _ = move(solved(scaled, 1.0), batch=0.5)
    expected = -np.linalg.solve(0.5 * H_PROXY + np.eye(DIMENSION), G)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
