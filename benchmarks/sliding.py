"""Sliding: time of a million inner steps, and the rates against each oracle.

    python benchmarks/sliding.py                # both parts
    python benchmarks/sliding.py --parts time

``time``: one update with an inner loop of a million steps in 100 dimensions, in float32, compiled
before. Five runs; wall time, and processor time in brackets, which other processes disturb less.

``rates``: slopes of the gap on the composite problem with a known solution, condition number 200,
beside what the analysis predicts; and what reaching a gap costs, beside accelerated proximal
gradient descent, which uses the proximal operator that the nonsmooth part has here. Double
precision.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt import sliding
from stochopt.problems import separable_composite

NUM_INNER = 1_000_000


def inner_steps() -> None:
    problem = separable_composite()
    policy = sliding.SlidingPolicy(
        mixing=lambda k: 0.035,
        prox_weight=lambda k: 0.035,
        inner_length=lambda k: float(NUM_INNER),
        subgradient_bound=problem.subgradient_bound,
        strong_convexity=problem.strong_convexity,
    )
    oracles = {
        "exact": {},
        "sampled": {"sample": problem.sample},
    }
    print(f"{NUM_INNER:,} inner steps, dimension 100, float32")
    print("| subgradients | compile, s | run, s |\n| --- | --- | --- |")
    for name, options in oracles.items():
        optimizer = sliding.slide(
            policy,
            jax.grad(problem.nonsmooth),
            geometry=sliding.euclidean(problem.prox),
            **options,
        )
        x = jnp.zeros(100)
        arguments = jax.grad(problem.smooth)(x, None), optimizer.init(x), x
        update = jax.jit(functools.partial(optimizer.update, batch=jnp.zeros([])))
        start = time.perf_counter()
        compiled = update.lower(*arguments).compile()
        compiling = time.perf_counter() - start
        runs = []
        for _ in range(5):
            wall, processor = time.perf_counter(), time.process_time()
            jax.block_until_ready(compiled(*arguments))
            runs.append((time.perf_counter() - wall, time.process_time() - processor))
        (low, cpu_low), (high, cpu_high) = np.min(runs, 0), np.max(runs, 0)
        print(
            f"| {name} | {compiling:.2f} | {low:.2f} to {high:.2f} "
            f"[{cpu_low:.2f} to {cpu_high:.2f}] |"
        )


def trajectory(problem, policy, num_steps, sample):
    """Gaps and subgradients so far, after each update."""
    optimizer = sliding.slide(
        policy,
        jax.grad(problem.nonsmooth),
        sample=sample,
        geometry=sliding.euclidean(problem.prox),
    )

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(jax.grad(problem.smooth)(x, None), state, x)
        gap = problem.metrics(state.averaged_point)["gap"]
        return (optax.apply_updates(x, updates), state), (gap, state.num_subgradients)

    x = problem.init(None)
    run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, num_steps)[1])
    return map(np.asarray, run((x, optimizer.init(x))))


def rates() -> None:
    jax.config.update("jax_enable_x64", True)
    problem = separable_composite()
    exact = lambda key: jnp.zeros(100)
    constants = (problem.smoothness, problem.strong_convexity, problem.subgradient_bound)
    gap = float(problem.metrics(problem.init(None))["gap"])
    fit = lambda x, y: np.polyfit(x, y, 1)[0]
    rho = 1 - np.sqrt(constants[1] / constants[0]) / 4
    print("\nseparable-composite, condition number 200")
    print("| policy | slope | found | predicted |\n| --- | --- | --- | --- |")
    for name, noise, sample in (
        ("restart_free", None, exact),
        ("restart_free, stochastic", problem.noise, problem.sample),
    ):
        policy = sliding.restart_free(*constants, gap, noise=noise)
        gaps, counts = trajectory(problem, policy, 300, sample)
        smooth = fit(np.arange(100, 300), np.log(gaps[100:]))
        cheap = fit(np.log(counts[200:]), np.log(gaps[200:]))
        print(f"| {name} | ln gap per smooth gradient | {smooth:.4f} | {np.log(rho):.4f} |")
        print(f"| | ln gap per ln subgradients | {cheap:.3f} | -1 |")
    horizons, ends = (10, 20, 40, 80), []
    distance = float(np.linalg.norm(problem.optimum))
    for horizon in horizons:
        policy = sliding.fixed_horizon(constants[0], constants[2], horizon, distance)
        gaps, counts = trajectory(problem, policy, horizon, exact)
        ends.append((np.log(horizon), np.log(counts[-1]), np.log(gaps[-1])))
    ends = np.array(ends)
    print(f"| fixed_horizon | ln gap per ln horizon | {fit(ends[:, 0], ends[:, 2]):.3f} | -2 |")
    print(f"| | ln gap per ln subgradients | {fit(ends[:, 1], ends[:, 2]):.3f} | -0.5 |")

    print("\nTo reach a gap, restart_free with exact subgradients, initial gap right and misjudged")
    print("| gap | initial gap | smooth gradients | subgradients |\n| --- | --- | --- | --- |")
    for factor in (0.1, 1.0, 10.0):
        policy = sliding.restart_free(*constants, factor * gap)
        gaps, counts = trajectory(problem, policy, 450, exact)
        for target in (1e-1, 1e-2, 1e-3):
            first = int(np.argmax(gaps <= target))
            assert gaps[first] <= target
            print(f"| {target:g} | {factor:g} times | {first + 1} | {int(counts[first]):,} |")
    print(f"accelerated proximal gradient to 0.001: {accelerated_proximal_gradient(problem)}")


def accelerated_proximal_gradient(problem):
    """Smooth gradients until the gap is 0.001, with the proximal operator of all but the smooth."""
    ridge, weight = problem.strong_convexity, problem.subgradient_bound / 20
    slope = jax.grad(problem.nonsmooth)
    # Where the subgradient of an entry changes its sign.
    kink = jax.jit(
        lambda low, high: jax.lax.fori_loop(
            0, 60, lambda _, ends: halve(slope, *ends), (low, high)
        )[0]
    )(-10 * jnp.ones(100), 10 * jnp.ones(100))
    momentum = (1 - np.sqrt(ridge)) / (1 + np.sqrt(ridge))
    x = old = jnp.zeros(100)
    for k in range(1, 1000):
        y = x + momentum * (x - old)
        v = y - jax.grad(problem.smooth)(y, None)
        v = v / (1 + ridge) - kink
        old, x = x, kink + jnp.sign(v) * jnp.maximum(jnp.abs(v) - weight / (1 + ridge), 0)
        if problem.metrics(x)["gap"] <= 1e-3:
            return k
    raise AssertionError("did not converge")


def halve(slope, low, high):
    """One step of bisection in every entry."""
    middle = (low + high) / 2
    right = slope(middle, 0 * middle) > 0
    return jnp.where(right, low, middle), jnp.where(right, middle, high)


if __name__ == "__main__":
    parts = {"time": inner_steps, "rates": rates}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    for part in parser.parse_args().parts:
        parts[part]()
