"""The trial step that SMB and SMBi begin with, and its test."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import require_extra, require_params, require_whole_tree
from stochopt.model_building.groups import GroupFn, Groups

_TINY_GRADIENT = 1e-8  # a batch gradient below this norm always passes the test


class Oracle(NamedTuple):
    """What ``update`` was given: the batch loss, its value and its gradient at ``params``."""

    params: Any
    value: jax.Array
    gradient: Any
    value_fn: Callable[[Any], jax.Array]


class Trial(NamedTuple):
    """A trial step of size ``alpha`` and what it found."""

    groups: Groups
    step: Any  # -alpha times the gradient
    accepted: jax.Array  # whether the loss fell enough
    gradient_change: Callable[[], Any]  # evaluates the gradient at the trial point


def read_arguments(
    method: str,
    updates: Any,
    params: Any,
    value: Any,
    value_fn: Any,
    grad: Any,
    extra_args: dict[str, Any],
) -> Oracle:
    """Checks the arguments of ``update`` and binds ``value_fn`` to its extra arguments by name."""
    require_params(method, params)
    require_whole_tree(method, params)
    require_extra(method, "value", value, "value=loss, value_fn=loss_fn")
    require_extra(method, "value_fn", value_fn, "value=loss, value_fn=loss_fn")
    parameters = list(inspect.signature(value_fn).parameters.values())[1:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        kwargs = extra_args
    else:
        kwargs = {p.name: extra_args[p.name] for p in parameters if p.name in extra_args}
    gradient = updates if grad is None else grad
    return Oracle(params, value, gradient, lambda point: value_fn(point, **kwargs))


def try_step(
    oracle: Oracle, alpha: jax.Array, sufficient_decrease: Any, group_fn: GroupFn | None
) -> Trial:
    r"""Tries :math:`s = -\alpha g` and applies Armijo's test to the whole tree.

    A trial loss that is not a number fails the test.
    """
    g = oracle.gradient
    groups = Groups(g, group_fn, alpha.dtype)
    step = jax.tree.map(lambda x: _tree.scale(-alpha, x), g)
    trial_value, pullback = jax.vjp(oracle.value_fn, optax.apply_updates(oracle.params, step))

    squared_norm = jnp.sum(groups.dot(g, g))
    enough = sufficient_decrease * alpha * squared_norm
    fell = trial_value.astype(alpha.dtype) <= jnp.asarray(oracle.value, alpha.dtype) - enough
    accepted = fell | (squared_norm < _TINY_GRADIENT**2)

    def gradient_change() -> Any:
        (cotangent,) = pullback(jnp.ones_like(trial_value))
        # Conjugated, as optax wants complex gradients; nothing changes for real ones.
        return jax.tree.map(lambda c, x: jnp.conj(c).astype(x.dtype) - x, cotangent, g)

    return Trial(groups, step, accepted, gradient_change)
