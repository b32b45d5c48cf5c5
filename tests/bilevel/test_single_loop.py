"""Methods for one lower problem: steps by hand, closed-form optima, the memory of samples."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from stochopt import amigo, bsa, f2sa, mrbo, saba, soba, stocbio, sustain
from stochopt.bilevel import (
    FieldParams,
    adjoint_field,
    estimate_field,
    estimate_nested,
    estimate_saga_field,
    hide,
    neumann,
    randomized_neumann,
    solver_field,
)
from stochopt.problems import bilevel_finite_sum, bilevel_quadratic

DIM, LOWER_DIM = 3, 2
RNG = np.random.default_rng(0)
A = np.asarray([[1.5, 0.4], [0.4, 0.8]])
B, C, D = RNG.standard_normal((LOWER_DIM, DIM)), *RNG.standard_normal((2, LOWER_DIM))
RIDGE = 0.1
X, Y = RNG.standard_normal(DIM), RNG.standard_normal(LOWER_DIM)
ETA, TAU, TAU_P = 0.05, 0.2, 0.3


def upper(x, y, batch):
    return jnp.sum((y - batch * D) ** 2) / 2 + RIDGE * jnp.sum(x**2) / 2


def lower(x, y, batch):
    return y @ (jnp.asarray(A) @ y / 2 - jnp.asarray(B) @ x - batch * C)


def slope_of_upper(y, scale=1.0):
    return y - scale * D


def slope_of_lower(x, y, scale=1.0):
    return A @ y - B @ x - scale * C


def direction(x, p):
    return RIDGE * x + B.T @ p


@functools.partial(jax.jit, static_argnums=0)
def walk(optimizer, x, batches):
    """Points and states after each step."""

    def body(carry, extra):
        x, state = carry
        updates, state = optimizer.update(None, state, x, **extra)
        x = optax.apply_updates(x, updates)
        return (x, state), (x, state)

    return jax.lax.scan(body, (x, optimizer.init(x)), batches)[1]


def close(got, wanted, tolerance=1e-10):
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


SCALES = np.asarray([1.0, 0.5, 1.5, -1.0, 2.0])  # the draws
BATCHES = {"batch": SCALES}


# Steps by hand.


def test_soba_moves_all_three_from_the_same_point(x64):
    optimizer = soba(
        upper,
        lower,
        ETA,
        lower_learning_rate=TAU,
        adjoint_learning_rate=TAU_P,
        lower_params=jnp.asarray(Y),
    )
    points, (state, _) = walk(optimizer, jnp.asarray(X), BATCHES)
    x, y, p = X, Y, np.zeros(LOWER_DIM)
    for t, scale in enumerate(SCALES):
        x, y, p = (
            x - ETA * direction(x, p),
            y - TAU * slope_of_lower(x, y, scale),
            p - TAU_P * (A @ p - slope_of_upper(y, scale)),
        )
        close(points[t], x)
        close(state.hidden.lower_params[t], y)
        close(state.hidden.adjoint[t], p)
        if t:
            curvature = state.estimator.curvature[t]
            assert 0.5 < curvature < 1.8


def test_the_adjoint_takes_the_step_of_the_lower_variable_unless_told(x64):
    options = {"lower_learning_rate": TAU, "lower_params": jnp.asarray(Y)}
    _, (state, _) = walk(soba(upper, lower, ETA, **options), jnp.asarray(X), BATCHES)
    close(state.hidden.adjoint[0], TAU * slope_of_upper(Y, SCALES[0]))


def series(y, scale, num_terms, step):
    power, total = slope_of_upper(y, scale), np.zeros(LOWER_DIM)
    for _ in range(num_terms):
        total = total + step * power
        power = power - step * A @ power
    return total


@pytest.mark.parametrize("name", ["mrbo", "sustain"])
def test_mrbo_and_sustain_correct_both_directions(x64, name):
    rates = {"lower_rate": 0.3, "direction_rate": 0.4, "lower_learning_rate": TAU}
    options = {"num_terms": 3, "series_step": 0.5, "lower_params": jnp.asarray(Y)}
    optimizer = {"mrbo": mrbo, "sustain": sustain}[name](upper, lower, ETA, **rates, **options)
    points, (state, _) = walk(optimizer, jnp.asarray(X), BATCHES)
    # The random lengths, from the keys of the updates as documented.
    lengths = set()

    def candidates(x, y, scale):
        if name == "mrbo":
            return [direction(x, series(y, scale, 3, 0.5))]
        found, power = [], slope_of_upper(y, scale)
        for _ in range(3):
            found.append(direction(x, 3 * 0.5 * power))
            power = power - 0.5 * A @ power
        return found

    x, y, d_x, d_y = X, Y, None, None
    old = None
    for t, scale in enumerate(SCALES):
        gradient, field = slope_of_lower(x, y, scale), candidates(x, y, scale)
        if old is None:
            d_y, options_x = gradient, field
        else:
            d_y = gradient + 0.7 * (d_y - slope_of_lower(*old, scale))
            # The same length at both points.
            pairs = zip(field, candidates(*old, scale), strict=True)
            options_x = [now + 0.6 * (d_x - there) for now, there in pairs]
        k = int(np.argmin([np.linalg.norm(x - ETA * d - points[t]) for d in options_x]))
        lengths.add(k)
        d_x, old = options_x[k], (x, y)
        x, y = x - ETA * d_x, y - TAU * d_y
        close(points[t], x)
        close(state.hidden.lower_params[t], y)
    assert len(lengths) > 1 or name == "mrbo"


def test_f2sa_moves_both_lower_variables(x64):
    penalty = lambda t: 3.0 + t
    optimizer = f2sa(
        upper,
        lower,
        ETA,
        lower_learning_rate=TAU,
        penalized_learning_rate=0.04,
        penalty=penalty,
        lower_params=jnp.asarray(Y),
    )
    points, (state, _) = walk(optimizer, jnp.asarray(X), BATCHES)
    x, w, y = X, Y, Y
    for t, scale in enumerate(SCALES):
        weight = penalty(t)
        across = weight * B.T @ (w - y)  # the derivative of g in x is -B'y
        x, w, y = (
            x - ETA * (RIDGE * x + across),
            w - TAU * slope_of_lower(x, w, scale),
            y - 0.04 * (slope_of_upper(y, scale) + weight * slope_of_lower(x, y, scale)),
        )
        close(points[t], x)
        close(state.hidden.lower_params[t], w)
        close(state.hidden.penalized_lower_params[t], y)


def test_an_independent_draw_serves_the_parameters_only(x64):
    # With B in the draw: only the direction of x may read the second one.
    def coupled(x, y, batch):
        return y @ (jnp.asarray(A) @ y / 2 - batch * (jnp.asarray(B) @ x) - C)

    estimate = estimate_field(adjoint_field(upper, coupled))
    hidden = adjoint_field(upper, coupled).start(jnp.asarray(Y))._replace(adjoint=jnp.asarray(D))
    joint = FieldParams(jnp.asarray(X), hidden)
    found, _ = jax.jit(estimate.update)(
        None, estimate.init(joint), joint, batch=2.0, jacobian_batch=-1.0
    )
    close(found.params, RIDGE * X - B.T @ D)
    close(found.hidden.lower_params, A @ Y - 2 * B @ X - C)
    close(found.hidden.adjoint, A @ D - slope_of_upper(Y, 2.0))


def test_the_field_form_is_the_hidden_form(x64):
    field = adjoint_field(upper, lower)
    hidden = soba(
        upper,
        lower,
        ETA,
        lower_learning_rate=TAU,
        adjoint_learning_rate=TAU_P,
        lower_params=jnp.asarray(Y),
    )
    labels = FieldParams("x", type(field.start(Y))("y", "p"))
    rates = {"x": ETA, "y": TAU, "p": TAU_P}
    visible = optax.chain(
        estimate_field(field),
        optax.partition({name: optax.sgd(rate) for name, rate in rates.items()}, labels),
    )
    points, (state, _) = walk(hidden, jnp.asarray(X), BATCHES)
    start = FieldParams(jnp.asarray(X), field.start(jnp.asarray(Y)))
    joint, _ = walk(visible, start, BATCHES)
    close(joint.params, points, 1e-12)
    jax.tree.map(lambda a, b: close(a, b, 1e-12), joint.hidden, state.hidden)


def test_mrbo_with_rates_of_one_is_the_plain_field(x64):
    solver = neumann(4, 0.5)
    field = solver_field(upper, lower, solver)
    plain = optax.chain(
        hide(estimate_field(field), field.start(jnp.asarray(Y)), [optax.sgd(TAU)]),
        optax.scale(-ETA),
    )
    options = {"num_terms": 4, "series_step": 0.5, "lower_params": jnp.asarray(Y)}
    make = lambda rate: mrbo(
        upper,
        lower,
        ETA,
        lower_learning_rate=TAU,
        lower_rate=rate,
        direction_rate=rate,
        **options,
    )
    runs = [walk(o, jnp.asarray(X), BATCHES)[0] for o in (plain, make(1.0))]
    close(runs[1], runs[0], 1e-12)


def test_nested_loops_start_from_where_they_ended(x64):
    # Two lower steps, then three adjoint steps, then the direction with the new variables.
    estimate = estimate_nested(
        upper,
        lower,
        sample=lambda key: jnp.asarray(0.5),
        lower_params=jnp.asarray(Y),
        lower_optimizer=optax.sgd(TAU),
        num_lower_steps=2,
        adjoint_optimizer=optax.sgd(TAU_P),
        num_adjoint_steps=3,
    )
    points, (state, _) = walk(optax.chain(estimate, optax.scale(-ETA)), jnp.asarray(X), BATCHES)
    x, y, p = X, Y, np.zeros(LOWER_DIM)
    for t in range(len(SCALES)):
        for _ in range(2):
            y = y - TAU * slope_of_lower(x, y, 0.5)
        for _ in range(3):
            p = p - TAU_P * (A @ p - slope_of_upper(y, 0.5))
        x = x - ETA * direction(x, p)
        close(points[t], x)
        close(state.lower_params[t], y)
        close(state.adjoint[t], p)


def test_inner_loops_draw_anew_in_every_step_and_update(x64):
    # The lower variable adds up what its loop draws.
    add_up = lambda x, y, batch: jnp.sum(y) * batch
    estimate = estimate_nested(
        lambda x, y, batch: jnp.sum(x**2) / 2 + jnp.sum(y**2) / 2,
        lambda x, y, batch: add_up(x, y, batch) + 1e-3 * jnp.sum(y**2) / 2,
        sample=lambda key: jax.random.normal(key),
        lower_params=jnp.zeros(1),
        lower_optimizer=optax.sgd(1.0),
        num_lower_steps=1,
        solver=neumann(2, 0.5),
    )
    twice = estimate_nested(
        lambda x, y, batch: jnp.sum(x**2) / 2 + jnp.sum(y**2) / 2,
        lambda x, y, batch: add_up(x, y, batch),
        sample=lambda key: jax.random.normal(key),
        lower_params=jnp.zeros(1),
        lower_optimizer=optax.sgd(1.0),
        num_lower_steps=2,
        solver=neumann(1, 0.5),
    )
    batches = {"batch": np.ones(6)}
    _, state = walk(estimate, jnp.asarray(X), batches)
    steps = np.diff(state.lower_params[:, 0], prepend=0.0)
    assert len(set(np.round(steps, 6))) == 6
    _, state = walk(twice, jnp.asarray(X), batches)
    sums = -np.diff(state.lower_params[:, 0], prepend=0.0)
    # Were both draws of an update the same, its sum would be twice one of the single draws.
    assert not np.any(np.isclose(sums, -2 * steps, atol=2e-2))


# Closed-form optima.


class Case(NamedTuple):
    """A method on a problem without noise."""

    make: object
    learning_rate: float
    num_steps: int
    options: dict


def quadratic():
    return bilevel_quadratic(num_blocks=1, num_sampled=1, dimension=2, noise=0.0, ridge=0.2, seed=3)


SERIES = {"num_terms": 160, "series_step": 0.25}
WITHOUT_NOISE = {
    "soba": Case(soba, 0.2, 800, {}),
    "amigo": Case(amigo, 0.5, 300, {}),
    "stocbio": Case(stocbio, 0.5, 300, SERIES),
    "mrbo": Case(mrbo, 0.2, 600, SERIES),
    "saba": Case(saba, 0.2, 800, {"num_samples": 1}),
}


def noiseless(name, lower_of=lambda lower: lower):
    """Squared distance from the closed-form optimum at the start and at the end."""
    problem, case = quadratic(), WITHOUT_NOISE[name]
    one = lambda oracle: lambda x, y, batch: oracle(x, y, jax.tree.map(lambda b: b[0], batch))
    options = {"lower_learning_rate": 0.2, "lower_params": problem.lower_params} | case.options
    draw = problem.sample(jax.random.key(0))
    if name in ("amigo", "stocbio"):
        options["sample"] = problem.sample
    optimizer = case.make(
        one(problem.upper), one(lower_of(problem.lower)), case.learning_rate, **options
    )
    extra = {"sample_indices": (jnp.int32(0), jnp.int32(0))} if name == "saba" else {}
    start = problem.init(jax.random.key(0))

    @jax.jit
    def run():
        def body(carry, _):
            x, state = carry
            updates, state = optimizer.update(None, state, x, batch=draw, **extra)
            return (optax.apply_updates(x, updates), state), None

        return jax.lax.scan(body, (start, optimizer.init(start)), length=case.num_steps)[0][0]

    distance = lambda x: float(problem.metrics(x)["squared_distance"])
    return distance(start), distance(run())


@pytest.mark.parametrize("name", WITHOUT_NOISE)
def test_without_noise_the_optimum_is_found(x64, name):
    before, after = noiseless(name)
    assert before > 0.1
    assert after < 1e-12


@pytest.mark.parametrize("name", ["soba", "stocbio"])
def test_control_without_the_cross_term_it_is_not(x64, name):
    drop = lambda lower: lambda x, y, batch: lower(jax.lax.stop_gradient(x), y, batch)
    assert noiseless(name, drop)[1] > 1e-2


def test_the_mean_direction_of_bsa_is_that_of_stocbio(x64):
    # The lengths of the series are random: the mean over keys.
    sample = lambda key: jnp.asarray(1.0)
    options = {
        "sample": sample,
        "lower_learning_rate": TAU,
        "num_lower_steps": 2,
        "num_terms": 4,
        "series_step": 0.5,
        "lower_params": jnp.asarray(Y),
    }
    x = jnp.asarray(X)
    keys = jax.random.split(jax.random.key(0), 4000)

    def updates_of(make, keys):
        optimizer = make(upper, lower, 1.0, **options)
        state = optimizer.init(x)
        one = lambda key: optimizer.update(None, state, x, batch=jnp.asarray(1.0), key=key)[0]
        return jax.jit(jax.vmap(one))(keys)

    found, wanted = updates_of(bsa, keys), updates_of(stocbio, keys[:2])
    close(wanted[0], wanted[1], 1e-12)
    deviation = np.std(found, axis=0) / np.sqrt(len(keys))
    assert np.all(np.abs(np.mean(found, axis=0) - wanted[0]) < 5 * deviation)
    values = {tuple(row) for row in np.round(np.asarray(found), 9)}
    assert len(values) == 4


# Finite sums.


def finite_sum_run(make, num_steps=1500):
    """Gradient norms along the way, under constant steps."""
    problem = bilevel_finite_sum(num_samples=10, dimension=2, lower_dimension=2, ridge=0.5)
    extra = {"num_samples": problem.num_samples} if make is saba else {}
    optimizer = make(
        problem.upper,
        problem.lower,
        0.05,
        lower_learning_rate=0.1,
        lower_params=problem.lower_params,
        **extra,
    )
    start = problem.init(jax.random.key(0)) + 1.0

    @jax.jit
    def run():
        def body(carry, key):
            x, state = carry
            batch = problem.sample(key)
            more = {"sample_indices": batch} if make is saba else {}
            updates, state = optimizer.update(None, state, x, batch=batch, **more)
            return (optax.apply_updates(x, updates), state), problem.exact["gradient"](x)

        keys = jax.random.split(jax.random.key(1), num_steps)
        return jax.lax.scan(body, (start, optimizer.init(start)), keys)[1]

    return np.linalg.norm(run(), axis=1)


def test_saba_converges_linearly_under_constant_steps_and_soba_does_not(x64):
    norms = finite_sum_run(saba)
    assert np.all(norms[1000:] < 1e-8)
    for t in (200, 400, 600):
        assert norms[t + 200] < 0.05 * norms[t]
    assert np.mean(finite_sum_run(soba)[1000:]) > 1e-2


def test_tables_hold_the_last_terms_of_each_sample(x64):
    n, m = 3, 4
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((n, LOWER_DIM, LOWER_DIM)), rng.standard_normal((n, LOWER_DIM, DIM))
    a = a @ a.transpose(0, 2, 1)
    w = rng.standard_normal((m, LOWER_DIM))

    def upper(x, y, batch):
        _, j = batch
        return jnp.asarray(w)[j] @ y**2 / 2 + (1.0 + j) * jnp.sum(x**2) / 2

    def lower(x, y, batch):
        i, _ = batch
        return y @ (jnp.asarray(a)[i] @ y / 2 - jnp.asarray(b)[i] @ x)

    estimate = estimate_saga_field(upper, lower, num_lower_samples=n, num_upper_samples=m)
    kind = adjoint_field(upper, lower).start(jnp.zeros(1))
    joint = FieldParams(jnp.asarray(X), type(kind)(jnp.asarray(Y), jnp.asarray(D)))
    state, update = estimate.init(joint), jax.jit(estimate.update)
    below = [np.zeros((n, size)) for size in (LOWER_DIM, LOWER_DIM, DIM)]
    above = [np.zeros((m, size)) for size in (DIM, LOWER_DIM)]
    for i, j in [(0, 3), (2, 0), (0, 1), (2, 3), (2, 3)]:
        x, (y, p) = jax.tree.map(np.asarray, joint)
        lower_terms = (a[i] @ y - b[i] @ x, a[i] @ p, -b[i].T @ p)
        upper_terms = ((1.0 + j) * x, w[j] * y)
        estimates = []
        for k, tables, terms in ((i, below, lower_terms), (j, above, upper_terms)):
            for table, term in zip(tables, terms, strict=True):
                estimates.append(term - table[k] + table.mean(0))
                table[k] = term
        indices = (jnp.int32(i), jnp.int32(j))
        found, state = update(None, state, joint, batch=indices, sample_indices=indices)
        gradient, product, cross, direct, slope = estimates
        close(found.params, direct - cross)
        close(found.hidden.lower_params, gradient)
        close(found.hidden.adjoint, product - slope)
        for got, wanted in zip(state.lower_table + state.upper_table, below + above, strict=True):
            close(got, wanted)
        means = state.lower_mean + state.upper_mean
        for got, wanted in zip(means, below + above, strict=True):
            close(got, wanted.mean(0))
        joint = jax.tree.map(lambda x, d: x - 0.1 * d, joint, found)
    assert np.all(below[0][1] == 0)
    assert np.all(above[0][2] == 0)


# Bad input.


SINGLE = {
    "soba": (soba, {}),
    "saba": (saba, {"num_samples": 2}),
    "mrbo": (mrbo, {}),
    "sustain": (sustain, {}),
    "f2sa": (f2sa, {}),
    "amigo": (amigo, {"sample": lambda key: 1.0}),
    "stocbio": (stocbio, {"sample": lambda key: 1.0}),
    "bsa": (bsa, {"sample": lambda key: 1.0}),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_missing_batch_is_named(name):
    make, options = SINGLE[name]
    optimizer = make(upper, lower, lower_params=jnp.zeros(LOWER_DIM), **options)
    x = jnp.asarray(X, jnp.float32)
    state = optimizer.init(x)
    with pytest.raises(TypeError, match="needs the keyword argument 'batch'"):
        optimizer.update(None, state, x)
    with pytest.raises(ValueError, match="params are missing"):
        optimizer.update(None, state, batch=1.0)
    if name == "saba":
        with pytest.raises(TypeError, match="'sample_indices'"):
            optimizer.update(None, state, x, batch=1.0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (name, {"learning_rate": -1.0}, "^learning_rate must lie")
        for name in ("soba", "saba", "mrbo", "f2sa", "amigo", "stocbio", "bsa")
    ]
    + [
        (name, {"lower_learning_rate": -1.0}, "^lower_learning_rate must lie")
        for name in ("soba", "saba", "mrbo", "f2sa", "amigo", "stocbio", "bsa")
    ]
    + [
        ("soba", {"adjoint_learning_rate": -1.0}, "^adjoint_learning_rate must lie"),
        ("amigo", {"adjoint_learning_rate": -1.0}, "^adjoint_learning_rate must lie"),
        ("amigo", {"num_lower_steps": 0}, "^num_lower_steps must"),
        ("amigo", {"num_adjoint_steps": 0}, "^num_adjoint_steps must"),
        ("mrbo", {"lower_rate": 0.0}, "^lower_rate must lie"),
        ("sustain", {"direction_rate": 1.5}, "^direction_rate must lie"),
        ("mrbo", {"num_terms": 0}, "^num_terms must"),
        ("f2sa", {"penalty": 0.0}, "^penalty must lie"),
        ("f2sa", {"penalized_learning_rate": -1.0}, "^penalized_learning_rate must lie"),
        ("saba", {"num_samples": 0}, "^num_lower_samples must"),
        ("saba", {"num_upper_samples": 0}, "^num_upper_samples must"),
    ],
)
def test_clear_errors_of_hyper_parameters(name, options, message):
    make, needed = SINGLE[name]
    with pytest.raises(ValueError, match=message):
        make(upper, lower, **{"lower_params": jnp.zeros(LOWER_DIM)} | needed | options)


@pytest.mark.parametrize("both", [True, False])
def test_one_of_solver_and_adjoint_optimizer(both):
    options = {"solver": randomized_neumann(2, 0.1), "adjoint_optimizer": optax.sgd(0.1)}
    with pytest.raises(ValueError, match="one of solver and adjoint_optimizer"):
        estimate_nested(
            upper,
            lower,
            sample=lambda key: 1.0,
            lower_params=jnp.zeros(LOWER_DIM),
            lower_optimizer=optax.sgd(0.1),
            **(options if both else {}),
        )


def test_an_optimizer_for_each_hidden_variable():
    field = adjoint_field(upper, lower)
    with pytest.raises(ValueError, match="optimizers has 1 entries for 2 variables"):
        hide(estimate_field(field), field.start(jnp.zeros(LOWER_DIM)), [optax.sgd(0.1)])


def test_an_upper_function_that_is_no_scalar_is_refused():
    optimizer = soba(lambda x, y, batch: y, lower, lower_params=jnp.zeros(LOWER_DIM))
    x = jnp.asarray(X, jnp.float32)
    with pytest.raises(ValueError, match="upper must return a scalar"):
        optimizer.update(None, optimizer.init(x), x, batch=1.0)
