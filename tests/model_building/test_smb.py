"""SMB and SMBi against published numbers, a NumPy reference, and their properties."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from references import smb as reference

from stochopt import smb, smb_independent

each_variant = pytest.mark.parametrize("factory", [smb, smb_independent])
with_x64 = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make_step(optimizer, loss):
    """``step(params, state) -> (updates, state, value)``, compiled."""

    @jax.jit
    def step(params, state):
        value, g = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(g, state, params, value=value, value_fn=loss)
        return updates, state, value

    return step


def run(optimizer, loss, params, steps):
    """``(params, state, value before)`` after each step."""
    state, step, history = optimizer.init(params), make_step(optimizer, loss), []
    for _ in range(steps):
        updates, state, value = step(params, state)
        params = optax.apply_updates(params, updates)
        history.append((params, state, value))
    return history


# Published numbers: problem S of the specification.
S0 = {"b": np.array([2.0]), "w": np.array([1.0, -0.5])}


def loss_s(p):
    w, b = p["w"], p["b"]
    return 0.5 * (w[0] ** 2 + 10 * w[1] ** 2) + 2 * b[0] ** 2 + 0.25 * (w[0] * b[0]) ** 2


def gradient_s(leaves):
    (b,), (w1, w2) = leaves
    return [np.array([4 * b + 0.5 * w1**2 * b]), np.array([w1 + 0.5 * w1 * b**2, 10 * w2])]


# fmt: off
GOLDEN = {  # settings, then step: (F before or None, w1, w2, b)
    "alpha 1": ({"learning_rate": 1.0}, {
        1: (10.75, 1.49424341182, 0.184691294158, 1.27086743044),
        2: (5.41868038747, 1.21476025167, 0.243650128973, 0.658487037529),
        3: (2.06182007253, 0.580592225176, 0.295847221245, 0.325754511946),
        4: (0.827346151667, 0.294761674073, 0.181315062034, 0.176395880248)}),
    "alpha 0.5": ({"learning_rate": 0.5}, {
        1: (10.75, 0.437428648754, -0.402464387906, 1.1512264825),
        2: (3.6196027213, 0.268025729038, -0.231308708561, 0.68514817858),
        3: (1.25072421038, 0.18776585304, -0.130517803618, 0.410307403876)}),
    "alpha 0.1": ({"learning_rate": 0.1}, {
        1: (10.75, 0.7, 0.0, 1.1),
        2: (2.813225, 0.58765, 0.0, 0.63305),
        3: (1.00876906713, 0.517109895472, 0.0, 0.368899362332)}),
    "independent": ({"learning_rate": 1.0, "independent": True}, {
        1: (10.75, 1.0, -0.5, 2.0),
        2: (10.75, 1.49424341182, 0.184691294158, 1.27086743044),
        3: (5.41868038747, 1.49424341182, 0.184691294158, 1.27086743044),
        4: (5.41868038747, 1.21476025167, 0.243650128973, 0.658487037529)}),
    "automatic": ({"learning_rate": 1.0, "adjust_every": 2}, {
        2: (5.41868038747, 1.21476025167, 0.243650128973, 0.658487037529),
        3: (2.06182007253, 0.616579767122, 0.278943162451, 0.329347012871),
        4: (0.806379878465, 0.340305116296, 0.174704910184, 0.179736189935)}),
    "automatic independent": ({"learning_rate": 1.0, "adjust_every": 2, "independent": True}, {
        4: (5.41868038747, 1.056458741, 0.354324902092, 0.639208537619),
        6: (2.1169649865, 0.574204236596, 0.259973861227, 0.334119728365)}),
}
# Learning rate after the given update.
RATES = {"automatic": {1: 1.0, 2: 0.9, 3: 0.9, 4: 0.81},
         "automatic independent": {1: 1.0, 2: 0.9, 3: 0.9, 4: 0.81, 5: 0.81, 6: 0.729}}
# fmt: on
GOLDEN_RTOL = 1e-9


def agrees(found, row):
    """Whether ``(F, w1, w2, b)`` equals the published row."""
    return np.allclose(found, row, rtol=GOLDEN_RTOL, atol=1e-15)


def golden_run_of_the_reference(options, steps, **variant):
    options = {**options, **variant}
    method = reference.Smb(options.pop("learning_rate"), **options)
    value_fn = lambda x: loss_s(dict(zip("bw", x, strict=True)))
    x, found = [S0["b"], S0["w"]], {}
    for t in range(1, steps + 1):
        value = value_fn(x)
        x = method.step(x, value_fn, gradient_s)
        found[t] = (value, *x[1], *x[0])
    return found


@pytest.mark.parametrize("name", GOLDEN)
def test_published_numbers(x64, name):
    options, rows = GOLDEN[name]
    options = dict(options)
    factory = smb_independent if options.pop("independent", False) else smb
    history = run(factory(**options), loss_s, jax.tree.map(jnp.asarray, S0), max(rows))
    for t, row in rows.items():
        params, _, value = history[t - 1]
        assert agrees((value, *params["w"], *params["b"]), row)
    for t, rate in RATES.get(name, {}).items():
        state = history[t - 1][1]
        np.testing.assert_allclose(options["learning_rate"] * state.adjustment, rate, rtol=1e-12)


@pytest.mark.parametrize("step", [reference.published_step, reference.solved_step])
@pytest.mark.parametrize("name", GOLDEN)
def test_references_give_the_published_numbers(name, step):
    options, rows = GOLDEN[name]
    found = golden_run_of_the_reference(options, max(rows), step=step)
    assert all(agrees(found[t], row) for t, row in rows.items())


@pytest.mark.parametrize("variant", [{"flip_y": True}, {"use_eta": False}])
@pytest.mark.parametrize("name", ["alpha 1", "alpha 0.5", "independent", "automatic"])
def test_control_wrong_models_fail(name, variant):
    options, rows = GOLDEN[name]
    with np.errstate(all="ignore"):  # without descent some of them overflow
        found = golden_run_of_the_reference(options, max(rows), **variant)
    assert not agrees(found[max(rows)], rows[max(rows)])


# Step by step against the references.

SHAPES = {"a": (2, 3), "b": (), "c": {"d": (4,), "e": (1, 2)}}


class Objective:
    """Quadratics with a coupling of all leaves, on a list of arrays; not convex."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        leaves, self.treedef = jax.tree.flatten(SHAPES, is_leaf=lambda x: isinstance(x, tuple))
        draw = lambda: [rng.standard_normal(s) for s in leaves]
        self.start, self.center = draw(), draw()
        self.curvature = [np.exp(x) for x in draw()]
        self.coupling = [0.5 * x for x in draw()]

    def value(self, x, batch, module=np):
        q, total = 0.0, 0.0
        for v, c, d, w in zip(x, self.center, self.curvature, self.coupling, strict=True):
            total, q = total + 0.5 * module.sum(d * (v - c - batch) ** 2), q + module.sum(w * v)
        return total + module.cos(2 * q)

    def gradient(self, x, batch):
        q = sum(np.sum(w * v) for v, w in zip(x, self.coupling, strict=True))
        terms = zip(x, self.center, self.curvature, self.coupling, strict=True)
        return [d * (v - c - batch) - 2 * np.sin(2 * q) * w for v, c, d, w in terms]


