"""What can be measured at every update of a method on a problem, by name."""

from collections.abc import Sequence
from typing import Any

import jax
import optax

from stochopt.catalog import Method
from stochopt.experiments.run import EachUpdate
from stochopt.problems import Problem

_ERROR = "_error"


class MissingMeasureError(ValueError):
    """The problem, or the method, does not offer what a measure needs."""


def is_squared(measure: str) -> bool:
    """Whether a measure is in squared units, so that its rounding floor is squared as well."""
    return measure.startswith("squared_") or measure.endswith(_ERROR)


def check_measure(problem: Problem, method: Method, measure: str) -> None:
    """Raises :class:`MissingMeasureError`, with a sentence, unless ``measure`` can be had."""
    if measure in ("gradient_norm", "squared_gradient_norm"):
        needed = "gradient"
    elif measure.endswith(_ERROR):
        needed = measure.removesuffix(_ERROR)
        if needed not in method.estimates:
            raise MissingMeasureError(f"{method.name} keeps no estimate of {needed!r}")
    else:
        metrics = jax.eval_shape(lambda key: problem.metrics(problem.init(key)), jax.random.key(0))
        if measure not in metrics:
            known = ", ".join(metrics)
            raise MissingMeasureError(
                f"problem {problem.name!r} has no measure {measure!r}; its metrics are {known}"
            )
        return
    if needed not in problem.exact:
        raise MissingMeasureError(f"problem {problem.name!r} has no exact {needed!r}")


def each_update(problem: Problem, method: Method, measures: Sequence[str]) -> EachUpdate:
    """The function that measures ``measures`` at every update of a run."""
    for measure in measures:
        check_measure(problem, method, measure)

    def squared_error(name: str, params: Any, state: Any) -> jax.Array:
        difference = optax.tree.sub(method.estimates[name](state), problem.exact[name](params))
        return optax.tree.norm(difference, squared=True)

    def measure_all(point: Any, params: Any, state: Any) -> dict[str, jax.Array]:
        measured = {}
        for measure in measures:
            if measure == "gradient_norm":
                value = optax.tree.norm(problem.exact["gradient"](point))
            elif measure == "squared_gradient_norm":
                value = optax.tree.norm(problem.exact["gradient"](point), squared=True)
            elif measure.endswith(_ERROR):
                value = squared_error(measure.removesuffix(_ERROR), params, state)
            else:
                value = problem.metrics(point)[measure]
            measured[measure] = value
        return measured

    return measure_all
