"""Which leaves are matrices, and along which axes."""

import jax
import jax.numpy as jnp
import optax
import pytest
from optax.contrib import MuonDimensionNumbers as Numbers

import stochopt
from stochopt.orthogonal import matrices, scale_by_adago

MATRIX = Numbers()


def test_default_rule_takes_leaves_with_two_axes():
    tree = {"w": jnp.ones((2, 3)), "b": jnp.ones(3), "s": jnp.ones(()), "k": jnp.ones((2, 2, 2))}
    resolved = matrices.resolve(matrices.two_dimensional, tree)
    assert resolved == {"w": MATRIX, "b": False, "s": False, "k": False}


def test_none_means_that_every_leaf_is_a_matrix():
    tree = {"w": jnp.ones((2, 3)), "v": [jnp.ones((4, 4)), None, optax.MaskedNode()]}
    assert matrices.axes_of("method", None, tree) == [((), (0,), (1,))] * 2
    with pytest.raises(ValueError, match=r"method: leaf v/1 of shape \(3,\) is not a matrix"):
        matrices.axes_of("method", None, {"v": [jnp.ones((2, 2)), jnp.ones(3)]})


def test_axes_come_in_the_order_of_leaves():
    tree = {"b": jnp.ones((2, 3)), "a": jnp.ones((4, 2, 3))}
    axes = matrices.axes_of("method", {"a": Numbers(1, 2), "b": Numbers(1, 0)}, tree)
    assert axes == [((0,), (1,), (2,)), ((), (1,), (0,))]


def test_nodes_without_leaves_stay():
    tree = {"w": jnp.ones((2, 3)), "none": None, "masked": optax.MaskedNode()}
    resolved = matrices.resolve(matrices.two_dimensional, tree)
    assert resolved == {"w": MATRIX, "none": None, "masked": optax.MaskedNode()}


def test_entries_hold_for_whole_subtrees():
    tree = {"body": [jnp.ones((2, 2)), (jnp.ones((3, 2)),)], "head": {"w": jnp.ones((2, 2))}}
    resolved = matrices.resolve({"body": MATRIX, "head": None}, tree)
    assert resolved == {"body": [MATRIX, (MATRIX,)], "head": {"w": False}}
    assert matrices.resolve(MATRIX, tree) == {"body": [MATRIX, (MATRIX,)], "head": {"w": MATRIX}}


def test_given_entries_meet_masked_leaves():
    tree = {"w": jnp.ones((2, 2)), "b": optax.MaskedNode()}
    resolved = matrices.resolve({"w": MATRIX, "b": None}, tree)
    assert resolved == {"w": MATRIX, "b": optax.MaskedNode()}
    assert matrices.axes_of("method", {"w": MATRIX, "b": None}, tree) == [((), (0,), (1,))]


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
    with pytest.raises(ValueError, match="leaf layer/w of shape"):
        matrices.matrix_axes(jnp.ones(shape), numbers, "layer/w")
    with pytest.raises(ValueError, match="leaf layer/w of shape"):
        matrices.axes_of("method", numbers, {"layer": {"w": jnp.ones(shape)}})


def test_a_bare_array_is_called_root():
    with pytest.raises(ValueError, match="<root>"):
        matrices.matrix_axes(jnp.ones((2, 3)), Numbers(0, 2))


def test_fans_are_inputs_and_outputs():
    x = jnp.ones((3, 5, 4, 8, 2))
    assert matrices.fans(x, matrices.matrix_axes(x, Numbers((0, 1, 2), 3))) == (60, 8)
    assert matrices.fans(x, matrices.matrix_axes(x, Numbers(-2, (0, 2)))) == (8, 12)


# The rule for whole networks.


def taken(tree, **options):
    numbers = matrices.hidden_matrices(**options)(tree)
    named = jax.tree_util.tree_leaves_with_path(numbers, is_leaf=matrices._is_entry)
    return {matrices.path_name(path): entry for path, entry in named}


ENDS = [
    "embed",
    "tok_embed",
    "Embedding_0",
    "embeddings",
    "head",
    "lm_head",
    "lmhead",
    "mlp_head",
    "Head",
    "logits",
    "wte",
    "wpe",
    "vocab",
    "vocabulary",
    "classifier",
]
INSIDE = ["w", "ahead", "heads", "header", "lookahead", "headroom", "vocabs", "wtex", "dense"]