def decaying(count):
    return 2.0 / (1 + count) ** 0.5


SETTINGS = {
    "short steps": {"learning_rate": 0.3},
    "strict test": {"learning_rate": 0.2, "eta": 0.7, "sufficient_decrease": 0.4},
    "schedule": {"learning_rate": decaying},
    "automatic": {
        "learning_rate": 0.5,
        "adjust_every": 4,
        "adjust_fraction": 0.4,
        "adjust_factor": 0.7,
        "max_learning_rate": 1.5,
    },
    "automatic on a schedule": {"learning_rate": decaying, "adjust_every": 3},
    "one group": {"learning_rate": 0.4, "groups": [[0, 1, 2, 3]]},
    "groups": {"learning_rate": 0.4, "groups": [[0], [1], [2, 3]]},
}
GROUP_FNS = {"one group": lambda path: "all", "groups": lambda path: path[0]}


@pytest.mark.parametrize("name", SETTINGS)
@each_variant
def test_thirty_steps_equal_the_reference(x64, factory, name):
    objective = Objective(seed=3)
    options = dict(SETTINGS[name])
    independent = factory is smb_independent
    method = reference.Smb(**options, independent=independent)
    options.pop("groups", None)
    optimizer = factory(**options, group_fn=GROUP_FNS.get(name))
    loss = lambda params, batch: objective.value(jax.tree.leaves(params), batch, jnp)

    @jax.jit
    def step(params, state, batch):
        value, g = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(g, state, params, value=value, value_fn=loss, batch=batch)
        return optax.apply_updates(params, updates), state

    params = objective.treedef.unflatten([jnp.asarray(x) for x in objective.start])
    state = optimizer.init(params)
    gradients, outcomes = 0, set()
    for batch in np.random.default_rng(4).standard_normal(30):
        was_pending = method.pending is not None
        # From the library's iterate, so that rounding is not amplified by the dynamics.
        expected = method.step(
            [np.asarray(x) for x in jax.tree.leaves(params)],
            functools.partial(objective.value, batch=batch),
            functools.partial(objective.gradient, batch=batch),
        )
        params, state = step(params, state, batch)
        for a, b in zip(jax.tree.leaves(params), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(state.adjustment, method.adjustment, rtol=1e-12)
        gradients += 1 + (was_pending if independent else not method.accepted)
        assert state.num_gradients == gradients
        if independent:
            assert bool(state.pending) == (method.pending is not None)
        outcomes.add(method.accepted)
    assert outcomes >= {True, False}, "the setting should meet both branches"
    assert state.count == 30


def test_leaves_of_a_group_share_one_model(x64):
    # One group over w and b equals one leaf that holds both.
    joined = lambda x: loss_s({"w": x[:2], "b": x[2:]})
    params = jax.tree.map(jnp.asarray, S0)
    together = run(smb(1.0, group_fn=lambda path: 0), loss_s, params, 4)
    whole = run(smb(1.0), joined, jnp.concatenate([params["w"], params["b"]]), 4)
    apart = run(smb(1.0), loss_s, params, 4)
    for (a, _, _), (b, _, _) in zip(together, whole, strict=True):
        np.testing.assert_allclose(np.concatenate([a["w"], a["b"]]), b, rtol=1e-12)
    assert not np.allclose(together[0][0]["w"], apart[0][0]["w"], rtol=1e-3)


def test_group_fn_sees_key_paths():
    seen = []
    params = {"layer": {"w": jnp.ones(2), "b": jnp.ones(1)}}
    optimizer = smb(group_fn=lambda path: seen.append(jax.tree_util.keystr(path)))
    loss = lambda p: jnp.sum(p["layer"]["w"] ** 2) + jnp.sum(p["layer"]["b"] ** 2)
    run(optimizer, loss, params, 1)
    assert set(seen) == {"['layer']['w']", "['layer']['b']"}


# The acceptance test, and what happens without numbers.


@with_x64
@given(
    slope=st.floats(-5, 5),
    curvature=st.floats(-2, 20),
    alpha=st.floats(0.01, 5),
    decrease=st.floats(0.01, 0.9),
)
def test_step_is_accepted_if_and_only_if_the_loss_falls_enough(
    x64, slope, curvature, alpha, decrease
):
    trial, value = -alpha * slope, 0.0
    bound = value - decrease * alpha * slope**2
    trial_value = slope * trial + curvature / 2 * trial**2
    assume(abs(trial_value - bound) > 1e-9)
    update, state = one_dimensional(slope, curvature, alpha, decrease)
    accepted = trial_value <= bound
    assert state.num_model_steps == (not accepted)
    assert state.num_gradients == (1 if accepted else 2)
    if accepted:
        np.testing.assert_allclose(update, trial, rtol=1e-14)
    else:
        y = curvature * trial
        expected = reference.exact_step([slope], [y], alpha, 0.99)[0]
        np.testing.assert_allclose(update, expected, rtol=1e-9, atol=1e-13)


@jax.jit
def one_dimensional(slope, curvature, alpha, decrease):
    x = jnp.zeros([], slope.dtype)
    loss = lambda x: slope * x + curvature / 2 * x**2
    optimizer = smb(alpha, sufficient_decrease=decrease)
    return optimizer.update(slope, optimizer.init(x), x, value=0.0, value_fn=loss)


def test_tiny_gradient_passes_the_test():
    x, g = jnp.zeros(2), jnp.full(2, 1e-9)
    loss = lambda x: 1.0 + jnp.sum(x) * 0 + 1e6 * jnp.sum(jnp.abs(x))
    update, state = smb(0.5).update(g, smb().init(x), x, value=0.0, value_fn=loss)
    np.testing.assert_allclose(update, -0.5e-9, rtol=1e-6)
    assert state.num_model_steps == 0


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_trial_loss_that_is_no_number_shrinks_the_step(bad):
    # Finite at the start; not a number, gradient included, wherever the trial step leads.
    loss = lambda x: jnp.sum(x) + jnp.where(jnp.all(x == 1.0), 0.0, bad * jnp.sum(x))
    x, g = jnp.ones(3), jnp.asarray([1.0, -2.0, 3.0])
    update, state = smb(0.5).update(g, smb().init(x), x, value=3.0, value_fn=loss)
    np.testing.assert_allclose(update, -0.1 * 0.5 * g, rtol=1e-6)
    assert state.num_model_steps == 1
    assert np.all(np.isfinite(jax.tree.leaves(state)))


def test_blind_leaf_does_not_harm_its_neighbour():
    # The gradient of a at the trial point is not finite, that of b is.
    loss = lambda p: jnp.sqrt(p["a"]) + 5 * jnp.sum(p["b"] ** 2)
    params = {"a": jnp.asarray(0.25), "b": jnp.asarray([1.0, 1.0])}
    optimizer = smb(1.0)
    value, g = jax.value_and_grad(loss)(params)  # g = (1, (10, 10)); trial a = -0.75
    update, _ = optimizer.update(g, optimizer.init(params), params, value=value, value_fn=loss)
    np.testing.assert_allclose(update["a"], -0.1, rtol=1e-6)
    g_b, y_b = np.full(2, 10.0), np.full(2, -100.0)
    expected = reference.solved_step(g_b, y_b, 1.0, 0.99)
    np.testing.assert_allclose(update["b"], expected, rtol=1e-4)


def test_independent_step_without_numbers_shrinks_the_rejected_gradient():
    loss = lambda x, sign: sign * jnp.sum(x) + jnp.where(jnp.all(x == 0.0), 0.0, jnp.nan * x[0])
    optimizer = smb_independent(0.5)
    x, h, g = jnp.zeros(2), jnp.asarray([1.0, 2.0]), jnp.asarray([-3.0, 4.0])
    state = optimizer.init(x)
    first, state = optimizer.update(h, state, x, value=0.0, value_fn=loss, sign=1.0)
    assert state.pending
    np.testing.assert_array_equal(first, 0)
    np.testing.assert_array_equal(state.rejected_gradient, h)
    second, state = optimizer.update(g, state, x, value=0.0, value_fn=loss, sign=1.0)
    assert not state.pending
    np.testing.assert_allclose(second, -0.1 * 0.5 * h, rtol=1e-6)
    np.testing.assert_array_equal(state.rejected_gradient, 0)


def test_independent_step_multiplies_the_rejected_gradient(x64):
    # Two different batches: the matrix comes from the second, the gradient from the first.
    optimizer = smb_independent(1.0)
    curvature = np.array([[4.0, 1.0], [1.0, 9.0]])
    loss = lambda x, center: (x - center) @ curvature @ (x - center) / 2
    x, state = jnp.asarray([1.0, 2.0]), optimizer.init(jnp.zeros(2))
    gradients = []
    for center in np.array([[0.0, 0.5], [-1.0, 3.0]]):
        value, g = jax.value_and_grad(loss)(x, center)
        gradients.append(np.asarray(g))
        update, state = optimizer.update(g, state, x, value=value, value_fn=loss, center=center)
    h, g = gradients
    expected = reference.solved_step(g, -curvature @ g, 1.0, 0.99, h)
    np.testing.assert_allclose(update, expected, rtol=1e-12)


def test_leaf_with_zero_gradient_stays(x64):
    # The published coefficients divide by zero there.
    loss = lambda p: 5 * jnp.sum(p["a"] ** 2) + 0.0 * jnp.sum(p["b"])
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    for factory in (smb, smb_independent):
        moved, state, _ = run(factory(1.0), loss, params, 6)[-1]
        np.testing.assert_array_equal(moved["b"], 1.0)
        assert np.all(np.isfinite(moved["a"]))
        assert state.num_gradients > 6, "a model step was made"


def test_independent_step_on_a_new_batch_without_gradient(x64):
    loss = lambda x, scale: scale * jnp.sum(x**2) / 2
    optimizer, x = smb_independent(1.0), jnp.asarray([1.0, 2.0])
    state = optimizer.init(x)
    _, state = optimizer.update(9 * x, state, x, value=22.5, value_fn=loss, scale=9.0)
    update, state = optimizer.update(0 * x, state, x, value=0.0, value_fn=loss, scale=0.0)
    np.testing.assert_allclose(update, -0.99 * 9 * x, rtol=1e-14)


@functools.cache
def scaled_run(factory, kind, alpha, steps):
    """Parameters and state after ``steps`` steps on a loss times ``scale``; compiled once."""
    power = {"linear": 1, "quadratic": 2}[kind]
    optimizer = factory(alpha)

    @jax.jit
    def whole(scale):
        # The other leaf makes sure that trial steps of length one are rejected.
        loss = lambda p: scale * jnp.sum(p["a"] ** power) + 100 * jnp.sum(p["b"] ** 2)
        params = {"a": jnp.asarray([1.0, -0.5]), "b": jnp.ones(2)}
        state = optimizer.init(params)
        for _ in range(steps):
            value, g = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(g, state, params, value=value, value_fn=loss)
            params = optax.apply_updates(params, updates)
        return params, state

    return whole


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-22, 1e-15, 1e15, 1e18, 1e20, 1e30])
@pytest.mark.parametrize(
    ("kind", "alpha"), [("linear", 1.0), ("linear", 1e-15), ("quadratic", 1.0)]
)
@each_variant
def test_gradients_near_the_limits_of_float32(factory, kind, alpha, scale):
    steps = 1 if factory is smb else 2  # until it has moved
    result = scaled_run(factory, kind, alpha, steps)(jnp.float32(scale))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(result))


