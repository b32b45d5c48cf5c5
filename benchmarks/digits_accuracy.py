"""Test accuracy on the digits: catalog defaults of our methods against Adam with a tuned rate.

Everybody gets the same number of gradient evaluations and the same seeds; a method that spends
more than one gradient an update stops earlier. Adam's learning rate is the one of the grid with
the best mean *test* accuracy, which favours Adam.

    python benchmarks/digits_accuracy.py
"""

import argparse

import jax
import numpy as np

from stochopt import catalog, problems
from stochopt.experiments import RunResult, run

GRID = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def accuracy_within(result: RunResult, budget: int) -> np.ndarray:
    """Test accuracy of each seed at its last record within the budget of gradient evaluations."""
    last = (result.num_gradients <= budget).sum(axis=1) - 1
    return result.metrics["test_accuracy"][np.arange(result.num_seeds), last]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problem", default="digits", choices=["digits", "digits-cnn"])
    parser.add_argument("--gradients", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--optimizers", default="adago,smb,smb_independent")
    arguments = parser.parse_args()
    problem = problems.PROBLEMS[arguments.problem]()

    def measure(name: str, **hyperparams: float) -> np.ndarray:
        result = run(
            problem,
            catalog.find(name),
            key=jax.random.key(0),
            num_steps=arguments.gradients,
            num_seeds=arguments.seeds,
            record_every=20,
            **hyperparams,
        )
        accuracy = 100 * accuracy_within(result, arguments.gradients)
        settings = "".join(f" {key}={value:g}" for key, value in hyperparams.items())
        spread = accuracy.std(ddof=1)
        print(f"{name + settings:30} {accuracy.mean():6.2f} ± {spread:.2f} %", flush=True)
        return accuracy

    print(f"{problem.name}: {arguments.gradients} gradients, {arguments.seeds} seeds, mean ± sd")
    tuned = max((measure("adam", learning_rate=rate) for rate in GRID), key=np.mean)
    for name in arguments.optimizers.split(","):
        difference = measure(name) - tuned  # seeds share starting points and batches
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        print(f"  minus tuned adam: {difference.mean():+.2f} ± {error:.2f} points (standard error)")


if __name__ == "__main__":
    main()
