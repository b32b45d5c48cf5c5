"""The compiled runner against Python loops: minibatch logistic regression, 1,000 parameters.

Same problem, method, seeds, batches and number of updates, all compiled beforehand:

- runner: one compiled program, a loop over steps inside, seeds by the catalog's rule;
- loop over seeds: Python calls one jitted step per update and seed;
- vmapped loop: Python calls one jitted step, vmapped over seeds, per update.

    python benchmarks/runner_speed.py
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt import catalog, problems
from stochopt.experiments import Program, Run, gradient_and_extras


def seconds(function: Callable[[], Any]) -> float:
    before = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problem", default="logistic", choices=list(problems.PROBLEMS))
    parser.add_argument("--method", default="sgd")
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--loop-repeats", type=int, default=2)
    arguments = parser.parse_args()
    num_seeds, num_steps = arguments.seeds, arguments.steps
    problem, method = problems.PROBLEMS[arguments.problem](), catalog.find(arguments.method)
    optimizer = method.make(problem)
    start_keys, sample_keys = (
        jax.random.split(key, num_seeds) for key in jax.random.split(jax.random.key(0))
    )

    def step(params, state, key, t):
        batch = problem.sample(jax.random.fold_in(key, t))
        grad, extras = gradient_and_extras(problem, method, params, batch)
        updates, state = optimizer.update(grad, state, params, **extras)
        return optax.apply_updates(params, updates), state

    def loop(step, params, state, key):
        for t in steps:
            params, state = step(params, state, key, t)
        return params

    steps = [jnp.asarray(t, jnp.int32) for t in range(num_steps)]
    one = jax.jit(step, donate_argnums=(0, 1))
    many = jax.jit(jax.vmap(step, in_axes=(0, 0, 0, None)), donate_argnums=(0, 1))

    def seed_by_seed():
        last = []
        for start_key, key in zip(start_keys, sample_keys, strict=True):
            params = problem.init(start_key)
            last.append(loop(one, params, optimizer.init(params), key))
        return last

    def vmapped():
        params = jax.vmap(problem.init)(start_keys)
        return loop(many, params, jax.vmap(optimizer.init)(params), sample_keys)

    def runner(program):
        def measured():
            experiment = Run(  # the loops do not measure anything on the way either
                program, key=jax.random.key(0), num_steps=num_steps, record_every=num_steps
            )
            for _ in experiment:
                pass
            return experiment.result.final()

        return measured

    variants = {
        f"runner ({method.seeds})": runner(Program(problem, method, num_seeds)),
        "vmapped loop": vmapped,
    }
    other = "map" if method.seeds == "vmap" else "vmap"
    swapped = dataclasses.replace(method, seeds=other)
    variants[f"runner ({other})"] = runner(Program(problem, swapped, num_seeds))
    times = {name: [] for name in (*variants, "loop over seeds")}
    for function in (*variants.values(), lambda: loop(one, *fresh(problem, optimizer, 0))):
        jax.block_until_ready(function())  # compiles
    for _ in range(arguments.repeats):
        for name, function in variants.items():
            times[name].append(seconds(function))
    for _ in range(arguments.loop_repeats):
        times["loop over seeds"].append(seconds(seed_by_seed))

    base = np.median(times[f"runner ({method.seeds})"])
    device = jax.devices()[0].device_kind
    print(f"{method.name} on {problem.name}, {num_seeds} seeds x {num_steps} steps, {device}")
    for name, measured in times.items():
        low, middle, high = np.quantile(measured, [0, 0.5, 1])
        print(
            f"{name:18} {middle:8.3f} s  [{low:.3f}, {high:.3f}]"
            f"  {middle / base:7.2f}x the runner's  ({len(measured)} runs)"
        )


def fresh(problem, optimizer, seed):
    params = problem.init(jax.random.key(seed))
    return params, optimizer.init(params), jax.random.key(seed)


if __name__ == "__main__":
    main()
