"""SCSC reaches the optimum of a quadratic of an expectation; the naive gradient does not.

Both take the same falling step sizes. The naive (plug-in) gradient is what ``optax.sgd`` gets when
the loss evaluates the outer function at one sample of the inner one; its limit is known in closed
form. Prints the distances of the mean iterate and draws both curves with the predicted limit.

    python benchmarks/scsc_against_naive.py --out race/scsc
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from stochopt import catalog, problems
from stochopt.catalog import inverse_sqrt
from stochopt.experiments import plots, report
from stochopt.experiments.race import race


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("race/scsc"))
    arguments = parser.parse_args()
    problem = problems.quadratic_composition()
    naive = dataclasses.replace(
        catalog.find("sgd"), defaults={"learning_rate": inverse_sqrt(0.05, 100)}
    )
    result = race(
        problem,
        [catalog.find("scsc"), naive],
        num_steps=arguments.steps,
        num_seeds=arguments.seeds,
    )
    predicted = problem.levels["limit of the naive gradient"]
    start = result.results[0].values[0, 0]
    print(f"gap at the start {start:.4f}, predicted limit of the naive gradient {predicted:.4f}")
    for measured in result.results:
        final = measured.final()
        low, high = np.quantile(final, [0.25, 0.75])
        # Noise of the last iterate adds to each seed's gap, so the tail is averaged in time too.
        tail = measured.values[:, -10:].mean()
        print(
            f"{measured.method:6} final gap: median {np.median(final):.4f} "
            f"[{low:.4f}, {high:.4f}], mean of the last fifth {tail:.4f} "
            f"({tail / predicted:.3f} of the predicted limit)"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    report.write_csv(result, arguments.out / "race.csv")
    plots.save(plots.race_figure(result), arguments.out / "race")


if __name__ == "__main__":
    main()
