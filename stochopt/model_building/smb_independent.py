"""SMBi: the model from another batch than the gradient it multiplies."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt._checks import check_range
from stochopt.model_building.groups import GroupFn
from stochopt.model_building.model import independent_batch_step
from stochopt.model_building.step_size import StepSizeRule, count_if, initial_fields
from stochopt.model_building.trial import read_arguments, try_step


class SmbIndependentState(NamedTuple):
    """State of :func:`stochopt.smb_independent`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    num_gradients: jax.Array  # gradient evaluations so far; shape=(), dtype=int32
    num_model_steps: jax.Array  # in the running adjustment period; shape=(), dtype=int32
    adjustment: jax.Array  # factor on the learning rate; shape=(), float32 or wider
    step_size: jax.Array  # of the last trial step; shape=(), float32 or wider
    pending: jax.Array  # whether the last trial step was rejected; shape=(), dtype=bool
    rejected_gradient: optax.Updates  # the gradient of that trial step, like params


def smb_independent(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    eta: jax.typing.ArrayLike = 0.99,
    sufficient_decrease: jax.typing.ArrayLike = 0.1,
    adjust_every: int | None = None,
    adjust_fraction: jax.typing.ArrayLike = 0.05,
    adjust_factor: jax.typing.ArrayLike = 0.9,
    max_learning_rate: jax.typing.ArrayLike = 20.0,
    group_fn: GroupFn | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SMBi: stochastic model building with independent batches.

    As :func:`stochopt.smb`, but a rejected trial step does not move; its gradient :math:`h` is
    kept, and the *next* batch builds the model: with its gradient :math:`g`, its trial step and
    its change of gradient :math:`y`, the step is :math:`-B^{-1} h`. So the matrix and the gradient
    that it multiplies are independent, as the convergence proof needs; the price is a batch that
    does not move for every rejection, and one stored gradient.

    Extra arguments, placement and cost are those of :func:`stochopt.smb`; of the two updates that a
    rejection takes, the second costs two gradients.

    Args:
      learning_rate: trial step size :math:`\alpha \ge 0`, a number or a schedule.
      eta: :math:`\eta` in (0, 1), bounds the model step.
      sufficient_decrease: :math:`c` in (0, 1) of Armijo's test.
      adjust_every: period, in updates, of the automatic step size; ``None`` turns it off.
      adjust_fraction: tolerated fraction of model steps; half of it counts here, as at most every
        second update can be a model step.
      adjust_factor: in (0, 1).
      max_learning_rate: the step size never grows above it.
      group_fn: function from a leaf's key path to a label; leaves with one label share one model.

    Returns:
      The optimizer. Its state holds ``step_size``, ``num_gradients`` and ``pending``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``value`` or no ``value_fn``.

    References:
      Birbil et al., `Bolstering Stochastic Gradient Descent with Model Building
      <https://arxiv.org/abs/2111.07058>`_, TOP 2024
    """
    rule = StepSizeRule(
        learning_rate, adjust_every, adjust_fraction, adjust_factor, max_learning_rate
    )
    rule.check()
    check_range("eta", eta, "(0, 1)")
    check_range("sufficient_decrease", sufficient_decrease, "(0, 1)")

    def init_fn(params: optax.Params) -> SmbIndependentState:
        return SmbIndependentState(
            **initial_fields(params),
            pending=jnp.zeros([], bool),
            rejected_gradient=optax.tree.zeros_like(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: SmbIndependentState,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        value_fn: Any = None,
        grad: optax.Updates | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SmbIndependentState]:
        oracle = read_arguments(
            "smb_independent", updates, params, value, value_fn, grad, extra_args
        )
        alpha = rule.current(state.count, state.adjustment)
        trial = try_step(oracle, alpha, sufficient_decrease, group_fn)

        # Outside of the cond: inside it, zeros like a concrete array forget its explicit layout.
        no_step = optax.tree.zeros_like(trial.step)
        nothing_kept = optax.tree.zeros_like(state.rejected_gradient)

        def model_step() -> tuple[optax.Updates, jax.Array, optax.Updates]:
            g = oracle.gradient
            h = optax.tree.cast_like(state.rejected_gradient, g)
            change = trial.gradient_change()
            step = independent_batch_step(trial.groups, alpha, eta, h, g, change)
            return step, jnp.zeros([], bool), nothing_kept

        def test_step() -> tuple[optax.Updates, jax.Array, optax.Updates]:
            step = optax.tree.where(trial.accepted, trial.step, no_step)
            kept = optax.tree.cast_like(oracle.gradient, state.rejected_gradient)
            return step, ~trial.accepted, kept

        step, pending, kept = jax.lax.cond(state.pending, model_step, test_step)
        num_model_steps = count_if(state.num_model_steps, state.pending)
        adjustment, num_model_steps = rule.adjust(
            state.count, state.adjustment, num_model_steps, steps_per_model_step=2
        )
        return step, SmbIndependentState(
            count=optax.safe_increment(state.count),
            num_gradients=count_if(optax.safe_increment(state.num_gradients), state.pending),
            num_model_steps=num_model_steps,
            adjustment=adjustment,
            step_size=alpha,
            pending=pending,
            rejected_gradient=kept,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
