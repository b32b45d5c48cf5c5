"""How far the targets may move: numbers, schedules, or a search along the target gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt._checks import check_count, check_range
from stochopt._schedules import value_at


class AlongTargets(NamedTuple):
    """A target loss along its negative gradient."""

    loss: Callable[[jax.Array], jax.Array]  # of a step size
    value: jax.Array  # at step size zero
    squared_norm: jax.Array  # of the gradient


class TargetStep(NamedTuple):
    r"""A rule for the step size :math:`\eta` of a surrogate.

    Attributes:
      find: ``find(along, previous, count) -> (step, number)``: the step size, and how many values
        of the loss were looked at; ``previous`` is the step size of the last update, and ``count``
        the number of updates before this one.
    """

    find: Callable[[AlongTargets, jax.Array, jax.Array], tuple[Any, Any]]


def given(step: optax.ScalarOrSchedule) -> TargetStep:
    """A number or a schedule, whatever the loss is."""
    check_range("target_step", step, "(0, inf)")
    return TargetStep(lambda along, previous, count: (value_at(step, count), 0))


def armijo(
    initial: Any = 1.0,
    *,
    expansion: Any = 2.0,
    shrink: Any = 0.9,
    sufficient_decrease: Any = 0.5,
    lower: Any = 1e-4,
    upper: Any = 1e4,
    max_tries: int = 200,
) -> TargetStep:
    r"""Armijo's search in the space of the targets, where it costs values of the loss only.

    From ``expansion`` times the last step size (``initial`` in the first update) it shrinks until

    .. math:: \ell(z - \eta \, G) \le \ell(z) - c \, \eta \, \|G\|^2, \qquad G = \nabla \ell(z) .

    For :math:`c = 1/2` every :math:`\eta \le 1 / L` passes. The condition is about one direction:
    unlike :math:`\eta \le 1 / L` it does not make the surrogate lie above the loss everywhere.

    Args:
      initial: the first try of the first update.
      expansion: at least 1.
      shrink: in (0, 1).
      sufficient_decrease: :math:`c` in (0, 1).
      lower: step sizes are not shorter; tried no further.
      upper: nor longer.
      max_tries: of one search.

    References:
      Lavington et al., `Target-based Surrogates for Stochastic Optimization
      <https://arxiv.org/abs/2302.02607>`_, ICML 2023
    """
    check_range("initial", initial, "(0, inf)")
    check_range("expansion", expansion, "[1, inf)")
    check_range("shrink", shrink, "(0, 1)")
    check_range("sufficient_decrease", sufficient_decrease, "(0, 1)")
    check_range("lower", lower, "(0, inf)")
    check_range("upper", upper, "(0, inf)")
    check_count("max_tries", max_tries)

    def find(
        along: AlongTargets, previous: jax.Array, count: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        as_number = lambda x: jnp.asarray(x, previous.dtype)

        def too_long(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            step, loss, number = carry
            enough = along.value - as_number(sufficient_decrease) * step * along.squared_norm
            # A loss that is not a number is too large.
            return ~(loss <= enough) & (step > as_number(lower)) & (number < max_tries)

        def shorten(
            carry: tuple[jax.Array, jax.Array, jax.Array],
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            step, _, number = carry
            step = jnp.maximum(as_number(shrink) * step, as_number(lower))
            return step, along.loss(step), number + 1

        first = jnp.where(count == 0, as_number(initial), as_number(expansion) * previous)
        first = jnp.clip(first, as_number(lower), as_number(upper))
        start = first, along.loss(first), jnp.ones([], jnp.int32)
        step, _, number = jax.lax.while_loop(too_long, shorten, start)
        return step, number

    return TargetStep(find)
