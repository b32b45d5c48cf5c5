"""Which training examples to trust: the blockwise bilevel methods on re-weighted logistic losses.

    python benchmarks/bilevel_reweighting.py a8a_training.txt a8a_testing.txt
    python benchmarks/bilevel_reweighting.py ... --parts timing

100 logistic regressions at different temperatures share a weight for each training example; an
update sees 10 of them, 32 training and 32 validation examples for each. An epoch is one pass over
as many training examples as there are, n / 320 updates.

``tune`` runs every setting of a method's grid on seeds of its own and takes the one with the least
validation loss over the last five epochs, at the lower variables that the method holds. ``compare``
runs these settings on fresh seeds, the next best where a seed ends in NaN, and solves all lower
problems at the last weights. ``timing`` times whole runs, evaluation included, and a step beside a
Python loop over the blocks in NumPy; before that, twenty steps of both are compared, and twenty of
RSVRB with the library's.

Results go into a JSON file, to which each part adds its own, and a picture beside it.
"""

import argparse
import itertools
import json
import os
import platform
import time
from pathlib import Path
from types import SimpleNamespace

# One thread: with a pool of two, LAPACK calls of a program can wait for each other forever
# (jaxlib 0.10), and products of this size gain nothing from a second one.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from matplotlib import pyplot as plt
from reweighting_numpy import Loop
from reweighting_rsvrb import compressed_rsvrb

from stochopt.bilevel import (
    EstimateBlockwiseState,
    block_variables,
    bsvrb_v1,
    bsvrb_v2,
    estimate_blockwise,
    rsvrb,
    tracked_solution,
)
from stochopt.compositional import moving_average
from stochopt.experiments.plots import STYLE
from stochopt.problems import reweighted_logistic
from stochopt.problems.reweighted_logistic import block_temperatures, signed_parts

RIDGE = 1e-3
TAIL = 5  # epochs at the end whose mean counts
EVERY = 5  # epochs between the points that are written
FULL = 40.0  # of a parameter: the weight one

UPPER = {"eta": (1000.0, 3000.0, 10000.0)}
RATES = UPPER | {"tau": (0.1, 0.2, 0.4), "beta": (0.1,)}
GRIDS = {
    "bsvrb_v2": RATES | {"alpha": (0.03, 0.1, 0.3), "gamma": (1.0, 3.0, 9.0, 12.0)},
    "bsvrb_v1": UPPER
    | {"tau": (0.2, 0.4), "beta": (0.1,), "alpha": (0.03, 0.1, 0.3)}
    | {"gamma": (1.0, 3.0, 9.0), "delta": (0.003, 0.03)},
    "bsvrb_v2, averaged direction": RATES
    | {"alpha": (0.03, 0.1, 0.3), "gamma": (1.0, 3.0, 9.0, 12.0)},
    "moving average": RATES | {"alpha": (0.03, 0.1, 0.3, 1.0)},
    "soba": UPPER | {"tau": (0.05, 0.1, 0.2, 0.4)},
    "rsvrb": UPPER
    | {"tau": (0.1, 0.3), "beta": (0.1,), "alpha": (0.03, 0.1), "delta": (0.1, 0.3, 1.0)},
    "plain SGD, no weights": {"tau": (0.05, 0.1, 0.2, 0.4)},
}
PUBLISHED = {"eta": 1000.0, "tau": 0.5, "alpha": 0.9, "gamma": 1.0, "beta": 0.9, "delta": 1e-3}


def experiment(arguments):
    """The problem, its data, and the losses of a table of lower variables."""
    files = arguments.training, arguments.testing
    problem, parts = reweighted_logistic(*files, ridge=RIDGE), signed_parts(*files)
    temperatures = block_temperatures(problem.num_blocks)

    def losses(table):
        of_part = lambda part: jax.nn.softplus(-(table @ part.T) / temperatures[:, None])
        return jnp.stack([jnp.mean(of_part(part)) for part in (parts.validation, parts.test)])

    steps = len(parts.train) // (problem.num_sampled * 32)
    return SimpleNamespace(
        problem=problem, parts=parts, temperatures=temperatures, losses=losses, steps=steps
    )


