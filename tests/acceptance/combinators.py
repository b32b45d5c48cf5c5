"""Which method goes into which combinator and which client, found out by running every pair.

The documentation's table is written with

    PYTHONPATH=tests python tests/acceptance/combinators.py > docs/combinators.md
"""

import functools
import pathlib
import traceback
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.training import train_state
from helpers import hyperparam_factory, required_extras, tree_problem, with_smoothness

import stochopt
from stochopt import catalog
from stochopt.experiments import gradient_and_extras

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "combinators.md"
PACKAGE = pathlib.Path(stochopt.__file__).parent


class Cell(NamedTuple):
    """What happened: the verdict, and the words that explain it."""

    verdict: str  # "works", "needs", "works partly", "refused" or "fails"
    detail: str = ""

    def __str__(self):
        return f"{self.verdict} {self.detail}".strip() if self.verdict == "needs" else self.verdict


class Deviates(Exception):
    """The method runs, but does not do what the combinator is for; the message says what."""


def _params():
    return {"matrix": jnp.linspace(-1.0, 2.0, 6).reshape(3, 2), "vector": jnp.linspace(0.5, -2, 4)}


def _objective(params):
    # By name, as real losses do: a tree with masked leaves will not do. So steep that a unit step
    # overshoots, and a step size rule has something to do.
    return sum(2.5 * jnp.sum((params[name] - 1.0) ** 2) for name in ("matrix", "vector"))


class Setting:
    """A method on a problem, with just the extra arguments that it requires."""

    def __init__(self, method):
        method = with_smoothness(method, 7.0)  # of the objective, at the larger batch
        self.method, self.problem, self.params = (
            method,
            tree_problem(_params, _objective),
            _params(),
        )
        self.optimizer = method.make(self.problem)
        self.required = tuple(required_extras(method))
        self.batches = (jnp.float32(0.6), jnp.float32(1.4))

    def gradient_and_extras(self, params, batch):
        grad, extras = gradient_and_extras(self.problem, self.method, params, batch)
        return grad, {name: extras[name] for name in self.required}

    @functools.partial(jax.jit, static_argnums=(0, 1))
    def step(self, optimizer, params, state, batch):
        """A compiled update, the same program for the same optimizer."""
        grad, extras = self.gradient_and_extras(params, batch)
        updates, state = optimizer.update(grad, state, params, **extras)
        return optax.apply_updates(params, updates), state

    def steps(self, optimizer, batches):
        """Parameters before, between and after updates with the ``batches``."""
        path, state = [self.params], optimizer.init(self.params)
        for batch in batches:
            params, state = self.step(optimizer, path[-1], state, batch)
            path.append(params)
        return path

    @functools.cached_property
    def alone(self):
        """The path of the method itself on the two batches, which most combinators must keep."""
        return self.steps(self.optimizer, self.batches)


def _equal(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in pairs)


def _expect(condition, otherwise):
    if not condition:
        raise Deviates(otherwise)


def plain_loop(s):
    before, after = _objective(s.alone[0]), _objective(s.alone[-1])
    _expect(after < before, "the objective does not fall")


def chain(s):
    """Something stands behind the method and changes its update."""
    half = s.steps(optax.chain(s.optimizer, optax.scale(0.5)), s.batches[:1])[-1]
    full = s.alone[1]
    expected = jax.tree.map(lambda x, y: (x + y) / 2, s.params, full)
    _expect(_equal(half, expected), "what stands behind it does not see the whole update")


def masked(s):
    """The matrix is the method's; the vector's gradient passes through."""
    after = s.steps(optax.masked(s.optimizer, {"matrix": True, "vector": False}), s.batches)[-1]
    _expect(
        _equal(after["matrix"], s.alone[-1]["matrix"]),
        "the numbers differ from those of the method alone",
    )


def partition(s):
    """The matrix is the method's; gradient descent moves the vector."""
    labels = {"matrix": "method", "vector": "sgd"}
    optimizer = optax.partition({"method": s.optimizer, "sgd": optax.sgd(0.1)}, labels)
    after = s.steps(optimizer, s.batches)[-1]
    _expect(
        _equal(after["matrix"], s.alone[-1]["matrix"]),
        "the numbers differ from those of the method alone",
    )


def multi_steps(s):
    """Two small batches must make the step of one batch that is their mean."""
    optimizer = optax.MultiSteps(s.optimizer, every_k_schedule=2)
    once, *_, last = s.steps(optimizer, s.batches * 2)[1:]
    _expect(_equal(once, s.params), "moves before the batches are together")
    whole = s.steps(s.optimizer, [sum(s.batches) / 2] * 2)[-1]
    _expect(_equal(last, whole), "its oracles see the last small batch only; pass a larger batch")


