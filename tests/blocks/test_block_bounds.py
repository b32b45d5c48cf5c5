"""What is proved of cyclic block descent, along whole runs; linear ends; what spoils them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt import blocks
from stochopt.problems import sparse_robust_regression

# For tests in double precision only: JAX keeps the arrays of a problem in one precision.
PROBLEM = sparse_robust_regression()
START = np.zeros(12)
GAP = float(PROBLEM.metrics(START)["objective"])  # at least: the least value is not negative
EXACT = lambda x, batch: PROBLEM.full_smooth(x)


def run(optimizer, start, num_cycles, each, batches=(), keys=None):
    """``each(x)`` after every cycle, and the last state."""

    def step(carry, draw):
        x, state = carry
        batch, key = draw
        updates, state = optimizer.update(None, state, x, batch=batch, key=key)
        x = optax.apply_updates(x, updates)
        return (x, state), each(x)

    start = jnp.asarray(start)
    carry, measured = jax.lax.scan(
        step, (start, optimizer.init(start)), (batches, keys), num_cycles
    )
    return measured, carry[1]


def squared_distance(x):
    return PROBLEM.metrics(x)["squared_subgradient_norm"]


def test_exact_descent_is_monotone_far_below_its_bound_and_ends_linearly(x64):
    ahead, _ = PROBLEM.cyclic_smoothness
    assert ahead < PROBLEM.smoothness < ahead * np.sqrt(6)

    @jax.jit
    def measured(constants):
        optimizer = blocks.cyclic_block_descent(
            EXACT, PROBLEM.partition, constants, prox=PROBLEM.prox
        )
        return run(optimizer, START, 1500, PROBLEM.metrics)

    cycles = np.arange(1, 1501)
    metrics, state = measured(jnp.full(6, ahead))
    squares = np.minimum.accumulate(metrics["squared_subgradient_norm"])
    ratios = squares / blocks.cyclic_descent_bound(ahead, GAP, cycles)
    assert 1e-3 < ratios.max() < 0.05
    assert np.all(np.diff(metrics["objective"]) < 1e-15)
    assert squares[-1] < 1e-28
    assert state.num_descent_violations == 0
    late = (squares < 1e-6) & (squares > 1e-24)
    assert linear_factor(cycles[late], squares[late]) < 0.97

    metrics, state = measured(jnp.full(6, PROBLEM.block_smoothness.max()))
    shorter = np.minimum.accumulate(metrics["squared_subgradient_norm"])
    assert np.all(np.diff(metrics["objective"]) < 1e-15)
    assert np.argmax(shorter < 1e-24) < np.argmax(squares < 1e-24) / 2
    assert shorter[-1] < 1e-28


def linear_factor(cycles, values):
    """The factor of a cycle, by least squares; an error unless the decrease is linear."""
    logs = np.log(values)
    slope, offset = np.polyfit(cycles, logs, 1)
    residual = logs - slope * cycles - offset
    assert 1 - residual.var() / logs.var() > 0.99
    return np.exp(slope)


def test_linear_under_strong_convexity_at_least_at_the_rate_that_is_proved(x64):
    rng = np.random.default_rng(1)
    factor = rng.standard_normal((16, 8))
    hessian = factor.T @ factor / 16
    partition = blocks.equal_slices(4)
    rows = hessian.reshape(4, 2, 8)
    matrices = np.einsum("jki,jkl->jil", rows, rows)
    ahead, _ = blocks.mahalanobis_constants(matrices, partition, np.zeros(8))
    least = np.linalg.eigvalsh(hessian)[0]
    quadratic = lambda x, batch: x @ jnp.asarray(hessian) @ x / 2
    optimizer = blocks.cyclic_block_descent(quadratic, partition, ahead)
    value = lambda x: quadratic(x, ())
    gaps, _ = jax.jit(lambda: run(optimizer, np.ones(8), 400, value))()
    gaps, proved = np.asarray(gaps), 1 / (1 + least / (4 * ahead))
    assert np.all(gaps[1:] <= proved * gaps[:-1])
    late = (np.arange(400) > 100) & (gaps > 1e-28)
    measured = linear_factor(np.arange(400)[late], gaps[late])
    assert measured < proved
    np.testing.assert_allclose(measured, (1 - least / ahead) ** 2, atol=0.02)


def of_seeds(optimizer, num_cycles, sample, num_seeds):
    """Squared distances, shape (seeds, cycles)."""

    def one(key):
        of_cycles, of_coins = (jax.random.split(k, num_cycles) for k in jax.random.split(key))
        batches = jax.vmap(sample)(of_cycles)
        return run(optimizer, START, num_cycles, squared_distance, batches, of_coins)[0]

    keys = jax.random.split(jax.random.key(0), num_seeds)
    return np.asarray(jax.jit(lambda keys: jax.lax.map(one, keys))(keys))


def variance_reduced(loss, smoothness, **options):
    return blocks.vr_cyclic_block_descent(
        loss,
        PROBLEM.full_smooth,
        PROBLEM.partition,
        smoothness,
        num_batches=10,
        prox=PROBLEM.prox,
        **options,
    )


def test_variance_reduced_descent_stays_below_its_bound(x64):
    step = blocks.vr_cyclic_step(
        PROBLEM.block_smoothness, PROBLEM.sampled_cyclic_smoothness, num_terms=100, batch_size=10
    )
    hypotenuse = np.sqrt(np.square(PROBLEM.sampled_cyclic_smoothness).sum())
    np.testing.assert_allclose(1 / step, 2 * (PROBLEM.block_smoothness.max() + hypotenuse))
    for_each_block = lambda key: jax.vmap(PROBLEM.sample)(jax.random.split(key, 6))
    optimizer = variance_reduced(PROBLEM.smooth, 1 / step, resample="block")
    squares = of_seeds(optimizer, 400, for_each_block, 10)
    cycles = np.arange(1, 401)
    averages = np.cumsum(squares.mean(axis=0)) / cycles
    ratios = averages / blocks.vr_cyclic_descent_bound(step, GAP, cycles)
    assert 1e-3 < ratios.max() < 0.05


def test_steps_of_the_inverse_smoothness_end_linearly_and_only_with_the_same_samples(x64):
    """Catches a correction from another batch, and one that is left out."""

    def other_samples(x, batch):
        """The batch depends on the point, so that the two of a correction differ."""
        digits = jnp.floor(jax.lax.stop_gradient(jnp.sum(x)) * 1e7).astype(jnp.int32)
        return PROBLEM.smooth(x, (batch + digits) % 100)

    half = {"learning_rate": 0.5}
    uncorrected = blocks.cyclic_block_descent(
        PROBLEM.smooth, PROBLEM.partition, PROBLEM.block_smoothness, prox=PROBLEM.prox, **half
    )
    make = lambda loss: variance_reduced(loss, PROBLEM.block_smoothness, **half)
    ends = {
        name: of_seeds(optimizer, 1000, PROBLEM.sample, 6)[:, -200:].mean(axis=1)
        for name, optimizer in {
            "same": make(PROBLEM.smooth),
            "other": make(other_samples),
            "uncorrected": uncorrected,
        }.items()
    }
    assert ends["same"].max() < 1e-28
    assert ends["other"].min() > 1e-4
    assert ends["uncorrected"].min() > 1e-4
