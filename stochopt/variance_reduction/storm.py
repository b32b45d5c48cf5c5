"""STORM: a gradient tracked recursively, without any full gradient."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _counters, _tree
from stochopt._checks import check_range, require_extra, require_params, require_whole_tree
from stochopt.compositional import Sample, recursive_tracker
from stochopt.variance_reduction.oracles import Loss, gradient_of


class EstimateStormState(NamedTuple):
    """State of :func:`estimate_storm`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    num_gradients: jax.Array  # of batches; shape=(), dtype=int32
    previous_params: Any  # like params
    direction: Any  # d, like params, float32 or wider


def estimate_storm(
    loss: Loss,
    *,
    direction_rate: optax.ScalarOrSchedule,
    correction: jax.typing.ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""The recursive momentum estimator, STORM.

    .. math::

       d_t = (1 - a_t) d_{t-1} + a_t \nabla f_\xi(x_t)
         + c_t \left(\nabla f_\xi(x_t) - \nabla f_\xi(x_{t-1})\right),
       \qquad d_0 = \nabla f_\xi(x_0),

    with the *same* batch at both points and :math:`c_t = 1 - a_t`: the momentum average without its
    lag. It is :func:`stochopt.compositional.recursive_tracker` on the gradient, whose page has the
    error bound. It needs no full gradient, so it serves streams. Two gradients an update.

    Other values of :math:`c` are known methods: 0 is the moving average of gradients, that is
    momentum, whose lag a moving point leaves uncorrected; :math:`a = 1` and
    :math:`c = \gamma b_1 / (1 - b_1)`, with clipping and ``optax.scale_by_adam(b_1)`` behind, is
    MARS.

    An *estimator*: ``update`` ignores the incoming ``updates``, so it stands first in a chain and
    any step may follow it. It remembers the previous point itself.

    **Extra argument of** ``update``: ``batch``, passed to ``loss``.

    Args:
      loss: ``loss(params, batch) -> scalar``, the mean over a batch.
      direction_rate: :math:`a` in (0, 1], the weight on the new gradient; a number or a schedule.
      correction: :math:`c \ge 0`; ``None`` is :math:`1 - a_t`.

    Returns:
      The estimator. ``direction`` in its state is :math:`d_t`.

    Raises:
      TypeError: ``update`` got no ``batch``, or ``params`` with masked leaves.
      ValueError: a hyper-parameter is out of range, or ``loss`` returned no scalar.

    References:
      Cutkosky, Orabona, `Momentum-Based Variance Reduction in Non-Convex SGD
      <https://arxiv.org/abs/1905.10018>`_, 2019;
      Yuan et al., `MARS: Unleashing the Power of Variance Reduction for Training Large Models
      <https://arxiv.org/abs/2411.10438>`_, 2024
    """
    check_range("direction_rate", direction_rate, "(0, 1]")
    if correction is not None:
        check_range("correction", correction, "[0, inf)")
    tracker = recursive_tracker(
        direction_rate, correction=None if correction is None else lambda rate: correction
    )
    gradient = gradient_of("loss", loss)

    def init_fn(params: optax.Params) -> EstimateStormState:
        # What is not read before the first update has written it: zeros do.
        return EstimateStormState(
            count=jnp.zeros([], jnp.int32),
            num_gradients=jnp.zeros([], jnp.int32),
            previous_params=optax.tree.zeros_like(params),
            direction=_tree.zeros_at_least_float32(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: EstimateStormState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EstimateStormState]:
        del updates, extra_args
        require_params("estimate_storm", params)
        require_whole_tree("estimate_storm", params)
        require_extra("estimate_storm", "batch", batch, "batch=batch")
        gradient_at = lambda point: gradient(point, batch)
        first = state.count == 0
        # On first touch both points coincide: the old gradient is finite wherever the new is.
        previous = optax.tree.where(first, params, state.previous_params)
        sample = Sample(gradient_at(params), gradient_at, params, previous, first, state.count)
        direction, kept = tracker.update(state.direction, sample)
        return optax.tree.cast_like(_tree.copy(direction), params), EstimateStormState(
            count=optax.safe_increment(state.count),
            num_gradients=_counters.add(state.num_gradients, 2),
            previous_params=_tree.copy(params),
            direction=kept,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
