r"""Slopes of BSVRB on quadratics of 20 blocks, 5 of them sampled, with given constants.

.. math::

   \eta = 0.2\, T^{-1/3}, \quad \tau = \bar\tau = 0.8\, T^{-1/3}, \quad
   \alpha = \min(\tfrac12, 16\, T^{-2/3}), \quad \beta = \min(1, 8\, T^{-2/3})

for :math:`T = 512, \dots, 8192`, 32 seeds. Measured are the mean of :math:`\|\nabla F(x)\|^2` over
the run and over its last quarter, and over the last quarter the mean squared errors of the lower
variables and of the direction; lines are fitted to the logarithms over all five horizons. The
published check of these constants names slopes, but not the matrices of its blocks. So each
condition of the experiment that it leaves open is changed here, one at a time.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stochopt import bsvrb_v1, bsvrb_v2
from stochopt.bilevel import block_variables
from stochopt.problems import bilevel_quadratic

NUM_BLOCKS, NUM_SEEDS = 20, 32
HORIZONS = np.array([512, 1024, 2048, 4096, 8192])
MEASURES = ("gradient, run", "gradient, tail", "lower variables", "direction")
A_FEW = {"eta": 0.2, "tau": 0.8, "alpha": 16.0, "beta": 8.0}
EVERY_ONE = {"eta": 0.4, "tau": 2.0, "alpha": 8.0, "beta": 8.0}


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table; the defaults are the experiment as it is understood."""

    name: str
    version: int = 2
    curvature: tuple[float, float] | None = (0.7, 1.4)
    start: float = 0.0
    noise: float = 0.3
    num_sampled: int = 5
    constants: Any = dataclasses.field(default_factory=lambda: A_FEW)
    correction: Any = lambda alpha: None  # the theory's
    probe: bool = True
    replace: bool = False
    independent: bool = False
    published: str = ""


CASES = (
    Case("v2", published="-0.65, -0.69, -0.64"),
    Case("v1", 1, published="-0.65, -0.69, -0.63"),
    Case("v2, coefficient 1", correction=lambda alpha: 1.0, published="-0.29, -0.44, -0.31"),
    Case(
        "v2, all 20 blocks",
        num_sampled=20,
        constants=EVERY_ONE,
        published="-0.66, -0.61, -0.64",
    ),
    Case("v2, blocks start at their first touch", probe=False),
    Case("v2, blocks drawn with replacement", replace=True),
    Case("v2, coefficient without its last term", correction=lambda alpha: 3 / (1 - alpha)),
    Case("v2, independent draw for the direction", independent=True),
    Case("v2, four draws of each block", noise=0.15),
    Case("v2, start at 1", start=1.0),
    Case("v2, coefficient 1, start at 1", start=1.0, correction=lambda alpha: 1.0),
    Case("v2, curvatures from 1 to 4", curvature=(1.0, 4.0)),
    Case("v2, coefficient 1, from 1 to 4", curvature=(1.0, 4.0), correction=lambda alpha: 1.0),
    Case("v2, curvatures from 1 to 2", curvature=(1.0, 2.0)),
    Case("v2, coefficient 1, from 1 to 2", curvature=(1.0, 2.0), correction=lambda alpha: 1.0),
    Case("v2, curvatures from 0.5 to 1", curvature=(0.5, 1.0)),
    Case("v2, coefficient 1, from 0.5 to 1", curvature=(0.5, 1.0), correction=lambda alpha: 1.0),
    Case("v2, Wishart", curvature=None),
    Case("v1, Wishart", 1, curvature=None),
    Case("v2, coefficient 1, Wishart", curvature=None, correction=lambda alpha: 1.0),
)


