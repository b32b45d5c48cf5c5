"""What stands behind an estimator: averaged directions, proximal steps, averaged projections."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import check_range, require_params
from stochopt._schedules import value_at
from stochopt.proximal import Prox

#: ``projection(params) -> params`` onto a convex set.
Projection = Callable[[Any], Any]


class AverageDirectionState(NamedTuple):
    """State of :func:`average_direction`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    averaged_direction: Any  # like params


def average_direction(
    rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    r"""The moving average of directions.

    .. math:: v_t = (1 - \beta_t) v_{t-1} + \beta_t d_t, \qquad v_0 = d_0 .

    From the second update on this is ``optax.ema(1 - rate, debias=False)`` started at
    :math:`d_0` and not at zero; the rate may be a schedule.

    Args:
      rate: :math:`\beta` in (0, 1], the weight on the new direction; a number or a schedule.
    """
    check_range("direction_rate", rate, "(0, 1]")

    def init_fn(params: optax.Params) -> AverageDirectionState:
        return AverageDirectionState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params))

    def update_fn(
        updates: optax.Updates,
        state: AverageDirectionState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AverageDirectionState]:
        del params, extra_args
        weight = value_at(rate, state.count)
        weight = jnp.where(state.count == 0, 1.0, weight)
        direction = _tree.moving_average(state.averaged_direction, updates, 1 - weight)
        count = optax.safe_increment(state.count)
        return _tree.copy(direction), AverageDirectionState(count, direction)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


class StepCountState(NamedTuple):
    """State of :func:`proximal_step` and :func:`averaged_projection`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32


def proximal_step(
    learning_rate: optax.ScalarOrSchedule, prox: Prox
) -> optax.GradientTransformationExtraArgs:
    r"""A gradient step, then a proximal operator.

    .. math:: x_{t+1} = \mathrm{prox}_{\eta_t r}(x_t - \eta_t d_t) .

    It returns :math:`x_{t+1} - x_t`, so it stands last in a chain; adding that to :math:`x_t` may
    differ from the proximal point in the last digit.

    Args:
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      prox: ``prox(params, step) -> params``, of :mod:`stochopt.proximal` or your own.
    """
    check_range("learning_rate", learning_rate, "[0, inf)")

    def move(direction: Any, params: Any, count: jax.Array) -> Any:
        step = value_at(learning_rate, count)
        return optax.tree.sub(prox(_tree.add_scaled(params, -step, direction), step), params)

    return _mover("proximal_step", move)


def averaged_projection(
    step: optax.ScalarOrSchedule,
    projection: Projection,
    *,
    learning_rate: optax.ScalarOrSchedule = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Moves part of the way to a projected gradient step: NASA's update.

    .. math::

       y_t = \Pi_X\left(x_t - \eta d_t\right), \qquad
       x_{t+1} = x_t + \tau_t (y_t - x_t) .

    A point of :math:`X` stays in :math:`X`, which is convex. It returns
    :math:`\tau_t (y_t - x_t)`, so it stands last in a chain.

    Args:
      step: :math:`\tau` in (0, 1], a number or a schedule.
      projection: ``projection(params) -> params``, :math:`\Pi_X`; of ``optax.projections``.
      learning_rate: :math:`\eta > 0`, a number or a schedule; of the order of one over the
        smoothness constant.
    """
    check_range("step", step, "(0, 1]")
    check_range("learning_rate", learning_rate, "(0, inf)")

    def move(direction: Any, params: Any, count: jax.Array) -> Any:
        rate = value_at(learning_rate, count)
        target = projection(_tree.add_scaled(params, -rate, direction))
        tau = value_at(step, count)
        difference = optax.tree.sub(target, params)
        return jax.tree.map(lambda x: _tree.scale(jnp.asarray(tau), x), difference)

    return _mover("averaged_projection", move)


def _mover(
    name: str, move: Callable[[Any, Any, jax.Array], Any]
) -> optax.GradientTransformationExtraArgs:
    """The transformation whose update is ``move(direction, params, count)``."""

    def init_fn(params: optax.Params) -> StepCountState:
        del params
        return StepCountState(jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: StepCountState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, StepCountState]:
        del extra_args
        require_params(name, params)
        update = optax.tree.cast_like(move(updates, params, state.count), updates)
        return update, StepCountState(optax.safe_increment(state.count))

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
