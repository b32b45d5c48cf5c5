"""Smooth gradients against samples: sliding and SGD on a stream, to two relative gaps.

    python benchmarks/streaming.py --output docs/results/streaming.json
    python benchmarks/streaming.py --output docs/results/streaming.json --parts table picture

The problem is the absolute loss on a stream beside a quadratic of condition 50. Counted are the
smooth gradients and the samples that a run has used when the gap of its output first stays below
the target until the run ends.

``run`` tunes every method on seeds of their own: all settings of its grid, then for each target
those from which no other setting of the method takes less of both by the medians. These run on
fresh seeds, and what they take there is kept, by seed. ``true`` runs both sliding methods with the
true constants on them. Results go into a JSON file, to which each method adds its own, and a
picture beside it: the fronts, and the least cost of each method where a smooth gradient costs as
much as p samples.
"""

import argparse
import itertools
import json
import platform
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from matplotlib import pyplot as plt

from stochopt import sliding
from stochopt.experiments.plots import STYLE
from stochopt.problems import streaming_absolute_loss

TARGETS = (3e-3, 3e-4)  # gaps relative to that of the start
TUNE_SEED = 1000
CHUNK = 16  # samples drawn at a time
MOST_SAMPLES, MOST_STEPS = 80_000, 800  # of a run, which ends at the first of them
FEWEST_STEPS = 60  # of a run with large batches of constant size

PROBLEM = streaming_absolute_loss()
START = PROBLEM.init(None)
GAP = float(PROBLEM.metrics(START)["gap"])
# What the policies are told, in parts of the true constants.
GAP_FACTORS = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
MODULUS_FACTORS = (1.0, 4.0, 12.5)
INNER_BATCHES = (1, 8)
STEP_SIZES = (0.2, 0.4, 0.8, 1.4)
KNEES = (10.0, 30.0, 100.0, 300.0, np.inf)
MOMENTA = (0.5, 0.75)  # the theory has 0.75 at this condition
CONSTANT = [(batch, 1.0) for batch in (32, 64, 128, 256, 512, 1024, 2048)]
GROWING = list(itertools.product((16, 64), (1.05, 1.1, 1.2)))


# Sliding


def policy_of(make, setting):
    """The policy told these parts of the true constants."""
    noise = PROBLEM.noise / np.sqrt(setting["inner batch"])
    modulus = setting["modulus"] * PROBLEM.strong_convexity
    constants = PROBLEM.smoothness, modulus, PROBLEM.subgradient_bound, setting["gap"] * GAP
    return make(*constants, noise=noise)


def sliding_runs(make, inner_batch):
    """``run(keys, setting)``: gaps by seed and step, and both counts by step."""
    problem = streaming_absolute_loss(batch_size=inner_batch)

    @jax.jit
    def gaps(keys, setting, num_steps):
        optimizer = sliding.slide(
            policy_of(make, setting | {"inner batch": inner_batch}),
            jax.grad(problem.nonsmooth),
            sample=problem.sample,
            geometry=sliding.euclidean(problem.prox),
        )

        def run(key):
            def step(k, carry):
                x, state, found = carry
                gradient = jax.grad(problem.smooth)(x, None)
                draws = jax.random.fold_in(key, k)
                updates, state = optimizer.update(gradient, state, x, key=draws)
                found = found.at[k].set(problem.metrics(state.averaged_point)["gap"])
                return optax.apply_updates(x, updates), state, found

            carry = START, optimizer.init(START), jnp.full(MOST_STEPS, jnp.inf)
            return jax.lax.fori_loop(0, num_steps, step, carry)[2]

        return jax.vmap(run)(keys)

    def run(keys, setting):
        lengths = jax.vmap(policy_of(make, setting).inner_length)(jnp.arange(1.0, MOST_STEPS + 1))
        samples = inner_batch * np.cumsum(np.asarray(lengths, float))
        num_steps = int(np.searchsorted(samples, MOST_SAMPLES))
        constants = {name: setting[name] for name in ("gap", "modulus")}
        found = np.asarray(gaps(keys, constants, num_steps))[:, :num_steps]
        return found, np.arange(1, num_steps + 1), samples[:num_steps]

    return run


