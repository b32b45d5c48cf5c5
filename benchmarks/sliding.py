"""Sliding: time of a million inner steps, and the rates against each oracle.

    python benchmarks/sliding.py                # both parts
    python benchmarks/sliding.py --parts time

``time``: one update with an inner loop of a million steps in 100 dimensions, in float32, compiled
before. Five runs; wall time, and processor time in brackets, which other processes disturb less.

``rates``: slopes of the gap on the composite problems with known solutions, condition number 200,
beside what the analysis predicts; the largest ratio of the gap to its guarantee along the run; what
reaching a gap costs, beside accelerated proximal gradient descent, which uses the proximal operator
that the nonsmooth part has here; and the fused lasso, whose solution comes from accelerated
proximal gradient descent with the exact proximal operator of total variation. Double precision.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt import proximal, sliding
from stochopt.problems import separable_composite, stiff_composite

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
    return follow(problem, optimizer, num_steps)


def accelerated_trajectory(problem, policy, num_steps):
    """Gaps and gradients of the cheap part so far, after each update."""
    if policy.smoothing is None:
        gradient = lambda x, batch, smoothing: jax.grad(problem.cheap)(x, batch)
    else:
        gradient = sliding.saddle_gradient(problem.operator, problem.dual)
    geometry = sliding.euclidean(problem.prox)
    return follow(
        problem, sliding.slide_accelerated(policy, gradient, geometry=geometry), num_steps
    )


def follow(problem, optimizer, num_steps):
    """Gaps and calls of the cheap oracle so far, after each update."""

    def step(carry, _):
        x, state = carry
        updates, state = optimizer.update(jax.grad(problem.smooth)(x, 0 * x), state, x)
        gap = problem.metrics(state.averaged_point)["gap"]
        return (optax.apply_updates(x, updates), state), (gap, state.num_prox)

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

    accelerated_rates(problem, gap)

    print("\nTo reach a gap, restart_free with exact subgradients, initial gap right and misjudged")
    print("| gap | initial gap | smooth gradients | subgradients |\n| --- | --- | --- | --- |")
    for factor in (0.1, 1.0, 10.0):
        policy = sliding.restart_free(*constants, factor * gap)
        gaps, counts = trajectory(problem, policy, 450, exact)
        for target in (1e-1, 1e-2, 1e-3):
            first = int(np.argmax(gaps <= target))
            assert gaps[first] <= target
            print(f"| {target:g} | {factor:g} times | {first + 1} | {int(counts[first]):,} |")
    print("\nThe same, restart_free_smoothed")
    print("| gap | initial gap | smooth gradients | operator |\n| --- | --- | --- | --- |")
    for factor in (0.1, 1.0, 10.0):
        gaps, counts = accelerated_trajectory(problem, smoothed(problem, factor * gap), 600)
        for target in (1e-1, 1e-2, 1e-3):
            first = int(np.argmax(gaps <= target))
            assert gaps[first] <= target
            print(f"| {target:g} | {factor:g} times | {first + 1} | {int(counts[first]):,} |")
    print(f"accelerated proximal gradient to 0.001: {accelerated_proximal_gradient(problem)}")
    fused_lasso()


def smoothed(problem, gap):
    return sliding.restart_free_smoothed(
        problem.smoothness,
        problem.strong_convexity,
        problem.operator_norm,
        problem.dual.diameter,
        gap,
    )


def accelerated_rates(problem, gap):
    """Further rows of the table of rates, and the ratios to the guarantees."""
    fit = lambda x, y: np.polyfit(x, y, 1)[0]
    policy = smoothed(problem, gap)
    gaps, counts = accelerated_trajectory(problem, policy, 500)
    rho = 1 - np.sqrt(problem.strong_convexity / problem.smoothness) / 4
    per_smooth = fit(np.arange(200, 500), np.log(gaps[200:]))
    per_operator = fit(np.log(counts[350:]), np.log(gaps[350:]))
    print(
        f"| restart_free_smoothed | ln gap per smooth gradient | {per_smooth:.4f} "
        f"| {np.log(rho):.4f} |"
    )
    print(f"| | ln gap per ln applications of the operator | {per_operator:.3f} | -2 |")
    ratios = [("restart_free_smoothed", policy, gaps)]
    for stiffness in (1e2, 1e3, 1e4):
        stiff = stiff_composite(stiffness=stiffness)
        start = float(stiff.metrics(stiff.init(None))["gap"])
        distance = float(np.linalg.norm(stiff.optimum))
        constants = stiff.smoothness, stiff.strong_convexity, stiffness
        policies = {
            "restart_free_accelerated": sliding.restart_free_accelerated(*constants, start),
            "accelerated": sliding.accelerated(stiff.smoothness, stiffness, distance),
            "accelerated_lan_ouyang": sliding.accelerated_lan_ouyang(
                stiff.smoothness, stiffness, distance
            ),
        }
        for name, policy in policies.items():
            gaps, counts = accelerated_trajectory(stiff, policy, 100)
            label = f"{name}, stiffness {stiffness:g}, {counts[-1] // 100} inner steps"
            ratios.append((label, policy, gaps))
            if name == "restart_free_accelerated":
                found = fit(np.arange(20, 100), np.log(gaps[20:]))
                rate = np.log(1 - np.sqrt(stiff.strong_convexity / stiff.smoothness) / 2)
                print(f"| {label} | ln gap per smooth gradient | {found:.4f} | {rate:.4f} |")
    print("\n| policy | largest gap / guarantee |\n| --- | --- |")
    for label, policy, gaps in ratios:
        bounds = np.asarray(jax.vmap(policy.bound)(jnp.arange(1.0, len(gaps) + 1)))
        print(f"| {label} | {(gaps / bounds).max():.3f} |")


def fused_lasso(dimension=60, num_examples=120, weight=0.05, ridge=0.02):
    """Least squares, total variation and a ridge: restart-free smoothing and subgradients."""
    rng = np.random.default_rng(0)
    design = rng.standard_normal((num_examples, dimension)) @ np.diag(
        np.geomspace(1, 0.1, dimension)
    )
    signal = np.repeat([0.0, 2.0, -1.0, 1.0], dimension // 4)
    data = design @ signal + 0.5 * rng.standard_normal(num_examples)
    smoothness = float(np.linalg.norm(design, 2)) ** 2 / num_examples
    smooth = lambda x: jnp.sum((design @ x - data) ** 2) / (2 * num_examples)
    slope = jax.grad(smooth)
    variation = lambda x, batch: weight * jnp.sum(jnp.abs(jnp.diff(x)))
    objective = lambda x: smooth(x) + variation(x, None) + ridge / 2 * jnp.sum(x**2)
    best = least(objective, slope, smoothness, ridge, proximal.total_variation(weight), dimension)
    start = jnp.zeros(dimension)
    gap = float(objective(start) - best)
    prox = proximal.ridge(ridge)
    optimizers = {
        "restart_free_smoothed": sliding.slide_accelerated(
            sliding.restart_free_smoothed(smoothness, ridge, 2 * weight, (dimension - 1) / 2, gap),
            sliding.saddle_gradient(
                lambda x: weight * jnp.diff(x), proximal.dual_of_l1(dimension - 1)
            ),
            geometry=sliding.euclidean(prox),
        ),
        "restart_free": sliding.slide(
            sliding.restart_free(smoothness, ridge, 4 * weight * np.sqrt(dimension - 1), gap),
            jax.grad(variation),
            geometry=sliding.euclidean(prox),
        ),
    }
    print(f"\nFused lasso, condition number {smoothness / ridge:.0f}, initial gap {gap:.3f}")
    print("| policy | gap | smooth gradients | cheap | local slope |")
    print("| --- | --- | --- | --- | --- |")
    for name, num_steps in (("restart_free_smoothed", 600), ("restart_free", 420)):
        optimizer = optimizers[name]

        def step(carry, _, optimizer=optimizer):
            x, state = carry
            updates, state = optimizer.update(slope(x), state, x)
            excess = objective(state.averaged_point) - best
            return (optax.apply_updates(x, updates), state), (excess, state.num_prox)

        run = jax.jit(lambda carry, n=num_steps, step=step: jax.lax.scan(step, carry, None, n)[1])
        gaps, counts = map(np.asarray, run((start, optimizer.init(start))))
        late = slice(2 * num_steps // 3, None)
        local = np.polyfit(np.log(counts[late]), np.log(gaps[late]), 1)[0]
        for target in (1e-2, 1e-3):
            first = int(np.argmax(gaps <= target))
            assert gaps[first] <= target
            print(f"| {name} | {target:g} | {first + 1} | {int(counts[first]):,} | {local:.2f} |")


def least(objective, slope, smoothness, ridge, penalty, dimension):
    """The minimum of smooth + penalty + ridge, by accelerated proximal gradient descent."""
    prox = proximal.plus_ridge(penalty, ridge)
    momentum = (1 - np.sqrt(ridge / smoothness)) / (1 + np.sqrt(ridge / smoothness))

    def step(_, points):
        x, old = points
        y = x + momentum * (x - old)
        return prox(y - slope(y) / smoothness, 1 / smoothness), x

    x = jnp.zeros(dimension)
    x, _ = jax.jit(lambda x: jax.lax.fori_loop(0, 1000, step, (x, x)))(x)
    return float(objective(x))


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
