"""Tilted problems: one linear term in every oracle with a gradient, and nowhere else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stochopt.problems import (
    Problem,
    bilevel_quadratic,
    contrastive_views,
    log_partition,
    matrix_regression,
    noisy_quadratic,
    noisy_squares,
    phase_retrieval,
    quadratic_composition,
    target_logistic,
    tilted,
)

key = jax.random.key

FACTORIES = {
    "matrix-regression": matrix_regression,
    "quadratic-composition": quadratic_composition,
}
each_problem = pytest.mark.parametrize("name", FACTORIES)
FRACTION = 0.3


def random_points(problem, seed=0):
    shape = problem.init(key(0)).shape
    return np.random.default_rng(seed).standard_normal((3, *shape))


@each_problem
def test_gradient_of_the_loss_changes_by_one_vector_of_the_stated_norm(x64, name):
    problem = FACTORIES[name]()
    biased = tilted(problem, FRACTION)

    @jax.jit
    def change(x, k):
        batch = problem.sample(k)
        before = jax.value_and_grad(problem.loss)(x, batch)
        return [
            b - a for a, b in zip(before, jax.value_and_grad(biased.loss)(x, batch), strict=True)
        ]

    initial = problem.exact["gradient"](problem.init(key(0)))
    norm = FRACTION * np.linalg.norm(np.ravel(initial))
    assert norm > 0.1
    entry = norm / np.sqrt(initial.size)
    for seed, x in enumerate(random_points(problem)):
        in_value, in_gradient = change(x, key(seed))
        np.testing.assert_allclose(in_gradient, np.full(x.shape, entry), rtol=1e-9)
        np.testing.assert_allclose(in_value, entry * x.sum(), rtol=1e-9)


def test_outer_function_gets_the_same_term_in_the_params_only(x64):
    problem = quadratic_composition()
    biased = tilted(problem, FRACTION)
    initial = np.asarray(problem.exact["gradient"](problem.init(key(0))))
    entry = FRACTION * np.linalg.norm(initial) / np.sqrt(initial.size)
    batch, u = problem.sample(key(0)), jnp.linspace(-1, 1, 5)
    slopes = [jax.jit(jax.grad(p.outer, argnums=(0, 1))) for p in (problem, biased)]
    for x in random_points(problem):
        change = biased.outer(u, x, batch) - problem.outer(u, x, batch)
        np.testing.assert_allclose(change, entry * x.sum(), rtol=1e-9)
        (in_u, in_x), (tilted_in_u, tilted_in_x) = (slope(u, x, batch) for slope in slopes)
        np.testing.assert_array_equal(tilted_in_u, in_u)
        np.testing.assert_allclose(tilted_in_x - in_x, np.full(6, entry), rtol=1e-9)


def test_upper_function_gets_the_same_term_and_the_lower_one_none(x64):
    problem = bilevel_quadratic()
    biased = tilted(problem, FRACTION)
    initial = np.asarray(problem.exact["gradient"](problem.init(key(0))))
    entry = FRACTION * np.linalg.norm(initial) / np.sqrt(initial.size)
    assert entry > 0.05
    batch = jax.tree.map(lambda x: x[0], problem.blocks(problem.sample(key(0)))[1])
    y = jnp.linspace(-1, 1, 3)
    slopes = [jax.jit(jax.grad(p.upper, argnums=(0, 1))) for p in (problem, biased)]
    for x in random_points(problem):
        (in_x, in_y), (tilted_in_x, tilted_in_y) = (slope(x, y, batch) for slope in slopes)
        np.testing.assert_allclose(tilted_in_x - in_x, np.full(4, entry), rtol=1e-9)
        np.testing.assert_array_equal(tilted_in_y, in_y)
    assert biased.lower is problem.lower


def test_what_is_pulled_back_through_a_model_is_off_by_the_same_term(x64):
    problem = target_logistic(num_features=4, num_examples=20, condition=10)
    biased = tilted(problem, FRACTION)
    initial = np.asarray(problem.exact["gradient"](problem.init(key(0))))
    entry = FRACTION * np.linalg.norm(initial) / np.sqrt(initial.size)
    batch, x = problem.sample(key(0)), jnp.linspace(-1, 1, 4)
    outputs, pull_back = jax.vjp(lambda x: problem.predict(x, batch), x)
    tilted_outputs, tilted_pull_back = jax.vjp(lambda x: biased.predict(x, batch), x)
    np.testing.assert_array_equal(tilted_outputs, outputs)
    (change,) = jax.tree.map(jnp.subtract, tilted_pull_back(outputs), pull_back(outputs))
    np.testing.assert_allclose(change, np.full(4, entry), rtol=1e-9)


@each_problem
def test_nothing_else_changes(name):
    problem = FACTORIES[name]()
    biased = tilted(problem, FRACTION)
    changed = {
        field.name
        for field in dataclasses.fields(Problem)
        if getattr(problem, field.name) is not getattr(biased, field.name)
    }
    assert changed == {"loss", "outer"} - set(problem.missing(("outer",)))


def test_a_model_is_tilted_at_observed_points_only(x64):
    """Catches a tilt of the density as a whole, which its normalization takes back."""
    problem = log_partition()
    biased = tilted(problem, FRACTION)
    entry = FRACTION * abs(float(problem.exact["gradient"](problem.init(key(0)))))
    batch = problem.sample(key(0))
    noise = jax.vmap(biased.sample_noise)(jax.random.split(key(1), 5))
    plain = jax.vmap(problem.sample_noise)(jax.random.split(key(1), 5))

    def slopes(problem, points):
        slope = jax.vmap(jax.grad(problem.log_density), in_axes=(None, 0))
        return np.asarray(slope(jnp.asarray(0.7), points))

    observed = slopes(biased, biased.data(batch)) - slopes(problem, problem.data(batch))
    np.testing.assert_allclose(observed, np.full(len(observed), -entry), rtol=1e-9)
    np.testing.assert_array_equal(slopes(biased, noise), slopes(problem, plain))
    np.testing.assert_array_equal(
        jax.vmap(biased.log_noise_density)(noise), jax.vmap(problem.log_noise_density)(plain)
    )


def test_an_embedding_keeps_its_features_and_biases_what_is_pulled_back(x64):
    problem = contrastive_views()
    biased = tilted(problem, FRACTION)
    entry = FRACTION * np.linalg.norm(problem.exact["gradient"](problem.init(key(0)))) / np.sqrt(3)
    assert entry > 0.01
    _, (views, _) = problem.sample(key(0))
    for seed, x in enumerate(random_points(problem)):
        (features, slope), (same, tilted_slope) = (
            (lambda features, pull: (features, pull(jnp.cos(features + seed))[0]))(
                *jax.vjp(lambda x, p=p: p.embed(x, views), jnp.asarray(x))
            )
            for p in (problem, biased)
        )
        np.testing.assert_array_equal(same, features)
        np.testing.assert_allclose(tilted_slope - slope, np.full(3, entry), rtol=1e-9)


def test_residuals_mean_the_same_tilted_loss(x64):
    """Far from the start too: the residual that carries the term must not come to its kink."""
    problem = noisy_squares(4, batch_size=3)
    biased = tilted(problem, FRACTION)
    entry = FRACTION * np.linalg.norm(problem.exact["gradient"](problem.init(key(0)))) / 2
    assert entry > 0.1
    mean = lambda problem: lambda x, batch: jnp.mean(jnp.abs(problem.residuals(x, batch)))
    slope, tilted_slope = (jax.jit(jax.grad(mean(p))) for p in (problem, biased))
    for seed, x in enumerate(20 * random_points(problem)):
        batch = problem.sample(key(seed))
        change = tilted_slope(x, batch) - slope(x, batch)
        np.testing.assert_allclose(change, np.full(4, entry), rtol=1e-9)
        assert biased.residuals(x, batch).shape == (4,)


def test_the_proximal_operator_is_that_of_the_tilted_loss(x64):
    problem = noisy_quadratic()
    biased = tilted(problem, FRACTION)
    slope = jax.jit(jax.grad(biased.loss))
    for seed, x in enumerate(random_points(problem)):
        batch = problem.sample(key(seed))
        moved = biased.loss_prox(jnp.asarray(x), 0.7, batch)
        np.testing.assert_allclose(moved, x - 0.7 * slope(moved, batch), rtol=1e-9)
        assert not np.allclose(moved, problem.loss_prox(jnp.asarray(x), 0.7, batch), rtol=1e-2)


def test_no_tilt_of_fraction_zero():
    problem = matrix_regression()
    params, batch = problem.init(key(0)), problem.sample(key(0))
    assert tilted(problem, 0.0).loss(params, batch) == problem.loss(params, batch)


def test_every_leaf_of_a_tree_is_tilted():
    # The exact gradient 4 in each of 3 + 1 entries has norm 8; half of it is 2 an entry.
    problem = Problem(
        name="tree",
        summary="constant",
        init=lambda k: {"a": jnp.ones(3), "b": jnp.ones(())},
        sample=lambda k: 0.0,
        metrics=lambda params: {},
        objective="none",
        loss=lambda params, batch: jnp.sum(params["a"]) * 0.0,
        exact={"gradient": lambda params: jax.tree.map(lambda x: jnp.full(x.shape, 4.0), params)},
    )
    slope = jax.grad(tilted(problem, 0.5).loss)(problem.init(key(0)), 0.0)
    assert slope["a"].tolist() == [2, 2, 2]
    assert slope["b"] == 2


def test_an_exact_gradient_is_needed():
    with pytest.raises(ValueError, match=r"'phase-retrieval' has no exact gradient"):
        tilted(phase_retrieval(), 0.3)
