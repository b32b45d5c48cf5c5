"""Eight devices share the tables of blocks: the same numbers and types, the layouts unchanged."""

import functools

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
from meshes import assert_close, each_kind, make_mesh

from stochopt.bilevel import (
    block_variables,
    estimate_blockwise,
    tracked_hessian,
    tracked_solution,
)
from stochopt.compositional import msvr_tracker

P, NamedSharding = jax.P, jax.NamedSharding
NUM_BLOCKS, NUM_SAMPLED, DIM, LOWER_DIM, NUM_STEPS = 16, 8, 16, 2, 3


def upper(x, y, row):
    return 0.5 * jnp.sum((y - row["target"]) ** 2) + 0.01 * jnp.sum(x**2)


def lower(x, y, row):
    return 0.5 * jnp.sum(row["scale"] * y**2) - y @ (row["slope"] @ x)


CASES = {
    "hessian": (tracked_hessian(lower, floor=0.5), (0.05,), True),
    "solution": (tracked_solution(upper, lower), (0.05, 0.05), True),
    "solution, dense": (tracked_solution(upper, lower), (0.05, 0.05), False),
}


def estimator(case, table_sharding=None):
    scheme, learning_rates, lazy = CASES[case]
    return estimate_blockwise(
        upper,
        lower,
        scheme,
        tracker=msvr_tracker(0.2, num_blocks=NUM_BLOCKS, num_sampled=NUM_SAMPLED),
        lower_params=jnp.ones(LOWER_DIM),
        num_blocks=NUM_BLOCKS,
        learning_rates=learning_rates,
        direction_rate=0.3,
        lazy=lazy,
        table_sharding=table_sharding,
    )


def draws(place=lambda x: x):
    """Blocks at both ends of the table, some of them drawn again, and padding."""
    rng = np.random.default_rng(0)
    for _ in range(NUM_STEPS):
        blocks = rng.permutation(NUM_BLOCKS)[:NUM_SAMPLED]
        blocks[rng.integers(NUM_SAMPLED)] = NUM_BLOCKS
        shapes = {"slope": (LOWER_DIM, DIM), "target": (LOWER_DIM,), "scale": (LOWER_DIM,)}
        batch = {
            name: rng.uniform(0.5, 1.5, (NUM_SAMPLED, *shape)).astype(np.float32)
            for name, shape in shapes.items()
        }
        indices = jnp.asarray(blocks, jnp.int32)
        yield {"block_indices": place(indices), "batch": jax.tree.map(place, batch)}


def tables(state):
    return jax.tree.leaves((state.visited, state.moving, state.matrices))


def steps(case, x, table_sharding=None, place=lambda x: x):
    of_state = tables if table_sharding is not None else lambda state: ()
    return meshes.steps(estimator(case, table_sharding), x, draws(place), of_state)


def start():
    return jnp.asarray(np.random.default_rng(1).standard_normal(DIM), jnp.float32)


@functools.cache
def expected(case):
    return steps(case, start())


@each_kind
@pytest.mark.parametrize("where", [P(), P("x")], ids=["replicated", "sharded"])
@pytest.mark.parametrize("case", CASES)
def test_the_same_numbers_as_on_one_device(kind, case, where):
    mesh = make_mesh(kind)
    x = jax.device_put(start(), NamedSharding(mesh, where))
    found, state = steps(case, x, NamedSharding(mesh, P(("x", "y"))))
    assert_close((found, state), expected(case))
    for table in tables(state):
        shape = (NUM_BLOCKS // 8, *table.shape[1:])
        assert {shard.data.shape for shard in table.addressable_shards} == {shape}
    for leaf in (state.previous_params, state.direction, found):
        assert leaf.sharding.is_equivalent_to(x.sharding, 1)
    assert_close(block_variables(state), block_variables(expected(case)[1]))


@each_kind
def test_batches_spread_over_the_devices(kind):
    mesh = make_mesh(kind)
    place = lambda x: jax.device_put(x, NamedSharding(mesh, P("x")))
    x = jax.device_put(start(), NamedSharding(mesh, P()))
    with jax.set_mesh(mesh):
        found = steps("hessian", x, NamedSharding(mesh, P("x")), place)
    assert_close(found, expected("hessian"))


@each_kind
def test_tables_without_a_layout_inside_a_mesh(kind):
    with jax.set_mesh(make_mesh(kind)):
        assert_close(steps("solution", start()), expected("solution"))