def inject_hyperparams(s):
    # Every number is injected; what is neither a number nor None is static.
    factory = hyperparam_factory(s.problem, s.method)
    static = [n for n, value in s.method.hyperparams.items() if not isinstance(value, float)]
    injected = optax.inject_hyperparams(factory, static_args=static)()
    same = _equal(s.steps(injected, s.batches)[-1], s.alone[-1])
    _expect(same, "the numbers differ from those of the method alone")


def apply_if_finite(s):
    """A batch that makes the objective NaN must move nothing."""
    guarded = optax.apply_if_finite(s.optimizer, max_consecutive_errors=2)
    same = _equal(s.steps(guarded, s.batches)[-1], s.alone[-1])
    _expect(same, "the numbers differ from those of the method alone")
    after = s.steps(guarded, [jnp.float32(jnp.nan)])[-1]
    _expect(_equal(after, s.params), "it checks the incoming updates, which the method ignores")


def nnx_optimizer(s):
    class Model(nnx.Module):
        def __init__(self):
            self.matrix, self.vector = (nnx.Param(x) for x in s.params.values())

    model = Model()
    optimizer = nnx.Optimizer(model, s.optimizer, wrt=nnx.Param)
    for batch in s.batches:
        variables = nnx.state(model, nnx.Param)
        grad, extras = s.gradient_and_extras(nnx.as_pure(variables), batch)
        grad = jax.tree.unflatten(jax.tree.structure(variables), jax.tree.leaves(grad))
        optimizer.update(model, grad, **extras)
    after = {"matrix": model.matrix[...], "vector": model.vector[...]}
    _expect(
        _equal(after, s.alone[-1]),
        "the numbers differ from those of the method alone",
    )


def flax_train_state(s):
    # apply_gradients hands no argument on to update.
    state = train_state.TrainState.create(apply_fn=None, params=s.params, tx=s.optimizer)
    for batch in s.batches:
        grad, _ = s.gradient_and_extras(state.params, batch)
        state = state.apply_gradients(grads=grad)
    _expect(
        _equal(state.params, s.alone[-1]),
        "the numbers differ from those of the method alone",
    )


COMBINATORS = {
    "plain `jit` loop": plain_loop,
    "`optax.chain`": chain,
    "`optax.masked`": masked,
    "`optax.partition`": partition,
    "`optax.MultiSteps`": multi_steps,
    "`optax.inject_hyperparams`": inject_hyperparams,
    "`optax.apply_if_finite`": apply_if_finite,
    "`flax.nnx.Optimizer`": nnx_optimizer,
    "flax `TrainState`": flax_train_state,
}


def _is_refusal(error):
    """Whether one of the library's own checks raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return pathlib.Path(frames[-1].filename) == PACKAGE / "_checks.py"


def classify(setting, combinator):
    """Runs one pair and says how it went."""
    try:
        combinator(setting)
    except Deviates as deviation:
        return Cell("works partly", str(deviation))
    except Exception as error:  # whatever comes out of a pair is its classification
        sentence = " ".join(str(error).split())
        if _is_refusal(error):
            return Cell("refused", sentence)
        return Cell("fails", f"{type(error).__name__}: {sentence}")
    if setting.required:
        return Cell("needs", ", ".join(f"`{name}`" for name in setting.required))
    return Cell("works")


_setting = functools.cache(Setting)


@functools.cache
def cell(method, label):
    """The cell of a row of the catalog and a key of :data:`COMBINATORS`."""
    return classify(_setting(method), COMBINATORS[label])


def combinator_table():
    """All cells: a dict from a method's name to a dict from a combinator to its cell."""
    return {
        method.name: {label: cell(method, label) for label in COMBINATORS}
        for method in catalog.METHODS
    }


def page(table):
    """The table as a page of the documentation."""
    notes = []

    def mark(cell):
        if cell.verdict in ("works", "needs"):
            return str(cell)
        if cell.detail not in notes:
            notes.append(cell.detail)
        return f"{cell} ({notes.index(cell.detail) + 1})"

    rows = [[label, *(mark(table[name][label]) for name in table)] for label in COMBINATORS]
    lines = [
        "# Combinators and clients",
        "",
        "Every cell is the outcome of a run, and a test. *Works*: with gradients alone. *Needs*:",
        "works with these keyword arguments of `update`. *Works partly*: it runs, but the",
        "combinator does not do its whole job. *Refused*: an error that says why. The numbers lead",
        "to the sentences below the table.",
        "",
        "| | " + " | ".join(f"`{name}`" for name in table) + " |",
        "| --- |" + " --- |" * len(table),
        *("| " + " | ".join(row) + " |" for row in rows),
        "",
        *(f"{number}. {note}" for number, note in enumerate(notes, 1)),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(combinator_table()))
