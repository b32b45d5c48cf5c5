"""Random parameter trees: nesting, shapes and dtypes that nobody thought of.

Types are checked on the traced program alone, so that many trees cost little; numbers on a few.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from helpers import for_each_method, make_step, tree_problem
from hypothesis import assume, given, settings
from hypothesis import strategies as st

SHAPES = st.sampled_from([(), (1,), (3,), (2, 3), (3, 2), (1, 1), (2, 2, 2), (0,), (2, 0)])
NARROW = [jnp.float32, jnp.bfloat16, jnp.float16]


def trees(dtypes, shapes=SHAPES):
    leaves = st.builds(jax.ShapeDtypeStruct, shapes, st.sampled_from(dtypes)) | st.none()
    return st.recursive(
        leaves,
        lambda child: (
            st.lists(child, max_size=3)
            | st.tuples(child, child)
            | st.dictionaries(st.sampled_from("abc"), child, max_size=3)
        ),
        max_leaves=6,
    )


def fill(tree):
    """Numbers away from the optimum of the problem, different in every leaf."""
    leaves, treedef = jax.tree.flatten(tree)
    filled = [
        jnp.asarray(3 + index + np.arange(leaf.size).reshape(leaf.shape) % 3, leaf.dtype)
        for index, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, filled)


def described(tree):
    return jax.tree.map(lambda x: (x.shape, jnp.dtype(x.dtype), x.weak_type), tree)


@for_each_method
@settings(max_examples=60)
@given(tree=trees([*NARROW, jnp.complex64]))
def test_types_survive_an_update(method, tree):
    assume(jax.tree.leaves(tree))
    problem = tree_problem(lambda: fill(tree))
    optimizer = method.make(problem)
    params = jax.eval_shape(lambda: fill(tree))
    state = jax.eval_shape(optimizer.init, params)
    batch = jax.ShapeDtypeStruct((), jnp.float32)
    step = make_step(problem, method, optimizer)
    updates, new_state = jax.eval_shape(step, params, state, batch)
    assert described(updates) == described(params)
    assert described(new_state) == described(state)


@for_each_method
@settings(max_examples=5)
@given(tree=trees([jnp.float32], st.sampled_from([(), (3,), (2, 3)])))
def test_nesting_does_not_change_the_numbers(method, tree):
    """Catches a method that looks at names, positions or depth instead of leaves."""
    assume(jax.tree.leaves(tree))

    def after_two_steps(params):
        problem = tree_problem(lambda: params)
        optimizer = method.make(problem)
        step = jax.jit(make_step(problem, method, optimizer))
        state = optimizer.init(params)
        for _ in range(2):
            updates, state = step(params, state, jnp.ones(()))
            params = optax.apply_updates(params, updates)
        return jax.tree.leaves(params)

    params = fill(tree)
    flat = after_two_steps(jax.tree.leaves(params))
    for nested, plain in zip(after_two_steps(params), flat, strict=True):
        np.testing.assert_allclose(nested, plain, rtol=1e-5)
        assert np.isfinite(plain).all()