# What update is given.


def test_arguments_of_value_fn_are_taken_by_name(x64):
    # Without batch the trial loss would be another one, and the step too.
    loss = lambda x, batch, *, weight: weight * jnp.sum((x - batch) ** 2)
    x, batch, weight = jnp.ones(2), jnp.asarray([3.0, -1.0]), 2.0
    value, g = jax.value_and_grad(loss)(x, batch, weight=weight)
    optimizer = smb(1.0)
    common = {"value": value, "value_fn": loss, "batch": batch, "weight": weight}
    named, _ = optimizer.update(g, optimizer.init(x), x, **common)
    with_others, _ = optimizer.update(g, optimizer.init(x), x, **common, unknown=object())
    closed, _ = optimizer.update(
        g, optimizer.init(x), x, value=value, value_fn=lambda x: loss(x, batch, weight=weight)
    )
    swallowing, _ = optimizer.update(
        g, optimizer.init(x), x, **{**common, "value_fn": lambda x, **kw: loss(x, **kw)}
    )
    for update in (with_others, closed, swallowing):
        np.testing.assert_array_equal(named, update)
    other, _ = optimizer.update(g, optimizer.init(x), x, **{**common, "batch": -batch})
    assert not np.allclose(named, other)


def test_default_of_value_fn_holds_when_nothing_is_given(x64):
    loss = lambda x, batch=3.0: jnp.sum((x - batch) ** 2)
    x, optimizer = jnp.ones(2), smb(1.0)
    value, g = jax.value_and_grad(loss)(x)
    a, _ = optimizer.update(g, optimizer.init(x), x, value=value, value_fn=loss)
    b, _ = optimizer.update(g, optimizer.init(x), x, value=value, value_fn=loss, batch=3.0)
    np.testing.assert_array_equal(a, b)


