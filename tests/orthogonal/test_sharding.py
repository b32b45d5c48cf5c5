"""Eight devices: the same numbers and types as on one, and a share of the work for each."""

import functools

import jax
import jax.numpy as jnp
import meshes
import numpy as np
import optax
import pytest
from meshes import each_kind, make_mesh, types

import stochopt
from stochopt.experiments.flops import matmul_flops
from stochopt.orthogonal import hidden_matrices, newton_schulz
from stochopt.orthogonal.buckets import map_matrices
from stochopt.orthogonal.matrices import axes_of

P, NamedSharding, AxisType = jax.P, jax.NamedSharding, jax.sharding.AxisType
assert_close = functools.partial(meshes.assert_close, rtol=1e-5, atol=2e-6)


LEAVES = {
    "rows": ((8, 16), P("x", None)),
    "columns": ((8, 16), P(None, "x")),
    "both": ((16, 8), P("x", "y")),
    "stack": ((4, 8, 16), P("x", None, None)),
    "stack_and_columns": ((4, 8, 16), P("x", None, "y")),
    "conv": ((3, 3, 2, 8), P(None, None, None, "x")),
    "bias": ((16,), P("x")),
}


def random_tree(seed, mesh=None, leaves=LEAVES):
    rng = np.random.default_rng(seed)
    arrays = {k: rng.standard_normal(s).astype(np.float32) for k, (s, _) in leaves.items()}
    if mesh is None:
        return {k: jnp.asarray(x) for k, x in arrays.items()}
    return {k: jax.device_put(x, NamedSharding(mesh, leaves[k][1])) for k, x in arrays.items()}


RULE = hidden_matrices(stacked="stack")
METHODS = {
    "muon": functools.partial(stochopt.muon, weight_decay=0.1, weight_dimension_numbers=RULE),
    "adago": functools.partial(stochopt.adago, weight_decay=0.1, weight_dimension_numbers=RULE),
    "trust_region": functools.partial(stochopt.trust_region, 0.1, weight_decay=0.1),
}


def two_steps(optimizer, mesh, wrap=lambda f: f):
    """Parameters and state after two updates, whose types must not change."""
    params = random_tree(0, mesh)
    state, update = optimizer.init(params), wrap(optimizer.update)
    for seed in (1, 2):
        updates, new_state = update(random_tree(seed, mesh), state, params)
        assert types(updates) == types(params)
        assert types(new_state) == types(state)
        new_params = optax.apply_updates(params, updates)
        assert types(new_params) == types(params)
        params, state = new_params, new_state
    return params, state


@functools.cache
def expected(method):
    return two_steps(METHODS[method](), None, jax.jit)


@each_kind
@pytest.mark.parametrize("method", METHODS)
def test_sharded_matrices_move_as_on_one_device(kind, method):
    optimizer, mesh = METHODS[method](), make_mesh(kind)
    assert_close(two_steps(optimizer, mesh, jax.jit), expected(method))
    if kind == "explicit" or method == "muon":  # eager steps compile every operation: slow
        assert_close(two_steps(optimizer, mesh), expected(method))


def test_state_lies_where_the_parameters_do():
    params = random_tree(0, make_mesh("explicit"))
    state = METHODS["adago"]().init(params)
    mu, sizes = (optax.tree.get(state, name) for name in ("accumulator", "step_size"))
    for tree in (mu, sizes):
        assert str(jax.typeof(tree["stack"])) == "float32[4@x]"
        assert str(jax.typeof(tree["rows"])) == "float32[]"


@pytest.mark.parametrize("name", ["rows", "both"])
def test_control_optax_refuses_explicit_layouts(name):
    # Should this fail some day, the comparison in the documentation is out of date.
    params = random_tree(0, make_mesh("explicit"), {name: LEAVES[name]})
    optimizer = optax.contrib.muon(0.1)
    state = optimizer.init(params)
    with pytest.raises(Exception, match=r"(?i)shard"):
        jax.jit(optimizer.update)(params, state, params)


# Each device its share.

SHARES = {
    "name": lambda mesh: "x",
    "layout": lambda mesh: NamedSharding(mesh, P("x")),
    "layout over two axes": lambda mesh: NamedSharding(mesh, P(("x", "y"))),
}


def polar_factors(distribute, arrays):
    return map_matrices(newton_schulz, arrays, axes_of("method", None, arrays), distribute)