def optimizer_of(name, given, rates):
    """The optimizer of a row with these rates, which may be traced."""
    problem, h = given.problem, SimpleNamespace(**rates)
    blocks = {"lower_params": problem.lower_params, "num_blocks": problem.num_blocks}
    averaged = optax.ema(1 - rates.get("beta", 1.0), debias=False)
    if name.startswith("bsvrb"):
        make, extra = (bsvrb_v1, {"damping": h.delta}) if "v1" in name else (bsvrb_v2, {})
        corrected = "averaged" not in name
        optimizer = make(
            problem.upper,
            problem.lower,
            h.eta,
            lower_learning_rate=h.tau,
            tracker_rate=h.alpha,
            correction=h.gamma,
            direction_rate=h.beta if corrected else None,
            num_sampled=problem.num_sampled,
            **blocks,
            **extra,
        )
        return optimizer if corrected else optax.chain(optimizer, averaged)
    if name == "rsvrb":
        return compressed_rsvrb(
            given.parts,
            given.temperatures,
            RIDGE,
            num_sampled=problem.num_sampled,
            learning_rate=h.eta,
            lower_learning_rate=h.tau,
            tracker_rate=h.alpha,
            direction_rate=h.beta,
            damping=h.delta,
        )
    # SOBA takes each sample as it is; plain SGD does, too, and leaves the weights alone.
    estimator = estimate_blockwise(
        problem.upper,
        problem.lower,
        tracked_solution(problem.upper, problem.lower),
        tracker=moving_average(rates.get("alpha", 1.0)),
        learning_rates=(h.tau, h.tau),
        **blocks,
    )
    return optax.chain(estimator, averaged, optax.scale_by_learning_rate(rates.get("eta", 0.0)))


def compiled(name, given, num_epochs):
    """``run(key, rates) -> (weights, losses)``, the losses after each epoch; one program."""
    problem = given.problem

    def run(key, rates):
        optimizer = optimizer_of(name, given, rates)

        def step(carry, key):
            x, state = carry
            batch = problem.sample(key)
            updates, state = optimizer.update(
                None, state, x, batch=batch, block_indices=batch.block
            )
            return (optax.apply_updates(x, updates), state), None

        def epoch(carry, key):
            carry, _ = jax.lax.scan(step, carry, jax.random.split(key, given.steps))
            state = carry[1]
            table = state.previous_lower_params if name == "rsvrb" else _lower(state)
            return carry, given.losses(table)

        x = problem.init(key) + (FULL if name.startswith("plain") else 0.0)
        keys = jax.random.split(key, num_epochs)
        (x, _), losses = jax.lax.scan(epoch, (x, optimizer.init(x)), keys)
        return x, losses

    return jax.jit(run)


def _lower(chain_state):
    is_ours = lambda x: isinstance(x, EstimateBlockwiseState)
    (ours,) = filter(is_ours, jax.tree.leaves(chain_state, is_leaf=is_ours))
    return block_variables(ours).lower_params


def compile_run(name, given, num_epochs, rates):
    """The compiled run and the seconds that compiling it took."""
    begin = time.perf_counter()
    run = compiled(name, given, num_epochs).lower(jax.random.key(0), rates).compile()
    return run, time.perf_counter() - begin


def timed(run, seed, rates):
    begin = time.perf_counter()
    x, losses = jax.block_until_ready(run(jax.random.key(seed), rates))
    return x, np.asarray(losses), time.perf_counter() - begin


# Part 1: settings


def tune(given, arguments, record):
    for name in arguments.methods or GRIDS:
        grid = GRIDS[name] | {k: v for k, v in arguments.only if k in GRIDS[name]}
        settings = [
            dict(zip(grid, rates, strict=True)) for rates in itertools.product(*grid.values())
        ]
        run, _ = compile_run(name, given, arguments.epochs, settings[0])
        found = []
        for rates in settings:
            runs = [timed(run, 100 + seed, rates)[1] for seed in range(arguments.tune_seeds)]
            loss = float(np.mean([losses[-TAIL:, 0] for losses in runs]))
            found.append({"rates": rates, "loss": loss if np.isfinite(loss) else None})
            print(name, rates, f"{loss:.5f}", flush=True)
        best = min(found, key=lambda row: np.inf if row["loss"] is None else row["loss"])
        record.setdefault("tune", {})[name] = {
            "best": best["rates"],
            "epochs": arguments.epochs,
            "seeds": arguments.tune_seeds,
            "grid": found,
        }
        print("best:", name, best, flush=True)
        save(arguments, record)


# Part 2: comparison


