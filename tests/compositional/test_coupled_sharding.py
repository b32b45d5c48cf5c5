"""Eight devices share the table: the same numbers and types, and rows travel, never the table."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import pytest
from meshes import KINDS, assert_close, each_kind, make_mesh

from stochopt.compositional import estimate_coupled, moving_average, msvr_tracker

P, NamedSharding = jax.P, jax.NamedSharding
NUM_BLOCKS, NUM_SAMPLED, DIM, NUM_STEPS = 8 * 1013, 8, 16, 3  # a prime: a share is recognized


def inner(x, batch):
    return batch["slope"] @ x


def outer(y, x, batch):
    return 0.5 * jnp.sum((y - batch["target"]) ** 2) + 0.01 * jnp.sum(x**2)


MSVR = msvr_tracker(0.2, num_blocks=16, num_sampled=8)
CASES = {
    "average": (moving_average(0.3), None, False),
    "recursive": (MSVR, 0.3, False),
    "independent blocks": (MSVR, 0.3, True),
}


def estimator(case, table_sharding=None):
    tracker, direction_rate, _ = CASES[case]
    return estimate_coupled(
        inner,
        outer,
        tracker=tracker,
        inner_shape=jax.ShapeDtypeStruct((2,), jnp.float32),
        num_blocks=NUM_BLOCKS,
        direction_rate=direction_rate,
        table_sharding=table_sharding,
    )


def draws(case, place=lambda x: x):
    """Blocks at both ends of the table, a third of them drawn again, and padding."""
    rng = np.random.default_rng(0)
    often = rng.permutation(NUM_BLOCKS)[:11]
    for _ in range(NUM_STEPS):
        draw = {}
        for name in ("", "jacobian_") if CASES[case][2] else ("",):
            blocks = rng.permutation(np.r_[often, 0, NUM_BLOCKS - 1])[:NUM_SAMPLED]
            blocks[rng.integers(NUM_SAMPLED)] = NUM_BLOCKS
            slope = rng.standard_normal((NUM_SAMPLED, 2, DIM)).astype(np.float32)
            target = rng.standard_normal((NUM_SAMPLED, 2)).astype(np.float32)
            draw[f"{name}block_indices"] = place(jnp.asarray(blocks, jnp.int32))
            draw[f"{name}batch"] = {"slope": place(slope), "target": place(target)}
        yield draw


def steps(case, x, table_sharding=None, wrap=jax.jit, place=lambda x: x):
    of_state = tables if table_sharding is not None else lambda state: ()
    return meshes.steps(estimator(case, table_sharding), x, draws(case, place), of_state, wrap)


def tables(state):
    return state.tracked_value, state.visited


def start():
    return jnp.asarray(np.random.default_rng(1).standard_normal(DIM), jnp.float32)


@functools.cache
def expected(case):
    return steps(case, start())


SPECS = {"one axis": "x", "the other": "y", "both": ("x", "y")}


@each_kind
@pytest.mark.parametrize("axis", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("where", [P(), P("x"), None], ids=["replicated", "sharded", "anywhere"])
def test_the_same_numbers_as_on_one_device(kind, axis, where):
    mesh = make_mesh(kind)
    x = start() if where is None else jax.device_put(start(), NamedSharding(mesh, where))
    case = "independent blocks"
    found, state = steps(case, x, NamedSharding(mesh, P(axis)))
    assert_close((found, state), expected(case))
    shares = 8 if axis == ("x", "y") else mesh.shape[axis]
    for table in tables(state):
        shape = (NUM_BLOCKS // shares, *table.shape[1:])
        assert {shard.data.shape for shard in table.addressable_shards} == {shape}
    if where is not None:
        for leaf in (state.previous_params, state.direction, found):
            assert leaf.sharding.is_equivalent_to(x.sharding, 1)


@each_kind
@pytest.mark.parametrize("case", ["average", "recursive"])
def test_one_set_of_blocks(kind, case):
    mesh = make_mesh(kind)
    x = jax.device_put(start(), NamedSharding(mesh, P()))
    assert_close(steps(case, x, NamedSharding(mesh, P(("x", "y")))), expected(case))


@each_kind
def test_eager_steps(kind):
    mesh = make_mesh(kind)
    x, case = jax.device_put(start(), NamedSharding(mesh, P("x"))), "independent blocks"
    with jax.set_mesh(mesh):  # as JAX itself wants it for an eager gradient on explicit axes
        found = steps(case, x, NamedSharding(mesh, P(("x", "y"))), wrap=lambda f: f)
    assert_close(found, expected(case))


@each_kind
@pytest.mark.parametrize("inside", [False, True], ids=["no context", "set_mesh"])
def test_batches_spread_over_the_devices(kind, inside):
    mesh, case = make_mesh(kind), "independent blocks"
    place = lambda x: jax.device_put(x, NamedSharding(mesh, P("x")))
    x = jax.device_put(start(), NamedSharding(mesh, P()))
    run = functools.partial(steps, case, x, NamedSharding(mesh, P("x")), place=place)
    if inside:
        with jax.set_mesh(mesh):
            found = run()
    else:
        found = run()
    assert_close(found, expected(case))


@each_kind
def test_a_table_without_a_layout_inside_a_mesh(kind):
    with jax.set_mesh(make_mesh(kind)):
        assert_close(steps("recursive", start()), expected("recursive"))


@each_kind
def test_mixed_axes(kind):
    other = KINDS["auto" if kind == "explicit" else "explicit"]
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(KINDS[kind], other))
    x = jax.device_put(start(), NamedSharding(mesh, P()))
    for axis in "xy":
        found = steps("independent blocks", x, NamedSharding(mesh, P(axis)))
        assert_close(found, expected("independent blocks"))


# Where the table lies.


def compiled(kind, case):
    mesh = make_mesh(kind)
    estimate = estimator(case, NamedSharding(mesh, P(("x", "y"))))
    x = jax.device_put(start(), NamedSharding(mesh, P()))
    update = jax.jit(
        lambda state, x, draw: estimate.update(None, state, x, **draw), donate_argnums=0
    )
    return update.lower(estimate.init(x), x, next(draws(case))).compile()


COLLECTIVE = re.compile(
    r"= (.*?) (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)"
    r"(?:-start)?\("
)


def entries(text):
    """Sizes of all arrays in a piece of a program."""
    shapes = re.findall(r"\w\d*\[([\d,]*)\]", text)
    return [math.prod(int(n) for n in shape.split(",") if n) for shape in shapes]


@each_kind
@pytest.mark.parametrize("case", CASES)
def test_each_device_holds_its_share_and_only_rows_travel(kind, case):
    program = compiled(kind, case)
    text = program.as_text()
    share = NUM_BLOCKS // 8
    assert f"f32[{share},2]" in text
    assert f"pred[{share}]" in text
    assert max(entries(text)) == 2 * share
    moved = COLLECTIVE.findall(text)
    assert moved, "no rows were fetched from other devices"
    assert max(entries(" ".join(moved))) <= 2 * NUM_SAMPLED * DIM
    assert program.memory_analysis().temp_size_in_bytes < 4 * share  # a copy of the share is twice


def test_control_a_gathered_table_is_found():
    mesh = make_mesh("auto")
    table = jax.device_put(jnp.zeros((NUM_BLOCKS, 2)), NamedSharding(mesh, P(("x", "y"))))
    whole = jax.jit(lambda t: 2 * t, out_shardings=NamedSharding(mesh, P()))
    text = whole.lower(table).compile().as_text()
    assert max(entries(" ".join(COLLECTIVE.findall(text)))) == 2 * NUM_BLOCKS


@each_kind
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_init_makes_the_table_in_its_layout(kind, wrap):
    mesh = make_mesh(kind)
    layout = NamedSharding(mesh, P("x"))
    init = wrap(estimator("average", layout).init)
    for state in (init(start()), _in_context(mesh, init)):
        for table in tables(state):
            assert table.sharding.is_equivalent_to(layout, table.ndim)


def _in_context(mesh, init):
    with jax.set_mesh(mesh):
        return init(start())


def test_init_on_abstract_leaves_says_the_layout():
    layout = NamedSharding(make_mesh("explicit"), P("x"))
    abstract = jax.ShapeDtypeStruct((DIM,), jnp.float32)
    state = jax.eval_shape(estimator("average", layout).init, abstract)
    assert str(jax.typeof(state.tracked_value)) == f"float32[{NUM_BLOCKS}@x,2]"


def test_blocks_that_cannot_be_spread():
    estimate = estimate_coupled(
        inner,
        outer,
        tracker=moving_average(0.1),
        inner_shape=jax.ShapeDtypeStruct((2,), jnp.float32),
        num_blocks=12,
        table_sharding=NamedSharding(make_mesh("auto"), P(("x", "y"))),
    )
    with pytest.raises(ValueError, match="12 blocks cannot be spread over 8 devices"):
        estimate.init(start())
