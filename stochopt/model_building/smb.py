"""SMB: a step size from a model built on a rejected trial step."""

from typing import Any, NamedTuple

import jax
import optax

from stochopt._checks import check_range
from stochopt.model_building.groups import GroupFn
from stochopt.model_building.model import same_batch_step
from stochopt.model_building.step_size import StepSizeRule, count_if, initial_fields
from stochopt.model_building.trial import read_arguments, try_step


class SmbState(NamedTuple):
    """State of :func:`stochopt.smb`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    num_gradients: jax.Array  # gradient evaluations so far; shape=(), dtype=int32
    num_model_steps: jax.Array  # in the running adjustment period; shape=(), dtype=int32
    adjustment: jax.Array  # factor on the learning rate; shape=(), float32 or wider
    step_size: jax.Array  # of the last trial step; shape=(), float32 or wider


def smb(
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
    r"""Stochastic model building: when a step is too long, model the curvature it met.

    One ``update`` tries the gradient step :math:`s = -\alpha g` on the batch that gave
    :math:`g`. If the batch loss falls enough,

    .. math::

       F(x + s) \le F(x) - c \, \alpha \|g\|^2,

    the trial step is taken. Otherwise the gradient at the trial point gives
    :math:`y = g(x + s) - g(x)` and each leaf, or group of leaves, moves by the minimizer of a
    quadratic model,

    .. math::

       s_+ = -\alpha \eta \left( \frac{1 + \rho}{2} g + \eta \rho \, y \right),
       \qquad \rho = \frac{\|g\|}{\|g\| + 2 \eta \|y\|},

    which equals the published step (see :mod:`stochopt.model_building.model`) without its
    cancellation. It is a descent direction with :math:`\|s_+\| \le \eta \|s\|`; there is no
    second test. A trial loss that is not a number counts as rejected, and a group whose gradient
    is not finite at the trial point moves by :math:`-0.1 \alpha g`.

    **Extra arguments of** ``update``: ``value``, the batch loss at ``params``; ``value_fn``, a
    function of ``params`` that evaluates the *same* batch with the same random key (further
    arguments are taken by name from the keyword arguments of ``update``); ``grad``, optional: the
    gradient, when an earlier transformation has changed ``updates`` (which are then not used).
    Place SMB first. Layers with state (batch statistics) must not update it in ``value_fn``.

    The returned updates are signed and scaled: do not append ``scale_by_learning_rate``. One
    update costs one more forward pass than gradient descent, and one more backward pass when the
    trial step is rejected; ``num_gradients`` counts gradients. Call ``update`` under ``jit``:
    outside of it ``value_fn`` is traced and compiled anew on every call, which takes about a
    thousand times as long. Do not put SMB inside
    ``optax.MultiSteps``, where ``value_fn`` would see the last micro-batch only.

    Args:
      learning_rate: trial step size :math:`\alpha \ge 0`, a number or a schedule.
      eta: :math:`\eta` in (0, 1), bounds the model step.
      sufficient_decrease: :math:`c` in (0, 1) of Armijo's test.
      adjust_every: period, in updates, of the automatic step size, usually an epoch. After each
        period the step size shrinks by ``adjust_factor`` if more than ``adjust_fraction`` of its
        steps were model steps, and else grows by it. ``None`` turns this off.
      adjust_fraction: tolerated fraction of model steps, in [0, 1].
      adjust_factor: in (0, 1).
      max_learning_rate: the step size never grows above it.
      group_fn: function from a leaf's key path (as in ``jax.tree_util``) to a label; leaves with
        one label share one model. ``None`` builds a model for each leaf. Under
        ``optax.inject_hyperparams`` name it in ``static_args``.

    Returns:
      The optimizer. Its state holds ``step_size`` and ``num_gradients``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``value`` or no ``value_fn``.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, stochopt
      >>> f = lambda x: jnp.sum(x ** 2)
      >>> optimizer = stochopt.smb(learning_rate=10.0)
      >>> params = jnp.array([1., 2., 3.])
      >>> state = optimizer.init(params)
      >>> @jax.jit
      ... def step(params, state):
      ...     value, grad = jax.value_and_grad(f)(params)
      ...     extras = dict(value=value, value_fn=f)
      ...     updates, state = optimizer.update(grad, state, params, **extras)
      ...     return optax.apply_updates(params, updates), state
      >>> for _ in range(5):
      ...     params, state = step(params, state)
      ...     print(f"{f(params):.2e}")
      3.67e+00
      9.64e-01
      2.53e-01
      6.64e-02
      1.74e-02

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

    def init_fn(params: optax.Params) -> SmbState:
        return SmbState(**initial_fields(params))

    def update_fn(
        updates: optax.Updates,
        state: SmbState,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        value_fn: Any = None,
        grad: optax.Updates | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SmbState]:
        oracle = read_arguments("smb", updates, params, value, value_fn, grad, extra_args)
        alpha = rule.current(state.count, state.adjustment)
        trial = try_step(oracle, alpha, sufficient_decrease, group_fn)

        step = jax.lax.cond(
            trial.accepted,
            lambda: trial.step,
            lambda: same_batch_step(
                trial.groups, alpha, eta, oracle.gradient, trial.gradient_change()
            ),
        )
        num_model_steps = count_if(state.num_model_steps, ~trial.accepted)
        adjustment, num_model_steps = rule.adjust(
            state.count, state.adjustment, num_model_steps, steps_per_model_step=1
        )
        return step, SmbState(
            count=optax.safe_increment(state.count),
            num_gradients=count_if(optax.safe_increment(state.num_gradients), ~trial.accepted),
            num_model_steps=num_model_steps,
            adjustment=adjustment,
            step_size=alpha,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
