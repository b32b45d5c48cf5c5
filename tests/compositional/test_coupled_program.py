"""The compiled loop of the coupled estimator changes its table in place.

Read off the optimized program: inside the body of the loop nothing of the size of the table may be
made. Only writing rows into it and handing it on are allowed, and no scratch memory of its size.
"""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

from stochopt.compositional import (
    estimate_coupled,
    log_moving_average,
    moving_average,
    msvr_tracker,
)

NUM_BLOCKS = 104_729  # a prime that no other shape has: what has this axis is a table
NUM_SAMPLED = 8
NUM_STEPS = 4
DIM = 3
IN_PLACE = {"scatter", "dynamic-update-slice"}
HANDS_ON = {"parameter", "get-tuple-element", "tuple", "bitcast", "while", "fusion", "call"}
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?\S+ = (.*?) ([a-z][\w-]*)\(")
CALLED = re.compile(r"(?:body|condition|calls|to_apply)=%?([\w.-]+)")


def computations(program):
    """The lines of each computation of an HLO text, by its name."""
    found, lines = {}, []
    for line in program.splitlines():
        if line.endswith("{") and "->" in line:
            lines = found[line.removeprefix("ENTRY ").lstrip("%").split(" ")[0]] = []
        elif line.startswith(" "):
            lines.append(line)
    return found


def tables_made(program):
    """Operations in the bodies of loops, and in all they call, that make a whole table anew."""
    parts = computations(program)
    waiting = re.findall(r"body=%?([\w.-]+)", program)
    assert waiting, "no loop in the program"
    made, seen, written = [], set(), 0
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for line in parts[name]:
            waiting += CALLED.findall(line)
            shape, operation = INSTRUCTION.match(line).groups()
            if str(NUM_BLOCKS) in shape:
                written += operation in IN_PLACE
                if operation not in IN_PLACE | HANDS_ON:
                    made.append(operation)
    assert written, "no table is written in the loop"
    return made


def inner(x, batch):
    return batch["slope"] @ x


def outer(y, x, batch):
    return 0.5 * jnp.sum((y - batch["target"]) ** 2) + 0.01 * jnp.sum(x**2)


def estimator(tracker, **options):
    shape = jax.ShapeDtypeStruct((2,), jnp.float32)
    return estimate_coupled(
        inner, outer, tracker=tracker, inner_shape=shape, num_blocks=NUM_BLOCKS, **options
    )


def compiled_loop(estimate, after=lambda new, old: new, extra=lambda state: (), names=("",)):
    """A compiled loop over steps whose carry is donated; ``after`` and ``extra`` spoil it."""
    optimizer = optax.chain(estimate, optax.scale(-0.01))

    def body(carry, draw):
        x, state, _ = carry
        updates, new = optimizer.update(None, state, x, **draw)
        return (optax.apply_updates(x, updates), after(new, state), extra(state)), None

    def loop(carry, draws):
        return jax.lax.scan(body, carry, draws)[0]

    rows = (NUM_STEPS, NUM_SAMPLED)
    array = jax.ShapeDtypeStruct
    batch = {
        "slope": array((*rows, 2, DIM), jnp.float32),
        "target": array((*rows, 2), jnp.float32),
    }
    draws = {}
    for name in names:
        draws |= {f"{name}batch": batch, f"{name}block_indices": array(rows, jnp.int32)}
    x = array((DIM,), jnp.float32)
    state = jax.eval_shape(optimizer.init, x)
    carry = (x, state, jax.eval_shape(extra, state))
    return jax.jit(loop, donate_argnums=0).lower(carry, draws).compile()


MSVR = msvr_tracker(0.1, num_blocks=NUM_BLOCKS, num_sampled=NUM_SAMPLED)
CASES = {
    "moving average": (moving_average(0.1), {}, ("",)),
    "logarithmic": (log_moving_average(0.1), {}, ("",)),
    "recursive": (MSVR, {}, ("",)),
    "recursive, tracked direction": (MSVR, {"direction_rate": 0.1}, ("",)),
    "independent blocks": (MSVR, {"direction_rate": 0.1}, ("", "jacobian_")),
}


@pytest.mark.parametrize("case", CASES)
def test_table_is_changed_in_place(case):
    tracker, options, names = CASES[case]
    loop = compiled_loop(estimator(tracker, **options), names=names)
    assert tables_made(loop.as_text()) == []
    memory = loop.memory_analysis()
    assert memory.temp_size_in_bytes < NUM_BLOCKS  # one byte a block would be a copy of the visits
    assert memory.alias_size_in_bytes > 2 * 4 * NUM_BLOCKS  # the donated table is the result


def test_a_table_kept_alive_is_found():
    # Someone who looks at the table of the last step makes the write copy it.
    keep = lambda state: state[0].tracked_value
    loop = compiled_loop(estimator(moving_average(0.1)), extra=keep)
    assert "copy" in tables_made(loop.as_text())


def test_a_pass_over_the_table_is_found():
    # All rows shrink in every step, the sampled and the others.
    def shrink(new, old):
        del old
        first = new[0]._replace(tracked_value=0.99 * new[0].tracked_value)
        return (first, *new[1:])

    loop = compiled_loop(estimator(moving_average(0.1)), after=shrink)
    assert "multiply" in tables_made(loop.as_text())


def test_a_wider_row_is_found():
    # Written in another dtype than its own, the table is converted there and back as a whole.
    def widen(new, old):
        rows = jnp.ones((NUM_SAMPLED, 2), jnp.float32)
        table = old[0].tracked_value.astype(jnp.bfloat16).astype(jnp.float32)
        table = table.at[jnp.arange(NUM_SAMPLED)].set(rows)
        return (new[0]._replace(tracked_value=table), *new[1:])

    loop = compiled_loop(estimator(moving_average(0.1)), after=widen)
    assert "convert" in tables_made(loop.as_text())