@each_variant
def test_grad_replaces_updates(x64, factory):
    params = jax.tree.map(jnp.asarray, S0)
    value, g = jax.value_and_grad(loss_s)(params)
    optimizer, plain = factory(1.0), factory(1.0)
    state_a, state_b = optimizer.init(params), plain.init(params)
    for _ in range(2):
        a, state_a = optimizer.update(
            jax.tree.map(lambda x: x * jnp.nan, g),
            state_a,
            params,
            value=value,
            value_fn=loss_s,
            grad=g,
        )
        b, state_b = plain.update(g, state_b, params, value=value, value_fn=loss_s)
        jax.tree.map(np.testing.assert_array_equal, a, b)


@each_variant
def test_missing_arguments_are_named(factory):
    x, optimizer = jnp.ones(2), factory()
    state, name = optimizer.init(x), factory.__name__
    loss = lambda x: jnp.sum(x)
    with pytest.raises(TypeError, match=rf"{name}: .*'value'; .*value=loss, value_fn=loss_fn"):
        optimizer.update(x, state, x, value_fn=loss)
    with pytest.raises(TypeError, match=rf"{name}: .*'value_fn'; .*value=loss, value_fn=loss_fn"):
        optimizer.update(x, state, x, value=1.0)
    with pytest.raises(ValueError, match=rf"{name}: .*params are missing"):
        optimizer.update(x, state, value=1.0, value_fn=loss)