def sliding_results(make, keys, settings):
    """Of all settings, by number: smooth gradients and samples to each target, by seed."""
    programs = {batch: sliding_runs(make, batch) for batch in INNER_BATCHES}
    return [counts(*programs[setting["inner batch"]](keys, setting)) for setting in settings]


# SGD, with and without momentum


@jax.jit
def descents(keys, batches, step_sizes, knees, momenta, num_steps):
    """Gaps of the last point and of the average, by seed, step and setting.

    All settings see the same samples. The average has weights that grow like the third power of
    the number of the step.
    """
    chunks = streaming_absolute_loss(batch_size=CHUNK)
    settings = len(step_sizes)
    gap = jax.vmap(lambda x: PROBLEM.metrics(x)["gap"])
    smooth_slope = jax.vmap(lambda x: jax.grad(PROBLEM.smooth)(x, None))

    def run(key):
        def step(k, carry):
            x, old, average, found = carry
            y = x + momenta[:, None] * (x - old)
            draws = jax.random.fold_in(key, k)

            def add_chunk(i, total):
                batch = chunks.sample(jax.random.fold_in(draws, i))
                return total + jax.vmap(jax.grad(chunks.nonsmooth), (0, None))(y, batch)

            number = batches[k] // CHUNK
            slope = jax.lax.fori_loop(0, number, add_chunk, jnp.zeros_like(y)) / number
            rate = (step_sizes / (1 + k / knees))[:, None]
            new = PROBLEM.prox(y - rate * (smooth_slope(y) + slope), rate)
            average = average + 4 / (k + 4) * (new - average)
            found = found.at[k].set(jnp.stack([gap(new), gap(average)]))
            return new, x, average, found

        points = jnp.zeros((settings, len(START)))
        carry = (points,) * 3 + (jnp.full((MOST_STEPS, 2, settings), jnp.inf),)
        return jax.lax.fori_loop(0, num_steps, step, carry)[3]

    return jax.lax.map(run, keys)


def descent_results(keys, settings):
    """Of all settings, by number: smooth gradients and samples to each target, by seed."""
    found = [None] * len(settings)
    by_batch = {}
    for place, setting in enumerate(settings):
        by_batch.setdefault((setting["batch"], setting["growth"]), []).append(place)
    for (batch, growth), places in by_batch.items():
        grown = np.minimum(batch * growth ** np.arange(MOST_STEPS), MOST_SAMPLES)
        batches = (CHUNK * np.ceil(grown / CHUNK)).astype(np.int32)
        samples = np.cumsum(batches, dtype=float)
        num_steps = min(int(np.searchsorted(samples, MOST_SAMPLES)), MOST_STEPS)
        if growth == 1:
            num_steps = max(num_steps, FEWEST_STEPS)
        names = ("step", "knee", "momentum")
        columns = jnp.array([[settings[i][name] for i in places] for name in names])
        gaps = np.asarray(descents(keys, batches, *columns, num_steps))[:, :num_steps]
        for number, place in enumerate(places):
            output = settings[place]["output"] == "average"
            found[place] = counts(
                gaps[:, :, int(output), number],
                np.arange(1, num_steps + 1),
                samples[:num_steps],
            )
    return found


# Counts, tuning


def counts(gaps, smooth, samples):
    """Both counts when the gap stays below each target; infinite where it does not."""
    rows = []
    for target in TARGETS:
        above = ~(gaps <= target * GAP)  # a gap that is not a number is above
        first = np.where(above.any(1), gaps.shape[1] - np.argmax(above[:, ::-1], axis=1), 0)
        at = lambda values, first=first: np.append(values, np.inf)[first]
        rows.append(np.stack([at(smooth), at(samples)], axis=-1))
    return np.stack(rows)  # target, seed, count


def front(points):
    """Numbers of the finite points from which no other takes less of both."""
    order = sorted(range(len(points)), key=lambda i: tuple(points[i]))
    kept, least = [], np.inf
    for i in order:
        if points[i][1] < least:
            kept.append(i)
            least = points[i][1]
    return kept


