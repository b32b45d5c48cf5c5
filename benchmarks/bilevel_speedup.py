r"""Updates that BSVRB-v2 needs to reach a target, against the number of sampled blocks.

The quadratic bilevel problem with 64 blocks, whose lower Hessians have eigenvalues from 1 to 2. The
target :math:`\epsilon` is reached at the first update :math:`t` for which the mean over seeds of
the exact :math:`\|\nabla F(x)\|^2`, averaged over the last quarter of the updates so far,
:math:`3t/4` to :math:`t`, is below :math:`\epsilon^2`.

For each number of sampled blocks the learning rates of both levels and the rates of tracker and
direction are tuned on seeds of their own: a pattern search that looks one and two steps along each
of the four and along two diagonals, and moves to the best until the middle is the best, first in
factors of 2 and then of :math:`\sqrt2`. Other seeds are reported, with an interval from resampling
them. A second, coarser target shows how the number of updates grows.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from stochopt import bsvrb_v2
from stochopt.problems import bilevel_quadratic

NUM_BLOCKS = 64
SAMPLED = (2, 4, 8, 16)
NOISE, START, CURVATURE = 0.3, 1.0, (1.0, 2.0)
TARGETS = (0.025, 0.05)  # the first is drawn
TUNING_SEEDS, REPORTED_SEEDS = range(32), range(100, 164)
RECORDS = 256  # of a run; the resolution of what is measured
NAMES = ("learning_rate", "lower_learning_rate", "tracker_rate", "direction_rate")
_AT_MOST = np.array([np.inf, np.inf, 0.5, 1.0])


def program(num_sampled):
    """``curves(seeds, settings, num_steps)``: squared norms, means over each of the records.

    All settings of a seed see the same batches. The first update looks at all blocks, so that every
    one has a direction.
    """
    options = {"noise": NOISE, "start": START, "lower_curvature": CURVATURE}
    make = lambda sampled: bilevel_quadratic(NUM_BLOCKS, sampled, **options)
    problem, probe = make(num_sampled), make(NUM_BLOCKS)
    gradient = problem.exact["gradient"]

    def update(setting, state, x, batch):
        optimizer = bsvrb_v2(
            problem.upper,
            problem.lower,
            **dict(zip(NAMES, setting, strict=True)),
            lower_params=problem.lower_params,
            num_blocks=NUM_BLOCKS,
            num_sampled=num_sampled,
        )
        state = optimizer.init(x) if state is None else state
        updates, state = optimizer.update(None, state, x, batch=batch, block_indices=batch.block)
        return x + updates, state

    def run(seed, settings, chunk):
        key = jax.random.key(seed)
        x, first = problem.init(key), probe.sample(jax.random.fold_in(key, 2**31 - 1))
        carry = jax.vmap(lambda setting: update(setting, None, x, first))(settings)

        def step(t, carry):
            points, total = carry
            batch = problem.sample(jax.random.fold_in(key, t))
            move = lambda setting, point: update(setting, point[1], point[0], batch)
            slopes = jax.vmap(gradient)(points[0])
            return jax.vmap(move)(settings, points), total + jnp.sum(slopes**2, axis=1)

        def record(points, i):
            start = points, jnp.zeros(len(settings))
            points, total = jax.lax.fori_loop(i * chunk, (i + 1) * chunk, step, start)
            return points, total / chunk

        return jax.lax.scan(record, carry, jnp.arange(RECORDS))[1].T

    compiled = jax.jit(jax.vmap(run, in_axes=(0, None, None)))

    def curves(seeds, settings, num_steps):
        chunk = -(-num_steps // RECORDS)
        found = compiled(jnp.asarray(list(seeds)), jnp.asarray(settings, jnp.float32), chunk)
        return np.minimum(np.nan_to_num(np.asarray(found, np.float64), nan=1e6), 1e6), chunk

    return curves


def reached(means, chunk, target):
    """The update that reaches the target, infinite where none does; over the last axis."""
    zero = np.zeros_like(means[..., :1])
    sums = np.cumsum(np.concatenate([zero, means], axis=-1), axis=-1)
    ends = np.arange(4, RECORDS + 1)
    begins = 3 * ends // 4
    below = (sums[..., ends] - sums[..., begins]) / (ends - begins) < target**2
    return np.where(below.any(axis=-1), chunk * ends[np.argmax(below, axis=-1)], np.inf)


# In powers of the factor; the two learning rates together, and the two other rates.
_ALONG = [*np.eye(4), np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1])]
_STEPS = np.array([np.zeros(4), *(k * step for step in _ALONG for k in (-2, -1, 1, 2))])


def tune(num_sampled, curves, start, num_steps, target):
    """The best setting, and how long a run has to be to look at it."""
    best = np.asarray(start, float)
    for factor in (2.0, np.sqrt(2.0)):
        while True:
            settings = np.minimum(best * factor**_STEPS, _AT_MOST)
            found, chunk = curves(TUNING_SEEDS, settings, num_steps)
            means = found.mean(axis=0)
            # One that does not arrive counts as longer, the longer the farther off it ends.
            late = num_steps * (1 + means[:, 3 * RECORDS // 4 :].mean(axis=1) / target**2)
            needed = np.minimum(reached(means, chunk, target), late)
            chosen = settings[np.argmin(needed)]
            if needed.min() < num_steps:
                num_steps = int(1.5 * needed.min())
            print(f"    {num_sampled} sampled: {needed.min():.0f} at {chosen}", file=sys.stderr)
            if needed[0] == needed.min():
                break
            best = chosen
    return best, num_steps


def measure():
    """By target and number of sampled blocks: the setting and what the reported seeds need."""
    found = {target: {} for target in TARGETS}
    for num_sampled in SAMPLED:
        curves = program(num_sampled)
        # Steps in proportion to the blocks that are seen.
        start = np.array([0.0035 * num_sampled, 0.005 * num_sampled, 0.1, 0.01])
        num_steps = 6_000 // num_sampled
        for target in sorted(TARGETS, reverse=True):
            setting, num_steps = tune(num_sampled, curves, start, num_steps, target)
            values, chunk = curves(REPORTED_SEEDS, setting[None], 2 * num_steps)
            found[target][num_sampled] = setting, *with_interval(values[:, 0], chunk, target)
            start, num_steps = setting, 6 * num_steps
    return found


def with_interval(curves, chunk, target):
    """What the mean over seeds needs, with a 95 % interval by resampling seeds."""
    draws = np.random.default_rng(0).integers(0, len(curves), (2000, len(curves)))
    resampled = reached(curves[draws].mean(axis=1), chunk, target)
    low, high = np.quantile(resampled, (0.025, 0.975), method="higher")
    return reached(curves.mean(axis=0), chunk, target), low, high


def report(found):
    head = [name.replace("_", " ") for name in NAMES]
    for target, rows in found.items():
        few = rows[min(rows)][1]
        print(f"\ntarget {target:g}: updates, 95 % interval over {len(REPORTED_SEEDS)} seeds")
        print(f"| sampled | updates | fewer by | in proportion | {' | '.join(head)} |")
        print("| --- " * (len(head) + 4) + "|")
        for num_sampled, (setting, needed, low, high) in rows.items():
            cells = " | ".join(f"{value:.2g}" for value in setting)
            print(
                f"| {num_sampled} | {needed:,.0f} [{low:,.0f}, {high:,.0f}] "
                f"| {few / needed:.1f} | {num_sampled / min(rows):g} | {cells} |"
            )


def draw(found, path):
    """Updates against sampled blocks, with the line of the ideal speed-up."""
    import matplotlib
    from matplotlib import pyplot as plt

    from stochopt.experiments import plots

    rows = found[TARGETS[0]]
    sampled = np.array(list(rows))
    middle, low, high = np.array([row[1:] for row in rows.values()]).T
    with matplotlib.rc_context(plots.STYLE):
        figure, ax = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
        color = plots.color("bsvrb_v2")
        spread = np.stack([middle - low, high - middle])
        ax.errorbar(sampled, middle, spread, color=color, marker="o", capsize=4, label="bsvrb_v2")
        ideal = middle[0] * sampled[0] / sampled
        ax.plot(sampled, ideal, color="#7A7A7A", linestyle="--", label="ideal: in proportion")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(sampled, [str(number) for number in sampled])
        ticks = [number for number in (250, 500, 1000, 2000, 4000) if low.min() < number]
        ax.set_yticks(ticks, [f"{number:,}" for number in ticks])
        ax.minorticks_off()
        ax.set_xlabel(f"sampled blocks, of {NUM_BLOCKS}")
        ax.set_ylabel(f"updates to gradient norm {TARGETS[0]:g}")
        ax.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def main():
    found = measure()
    report(found)
    draw(found, Path("docs/results/bilevel-speedup.svg"))
