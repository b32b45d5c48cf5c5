"""Dual maps: maximizers, values and diameters, against their definition by optimization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stochopt import proximal

RNG = np.random.default_rng(0)
VALUES = RNG.standard_normal((3, 4))

square = lambda y: jnp.sum(y**2) / 2
entropy = lambda y: np.log(12) + jnp.sum(jnp.where(y > 0, y * jnp.log(jnp.maximum(y, 1e-300)), 0))
#: Dual map, W, and a random point of Y.
DUALS = {
    "l1": (proximal.dual_of_l1(12), square, lambda rng: rng.uniform(-1, 1, (3, 4))),
    "groups": (
        proximal.dual_of_group_norms(4),
        square,
        lambda rng: (
            (lambda y: y / np.linalg.norm(y, axis=0))(rng.standard_normal((3, 4))) * rng.random(4)
        ),
    ),
    "max": (
        proximal.dual_of_max(12),
        entropy,
        lambda rng: rng.dirichlet(0.3 * np.ones(12)).reshape(3, 4),
    ),
}
each_dual = pytest.mark.parametrize("name", DUALS)


@each_dual
@pytest.mark.parametrize("eta", [0.01, 0.7, 20.0])
def test_no_point_beats_the_maximizer(x64, name, eta):
    """By strong concavity it is ahead by at least half the squared distance."""
    dual, w, draw = DUALS[name]
    best = dual(VALUES, eta)
    value = lambda y: jnp.sum(VALUES * y) - eta * w(y)
    rng = np.random.default_rng(1)
    for near in (1.0, 0.1, 1e-3):
        for _ in range(30):
            y = (1 - near) * best + near * draw(rng)
            # Of the entropy the norm is that of l1, which is the larger one.
            assert value(best) - value(y) >= eta * square(y - best) * (1 - 1e-6) - 1e-12


@each_dual
def test_sandwich_and_diameter(x64, name):
    r"""phi_eta <= phi <= phi_eta + eta D, and W attains D and nothing more."""
    dual, w, draw = DUALS[name]
    for eta in (0.01, 0.7, 20.0):
        best = dual(VALUES, eta)
        smoothed = jnp.sum(VALUES * best) - eta * w(best)
        distance = dual.value(VALUES) - smoothed
        assert -1e-12 <= distance <= eta * dual.diameter + 1e-12
    rng = np.random.default_rng(2)
    assert max(float(w(draw(rng))) for _ in range(50)) <= dual.diameter
    corner = dual(1e9 * VALUES, 1.0)
    np.testing.assert_allclose(w(corner), dual.diameter, rtol=1e-9)


@each_dual
def test_value_is_the_function(x64, name):
    expected = {
        "l1": np.abs(VALUES).sum(),
        "groups": np.linalg.norm(VALUES, axis=0).sum(),
        "max": VALUES.max(),
    }[name]
    np.testing.assert_allclose(DUALS[name][0].value(VALUES), expected)


@each_dual
def test_trees_and_dtypes(strict, name):
    dual = DUALS[name][0]
    values = jnp.asarray(VALUES, jnp.float32)
    tree = {"a": values[:, :1], "b": (values[:, 1:],)}
    eta = jnp.float32(0.7)
    found, expected = dual(tree, eta), dual(values, eta)
    joined = jnp.concatenate([found["a"], found["b"][0]], axis=1)
    np.testing.assert_allclose(joined, expected, rtol=1e-6)
    assert joined.dtype == jnp.float32
    np.testing.assert_allclose(dual.value(tree), dual.value(values), rtol=1e-6)


@each_dual
def test_nothing_is_nan_at_zero_and_far_away(name):
    dual = DUALS[name][0]
    for values in (jnp.zeros((3, 4)), 1e30 * jnp.asarray(VALUES, jnp.float32)):
        assert np.all(np.isfinite(dual(values, jnp.float32(1e-3))))


def test_isotropic_total_variation_of_an_image(x64):
    image = jnp.asarray(RNG.standard_normal((5, 6)))

    def differences(x):
        down = jnp.pad(jnp.diff(x, axis=0), ((0, 1), (0, 0)))
        right = jnp.pad(jnp.diff(x, axis=1), ((0, 0), (0, 1)))
        return jnp.stack([down, right])

    dual = proximal.dual_of_group_norms(30)
    eta = 1e-6
    slope = jax.vjp(differences, image)[1](dual(differences(image), eta))[0]
    direction = jnp.asarray(RNG.standard_normal((5, 6)))
    step = 1e-6
    ends = [dual.value(differences(image + sign * step * direction)) for sign in (1, -1)]
    np.testing.assert_allclose(
        jnp.sum(slope * direction), (ends[0] - ends[1]) / (2 * step), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("factory", "name"),
    [
        (proximal.dual_of_l1, "num_values"),
        (proximal.dual_of_group_norms, "num_groups"),
        (proximal.dual_of_max, "num_values"),
    ],
)
def test_numbers_are_checked(factory, name):
    for bad in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"^{name} must "):
            factory(bad)
    with pytest.raises(ValueError, match=f"^{name} is 7, but the values of the operator have "):
        factory(7)(VALUES, 1.0)


def test_the_largest_of_one():
    with pytest.raises(ValueError, match="at least 2"):
        proximal.dual_of_max(1)
