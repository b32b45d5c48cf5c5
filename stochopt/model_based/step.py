"""The model-based step: to the minimizer of a model of the sampled loss, near the point."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import check_range, require_extra, require_params, require_whole_tree
from stochopt._schedules import value_at


class Sample(NamedTuple):
    """What one update is given of the sampled loss."""

    params: Any  # x
    gradient: Any  # the incoming updates
    value: Any  # of the loss at x; None if update got none
    batch: Any  # None if update got none


class Move(NamedTuple):
    """The minimizer of a model near a point, and how well it is known."""

    displacement: Any  # from the point, like params
    gap: Any  # at most so far above the least value; 0 for a closed form


class Model(NamedTuple):
    r"""A model :math:`f_x(y)` of the sampled loss around :math:`x`, by what it makes of a step.

    Attributes:
      needs: extra arguments that ``update`` must get: ``"value"`` or ``"batch"``.
      minimize: ``minimize(sample, step) -> Move``, the minimizer over :math:`y` of
        :math:`r(y) + f_x(y) + \|y - x\|^2 / (2 \cdot \text{step})`, relative to :math:`x`.
    """

    needs: tuple[str, ...]
    minimize: Callable[[Sample, jax.Array], Move]


class ModelBasedStepState(NamedTuple):
    """State of :func:`model_based_step`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    subproblem_gap: jax.Array  # of the last step, see Move; shape=(), float32 or wider


def model_based_step(
    model: Model, learning_rate: optax.ScalarOrSchedule, *, name: str = "model_based_step"
) -> optax.GradientTransformationExtraArgs:
    r"""Minimizes a model of the sampled loss and a penalty on the distance.

    .. math:: x_{t+1} = \arg\min_y\; r(y) + f_{x_t}(y) + \frac{1}{2 \eta_t} \|y - x_t\|^2

    The better the model, the longer the steps that it bears:
    :func:`~stochopt.model_based.subgradient` is a line, :func:`~stochopt.model_based.truncated` a
    line above a bound, :func:`~stochopt.model_based.prox_linear` keeps the kinks of the loss, and
    :func:`~stochopt.model_based.prox_point` is the loss itself.

    It returns :math:`x_{t+1} - x_t`: do not append ``scale_by_learning_rate``. The incoming
    ``updates`` are the gradient of the sampled loss; models that need a ``batch`` ignore them, and
    such a method stands alone.
    **Extra arguments of** ``update``: those of the model.

    Args:
      model: of the sampled loss.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      name: of the method, for messages.

    Returns:
      The transformation. Its state holds ``subproblem_gap``.

    Raises:
      TypeError: ``update`` lacks what the model needs, or a model that needs a ``batch`` got
        masked leaves.
      ValueError: ``update`` got no ``params``, or ``learning_rate`` is negative.

    References:
      Davis, Drusvyatskiy, `Stochastic Model-Based Minimization of Weakly Convex Functions
      <https://arxiv.org/abs/1803.06523>`_, SIAM Journal on Optimization 2019
    """
    check_range("learning_rate", learning_rate, "[0, inf]")

    def init_fn(params: optax.Params) -> ModelBasedStepState:
        dtype = _tree.scalar_dtype(*jax.tree.leaves(params))
        return ModelBasedStepState(jnp.zeros([], jnp.int32), jnp.zeros([], dtype))

    def update_fn(
        updates: optax.Updates,
        state: ModelBasedStepState,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        batch: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ModelBasedStepState]:
        del extra_args
        require_params(name, params)
        if "value" in model.needs:
            require_extra(name, "value", value, "value=loss")
        if "batch" in model.needs:
            require_extra(name, "batch", batch, "batch=batch")
            require_whole_tree(name, params)
        dtype = state.subproblem_gap.dtype
        step = jnp.asarray(value_at(learning_rate, state.count), dtype)
        displacement, gap = model.minimize(Sample(params, updates, value, batch), step)
        return optax.tree.cast_like(displacement, params), ModelBasedStepState(
            count=optax.safe_increment(state.count), subproblem_gap=jnp.asarray(gap, dtype)
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