def grid_of(**axes):
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def descent_grid(batches, momenta):
    rest = {"step": STEP_SIZES, "knee": KNEES, "momentum": momenta, "output": ("last", "average")}
    return [
        {"batch": batch, "growth": growth, **row}
        for batch, growth in batches
        for row in grid_of(**rest)
    ]


SLIDING_GRID = grid_of(
    **{"gap": GAP_FACTORS, "modulus": MODULUS_FACTORS, "inner batch": INNER_BATCHES}
)
METHODS = {
    "restart-free sliding": (
        lambda keys, settings: sliding_results(sliding.restart_free, keys, settings),
        SLIDING_GRID,
    ),
    "restarted sliding": (
        lambda keys, settings: sliding_results(sliding.multi_phase, keys, settings),
        SLIDING_GRID,
    ),
    "SGD": (descent_results, descent_grid(CONSTANT, (0.0,))),
    "accelerated SGD": (descent_results, descent_grid(CONSTANT, MOMENTA)),
    "accelerated SGD, growing batches": (descent_results, descent_grid(GROWING, MOMENTA)),
}


def seeds(first, number):
    return jax.vmap(jax.random.key)(first + jnp.arange(number))


def measure(arguments, record):
    for name in arguments.methods:
        results, grid = METHODS[name]
        tuned = np.stack(results(seeds(TUNE_SEED, arguments.tune_seeds), grid))
        medians = np.median(tuned, axis=2)  # setting, target, count
        chosen = [front(medians[:, number]) for number in range(len(TARGETS))]
        places = sorted(set(itertools.chain(*chosen)))
        fresh = results(seeds(0, arguments.seeds), [grid[i] for i in places])
        by_place = dict(zip(places, fresh, strict=True))
        record["methods"][name] = {
            f"{target:g}": [
                {
                    "setting": {k: None if v == np.inf else v for k, v in grid[i].items()},
                    "smooth gradients": by_place[i][number, :, 0].tolist(),
                    "samples": by_place[i][number, :, 1].tolist(),
                }
                for i in chosen[number]
            ]
            for number, target in enumerate(TARGETS)
        }
        print(f"{name}: {len(grid)} settings, {len(places)} on fresh seeds", flush=True)
        save(arguments, record)


def with_true_constants(arguments, record):
    """Both sliding methods as their analyses want them, on the same fresh seeds."""
    setting = {"gap": 1.0, "modulus": 1.0, "inner batch": 1}
    record["true constants"] = {}
    for name in ("restart-free sliding", "restarted sliding"):
        found = METHODS[name][0](seeds(0, arguments.seeds), [setting])[0]
        record["true constants"][name] = {
            target: {"smooth gradients": row[:, 0].tolist(), "samples": row[:, 1].tolist()}
            for target, row in zip(record["targets"], found, strict=True)
        }
    save(arguments, record)


# Table and picture


def both(row):
    """Counts by seed, in two columns."""
    return np.stack([row["smooth gradients"], row["samples"]], axis=-1)


def table(arguments, record):
    del arguments
    spread = lambda values: "{1:,.0f} [{0:,.0f}, {2:,.0f}]".format(
        *np.quantile(values, (0.25, 0.5, 0.75), method="nearest")
    )
    for target in record["targets"]:
        print(f"\nrelative gap {target}")
        print("| method | setting | smooth gradients | samples |\n|---|---|---|---|")
        for name, by_target in record["methods"].items():
            for row in by_target[target]:
                told = ", ".join(
                    f"{key} {value:g}" if isinstance(value, (int, float)) else f"{key} {value}"
                    for key, value in row["setting"].items()
                    if value is not None
                )
                print("| " + " | ".join([name, told, *map(spread, both(row).T)]) + " |")
        for name, by_target in record["true constants"].items():
            row = map(spread, both(by_target[target]).T)
            print("| " + " | ".join([name, "true constants", *row]) + " |")
        prices, costs = least_costs(record, target)
        others = [name for name in costs if name != "restart-free sliding"]
        for name in others:
            wins = costs["restart-free sliding"] < costs[name]
            print(f"sliding is cheaper than {name} at prices", ranges(prices, wins))
        best = np.min([costs[name] for name in others], axis=0)
        print("than all of them", ranges(prices, costs["restart-free sliding"] < best))
        for price in (1, 10, 100, 1000, 10_000):
            at = np.argmin(np.abs(np.log(prices / price)))
            print(price, {name: round(float(cost[at])) for name, cost in costs.items()})


