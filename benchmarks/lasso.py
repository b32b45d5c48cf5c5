"""Seconds to a duality gap: the lasso on working sets against scikit-learn's coordinate descent.

    python benchmarks/lasso.py a8a_training.txt --out docs/results

Two designs, a8a and a Gaussian one with neighbours that are correlated, at two penalties, in double
precision without intercept. All solvers end at the same duality gap relative to the objective at
zero, |b|^2 / 2n. scikit-learn compares its gap, which is n times ours, with its tolerance times
|b|^2, so half of our tolerance is the same condition; the gap that each one really ends at is
computed here from its coefficients. Every solver gets the matrix in its own layout before the clock
starts: Fortran order for scikit-learn, one row for each feature here. The first solve, with the
compilation in it, is timed apart, by the processor. Repeats are interleaved. Writes the numbers to
a JSON file.
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path

import jax
import numpy as np
from sklearn.linear_model import Lasso

from stochopt.linear_models import dense, largest_penalty, lasso
from stochopt.problems.libsvm import read_examples

PARTS = (0.1, 0.01)
TIGHT = 1e-12


def gaussian(num_rows=1000, num_features=4000, correlation=0.9, num_nonzeros=100, seed=0):
    """A design whose neighbouring columns are correlated; a third of the signal is noise."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((num_rows, num_features))
    for j in range(1, num_features):
        matrix[:, j] *= np.sqrt(1 - correlation**2)
        matrix[:, j] += correlation * matrix[:, j - 1]
    coefficients = np.zeros(num_features)
    support = rng.choice(num_features, num_nonzeros, replace=False)
    coefficients[support] = rng.standard_normal(num_nonzeros)
    signal, noise = matrix @ coefficients, rng.standard_normal(num_rows)
    return matrix, signal + noise * np.linalg.norm(signal) / np.linalg.norm(noise) / 3


def relative_gap(matrix, targets, penalty, x):
    residual = targets - matrix @ x
    slope = np.abs(matrix.T @ residual).max() / len(targets)
    left = targets - min(1, penalty / slope) * residual
    primal = residual @ residual / (2 * len(targets)) + penalty * np.abs(x).sum()
    dual = (targets @ targets - left @ left) / (2 * len(targets))
    return (primal - dual) / np.mean(targets**2) * 2


def skglm_solver(matrix, targets, penalty, tolerance):
    """``None`` where skglm is not installed; it has no gap, so its tolerance is searched for."""
    try:
        import skglm
    except ImportError:
        return None
    for exponent in np.arange(-3, -13, -0.5):
        model = skglm.Lasso(alpha=penalty, fit_intercept=False, tol=10.0**exponent)
        found = model.fit(matrix, targets).coef_
        if relative_gap(matrix, targets, penalty, found) <= tolerance:
            break
    return lambda: model.fit(matrix, targets).coef_


def solvers(matrix, targets, penalty, tolerance):
    """Name to a function that solves and returns the coefficients."""
    design, fortran = dense(matrix), np.asfortranarray(matrix)
    jax.block_until_ready(design)

    def ours():
        found = lasso(design, targets, penalty, tolerance=tolerance)
        return np.asarray(found.params)

    def sklearn(precompute):
        model = Lasso(
            alpha=penalty, fit_intercept=False, precompute=precompute, tol=tolerance / 2,
            max_iter=1_000_000,
        )  # fmt: skip
        return lambda: model.fit(fortran, targets).coef_

    made = {
        "stochopt": ours,
        "scikit-learn": sklearn(False),
        "scikit-learn, Gram": sklearn(True),
        "skglm": skglm_solver(fortran, targets, penalty, tolerance),
    }
    return {name: solve for name, solve in made.items() if solve is not None}


def compare(matrix, targets, part, tolerance, repeats):
    penalty = part * float(largest_penalty(matrix, targets))
    jax.clear_caches()
    made = solvers(matrix, targets, penalty, tolerance)
    rows, found = {}, {}
    for name, solve in made.items():
        used = time.process_time()
        found[name] = solve()
        rows[name] = {"first": time.process_time() - used, "seconds": [], "processor": []}
        rows[name]["gap"] = relative_gap(matrix, targets, penalty, found[name])
    for _ in range(repeats):
        for name, solve in made.items():
            begin, used = time.perf_counter(), time.process_time()
            solve()
            rows[name]["seconds"].append(time.perf_counter() - begin)
            rows[name]["processor"].append(time.process_time() - used)
    tight = solvers(matrix, targets, penalty, TIGHT)
    exact, reference = tight["stochopt"](), tight["scikit-learn"]()
    return rows, {
        "penalty": penalty,
        "support": int(np.sum(exact != 0)),
        "difference": float(np.abs(exact - reference).max()),
        "of_predictions": float(np.abs(matrix @ (exact - reference)).max()),
        "rank": int(np.linalg.matrix_rank(matrix[:, (exact != 0) | (reference != 0)])),
        "gaps": [relative_gap(matrix, targets, penalty, x) for x in (exact, reference)],
    }


def report(name, part, rows, facts):
    """One row of the table for each solver; ratios are of medians, ours over theirs."""
    ours = rows["stochopt"]
    gaps = ", ".join(f"{gap:.0e}" for gap in facts["gaps"])
    print(f"\n{name}, {part} of the largest penalty: support {facts['support']},", end=" ")
    print(f"of rank {facts['rank']}; at gaps of {gaps} coefficients differ", end=" ")
    print(f"by {facts['difference']:.1e}, predictions by {facts['of_predictions']:.1e}\n")
    print("| solver | ms | of a processor | ours over theirs | of a processor | gap | first, s |")
    print("|---|---|---|---|---|---|---|")
    for solver, row in rows.items():
        low, middle, high = 1e3 * np.quantile(row["seconds"], [0.25, 0.5, 0.75])
        ratio = np.median(ours["seconds"]) / np.median(row["seconds"])
        used = np.median(row["processor"])
        part_used = np.median(ours["processor"]) / used
        print(
            f"| {solver} | {middle:.1f} [{low:.1f}, {high:.1f}] | {1e3 * used:.1f} "
            f"| {ratio:.2f} "
            f"| {part_used:.2f} | {row['gap']:.0e} | {row['first']:.2f} |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="file in LIBSVM's format, such as a8a")
    parser.add_argument("--tolerance", type=float, default=1e-6)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path("race/lasso"))
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    warnings.simplefilter("error")
    designs = {
        Path(arguments.data).stem.split("_")[0]: read_examples("data", arguments.data),
        "Gaussian": gaussian(),
    }
    record = {"cores": len(os.sched_getaffinity(0)), "tolerance": arguments.tolerance}
    for name, (matrix, targets) in designs.items():
        matrix, targets = matrix.astype(np.float64), targets.astype(np.float64)
        for part in PARTS:
            rows, facts = compare(matrix, targets, part, arguments.tolerance, arguments.repeats)
            report(name, part, rows, facts)
            record[f"{name}, {part}"] = {"solvers": rows, **facts}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "lasso.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
