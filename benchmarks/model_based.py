"""How long the steps of model-based methods may be, on phase retrieval without noise.

One example an update, constant step sizes over a wide range, every seed with data, start and draws
of its own. Counted are the epochs until the gap is below 1e-4, and what is left at the end. Prints
tables and draws both against the step size.

    python benchmarks/model_based.py --out docs/results
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from matplotlib import pyplot as plt

from stochopt import (
    prox_subgradient,
    stochastic_prox_linear,
    stochastic_prox_point,
    truncated_model,
)
from stochopt.experiments import plots
from stochopt.problems import phase_retrieval

SIZES = ((10, 30), (50, 150), (100, 300))
RATES = 10.0 ** np.arange(-3, 3.5, 0.5)
TARGET = 1e-4
BATCH = 10  # of the one method that takes several examples

# Name to batch size and factory.
METHODS = {
    "stochastic_prox_point": (1, lambda p, rate: stochastic_prox_point(p.loss_prox, rate)),
    "stochastic_prox_linear, 10": (
        BATCH,
        lambda p, rate: stochastic_prox_linear(p.residuals, rate),
    ),
    "stochastic_prox_linear": (1, lambda p, rate: stochastic_prox_linear(p.residuals, rate)),
    "truncated_model": (1, lambda p, rate: truncated_model(rate)),
    "prox_subgradient": (1, lambda p, rate: prox_subgradient(rate)),
    "sgd, falling": (1, lambda p, rate: optax.sgd(lambda t: rate / jnp.sqrt(1.0 + t))),
    "adam": (1, lambda p, rate: optax.adam(rate)),
}


def gaps(problem, method, seed, num_updates, num_epochs):
    """Gap after every epoch, by step size."""

    def run(rate):
        optimizer = optax.with_extra_args_support(method(problem, rate))

        def step(carry, key):
            x, state = carry
            batch = problem.sample(key)
            value, grad = jax.value_and_grad(problem.loss)(x, batch)
            updates, state = optimizer.update(grad, state, x, value=value, batch=batch)
            return (optax.apply_updates(x, updates), state), None

        def epoch(carry, key):
            carry, _ = jax.lax.scan(step, carry, jax.random.split(key, num_updates))
            return carry, problem.metrics(carry[0])["gap"]

        start_key, key = jax.random.split(jax.random.key(seed))
        x = problem.init(start_key)
        keys = jax.random.split(key, num_epochs)
        return jax.lax.scan(epoch, (x, optimizer.init(x)), keys)[1]

    found = np.asarray(jax.jit(jax.vmap(run))(jnp.asarray(RATES)))
    return np.nan_to_num(found, nan=np.inf)


def measure(size, name, num_seeds, num_epochs):
    """Epochs to the target (infinite where it is not met) and final gaps, by seed and step size."""
    dimension, num_examples = size
    batch_size, method = METHODS[name]
    curves = np.stack(
        [
            gaps(
                phase_retrieval(
                    dimension, num_examples, batch_size, 0.0, seed=seed, start_distance=None
                ),
                method,
                seed,
                num_examples // batch_size,
                num_epochs,
            )
            for seed in range(num_seeds)
        ]
    )
    solved = curves < TARGET
    epochs = np.where(solved.any(axis=-1), 1.0 + solved.argmax(axis=-1), np.inf)
    return epochs, curves[:, :, -1]


def quartiles(values):
    return np.quantile(values, [0.25, 0.5, 0.75], axis=0, method="nearest")


def solved_range(epochs):
    """The longest run of step sizes at which the median seed meets the target."""
    solved = np.median(epochs, axis=0) < np.inf
    edges = np.flatnonzero(np.diff(np.concatenate([[0], solved.astype(int), [0]])))
    runs = edges.reshape(-1, 2)
    if not len(runs):
        return None
    first, end = max(runs, key=lambda run: run[1] - run[0])
    return RATES[first], RATES[end - 1]


def report(size, records):
    dimension, num_examples = size
    print(f"\n{dimension} unknowns, {num_examples} measurements")
    print("| method | solves with steps from | decades | best step | epochs there | final gap |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (epochs, final) in records.items():
        low, middle, high = quartiles(epochs)
        smallest = np.lexsort((quartiles(final)[1], middle))[0]
        solved = solved_range(epochs)
        where, decades = "none", "0"
        if solved:
            where = f"{solved[0]:.2g} to {solved[1]:.2g}"
            decades = f"{np.log10(solved[1] / solved[0]):.1f}"
        took = "not met"
        if middle[smallest] < np.inf:
            ends = [f"{x[smallest]:.0f}" if x[smallest] < np.inf else "-" for x in (low, high)]
            took = f"{middle[smallest]:.0f} [{', '.join(ends)}]"
        left = " [{1:.0e}, {2:.0e}]".format(*quartiles(final)[[1, 0, 2], smallest])
        left = f"{quartiles(final)[1][smallest]:.0e}{left}"
        print(
            f"| `{name}` | {where} | {decades} | {RATES[smallest]:.2g} | {took} | {left} |"
            if "," not in name
            else f"| {name} | {where} | {decades} | {RATES[smallest]:.2g} | {took} | {left} |"
        )


def draw(results, num_seeds, num_epochs):
    colors = ["#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#7A7A7A"]
    dashes = ["-", "-", "-", (0, (1.5, 1.2)), "-", (0, (5, 1.5)), "-"]
    with matplotlib.rc_context(plots.STYLE):
        figure, axes = plt.subplots(
            2, len(results), figsize=(4.2 * len(results), 7.6), sharex=True, sharey="row",
            layout="constrained",
        )  # fmt: skip
        for column, (size, records) in zip(axes.T, results.items(), strict=True):
            top, bottom = column
            for (name, (epochs, final)), color, dash in zip(
                records.items(), colors, dashes, strict=True
            ):
                style = {"color": color, "linestyle": dash}
                low, middle, high = np.clip(quartiles(epochs), 1, 1.5 * num_epochs)
                top.plot(RATES, middle, label=name, **style)
                top.fill_between(RATES, low, high, color=color, alpha=0.15, linewidth=0)
                low, middle, high = np.clip(quartiles(final), 1e-16, 1e2)
                bottom.plot(RATES, middle, **style)
                bottom.fill_between(RATES, low, high, color=color, alpha=0.15, linewidth=0)
            top.set_title(f"{size[0]} unknowns, {size[1]} measurements", fontsize=12)
            top.axhline(num_epochs, color="#444444", linewidth=1, linestyle=(0, (2, 2)))
            bottom.axhline(TARGET, color="#444444", linewidth=1, linestyle=(0, (2, 2)))
            bottom.set_xlabel("step size")
            for ax in column:
                ax.set_xscale("log")
                ax.set_yscale("log")
        axes[0, 0].set_ylabel(f"epochs to a gap of {TARGET:g}")
        axes[1, 0].set_ylabel(f"gap after {num_epochs} epochs")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        title = f"Phase retrieval without noise: median and quartiles over {num_seeds} seeds"
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=11)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many of the sizes")
    parser.add_argument("--out", type=Path, default=Path("race/model-based"))
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    results = {}
    for size in SIZES[: arguments.sizes]:
        results[size] = {
            name: measure(size, name, arguments.seeds, arguments.epochs) for name in METHODS
        }
        report(size, results[size])
    arguments.out.mkdir(parents=True, exist_ok=True)
    figure = draw(results, arguments.seeds, arguments.epochs)
    plots.save(figure, arguments.out / "model-based")


if __name__ == "__main__":
    main()