def program(case):
    """``measure(seeds, constants, horizon)``: for each seed the four means."""

    def make(num_sampled):
        return bilevel_quadratic(
            NUM_BLOCKS,
            num_sampled,
            noise=case.noise,
            start=case.start,
            lower_curvature=case.curvature,
        )

    problem, probe = make(case.num_sampled), make(NUM_BLOCKS)
    gradient, minimizers = problem.exact["gradient"], problem.exact["lower"]

    def draw(key):
        for_batch, for_other, for_blocks = jax.random.split(key, 3)
        batch, other = problem.sample(for_batch), problem.sample(for_other)
        if case.replace:  # a block that is drawn twice counts once, the other is padding
            blocks = jnp.sort(jax.random.randint(for_blocks, batch.block.shape, 0, NUM_BLOCKS))
            twice = jnp.concatenate([jnp.zeros(1, bool), blocks[1:] == blocks[:-1]])
            batch = batch._replace(block=jnp.where(twice, NUM_BLOCKS, blocks))
        other = other._replace(block=batch.block) if case.independent else batch
        return {"batch": batch, "jacobian_batch": other, "block_indices": batch.block}

    def optimizer_of(constants):
        options = {
            "lower_learning_rate": constants["tau"],
            "tracker_rate": constants["alpha"],
            "direction_rate": constants["beta"],
            "correction": case.correction(constants["alpha"]),
            "lower_params": problem.lower_params,
            "num_blocks": NUM_BLOCKS,
            "num_sampled": case.num_sampled,
            "lazy": False,
        }
        if case.version == 2:
            return bsvrb_v2(problem.upper, problem.lower, constants["eta"], **options)
        floor = 0.5 if case.curvature is None else case.curvature[0]
        options["hessian_floor"] = floor
        return bsvrb_v1(problem.upper, problem.lower, constants["eta"], **options)

    def run(seed, constants, horizon):
        key = jax.random.key(seed)
        optimizer = optimizer_of(constants)
        x = problem.init(key)
        state = optimizer.init(x)
        if case.probe:
            first = probe.sample(jax.random.fold_in(key, 2**31 - 1))
            updates, state = optimizer.update(
                None, state, x, batch=first, block_indices=first.block
            )
            x = x + updates

        def step(t, carry):
            x, state, sums = carry
            updates, state = optimizer.update(None, state, x, **draw(jax.random.fold_in(key, t)))
            slope = gradient(x)
            lower_error = block_variables(state[0]).lower_params - minimizers(x)
            found = jnp.stack(
                [
                    jnp.sum(slope**2),
                    jnp.sum(slope**2),
                    jnp.mean(jnp.sum(lower_error**2, axis=1)),
                    jnp.sum((state[0].direction - slope) ** 2),
                ]
            )
            in_tail = jnp.where(t >= horizon - horizon // 4, 4.0, 0.0)
            weights = jnp.stack([1.0, in_tail, in_tail, in_tail])
            return x + updates, state, sums + weights * found / horizon

        return jax.lax.fori_loop(0, horizon, step, (x, state, jnp.zeros(4)))[2]

    return jax.jit(jax.vmap(run, in_axes=(0, None, None)))


def errors_of(case):
    """Shape (seeds, horizons, measures)."""
    measure, found = program(case), []
    for horizon in HORIZONS:
        scaled = case.constants
        constants = {
            "eta": scaled["eta"] * horizon ** (-1 / 3),
            "tau": scaled["tau"] * horizon ** (-1 / 3),
            "alpha": min(0.5, scaled["alpha"] * horizon ** (-2 / 3)),
            "beta": min(1.0, scaled["beta"] * horizon ** (-2 / 3)),
        }
        constants = {name: jnp.float32(value) for name, value in constants.items()}
        found.append(measure(jnp.arange(NUM_SEEDS), constants, int(horizon)))
    return np.stack(found, axis=1).astype(np.float64)


def slopes(errors):
    """Slopes for each measure with 95 % bootstrap intervals over the seeds."""
    fit = lambda means: np.polyfit(np.log(HORIZONS), np.log(means), 1)[0]
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(errors), (1000, len(errors)))
    low, high = np.quantile([fit(errors[d].mean(axis=0)) for d in draws], (0.025, 0.975), axis=0)
    return fit(errors.mean(axis=0)), low, high


def main():
    print(f"\nslopes over T = {', '.join(map(str, HORIZONS))}, {NUM_SEEDS} seeds, 95 % intervals")
    print("published: gradient over the run, lower variables, direction")
    print(f"| case | {' | '.join(MEASURES)} | gradient, longest run | published |")
    print("| --- " * (len(MEASURES) + 3) + "|")
    for case in CASES:
        errors = errors_of(case)
        last = errors[:, -1, 0].mean()
        if not np.all(np.isfinite(errors)) or errors[:, :, 0].mean(axis=0).max() > 100:
            diverged = HORIZONS[~(errors[:, :, 0].mean(axis=0) < 100)]
            cells = [f"diverges for T = {', '.join(map(str, diverged))}", *[""] * 3]
        else:
            triples = zip(*slopes(errors), strict=True)
            cells = [f"{slope:.2f} [{low:.2f}, {high:.2f}]" for slope, low, high in triples]
        print(f"| {case.name} | {' | '.join(cells)} | {last:.2g} | {case.published} |", flush=True)


if __name__ == "__main__":
    main()
