"""Time of a cycle over the blocks of a linear model, beside one gradient of its mean loss.

    python benchmarks/linear_model_cycle.py
    python benchmarks/linear_model_cycle.py --libsvm a8a.txt

Dense Gaussian data of 2,000 samples and 1,000 features, or those of a file in LIBSVM's format, in
float32. Both run in one compiled loop of 20 turns, in turn, on one core; processor time, which
other processes disturb less than the clock. Medians and ranges over the repeats, the ratio from
pairs of neighbours.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from timing import spread, stay_on

from stochopt import linear_models as lm
from stochopt.problems.libsvm import read_libsvm

NUM_TURNS = 20
REPEATS = 25
WIDTHS = (1, 8, 32, 64, 128)
LOSSES = {"squared": lm.squared, "logistic": lm.logistic}


def gradient_steps(model: lm.LinearModel):
    """A loop of gradient steps, each of which is one gradient and a sum."""
    step = lambda _, x: x - 1e-3 * model.gradient(x)
    return jax.lax.fori_loop(0, NUM_TURNS, step, jnp.zeros(model.design.shape[1]))


def cycles(model: lm.LinearModel, block_width: int):
    """A loop of cycles."""
    optimizer = lm.linear_model_descent(model, block_width=block_width)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libsvm", help="a file in LIBSVM's format")
    path = parser.parse_args().libsvm
    if path is None:
        rng = np.random.default_rng(0)
        rows, labels = rng.standard_normal((2_000, 1_000)), np.sign(rng.standard_normal(2_000))
    else:
        rows, labels = read_libsvm(path)
    design = lm.dense(np.asarray(rows, np.float32))
    print(f"{design.shape[0]:,} samples, {design.shape[1]:,} features, float32")
    print("| loss | columns in a block | gradient, ms | cycle, ms | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for name, loss in LOSSES.items():
        model = lm.linear_model(design, labels, loss(), lm.l1(1e-3))
        gradients = jax.jit(gradient_steps)
        for width in WIDTHS:
            runs = functools.partial(gradients, model), cycles(model, width)
            for run in runs:
                jax.block_until_ready(run())
            took = np.array([[milliseconds(run) for run in runs] for _ in range(REPEATS)])
            columns = [*took.T, took[:, 1] / took[:, 0]]
            print(f"| {name} | {width} | " + " | ".join(map(spread, columns)) + " |")


if __name__ == "__main__":
    stay_on(1)
    main()
