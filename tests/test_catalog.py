"""The catalog: names, oracles, defaults, and clear complaints."""

import inspect

import jax
import jax.numpy as jnp
import optax
import pytest
from helpers import for_each_method, tree_problem

import stochopt
from stochopt import catalog, problems


@for_each_method
def test_every_public_factory_has_a_row_and_every_row_a_public_factory(method):
    assert getattr(stochopt, method.name) is method.factory


def test_no_public_factory_is_without_a_row():
    factories = [getattr(stochopt, n) for n in stochopt.__all__]
    public = {factory for factory in factories if inspect.isfunction(factory)}
    assert public == {method.factory for method in catalog.METHODS}


@pytest.mark.parametrize("method", catalog.methods(), ids=lambda m: m.name)
def test_every_row_builds_and_takes_a_step(method):
    """Also optax's own: catches a default that its factory does not take."""
    problem = tree_problem(lambda: jnp.ones((2, 2)))
    optimizer = method.make(problem)
    assert isinstance(optimizer, optax.GradientTransformationExtraArgs)
    params = problem.init(jax.random.key(0))
    jax.eval_shape(optimizer.init, params)
    assert method.summary
    assert method.oracles


def test_oracles_follow_from_the_factory():
    assert catalog.find("scsc").oracles == ("inner", "outer")
    assert catalog.find("adago").oracles == ("loss",)


@pytest.mark.parametrize(
    ("name", "suggestion"), [("adagoo", "adago"), ("contrib.mun", "contrib.muon"), ("?", "known")]
)
def test_unknown_names_get_the_nearest(name, suggestion):
    with pytest.raises(catalog.UnknownMethodError, match=suggestion):
        catalog.find(name)


@pytest.mark.parametrize("name", ["optax.adam", "contrib.prodigy", "lamb"])
def test_optax_methods_are_found_by_their_path(name):
    assert catalog.find(name).family == "optax"


@pytest.mark.parametrize("name", ["chain", "sgd.x", "tree.norm", "_src.alias.sgd"])
def test_what_is_no_optimizer_is_not_found(name):
    with pytest.raises(catalog.UnknownMethodError):
        catalog.find(name)


def test_a_missing_oracle_is_named():
    with pytest.raises(ValueError, match=r"scsc needs the oracles inner, outer.*has no inner"):
        catalog.find("scsc").make(problems.logistic(num_features=2, num_examples=4))


def test_an_unknown_hyper_parameter_is_named():
    with pytest.raises(ValueError, match=r"adago has no hyper-parameter rate"):
        catalog.find("adago").make(tree_problem(lambda: jnp.ones(2)), rate=1.0)
