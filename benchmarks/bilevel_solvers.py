"""All methods for one lower problem against time: quadratics, and a penalty for each feature.

    python benchmarks/bilevel_solvers.py a8a_training.txt
    python benchmarks/bilevel_solvers.py a8a_training.txt --parts picture table

The two problems are those of the bilevel benchmark of benchopt in kind: quadratics with given
spectra and samples of rank one, and a penalty for each feature of a logistic regression. A sample
is one of the fixed minibatches of 64, at both levels.

``floor`` finds the least F that there is: L-BFGS along exact hypergradients, from three starts.
``run`` tunes first: every setting of the grid of the problem, which is the same for all methods,
with a third of the final number of steps and a seed of its own; what counts is the mean F after a
half, three quarters and all of them. Then fresh seeds at the best setting, methods in turn within
a seed. A run is a compiled loop, called for more and more steps; between the calls the point is
kept, and F is computed after all runs. Times are of these calls alone, by the clock and by the
processor; the number of steps is what fits into the budget, by the processor's time of a first
call.

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

from timing import stay_on

if __name__ == "__main__":
    stay_on(1)

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import scipy.optimize
from matplotlib import pyplot as plt

import stochopt
from stochopt.experiments.plots import STYLE
from stochopt.problems import bilevel_rank_one, feature_regularization
from stochopt.problems.feature_regularization import LEAST, MOST

KNEE = 1000  # steps after which learning rates begin to fall
INNER = 10  # lower (and adjoint) steps in an update, and terms of a series
TUNE_SEED = 100
LEVELS = {"quadratics": (1e-1, 1e-2, 1e-3), "features": (1e-1, 5e-2, 2e-2)}
GRIDS = {
    "quadratics": {"eta": (0.003, 0.01, 0.03, 0.1), "tau": (0.03, 0.1, 0.3)},
    "features": {"eta": (10.0, 30.0, 100.0, 300.0), "tau": (0.05, 0.15, 0.45)},
}
TITLES = {
    "quadratics": "quadratics, samples of rank one",
    "features": "a penalty for each feature, a8a",
}
LOWEST = {"quadratics": 1e-6, "features": 3e-3}  # of the picture


def falling(rate, exponent, steps_in_update=1):
    return lambda count: rate * (1 + count / (KNEE * steps_in_update)) ** -exponent


def single_loop(make, exponents, **options):
    """A method from its exponents, above and below."""

    def method(problem, rates, oracles):
        del problem
        above, below = exponents
        return make(
            learning_rate=falling(rates["eta"], above),
            lower_learning_rate=falling(rates["tau"], below),
            **options,
            **oracles,
        )

    return method


def series(make, exponents, inner=1, **options):
    """A method whose adjoint is a series, with the lower step at the start for its step."""

    def method(problem, rates, oracles):
        above, below = exponents
        return make(
            learning_rate=falling(rates["eta"], above),
            lower_learning_rate=falling(rates["tau"], below, inner),
            num_terms=INNER,
            series_step=rates["tau"],
            sample=problem.sample,
            **options,
            **oracles,
        )

    return method


def amigo(problem, rates, oracles):
    below = falling(rates["tau"], 1 / 2, INNER)
    return stochopt.amigo(
        learning_rate=falling(rates["eta"], 1 / 2),
        lower_learning_rate=below,
        num_lower_steps=INNER,
        num_adjoint_steps=INNER,
        sample=problem.sample,
        **oracles,
    )


def saba(problem, rates, oracles):
    return stochopt.saba(
        learning_rate=rates["eta"],
        lower_learning_rate=rates["tau"],
        num_samples=problem.num_samples,
        **oracles,
    )


def f2sa(problem, rates, oracles):
    del problem
    penalty = falling(10.0, -1 / 7)
    lower = falling(rates["tau"], 4 / 7)
    return stochopt.f2sa(
        learning_rate=falling(rates["eta"], 5 / 7),
        lower_learning_rate=lower,
        # The smoothness of what it descends is that of g times about the penalty.
        penalized_learning_rate=lambda count: lower(count) / (1 + penalty(count)),
        penalty=penalty,
        **oracles,
    )


REDUCED = (1 / 3, 1 / 3)  # of methods with recursive variance reduction
TRACKED = {"direction_rate": falling(0.5, 2 / 3)}
OF_LOWER = TRACKED | {"lower_rate": falling(0.5, 2 / 3)}
OF_BLOCKS = TRACKED | {"tracker_rate": falling(0.5, 2 / 3), "num_blocks": 1, "num_sampled": 1}
MATRICES = OF_BLOCKS | {"damping": 0.01}

METHODS = {
    "soba": single_loop(stochopt.soba, (1 / 2, 1 / 2)),
    "saba": saba,
    "f2sa": f2sa,
    "amigo": amigo,
    "stocbio": series(stochopt.stocbio, (1 / 2, 1 / 2), INNER, num_lower_steps=INNER),
    "bsa": series(stochopt.bsa, (1 / 2, 1 / 2), INNER, num_lower_steps=INNER),
    "ttsa": series(stochopt.ttsa, (3 / 5, 2 / 5)),
    "mrbo": series(stochopt.mrbo, REDUCED, **OF_LOWER),
    "sustain": series(stochopt.sustain, REDUCED, **OF_LOWER),
    "bsvrb_v2": single_loop(stochopt.bsvrb_v2, REDUCED, **OF_BLOCKS),
    "bsvrb_v1": single_loop(stochopt.bsvrb_v1, REDUCED, **MATRICES),
    "rsvrb": single_loop(stochopt.rsvrb, REDUCED, **MATRICES),
}


def experiments(arguments):
    """The problems, F of a point, and what keeps points where they may be."""
    quadratics = bilevel_rank_one()
    features = feature_regularization(arguments.training)
    in_box = optax.stateless(lambda updates, x: jnp.clip(x + updates, LEAST, MOST) - x)
    given = {}
    for name, problem, then in (
        ("quadratics", quadratics, optax.identity()),
        ("features", features, in_box),
    ):
        value = jax.jit(lambda x, problem=problem: problem.metrics(x)[problem.objective])
        gradient = jax.jit(problem.exact["gradient"])
        given[name] = SimpleNamespace(problem=problem, then=then, value=value, gradient=gradient)
    return given


def program(name, given):
    """``advance(carry, key, first, last, rates)`` compiled, and the seconds that it took."""
    problem = given.problem
    oracles = {key: getattr(problem, key) for key in ("upper", "lower", "lower_params")}
    optimizer_of = lambda rates: optax.chain(METHODS[name](problem, rates, oracles), given.then)

    def advance(carry, key, first, last, rates):
        optimizer = optimizer_of(rates)

        def step(t, carry):
            x, state = carry
            for_batch, for_inner = jax.random.split(jax.random.fold_in(key, t))
            batch = problem.sample(for_batch)
            # Without a key, draws of inner loops and series would be those of every other seed.
            extra = {"sample_indices": batch, "key": for_inner}
            if name in ("bsvrb_v1", "bsvrb_v2", "rsvrb"):  # one block, and a row of the batch
                batch = jax.tree.map(lambda index: index[None], batch)
                extra = {"block_indices": jnp.zeros(1, jnp.int32)}
            updates, state = optimizer.update(None, state, x, batch=batch, **extra)
            return optax.apply_updates(x, updates), state

        return jax.lax.fori_loop(first, last, step, carry)

    def start(key, rates):
        x = problem.init(key)
        return x, optimizer_of(rates).init(x)

    rates, key = {"eta": 0.0, "tau": 0.1}, jax.random.key(0)
    begin = time.perf_counter()
    start = jax.jit(start)
    carry = start(key, rates)
    compiled = jax.jit(advance).lower(carry, key, 0, 1, rates).compile()
    return SimpleNamespace(start=start, advance=compiled, compile=time.perf_counter() - begin)


def run(made, seed, rates, steps):
    """Points after these numbers of steps, and the seconds until then, of clock and processor."""
    key = jax.random.key(seed)
    carry = jax.block_until_ready(made.start(key, rates))
    points, took, done = [carry[0]], np.zeros((len(steps) + 1, 2)), 0
    for place, last in enumerate(steps):
        begin = time.perf_counter(), time.process_time()
        carry = jax.block_until_ready(made.advance(carry, key, done, last, rates))
        end = time.perf_counter(), time.process_time()
        took[place + 1] = took[place] + np.subtract(end, begin)
        points.append(carry[0])
        done = last
    return points, took


def ladder(most):
    """Numbers of steps by half more and more, up to ``most``."""
    steps, step = [], 8
    while step < most:
        steps.append(step)
        step += step // 2
    return [*steps, most]


# Part 1: the least value


def floor(given, arguments, record):
    del arguments
    record["floor"] = {"quadratics": 0.0}
    features = given["features"]
    dimension = features.problem.lower_params.shape

    def function(x):
        x = jnp.asarray(x, jnp.float32)
        return float(features.value(x)), np.asarray(features.gradient(x), float)

    found = []
    for level in ((LEAST + MOST) / 2, LEAST, MOST):
        options = {"maxiter": 400, "ftol": 1e-10, "gtol": 1e-7}
        bounds = [(LEAST, MOST)] * dimension[0]
        start = np.full(dimension, level)
        found.append(
            scipy.optimize.minimize(
                function, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
            )
        )
        print("floor from", level, found[-1].fun, found[-1].nit, found[-1].message, flush=True)
    best = min(found, key=lambda result: result.fun)
    record["floor"]["features"] = float(best.fun)
    record["floor"]["found"] = [float(result.fun) for result in found]
    record["floor"]["at bounds"] = [int(np.sum(best.x == bound)) for bound in (LEAST, MOST)]


# Part 2: runs


def races(given, arguments, record):
    for name in arguments.problems:
        of_problem = given[name]
        race(name, of_problem, arguments, record)
        save(arguments, record)


def race(name, given, arguments, record):
    least = record["floor"][name]
    gap = lambda x: float(given.value(x)) - least
    names = [method for method in METHODS if method in (arguments.methods or METHODS)]
    made, rows = {}, {}
    for method in names:
        made[method] = program(method, given)
        grid = GRIDS[name]
        settings = [
            dict(zip(grid, rates, strict=True)) for rates in itertools.product(*grid.values())
        ]
        tame = {key: min(values) for key, values in grid.items()}
        _, took = run(made[method], TUNE_SEED, tame, [20, 220])
        steps = max(int(200 * arguments.budget / (took[2, 1] - took[1, 1])), 300)
        tried = []
        for rates in settings:
            points, _ = run(made[method], TUNE_SEED, rates, [steps * k // 12 for k in (2, 3, 4)])
            reached = float(np.mean([gap(x) for x in points[1:]])) / gap(points[0])
            tried.append({"rates": rates, "reached": reached if np.isfinite(reached) else None})
        best = min(tried, key=lambda row: np.inf if row["reached"] is None else row["reached"])
        rows[method] = {
            "rates": best["rates"],
            "grid": tried,
            "compile_seconds": made[method].compile,
            "steps": [0, *ladder(steps)],
        }
        print(name, method, steps, best, f"compiled in {made[method].compile:.1f} s", flush=True)

    runs = {method: [] for method in names}
    for seed in range(arguments.seeds):
        for method in names[seed % len(names) :] + names[: seed % len(names)]:
            row = rows[method]
            runs[method].append(run(made[method], seed, row["rates"], row["steps"][1:]))
    slope = lambda x: float(jnp.linalg.norm(projected(given, x)))
    for method in names:
        gaps = np.array([[gap(x) for x in points] for points, _ in runs[method]])
        took = np.array([took for _, took in runs[method]])
        steps = rows[method]["steps"]
        ends = [(points[0], points[-1]) for points, _ in runs[method]]
        rows[method] |= {
            "reached": rounded(gaps / gaps[:, :1]),
            "start": rounded(gaps[:, :1]),
            "seconds": rounded(took[:, :, 0]),
            "processor_seconds": rounded(took[:, :, 1]),
            "microseconds_per_step": [
                float(np.median(1e6 * took[:, -1, clock] / steps[-1])) for clock in range(2)
            ],
            "gradient_norms": rounded([[slope(x) for x in pair] for pair in ends]),
        }
        reached = np.median(rows[method]["reached"], axis=0)
        print(name, method, rows[method]["rates"], rows[method]["microseconds_per_step"])
        print("   ", reached[-1], np.median(rows[method]["gradient_norms"], axis=0), flush=True)
    record.setdefault("race", {}).setdefault(name, {}).update(rows)


def projected(given, x):
    """The gradient where no bound stops the descent along it."""
    gradient = given.gradient(x)
    moved, _ = given.then.update(-gradient, given.then.init(x), x)
    return moved


def rounded(values):
    """Four digits, for the file."""
    return [[float(f"{v:.3e}") for v in row] for row in np.atleast_2d(values)]


# Part 3: table and picture


def medians(row):
    """Steps, seconds and relative suboptimality, medians over seeds."""
    return (
        np.array(row["steps"]),
        np.median(row["processor_seconds"], axis=0),
        np.median(np.nan_to_num(row["reached"], nan=np.inf), axis=0),
    )


def table(given, arguments, record):
    del given, arguments
    for name, rows in record["race"].items():
        print(f"\n{TITLES[name]}")
        heads = [
            "method",
            "upper, lower step",
            "µs a step",
            *(f"{x:g}" for x in LEVELS[name]),
            "at last",
        ]
        print("| " + " | ".join(heads) + " |")
        print("|" + "---|" * len(heads))
        for method, row in rows.items():
            _, seconds, reached = medians(row)
            cells = [f"`{method}`", "{eta:g}, {tau:g}".format(**row["rates"])]
            cells.append(f"{row['microseconds_per_step'][1]:.0f}")
            for level in LEVELS[name]:
                below = np.flatnonzero(reached <= level)
                cells.append(f"{seconds[below[0]]:.3f}" if len(below) else "")
            cells.append(f"{reached[-1]:.1e}")
            print("| " + " | ".join(cells) + " |")


COLORS = (
    *("#0072B2", "#D55E00", "#7A7A7A"),  # everything moves at once
    *("#009E73", "#E69F00", "#CC79A7", "#56B4E9"),  # inner loops or a series
    *("#882255", "#332288", "#117733", "#999933", "#AA4499"),  # variance reduction
)


def picture(given, arguments, record):
    """Relative suboptimality against seconds, medians and quartiles over seeds."""
    del given
    with matplotlib.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(12, 6), layout="constrained")
        for ax, (name, rows) in zip(axes, record["race"].items(), strict=True):
            for number, method in enumerate(METHODS):
                _, seconds, reached = medians(rows[method])
                dashes = "-" if number < 3 else (0, (5, 1.5)) if number < 7 else (0, (1.5, 1.2))
                style = {"color": COLORS[number], "linestyle": dashes, "linewidth": 1.8}
                ax.plot(seconds[1:], reached[1:], label=method, **style)
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_ylim(LOWEST[name], 3)
            ax.set_title(TITLES[name])
            ax.set_xlabel("seconds")
        # F is not convex: where the exact descent from a worse start ends.
        start, other = rows["soba"]["start"][0][0], max(record["floor"]["found"])
        level = (other - record["floor"]["features"]) / start
        axes[1].axhline(level, color="#555555", linewidth=1, linestyle=(0, (4, 2)))
        axes[1].annotate(
            "another local minimum",
            (0, level),
            xycoords=("axes fraction", "data"),
            va="bottom",
            fontsize=9,
        )
        axes[0].set_ylabel("suboptimality relative to the start")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
        figure.savefig(arguments.output.with_suffix(".svg"), metadata={"Date": None})


def save(arguments, record):
    record["setting"] = {
        "budget": arguments.budget,
        "seeds": arguments.seeds,
        "grids": GRIDS,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }
    arguments.output.write_text(json.dumps(record, indent=None) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("training", help="file in LIBSVM's text format")
    parts = {"floor": floor, "run": races, "table": table, "picture": picture}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--problems", nargs="+", choices=GRIDS, default=list(GRIDS))
    parser.add_argument("--methods", nargs="+", choices=METHODS)
    parser.add_argument("--budget", type=float, default=1.0, help="seconds of a run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("bilevel-solvers.json"))
    arguments = parser.parse_args()
    given = experiments(arguments)
    record = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for name in arguments.parts:
        parts[name](given, arguments, record)
        save(arguments, record)


if __name__ == "__main__":
    main()