@pytest.mark.parametrize(
    ("name", "value", "interval"),
    [
        ("learning_rate", -0.5, "[0, inf)"),
        ("learning_rate", float("nan"), "[0, inf)"),
        ("eta", 0.0, "(0, 1)"),
        ("eta", 1.0, "(0, 1)"),
        ("sufficient_decrease", 0.0, "(0, 1)"),
        ("sufficient_decrease", 1.0, "(0, 1)"),
        ("adjust_fraction", 1.1, "[0, 1]"),
        ("adjust_factor", 1.0, "(0, 1)"),
        ("max_learning_rate", 0.0, "(0, inf)"),
    ],
)
@each_variant
def test_hyper_parameters_out_of_range(factory, name, value, interval):
    with pytest.raises(ValueError, match="must lie in") as error:
        factory(**{name: value})
    assert f"{name} must lie in {interval}, got {value}" in str(error.value)


@pytest.mark.parametrize("value", [0, -1, 2.5])
@each_variant
def test_period_must_be_a_whole_number(factory, value):
    with pytest.raises(ValueError, match=rf"adjust_every must be a whole number.*{value}"):
        factory(adjust_every=value)


@each_variant
def test_traced_hyper_parameters_pass(x64, factory):
    x, g = jnp.ones(2), 18 * jnp.ones(2)
    loss = lambda x: 9 * jnp.sum(x**2)

    def two_steps(alpha, eta, decrease, fraction, factor, largest, every):
        optimizer = factory(
            alpha,
            eta=eta,
            sufficient_decrease=decrease,
            adjust_every=every,
            adjust_fraction=fraction,
            adjust_factor=factor,
            max_learning_rate=largest,
        )
        state = optimizer.init(x)
        _, state = optimizer.update(g, state, x, value=18.0, value_fn=loss)
        update, state = optimizer.update(g, state, x, value=18.0, value_fn=loss)
        return update, state.adjustment

    arguments = (1.0, 0.9, 0.2, 0.05, 0.8, 20.0, 2)
    traced, plain = jax.jit(two_steps)(*arguments), two_steps(*arguments)
    np.testing.assert_allclose(traced[0], plain[0], rtol=1e-14)
    np.testing.assert_allclose(traced[1], 0.8, rtol=1e-14)


