"""Eight devices share the tables of blocks: the same numbers and types, the layouts unchanged."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stochopt.bilevel import (
    block_variables,
    estimate_blockwise,
    tracked_hessian,
    tracked_solution,
)
from stochopt.compositional import msvr_tracker

P, NamedSharding, AxisType = jax.P, jax.NamedSharding, jax.sharding.AxisType
KINDS = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}
each_kind = pytest.mark.parametrize("kind", KINDS)
NUM_BLOCKS, NUM_SAMPLED, DIM, LOWER_DIM, NUM_STEPS = 16, 8, 16, 2, 3


@functools.cache
def make_mesh(kind):
    return jax.make_mesh((4, 2), ("x", "y"), axis_types=(KINDS[kind],) * 2)


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


def types(tree):
    """As strings: the type of a scalar also says the mesh, which a jitted step may add."""
    return jax.tree.map(lambda x: f"{jax.typeof(x)} {x.weak_type}", tree)


def tables(state):
    return jax.tree.leaves((state.visited, state.moving, state.matrices))


def steps(case, x, table_sharding=None, place=lambda x: x):
    """Point and state after a few updates; neither types nor the tables' layout may change."""
    estimate = estimator(case, table_sharding)
    state = estimate.init(x)
    update = jax.jit(lambda state, x, draw: estimate.update(None, state, x, **draw))
    for draw in draws(place):
        updates, new_state = update(state, x, draw)
        assert types(updates) == types(x)
        assert types(new_state) == types(state)
        if table_sharding is not None:
            for old, new in zip(tables(state), tables(new_state), strict=True):
                assert new.sharding.is_equivalent_to(old.sharding, new.ndim)
        x, state = x - 0.05 * updates, new_state
    return x, state


def start():
    return jnp.asarray(np.random.default_rng(1).standard_normal(DIM), jnp.float32)


@functools.cache
def expected(case):
    return steps(case, start())


def assert_close(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-5, atol=2e-5)


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
