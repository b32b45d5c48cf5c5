"""What can be measured at every update of a method on a problem, by name."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

from stochopt.catalog import Method
from stochopt.experiments.run import EachUpdate
from stochopt.problems import Problem

_NORM, _SQUARED_NORM, _ERROR = "gradient_norm", "squared_gradient_norm", "_error"


class MissingMeasureError(ValueError):
    """The problem, or the method, does not offer what a measure needs."""


def is_squared(measure: str) -> bool:
    """Whether a measure is in squared units, so that its rounding floor is squared as well."""
    return measure.startswith("squared_") or measure.endswith(_ERROR)


def each_update(problem: Problem, method: Method, measures: Sequence[str]) -> EachUpdate:
    """The function that measures ``measures`` at every update of a run.

    Raises:
      MissingMeasureError: one of them cannot be had; the message is a sentence that says why.
    """
    functions = {measure: _function(problem, method, measure) for measure in measures}
    return lambda *at: {measure: function(*at) for measure, function in functions.items()}


def _function(problem: Problem, method: Method, measure: str) -> Callable[..., jax.Array]:
    """One measure as a function of point, params and state, see :data:`EachUpdate`."""
    metrics = jax.eval_shape(lambda key: problem.metrics(problem.init(key)), jax.random.key(0))
    if measure in metrics:
        return lambda point, params, state: problem.metrics(point)[measure]
    if measure in (_NORM, _SQUARED_NORM):
        gradient, squared = _exact(problem, "gradient"), measure == _SQUARED_NORM
        return lambda point, params, state: optax.tree.norm(gradient(point), squared=squared)
    if measure.endswith(_ERROR):
        name = measure.removesuffix(_ERROR)
        exact = _exact(problem, name)
        if name not in method.estimates:
            raise MissingMeasureError(f"{method.name} keeps no estimate of {name!r}")
        estimate = method.estimates[name]
        return lambda point, params, state: optax.tree.norm(
            optax.tree.sub(estimate(state), exact(params)), squared=True
        )
    raise MissingMeasureError(
        f"problem {problem.name!r} has no measure {measure!r}; its metrics are {', '.join(metrics)}"
    )


def _exact(problem: Problem, name: str) -> Callable[[Any], Any]:
    if name not in problem.exact:
        raise MissingMeasureError(f"problem {problem.name!r} has no exact {name!r}")
    return problem.exact[name]
