r"""Global contrastive losses: every example is compared with all others, not with its batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _table as table
from stochopt import _tree
from stochopt._checks import (
    check_count,
    check_range,
    require_extra,
    require_params,
    require_whole_tree,
)
from stochopt._oracles import check_leading_axis
from stochopt._schedules import value_at
from stochopt.compositional.coupled import EstimateCoupledState, estimate_rows
from stochopt.compositional.trackers import log_moving_average

#: ``embed(params, views) -> features``, one vector for each view on the leading axis.
Embed = Callable[[Any, Any], jax.Array]


def estimate_contrastive(
    embed: Embed,
    *,
    num_examples: int,
    temperature: jax.typing.ArrayLike = 0.1,
    tracker_rate: optax.ScalarOrSchedule = 0.9,
    table_sharding: jax.sharding.NamedSharding | None = None,
    check: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Estimates the gradient of the global contrastive loss.

    Two random views :math:`a, a'` of each of :math:`n` examples have features of unit length, with
    similarity :math:`s`, their inner product. Views of one example shall be similar, and not to the
    views :math:`z` of *all* others:

    .. math::

       F(x) = \frac1n \sum_i \left( -E\, s(a_i, a'_i) + \tau \log g_i(x) \right), \qquad
       g_i(x) = E_{a_i, z}\, e^{s(a_i, z) / \tau} .

    The batch loss puts the mean over the other examples :math:`\mathcal B_t` of the batch in place
    of :math:`g_i`, within the logarithm, which is biased unless batches are large. Here one number
    :math:`\nu_i \approx \log g_i` for each example is tracked across updates:

    .. math::

       \ell_i &= \log \mathrm{mean}_{a \in \{a_i, a'_i\},\, j \in \mathcal B_t \setminus i,\,
         z \in \{a_j, a'_j\}} \, e^{s(a, z) / \tau} \\
       e^{\nu_i} &\leftarrow (1 - \gamma_t) e^{\nu_i} + \gamma_t e^{\ell_i}
         \quad \text{for } i \in \mathcal B_t, \text{ all others stay} \\
       d_t &= \frac{1}{|\mathcal B_t|} \sum_{i \in \mathcal B_t}
         -\nabla s(a_i, a'_i) + \tau e^{\ell_i - \nu_i} \nabla \ell_i .

    An example that is sampled for the first time starts with its batch. Everything stays in the log
    domain, in float32 or wider, so no temperature is too small. ``tracker_rate=1`` is the batch
    loss.

    This is :func:`stochopt.compositional.estimate_rows` with the log-domain tracker, and an
    *estimator*: it ignores the incoming ``updates`` and stands first in a chain. One forward and
    one backward pass of ``embed`` on both views; an update takes no time for the examples that are
    not sampled.

    **Extra arguments of** ``update``:

    - ``batch``, a pair: two views of the same examples, each on a leading axis.
    - ``block_indices``, ``int32[B]`` *without repetition*: which examples, at least two. The index
      ``num_examples`` is padding, no negative for the others.

    Args:
      embed: ``embed(params, views) -> features``, a matrix with one row for each view, of any
        length but zero; it gets both views on one leading axis.
      num_examples: :math:`n`.
      temperature: :math:`\tau > 0`.
      tracker_rate: :math:`\gamma` in (0, 1], the weight on the new sample; a number or a schedule.
      table_sharding: see :func:`stochopt.compositional.estimate_coupled`.
      check: see :func:`stochopt.compositional.estimate_coupled`.

    Returns:
      The estimator. Its state is a :class:`stochopt.compositional.EstimateCoupledState`;
      ``tracked_value`` is :math:`\nu`, ``estimated_value`` the mean loss of the sampled examples.

    Raises:
      TypeError: ``update`` got no ``batch`` or no ``block_indices``.
      ValueError: a hyper-parameter is out of range, the views do not fit, or there is one example
        only, which has no negatives.

    References:
      Yuan et al., `Provable Stochastic Optimization for Global Contrastive Learning: Small Batch
      Does Not Harm Performance <https://arxiv.org/abs/2202.12387>`_, 2022
    """
    check_range("temperature", temperature, "(0, inf)")
    rows, update = _contrast(
        "estimate_contrastive", embed, num_examples, tracker_rate, 0.0, table_sharding, check
    )

    def update_fn(
        updates: optax.Updates,
        state: EstimateCoupledState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        block_indices: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EstimateCoupledState]:
        del updates, extra_args
        direction, _, state = update(state, params, temperature, batch, block_indices)
        return direction, state

    return optax.GradientTransformationExtraArgs(rows.init, update_fn)


class EstimateRobustContrastiveState(NamedTuple):
    """State of :func:`estimate_robust_contrastive`."""

    normalizers: EstimateCoupledState  # its tracked_value is nu
    # Temperature and averaged slope of each example side by side, read and written at once: two
    # tables would be copied, where a compiler fuses reading one with writing the other.
    individual_temperature: jax.Array  # shape=(num_examples, 2)


