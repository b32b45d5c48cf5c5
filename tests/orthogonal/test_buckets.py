"""All matrices of a shape in one call, and every result back in its place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from optax.contrib import MuonDimensionNumbers as Numbers

from stochopt.orthogonal import newton_schulz, svd_polar
from stochopt.orthogonal.buckets import map_matrices
from stochopt.orthogonal.matrices import matrix_axes


def integers(seed, shape, dtype=np.float32):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(dtype)


def cube(y):
    """Maps transposed matrices to transposed ones; exact on small integers."""
    return y @ jnp.swapaxes(y, -1, -2) @ y


class Recorder:
    """A function that remembers the shapes and dtypes of its calls."""

    def __init__(self, function=cube):
        self.function = function
        self.calls = []

    def __call__(self, y):
        self.calls.append((y.shape, y.dtype))
        return self.function(y)


def apply(function, *pairs):
    arrays = [jnp.asarray(x) for x, _ in pairs]
    return map_matrices(function, arrays, [matrix_axes(x, numbers) for x, numbers in pairs])


def loop(x, numbers, function=cube):
    """One matrix after the other, rows from the reduction axes, never transposed."""
    batch, reduction, output = matrix_axes(x, numbers)
    result = np.empty_like(x)
    for index in np.ndindex(*(x.shape[a] for a in batch)):
        where = [slice(None)] * x.ndim
        for axis, i in zip(batch, index, strict=True):
            where[axis] = i
        kept = [a for a in range(x.ndim) if a not in batch]
        order = [kept.index(a) for a in (*reduction, *output)]
        y = x[tuple(where)].transpose(order)
        rows = int(np.prod([x.shape[a] for a in reduction]))
        z = np.asarray(function(y.reshape(rows, -1))).reshape(y.shape)
        result[tuple(where)] = z.transpose(np.argsort(order))
    return result


def test_function_sees_the_shorter_side_first():
    x = integers(0, (2, 3, 4, 5))
    recorder = Recorder()
    apply(recorder, (x, Numbers((0, 2), 3)))  # batch axis 1; 8 inputs, 5 outputs
    assert recorder.calls == [((3, 5, 8), jnp.float32)]
    seen = []
    apply(lambda y: (seen.append(np.asarray(y)), y)[1], (x, Numbers((0, 2), 3)))
    rows = x.transpose(1, 0, 2, 3).reshape(3, 8, 5)
    np.testing.assert_array_equal(seen[0], rows.transpose(0, 2, 1))


ROLES = [
    ((2, 3), (0,), (1,)),
    ((2, 3), (1,), (0,)),
    ((3, 3), (1,), (0,)),
    ((2, 3, 4), (1,), (2,)),
    ((2, 3, 4), (2,), (0,)),
    ((2, 3, 4), (2, 0), (1,)),
    ((2, 3, 2, 4), (2,), (0,)),
    ((2, 3, 2, 4), (3,), (2,)),
    ((2, 3, 2, 4), (0, 1, 2), (3,)),
    ((3, 5, 2, 4), (0, 1, 2), (3,)),  # a kernel that is not square
    ((3, 5, 2, 64), (0, 1, 2), (3,)),  # and more outputs than inputs
    ((2, 3, 5, 2, 4), (1, 2, 3), (4,)),
    ((3, 2, 4), (1,), (0, 2)),
    ((1, 3), (0,), (1,)),
    ((0, 2, 3), (1,), (2,)),
]


@pytest.mark.parametrize("role", ROLES, ids=str)
def test_mapping_equals_a_loop_over_matrices(role):
    shape, reduction, output = role
    x, numbers = integers(1, shape), Numbers(reduction, output)
    (found,) = apply(cube, (x, numbers))
    np.testing.assert_array_equal(found, loop(x, numbers))


SAME_SHAPE = [
    (integers(2, (2, 3)), Numbers(0, 1)),
    (integers(3, (3, 2)), Numbers(0, 1)),  # a transposed one
    (integers(4, (2, 3)), Numbers(1, 0)),  # by its numbers
    (integers(5, (4, 2, 3)), Numbers(1, 2)),  # a stack
    (integers(6, (3, 2, 2, 2)), Numbers(0, 1)),  # two batch axes
    (integers(7, (3, 1, 2)), Numbers((0, 1), 2)),  # a kernel
]


def test_equal_shapes_up_to_transposition_are_one_call():
    recorder = Recorder()
    found = apply(recorder, *SAME_SHAPE)
    assert recorder.calls == [((1 + 1 + 1 + 4 + 4 + 1, 2, 3), jnp.float32)]
    for y, (x, numbers) in zip(found, SAME_SHAPE, strict=True):
        np.testing.assert_array_equal(y, loop(x, numbers))


def test_other_shapes_and_dtypes_are_calls_of_their_own():
    others = [
        (integers(8, (2, 4)), Numbers()),
        (integers(9, (3, 3)), Numbers()),
        (jnp.asarray(integers(10, (2, 3)), jnp.bfloat16), Numbers()),
        (integers(11, (3, 2), np.complex64), Numbers()),
        (integers(12, (4, 2)), Numbers()),
    ]
    recorder = Recorder()
    pairs = [pair for pairs in zip(SAME_SHAPE, others, strict=False) for pair in pairs]
    found = apply(recorder, *pairs)
    bucket = sum(np.size(x) for x, _ in SAME_SHAPE[: len(others)]) // 6
    assert sorted(map(str, recorder.calls)) == sorted(
        str((shape, jnp.dtype(dtype)))
        for shape, dtype in [
            ((bucket, 2, 3), jnp.float32),
            ((2, 2, 4), jnp.float32),
            ((1, 3, 3), jnp.float32),
            ((1, 2, 3), jnp.bfloat16),
            ((1, 2, 3), jnp.complex64),
        ]
    )
    for y, (x, numbers) in zip(found, pairs, strict=True):
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(np.asarray(y), loop(np.asarray(x), numbers))


@pytest.mark.parametrize("orth", [newton_schulz, svd_polar])
def test_polar_factors_of_a_tree_equal_a_loop(x64, orth):
    pairs = [
        (np.random.default_rng(i).standard_normal(x.shape), n)
        for i, (x, n) in enumerate(SAME_SHAPE)
    ]
    for y, (x, numbers) in zip(apply(orth, *pairs), pairs, strict=True):
        expected = loop(x, numbers, lambda m: orth(jnp.asarray(m)))
        np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-11)


def test_large_matrices_find_their_places(x64):
    # From 128 rows on a CPU need not gather them.
    shapes = [(128, 130), (130, 128), (2, 128, 130)]
    numbers = [Numbers(), Numbers(), Numbers(1, 2)]
    arrays = [np.random.default_rng(i).standard_normal(s) for i, s in enumerate(shapes)]
    half = lambda y: newton_schulz(y, ((1.5, -0.5, 0.0),))
    pairs = list(zip(arrays, numbers, strict=True))
    for found in (apply(half, *pairs), jax.jit(lambda: apply(half, *pairs))()):
        for y, (x, n) in zip(found, pairs, strict=True):
            expected = loop(x, n, lambda m: half(jnp.asarray(m)))
            np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)


def test_many_small_matrices_find_their_places():
    # More than share a call on a CPU, single ones and stacks.
    numbers = [Numbers() if i % 3 else Numbers(1, 2) for i in range(15)]
    shapes = [((2, 3), (3, 2))[i % 2] if i % 3 else (2, 2, 3) for i in range(15)]
    pairs = [(integers(20 + i, s), n) for i, (s, n) in enumerate(zip(shapes, numbers, strict=True))]
    recorder = Recorder()
    for found in (apply(recorder, *pairs), jax.jit(lambda: apply(cube, *pairs))()):
        for y, (x, n) in zip(found, pairs, strict=True):
            np.testing.assert_array_equal(y, loop(x, n))
    lengths = [shape[0] for shape, _ in recorder.calls]
    assert lengths == ([8, 8, 4] if jax.default_backend() == "cpu" else [20])


def test_nothing_to_map():
    assert map_matrices(cube, [], []) == []


def test_mapping_under_transformations():
    x, numbers = integers(13, (2, 3, 4)), Numbers()
    axes = [matrix_axes(x[0], numbers)]
    one = lambda y: map_matrices(cube, [y], axes)[0]
    expected = np.stack([loop(m, numbers) for m in x])
    np.testing.assert_array_equal(jax.vmap(one)(jnp.asarray(x)), expected)
    np.testing.assert_array_equal(jax.jit(one)(jnp.asarray(x[1])), expected[1])


def test_lengths_must_agree():
    x = jnp.ones((2, 3))
    with pytest.raises(ValueError, match="zip"):
        map_matrices(cube, [x, x], [matrix_axes(x, Numbers())])
