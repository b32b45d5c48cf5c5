"""What calling ``update`` eagerly costs when it gets a ``value_fn`` closure.

    python benchmarks/eager_value_fn.py

Takes SMB steps on the digits problem in three ways that differ only in what is compiled:

- ``jit``: the whole step, with the closure made inside;
- ``jitted value_fn``: ``update`` is called eagerly, the closure calls a jitted loss;
- ``eager``: ``update`` is called eagerly, the closure calls the plain loss.

Gradients are jitted in all three. Prints the median seconds of a step and ratios to the first.
"""

import argparse
import statistics
import time

import jax
import optax

import stochopt
from stochopt import problems


def make_steps(problem, optimizer):
    value_and_grad = jax.jit(jax.value_and_grad(problem.loss))
    jitted_loss = jax.jit(problem.loss)

    def step_with(loss, value_and_grad):
        def step(params, state, batch):
            value, grads = value_and_grad(params, batch)
            updates, state = optimizer.update(
                grads, state, params, value=value, value_fn=lambda p: loss(p, batch)
            )
            return optax.apply_updates(params, updates), state

        return step

    return {
        "jit": jax.jit(step_with(problem.loss, jax.value_and_grad(problem.loss))),
        "jitted value_fn": step_with(jitted_loss, value_and_grad),
        "eager": step_with(problem.loss, value_and_grad),
    }


def seconds_per_step(step, problem, optimizer, num_steps, warmup=3):
    params = problem.init(jax.random.key(0))
    state = optimizer.init(params)
    times = []
    for t in range(warmup + num_steps):
        batch = jax.block_until_ready(problem.sample(jax.random.key(t)))
        before = time.perf_counter()
        params, state = jax.block_until_ready(step(params, state, batch))
        times.append(time.perf_counter() - before)
    return statistics.median(times[warmup:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=10, help="timed steps of each variant")
    arguments = parser.parse_args()

    problem, optimizer = problems.digits(), stochopt.smb(0.5)
    seconds = {
        name: seconds_per_step(step, problem, optimizer, arguments.steps)
        for name, step in make_steps(problem, optimizer).items()
    }
    print(f"jax {jax.__version__}, {jax.devices()[0].platform}, {arguments.steps} steps, median")
    for name, value in seconds.items():
        print(f"{name:>16}: {1e3 * value:8.2f} ms/step, {value / seconds['jit']:6.1f} x")


if __name__ == "__main__":
    main()
