r"""Gradients corrected from an anchor: a point whose gradient is known better than by a batch.

With the anchor :math:`w` and its gradient :math:`h \approx \nabla f(w)`,

.. math:: d_t = \nabla f_{B_t}(x_t) - \nabla f_{B_t}(w) + h

has the error of :math:`h` and, beyond that, only the noise of a *difference* of gradients on one
batch, which is small where :math:`x_t` is near :math:`w`. Three methods differ in what they do with
the anchor: SVRG leaves it until the next full gradient; PAGE and SPIDER move it along,
:math:`w \leftarrow x_t, h \leftarrow d_t`, and take a full gradient at random or periodically.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _counters, _tree
from stochopt._checks import (
    check_count,
    check_range,
    require_extra,
    require_params,
    require_whole_tree,
)
from stochopt._schedules import value_at
from stochopt.variance_reduction.oracles import FullLoss, Loss, gradient_of

# refresh(count, key) -> whether this update takes a full gradient.
_Refresh = Callable[[jax.Array, jax.Array | None], jax.Array]


class EstimateAnchoredState(NamedTuple):
    """State of :func:`estimate_page`, :func:`estimate_spider` and :func:`estimate_svrg`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    num_gradients: jax.Array  # of batches, a full one is num_batches; shape=(), dtype=int32
    anchor_params: Any  # w, like params
    anchor_gradient: Any  # h, like params, float32 or wider