@pytest.mark.parametrize("name", ENDS)
def test_embeddings_and_heads_are_left_out(name):
    leaf = jnp.ones((4, 3))
    assert taken({name: leaf})[name] is None
    assert taken({"model": {name: {"kernel": leaf}}})[f"model/{name}/kernel"] is None
    assert taken([{name: [leaf]}])[f"0/{name}/0"] is None


@pytest.mark.parametrize("name", INSIDE)
def test_other_names_are_not_mistaken_for_ends(name):
    leaf = jnp.ones((4, 3))
    assert taken({name: leaf})[name] == Numbers(0, 1)
    assert taken({"model": {name: {"kernel": leaf}}})[f"model/{name}/kernel"] == Numbers(0, 1)


def test_shapes_that_are_taken():
    tree = {
        "w": jnp.ones((4, 3)),
        "bias": jnp.ones(3),
        "scale": jnp.ones(()),
        "stack": jnp.ones((2, 4, 3)),
        "conv": {"kernel": jnp.ones((3, 5, 2, 8))},
        "Conv_1": {"kernel": jnp.ones((1, 1, 4, 2)), "bias": jnp.ones(2)},
        "depthwise_conv": {"kernel": jnp.ones((3, 3, 1, 8))},
        "attention": {"kernel": jnp.ones((2, 3, 4, 5))},
        "none": None,
    }
    kernel = Numbers((0, 1, 2), 3)
    found = {name: entry for name, entry in taken(tree).items() if entry is not None}
    assert found == {"w": Numbers(0, 1), "conv/kernel": kernel, "Conv_1/kernel": kernel}


def test_stacked_layers_have_a_batch_axis():
    tree = {
        "blocks": {
            "w": jnp.ones((6, 4, 3)),
            "b": jnp.ones((6, 3)),
            "conv": jnp.ones((6, 3, 3, 2, 8)),
            "depthwise_conv": jnp.ones((6, 3, 3, 1, 8)),
            "head": jnp.ones((6, 4, 3)),
        },
        "w": jnp.ones((4, 3)),
    }
    found = taken(tree, stacked="^blocks/")
    assert found == {
        "blocks/w": Numbers(1, 2),
        "blocks/b": None,  # two axes, one of which is the batch
        "blocks/conv": Numbers((1, 2, 3), 4),
        "blocks/depthwise_conv": None,
        "blocks/head": None,
        "w": Numbers(0, 1),
    }
    # Without it a stack of biases passes for a matrix: this is what ``stacked`` is for.
    assert taken(tree)["blocks/b"] == Numbers(0, 1)
    assert taken(tree)["blocks/w"] is None


def test_exclude_overrides_the_names():
    tree = {"head": jnp.ones((4, 3)), "router": jnp.ones((4, 3)), "conv": jnp.ones((3, 3, 2, 4))}
    found = taken(tree, exclude="router|conv")
    assert found == {"head": Numbers(0, 1), "router": None, "conv": None}


@pytest.mark.parametrize("numbers", [None, {"head": Numbers(), "w": Numbers()}])
def test_a_head_given_as_a_matrix_warns(numbers):
    params = {"head": jnp.ones((4, 3)), "w": jnp.ones((4, 3))}
    optimizer = scale_by_adago(weight_dimension_numbers=numbers)
    state = optimizer.init(params)  # once, where it is orthogonalized: warnings are errors here
    message = "scale_by_adago: leaf head is an embedding or an output"
    with pytest.warns(UserWarning, match=message) as caught:
        optimizer.update(params, state)
    assert len(caught) == 1


def test_a_rule_that_takes_the_head_warns_in_whole_methods():
    params = {"lm_head": jnp.ones((4, 3)), "w": jnp.ones((4, 3))}
    for method in (stochopt.adago, stochopt.muon):
        optimizer = method(weight_dimension_numbers=Numbers())
        with pytest.warns(UserWarning, match="leaf lm_head is") as caught:
            optimizer.update(params, optimizer.init(params), params)
        assert len(caught) == 1


def test_whole_methods_do_not_warn():  # warnings are errors here
    params = {"head": jnp.ones((4, 3)), "embed": {"w": jnp.ones((5, 4))}, "w": jnp.ones((4, 3))}
    for optimizer in (stochopt.adago(), stochopt.muon(), stochopt.trust_region(0.1)):
        optimizer.update(params, optimizer.init(params), params)
