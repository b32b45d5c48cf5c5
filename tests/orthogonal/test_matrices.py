"""Which leaves are matrices, and along which axes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.contrib import MuonDimensionNumbers as Numbers

from stochopt.orthogonal import matrices

MATRIX = Numbers()


def test_default_rule_takes_leaves_with_two_axes():
    tree = {"w": jnp.ones((2, 3)), "b": jnp.ones(3), "s": jnp.ones(()), "k": jnp.ones((2, 2, 2))}
    assert matrices.resolve(None, tree) == {"w": MATRIX, "b": False, "s": False, "k": False}
    assert matrices.leaves(None, tree) == [False, False, False, MATRIX]  # b, k, s, w


def test_nodes_without_leaves_stay():
    tree = {"w": jnp.ones((2, 3)), "none": None, "masked": optax.MaskedNode()}
    resolved = matrices.resolve(None, tree)
    assert resolved == {"w": MATRIX, "none": None, "masked": optax.MaskedNode()}
    assert matrices.leaves(None, tree) == [MATRIX]


def test_entries_hold_for_whole_subtrees():
    tree = {"body": [jnp.ones((2, 2)), (jnp.ones((3, 2)),)], "head": {"w": jnp.ones((2, 2))}}
    resolved = matrices.resolve({"body": MATRIX, "head": None}, tree)
    assert resolved == {"body": [MATRIX, (MATRIX,)], "head": {"w": False}}
    assert matrices.leaves(MATRIX, tree) == [MATRIX] * 3


def test_given_entries_meet_masked_leaves():
    tree = {"w": jnp.ones((2, 2)), "b": optax.MaskedNode()}
    assert matrices.leaves({"w": MATRIX, "b": None}, tree) == [MATRIX]


def test_rule_may_be_a_function_of_params():
    rule = lambda tree: jax.tree_util.tree_map_with_path(
        lambda path, x: None if "embed" in jax.tree_util.keystr(path) else MATRIX, tree
    )
    tree = {"embed": jnp.ones((5, 2)), "w": jnp.ones((2, 2))}
    assert matrices.resolve(rule, tree) == {"embed": False, "w": MATRIX}


@pytest.mark.parametrize(
    ("shape", "numbers", "expected"),
    [
        ((2, 3), Numbers(), ((), (0,), (1,))),
        ((2, 3), Numbers(1, 0), ((), (1,), (0,))),
        ((7, 2, 3), Numbers(-2, -1), ((0,), (1,), (2,))),
        ((3, 3, 4, 8), Numbers((0, 1, 2), 3), ((), (0, 1, 2), (3,))),
        ((2, 3, 4, 5), Numbers((-1,), (1,)), ((0, 2), (3,), (1,))),
    ],
)
def test_axes_are_sorted_into_roles(shape, numbers, expected):
    axes = matrices.matrix_axes(jnp.ones(shape), numbers)
    assert tuple(axes) == expected
    assert axes.matrix == expected[1] + expected[2]


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        ((2, 3), Numbers(0, 2)),
        ((2, 3), Numbers(-3, 1)),
        ((2, 3), Numbers(0, 0)),
        ((2, 3), Numbers((0, 1), -1)),
        ((2, 3), Numbers((), 1)),
        ((2, 3), Numbers(0, ())),
        ((2, 3, 4), Numbers((0, 0), 1)),
        ((2, 3, 4), Numbers((1, -2), 0)),
    ],
)
def test_axes_that_do_not_fit_name_the_leaf(shape, numbers):
    with pytest.raises(ValueError, match=r"\['layer'\]\['w'\] of shape"):
        matrices.matrix_axes(jnp.ones(shape), numbers, "['layer']['w']")


def test_a_bare_array_is_called_root():
    with pytest.raises(ValueError, match="<root>"):
        matrices.matrix_axes(jnp.ones((2, 3)), Numbers(0, 2))


def test_function_sees_rows_from_the_reduction_axes():
    x = np.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    axes = matrices.matrix_axes(x, Numbers((0, 2), 3))  # batch axis 1
    seen = []

    def function(y):
        seen.append(np.asarray(y))
        return 2 * y

    out = matrices.map_matrices(function, jnp.asarray(x), axes)
    assert seen[0].shape == (3, 8, 5)
    np.testing.assert_array_equal(seen[0], x.transpose(1, 0, 2, 3).reshape(3, 8, 5))
    np.testing.assert_array_equal(out, 2 * x)


ROLES = [
    ((2, 3), (), (0,), (1,)),
    ((2, 3), (), (1,), (0,)),
    ((2, 3, 4), (0,), (1,), (2,)),
    ((2, 3, 4), (1,), (2,), (0,)),
    ((2, 3, 4), (), (2, 0), (1,)),
    ((2, 3, 2, 4), (1, 3), (2,), (0,)),
    ((2, 3, 2, 4), (), (0, 1, 2), (3,)),
]


@pytest.mark.parametrize("role", ROLES)
def test_mapping_equals_a_loop_over_matrices(role):
    shape, batch, reduction, output = role
    x = np.random.default_rng(0).integers(-9, 10, shape).astype(np.float32)
    axes = matrices.matrix_axes(x, Numbers(reduction, output))
    # Not symmetric in rows and columns, and exact in float32.
    function = lambda y: y * (1 + jnp.arange(y.shape[-2])[:, None]) + jnp.arange(y.shape[-1])
    found = matrices.map_matrices(function, jnp.asarray(x), axes)
    expected = np.empty_like(x)
    for index in np.ndindex(*(shape[a] for a in batch)):
        where = [slice(None)] * len(shape)
        for axis, i in zip(batch, index, strict=True):
            where[axis] = i
        block = x[tuple(where)]
        kept = [a for a in range(len(shape)) if a not in batch]
        order = [kept.index(a) for a in (*reduction, *output)]
        rows = int(np.prod([shape[a] for a in reduction]))
        y = block.transpose(order)
        z = np.asarray(function(y.reshape(rows, -1))).reshape(y.shape)
        expected[tuple(where)] = z.transpose(np.argsort(order))
    np.testing.assert_array_equal(found, expected)