def estimate_page(
    loss: Loss,
    full_loss: FullLoss,
    *,
    num_batches: int,
    refresh_probability: optax.ScalarOrSchedule | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""The probabilistic gradient estimator, PAGE.

    .. math::

       d_t = \begin{cases}
         \nabla f(x_t) & \text{with probability } p \\
         d_{t-1} + \nabla f_{B_t}(x_t) - \nabla f_{B_t}(x_{t-1}) & \text{otherwise,}
       \end{cases} \qquad d_0 = \nabla f(x_0),

    with the *same* batch at both points. Its error is a martingale that each full gradient resets,

    .. math::

       E\|d_t - \nabla f(x_t)\|^2 \le (1 - p) \left( E\|d_{t-1} - \nabla f(x_{t-1})\|^2
         + \frac{L^2}{b} E\|x_t - x_{t-1}\|^2 \right),

    for batches of :math:`b` of the :math:`n` terms of :math:`f`, where :math:`L` is a
    mean-square Lipschitz constant of their gradients. Given the past it is
    biased by the error of :math:`d_{t-1}`. With the default :math:`p = b / (n + b)` an update costs
    three batches on average, one of them for the full gradients. Only the branch that is taken is
    computed; under ``jax.vmap`` over the coins both are.

    An *estimator*: ``update`` ignores the incoming ``updates``, so it stands first in a chain and
    any step may follow it. It remembers the previous point itself.

    **Extra arguments of** ``update``: ``batch``, passed to ``loss``; ``key``, optional: random key
    of the coin, which otherwise follows from ``seed`` and the number of the update.

    Args:
      loss: ``loss(params, batch) -> scalar``, the mean over a batch.
      full_loss: ``full_loss(params) -> scalar``, :math:`f`, whose gradient is taken whole.
      num_batches: :math:`n / b`, rounded up: a full gradient counts as so many in
        ``num_gradients``.
      refresh_probability: :math:`p` in (0, 1], a number or a schedule; ``None`` is the one above.
      seed: of the coins.

    Returns:
      The estimator. ``anchor_gradient`` in its state is :math:`d_t`, ``num_gradients`` the number
      of batch gradients so far.

    Raises:
      TypeError: ``update`` got no ``batch``, or ``params`` with masked leaves.
      ValueError: a hyper-parameter is out of range, or an oracle returned no scalar.

    References:
      Li, Bao, Zhang, Richtárik, `PAGE: A Simple and Optimal Probabilistic Gradient Estimator for
      Nonconvex Optimization <https://arxiv.org/abs/2008.10898>`_, 2021
    """
    check_count("num_batches", num_batches)
    if refresh_probability is None:
        refresh_probability = 1 / (1 + num_batches)
    check_range("refresh_probability", refresh_probability, "(0, 1]")

    def refresh(count: jax.Array, key: jax.Array | None) -> jax.Array:
        if key is None:
            key = jax.random.fold_in(jax.random.key(seed), count)
        return jax.random.bernoulli(key, value_at(refresh_probability, count))

    return _anchored("estimate_page", loss, full_loss, num_batches, refresh, _moves_along)


def estimate_spider(
    loss: Loss,
    full_loss: FullLoss,
    *,
    num_batches: int,
    refresh_every: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""The path-integrated gradient estimator, SPIDER (SARAH).

    :func:`estimate_page` with a full gradient in every :math:`q`-th update in place of the coin.
    The published method moves by steps of fixed length, and stops where :math:`d_t` is small:
    chain ``optax.normalize_by_update_norm()`` behind it for that; with plain steps it is SARAH.

    **Extra argument of** ``update``: ``batch``.

    Args:
      loss: ``loss(params, batch) -> scalar``, the mean over a batch.
      full_loss: ``full_loss(params) -> scalar``, whose gradient is taken whole.
      num_batches: how many batches make up the full loss, rounded up.
      refresh_every: :math:`q`; ``None`` is ``num_batches``.

    Raises:
      TypeError: ``update`` got no ``batch``, or ``params`` with masked leaves.
      ValueError: a hyper-parameter is out of range, or an oracle returned no scalar.

    References:
      Fang, Li, Lin, Zhang, `SPIDER: Near-Optimal Non-Convex Optimization via Stochastic Path
      Integrated Differential Estimator <https://arxiv.org/abs/1807.01695>`_, 2018;
      Nguyen, Liu, Scheinberg, Takáč, `SARAH: A Novel Method for Machine Learning Problems Using
      Stochastic Recursive Gradient <https://arxiv.org/abs/1703.00102>`_, 2017
    """
    check_count("num_batches", num_batches)
    refresh = _periodic(num_batches if refresh_every is None else refresh_every)
    return _anchored("estimate_spider", loss, full_loss, num_batches, refresh, _moves_along)


def estimate_svrg(
    loss: Loss,
    full_loss: FullLoss,
    *,
    num_batches: int,
    refresh_every: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""The gradient estimator with a snapshot, SVRG.

    .. math::

       d_t = \nabla f_{B_t}(x_t) - \nabla f_{B_t}(w) + \nabla f(w),

    where the snapshot :math:`w` is the present point in every :math:`m`-th update (which takes
    :math:`d_t = \nabla f(x_t)`) and stays in between. Unbiased, given the past, with

    .. math:: E\|d_t - \nabla f(x_t)\|^2 \le \frac{L^2}{b} E\|x_t - w\|^2

    for batches of :math:`b` terms. Only the branch that is taken is computed.

    **Extra argument of** ``update``: ``batch``.

    Args:
      loss: ``loss(params, batch) -> scalar``, the mean over a batch.
      full_loss: ``full_loss(params) -> scalar``, whose gradient is taken whole.
      num_batches: :math:`n / b`, how many batches make up the full loss, rounded up.
      refresh_every: :math:`m`; ``None`` is twice ``num_batches``.

    Raises:
      TypeError: ``update`` got no ``batch``, or ``params`` with masked leaves.
      ValueError: a hyper-parameter is out of range, or an oracle returned no scalar.

    References:
      Johnson, Zhang, `Accelerating Stochastic Gradient Descent using Predictive Variance Reduction
      <https://papers.nips.cc/paper/2013/hash/ac1dd209cbcc5e5d1c6e28598e8cbbe8-Abstract.html>`_,
      2013
    """
    check_count("num_batches", num_batches)
    refresh = _periodic(2 * num_batches if refresh_every is None else refresh_every)
    return _anchored("estimate_svrg", loss, full_loss, num_batches, refresh, _stays)


class _Anchor(NamedTuple):
    params: Any
    gradient: Any


def _moves_along(refreshed: jax.Array, old: _Anchor, here: _Anchor) -> _Anchor:
    del refreshed, old
    return here


def _stays(refreshed: jax.Array, old: _Anchor, here: _Anchor) -> _Anchor:
    return optax.tree.where(refreshed, here, old)


def _periodic(every: int) -> _Refresh:
    check_count("refresh_every", every)
    return lambda count, key: count % every == 0


def _anchored(
    method: str,
    loss: Loss,
    full_loss: FullLoss,
    num_batches: int,
    refresh: _Refresh,
    next_anchor: Callable[[jax.Array, _Anchor, _Anchor], _Anchor],
) -> optax.GradientTransformationExtraArgs:
    gradient, full_gradient = gradient_of("loss", loss), gradient_of("full_loss", full_loss)

    def init_fn(params: optax.Params) -> EstimateAnchoredState:
        # The first update writes the anchor, so leaves may be abstract: zeros do.
        return EstimateAnchoredState(
            count=jnp.zeros([], jnp.int32),
            num_gradients=jnp.zeros([], jnp.int32),
            anchor_params=optax.tree.zeros_like(params),
            anchor_gradient=_tree.zeros_at_least_float32(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: EstimateAnchoredState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EstimateAnchoredState]:
        del updates, extra_args
        require_params(method, params)
        require_whole_tree(method, params)
        require_extra(method, "batch", batch, "batch=batch")
        anchor = _Anchor(state.anchor_params, state.anchor_gradient)
        refreshed = (state.count == 0) | refresh(state.count, key)

        def from_all() -> Any:
            return optax.tree.cast_like(full_gradient(params), anchor.gradient)

        def from_anchor() -> Any:
            here = optax.tree.cast_like(gradient(params, batch), anchor.gradient)
            # In this order it is exact for a batch of all samples, to the last digit.
            return _tree.corrected(here, anchor.gradient, gradient(anchor.params, batch), 1.0)

        direction = jax.lax.cond(refreshed, from_all, from_anchor)
        here = _Anchor(_tree.copy(params), _tree.copy(direction))
        anchor = next_anchor(refreshed, anchor, here)
        cost = jnp.where(refreshed, jnp.int32(num_batches), jnp.int32(2))
        return optax.tree.cast_like(direction, params), EstimateAnchoredState(
            count=optax.safe_increment(state.count),
            num_gradients=_counters.add(state.num_gradients, cost),
            anchor_params=anchor.params,
            anchor_gradient=anchor.gradient,
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