def compare(given, arguments, record):
    metrics = jax.jit(given.problem.metrics)
    ranked = {name: ranking(row["grid"]) for name, row in record["tune"].items()}
    ranked |= {f"{name}, published rates": [PUBLISHED] for name in ("bsvrb_v2", "bsvrb_v1")}
    for name in arguments.methods or ranked:
        run, compile_seconds = compile_run(name, given, arguments.epochs, ranked[name][0])
        for rates in ranked[name]:
            runs = run_seeds(run, rates, arguments.seeds)
            if runs is not None:
                break
            print(name, rates, "ends in NaN", flush=True)
        else:
            continue  # nothing to compare: the grid has all of its settings
        weights, curves, seconds = zip(*runs, strict=True)
        exact = [{k: float(v) for k, v in metrics(x).items()} for x in weights]
        curves = np.stack(curves)
        record.setdefault("compare", {})[name] = row = {
            "rates": rates,
            "ended_in_nan": ranked[name][: ranked[name].index(rates)],
            "seconds": seconds,
            "compile_seconds": compile_seconds,
            "exact": {key: spread([e[key] for e in exact]) for key in exact[0]},
            "last": dict(
                zip(
                    ("validation_loss", "test_loss"),
                    map(spread, curves[:, -TAIL:].mean(axis=1).T),
                    strict=True,
                )
            ),
            "epochs": [*range(EVERY, arguments.epochs + 1, EVERY)],
            "validation_loss": [spread(v) for v in curves[:, EVERY - 1 :: EVERY, 0].T],
            "test_loss": [spread(v) for v in curves[:, EVERY - 1 :: EVERY, 1].T],
        }
        print(name, row["last"], row["exact"]["validation_loss"], seconds, flush=True)
        save(arguments, record)


def ranking(grid):
    """The settings of a grid that stayed finite, the best first."""
    finite = [row for row in grid if row["loss"] is not None]
    return [row["rates"] for row in sorted(finite, key=lambda row: row["loss"])]


def run_seeds(run, rates, num_seeds):
    """Weights, losses and seconds of each seed; ``None`` as soon as one ends in NaN."""
    runs = []
    for seed in range(num_seeds):
        runs.append(timed(run, seed, rates))
        if not np.isfinite(runs[-1][1]).all():
            return None
    return runs


def floor(given, arguments, record):
    """Descent along the exact gradient: one seed is enough, for nothing is random."""
    measure = jax.jit(lambda x: (given.problem.exact["gradient"](x), given.problem.metrics(x)))
    x, found = given.problem.init(None), []
    begin = time.perf_counter()
    for step in range(arguments.floor_steps + 1):
        gradient, metrics = measure(x)
        found.append({"step": step} | {k: round(float(v), 6) for k, v in metrics.items()})
        x = x - arguments.floor_rate * gradient
        if step % 20 == 0:
            print(found[-1], f"{time.perf_counter() - begin:.0f} s", flush=True)
    record["floor"] = {"learning_rate": arguments.floor_rate, "steps": found[::10]}
    record["floor"]["seconds"] = time.perf_counter() - begin
    save(arguments, record)


def spread(values):
    """Mean and standard error."""
    values = np.asarray(values, float)
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return [round(float(values.mean()), 6), round(float(error), 6)]


# Part 3: time


def timing(given, arguments, record):
    problem, rates = given.problem, dict(PUBLISHED, tau=0.1, gamma=3.0, alpha=0.1, beta=0.1)
    difference = check_rsvrb()
    print(f"RSVRB and the library's after twenty steps: difference {difference:.1e}")
    assert difference < 1e-5
    batches = [problem.sample(jax.random.key(k)) for k in range(arguments.numpy_steps)]
    record["timing"] = {}
    for version in (2, 1):
        name = f"bsvrb_v{version}"
        loop = Loop(
            version,
            given.parts,
            given.temperatures.astype(float),
            RIDGE,
            rates["eta"],
            rates["tau"],
            rates["alpha"],
            rates["gamma"],
            rates["beta"],
            RIDGE,
        )
        difference = check_loop(loop, optimizer_of(name, given, rates), problem, batches[:20])
        print(f"{name} and the loop after twenty steps: relative difference {difference:.1e}")
        assert difference < 1e-3
        begin = time.perf_counter()
        for batch in batches[20:]:
            loop.step(batch)
        of_loop = (time.perf_counter() - begin) / len(batches[20:])
        run, compile_seconds = compile_run(name, given, arguments.epochs, rates)
        seconds = [timed(run, seed, rates)[2] for seed in range(arguments.repeats)]
        of_step = float(np.median(seconds)) / (arguments.epochs * given.steps)
        record["timing"][name] = row = {
            "seconds": seconds,
            "compile_seconds": compile_seconds,
            "steps": arguments.epochs * given.steps,
            "milliseconds_per_step": 1e3 * of_step,
            "numpy_milliseconds_per_step": 1e3 * of_loop,
            "ratio": float(of_loop / of_step),
        }
        print(name, row, flush=True)
        save(arguments, record)


