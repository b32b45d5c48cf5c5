"""Target surrogates: identities, majorization, the search for a step, errors."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import stochopt
from stochopt.problems import target_logistic
from stochopt.surrogates import AlongTargets, armijo, given

pytestmark = pytest.mark.usefixtures("x64")
INPUTS = np.random.default_rng(0).standard_normal((12, 3))
LABELS = np.sign(INPUTS[:, 0] + 0.3)
START = {"hidden": np.linspace(-1, 1, 12).reshape(3, 4), "out": np.linspace(0.5, -1, 4)}


def predict(params, batch):
    return jnp.tanh(INPUTS @ params["hidden"]) @ params["out"]


def target_loss(targets, batch):
    return jnp.mean(jax.nn.softplus(-LABELS * targets)) + batch * jnp.sum(targets)


def run(optimizer, params, num_steps, batch=0.0):
    """``(params, state)`` after each step."""
    step = jax.jit(lambda p, s: optimizer.update(None, s, p, batch=batch))
    params = jax.tree.map(jnp.asarray, params)
    state, history = optimizer.init(params), []
    for _ in range(num_steps):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
        history.append((params, state))
    return history


@pytest.mark.parametrize("inner", [optax.sgd(0.7), optax.adam(0.1)], ids=["sgd", "adam"])
def test_one_step_is_the_inner_optimizer_on_the_loss(inner):
    """Whatever the step size of the targets is, over several updates."""
    slope = jax.jit(jax.grad(lambda p: target_loss(predict(p, None), 0.1)))
    expected = jax.tree.map(jnp.asarray, START)
    state = inner.init(expected)
    paths = [
        run(
            stochopt.target_surrogate(
                predict, target_loss, inner_optimizer=inner, target_step=eta, num_inner=1
            ),
            START,
            3,
            batch=0.1,
        )
        for eta in (1e-6, 100.0)
    ]
    for t in range(3):
        updates, state = inner.update(slope(expected), state, expected)
        expected = optax.apply_updates(expected, updates)
        for path in paths:
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), path[t][0], expected
            )


def test_steps_of_the_surrogate_are_those_of_numpy():
    """A linear model, whose Jacobian is a matrix."""
    eta, rate, x = 3.0, 0.2, np.array([0.3, -0.2, 1.0])
    optimizer = stochopt.target_surrogate(
        lambda params, batch: INPUTS @ params,
        target_loss,
        inner_optimizer=optax.sgd(rate),
        target_step=eta,
        num_inner=4,
    )
    found, state = run(optimizer, jnp.asarray(x), 1)[0]
    z = INPUTS @ x
    gradient = -LABELS / (1 + np.exp(LABELS * z)) / 12
    for _ in range(4):
        x = x - rate * INPUTS.T @ (gradient + (INPUTS @ x - z) / eta)
    np.testing.assert_allclose(found, x, rtol=1e-12)
    np.testing.assert_allclose(state.estimated_value, target_loss(z, 0.0), rtol=1e-12)
    assert (state.num_target_gradients, state.num_surrogate_gradients) == (1, 4)
    assert (state.step_size, state.num_target_values) == (eta, 0)


PROBLEM = target_logistic(num_features=6, num_examples=40, condition=100, noise=0.0)
NO_NOISE = np.zeros(40)


def losses(num_inner, step_factor, num_steps=30):
    """Losses before each update, and squared gradient norms; a factor on the longest safe step."""
    optimizer = stochopt.target_surrogate(
        PROBLEM.predict,
        PROBLEM.target_loss,
        inner_optimizer=optax.sgd(1 / PROBLEM.smoothness),
        target_step=step_factor * 4 * 40,
        num_inner=num_inner,
    )

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(None, state, x, batch=NO_NOISE)
        return (x + updates, state), (
            state.estimated_value, jnp.sum(PROBLEM.exact["gradient"](x) ** 2)
        )  # fmt: skip

    x = PROBLEM.init(None)
    return map(
        np.asarray,
        jax.jit(lambda c: jax.lax.scan(step, c, None, num_steps))((x, optimizer.init(x)))[1],
    )


def test_full_batches_never_go_up_and_more_steps_go_further_down():
    least = float(PROBLEM.metrics(jnp.asarray(PROBLEM.optimum))["train_loss"])
    finals = []
    for num_inner in (1, 10, 100):
        values, squares = losses(num_inner, 1.0)
        assert np.all(np.diff(values) <= 1e-14)
        bound = 2 * PROBLEM.smoothness * (values[0] - least) / np.arange(1, 31)
        assert np.all(np.minimum.accumulate(squares) <= bound)
        finals.append(values[-1] - least)
    assert finals[0] > 5 * finals[1] > 25 * finals[2]


def test_a_step_that_is_too_long_for_the_targets_goes_up():
    """The control: the surrogate does not lie above the loss, and is solved nevertheless."""
    values, _ = losses(100, 30.0)
    assert np.any(np.diff(values) > 0.01)


def primitives(jaxpr, inside_loop=False):
    """Names of all primitives within loops."""
    for equation in jaxpr.eqns:
        if inside_loop:
            yield equation.primitive.name
        loop = inside_loop or equation.primitive.name in ("while", "scan")
        for sub in jax.extend.core.jaxprs_in_params(equation.params):
            yield from primitives(sub, loop)


def test_the_inner_loop_does_not_call_the_loss():
    marked = lambda z, batch: jnp.mean(jnp.sin(z))
    optimizer = stochopt.target_surrogate(
        lambda x, batch: jnp.exp(x), marked, inner_optimizer=optax.sgd(0.1), num_inner=20
    )
    x = jnp.ones(3)
    jaxpr = jax.make_jaxpr(lambda s: optimizer.update(None, s, x, batch=0.0))(optimizer.init(x))
    found = set(primitives(jaxpr.jaxpr))
    assert "exp" in found
    assert not found & {"sin", "cos"}
    assert "cos" in str(jaxpr)


def search(loss, previous=1.0, count=1, **options):
    """Armijo's search along the loss of a step size whose slope at zero is minus one."""
    along = AlongTargets(loss, loss(jnp.zeros([])), jnp.ones([]))
    rule = armijo(**options)
    step, number = rule.find(along, jnp.asarray(previous), jnp.asarray(count))
    return float(step), int(number)


