"""AdaGO against published numbers, a NumPy reference, and its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optax.contrib import MuonDimensionNumbers as Numbers
from references import adago as reference

from stochopt import adago
from stochopt.orthogonal import newton_schulz, scale_by_adago, svd_polar

with_x64 = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**16)


def run(optimizer, params, gradients):
    """Parameters and optimizer states after each of the ``gradients``."""
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    history = []
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        history.append((params, state))
    return history


def random_gradients(seed, shape, steps, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal((steps, *shape))


# Published numbers: problem M of the specification, W0 with gradient D * W.
W0 = np.array([[1, -2], [0.5, 0.25], [-1.5, 3]])
D = np.array([[1.0, 2], [3, 4], [5, 6]])
POLAR = (svd_polar, reference.polar)
ITERATION = (newton_schulz, reference.newton_schulz)
# fmt: off
GOLDEN = [  # orthogonalizer, gamma, floor, step, a_t, W row by row
    (POLAR, 10.0, 5e-4, 1, 0.04999999975,
     (1.010599101, -1.984622248, 0.4565205146, 0.2313110278, -1.477702167, 2.956247891)),
    (POLAR, 10.0, 5e-4, 2, 0.03535533897,
     (1.018319905, -1.973622054, 0.4258555974, 0.218140388, -1.461889133, 2.925336243)),
    (POLAR, 10.0, 5e-4, 3, 0.02886751341,
     (1.024784617, -1.964551853, 0.4008758454, 0.2074184464, -1.448944913, 2.900115126)),
    (POLAR, 100.0, 5e-4, 2, 0.03509040853,
     (1.01826205, -1.973704482, 0.4260853806, 0.2182390803, -1.462007626, 2.925567875)),
    (POLAR, 100.0, 5e-4, 3, 0.02851907104,
     (1.024648008, -1.964744158, 0.4014068801, 0.2076464129, -1.449219796, 2.900651106)),
    (ITERATION, 10.0, 5e-4, 1, 0.04999999975,
     (1.007153923, -1.989329507, 0.4703540002, 0.2372381558, -1.484436905, 2.969287161)),
    (ITERATION, 10.0, 5e-4, 2, 0.03535533897,
     (1.01239963, -1.981692935, 0.4491798765, 0.2281338024, -1.473391781, 2.947598441)),
    (ITERATION, 10.0, 5e-4, 3, 0.02886751341,
     (1.016905546, -1.975356746, 0.4314803243, 0.2205365685, -1.464321063, 2.929919056)),
    (ITERATION, 100.0, 5e-4, 3, 0.02862417871,
     (1.01683927, -1.975450494, 0.4317420156, 0.2206489286, -1.464455528, 2.930181479)),
    (POLAR, 100.0, 0.04, 3, 0.04,
     (1.028309796, -1.959599145, 0.3872206801, 0.2015569426, -1.441872062, 2.886329952)),
]
# fmt: on
GOLDEN_RTOL = 1e-9


def golden_run_of_the_library(orthogonalize, gamma, floor, steps):
    optimizer = optax.chain(
        scale_by_adago(
            0.05,
            max_gradient_norm=gamma,
            min_step_size=floor,
            initial_accumulator=1e-3,
            orthogonalize=orthogonalize,
        ),
        optax.scale(-1.0),
    )
    params = jnp.asarray(W0)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for _ in range(steps):
        updates, state = update(D * params, state)
        params = optax.apply_updates(params, updates)
    return params, state[0]


def golden_run_of_the_reference(orthogonalize, gamma, floor, steps, **options):
    method = reference.Adago(
        W0.shape,
        max_gradient_norm=gamma,
        min_step_size=floor,
        orthogonalize=orthogonalize,
        **options,
    )
    weights = W0
    for _ in range(steps):
        weights = method.step(weights, D * weights)
    return weights, method


@pytest.mark.parametrize("row", GOLDEN)
def test_published_numbers(x64, row):
    (orthogonalize, _), gamma, floor, steps, size, weights = row
    params, state = golden_run_of_the_library(orthogonalize, gamma, floor, steps)
    np.testing.assert_allclose(state.step_size, size, rtol=GOLDEN_RTOL)
    np.testing.assert_allclose(np.ravel(params), weights, rtol=GOLDEN_RTOL)


def test_published_accumulators(x64):
    for steps, expected in enumerate([400.500001, 789.216538523, 1169.79018876], start=1):
        _, state = golden_run_of_the_library(svd_polar, 100.0, 5e-4, steps)
        np.testing.assert_allclose(state.accumulator, expected, rtol=1e-11)


@pytest.mark.parametrize("row", GOLDEN)
def test_reference_gives_the_published_numbers(row):
    (_, orthogonalize), gamma, floor, steps, size, weights = row
    found, method = golden_run_of_the_reference(orthogonalize, gamma, floor, steps)
    np.testing.assert_allclose(method.step_size, size, rtol=GOLDEN_RTOL)
    np.testing.assert_allclose(np.ravel(found), weights, rtol=GOLDEN_RTOL)


@pytest.mark.parametrize("row", [row for row in GOLDEN if row[2] < 0.04])
def test_control_dividing_by_the_accumulator_fails(row):
    (_, orthogonalize), gamma, floor, steps, size, weights = row
    found, method = golden_run_of_the_reference(orthogonalize, gamma, floor, steps, root=False)
    assert not np.allclose(method.step_size, size, rtol=GOLDEN_RTOL, atol=0)
    assert not np.allclose(np.ravel(found), weights, rtol=GOLDEN_RTOL, atol=0)


def test_control_is_a_rule_that_is_in_use():
    # pytorch_optimizer 4.1.0 divides by V and scales by sqrt(3 / 2) on this shape.
    expected = {
        1: (1.000876173, -1.998693137, 0.4963691214, 0.2484369997, -1.498093918, 2.996238461),
        3: (1.001609238, -1.997602556, 0.4933422425, 0.2471341598, -1.496504946, 2.99310435),
    }
    for steps, weights in expected.items():
        found, _ = golden_run_of_the_reference(
            reference.newton_schulz, 10.0, 5e-4, steps, root=False, factor=np.sqrt(1.5)
        )
        np.testing.assert_allclose(np.ravel(found), weights, rtol=1e-8)


# Step by step against the reference.


def decaying(count):
    return 0.1 / (1 + count)


SETTINGS = {
    "defaults": {},
    "clipped": {"max_gradient_norm": 0.5},
    "floor": {"min_step_size": 0.03},
    "no momentum": {"momentum": 0.0, "initial_accumulator": 2.0},
    "schedule": {"learning_rate": decaying, "min_step_size": 0.0},
    "decay": {"weight_decay": 0.1},
    "decay on a schedule": {"weight_decay": 0.3, "learning_rate": decaying},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_thirty_steps_equal_the_reference(x64, name):
    orthogonalizers = ITERATION if name == "defaults" else POLAR
    shapes = {"a": (3, 2), "b": {"c": (2, 4), "d": (3, 3)}}
    is_shape = lambda x: isinstance(x, tuple)
    leaves, treedef = jax.tree.flatten(shapes, is_leaf=is_shape)
    start = [random_gradients(i, s, 1)[0] for i, s in enumerate(leaves)]
    gradients = [random_gradients(10 + i, s, 30, 3.0) for i, s in enumerate(leaves)]

    methods = [
        reference.Adago(s, orthogonalize=orthogonalizers[1], **SETTINGS[name]) for s in leaves
    ]
    optimizer = adago(orthogonalize=orthogonalizers[0], **SETTINGS[name])
    found = run(
        optimizer,
        treedef.unflatten([jnp.asarray(x) for x in start]),
        [treedef.unflatten(list(step)) for step in zip(*gradients, strict=True)],
    )
    expected = start
    for t, (params, state) in enumerate(found):
        expected = [m.step(x, g[t]) for m, x, g in zip(methods, expected, gradients, strict=True)]
        for a, b in zip(jax.tree.leaves(params), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        sizes = jax.tree.leaves(optax.tree.get(state, "step_size"))
        np.testing.assert_allclose(sizes, [m.step_size for m in methods], rtol=1e-12)


def test_decay_mask_spares_a_leaf(x64):
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones((2, 2))}
    zeros = optax.tree.zeros_like(params)
    for mask in ({"a": True, "b": False}, lambda tree: {"a": True, "b": False}):
        optimizer = adago(0.1, weight_decay=0.5, weight_decay_mask=mask)
        ((moved, _),) = run(optimizer, params, [zeros])
        np.testing.assert_allclose(moved["a"], 0.95, rtol=1e-12)
        np.testing.assert_array_equal(moved["b"], 1.0)


# Stacks, kernels and other leaves.


@pytest.mark.parametrize("orthogonalize", [svd_polar, newton_schulz])
def test_stacked_matrices_equal_separate_ones(x64, orthogonalize):
    # Very different norms: a shared norm or a shared step size would show.
    gradients = random_gradients(0, (4, 3, 2), 5) * np.array([0.01, 1, 5, 50])[:, None, None]
    params = random_gradients(1, (4, 3, 2), 1)[0]
    optimizer = lambda numbers: adago(orthogonalize=orthogonalize, weight_dimension_numbers=numbers)
    stacked = run(optimizer(Numbers(1, 2)), jnp.asarray(params), list(gradients))
    for i in range(4):
        separate = run(optimizer(None), jnp.asarray(params[i]), list(gradients[:, i]))
        for (a, state_a), (b, state_b) in zip(stacked, separate, strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-10)
            size_a, size_b = (optax.tree.get(s, "step_size") for s in (state_a, state_b))
            assert size_a.shape == (4,)
            np.testing.assert_allclose(size_a[i], size_b, rtol=1e-12)


def test_stack_along_the_last_axis(x64):
    gradients = random_gradients(2, (2, 3, 4), 3)
    params = jnp.zeros((2, 3, 4))
    last = run(adago(weight_dimension_numbers=Numbers(0, 1)), params, list(gradients))
    first = run(
        adago(weight_dimension_numbers=Numbers(1, 2)),
        jnp.zeros((4, 2, 3)),
        list(gradients.transpose(0, 3, 1, 2)),
    )
    np.testing.assert_allclose(last[-1][0].transpose(2, 0, 1), first[-1][0], rtol=1e-10)


def test_convolution_kernel_equals_its_matrix(x64):
    gradients = random_gradients(3, (3, 3, 2, 4), 4)
    kernel = run(
        adago(weight_dimension_numbers={"k": Numbers((0, 1, 2), 3)}),
        {"k": jnp.zeros((3, 3, 2, 4))},
        [{"k": g} for g in gradients],
    )
    matrix = run(adago(), {"k": jnp.zeros((18, 4))}, [{"k": g.reshape(18, 4)} for g in gradients])
    np.testing.assert_allclose(kernel[-1][0]["k"].reshape(18, 4), matrix[-1][0]["k"], rtol=1e-11)
    assert optax.tree.get(kernel[-1][1], "step_size")["k"].shape == ()


ADAM = {"b1": 0.8, "b2": 0.9, "eps": 1e-6, "weight_decay": 0.02}
ADAM_ARGUMENTS = {f"adam_{name}": value for name, value in ADAM.items()}


def adam_schedule(count):
    return 0.01 / (1 + count)


@pytest.mark.parametrize("rate", [0.01, adam_schedule], ids=["number", "schedule"])
def test_other_leaves_are_moved_by_adamw(rate):
    shapes = {"bias": (3,), "scale": (), "stack": (2, 3, 3), "embedding": (5, 2)}
    params = {"w": jnp.ones((2, 2)), **{k: jnp.ones(s) for k, s in shapes.items()}}
    gradients = [
        {k: jnp.asarray(random_gradients(i, x.shape, 1)[0], jnp.float32) for k, x in params.items()}
        for i in range(4)
    ]
    numbers = {"w": Numbers(), **dict.fromkeys(shapes)}
    optimizer = adago(weight_dimension_numbers=numbers, adam_learning_rate=rate, **ADAM_ARGUMENTS)
    ours = run(optimizer, params, gradients)
    without_matrix = lambda tree: {k: tree[k] for k in shapes}
    theirs = run(
        optax.adamw(rate, **ADAM), without_matrix(params), [without_matrix(g) for g in gradients]
    )
    for (a, _), (b, _) in zip(ours, theirs, strict=True):
        for k in shapes:
            np.testing.assert_array_equal(a[k], b[k])
    # And the matrix went its own way.
    alone = run(adago(), {"w": params["w"]}, [{"w": g["w"]} for g in gradients])
    np.testing.assert_allclose(ours[-1][0]["w"], alone[-1][0]["w"], rtol=1e-6)


def test_adam_defaults():
    params = {"b": jnp.ones(3)}
    gradients = [{"b": jnp.asarray([1.0, -2.0, 1e-3])}] * 3
    ours = run(adago(), params, gradients)
    theirs = run(optax.adamw(3e-4, b1=0.9, b2=0.95, eps=1e-10, weight_decay=0.0), params, gradients)
    np.testing.assert_array_equal(ours[-1][0]["b"], theirs[-1][0]["b"])


def test_numbers_may_be_a_function_of_params(x64):
    rule = lambda tree: jax.tree_util.tree_map_with_path(
        lambda path, x: None if "embed" in jax.tree_util.keystr(path) else Numbers(), tree
    )
    params = {"embed": jnp.ones((3, 2)), "w": jnp.ones((3, 2))}
    g = jnp.asarray(random_gradients(0, (3, 2), 1)[0])
    ((moved, _),) = run(adago(weight_dimension_numbers=rule), params, [{"embed": g, "w": g}])
    np.testing.assert_allclose(moved["embed"], 1 - 3e-4 * np.sign(g), rtol=1e-9)
    expected = 1 - 0.05 * reference.newton_schulz(np.asarray(g))
    np.testing.assert_allclose(moved["w"], expected, rtol=1e-4)


# Properties.


@jax.jit
def trajectory(gradients, eta, gamma, floor, v0):
    """Updates, step sizes and accumulators; compiled once, for 6 gradients at a time."""
    optimizer = scale_by_adago(
        eta,
        max_gradient_norm=gamma,
        min_step_size=floor,
        initial_accumulator=v0,
        orthogonalize=svd_polar,
    )

    def body(state, g):
        update, state = optimizer.update(g, state)
        return state, (update, state.step_size, state.accumulator)

    return jax.lax.scan(body, optimizer.init(gradients[0]), gradients)[1]


positive = st.floats(1e-3, 1e3)


@with_x64
@given(seed=seeds, eta=positive, gamma=positive, floor=positive, v0=positive, scale=positive)
def test_step_size_bounds_and_accumulator(x64, seed, eta, gamma, floor, v0, scale):
    gradients = random_gradients(seed, (3, 2), 6, scale)
    updates, sizes, accumulators = trajectory(gradients, eta, gamma, floor, v0)
    assert np.all(sizes >= floor)
    assert np.all(sizes <= max(floor, eta))
    clipped = np.minimum(np.linalg.norm(gradients, axis=(1, 2)), gamma)
    expected = v0**2 + np.cumsum(clipped**2)
    np.testing.assert_allclose(accumulators, expected, rtol=1e-12)
    unfloored = eta * clipped / np.sqrt(expected)
    np.testing.assert_allclose(sizes, np.maximum(floor, unfloored), rtol=1e-12)
    # An orthogonal matrix times the step size.
    gram = np.einsum("tij,tik->tjk", updates, updates)
    np.testing.assert_allclose(
        gram, np.eye(2) * sizes[:, None, None] ** 2, atol=1e-9 * eta**2 + 1e-9 * floor**2
    )


@with_x64
@given(seed=seeds, gamma=st.floats(1e-6, 1e-2), v0=st.floats(1e-6, 1.0))
def test_clipped_regime_is_a_schedule(x64, seed, gamma, v0):
    gradients = random_gradients(seed, (3, 2), 6)
    gradients += np.sign(gradients)  # every norm above every gamma
    _, sizes, _ = trajectory(gradients, 0.3, gamma, 0.0, v0)
    t = np.arange(1, 7)
    np.testing.assert_allclose(sizes, 0.3 * gamma / np.sqrt(v0**2 + t * gamma**2), rtol=1e-12)
    if v0 < 1e-7 * gamma:
        np.testing.assert_allclose(sizes, 0.3 / np.sqrt(t), rtol=1e-12)


@with_x64
@given(seed=seeds, factor=st.floats(1e-3, 1e3))
def test_scaling_gradient_clip_and_accumulator_together(x64, seed, factor):
    gradients = random_gradients(seed, (3, 2), 6)
    plain, sizes, _ = trajectory(gradients, 0.3, 2.0, 0.01, 0.5)
    scaled, scaled_sizes, _ = trajectory(factor * gradients, 0.3, factor * 2.0, 0.01, factor * 0.5)
    np.testing.assert_allclose(scaled_sizes, sizes, rtol=1e-12)
    np.testing.assert_allclose(scaled, plain, rtol=1e-9, atol=1e-11)


def test_scaling_the_gradient_alone_changes_steps(x64):
    gradients = random_gradients(0, (3, 2), 6)
    _, sizes, _ = trajectory(gradients, 0.3, 2.0, 0.0, 0.5)
    _, scaled, _ = trajectory(0.1 * gradients, 0.3, 2.0, 0.0, 0.5)
    assert np.all(np.abs(scaled / sizes - 1) > 0.01)


def test_floor_makes_it_muon_with_a_constant_step(x64):
    gradients = random_gradients(1, (3, 2), 6)
    updates, sizes, _ = trajectory(gradients, 1e-3, 2.0, 0.1, 0.5)
    np.testing.assert_array_equal(sizes, 0.1)
    mu = 0.0
    for g, update in zip(gradients, updates, strict=True):
        mu = 0.95 * mu + g
        np.testing.assert_allclose(update, 0.1 * reference.polar(mu), rtol=1e-10)


def test_first_step_is_the_learning_rate(x64):
    gradients = random_gradients(2, (3, 2), 6)
    _, sizes, _ = trajectory(gradients, 0.3, 1e3, 0.0, 1e-9)
    np.testing.assert_allclose(sizes[0], 0.3, rtol=1e-15)


@with_x64
@given(seed=seeds)
def test_rotated_gradients_rotate_the_steps(x64, seed):
    gradients = random_gradients(seed, (3, 2), 6)
    left, right = (np.linalg.qr(random_gradients(seed + k, (k, k), 1)[0])[0] for k in (3, 2))
    plain, sizes, _ = trajectory(gradients, 0.3, 2.0, 0.0, 0.5)
    rotated, rotated_sizes, _ = trajectory(left @ gradients @ right, 0.3, 2.0, 0.0, 0.5)
    np.testing.assert_allclose(rotated_sizes, sizes, rtol=1e-12)
    np.testing.assert_allclose(rotated, left @ plain @ right, atol=1e-7)


# Trees and dtypes.


def test_tree_structure_and_order_do_not_matter(x64):
    g = {k: jnp.asarray(random_gradients(i, (3, 2), 1)[0]) for i, k in enumerate("abc")}
    shaped = {
        "z": (g["a"], None, {"y": g["b"]}),
        "x": [jnp.asarray(1.0), None],  # a scalar leaf goes to AdamW
        "v": (),
        "u": g["c"],
    }
    flat, nested = run(adago(), g, [g, g])[-1][0], run(adago(), shaped, [shaped, shaped])[-1][0]
    found = [nested["z"][0], nested["z"][2]["y"], nested["u"]]
    for a, k in zip(found, "abc", strict=True):
        np.testing.assert_array_equal(a, flat[k])
    assert nested["z"][1] is None
    assert nested["v"] == ()


def test_leaves_do_not_influence_each_other(x64):
    g = jnp.asarray(random_gradients(0, (3, 2), 1)[0])
    alone = run(adago(), {"a": g}, [{"a": g}])[-1][0]["a"]
    company = run(adago(), {"a": g, "b": g}, [{"a": g, "b": 1e6 * g}])[-1][0]["a"]
    # Up to rounding: two matrices are one batch.
    np.testing.assert_allclose(alone, company, rtol=1e-13)


def test_half_precision_accumulates_in_float32():
    # bfloat16 could not add 1 to 512.
    params = jnp.zeros((2, 2), jnp.bfloat16)
    optimizer = scale_by_adago(max_gradient_norm=1.0, initial_accumulator=512**0.5)
    state, g = optimizer.init(params), jnp.ones((2, 2), jnp.bfloat16)
    assert state.accumulator.dtype == jnp.float32
    for i in range(3):
        updates, state = optimizer.update(g, state)
        np.testing.assert_allclose(state.accumulator, 513 + i, rtol=1e-6)
    assert updates.dtype == jnp.bfloat16
    assert state.mu.dtype == jnp.bfloat16
    assert scale_by_adago(mu_dtype=jnp.float32).init(params).mu.dtype == jnp.float32


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1e18, 1e25, 1e38])
def test_gradients_near_the_limits_of_float32(scale):
    g = jnp.asarray(np.float32(scale) * np.array([[1, -0.5], [0.25, 2], [0.3, 1]], np.float32))
    optimizer = scale_by_adago(0.3)
    update, state = jax.jit(optimizer.update)(g, optimizer.init(g))
    assert np.all(np.isfinite(update))
    assert np.all(np.isfinite(jax.tree.leaves(state)[-1]))
    assert 5e-4 <= state.step_size <= 0.3
    assert np.linalg.norm(update) <= 1.3 * 0.3 * np.sqrt(2)


@pytest.mark.parametrize("orthogonalize", [svd_polar, newton_schulz])
def test_zero_gradient_gives_no_step(orthogonalize):
    optimizer = scale_by_adago(orthogonalize=orthogonalize)
    zeros = jnp.zeros((3, 2))
    update, state = optimizer.update(zeros, optimizer.init(zeros))
    np.testing.assert_array_equal(update, 0)
    assert np.isfinite(state.step_size)


def test_complex_gradient_has_the_norm_of_its_real_pair(x64):
    gradients = random_gradients(0, (3, 2), 4) + 1j * random_gradients(1, (3, 2), 4)
    pairs = np.concatenate([gradients.real, gradients.imag], axis=1)  # 6 x 2
    options = {"max_gradient_norm": 3.0, "orthogonalize": svd_polar}
    found = run(scale_by_adago(0.3, **options), jnp.zeros((3, 2), complex), list(gradients))
    expected = run(scale_by_adago(0.3, **options), jnp.zeros((6, 2)), list(pairs))
    for (params, a), (_, b) in zip(found, expected, strict=True):
        assert a.accumulator.dtype == jnp.float64
        np.testing.assert_allclose(a.accumulator, b.accumulator, rtol=1e-12)
        np.testing.assert_allclose(a.step_size, b.step_size, rtol=1e-12)
        assert np.all(np.isfinite(params))
    mu = 0.05 * gradients[0]
    np.testing.assert_allclose(found[0][0], found[0][1].step_size * reference.polar(mu), rtol=1e-10)


# Errors.


def test_leaf_that_is_no_matrix_is_named():
    optimizer = scale_by_adago()
    with pytest.raises(ValueError, match=r"leaf layer/bias of shape \(3,\).*stochopt.adago"):
        optimizer.init({"layer": {"bias": jnp.ones(3), "w": jnp.ones((2, 3))}})
    with pytest.raises(ValueError, match="<root>"):
        optimizer.init(jnp.ones(()))


@pytest.mark.parametrize("factory", [adago, scale_by_adago])
def test_inconsistent_dimension_numbers_name_the_leaf(factory):
    optimizer = factory(weight_dimension_numbers={"k": Numbers((0, 1), 3), "w": Numbers()})
    params = {"k": jnp.ones((2, 3, 4)), "w": jnp.ones((2, 3))}
    with pytest.raises(ValueError, match=r"leaf k of shape \(2, 3, 4\)"):
        optimizer.init(params)


@pytest.mark.parametrize(
    ("name", "value", "interval"),
    [
        ("learning_rate", -0.1, "[0, inf)"),
        ("momentum", 1.0, "[0, 1)"),
        ("momentum", -0.1, "[0, 1)"),
        ("max_gradient_norm", 0.0, "(0, inf)"),
        ("max_gradient_norm", float("inf"), "(0, inf)"),
        ("min_step_size", -1e-9, "[0, inf)"),
        ("initial_accumulator", 0.0, "(0, inf)"),
        ("initial_accumulator", float("nan"), "(0, inf)"),
    ],
)
@pytest.mark.parametrize("factory", [adago, scale_by_adago])
def test_hyper_parameters_out_of_range(factory, name, value, interval):
    with pytest.raises(ValueError, match="must lie in") as error:
        factory(**{name: value})
    assert f"{name} must lie in {interval}, got {value}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "value", "interval"),
    [
        ("weight_decay", -0.1, "[0, inf)"),
        ("adam_learning_rate", -0.1, "[0, inf)"),
        ("adam_b1", 1.0, "[0, 1)"),
        ("adam_b2", 1.0, "[0, 1)"),
        ("adam_eps", -1e-8, "[0, inf)"),
        ("adam_weight_decay", -1.0, "[0, inf)"),
    ],
)
def test_hyper_parameters_of_the_whole_method_out_of_range(name, value, interval):
    with pytest.raises(ValueError, match="must lie in") as error:
        adago(**{name: value})
    assert f"{name} must lie in {interval}, got {value}" in str(error.value)


def test_ends_of_the_ranges_pass():
    adago(0.0, momentum=0.0, min_step_size=0.0, weight_decay=0.0, adam_eps=0.0, adam_b1=0.0)


def test_traced_hyper_parameters_pass(x64):
    g = jnp.asarray(random_gradients(0, (3, 2), 1)[0])

    @jax.jit
    def step(eta, momentum, gamma, floor, v0, decay):
        optimizer = adago(
            eta,
            momentum=momentum,
            max_gradient_norm=gamma,
            min_step_size=floor,
            initial_accumulator=v0,
            weight_decay=decay,
        )
        return optimizer.update(g, optimizer.init(g), g)[0]

    expected = adago(0.2, momentum=0.5, weight_decay=0.1)
    expected = expected.update(g, expected.init(g), g)[0]
    np.testing.assert_allclose(step(0.2, 0.5, 10.0, 5e-4, 1e-3, 0.1), expected, rtol=1e-12)


def test_injected_hyper_parameters(x64):
    g = jnp.asarray(random_gradients(0, (3, 2), 1)[0])
    optimizer = optax.inject_hyperparams(adago)(learning_rate=0.2)
    state = optimizer.init(g)
    update, state = optimizer.update(g, state, g)
    optax.tree.get(state, "hyperparams")["learning_rate"] = jnp.asarray(0.1)
    plain = adago(0.2)
    np.testing.assert_allclose(update, plain.update(g, plain.init(g), g)[0], rtol=1e-12)
