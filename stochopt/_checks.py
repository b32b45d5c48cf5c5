"""Clear errors for bad hyper-parameters and for missing arguments of ``update``."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax


def check_range(name: str, value: Any, interval: str) -> None:
    """Raises ``ValueError`` unless ``value`` lies in ``interval``.

    Traced values (a hyper-parameter under ``jit``, ``vmap`` or ``optax.inject_hyperparams``) and
    schedules pass through: they have no value yet.

    Args:
      name: the argument's name, for the message.
      value: a number, an array of numbers, a traced value or a schedule.
      interval: mathematical notation, such as ``"[0, 1)"`` or ``"(0, inf)"``.
    """
    if callable(value) or isinstance(value, jax.core.Tracer):
        return
    low, high = (float(end) for end in interval[1:-1].split(","))
    array = np.asarray(value, dtype=np.float64)
    above = array >= low if interval[0] == "[" else array > low
    below = array <= high if interval[-1] == "]" else array < high
    if not np.all(above & below):
        raise ValueError(f"{name} must lie in {interval}, got {value}.")


def check_count(name: str, value: Any) -> None:
    """Raises ``ValueError`` unless ``value`` is a whole number of at least one."""
    if isinstance(value, jax.core.Tracer):
        return
    array = np.asarray(value)
    if not (np.issubdtype(array.dtype, np.integer) and np.all(array >= 1)):
        raise ValueError(f"{name} must be a whole number of at least 1, got {value}.")


def check_arguments(name: str, oracle: Callable[..., Any], arguments: str) -> None:
    """Raises ``TypeError`` unless ``oracle`` can be called with these positional arguments.

    Args:
      name: the oracle's name.
      oracle: a function, or anything that can be called.
      arguments: their names, such as ``"params, step"``.
    """
    try:
        inspect.signature(oracle).bind(*arguments.split(", "))
    except TypeError as error:
        raise TypeError(f"{name} must be a function {name}({arguments}): {error}.") from error


def require_params(method: str, params: Any) -> None:
    """Raises ``ValueError`` when ``update`` got no ``params``."""
    if params is None:
        raise ValueError(f"{method}: call update(updates, state, params); params are missing.")


def require_extra(method: str, name: str, value: Any, pass_what: str) -> None:
    """Raises ``TypeError`` when a keyword argument of ``update`` is missing.

    Args:
      method: the transformation's name.
      name: the missing argument.
      value: what ``update`` got; ``None`` means missing.
      pass_what: what the caller should pass, as it is to be typed.
    """
    if value is None:
        raise TypeError(
            f"{method}: update() needs the keyword argument '{name}'; "
            f"call update(grads, state, params, {pass_what})."
        )


def require_whole_tree(method: str, params: Any) -> None:
    """Raises ``TypeError`` when part of ``params`` is masked away, as inside ``optax.masked``."""
    is_masked = lambda x: isinstance(x, optax.MaskedNode)
    if any(is_masked(node) for node in jax.tree.leaves(params, is_leaf=is_masked)):
        raise TypeError(
            f"{method} evaluates its oracles at the whole params, so it stands first in a plain "
            "chain; put optax.masked or optax.partition behind it, not around it."
        )
