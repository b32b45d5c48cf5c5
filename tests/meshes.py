"""Eight devices in a mesh: the same numbers as on one, types and layouts that stay."""

import functools

import jax
import numpy as np
import pytest

AxisType = jax.sharding.AxisType
KINDS = {"explicit": AxisType.Explicit, "auto": AxisType.Auto}
each_kind = pytest.mark.parametrize("kind", KINDS)


@functools.cache
def make_mesh(kind):
    return jax.make_mesh((4, 2), ("x", "y"), axis_types=(KINDS[kind],) * 2)


def types(tree):
    """As strings: the type of a scalar also says the mesh, which a jitted step may add."""
    return jax.tree.map(lambda x: f"{jax.typeof(x)} {x.weak_type}", tree)


def steps(estimate, x, draws, tables=lambda state: (), wrap=jax.jit):
    """Point and state after an update for each draw; neither types nor layouts may change."""
    state = estimate.init(x)
    update = wrap(lambda state, x, draw: estimate.update(None, state, x, **draw))
    for draw in draws:
        updates, new_state = update(state, x, draw)
        assert types(updates) == types(x)
        assert types(new_state) == types(state)
        for old, new in zip(tables(state), tables(new_state), strict=True):
            assert new.sharding.is_equivalent_to(old.sharding, new.ndim)
        x, state = x - 0.05 * updates, new_state
    return x, state


def assert_close(found, wanted, rtol=2e-5, atol=2e-5):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)
