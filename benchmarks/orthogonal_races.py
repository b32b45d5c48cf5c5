"""AdaGO against Muon and Adam on real problems, each after the same tuning effort.

    python benchmarks/orthogonal_races.py --problem text
    python benchmarks/orthogonal_races.py --problem digits-cnn
    python benchmarks/orthogonal_races.py --problem text --cosine

Every method gets twelve settings: Adam twelve learning rates, AdaGO and Muon four learning rates
times three of their AdamW, which moves embeddings, head and vectors. The setting with the lowest
final train loss on the tuning seeds is then run on other seeds, the same for all methods. Learning
rates are constant, or with ``--cosine`` fall to zero by half a cosine for every method.
"""

import argparse
import dataclasses
import inspect
import itertools

import jax
import numpy as np
import optax

from stochopt import catalog, problems
from stochopt.experiments import Program, Run

ADAM = {"adam_learning_rate": (1e-3, 3e-3, 1e-2)}
GRIDS = {
    "adago": {"learning_rate": (0.03, 0.06, 0.12, 0.24), **ADAM},
    "muon": {"learning_rate": (0.003, 0.01, 0.03, 0.1), **ADAM},
    "adam": {"learning_rate": tuple(float(x) for x in np.geomspace(3e-4, 3e-2, 12))},
}


def with_cosine(method, num_steps):
    """The method with both its learning rates falling to zero; AdaGO's floor would stop that."""

    def factory(learning_rate, adam_learning_rate=None, **options):
        if adam_learning_rate is not None:
            options["adam_learning_rate"] = optax.cosine_decay_schedule(
                adam_learning_rate, num_steps
            )
        schedule = optax.cosine_decay_schedule(learning_rate, num_steps)
        return method.factory(schedule, **options)

    factory.__signature__ = inspect.signature(method.factory)
    floor = {"min_step_size": 0.0} if method.name == "adago" else {}
    return dataclasses.replace(method, factory=factory, defaults={**method.defaults, **floor})


def finals(program, setting, seed, num_steps):
    """The metrics of every seed after the last update."""
    run = Run(
        program,
        key=jax.random.key(seed),
        num_steps=num_steps,
        record_every=[num_steps],
        hyperparams=setting,
    )
    for _ in run:
        pass
    return {name: values[:, -1] for name, values in run.result.metrics.items()}


def show(values):
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problem", default="text")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--tuning-seeds", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cosine", action="store_true")
    options = parser.parse_args()
    problem = problems.PROBLEMS[options.problem]()
    measured = {}
    for name, grid in GRIDS.items():
        method = catalog.find(name)
        if options.cosine:
            method = with_cosine(method, options.steps)
        settings = [
            dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]
        program = Program(problem, method, options.tuning_seeds, settings[0])
        losses = []
        for setting in settings:
            final = finals(program, setting, 1, options.steps)
            losses.append(float(np.mean(final[problem.objective])))
            print(f"  {name} {setting} {problem.objective} {losses[-1]:.4f}", flush=True)
        best = settings[int(np.nanargmin(losses))]
        program = Program(problem, method, options.seeds, best)
        measured[name] = finals(program, best, 0, options.steps)
        print(f"{name} at {best}: ", end="")
        print(", ".join(f"{k} {show(v)}" for k, v in measured[name].items()), flush=True)
    for other in ("muon", "adam"):
        for metric, values in measured["adago"].items():
            difference = values - measured[other][metric]  # seeds share starts and batches
            error = difference.std(ddof=1) / np.sqrt(len(difference))
            print(f"adago minus {other}, {metric}: {difference.mean():+.4f} ± {error:.4f} (s.e.)")


if __name__ == "__main__":
    main()
