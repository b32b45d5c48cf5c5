r"""The methods of papers on :math:`F(x) = \frac1n \sum_i f_i(E g_i(x))`, as chains."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from stochopt._checks import check_range
from stochopt.compositional.coupled import estimate_coupled
from stochopt.compositional.steps import average_direction
from stochopt.compositional.trackers import Tracker, moving_average, msvr_tracker
from stochopt.compositional.two_level import Inner, Outer


def sox(
    inner: Inner,
    outer: Outer,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    tracker_rate: optax.ScalarOrSchedule = 0.1,
    direction_rate: optax.ScalarOrSchedule = 0.1,
    tracker: Callable[[optax.ScalarOrSchedule], Tracker] | None = None,
    inner_shape: Any,
    num_blocks: int,
    table_sharding: jax.sharding.NamedSharding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SOX: a moving average for each block's inner value and for the direction.

    For :math:`F(x) = \frac1n \sum_i f_i(E_\zeta g_{i, \zeta}(x))`, with :math:`B` sampled blocks
    :math:`\mathcal B_t` in each update:

    .. math::

       u_i &\leftarrow (1 - \gamma_t) u_i + \gamma_t g_{i, \zeta}(x_t)
         \quad \text{for } i \in \mathcal B_t, \text{ all others stay} \\
       v_t &= (1 - \beta_t) v_{t-1} + \frac{\beta_t}{B} \sum_{i \in \mathcal B_t}
         J_{g_{i, \zeta'}}(x_t)^T \nabla f_i(u_i) \\
       x_{t+1} &= x_t - \eta_t v_t

    ``direction_rate=1`` is SOAP, and with ``tracker_rate=1`` the naive gradient on batches (BSGD).
    With :math:`\eta, \gamma, \beta \propto T^{-1/2}` the average of :math:`E\|\nabla F(x_t)\|^2` is
    :math:`O(T^{-1/2})`; the learning rate must not exceed the order of :math:`\gamma B / n`, the
    speed at which the table follows.

    Args:
      inner: ``inner(params, batch_i) -> y_i`` of one block.
      outer: ``outer(y_i, params, batch_i) -> scalar`` of one block.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      tracker_rate: :math:`\gamma` in (0, 1], weight on the new sample; a number or a schedule.
      direction_rate: :math:`\beta` in (0, 1], weight on the new direction; a number or a schedule.
      tracker: from its rate to the tracker; ``None`` means
        :func:`stochopt.compositional.moving_average`, for exponentials take
        :func:`stochopt.compositional.log_moving_average`. Under ``optax.inject_hyperparams`` name
        it in ``static_args``.
      inner_shape: ``jax.eval_shape(inner, params, batch_i)``.
      num_blocks: :math:`n`.
      table_sharding: see :func:`stochopt.compositional.estimate_coupled`.

    Returns:
      The optimizer; ``update`` needs ``batch`` and ``block_indices``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` lacks an extra argument.

    References:
      Wang, Yang, `Finite-Sum Coupled Compositional Stochastic Optimization
      <https://arxiv.org/abs/2202.12396>`_, 2022
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    return optax.chain(
        estimate_coupled(
            inner,
            outer,
            tracker=(tracker or moving_average)(tracker_rate),
            inner_shape=inner_shape,
            num_blocks=num_blocks,
            table_sharding=table_sharding,
        ),
        average_direction(direction_rate),
        optax.scale_by_learning_rate(learning_rate),
    )


def msvr(
    inner: Inner,
    outer: Outer,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    num_sampled: int,
    tracker_rate: optax.ScalarOrSchedule = 0.1,
    direction_rate: optax.ScalarOrSchedule = 0.1,
    inner_shape: Any,
    num_blocks: int,
    table_sharding: jax.sharding.NamedSharding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""MSVR: variance reduction of each block's inner value and of the direction.

    The blocks' values follow :func:`stochopt.compositional.msvr_tracker`, the direction the
    recursion

    .. math::

       v_t = z_t(x_t, u^t) + (1 - \beta_t) \left(v_{t-1} - z_t(x_{t-1}, u^{t-1})\right), \qquad
       z_t(x, u) = \frac1B \sum_{i \in \mathcal B'_t} J_{g_{i, \zeta'}}(x)^T \nabla f_i(u_i),

    with the same samples at both points. The theorem draws :math:`\mathcal B'_t` independently of
    the blocks that are tracked: pass ``jacobian_block_indices`` and ``jacobian_batch``. Without
    them one draw serves both, and a bias of the order of :math:`\gamma / \beta` stays.
    With :math:`\eta \propto T^{-1/3}` and :math:`\gamma, \beta \propto T^{-2/3}` the average of
    :math:`E\|\nabla F(x_t)\|^2` is :math:`O(T^{-2/3})` for accurate starts; steps must be
    :math:`O(B / n)`.

    Args:
      inner: ``inner(params, batch_i) -> y_i`` of one block.
      outer: ``outer(y_i, params, batch_i) -> scalar`` of one block.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      num_sampled: :math:`B`, blocks in each update.
      tracker_rate: :math:`\gamma` in (0, 1), best at most 1/2; a number or a schedule.
      direction_rate: :math:`\beta` in (0, 1], weight on the new direction; a number or a schedule.
      inner_shape: ``jax.eval_shape(inner, params, batch_i)``.
      num_blocks: :math:`n`.
      table_sharding: see :func:`stochopt.compositional.estimate_coupled`.

    Returns:
      The optimizer; ``update`` needs ``batch`` and ``block_indices``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` lacks an extra argument.

    References:
      Jiang et al., `Multi-block-Single-probe Variance Reduced Estimator for Coupled Compositional
      Optimization <https://arxiv.org/abs/2207.08540>`_, 2022
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    return optax.chain(
        estimate_coupled(
            inner,
            outer,
            tracker=msvr_tracker(tracker_rate, num_blocks=num_blocks, num_sampled=num_sampled),
            inner_shape=inner_shape,
            num_blocks=num_blocks,
            direction_rate=direction_rate,
            table_sharding=table_sharding,
        ),
        optax.scale_by_learning_rate(learning_rate),
    )
