"""The one-step inequality, from which every guarantee of sliding follows, as a property."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from stochopt import sliding

DIMENSION, STEPS, PROBLEMS = 4, 8, 1250  # 10,000 steps


def random_draws():
    """Problems with smoothness 1, policies, and reference points for each step."""
    rng = np.random.default_rng(0)
    loguniform = lambda low, high, *shape: np.exp(
        rng.uniform(np.log(low), np.log(high), (PROBLEMS, *shape))
    )
    mixing = rng.uniform(0.02, 1, (PROBLEMS, STEPS))
    return {
        "curvature": loguniform(1e-3, 1, DIMENSION),
        "target": rng.standard_normal((PROBLEMS, DIMENSION)),
        "kink": rng.standard_normal((PROBLEMS, DIMENSION)),
        "start": rng.standard_normal((PROBLEMS, DIMENSION)),
        "of_sum": loguniform(0.01, 3),
        "of_max": loguniform(0.01, 3),
        "mu": loguniform(1e-3, 1),
        "mixing": mixing,
        "prox_weight": mixing * (1 + rng.exponential(size=mixing.shape)),
        "inner_length": rng.integers(1, 12, mixing.shape).astype(float),
        # Near zero, the iterates before and after, and the centre; at all distances.
        "base": rng.integers(0, 4, mixing.shape),
        "offset": loguniform(1e-3, 10, STEPS, 1)
        * rng.standard_normal((PROBLEMS, STEPS, DIMENSION)),
    }


@functools.cache
def sides(tamper=lambda state, params: state):
    """Both sides and the error term at every step, for a part of mu that the policy uses."""

    def run(draw, part):
        mu, used = draw["mu"], part * draw["mu"]
        smooth = lambda x: jnp.sum(draw["curvature"] * (x - draw["target"]) ** 2) / 2
        nonsmooth = lambda x, batch: (
            draw["of_sum"] * jnp.sum(jnp.abs(x - draw["kink"]))
            + draw["of_max"] * jnp.max(jnp.abs(x))
        )
        objective = lambda x: smooth(x) + nonsmooth(x, None) + mu / 2 * jnp.sum(x**2)
        bound = 2 * (draw["of_sum"] * jnp.sqrt(DIMENSION) + draw["of_max"])
        at = lambda name: lambda k: draw[name][(k - 1).astype(int)]
        policy = sliding.SlidingPolicy(
            at("mixing"),
            at("prox_weight"),
            at("inner_length"),
            subgradient_bound=bound,
            strong_convexity=used,
        )
        optimizer = sliding.slide(
            policy,
            jax.grad(nonsmooth),
            geometry=sliding.euclidean(lambda v, step: v / (1 + mu * step)),
        )

        def step(carry, t):
            x, state = carry
            update, new = optimizer.update(jax.grad(smooth)(x), tamper(state, x), x)
            gamma, beta, length = (
                draw[name][t] for name in ("mixing", "prox_weight", "inner_length")
            )
            p = 2 / ((length + 1) * (length + 2))
            base = jnp.stack([0 * x, state.averaged_point, new.averaged_point, new.prox_center])
            u = base[draw["base"][t]] + draw["offset"][t]
            gap = lambda x: objective(x) - objective(u)
            distance = lambda x: jnp.sum((u - x) ** 2) / 2
            left = gap(new.averaged_point)
            left += gamma * (beta + used) / (1 - p) * distance(new.prox_center)
            right = (1 - gamma) * gap(state.averaged_point)
            right += gamma * (beta + used * p) / (1 - p) * distance(state.prox_center)
            error = gamma * 4 * bound**2 / ((beta + used) * (length + 3))
            return (x + update, new), (left, right, error)

        start = draw["start"]
        # As the first update would write it.
        state = optimizer.init(start)._replace(prox_center=start, averaged_point=start)
        return jax.lax.scan(step, (start, state), jnp.arange(STEPS))[1]

    return jax.jit(jax.vmap(run, in_axes=(0, None)))


def violations(part, factor=1.0, **options):
    left, right, error = sides(**options)(random_draws(), part)
    assert left.size == 10_000
    assert np.all(np.isfinite(left) & np.isfinite(right))
    return int(np.sum(left > right + factor * error + 1e-9 * (1 + abs(left) + abs(right))))


def test_no_step_violates_the_inequality(x64):
    assert violations(part=1.0) == 0


def test_nor_where_the_policy_uses_convexity_only(x64):
    assert violations(part=0.0) == 0


def test_it_needs_its_error_term(x64):
    """The inequality is not true of just any step: with M ten times too small it fails."""
    assert violations(part=1.0, factor=0.01) > 10


def center_at_query(state, params):
    return state._replace(prox_center=params)


def test_it_needs_the_old_point_as_the_centre(x64):
    """The common error: an inner loop held at the query point."""
    assert violations(part=1.0, tamper=center_at_query) > 10
