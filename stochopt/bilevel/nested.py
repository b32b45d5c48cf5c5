r"""Hypergradients with warm-started inner loops: a few lower steps before every direction."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import check_count, require_extra, require_params, require_whole_tree
from stochopt._oracles import scalar_oracle
from stochopt.bilevel.field import SampleBatch, solved_direction
from stochopt.bilevel.hypergradient import LinearSolver, Lower, Upper, lower_products


class EstimateNestedState(NamedTuple):
    """State of :func:`estimate_nested`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    lower_params: Any  # y
    lower_optimizer: Any
    adjoint: Any  # p, like y; None where the system is solved anew
    adjoint_optimizer: Any
    estimated_value: jax.Array  # of the upper function at the batch, shape=()
    curvature: jax.Array  # of the lower function along the adjoint variable, shape=()


def estimate_nested(
    upper: Upper,
    lower: Lower,
    *,
    sample: SampleBatch,
    lower_params: Any,
    lower_optimizer: optax.GradientTransformation,
    num_lower_steps: int = 1,
    solver: LinearSolver | None = None,
    adjoint_optimizer: optax.GradientTransformation | None = None,
    num_adjoint_steps: int = 1,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Estimates a hypergradient after a few steps on the lower problem, each with a fresh draw.

    One update, with :math:`y` and :math:`p` kept from the last one:

    .. math::

       y &\leftarrow y - \text{step}(\nabla_y g_\zeta(x, y)) \qquad
         \text{num\_lower\_steps times} \\
       p &\leftarrow p - \text{step}\left(\nabla^2_{yy} g_\zeta(x, y)\, p
         - \nabla_y f_\zeta(x, y)\right) \qquad \text{num\_adjoint\_steps times} \\
       d &= \nabla_x f_\xi(x, y) - \nabla^2_{xy} g_\xi(x, y)\, p

    or, with a ``solver`` in place of the adjoint steps, :math:`p` solved anew from :math:`\xi`,
    where the terms of a stochastic series use fresh draws of the Hessian.

    An *estimator*: it ignores the incoming ``updates`` and stands first in a chain.
    **Extra arguments of** ``update``: ``batch``, :math:`\xi`; ``key``, optional: random key for
    the draws of the inner loops, which otherwise follows from ``seed`` and the number of the
    update.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`.
      sample: ``sample(key) -> batch``, a fresh draw for a step of an inner loop.
      lower_params: where :math:`y` starts.
      lower_optimizer: of :math:`y`.
      num_lower_steps: on :math:`y` in each update.
      solver: of the linear system, such as :func:`stochopt.bilevel.neumann`.
      adjoint_optimizer: of :math:`p`, which starts at zero; one of this and ``solver``.
      num_adjoint_steps: on :math:`p` in each update.
      seed: of the keys.

    Returns:
      The estimator.

    Raises:
      TypeError: ``update`` got no ``batch``, or masked leaves.
      ValueError: a count is not positive, neither or both of ``solver`` and
        ``adjoint_optimizer`` are given, or an oracle returned no scalar.
    """
    check_count("num_lower_steps", num_lower_steps)
    check_count("num_adjoint_steps", num_adjoint_steps)
    if (solver is None) == (adjoint_optimizer is None):
        raise ValueError("give one of solver and adjoint_optimizer.")
    lower_optimizer = optax.with_extra_args_support(lower_optimizer)
    upper, lower = scalar_oracle("upper", upper), scalar_oracle("lower", lower)
    if adjoint_optimizer is not None:
        adjoint_optimizer = optax.with_extra_args_support(adjoint_optimizer)

    def init_fn(params: optax.Params) -> EstimateNestedState:
        del params
        start, zeros = _tree.copy(lower_params), optax.tree.zeros_like(lower_params)
        adjoint = adjoint_optimizer is not None
        zero = jnp.zeros([], _tree.scalar_dtype(*jax.tree.leaves(lower_params)))
        return EstimateNestedState(
            count=jnp.zeros([], jnp.int32),
            lower_params=start,
            lower_optimizer=lower_optimizer.init(start),
            adjoint=zeros if adjoint else None,
            adjoint_optimizer=adjoint_optimizer.init(zeros) if adjoint_optimizer else None,
            estimated_value=zero,
            curvature=jnp.zeros_like(zero),
        )

    def update_fn(
        updates: optax.Updates,
        state: EstimateNestedState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EstimateNestedState]:
        del updates, extra_args
        require_params("estimate_nested", params)
        require_whole_tree("estimate_nested", params)
        require_extra("estimate_nested", "batch", batch, "batch=batch")
        if key is None:
            key = jax.random.fold_in(jax.random.key(seed), state.count)
        for_lower, for_adjoint, for_terms, for_solver = jax.random.split(key, 4)

        def slope(y: Any, draw: Any) -> Any:
            return jax.grad(lower, argnums=1)(params, y, draw)

        y, lower_state = _descend(
            lower_optimizer,
            slope,
            (state.lower_params, state.lower_optimizer),
            lambda k: sample(jax.random.fold_in(for_lower, k)),
            num_lower_steps,
        )

        def residual(p: Any, draw: Any) -> Any:
            product = lower_products(lower, params, y, draw, p).hessian_product
            return optax.tree.sub(product, jax.grad(upper, argnums=1)(params, y, draw))

        adjoint = adjoint_state = None
        if adjoint_optimizer is not None:
            adjoint, adjoint_state = _descend(
                adjoint_optimizer,
                residual,
                (state.adjoint, state.adjoint_optimizer),
                lambda k: sample(jax.random.fold_in(for_adjoint, k)),
                num_adjoint_steps,
            )
        value, direction, curvature = solved_direction(
            upper,
            lower,
            solver or LinearSolver(lambda product, right, key: adjoint),
            params,
            y,
            batch,
            for_solver,
            draws=lambda k: sample(jax.random.fold_in(for_terms, k)),
        )
        as_kept = lambda x: jnp.array(x, state.estimated_value.dtype)
        return direction, EstimateNestedState(
            count=optax.safe_increment(state.count),
            lower_params=y,
            lower_optimizer=lower_state,
            adjoint=adjoint,
            adjoint_optimizer=adjoint_state,
            estimated_value=as_kept(value),
            curvature=as_kept(curvature),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _descend(
    optimizer: optax.GradientTransformationExtraArgs,
    slope: Callable[[Any, Any], Any],
    start: tuple[Any, Any],
    draw: Callable[[Any], Any],
    num_steps: int,
) -> tuple[Any, Any]:
    """Point and optimizer state after steps along ``slope(point, draw(k))``."""

    def step(k: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        point, state = carry
        updates, state = optimizer.update(slope(point, draw(k)), state, point)
        return optax.apply_updates(point, updates), state

    return jax.lax.fori_loop(0, num_steps, step, start)
