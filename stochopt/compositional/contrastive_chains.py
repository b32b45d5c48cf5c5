"""Contrastive learning with tracked normalizers: the methods of papers, as chains."""

import jax
import optax

from stochopt._checks import check_range
from stochopt.compositional.contrastive import (
    Embed,
    estimate_contrastive,
    estimate_robust_contrastive,
)
from stochopt.compositional.steps import average_direction


def sogclr(
    embed: Embed,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    num_examples: int,
    temperature: jax.typing.ArrayLike = 0.1,
    tracker_rate: optax.ScalarOrSchedule = 0.9,
    direction_rate: optax.ScalarOrSchedule = 0.1,
    table_sharding: jax.sharding.NamedSharding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SogCLR: contrastive learning whose small batches do not bias the loss.

    :func:`stochopt.compositional.estimate_contrastive`, whose tracked normalizers give the
    direction :math:`d_t`, then

    .. math::

       v_t = (1 - \beta_t) v_{t-1} + \beta_t d_t, \qquad x_{t+1} = x_t - \eta_t v_t .

    It is SOX on the global contrastive loss; with ``tracker_rate=1`` it minimizes the batch loss.

    Args:
      embed: ``embed(params, views) -> features``, a matrix with one row for each view.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      num_examples: :math:`n`.
      temperature: :math:`\tau > 0`.
      tracker_rate: :math:`\gamma` in (0, 1], weight on the new sample; a number or a schedule.
      direction_rate: :math:`\beta` in (0, 1], weight on the new direction; a number or a schedule.
      table_sharding: see :func:`stochopt.compositional.estimate_coupled`.

    Returns:
      The optimizer; ``update`` needs ``batch``, two views, and ``block_indices``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` lacks an extra argument.

    References:
      Yuan et al., `Provable Stochastic Optimization for Global Contrastive Learning: Small Batch
      Does Not Harm Performance <https://arxiv.org/abs/2202.12387>`_, 2022
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    return optax.chain(
        estimate_contrastive(
            embed,
            num_examples=num_examples,
            temperature=temperature,
            tracker_rate=tracker_rate,
            table_sharding=table_sharding,
        ),
        average_direction(direction_rate),
        optax.scale_by_learning_rate(learning_rate),
    )


def isogclr(
    embed: Embed,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    num_examples: int,
    temperature: jax.typing.ArrayLike = 0.1,
    min_temperature: jax.typing.ArrayLike = 0.05,
    max_temperature: jax.typing.ArrayLike = 0.7,
    radius: jax.typing.ArrayLike = 0.3,
    tracker_rate: optax.ScalarOrSchedule = 0.9,
    temperature_learning_rate: optax.ScalarOrSchedule = 0.01,
    temperature_rate: optax.ScalarOrSchedule = 0.9,
    direction_rate: optax.ScalarOrSchedule = 0.1,
    table_sharding: jax.sharding.NamedSharding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""iSogCLR: SogCLR with a temperature for each example, learned along.

    :func:`stochopt.compositional.estimate_robust_contrastive`, then the averaged direction and the
    step of :func:`sogclr`.

    Args:
      embed: ``embed(params, views) -> features``, a matrix with one row for each view.
      learning_rate: of the parameters, a number or a schedule.
      num_examples: :math:`n`.
      temperature: where every temperature starts.
      min_temperature: lower bound, positive.
      max_temperature: upper bound.
      radius: :math:`\rho \ge 0`, of the Kullback-Leibler ball.
      tracker_rate: :math:`\gamma` in (0, 1], weight on the new sample; a number or a schedule.
      temperature_learning_rate: of the temperatures, a number or a schedule.
      temperature_rate: weight on the new slope in a temperature, in (0, 1]; a number or a schedule.
      direction_rate: weight on the new direction, in (0, 1]; a number or a schedule.
      table_sharding: see :func:`stochopt.compositional.estimate_coupled`.

    Returns:
      The optimizer; ``update`` needs ``batch``, two views, and ``block_indices``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` lacks an extra argument.

    References:
      Qiu et al., `Not All Semantics are Created Equal: Contrastive Self-supervised Learning with
      Automatic Temperature Individualization <https://arxiv.org/abs/2305.11965>`_, 2023
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    return optax.chain(
        estimate_robust_contrastive(
            embed,
            num_examples=num_examples,
            temperature=temperature,
            min_temperature=min_temperature,
            max_temperature=max_temperature,
            radius=radius,
            tracker_rate=tracker_rate,
            temperature_learning_rate=temperature_learning_rate,
            temperature_rate=temperature_rate,
            table_sharding=table_sharding,
        ),
        average_direction(direction_rate),
        optax.scale_by_learning_rate(learning_rate),
    )