@functools.cache
def five_and_one():
    """Buckets of five and of one: neither divides by four or eight devices."""
    shapes = [(8, 16), (16, 8), (8, 16), (8, 16), (16, 8), (6, 6)]
    rng = np.random.default_rng(3)
    arrays = [jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes]
    return arrays, polar_factors(None, arrays)


def placed(arrays, mesh, spec):
    return [jax.device_put(x, NamedSharding(mesh, spec)) for x in arrays]


@each_kind
@pytest.mark.parametrize("share", SHARES)
def test_distributed_work_gives_the_same_numbers(kind, share):
    mesh = make_mesh(kind)
    arrays, wanted = five_and_one()
    function = functools.partial(polar_factors, SHARES[share](mesh))
    for spec in (P(), P(None, "y")):
        on_mesh = placed(arrays, mesh, spec)
        found = jax.jit(function)(on_mesh)
        assert_close(found, wanted)
        assert types(found) == types(on_mesh)
    assert_close(function(on_mesh), wanted)


@each_kind
def test_distributed_work_on_the_mesh_of_the_context(kind):
    mesh = make_mesh(kind)
    arrays, wanted = five_and_one()
    function = jax.jit(functools.partial(polar_factors, "x"))
    with jax.set_mesh(mesh):
        assert_close(function(arrays), wanted)
        # Padding must not fall into the layout of the context.
        on_mesh = placed(arrays, mesh, P(None, "y"))
        found = function(on_mesh)
        assert_close(found, wanted)
        assert types(found) == types(on_mesh)


def test_distributed_work_on_a_mesh_that_only_the_compiler_knows():
    mesh = make_mesh("auto")
    arrays, wanted = five_and_one()
    function = functools.partial(polar_factors, NamedSharding(mesh, P("x")))
    assert_close(function(arrays), wanted)
    layouts = NamedSharding(mesh, P(None, "y"))
    assert_close(jax.jit(function, in_shardings=(layouts,))(arrays), wanted)


def test_distributed_methods_move_as_on_one_device():
    mesh = make_mesh("explicit")
    for method in ("muon", "adago"):
        optimizer = METHODS[method](distribute=NamedSharding(mesh, P(("y", "x"))))
        assert_close(two_steps(optimizer, mesh, jax.jit), expected(method))


@each_kind
@pytest.mark.parametrize("method", ["muon", "adago"])
def test_every_device_takes_its_share_of_the_work(kind, method):
    mesh = make_mesh(kind)
    params = random_tree(0, mesh, {f"w{i}": ((8, 16), P("x", "y")) for i in range(8)})

    def work(distribute):
        optimizer = getattr(stochopt, method)(distribute=distribute)
        return matmul_flops(optimizer.update, params, optimizer.init(params), params)

    alone = work(None)
    assert alone == 8 * (8 * 8 * 8) * (2 * 2 * 2 + 2 + 4 * 8)  # 4 m^2 n + 34 m^3 for each matrix
    assert work(NamedSharding(mesh, P(("x", "y")))) * 8 == alone
    assert work("x") * 4 == alone
    assert work("y") * 2 == alone


def test_a_sharded_stack_is_not_gathered():
    # Each device already has its own matrices.
    mesh = make_mesh("explicit")
    stack = {"stack": ((4, 8, 16), P("x", None, "y"))}
    optimizer = METHODS["muon"]()
    work = lambda tree: matmul_flops(optimizer.update, tree, optimizer.init(tree), tree)
    assert work(random_tree(0, mesh, stack)) * 4 == work(random_tree(0, None, stack))


# Errors.


@pytest.mark.parametrize(
    ("distribute", "mesh", "reason"),
    [
        ("x", None, "this mesh has none"),
        ("z", "explicit", r"this mesh has x \(Explicit\), y \(Explicit\)"),
        ("z", "auto", r"this mesh has x \(Auto\), y \(Auto\)"),
        (lambda: NamedSharding(make_mesh("auto"), P()), None, "must name an axis"),
        (lambda: NamedSharding(make_mesh("auto"), P(None, "x")), "auto", "must name an axis"),
        (lambda: NamedSharding(make_mesh("explicit"), P("x")), None, "arrays do not lie on it"),
    ],
    ids=range(6),
)
def test_axes_that_do_not_exist_are_named(distribute, mesh, reason):
    distribute = distribute() if callable(distribute) else distribute
    params = {"w": jnp.ones((8, 16))}
    params = params if mesh is None else jax.device_put(params, NamedSharding(make_mesh(mesh), P()))
    for optimizer in (stochopt.muon(distribute=distribute), stochopt.adago(distribute=distribute)):
        with pytest.raises(ValueError, match=rf"distribute=.*{reason}"):
            optimizer.update(params, optimizer.init(params), params)