def least_costs(record, target):
    """Median cost of the best setting of each method, at each price of a smooth gradient."""
    prices = np.geomspace(0.1, 1e5, 601)
    costs = {
        name: np.min(
            [np.median(both(row) @ [prices, 1 + 0 * prices], axis=0) for row in by_target[target]],
            axis=0,
        )
        for name, by_target in record["methods"].items()
    }
    return prices, costs


def ranges(prices, true):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], true.astype(int), [0]])))
    pairs = edges.reshape(-1, 2)
    return [f"{prices[first]:.3g} to {prices[end - 1]:.3g}" for first, end in pairs] or "none"


LOOKS = {
    "restart-free sliding": ("#0072B2", "o", "-"),
    "restarted sliding": ("#56B4E9", "s", (0, (5, 1.5))),
    "SGD": ("#E69F00", "^", "-"),
    "accelerated SGD": ("#D55E00", "v", "-"),
    "accelerated SGD, growing batches": ("#7A7A7A", "D", (0, (1.5, 1.2))),
}


def picture(arguments, record):
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(
            2, len(record["targets"]), figsize=(12, 9), layout="constrained", sharey="row"
        )
        for (top, bottom), target in zip(axes.T, record["targets"], strict=True):
            prices, costs = least_costs(record, target)
            cheapest = np.min(list(costs.values()), axis=0)
            for name, by_target in record["methods"].items():
                color, marker, dashes = LOOKS[name]
                low, middle, high = np.quantile(
                    [both(row) for row in by_target[target]],
                    (0.25, 0.5, 0.75),
                    axis=1,
                    method="nearest",
                )
                shown = np.isfinite(high).all(axis=1)
                low, middle, high = low[shown], middle[shown], high[shown]
                place = np.argsort(middle[:, 0])
                top.plot(*middle[place].T, color=color, marker=marker, linestyle=dashes, label=name)
                top.errorbar(
                    *middle.T,
                    xerr=np.stack([middle - low, high - middle])[:, :, 0],
                    yerr=np.stack([middle - low, high - middle])[:, :, 1],
                    color=color,
                    linestyle="none",
                    linewidth=1,
                )
                bottom.plot(prices, costs[name] / cheapest, color=color, linestyle=dashes)
            for ax in (top, bottom):
                ax.set(xscale="log", yscale="log")
            top.set(xlabel="smooth gradients", xlim=(6, 400))
            ticks = (10, 20, 50, 100, 200)
            top.set_xticks(ticks, map(str, ticks))
            levels = (2000, 5000, 10_000, 20_000, 50_000)
            top.set_yticks(levels, [f"{level:,}" for level in levels])
            top.minorticks_off()
            top.set_title(f"relative gap {target}")
            bottom.set(xlabel="price of a smooth gradient, in samples", ylim=(0.97, 3))
            bottom.set_yticks([1, 1.5, 2, 3], ["1", "1.5", "2", "3"])
            bottom.minorticks_off()
        axes[0, 0].set_ylabel("samples")
        axes[1, 0].set_ylabel("cost relative to the cheapest")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(arguments.output.with_suffix(".svg"), metadata={"Date": None})


def save(arguments, record):
    arguments.output.write_text(json.dumps(record) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = {"run": measure, "true": with_true_constants, "table": table, "picture": picture}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--tune-seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("streaming.json"))
    arguments = parser.parse_args()
    record = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    if "run" in arguments.parts:
        record |= {
            "targets": [f"{target:g}" for target in TARGETS],
            "seeds": arguments.seeds,
            "tune seeds": arguments.tune_seeds,
            "jax": jax.__version__,
            "python": platform.python_version(),
            "methods": record.get("methods", {}),
        }
    for name in arguments.parts:
        parts[name](arguments, record)


if __name__ == "__main__":
    main()