def check_loop(loop, optimizer, problem, batches):
    """The largest difference of the weights, relative to the largest weight."""
    x = problem.init(jax.random.key(0))
    update, state = jax.jit(optimizer.update), optimizer.init(x)
    for batch in batches:
        updates, state = update(None, state, x, batch=batch, block_indices=batch.block)
        x = optax.apply_updates(x, updates)
        loop.step(batch)
    return float(np.max(np.abs(x - loop.x)) / np.max(np.abs(loop.x)))


def check_rsvrb():
    """The same for RSVRB, on a small problem that the library's form can hold."""
    rng = np.random.default_rng(0)
    rows, labels = rng.standard_normal((100, 5)), rng.choice([-1, 1], 100)
    files, sizes = ((rows, labels), (rows, labels)), {"num_blocks": 6, "num_sampled": 2}
    problem = reweighted_logistic(*files, batch_size=4, ridge=0.05, **sizes)
    rates = {"learning_rate": 3.0, "lower_learning_rate": 0.1, "tracker_rate": 0.3}
    rates |= {"direction_rate": 0.4, "damping": 0.02}
    temperatures = block_temperatures(6)
    compressed = compressed_rsvrb(signed_parts(*files), temperatures, 0.05, num_sampled=2, **rates)
    whole = rsvrb(problem.upper, problem.lower, lower_params=problem.lower_params, **sizes, **rates)
    found = []
    for optimizer in (compressed, whole):
        x = problem.init(jax.random.key(0))
        update, state = jax.jit(optimizer.update), optimizer.init(x)
        for step in range(20):
            batch = problem.sample(jax.random.key(step))
            updates, state = update(None, state, x, batch=batch, block_indices=batch.block)
            x = optax.apply_updates(x, updates)
        found.append(x)
    return float(jnp.max(jnp.abs(found[0] - found[1])))


# Part 4: picture


def picture(given, arguments, record):
    """Validation loss against epochs and against seconds, mean and standard error over seeds."""
    del given
    rows = {k: v for k, v in record["compare"].items() if not k.startswith("plain")}
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True, layout="constrained")
        for number, (name, row) in enumerate(rows.items()):
            mean, error = np.array(row["validation_loss"]).T
            epochs = np.array(row["epochs"])
            seconds = epochs * min(row["seconds"]) / epochs[-1]  # other programs only add to it
            dashes = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))[number // 4]
            for ax, x in zip(axes, (epochs, seconds), strict=True):
                tint = f"C{number}"
                ax.plot(x, mean, label=name, color=tint, linestyle=dashes, linewidth=1.8)
                ax.fill_between(x, mean - error, mean + error, color=tint, alpha=0.18, linewidth=0)
        plain = record["compare"]["plain SGD, no weights"]["last"]["validation_loss"][0]
        exact = record["floor"]["steps"][-1]["validation_loss"]
        for ax in axes:
            for level, words in ((plain, "without weights"), (exact, "exact gradient")):
                ax.axhline(level, color="#555555", linewidth=1, linestyle=(0, (4, 2)))
                ax.annotate(
                    words,
                    (1, level),
                    xycoords=("axes fraction", "data"),
                    ha="right",
                    va="bottom",
                    fontsize=9,
                )
            ax.set_ylim(exact - 0.1 * (plain - exact), exact + 2.8 * (plain - exact))
        axes[1].set_xscale("log")
        axes[1].set_xlim(left=0.2)
        axes[0].set_xlabel("epochs")
        axes[1].set_xlabel("seconds")
        axes[0].set_ylabel("validation loss")
        axes[0].legend(fontsize=9)
        figure.savefig(arguments.output.with_suffix(".svg"), metadata={"Date": None})


def save(arguments, record):
    record["setting"] = {
        "epochs": arguments.epochs,
        "seeds": arguments.seeds,
        "tune_seeds": arguments.tune_seeds,
        "ridge": RIDGE,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    arguments.output.write_text(json.dumps(record, indent=None) + "\n")


def restriction(text):
    """The values of a grid that are left, from ``eta=1000,3000``."""
    name, values = text.split("=")
    return name, tuple(map(float, values.split(",")))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("training", help="file in LIBSVM's text format")
    parser.add_argument("testing", help="likewise")
    parts = {"tune": tune, "compare": compare, "floor": floor, "timing": timing, "picture": picture}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--only", nargs="+", type=restriction, default=[], metavar="NAME=V1,V2")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tune-seeds", type=int, default=1)
    parser.add_argument("--floor-rate", type=float, default=5e4)
    parser.add_argument("--floor-steps", type=int, default=200)
    parser.add_argument("--numpy-steps", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("bilevel-reweighting.json"))
    arguments = parser.parse_args()
    given = experiment(arguments)
    record = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for name in arguments.parts:
        parts[name](given, arguments, record)


if __name__ == "__main__":
    main()
