"""Every method in every combinator and client; the page of the documentation is the outcome."""

import combinators
import jax
import optax
import pytest
from combinators import COMBINATORS, PAGE, Cell, Deviates, Setting, cell, classify
from helpers import calls_oracles, for_each_method

from stochopt import catalog


@for_each_method
@pytest.mark.parametrize("label", COMBINATORS)
def test_it_works_or_says_why_not(method, label):
    outcome = cell(method, label)
    assert outcome.verdict in {"works", "needs", "works partly", "refused"}, outcome.detail


@for_each_method
def test_a_plain_loop_and_a_chain_always_work(method):
    for label in ("plain `jit` loop", "`optax.chain`", "`optax.inject_hyperparams`"):
        assert cell(method, label).verdict in {"works", "needs"}


@for_each_method
def test_methods_that_need_nothing_work_everywhere(method):
    # What only turns a gradient into an update has no reason to refuse.
    if not calls_oracles(method):
        assert {cell(method, label) for label in COMBINATORS} == {Cell("works")}


@for_each_method
def test_estimators_say_where_they_belong(method):
    if method.gradient_of is None:
        for label in ("`optax.masked`", "`optax.partition`"):
            assert cell(method, label).verdict == "refused"
            assert "stands first" in cell(method, label).detail
        assert cell(method, "`optax.MultiSteps`").verdict in {"works partly", "refused"}


def test_the_page_is_up_to_date():
    expected = combinators.page(combinators.combinator_table()) + "\n"
    assert PAGE.read_text() == expected, "see the head of tests/acceptance/combinators.py"


# The classification itself.


class FakeSetting:
    required = ()


def raising(error):
    def combinator(setting):
        raise error

    return combinator


def test_an_error_from_elsewhere_is_a_failure_and_not_a_refusal():
    assert classify(FakeSetting(), raising(ValueError("odd"))) == Cell("fails", "ValueError: odd")


def test_a_deviation_is_not_a_success():
    outcome = classify(FakeSetting(), raising(Deviates("half of it")))
    assert outcome == Cell("works partly", "half of it")


def toy(update, name):
    init = lambda params: optax.EmptyState()
    build = lambda: optax.GradientTransformationExtraArgs(init, update)
    return Setting(catalog.Method(name, build, "none", "a toy", "none"))


def test_gradient_descent_works_everywhere():
    update = lambda g, s, p=None, **extra: (jax.tree.map(lambda x: -0.1 * x, g), s)
    setting = toy(update, "descent")
    for combinator in COMBINATORS.values():
        assert classify(setting, combinator) == Cell("works")


def test_a_method_that_ignores_the_gradient_is_found_out():
    # A constant step, whatever the gradient is.
    update = lambda g, s, p=None, **extra: (jax.tree.map(lambda x: -0.1 + 0 * x, p), s)
    setting = toy(update, "constant")
    outcome = classify(setting, COMBINATORS["plain `jit` loop"])
    assert outcome == Cell("works partly", "the objective does not fall")
