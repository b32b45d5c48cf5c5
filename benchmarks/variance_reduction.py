"""How many gradients to a small gradient norm: variance reduction against tuned SGD.

    python benchmarks/variance_reduction.py a8a_training.txt --out docs/results

Logistic regression as a finite sum with the bounded regularizer, which is not convex. Counted are
gradients of single terms, a full gradient as all of them, until the norm of the exact gradient is
first seen at or below the target. It is looked at after every 4,500 gradients or so, which is not
counted. All methods take batches of sqrt(n) terms. Each runs its whole grid on seeds of its own;
the setting with the least median, and the least norm at the end where none gets there, goes on
with fresh seeds and a larger budget. Writes the numbers to a JSON file, the picture beside it.
"""

import argparse
import itertools
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from matplotlib import pyplot as plt

from stochopt import page, saga, storm, svrg
from stochopt.compositional import sample_blocks
from stochopt.experiments import plots
from stochopt.problems import logistic_finite_sum

REGULARIZATIONS = (0.1, 0.001)
TARGET = 1e-3
LOOK_EVERY = 4500  # gradients of single terms, about
STEPS = (0.25, 0.5, 1.0, 1.9)  # times 1 / L; from 2 on gradient descent does not converge


def make_sgd(problem, step, knee):
    return optax.sgd(lambda t: step / (1 + t / knee))


def make_storm(problem, step, knee, factor):
    return storm(
        problem.loss,
        lambda t: step / (1 + t / knee) ** (1 / 3),
        direction_rate=lambda t: jnp.minimum(1.0, factor / (1.0 + t) ** (2 / 3)),
    )


# Name to factory, grid (the step in units of 1 / L) and batches an update, as a rule.
METHODS = {
    "page": (
        lambda p, step: page(p.loss, p.full_loss, step, num_batches=p.num_batches),
        {"step": STEPS},
        3,
    ),
    "svrg": (
        lambda p, step: svrg(p.loss, p.full_loss, step, num_batches=p.num_batches),
        {"step": STEPS},
        2,
    ),
    "saga": (lambda p, step: saga(p.loss, step, num_blocks=p.num_blocks), {"step": STEPS}, 1),
    "storm": (make_storm, {"step": STEPS, "knee": (100.0, np.inf), "factor": (1.0, 10.0)}, 2),
    "sgd": (make_sgd, {"step": STEPS, "knee": (10.0, 100.0, 1000.0, 10000.0)}, 1),
}