# Properties of the whole method.


@each_variant
def test_names_and_order_do_not_matter(x64, factory):
    rng = np.random.default_rng(0)
    leaves = [jnp.asarray(rng.standard_normal(s)) for s in [(2,), (3, 1), ()]]
    scales = [np.exp(rng.standard_normal(x.shape)) * 5 for x in leaves]

    def final(names):
        def loss(p):
            values = [p[name] for name in names]
            squares = sum(jnp.sum(d * v**2) for d, v in zip(scales, values, strict=True))
            return squares / 2 + sum(jnp.sum(v) for v in values) ** 2 / 4

        history = run(factory(1.0), loss, dict(zip(names, leaves, strict=True)), 4)
        return [history[-1][0][name] for name in names]

    for a, b in zip(final("abc"), final("zba"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@each_variant
def test_tree_structure_does_not_matter(x64, factory):
    flat = lambda p: {"b": p["x"][1]["y"], "w": p["x"][0]}
    params = jax.tree.map(jnp.asarray, S0)
    nested = {"x": (params["w"], {"y": params["b"], "none": None}), "empty": ()}
    with_none = run(factory(1.0), lambda p: loss_s(flat(p)), nested, 4)
    plain = run(factory(1.0), loss_s, params, 4)
    for (a, _, _), (b, _, _) in zip(with_none, plain, strict=True):
        assert a["x"][1]["none"] is None
        jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-12), flat(a), b)


