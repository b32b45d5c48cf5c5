"""The two inequalities of a step, from which every guarantee of accelerated sliding follows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stochopt import proximal, sliding

DIMENSION, VALUES, STEPS, PROBLEMS = 4, 5, 8, 1250  # 10,000 steps
DUAL = proximal.dual_of_l1(VALUES)


def random_draws():
    """Problems with smoothness 1, policies, and reference points for each step."""
    rng = np.random.default_rng(0)
    loguniform = lambda low, high, *shape: np.exp(
        rng.uniform(np.log(low), np.log(high), (PROBLEMS, *shape))
    )
    of_steps = (PROBLEMS, STEPS)
    mixing = rng.uniform(0.02, 1, of_steps)
    operator = loguniform(0.1, 3, 1, 1) * rng.standard_normal((PROBLEMS, VALUES, DIMENSION))
    above = lambda: 1 + rng.integers(0, 2, of_steps) * rng.exponential(size=of_steps)
    # From one problem to the next the smoothing stays or falls.
    decay = np.where(rng.random((PROBLEMS, 1)) < 0.5, 1.0, rng.uniform(0.5, 1, of_steps))
    smoothing = loguniform(0.1, 10, 1) * np.cumprod(decay, axis=1)
    norm = np.linalg.norm(operator, 2, axis=(1, 2))[:, None]
    return {
        "curvature": loguniform(1e-3, 1, DIMENSION),
        "target": rng.standard_normal((PROBLEMS, DIMENSION)),
        "operator": operator,
        "shift": rng.standard_normal((PROBLEMS, VALUES)),
        "start": rng.standard_normal((PROBLEMS, DIMENSION)),
        "mu": loguniform(1e-3, 1),
        "used": rng.integers(0, 2, PROBLEMS),  # the modulus, or convexity only
        "mixing": mixing,
        "prox_weight": mixing * above(),
        "first_weight": 2 * mixing * norm**2 / smoothing * above(),
        "inner_length": np.sort(rng.integers(1, 12, of_steps).astype(float), axis=1),
        "smoothing": smoothing,
        # Near zero, the iterates before and after, and the centre; at all distances.
        "base": rng.integers(0, 4, of_steps),
        "offset": loguniform(1e-3, 10, STEPS, 1)
        * rng.standard_normal((PROBLEMS, STEPS, DIMENSION)),
    }


@functools.cache
def sides(tamper=lambda state, params: state):
    """Both sides of both inequalities at every step, for a part of the inner weight."""

    def run(draw, part):
        mu = draw["mu"]
        used = mu * draw["used"]
        at = lambda name: lambda k: draw[name][(k - 1).astype(int)]
        smooth = lambda x: jnp.sum(draw["curvature"] * (x - draw["target"]) ** 2) / 2
        operator = lambda x: draw["operator"] @ x - draw["shift"]

        def objective(x, eta):
            size = jnp.abs(operator(x))
            huber = jnp.where(size <= eta, size**2 / (2 * eta), size - eta / 2)
            return smooth(x) + jnp.sum(huber) + mu / 2 * jnp.sum(x**2)

        def inner_weight(k, t):
            beta = at("prox_weight")(k)
            return part * at("first_weight")(k) / t + (beta + used) * (t - 1) / 2

        policy = sliding.AcceleratedPolicy(
            at("mixing"),
            at("prox_weight"),
            at("inner_length"),
            inner_weight,
            smoothing=at("smoothing"),
        )
        optimizer = sliding.slide_accelerated(
            policy,
            sliding.saddle_gradient(operator, DUAL),
            geometry=sliding.euclidean(lambda v, step: v / (1 + mu * step)),
        )

        def step(carry, t):
            x, state = carry
            update, new = optimizer.update(jax.grad(smooth)(x), tamper(state, x), x)
            lam, beta, first, length, eta = (
                draw[name][t]
                for name in ("mixing", "prox_weight", "first_weight", "inner_length", "smoothing")
            )
            ell = 2 * part * first / (length * (length + 1))
            base = jnp.stack([0 * x, state.averaged_point, new.averaged_point, new.prox_center])
            u = base[draw["base"][t]] + draw["offset"][t]
            distance = lambda x: jnp.sum((u - x) ** 2) / 2
            after = lam * (beta + ell + used) * distance(new.prox_center)
            before = lam * (beta + ell) * distance(state.prox_center)

            gap = lambda x, eta: objective(x, eta) - objective(u, eta)
            one_step = (
                gap(new.averaged_point, eta) + after,
                (1 - lam) * gap(state.averaged_point, eta) + before,
            )
            # A, which dominates the gap without smoothing.
            a = lambda x, eta: gap(x, eta) + eta * DUAL.diameter
            last_eta = draw["smoothing"][jnp.maximum(t - 1, 0)]
            smoothed = (
                a(new.averaged_point, eta) + after,
                (1 - lam) * a(state.averaged_point, last_eta) + before + lam * eta * DUAL.diameter,
            )
            return (x + update, new), (one_step, smoothed)

        start = draw["start"]
        # As the first update would write it.
        state = optimizer.init(start)._replace(prox_center=start, averaged_point=start)
        return jax.lax.scan(step, (start, state), jnp.arange(STEPS))[1]

    return jax.jit(jax.vmap(run, in_axes=(0, None)))


def violations(part=1.0, **options):
    """Of the inequality of one step, and of that with falling smoothing."""
    counts = []
    for left, right in sides(**options)(random_draws(), part):
        assert left.size == 10_000
        assert np.all(np.isfinite(left) & np.isfinite(right))
        counts.append(int(np.sum(left > right + 1e-9 * (1 + abs(left) + abs(right)))))
    return counts


def test_no_step_violates_an_inequality(x64):
    assert violations() == [0, 0]


def test_they_need_the_inner_weight(x64):
    """They are not true of just any step."""
    assert min(violations(part=0.1)) > 10


def center_at_query(state, params):
    return state._replace(prox_center=params)


def average_at_query(state, params):
    return state._replace(averaged_point=params)


@pytest.mark.parametrize("tamper", [center_at_query, average_at_query])
def test_they_need_the_old_points(x64, tamper):
    """Common errors: an inner loop held at the query point, or one that forgets the average."""
    assert min(violations(tamper=tamper)) > 10