def compiled(problem, batch_size, name, num_looks):
    """``run(key, rates, budget)``: gradients and norms at every look, and the number of looks."""
    make, grid, batches_an_update = METHODS[name]
    updates_a_look = max(1, LOOK_EVERY // (batch_size * batches_an_update))

    def run(key, rates, budget):
        step = rates["step"] / problem.smoothness
        optimizer = optax.with_extra_args_support(make(problem, **rates | {"step": step}))

        def update(t, carry):
            x, state, key = carry
            key, for_batch, for_coin = jax.random.split(key, 3)
            drawn = sample_blocks(for_batch, problem.num_blocks, batch_size)
            gradient = jax.grad(problem.loss)(x, drawn) if name == "sgd" else None
            extras = {"batch": drawn, "block_indices": drawn, "key": for_coin}
            updates, state = optimizer.update(gradient, state, x, **extras)
            return optax.apply_updates(x, updates), state, key

        def look(carry):
            k, inner, spent, norms = carry
            inner = jax.lax.fori_loop(0, updates_a_look, update, inner)
            counted = optax.tree.get(inner[1], "num_gradients")
            gradients = counted if counted is not None else (k + 1) * updates_a_look
            norm = optax.tree.norm(problem.exact["gradient"](inner[0]))
            spent = spent.at[k].set(gradients * batch_size)
            return k + 1, inner, spent, norms.at[k].set(norm)

        def goes_on(carry):
            k, _, spent, norms = carry
            before, last = norms[k - 1], spent[k - 1]
            return (k == 0) | ((k < num_looks) & (last < budget) & (before > TARGET))

        x = problem.init(key)
        looks = jnp.zeros(num_looks, jnp.int32), jnp.zeros(num_looks)
        carry = (jnp.zeros([], jnp.int32), (x, optimizer.init(x), key), *looks)
        k, _, spent, norms = jax.lax.while_loop(goes_on, look, carry)
        return k, spent, norms

    rates = dict.fromkeys(grid, 1.0)
    return jax.jit(run).lower(jax.random.key(0), rates, 1.0).compile()


def measure(run, seeds, rates, budget):
    """For each seed the gradients to the target, infinite without it, and the curve."""
    counts, curves = [], []
    for seed in seeds:
        k, spent, norms = jax.device_get(run(jax.random.key(seed), rates, budget))
        spent, norms = spent[:k], norms[:k]
        counts.append(float(spent[-1]) if norms[-1] <= TARGET else np.inf)
        curves.append((spent, norms))
    return counts, curves


def tuned(run, grid, num_seeds, budget):
    """Every setting of the grid with its median count and median last norm; the best one."""
    found = []
    for values in itertools.product(*grid.values()):
        rates = dict(zip(grid, values, strict=True))
        counts, curves = measure(run, range(100, 100 + num_seeds), rates, budget)
        last = float(np.median([np.nan_to_num(norms[-1], nan=np.inf) for _, norms in curves]))
        found.append({"rates": rates, "count": float(np.median(counts)), "norm": last})
    return min(found, key=lambda row: (row["count"], row["norm"])), found


def compare(arguments, regularization):
    problem = logistic_finite_sum(
        arguments.data, batch_size=arguments.batch_size, regularization=regularization
    )
    rows = {}
    for name, (_, grid, _) in METHODS.items():
        begin = time.process_time()
        num_looks = int(arguments.budget // (LOOK_EVERY - arguments.batch_size * 3)) + 2
        run = compiled(problem, arguments.batch_size, name, num_looks)
        best, found = tuned(run, grid, arguments.tune_seeds, arguments.tune_budget)
        counts, curves = measure(run, range(arguments.seeds), best["rates"], arguments.budget)
        rows[name] = {
            "rates": best["rates"],
            "counts": counts,
            "norms": [float(norms[-1]) for _, norms in curves],
            "grid": found,
            "seconds": time.process_time() - begin,
            "curves": curves,
        }
        low, middle, high = quartiles(counts)
        print(
            f"{regularization} {name} {best['rates']}: {middle:.4g} [{low:.4g}, {high:.4g}], "
            f"{np.sum(np.isfinite(counts))} of {len(counts)} seeds, "
            f"{rows[name]['seconds']:.0f} s",
            flush=True,
        )
    return problem, rows


def quartiles(counts):
    return np.quantile(counts, [0.25, 0.5, 0.75], method="nearest")


def report(regularization, rows, num_terms, budget):
    print(f"\nregularization {regularization}")
    print(
        "| method | step times L, other settings | gradients | passes | seeds | SGD's over these |"
    )
    print("|---|---|---|---|---|---|")
    show = lambda count: f"{count:,.0f}" if count < np.inf else f"> {budget:,.0f}"
    sgd = np.median(rows["sgd"]["counts"])
    for name, row in rows.items():
        low, middle, high = quartiles(row["counts"])
        settings = ", ".join(f"{value:g}" for value in row["rates"].values())
        reached = f"{np.sum(np.isfinite(row['counts']))} of {len(row['counts'])}"
        spread = f" [{show(low)}, {show(high)}]" if low < np.inf else ""
        passes, ratio = "-", "-"
        if middle < np.inf:
            passes = f"{middle / num_terms:.1f}"
            ratio = ("> " if sgd == np.inf else "") + f"{min(sgd, budget) / middle:.1f}"
        print(
            f"| `{name}` | {settings} | {show(middle)}{spread} | {passes} | {reached} | {ratio} |"
        )


def draw(results):
    """Gradient norm against gradients: medians of the seeds, held after the target is met."""
    with matplotlib.rc_context(plots.STYLE):
        figure, axes = plt.subplots(
            1, len(results), figsize=(11, 4.8), sharey=True, layout="constrained"
        )
        for ax, (regularization, (problem, rows)) in zip(axes, results.items(), strict=True):
            for number, (name, row) in enumerate(rows.items()):
                spent = np.unique(np.concatenate([spent for spent, _ in row["curves"]]))
                spent = spent[:: max(1, len(spent) // 300)]
                at = lambda curve, spent=spent: np.interp(spent, *curve)
                norms = np.median([at(curve) for curve in row["curves"]], axis=0)
                ax.plot(spent / problem.num_blocks, norms, label=name, color=f"C{number}")
            ax.axhline(TARGET, color="#777777", linewidth=1, linestyle=(0, (2, 2)))
            ax.set_title(f"regularization {regularization:g}", fontsize=12)
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_xlabel("gradients of single terms, in passes over the data")
        axes[0].set_ylabel("norm of the exact gradient")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="file in LIBSVM's format, such as a8a")
    parser.add_argument("--batch-size", type=int, default=151)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tune-seeds", type=int, default=1)
    parser.add_argument("--tune-budget", type=float, default=3e6, help="gradients of single terms")
    parser.add_argument("--budget", type=float, default=6e6, help="likewise, with fresh seeds")
    parser.add_argument("--out", type=Path, default=Path("race/variance-reduction"))
    arguments = parser.parse_args()
    results = {r: compare(arguments, r) for r in REGULARIZATIONS}
    for regularization, (problem, rows) in results.items():
        report(regularization, rows, problem.num_blocks, arguments.budget)
    arguments.out.mkdir(parents=True, exist_ok=True)
    plots.save(draw(results), arguments.out / "variance-reduction")
    record = {
        str(regularization): {
            name: {key: value for key, value in row.items() if key != "curves"}
            for name, row in rows.items()
        }
        for regularization, (_, rows) in results.items()
    }
    text = json.dumps(record, default=str).replace("Infinity", "null").replace("NaN", "null")
    (arguments.out / "variance-reduction.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