@each_variant
def test_shape_of_a_leaf_does_not_matter(x64, factory):
    curvature = np.array([1.0, 5.0, 0.2, 30.0])
    loss = lambda x: jnp.sum(curvature * jnp.ravel(x) ** 2) / 2 + jnp.sum(x) ** 4
    x = jnp.asarray([1.0, -2.0, 0.5, 0.3])
    a, b = (run(factory(1.0), loss, x.reshape(shape), 5) for shape in [(4,), (2, 1, 2)])
    np.testing.assert_allclose(np.ravel(a[-1][0]), np.ravel(b[-1][0]), rtol=1e-12)


@each_variant
def test_complex_leaf_equals_its_real_pair(x64, factory):
    # optax's convention: for complex leaves the gradient is the conjugate of jax.grad's.
    real_loss = lambda x: jnp.sum(jnp.array([[1.0, 5.0], [20.0, 0.5]]) * x**2) + jnp.sum(x) ** 2
    loss = lambda z: real_loss(jnp.stack([z.real, z.imag]))
    start = np.array([[1.0, -0.5], [0.3, 2.0]])
    z, optimizer = jnp.asarray(start[0] + 1j * start[1]), factory(1.0)

    @jax.jit
    def step(z, state):
        value, g = jax.value_and_grad(loss)(z)
        updates, state = optimizer.update(jnp.conj(g), state, z, value=value, value_fn=loss)
        return optax.apply_updates(z, updates), state

    state, pair = optimizer.init(z), run(factory(1.0), real_loss, jnp.asarray(start), 6)
    for expected, expected_state, _ in pair:
        z, state = step(z, state)
        np.testing.assert_allclose(np.stack([z.real, z.imag]), expected, rtol=1e-9)
        assert state.num_gradients == expected_state.num_gradients
    assert state.num_gradients > 6, "a model step was made"


@each_variant
def test_half_precision_leaves(factory):
    loss = lambda x: 9 * jnp.sum(x.astype(jnp.float32) ** 2)
    single = run(factory(1.0), loss, jnp.asarray([1.0, -0.5]), 4)
    half = run(factory(1.0), loss, jnp.asarray([1.0, -0.5], jnp.bfloat16), 4)
    assert half[-1][0].dtype == jnp.bfloat16
    assert half[-1][1].adjustment.dtype == jnp.float32
    np.testing.assert_allclose(np.float32(half[-1][0]), single[-1][0], rtol=0.1, atol=0.02)


@with_x64
@given(seed=st.integers(0, 2**16), alpha=st.floats(1e-3, 1e3), eta=st.floats(0.05, 0.999))
def test_update_descends_and_never_exceeds_the_trial_step(x64, seed, alpha, eta):
    rng = np.random.default_rng(seed)
    hessian = rng.standard_normal((4, 4))
    g = rng.standard_normal(4)
    update, state = quadratic_step(hessian @ hessian.T, g, alpha, eta)
    limit = alpha * np.linalg.norm(g) * (eta if state.num_model_steps else 1.0)
    assert np.linalg.norm(update) <= limit * (1 + 1e-9)
    assert update @ g < 0


@jax.jit
def quadratic_step(hessian, g, alpha, eta):
    x, optimizer = jnp.zeros_like(g), smb(alpha, eta=eta)
    loss = lambda x: x @ g + x @ hessian @ x / 2
    return optimizer.update(g, optimizer.init(x), x, value=0.0, value_fn=loss)


def test_far_too_long_steps_become_half_newton_steps(x64):
    curvature = 7.0
    loss = lambda x: curvature * jnp.sum(x**2) / 2
    ((moved, _, _),) = run(smb(1e3), loss, jnp.asarray([1.0, -3.0]), 1)
    size = 1 / (2 * curvature + 1 / (1e3 * 0.99))
    np.testing.assert_allclose(moved, (1 - size * curvature) * np.array([1.0, -3.0]), rtol=1e-9)


@pytest.mark.parametrize(
    ("largest", "expected"), [(20.0, 1 / 0.9), (1.05, 1.0)], ids=["grows", "capped"]
)
def test_step_size_grows_when_steps_are_accepted(x64, largest, expected):
    optimizer = smb(1.0, adjust_every=3, max_learning_rate=largest)
    history = run(optimizer, lambda x: 0.01 * jnp.sum(x**2), jnp.ones(2), 4)
    rates = [float(state.step_size) for _, state, _ in history]
    np.testing.assert_allclose(rates, [1, 1, 1, expected], rtol=1e-14)
