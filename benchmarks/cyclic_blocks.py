"""Cyclic block descent: what the order costs, and how far it stays below its bounds.

python benchmarks/cyclic_blocks.py                  # all parts, half a minute
python benchmarks/cyclic_blocks.py --parts bounds

``orders``: cycles until a relative gap of 1e-6 on ``equicorrelated_quadratic``, over random starts.
``bounds``: squared distances to stationarity on ``sparse_robust_regression``, beside the bounds.
"""

import argparse

import jax
import numpy as np
import optax

from stochopt import blocks
from stochopt.problems import equicorrelated_quadratic, sparse_robust_regression


def cycles_to_gap(problem, order, num_starts):
    """Cycles until the gap is 1e-6 of its start."""
    optimizer = blocks.cyclic_block_descent(
        problem.loss, problem.partition, problem.block_smoothness, order=order
    )

    def advance(carry, key):
        x, state, count = carry
        key = jax.random.fold_in(key, count)
        updates, state = optimizer.update(None, state, x, batch=(), key=key)
        return optax.apply_updates(x, updates), state, count + 1

    @jax.jit
    def one(key):
        x = problem.init(key)
        target = 1e-6 * problem.full_loss(x)
        carry = x, optimizer.init(x), 0
        unsolved = lambda carry: problem.full_loss(carry[0]) > target
        return jax.lax.while_loop(unsolved, lambda carry: advance(carry, key), carry)[2]

    return np.asarray([one(key) for key in jax.random.split(jax.random.key(0), num_starts)])


def orders():
    print("cycles until a relative gap of 1e-6, median [range]")
    for size, coupling, num_starts in ((20, 0.8, 50), (100, 0.8, 5), (100, 0.95, 3)):
        problem = equicorrelated_quadratic(size, coupling)
        for order in (blocks.cyclic, blocks.random, blocks.shuffled):
            cycles = cycles_to_gap(problem, order, num_starts)
            print(
                f"d = {size:3d}, c = {coupling:.2f}, {order.__name__:8s}: "
                f"{np.median(cycles):7.0f} [{cycles.min()}, {cycles.max()}], {num_starts} starts"
            )


def squared_distances(problem, optimizer, num_cycles, key, sample):
    """After every cycle."""
    of_cycles, of_coins = (jax.random.split(k, num_cycles) for k in jax.random.split(key))

    def step(carry, keys):
        x, state = carry
        updates, state = optimizer.update(None, state, x, batch=sample(keys[0]), key=keys[1])
        x = optax.apply_updates(x, updates)
        return (x, state), problem.metrics(x)["squared_subgradient_norm"]

    x = problem.init(key)
    return jax.lax.scan(step, (x, optimizer.init(x)), (of_cycles, of_coins))[1]


def bounds():
    problem = sparse_robust_regression()
    gap = float(problem.full_loss(problem.init(None)))  # the least value is not negative
    ahead, behind = problem.cyclic_smoothness
    largest = problem.block_smoothness.max()
    print(
        f"L = {problem.smoothness:.1f}, L-hat = {ahead:.1f}, L-tilde = {behind:.1f}; of terms",
        end=" ",
    )
    print("{:.1f} and {:.1f}".format(*problem.sampled_cyclic_smoothness), end="; ")
    print(f"largest L_j = {largest:.2f}")
    cycles, exact = np.arange(1, 1501), lambda x, batch: problem.full_smooth(x)
    for name, smoothness in (
        ("L-hat", ahead),
        ("max L_j", largest),
        ("L_j", problem.block_smoothness),
    ):
        optimizer = blocks.cyclic_block_descent(
            exact, problem.partition, smoothness, prox=problem.prox
        )
        run = jax.jit(
            lambda o=optimizer: squared_distances(problem, o, 1500, jax.random.key(0), lambda k: ())
        )
        squares = np.minimum.accumulate(run())
        ratio = np.max(squares / blocks.cyclic_descent_bound(ahead, gap, cycles))
        late = (squares < 1e-6) & (squares > 1e-24)
        factor = np.exp(np.polyfit(cycles[late], np.log(squares[late]), 1)[0])
        print(
            f"exact, steps 1 / {name}: at most {ratio:.3f} of the bound for 1 / L-hat, ends at "
            f"{squares[-1]:.1e}, a factor of {factor:.3f} a cycle"
        )
    step = blocks.vr_cyclic_step(
        problem.block_smoothness, problem.sampled_cyclic_smoothness, num_terms=100, batch_size=10
    )
    of_blocks = lambda key: jax.vmap(problem.sample)(jax.random.split(key, 6))
    for name, smoothness, resample, sample in (
        ("of the theory", 1 / step, "block", of_blocks),
        ("1 / max L_j, one batch a block", largest, "block", of_blocks),
        ("1 / max L_j, one batch a cycle", largest, "cycle", problem.sample),
    ):
        optimizer = blocks.vr_cyclic_block_descent(
            problem.smooth,
            problem.full_smooth,
            problem.partition,
            smoothness,
            num_batches=10,
            prox=problem.prox,
            resample=resample,
        )
        run = lambda key, o=optimizer, s=sample: squared_distances(problem, o, 1000, key, s)
        keys = jax.random.split(jax.random.key(0), 20)
        squares = np.asarray(jax.jit(lambda keys, run=run: jax.lax.map(run, keys))(keys))
        average, ends = squares[:, :400].mean(), squares[:, -200:].mean(axis=1)
        print(
            f"sampled, steps {name}: mean of 400 cycles and 20 seeds {average:.3f}, bound "
            f"{blocks.vr_cyclic_descent_bound(1 / smoothness, gap, 400):.3f}; the last 200 of 1000 "
            f"cycles {np.median(ends):.1e}, worst seed {ends.max():.1e}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", default="orders,bounds")
    jax.config.update("jax_enable_x64", True)
    for part in parser.parse_args().parts.split(","):
        {"orders": orders, "bounds": bounds}[part]()


if __name__ == "__main__":
    main()
