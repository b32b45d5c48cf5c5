"""Time of a cycle over the blocks of a linear model, beside one gradient of its mean loss.

    python benchmarks/linear_model_cycle.py
    python benchmarks/linear_model_cycle.py --libsvm a8a.txt
    python benchmarks/linear_model_cycle.py --sparse

Dense Gaussian data of 2,000 samples and 1,000 features, or those of a file in LIBSVM's format, or a
sparse design of 20,000 samples and 2,048 features with one entry in a hundred, in float32. A cycle
and a gradient run in one compiled loop of 20 turns each, in turn, on one core; processor time,
which other processes disturb less than the clock. Medians and ranges over the repeats, the ratio
from pairs of neighbours. Then the cycles and the processor time to a relative duality gap of 1e-4,
with a lasso penalty of a twentieth of the least weight for which the solution is zero, checked in
every tenth cycle.
"""

import argparse
import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.sparse
from timing import spread, stay_on

from stochopt import blocks
from stochopt import linear_models as lm
from stochopt.problems.libsvm import read_libsvm

NUM_TURNS = 20
REPEATS = 25
CASES = (
    (1, blocks.cyclic),
    (16, blocks.cyclic),
    (32, blocks.cyclic),
    (32, blocks.shuffled),
    (64, blocks.cyclic),
    (128, blocks.cyclic),
)
LOSSES = {"squared": lm.squared, "logistic": lm.logistic}


def gradient_steps(model: lm.LinearModel):
    """A loop of gradient steps, each of which is one gradient and a sum."""
    step = lambda _, x: x - 1e-3 * model.gradient(x)
    return jax.lax.fori_loop(0, NUM_TURNS, step, jnp.zeros(model.design.shape[1]))


def cycles(model: lm.LinearModel, block_width: int, order: blocks.OrderOfCycle):
    """A loop of cycles."""
    optimizer = lm.linear_model_descent(model, block_width=block_width, order=order)
    state_and_point = optimizer.init(x := jnp.zeros(model.design.shape[1])), x

    def cycle(_, carry):
        state, x = carry
        updates, state = optimizer.update(None, state, x)
        return state, optax.apply_updates(x, updates)

    run = jax.jit(lambda carry: jax.lax.fori_loop(0, NUM_TURNS, cycle, carry))
    return lambda: run(state_and_point)


def milliseconds(function):
    """Processor time of one turn."""
    start = time.process_time()
    jax.block_until_ready(function())
    return 1e3 * (time.process_time() - start) / NUM_TURNS


def to_gap(model: lm.LinearModel, block_width: int, order: blocks.OrderOfCycle) -> str:
    """Cycles and seconds until the gap is small."""
    solve = lambda: lm.solve(model, tolerance=1e-4, block_width=block_width, order=order)
    solution = jax.block_until_ready(solve())
    start = time.process_time()
    jax.block_until_ready(solve())
    return f"{solution.num_cycles} cycles, {time.process_time() - start:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libsvm", help="a file in LIBSVM's format")
    parser.add_argument("--sparse", action="store_true", help="a sparse design")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    if arguments.libsvm is not None:
        rows, labels = read_libsvm(arguments.libsvm)
        design = lm.dense(rows)
    elif arguments.sparse:
        rows = scipy.sparse.random(20_000, 2_048, 0.01, rng=rng, dtype=np.float32)
        design, labels = lm.sparse(rows), np.sign(rng.standard_normal(20_000))
    else:
        rows = rng.standard_normal((2_000, 1_000)).astype(np.float32)
        design, labels = lm.dense(rows), np.sign(rng.standard_normal(2_000))
    print(f"{design.shape[0]:,} samples, {design.shape[1]:,} features, float32")
    print("| loss | block width | order | gradient, ms | cycle, ms | ratio | to the gap |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, loss in LOSSES.items():
        model = lm.linear_model(design, labels, loss(), lm.l1(0.0))
        largest = jnp.max(jnp.abs(model.gradient(jnp.zeros(design.shape[1]))))
        model = dataclasses.replace(model, penalty=lm.l1(largest / 20))
        gradients = jax.jit(gradient_steps)
        for width, order in CASES:
            runs = functools.partial(gradients, model), cycles(model, width, order)
            for run in runs:
                jax.block_until_ready(run())
            took = np.array([[milliseconds(run) for run in runs] for _ in range(REPEATS)])
            columns = [*took.T, took[:, 1] / took[:, 0]]
            row = [
                name,
                str(width),
                order.__name__,
                *map(spread, columns),
                to_gap(model, width, order),
            ]
            print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    stay_on(1)
    main()
