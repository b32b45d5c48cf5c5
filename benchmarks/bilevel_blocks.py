"""Time of a step of BSVRB in its lazy form, with few and with many blocks.

A compiled loop with a donated carry takes all steps. Before it is timed, its program is searched
for operations that would make a whole table anew.
"""

import re

import jax.numpy as jnp
import numpy as np
from timing import NUM_BLOCKS, NUM_SAMPLED, in_turn, loop_over_blocks

from stochopt import bsvrb_v1, bsvrb_v2

NUM_STEPS = 2000
# Of each block: samples in its batch, numbers in its lower variable; and in the upper one.
SIZES = {"1 sample, 2 numbers": (1, 2, 16), "32 samples, 4 numbers": (32, 4, 64)}
METHODS = {"bsvrb_v2": bsvrb_v2, "bsvrb_v1": bsvrb_v1}
CASES = {f"`{name}`, {size}": (name, size) for size in SIZES for name in METHODS}

_IN_PLACE = {"scatter", "dynamic-update-slice"}
_HANDS_ON = {"parameter", "get-tuple-element", "tuple", "bitcast", "while", "fusion", "call"}
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?\S+ = (.*?) ([a-z][\w-]*)\(", re.MULTILINE)


def upper(x, y, batch):
    return 0.5 * jnp.sum((y - batch["target"]) ** 2) + 0.01 * jnp.sum(x**2)


def lower(x, y, batch):
    slope = jnp.tanh(batch["features"] @ x)
    return jnp.mean(0.5 * batch["scale"] @ y**2 - slope @ y)


def loop(case, num_blocks, num_batches=32):
    """The steps, and their compiled program."""
    name, size = CASES[case]
    samples, numbers, features = SIZES[size]
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    of_samples = (num_batches, NUM_SAMPLED, samples, numbers)
    batches = {
        "features": normal(*of_samples, features) / np.sqrt(features),
        "scale": 1 + 0.1 * normal(*of_samples),
        "target": normal(num_batches, NUM_SAMPLED, numbers),
    }
    optimizer = METHODS[name](
        upper,
        lower,
        1e-3,
        lower_learning_rate=1e-3,
        correction=1.0,  # the same motion with any number of blocks
        lower_params=jnp.zeros(numbers),
        num_blocks=num_blocks,
        num_sampled=NUM_SAMPLED,
    )
    return loop_over_blocks(optimizer, 0.1 * normal(features), batches, num_blocks, NUM_STEPS)


def tables_made(compiled, num_blocks):
    """Operations anywhere in the program that make something with an axis of all blocks."""
    found = _INSTRUCTION.findall(compiled.as_text())
    of_tables = [operation for shape, operation in found if str(num_blocks) in shape]
    assert _IN_PLACE.intersection(of_tables), "no table is written"
    return [operation for operation in of_tables if operation not in _IN_PLACE | _HANDS_ON]


def measure():
    """Seconds a step, by case and by number of blocks."""
    many = max(NUM_BLOCKS)
    record = {}
    for case in CASES:
        loops = {num_blocks: loop(case, num_blocks) for num_blocks in NUM_BLOCKS}
        copies = tables_made(loops[many][1], many)
        assert not copies, f"{case}: tables are made anew: {copies}"
        took = in_turn({num_blocks: run for num_blocks, (run, _) in loops.items()})
        record[case] = {num_blocks: seconds / NUM_STEPS for num_blocks, seconds in took.items()}
    return record
