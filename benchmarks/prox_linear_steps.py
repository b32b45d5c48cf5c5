"""Why long prox-linear steps fail on large phase retrieval problems, and what helps.

Noise-free instances of ``benchmarks/model_based.py`` with more and more unknowns, three
measurements for each. Beside constant steps: more epochs, steps that fall like 1 / sqrt(t), and
steps that end where ``|<a, x>|`` is twice what was measured. Prints the step sizes that solve half
of the seeds.

    python benchmarks/prox_linear_steps.py
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from model_based import measure

from stochopt.model_based import stochastic_prox_linear, stochastic_prox_point

RATES = 10.0 ** np.arange(-3.5, 4, 0.5)
OVERSHOOT = 2.0


def constant(problem, rate):
    return stochastic_prox_linear(problem.residuals, rate)


def falling(problem, rate):
    return stochastic_prox_linear(problem.residuals, lambda count: rate / jnp.sqrt(1.0 + count))


def held_back(problem, rate):
    """The prox-linear step, ended where the new ``|<a, x>|`` is twice the root of ``b``."""

    def move(x, step, batch):
        (a,), (b,) = batch
        p, squared_norm = jnp.vdot(a, x), jnp.vdot(a, a)
        t = -jnp.clip((p**2 - b) / (4 * p**2 * squared_norm), -step, step) * 2 * p
        most = jnp.maximum(OVERSHOOT * jnp.sqrt(b), jnp.abs(p))
        return x + (jnp.clip(p + t * squared_norm, -most, most) - p) / squared_norm * a

    return stochastic_prox_point(move, rate)


def shown(epochs):
    """The range of step sizes at which half of the seeds meet the target, and its decades."""
    solved = RATES[np.mean(epochs < np.inf, axis=0) >= 0.5]
    if not len(solved):
        return "none"
    return f"{solved[0]:.2g} to {solved[-1]:.2g} ({np.log10(solved[-1] / solved[0]):.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--unknowns", type=int, nargs="+", default=[10, 20, 40, 80])
    parser.add_argument("--epochs", type=int, nargs=2, default=[100, 400])
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    few, many = arguments.epochs
    print(f"| unknowns | {few} epochs | {many} epochs | falling, {few} | falling, {many}", end=" ")
    print(f"| held back, {few} |\n" + "| --- " * 6 + "|")
    for d in arguments.unknowns:
        cells = []
        for method in (constant, falling, held_back):
            epochs, _ = measure((d, 3 * d), 1, method, RATES, arguments.seeds, many)
            soon = np.where(epochs <= few, epochs, np.inf)
            cells += [shown(soon)] if method is held_back else [shown(soon), shown(epochs)]
        print(f"| {d} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
