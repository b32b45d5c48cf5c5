"""Loads the test modules that optax ships in its wheel, with our methods in their tables.

The tables of optimizers are consumed by decorators while the test classes are being created, so
patching them after the import changes nothing. Instead a module's source is parsed, the values of
its tables are replaced, and the result is executed as a module of another name. optax itself is
not touched, and a table that upstream has renamed is an error, not an empty suite.

The suites know no extra arguments but those of optax's own methods. :class:`Harness` therefore
turns a row of the catalog into a factory whose ``update`` supplies the extra arguments itself. The
objective of the running test comes from the suites' ``_setup_...`` functions, which the loader
decorates so that they record the objective they return.
"""

import ast
import functools
import importlib.util
import os
import pathlib
import re
import types
import unittest
from unittest import mock

import jax
import jax.numpy as jnp
import optax
from helpers import at_least_float32, hyperparam_factory, tree_problem

from stochopt.experiments import gradient_and_extras


def _sum_of_squares(params):
    leaves = jax.tree.leaves(params)
    return sum(jnp.sum(jnp.abs(at_least_float32(x) - 1.0) ** 2) for x in leaves)


class Harness:
    """Factories for the suites, and the objective of the test that is running."""

    def __init__(self):
        self.reset()

    def reset(self):
        """Goes back to the objective of tests that set none up."""
        self.objective = _sum_of_squares

    def record(self, setup):
        """Decorates ``setup(dtype) -> (initial, final, objective)``."""

        @functools.wraps(setup)
        def recorded(*args, **kwargs):
            initial, final, self.objective = setup(*args, **kwargs)
            return initial, final, self.objective

        return recorded

    def factory(self, method):
        """A factory with the method's hyper-parameters, and nothing else, for arguments."""
        # The objective is looked up when an oracle is traced: the suites construct first.
        problem = tree_problem(lambda: jnp.zeros(1), lambda params: self.objective(params))
        bare = hyperparam_factory(problem, method)

        @functools.wraps(bare)
        def factory(*args, **kwargs):
            optimizer = bare(*args, **kwargs)

            def update(updates, state, params=None, **extra_args):
                _, extras = gradient_and_extras(problem, method, params, 1.0)
                extras.pop("grad", None)  # the suites conjugate the gradient, so theirs counts
                return optimizer.update(updates, state, params, **extras, **extra_args)

            return optax.GradientTransformationExtraArgs(optimizer.init, update)

        return factory


class _Rewrite(ast.NodeTransformer):
    """Puts names in place of tables, decorators on setups, and ``False`` for version guards."""

    def __init__(self, tables):
        self.tables, self.found = set(tables), set()

    def visit_Module(self, node):
        node.body = [new for old in node.body if (new := self._statement(old)) is not None]
        return node

    def _statement(self, node):
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) if name in self.tables:
                self.found.add(name)
                tables = ast.Name("__tables__", ast.Load())
                node.value = ast.Subscript(tables, ast.Constant(name), ast.Load())
                return node
            case ast.AugAssign() | ast.For() if names & self.tables:
                return None  # upstream adds rows, or columns to its own rows
            case _:
                return self.visit(node)

    def visit_FunctionDef(self, node):
        if node.name.startswith("_setup_"):
            node.decorator_list.append(ast.Name("__record__", ast.Load()))
        return self.generic_visit(node)

    def visit_Compare(self, node):
        # ``jax.__version__ < '0.7.2'`` compares strings and holds for 0.10.
        is_guard = isinstance(node.left, ast.Attribute) and node.left.attr == "__version__"
        return ast.Constant(False) if is_guard else self.generic_visit(node)


def load(name, harness, tables):
    """The module ``name`` with ``tables``, a dict from a table's name to its new value."""
    path = pathlib.Path(importlib.util.find_spec(name).origin)
    rewrite = _Rewrite(tables)
    tree = ast.fix_missing_locations(rewrite.visit(ast.parse(path.read_text())))
    if missing := set(tables) - rewrite.found:
        raise LookupError(f"{name} no longer defines {', '.join(sorted(missing))}")
    module = types.ModuleType(f"stochopt_on_{name.replace('.', '_')}")
    module.__file__ = str(path)
    module.__dict__.update(__tables__=tables, __record__=harness.record)
    with mock.patch.dict(os.environ):  # sharding_test sets XLA_FLAGS
        exec(compile(tree, str(path), "exec"), module.__dict__)
    return module


def replace_lookup(module, name, lookup):
    """Replaces the function by which a suite finds a factory."""
    if not hasattr(module, name):
        raise LookupError(f"{module.__name__} no longer defines {name}")
    setattr(module, name, lookup)


def suite(test_case, harness, deselect=()):
    """``test_case`` as a class for pytest: the harness is reset, and a skip is a failure.

    Args:
      test_case: the suite's class.
      harness: is reset before every test.
      deselect: regular expressions of tests to leave out, to match the beginning of
        ``name(parameters)``; each must match some test.
    """

    def set_up(self):
        super(cls, self).setUp()
        harness.reset()

    members = {"setUp": set_up}
    matched = set()
    for name in [name for name in dir(test_case) if name.startswith("test")]:
        test = getattr(test_case, name)
        described = name + getattr(test, "__x_params_repr__", "()")
        if match := [pattern for pattern in deselect if re.match(pattern, described)]:
            matched.update(match)
            members[name] = None  # hides the inherited test
        else:
            members[name] = _never_skips(test)
    if unmatched := set(deselect) - matched:
        raise LookupError(f"{test_case.__name__} has no test {', '.join(sorted(unmatched))}")
    cls = type(test_case)(test_case.__name__, (test_case,), members)
    return cls


def _never_skips(test):
    @functools.wraps(test)
    def strict(self):
        try:
            test(self)
        except unittest.SkipTest as skip:
            raise AssertionError(f"skipped by the suite: {skip}") from skip

    return strict
