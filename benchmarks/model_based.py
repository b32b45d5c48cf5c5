"""How long the steps of model-based methods may be, on phase retrieval without noise.

One example an update, constant step sizes over a wide range; every seed has a start and draws of
its own, and half of the seeds share their data. Counted are the epochs until the gap is below 1e-4,
and what is left at the end. Prints tables and draws both against the step size.

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

from stochopt.experiments import plots
from stochopt.model_based import (
    prox_subgradient,
    stochastic_prox_linear,
    stochastic_prox_point,
    truncated_model,
)
from stochopt.problems import phase_retrieval

SIZES = ((10, 30), (50, 150), (100, 300))
RATES = 10.0 ** np.arange(-3, 3.5, 0.5)
TARGET = 1e-4
NUM_INSTANCES = 2
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


def gaps(problem, method, rates, keys, num_updates, num_epochs):
    """Gap after every epoch, by seed and step size."""

    def run(key, rate):
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

        start_key, key = jax.random.split(key)
        x = problem.init(start_key)
        carry = x, optimizer.init(x)
        return jax.lax.scan(epoch, carry, jax.random.split(key, num_epochs))[1]

    # The draws of a seed are shared by its step sizes.
    both = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
    return np.nan_to_num(np.asarray(jax.jit(both)(keys, jnp.asarray(rates))), nan=np.inf)


def measure(size, batch_size, method, rates, num_seeds, num_epochs):
    """Epochs to the target (infinite where it is not met) and final gaps, by seed and step size."""
    curves = []
    for instance in range(NUM_INSTANCES):
        problem = phase_retrieval(*size, batch_size, 0.0, seed=instance, start_distance=None)
        keys = jax.random.split(jax.random.key(instance), num_seeds // NUM_INSTANCES)
        curves.append(gaps(problem, method, rates, keys, size[1] // batch_size, num_epochs))
    curves = np.concatenate(curves)
    solved = curves < TARGET
    epochs = np.where(solved.any(axis=-1), 1.0 + solved.argmax(axis=-1), np.inf)
    return epochs, curves[:, :, -1]


def quartiles(values):
    return np.quantile(values, [0.25, 0.5, 0.75], axis=0, method="nearest")


def solved_range(epochs):
    """The longest run of step sizes at which the median seed meets the target."""
    solved = np.median(epochs, axis=0) < np.inf
    edges = np.flatnonzero(np.diff(np.concatenate([[0], solved.astype(int), [0]])))
    if not len(edges):
        return None
    first, end = max(edges.reshape(-1, 2), key=lambda run: run[1] - run[0])
    return RATES[first], RATES[end - 1]


def spread(values, show):
    """Median and quartiles over seeds."""
    low, middle, high = (show(value) for value in quartiles(values))
    return f"{middle} [{low}, {high}]"


def report(size, records):
    print(f"\n{size[0]} unknowns, {size[1]} measurements")
    print("| method | steps that solve | decades | best step | epochs there | final gap there |")
    print("| --- | --- | --- | --- | --- | --- |")
    show_epochs = lambda epochs: f"{epochs:.0f}" if epochs < np.inf else "not met"
    for name, (epochs, final) in records.items():
        best = np.lexsort((quartiles(final)[1], quartiles(epochs)[1]))[0]
        solved = solved_range(epochs)
        where = f"{solved[0]:.2g} to {solved[1]:.2g}" if solved else "none"
        decades = f"{np.log10(solved[1] / solved[0]):.1f}" if solved else "-"
        took = spread(epochs[:, best], show_epochs)
        left = spread(final[:, best], lambda gap: f"{gap:.0e}")
        print(f"| {name} | {where} | {decades} | {RATES[best]:.2g} | {took} | {left} |", flush=True)


def draw(results, num_seeds, num_epochs):
    colors = ["#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#7A7A7A"]
    dashes = ["-", "-", "-", (0, (1.5, 1.2)), "-", (0, (5, 1.5)), "-"]
    with matplotlib.rc_context(plots.STYLE):
        shape = {"figsize": (4.2 * len(results), 7.6), "layout": "constrained"}
        figure, axes = plt.subplots(
            2, len(results), sharex=True, sharey="row", squeeze=False, **shape
        )
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
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many of the sizes")
    parser.add_argument("--out", type=Path, default=Path("race/model-based"))
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    results = {}
    for size in SIZES[: arguments.sizes]:
        results[size] = {
            name: measure(size, *how, RATES, arguments.seeds, arguments.epochs)
            for name, how in METHODS.items()
        }
        report(size, results[size])
    arguments.out.mkdir(parents=True, exist_ok=True)
    figure = draw(results, arguments.seeds, arguments.epochs)
    plots.save(figure, arguments.out / "model-based")


if __name__ == "__main__":
    main()
