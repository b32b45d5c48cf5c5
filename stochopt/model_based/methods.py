"""The methods: a model of the sampled loss and the step to its minimizer."""

import jax
import optax

from stochopt._checks import check_range
from stochopt.model_based.models import (
    LossProx,
    Residuals,
    prox_linear,
    prox_point,
    subgradient,
    truncated,
)
from stochopt.model_based.step import model_based_step
from stochopt.proximal import Prox


def prox_subgradient(
    learning_rate: optax.ScalarOrSchedule, *, prox: Prox | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""The proximal subgradient method: the loss as a line, the regularizer as it is.

    .. math:: x_{t+1} = \mathrm{prox}_{\eta_t r}\left(x_t - \eta_t\, g_t\right)

    For a smooth loss this is the stochastic proximal gradient method, and without a ``prox`` it is
    ``optax.sgd``. On losses with kinks it needs small, falling steps: it is what the other models
    are measured against.

    It returns :math:`x_{t+1} - x_t`, so it stands last in a chain.

    Args:
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      prox: ``prox(params, step) -> params``, the proximal operator of ``step`` times :math:`r`;
        for a projection ignore ``step``. Under ``optax.inject_hyperparams`` name it in
        ``static_args``.

    Returns:
      The optimizer.

    Raises:
      TypeError: ``prox`` takes other arguments.
      ValueError: ``learning_rate`` is out of range, or ``prox`` returned another structure or
        other shapes than those of ``params``.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, stochopt
      >>> f = lambda x: jnp.sum(jnp.abs(x - jnp.array([2.0, -1.0])))
      >>> nonnegative = lambda params, step: jnp.maximum(params, 0)
      >>> optimizer = stochopt.prox_subgradient(0.5, prox=nonnegative)
      >>> params = jnp.array([0.5, 0.5])
      >>> state = optimizer.init(params)
      >>> for _ in range(3):
      ...     updates, state = optimizer.update(jax.grad(f)(params), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(params)
      [1. 0.]
      [1.5 0. ]
      [2. 0.]

    References:
      Davis, Drusvyatskiy, `Stochastic Model-Based Minimization of Weakly Convex Functions
      <https://arxiv.org/abs/1803.06523>`_, SIAM Journal on Optimization 2019
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    return model_based_step(subgradient(prox), learning_rate, name="prox_subgradient")


def truncated_model(
    learning_rate: optax.ScalarOrSchedule = 1.0,
    *,
    lower_bound: jax.typing.ArrayLike = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Subgradient steps that end where the line reaches a lower bound of the loss.

    .. math::

       x_{t+1} = x_t - \min\left(\eta_t, \frac{(f(x_t) - b)_+}{\|g_t\|^2}\right) g_t

    The step is Polyak's, capped. With a number as ``learning_rate`` it is
    ``optax.polyak_sgd(learning_rate, f_min=lower_bound, variant="sps+")``, which stops at gradients
    shorter than 1.5e-8; here the cap may be a schedule, as the theorem for noisy losses asks for.

    **Extra arguments of** ``update``: ``value``, the loss whose gradient the ``updates`` are.

    Args:
      learning_rate: :math:`\eta \ge 0`, the longest step size, a number or a schedule; infinity
        for Polyak's step size without a cap.
      lower_bound: :math:`b`, of the loss on any batch. Far below, it makes subgradient steps; above
        what a batch can reach, steps that are too short.

    Returns:
      The optimizer.

    Raises:
      TypeError: ``update`` got no ``value``.
      ValueError: an argument is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, stochopt
      >>> f = lambda x: jnp.abs(jnp.sum(x**2) - 1)
      >>> optimizer = stochopt.truncated_model(10.0)
      >>> params = jnp.array([3.0, 4.0])
      >>> state = optimizer.init(params)
      >>> for _ in range(4):
      ...     value, grad = jax.value_and_grad(f)(params)
      ...     updates, state = optimizer.update(grad, state, params, value=value)
      ...     params = optax.apply_updates(params, updates)
      ...     print(f"{f(params):.4f}")
      5.7600
      1.2270
      0.1690
      0.0061

    References:
      Asi, Duchi, `Stochastic (Approximate) Proximal Point Methods: Convergence, Optimality, and
      Adaptivity <https://arxiv.org/abs/1810.05633>`_, SIAM Journal on Optimization 2019
    """
    return model_based_step(truncated(lower_bound), learning_rate, name="truncated_model")


def stochastic_prox_linear(
    residuals: Residuals, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    r"""The prox-linear method for a mean of absolute values of smooth functions.

    .. math::

       x_{t+1} = \arg\min_y\; \frac1m \sum_{i=1}^m
       \left|c_i(x_t) + \langle \nabla c_i(x_t), y - x_t \rangle\right|
       + \frac{1}{2 \eta_t} \|y - x_t\|^2

    Only the insides become lines; the kinks stay. So near a solution that makes the sampled
    residuals small a step goes onto it and no further, however large :math:`\eta` is. With one
    residual the step costs one gradient, like a subgradient step:
    :math:`x_t - \mathrm{clip}(c / \|z\|^2, -\eta_t, \eta_t)\, z` with :math:`z = \nabla c`. A batch
    of :math:`m` costs :math:`m` gradients, which are held in memory, and a quadratic program with
    :math:`m` unknowns.

    A *mover*: it ignores the incoming ``updates`` and stands alone.
    **Extra arguments of** ``update``: ``batch``.

    Args:
      residuals: ``residuals(params, batch) -> c``, a scalar or a vector, whose mean absolute value
        is the loss.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.

    Returns:
      The optimizer. Its state holds ``subproblem_gap``, how far the last step was from the least
      value of the model, at most.

    Raises:
      TypeError: ``update`` got no ``batch``, or masked leaves, or ``residuals`` takes other
        arguments.
      ValueError: ``learning_rate`` is out of range, or ``residuals`` returned something else than
        a real scalar or vector.

    Examples:
      >>> import jax.numpy as jnp, optax, stochopt
      >>> residuals = lambda x, batch: jnp.sum(x**2) - batch
      >>> optimizer = stochopt.stochastic_prox_linear(residuals, 10.0)
      >>> params = jnp.array([3.0, 4.0])
      >>> state = optimizer.init(params)
      >>> for _ in range(4):
      ...     updates, state = optimizer.update(None, state, params, batch=1.0)
      ...     params = optax.apply_updates(params, updates)
      ...     print(f"{abs(residuals(params, 1.0)):.4f}")
      5.7600
      1.2270
      0.1690
      0.0061

    References:
      Davis, Drusvyatskiy, `Stochastic Model-Based Minimization of Weakly Convex Functions
      <https://arxiv.org/abs/1803.06523>`_, SIAM Journal on Optimization 2019;
      Duchi, Ruan, `Stochastic Methods for Composite and Weakly Convex Optimization Problems
      <https://arxiv.org/abs/1703.08570>`_, SIAM Journal on Optimization 2018
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    return model_based_step(prox_linear(residuals), learning_rate, name="stochastic_prox_linear")


def stochastic_prox_point(
    loss_prox: LossProx, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    r"""The proximal point method on one sample at a time.

    .. math:: x_{t+1} = \arg\min_y\; f(y, \xi_t) + \frac{1}{2 \eta_t} \|y - x_t\|^2

    Nothing is modelled: no method of the family bears longer steps. It needs the minimizer, in
    closed form where the loss of a sample has one, or by
    :func:`stochopt.model_based.iterated_prox`.

    A *mover*: it ignores the incoming ``updates`` and stands alone.
    **Extra arguments of** ``update``: ``batch``, :math:`\xi`.

    Args:
      loss_prox: ``loss_prox(params, step, batch) -> params``, the minimizer for :math:`\eta` =
        ``step``.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.

    Returns:
      The optimizer.

    Raises:
      TypeError: ``update`` got no ``batch``, or masked leaves, or ``loss_prox`` takes other
        arguments.
      ValueError: ``learning_rate`` is out of range, or ``loss_prox`` returned another structure or
        other shapes than those of ``params``.

    Examples:
      >>> import jax.numpy as jnp, optax, stochopt
      >>> # The loss is abs(x - batch): towards the sample, at most by the step.
      >>> loss_prox = lambda x, step, batch: x + jnp.clip(batch - x, -step, step)
      >>> optimizer = stochopt.stochastic_prox_point(loss_prox, 2.0)
      >>> params = jnp.array(5.0)
      >>> state = optimizer.init(params)
      >>> for batch in (1.0, 2.0):
      ...     updates, state = optimizer.update(None, state, params, batch=batch)
      ...     params = optax.apply_updates(params, updates)
      ...     print(params)
      3.0
      2.0

    References:
      Davis, Drusvyatskiy, `Stochastic Model-Based Minimization of Weakly Convex Functions
      <https://arxiv.org/abs/1803.06523>`_, SIAM Journal on Optimization 2019;
      Asi, Duchi, `Stochastic (Approximate) Proximal Point Methods: Convergence, Optimality, and
      Adaptivity <https://arxiv.org/abs/1810.05633>`_, SIAM Journal on Optimization 2019
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    return model_based_step(prox_point(loss_prox), learning_rate, name="stochastic_prox_point")
