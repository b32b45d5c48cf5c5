r"""Gradients of :math:`F(x) = f(E_\zeta g_\zeta(x))`, a function of an expectation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import check_range, require_extra, require_params, require_whole_tree
from stochopt.compositional.trackers import Tracker, recursive_tracker

#: ``inner(params, batch) -> y``, the batch mean of the inner function; any pytree of arrays.
Inner = Callable[[Any, Any], Any]
#: ``outer(y, params, batch) -> scalar``; ``params`` carries additive terms and may be ignored.
Outer = Callable[[Any, Any, Any], jax.Array]


class EstimateCompositionalState(NamedTuple):
    """State of :func:`estimate_compositional`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    tracker: Any  # the tracker's own state
    estimated_value: jax.Array  # f at the tracked value; shape=(), float32 or wider


def estimate_compositional(
    inner: Inner, outer: Outer, *, tracker: Tracker, inner_shape: Any
) -> optax.GradientTransformationExtraArgs:
    r"""Estimates the gradient of a function of an expectation.

    The sample gradient :math:`J_{g_\zeta}(x)^T \nabla f(g_\zeta(x))` is biased, because
    :math:`\nabla f` of a mean is not the mean of :math:`\nabla f`. A tracker keeps an estimate
    :math:`u_t` of :math:`g(x_t)` instead, and the direction is

    .. math::

       d_t = J_{g_{\zeta'}}(x_t)^T \, \nabla_u f_\xi(u_t, x_t) + \nabla_x f_\xi(u_t, x_t).

    This is an *estimator*: ``update`` ignores the incoming ``updates`` (they may be ``None`` in a
    plain chain), evaluates the oracles at ``params`` and returns a gradient, so it stands first in
    a chain and any step may follow it. It needs the whole ``params``: put ``optax.masked`` and
    ``optax.partition`` behind it, never around it, and pass a larger batch instead of
    ``optax.MultiSteps``.

    **Extra arguments of** ``update``: ``batch``, passed to both oracles; ``jacobian_batch``,
    optional: an independent draw for the Jacobian :math:`J_{g_{\zeta'}}`. Sharing one draw (the
    default) costs one forward pass less and leaves a bias of the order of the tracker's rate.

    Args:
      inner: ``inner(params, batch) -> y``, the batch mean of :math:`g_\zeta(x)`.
      outer: ``outer(y, params, batch) -> scalar``, :math:`f_\xi(y)` plus any term in ``params``.
      tracker: how the inner value is tracked, such as
        :func:`stochopt.compositional.recursive_tracker`.
      inner_shape: ``jax.eval_shape(inner, params, batch)``, the shapes and dtypes of ``y``.

    Returns:
      The estimator. Its state holds ``estimated_value``, the objective at the tracked value.

    Raises:
      TypeError: ``update`` got no ``batch``, or ``params`` with masked leaves.
    """

    def init_fn(params: optax.Params) -> EstimateCompositionalState:
        return EstimateCompositionalState(
            count=jnp.zeros([], jnp.int32),
            tracker=tracker.init(params, inner_shape),
            estimated_value=jnp.zeros([], _tree.scalar_dtype(*jax.tree.leaves(inner_shape))),
        )

    def update_fn(
        updates: optax.Updates,
        state: EstimateCompositionalState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        jacobian_batch: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EstimateCompositionalState]:
        del updates, extra_args
        require_params("estimate_compositional", params)
        require_whole_tree("estimate_compositional", params)
        require_extra("estimate_compositional", "batch", batch, "batch=batch")

        inner_at = lambda point: inner(point, batch)
        if jacobian_batch is None:
            sample, pullback = jax.vjp(inner_at, params)
        else:
            sample = inner_at(params)
            _, pullback = jax.vjp(lambda point: inner(point, jacobian_batch), params)
        tracked, tracker_state = tracker.update(
            state.tracker, state.count, params, sample, inner_at
        )
        at = optax.tree.cast_like(tracked, sample)
        value, (slope, direct) = jax.value_and_grad(outer, argnums=(0, 1))(at, params, batch)
        (through_inner,) = pullback(slope)
        # Conjugated, as optax wants complex gradients; nothing changes for real ones.
        gradient = optax.tree.conj(optax.tree.add(through_inner, direct))
        return gradient, EstimateCompositionalState(
            count=optax.safe_increment(state.count),
            tracker=tracker_state,
            # A copy: an outer function may return its argument, which the tracker keeps.
            estimated_value=jnp.array(value, state.estimated_value.dtype),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def scsc(
    inner: Inner,
    outer: Outer,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    tracker_rate: optax.ScalarOrSchedule = 0.1,
    inner_shape: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""SCSC, the stochastically corrected stochastic compositional gradient method.

    Minimizes :math:`F(x) = f(E_\zeta g_\zeta(x))` with one batch a step:

    .. math::

       u_t &= (1 - \beta_t)\left(u_{t-1} - g_\zeta(x_{t-1})\right) + g_\zeta(x_t) \\
       x_{t+1} &= x_t - \alpha_t \, J_{g_\zeta}(x_t)^T \nabla f_\xi(u_t)

    It is ``chain(estimate_compositional(...), scale_by_learning_rate(...))``; to drive another
    step, such as Adam's, chain :func:`stochopt.compositional.estimate_compositional` with it.
    With :math:`\alpha_t, \beta_t \propto 1 / \sqrt{T}` the average of
    :math:`E\|\nabla F(x_t)\|^2` over :math:`T` steps is :math:`O(T^{-1/2})`. The ratio
    :math:`\beta / \alpha` governs stability. Cost a step: two forward passes and one backward pass
    of ``inner``; memory: the inner value and one copy of ``params``.

    Args:
      inner: ``inner(params, batch) -> y``.
      outer: ``outer(y, params, batch) -> scalar``.
      learning_rate: :math:`\alpha \ge 0`, a number or a schedule.
      tracker_rate: :math:`\beta` in (0, 1], weight on the new sample; a number or a schedule.
      inner_shape: ``jax.eval_shape(inner, params, batch)``.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, stochopt
      >>> inner = lambda x, noise: (1.0 + noise) * x      # E inner = x
      >>> outer = lambda y, x, noise: jnp.sum((y - 1.0) ** 2)
      >>> params, key = jnp.zeros(3), jax.random.key(0)
      >>> shape = jax.eval_shape(inner, params, 0.0)
      >>> optimizer = stochopt.scsc(inner, outer, 0.05, tracker_rate=0.1, inner_shape=shape)
      >>> state = optimizer.init(params)
      >>> @jax.jit
      ... def step(params, state, noise):
      ...     updates, state = optimizer.update(None, state, params, batch=noise)
      ...     return optax.apply_updates(params, updates), state
      >>> for noise in jax.random.normal(key, (300,)):
      ...     params, state = step(params, state, noise)
      >>> bool(jnp.all(jnp.abs(params - 1.0) < 0.2))  # the naive gradient: 0.5
      True

    References:
      Chen, Sun, Yin, `Solving Stochastic Compositional Optimization is Nearly as Easy as Solving
      Stochastic Optimization <https://arxiv.org/abs/2008.10847>`_, 2021
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    check_range("tracker_rate", tracker_rate, "(0, 1]")
    return optax.chain(
        estimate_compositional(
            inner, outer, tracker=recursive_tracker(tracker_rate), inner_shape=inner_shape
        ),
        optax.scale_by_learning_rate(learning_rate),
    )