def test_search_ends_at_the_first_step_that_decreases_enough():
    curved = lambda step: -step + 5 * step**2  # enough up to a tenth, for one half
    step, number = search(curved)
    assert 0.09 <= step <= 0.1
    assert step == pytest.approx(2 * 0.9 ** (number - 1))
    assert search(curved, previous=0.04) == (0.08, 1)  # doubled, and accepted at once
    assert search(curved, previous=9.0, count=0, initial=0.05) == (0.05, 1)
    step, _ = search(curved, sufficient_decrease=0.1)
    assert 0.9 * 0.18 <= step <= 0.18


def test_search_stays_within_its_limits():
    assert search(lambda step: step)[0] == 1e-4
    assert search(lambda step: -step, previous=8000.0)[0] == 1e4
    assert search(lambda step: step, max_tries=3) == (pytest.approx(2 * 0.81), 3)
    step, _ = search(lambda step: jnp.where(step > 0.5, jnp.nan, -step))
    assert 0.45 <= step <= 0.5


def test_search_in_an_update_is_carried_on():
    optimizer = stochopt.target_surrogate(
        predict, target_loss, inner_optimizer=optax.sgd(0.3), target_step=armijo(200.0), num_inner=5
    )
    (before, first), (_, second) = run(optimizer, START, 2)
    # Every step size up to the inverse of the smoothness passes.
    assert 0.9 * 4 * 12 < first.step_size < 200
    assert second.step_size <= 2 * first.step_size
    assert second.num_target_values > first.num_target_values > 0
    z = predict(before, None)
    slope = jax.grad(target_loss)(z, 0.0)
    fell = target_loss(z, 0.0) - target_loss(z - second.step_size * slope, 0.0)
    assert fell >= 0.5 * second.step_size * jnp.sum(slope**2)


def test_a_line_search_of_optax_gets_the_surrogate():
    """It evaluates the surrogate at other points: a wrong value would end in tiny steps."""
    search = optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(30))
    optimizer = stochopt.target_surrogate(
        predict, target_loss, inner_optimizer=search, target_step=48.0, num_inner=20
    )
    history = run(optimizer, START, 10)
    values = [float(state.estimated_value) for _, state in history]
    assert np.all(np.diff(values) < 0)
    assert values[-1] < 0.5 * values[0]


def test_bad_arguments_are_named():
    make = lambda predict=predict, loss=target_loss, **options: stochopt.target_surrogate(
        predict, loss, inner_optimizer=optax.sgd(0.1), **options
    )
    update = lambda optimizer, **extras: optimizer.update(
        None, optimizer.init(START), START, **extras
    )
    for name, value in (("target_step", 0), ("target_step", -1.0), ("num_inner", 0)):
        with pytest.raises(ValueError, match=f"^{name} must "):
            make(**{name: value})
    with pytest.raises(ValueError, match=r"^target_step must "):
        given(0.0)
    with pytest.raises(TypeError, match=r"^predict must be a function predict\(params, batch\)"):
        make(predict=lambda x: x)
    with pytest.raises(TypeError, match=r"^target_loss must be a function target_loss\(targets, "):
        make(loss=lambda x: x)
    with pytest.raises(ValueError, match=r"^target_loss must return a scalar"):
        update(make(loss=lambda z, batch: z), batch=0.0)
    with pytest.raises(TypeError, match=r"^predict must return floating-point arrays, got int"):
        update(make(predict=lambda x, batch: jnp.arange(3)), batch=0.0)
    with pytest.raises(TypeError, match="'batch'"):
        update(make())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("initial", 0), ("expansion", 0.9), ("shrink", 1), ("shrink", 0),
        ("sufficient_decrease", 1), ("lower", 0), ("upper", 0), ("max_tries", 0),
    ],
)  # fmt: skip
def test_bad_constants_of_the_search_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must "):
        armijo(**{name: value})
