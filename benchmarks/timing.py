"""What benchmarks of step times share: compiled loops, turns, processes of their own, spreads."""

import json
import os
import statistics
import subprocess
import sys
import time

import jax
import optax

from stochopt.compositional import sample_blocks

REPEATS = 9
NUM_SAMPLED = 16
NUM_BLOCKS = (1_000, 1_000_000)


def seconds(function):
    """What a call takes."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def in_turn(runs):
    """Median seconds of each function, after one call that does not count."""
    took = {name: [] for name in runs}
    for run in runs.values():
        jax.block_until_ready(run())
    for _ in range(REPEATS):
        for name, run in runs.items():
            took[name].append(seconds(run))
    return {name: statistics.median(values) for name, values in took.items()}


def spread(values, digits=2):
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def loop_over_blocks(optimizer, params, batches, num_blocks, num_steps):
    """A function that takes steps on a few blocks, from the carry that it left behind.

    Indices and batches (on a leading axis, taken in turn) are drawn before; the carry is donated.

    Returns:
      The function and the compiled program.
    """
    num_batches = len(jax.tree.leaves(batches)[0])
    keys = jax.random.split(jax.random.key(0), num_steps)
    draw = lambda key: sample_blocks(key, num_blocks, NUM_SAMPLED)
    indices = jax.jit(lambda keys: jax.lax.map(draw, keys))(keys)

    def loop(carry, indices, batches):
        def step(t, carry):
            x, state = carry
            batch = jax.tree.map(lambda leaf: leaf[t % num_batches], batches)
            updates, state = optimizer.update(None, state, x, batch=batch, block_indices=indices[t])
            return optax.apply_updates(x, updates), state

        return jax.lax.fori_loop(0, num_steps, step, carry)

    carry = (params, optimizer.init(params))
    compiled = jax.jit(loop, donate_argnums=0).lower(carry, indices, batches).compile()

    def run():
        nonlocal carry
        carry = compiled(carry, indices, batches)
        return carry

    return run, compiled


def report_blocks(results, rows, head):
    """A table of step times with few and many blocks, from records ``row -> blocks -> seconds``."""
    few, many = map(str, NUM_BLOCKS)
    print(f"\n{NUM_SAMPLED} sampled blocks, {head}")
    print("| in each block | 1,000 blocks, µs a step | 1,000,000 blocks, µs a step | ratio |")
    print("| --- | --- | --- | --- |")
    for name in rows:
        took = [result[name] for result in results]
        print(
            f"| {name} | {spread([1e6 * row[few] for row in took])} "
            f"| {spread([1e6 * row[many] for row in took])} "
            f"| {spread([row[many] / row[few] for row in took])} |"
        )


def available_cores():
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def stay_on(num_cores):
    """Keeps this process to its first cores; call it before jax makes its threads."""
    os.sched_setaffinity(0, available_cores()[:num_cores])


def children(script, part, processes, cores, flags=()):
    """What ``script --child`` prints last, as JSON, in processes one after the other."""
    command = [sys.executable, *flags, script, "--child", "--parts", part, "--cores", str(cores)]
    runs = [
        subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        for _ in range(processes)
    ]
    return [json.loads(run.splitlines()[-1]) for run in runs]
