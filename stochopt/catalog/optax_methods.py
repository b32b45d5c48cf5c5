"""optax's own methods: competitors, and yardsticks of rates."""

import inspect
from typing import Any

import optax

from stochopt.catalog.method import Method
from stochopt.claims import Claim, gradient_descent

# optax's own methods at the learning rates its documentation or its tests use; any other one races
# by its path below ``optax`` once a learning rate is given.
DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"learning_rate": 0.1},
    "adam": {"learning_rate": 1e-3},
    "adamw": {"learning_rate": 1e-3},
    "lion": {"learning_rate": 1e-4},
    "polyak_sgd": {},
    "contrib.muon": {"learning_rate": 0.02},
    "contrib.momo": {"learning_rate": 1.0},
    "contrib.momo_adam": {"learning_rate": 1e-2},
    "contrib.prodigy": {"learning_rate": 1.0},
    "contrib.schedule_free_adamw": {"learning_rate": 2.5e-3},
}
_EVAL_PARAMS = {
    "contrib.schedule_free_adamw": optax.contrib.schedule_free_eval_params,
    "contrib.schedule_free_sgd": optax.contrib.schedule_free_eval_params,
}
# Rates of optax's own methods: the yardsticks.
_CLAIMS: dict[str, tuple[Claim, ...]] = {"sgd": gradient_descent.SGD}


def row(path: str) -> Method | None:
    """The row of ``optax.<path>``, if that is a public factory of a whole optimizer."""
    target: Any = optax
    for part in path.split("."):
        target = None if part.startswith("_") else getattr(target, part, None)
    if not inspect.isfunction(target) or not any(
        name.endswith("learning_rate") for name in inspect.signature(target).parameters
    ):
        return None
    options = {"eval_params": _EVAL_PARAMS[path]} if path in _EVAL_PARAMS else {}
    return Method(
        name=path,
        factory=target,
        family="optax",
        summary=(inspect.getdoc(target) or "").split("\n")[0].rstrip("."),
        paper="see its documentation",
        defaults=DEFAULTS.get(path, {}),
        claims=_CLAIMS.get(path, ()),
        **options,
    )