def estimate_robust_contrastive(
    embed: Embed,
    *,
    num_examples: int,
    temperature: jax.typing.ArrayLike = 0.1,
    min_temperature: jax.typing.ArrayLike = 0.05,
    max_temperature: jax.typing.ArrayLike = 0.7,
    radius: jax.typing.ArrayLike = 0.3,
    tracker_rate: optax.ScalarOrSchedule = 0.9,
    temperature_learning_rate: optax.ScalarOrSchedule = 0.01,
    temperature_rate: optax.ScalarOrSchedule = 0.9,
    table_sharding: jax.sharding.NamedSharding | None = None,
    check: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Estimates the gradient of the robust global contrastive loss, and moves its temperatures.

    Each example has a temperature of its own,

    .. math::

       F(x, \tau) = \frac1n \sum_i \left( -E\, s(a_i, a'_i) + \tau_i \log g_i(x, \tau_i)
         + \rho \tau_i \right), \qquad g_i(x, \tau_i) = E_{a_i, z}\, e^{s(a_i, z) / \tau_i} .

    The minimum over :math:`\tau_i \ge 0` is the worst case over all weights of the negatives within
    the Kullback-Leibler divergence :math:`\rho` of equal weights. With :math:`\nu_i, \ell_i` of
    :func:`estimate_contrastive` at :math:`\tau_i`, for the sampled examples:

    .. math::

       G_i &= \nu_i + \rho - e^{\ell_i - \nu_i}\, \frac{\sum_z e^{s(a, z) / \tau_i}
         s(a, z) / \tau_i}{\sum_z e^{s(a, z) / \tau_i}} \\
       m_i &\leftarrow (1 - \beta_t) m_i + \beta_t G_i, \qquad
       \tau_i \leftarrow \mathrm{clip}(\tau_i - \eta_t m_i, \tau_{\min}, \tau_{\max}) .

    :math:`G_i` is :math:`n` times the slope of :math:`F` in :math:`\tau_i`, and :math:`m_i` starts
    with the first one. The direction for the parameters is taken at the temperatures before. The
    extra arguments of ``update`` are those of :func:`estimate_contrastive`.

    Args:
      embed: as in :func:`estimate_contrastive`.
      num_examples: :math:`n`.
      temperature: where every :math:`\tau_i` starts, in :math:`[\tau_{\min}, \tau_{\max}]`.
      min_temperature: :math:`\tau_{\min} > 0`.
      max_temperature: :math:`\tau_{\max}`.
      radius: :math:`\rho \ge 0`; larger ones favour smaller temperatures.
      tracker_rate: :math:`\gamma` in (0, 1], the weight on the new sample; a number or a schedule.
      temperature_learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      temperature_rate: :math:`\beta` in (0, 1], weight on the new slope; a number or a schedule.
      table_sharding: see :func:`stochopt.compositional.estimate_coupled`.
      check: see :func:`stochopt.compositional.estimate_coupled`.

    Returns:
      The estimator. Its state holds ``individual_temperature``: in the first column :math:`\tau`,
      in the second :math:`m`.

    Raises:
      TypeError: ``update`` got no ``batch`` or no ``block_indices``.
      ValueError: as in :func:`estimate_contrastive`.

    References:
      Qiu et al., `Not All Semantics are Created Equal: Contrastive Self-supervised Learning with
      Automatic Temperature Individualization <https://arxiv.org/abs/2305.11965>`_, 2023
    """
    check_range("min_temperature", min_temperature, "(0, inf)")
    if not any(isinstance(t, jax.core.Tracer) for t in (min_temperature, max_temperature)):
        check_range("temperature", temperature, f"[{min_temperature}, {max_temperature}]")
    check_range("radius", radius, "[0, inf)")
    check_range("temperature_learning_rate", temperature_learning_rate, "[0, inf)")
    check_range("temperature_rate", temperature_rate, "(0, 1]")
    rows, update = _contrast(
        "estimate_robust_contrastive",
        embed,
        num_examples,
        tracker_rate,
        radius,
        table_sharding,
        check,
    )

    def init_fn(params: optax.Params) -> EstimateRobustContrastiveState:
        zeros = table.zeros(num_examples, (2,), jnp.result_type(float), table_sharding)
        start = jnp.stack([jnp.asarray(temperature, zeros.dtype), jnp.zeros([], zeros.dtype)])
        return EstimateRobustContrastiveState(rows.init(params), zeros + start[None])

    def update_fn(
        updates: optax.Updates,
        state: EstimateRobustContrastiveState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        block_indices: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EstimateRobustContrastiveState]:
        del updates, extra_args
        require_extra("estimate_robust_contrastive", "block_indices", block_indices, _PASS)
        indices = table.replicated(jnp.asarray(block_indices))
        temperatures = state.individual_temperature
        found, touched = table.look_up((temperatures, state.normalizers.visited), indices, indices)
        own, momentum = found.own.T
        # A row of padding is zero, which nothing may be divided by.
        own = jnp.where(indices < num_examples, own, temperature)
        direction, slope, normalizers = update(state.normalizers, params, own, batch, indices)
        at = lambda rate: value_at(rate, state.normalizers.count)
        averaged = _tree.moving_average(momentum, slope, 1 - at(temperature_rate))
        momentum = jnp.where(touched.own, averaged, slope)
        moved = own - at(temperature_learning_rate) * momentum
        moved = jnp.clip(moved, min_temperature, max_temperature)
        return direction, EstimateRobustContrastiveState(
            normalizers, table.write(temperatures, indices, jnp.stack([moved, momentum], axis=1))
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


_PASS = "batch=(views, other_views), block_indices=indices"


def _contrast(
    method: str,
    embed: Embed,
    num_examples: int,
    tracker_rate: optax.ScalarOrSchedule,
    radius: jax.typing.ArrayLike,
    table_sharding: jax.sharding.NamedSharding | None,
    check: bool,
) -> tuple[optax.GradientTransformationExtraArgs, Callable[..., tuple[Any, jax.Array, Any]]]:
    """The estimator on (unit features, temperatures), and an update that goes on to ``params``.

    ``update(state, params, temperatures, batch, block_indices)`` returns the direction, the slopes
    of the examples' losses in their temperatures, and the state.
    """
    check_count("num_examples", num_examples)

    def log_normalizers(point: Any, used: jax.Array) -> jax.Array:
        features, temperatures = point
        # The temperature magnifies the rounding of products in a narrower format.
        logits = jnp.matmul(features, features.T, precision="highest")
        logits = logits.reshape(2, len(used), 2, len(used)) / temperatures[None, :, None, None]
        negative = (used[None, :] & ~jnp.eye(len(used), dtype=bool))[None, :, None, :]
        negative = jnp.broadcast_to(negative, logits.shape)
        total = jax.nn.logsumexp(logits, axis=(0, 2, 3), where=negative)
        return total - jnp.log(jnp.sum(negative, axis=(0, 2, 3), dtype=total.dtype))

    def losses(values: jax.Array, point: Any, used: jax.Array) -> jax.Array:
        features, temperatures = point
        first, second = features.reshape(2, len(used), -1)
        return temperatures * (values + radius) - jnp.sum(first * second, axis=-1)

    rows = estimate_rows(
        log_normalizers,
        losses,
        tracker=log_moving_average(tracker_rate),
        inner_shape=jax.ShapeDtypeStruct((), jnp.result_type(float)),
        num_blocks=num_examples,
        table_sharding=table_sharding,
        check=check,
    )

    def update(
        state: EstimateCoupledState,
        params: Any,
        temperatures: jax.typing.ArrayLike,
        batch: Any,
        block_indices: Any,
    ) -> tuple[Any, jax.Array, EstimateCoupledState]:
        require_params(method, params)
        require_whole_tree(method, params)
        require_extra(method, "batch", batch, _PASS)
        require_extra(method, "block_indices", block_indices, _PASS)
        size = jnp.size(block_indices)
        if size < 2:
            raise ValueError(f"{method}: a batch of {size} has no negatives; pass two or more.")
        check_leading_axis("batch", batch, size, "block_indices")
        first, second = batch
        both = jax.tree.map(lambda *views: jnp.concatenate(views), first, second)

        def unit_features(params: Any) -> jax.Array:
            features = embed(params, both)
            if jnp.ndim(features) != 2 or len(features) != 2 * size:
                raise ValueError(
                    f"embed returned shape {jnp.shape(features)} for {2 * size} views; "
                    "it must be a matrix with one row for each."
                )
            return table.replicated(_unit(features.astype(_tree.at_least_float32(features.dtype))))

        features, pullback = jax.vjp(unit_features, params)
        indices = table.replicated(jnp.asarray(block_indices))
        used = indices < num_examples
        # The embedding is shared by all terms: one backward pass of it, behind their gradients.
        point = features, jnp.full(size, temperatures, features.dtype)
        (through, slope), state = rows.update(None, state, point, batch=used, block_indices=indices)
        (direction,) = pullback(through)
        num_used = jnp.maximum(jnp.sum(used, dtype=slope.dtype), 1)
        return optax.tree.conj(direction), slope * num_used, state

    return rows, update


def _unit(rows: jax.Array) -> jax.Array:
    """Rows of unit length; a row of zeros stays, with a finite derivative."""
    squared = jnp.sum(rows**2, axis=-1, keepdims=True)
    return rows * jax.lax.rsqrt(jnp.where(squared > 0, squared, 1))