# Programs for many devices that the user writes.

SMALL = {"w": ((8, 16), P()), "v": ((16, 8), P()), "b": ((4,), P())}


def training_step(optimizer, axis):
    """The mean of the devices' gradients, as data-parallel programs have it."""

    def step(params, state, target):
        grads = jax.tree.map(lambda p, t: jnp.tanh(p - t[0]), params, target)
        grads = grads if axis is None else jax.lax.pmean(grads, axis)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


@functools.cache
def data_parallel_problem(method):
    params = random_tree(0, None, SMALL)
    targets = [random_tree(10 + i, None, SMALL) for i in range(8)]
    targets = jax.tree.map(lambda *xs: jnp.stack(xs), *targets)
    optimizer = getattr(stochopt, method)()
    state = optimizer.init(params)
    mean = lambda p, t: jnp.mean(jnp.tanh(p - t), axis=0)
    grads = jax.tree.map(mean, params, targets)
    updates, _ = jax.jit(optimizer.update)(grads, state, params)
    return params, state, targets, optax.apply_updates(params, updates)


def in_shard_map(step, mesh, params, state, targets):
    specs = {"in_specs": (P(), P(), P(("x", "y"))), "out_specs": P()}
    targets = jax.device_put(targets, NamedSharding(mesh, P(("x", "y"))))
    return jax.jit(jax.shard_map(step, mesh=mesh, **specs))(params, state, targets)


@each_kind
@pytest.mark.parametrize("method", ["muon", "adago"])
def test_inside_shard_map(kind, method):
    params, state, targets, wanted = data_parallel_problem(method)
    step = training_step(getattr(stochopt, method)(), ("x", "y"))
    found, _ = in_shard_map(step, make_mesh(kind), params, state, targets)
    assert_close(found, wanted)


@pytest.mark.parametrize("method", ["muon", "adago"])
def test_inside_pmap(method):
    params, state, targets, wanted = data_parallel_problem(method)
    step = training_step(getattr(stochopt, method)(), "i")
    targets = jax.tree.map(lambda t: t[:, None], targets)  # one target for each device
    found, _ = jax.pmap(step, axis_name="i", in_axes=(None, None, 0))(params, state, targets)
    for device in (0, 7):
        assert_close(jax.tree.map(lambda x, i=device: x[i], found), wanted)


@each_kind
@pytest.mark.parametrize("share", SHARES)
def test_no_distribution_inside_shard_map(kind, share):
    mesh = make_mesh(kind)
    params, state, targets, _ = data_parallel_problem("muon")
    step = training_step(stochopt.muon(distribute=SHARES[share](mesh)), ("x", "y"))
    with pytest.raises(ValueError, match=r"distribute=.*x \(Manual\), y \(Manual\)"):
        in_shard_map(step, mesh, params, state, targets)


@pytest.mark.parametrize("share", ["i", NamedSharding(make_mesh("auto"), P("x"))], ids=["i", "x"])
def test_no_distribution_inside_pmap(share):
    params, state, targets, _ = data_parallel_problem("muon")
    targets = jax.tree.map(lambda t: t[:, None], targets)
    step = training_step(stochopt.muon(distribute=share), "i")
    with pytest.raises(ValueError, match=r"distribute=.*i \(Manual\)"):
        jax.pmap(step, axis_name="i", in_axes=(None, None, 0))(params, state, targets)


def test_distribution_over_the_axes_that_shard_map_leaves():
    mesh = make_mesh("auto")
    arrays, wanted = five_and_one()
    for distribute in ("y", NamedSharding(mesh, P("y"))):
        function = functools.partial(polar_factors, distribute)
        mapped = jax.shard_map(function, mesh=mesh, in_specs=P(), out_specs=P(), axis_names={"x"})
        assert_close(jax.jit(mapped)(placed(arrays, mesh, P())), wanted)
