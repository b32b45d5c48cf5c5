"""Problems for the acceptance suite: every oracle of the vocabulary over any parameter tree."""

import jax
import jax.numpy as jnp
import pytest

from stochopt import _tree, catalog
from stochopt.experiments import gradient_and_extras
from stochopt.problems import Problem

#: Decorator: one test for each of our methods.
for_each_method = pytest.mark.parametrize("method", catalog.METHODS, ids=lambda m: m.name)


def tree_problem(make_params, objective=None):
    """A problem over ``make_params()`` that offers every oracle any method may ask for.

    ``objective(params) -> scalar`` is deterministic; a batch scales it by a number near one. The
    inner value is the objective itself and the outer function the identity, so that all methods
    minimize the same thing.
    """
    if objective is None:

        def objective(params):
            leaves = jax.tree.leaves(params)
            return sum(jnp.sum(jnp.abs(at_least_float32(x) - 1.0) ** 2) for x in leaves)

    loss = lambda params, batch: batch * objective(params)
    return Problem(
        name="tree",
        summary="every oracle over a given tree",
        init=lambda key: make_params(),
        sample=lambda key: 1.0 + 0.1 * jax.random.normal(key),
        metrics=lambda params: {"objective": objective(params)},
        objective="objective",
        loss=loss,
        inner=loss,
        outer=lambda value, params, batch: value,
    )


def at_least_float32(x):
    return x.astype(_tree.at_least_float32(x.dtype))


def make_step(problem, method, optimizer):
    """``step(params, state, batch) -> (updates, state)`` as an experiment would call it."""

    def step(params, state, batch):
        grad, extras = gradient_and_extras(problem, method, params, batch)
        return optimizer.update(grad, state, params, **extras)

    return step


def types(tree):
    """Shape, dtype, weak type and sharding of every leaf."""
    return jax.tree.map(jax.typeof, tree)
