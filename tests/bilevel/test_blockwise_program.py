"""The compiled loops of BSVRB-v1 and -v2 change their tables in place.

Read off the optimized program, as for the coupled estimator.
"""

import jax
import jax.numpy as jnp
import optax
import pytest
from compositional.test_coupled_program import NUM_BLOCKS, NUM_SAMPLED, NUM_STEPS, tables_made

from stochopt import bsvrb_v1, bsvrb_v2

DIM, LOWER_DIM = 3, 2


def upper(x, y, row):
    return 0.5 * jnp.sum((y - row["target"]) ** 2) + 0.01 * jnp.sum(x**2)


def lower(x, y, row):
    return 0.5 * jnp.sum(row["scale"] * y**2) - y @ row["slope"] @ x


def optimizer_of(version, **options):
    make = {1: bsvrb_v1, 2: bsvrb_v2}[version]
    start = jnp.zeros(LOWER_DIM)
    sizes = {"num_blocks": NUM_BLOCKS, "num_sampled": NUM_SAMPLED}
    return make(upper, lower, 0.01, lower_params=start, **sizes, **options)


def compiled_loop(optimizer, after=lambda state: state):
    """A compiled loop over steps whose carry is donated; ``after`` spoils the state."""

    def body(carry, draw):
        x, state = carry
        updates, state = optimizer.update(None, state, x, **draw)
        return (optax.apply_updates(x, updates), after(state)), None

    def loop(carry, draws):
        return jax.lax.scan(body, carry, draws)[0]

    array = lambda *shape: jax.ShapeDtypeStruct((NUM_STEPS, NUM_SAMPLED, *shape), jnp.float32)
    batch = {
        "scale": array(LOWER_DIM),
        "slope": array(LOWER_DIM, DIM),
        "target": array(LOWER_DIM),
    }
    indices = jax.ShapeDtypeStruct((NUM_STEPS, NUM_SAMPLED), jnp.int32)
    x = jax.ShapeDtypeStruct((DIM,), jnp.float32)
    carry = (x, jax.eval_shape(optimizer.init, x))
    draws = {"batch": batch, "block_indices": indices}
    return jax.jit(loop, donate_argnums=0).lower(carry, draws).compile(), carry


CASES = {
    "v1": (1, {}),
    "v1, floor": (1, {"hessian_floor": 0.5}),
    "v2": (2, {}),
    "v2, ball": (2, {"adjoint_radius": 1.0}),
}


@pytest.mark.parametrize("case", CASES)
def test_tables_are_changed_in_place(case):
    version, options = CASES[case]
    loop, carry = compiled_loop(optimizer_of(version, **options))
    assert tables_made(loop.as_text()) == []
    memory = loop.memory_analysis()
    assert memory.temp_size_in_bytes < NUM_BLOCKS  # one byte a block would be a copy of the visits
    tables = [leaf for leaf in jax.tree.leaves(carry) if leaf.shape[:1] == (NUM_BLOCKS,)]
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in tables)
    assert memory.alias_size_in_bytes >= size  # the donated tables are the result


def test_the_dense_form_is_found_to_pass_over_its_tables():
    loop, _ = compiled_loop(optimizer_of(2, lazy=False))
    assert tables_made(loop.as_text()) != []


def test_a_motion_of_all_rows_is_found():
    def move(state):
        first, *rest = state
        variables = jax.tree.map(lambda y: 0.99 * y, first.moving.variables)
        return (first._replace(moving=first.moving._replace(variables=variables)), *rest)

    loop, _ = compiled_loop(optimizer_of(1), after=move)
    assert "multiply" in tables_made(loop.as_text())
