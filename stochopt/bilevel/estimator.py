r"""Estimators that follow a field, and the wrapper that keeps the hidden variables in its state."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import require_extra, require_params, require_whole_tree
from stochopt._oracles import check_like
from stochopt.bilevel.field import Directions, Draw, Field
from stochopt.compositional import Sample, Tracker


class FieldParams(NamedTuple):
    """The variables of the field form: the parameters and the hidden variables beside them."""

    params: Any
    hidden: Any


def require_field_params(method: str, params: Any, start: Callable[[Any], Any]) -> FieldParams:
    """Raises ``TypeError`` or ``ValueError`` unless ``params`` are those of the field form.

    Args:
      method: the estimator's name.
      params: what it got.
      start: ``start(lower_params)``, the hidden variables at the start, the lower one first.
    """
    require_params(method, params)
    require_whole_tree(method, params)
    if not isinstance(params, FieldParams):
        raise TypeError(
            f"{method}: params must be a FieldParams, the parameters and the hidden variables "
            f"beside them, got {type(params).__name__}; hide(...) keeps the latter in its state."
        )
    hidden = params.hidden
    wanted = jax.eval_shape(start, hidden[0] if isinstance(hidden, tuple) else hidden)
    if type(hidden) is not type(wanted):
        raise TypeError(
            f"{method}: the hidden variables must be a {type(wanted).__name__}, got "
            f"{type(hidden).__name__}; start from field.start(lower_params)."
        )
    check_like(f"{method}: hidden", hidden, wanted, "field.start(lower_params)")
    return params


class EstimateFieldState(NamedTuple):
    """State of :func:`estimate_field`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    # The hidden variables as plain tuples, so that each name stands in a state once.
    tracked_directions: Any  # like the variables, or None without a tracker
    previous_params: Any  # the variables of the last update, or None where nothing needs them
    estimated_value: jax.Array  # of the upper function at the last draw, shape=()
    curvature: jax.Array  # of the lower function along the adjoint variable, shape=()


def estimate_field(
    field: Field,
    *,
    tracker: Tracker | None = None,
    hidden_tracker: Tracker | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Directions of a field, as they are or with reduced variance: the field form.

    ``params`` is a :class:`stochopt.bilevel.FieldParams`: the parameters and the hidden variables,
    all of them visible, so that ``optax.partition`` behind the estimator gives each an optimizer
    of its own. :func:`stochopt.bilevel.hide` keeps the hidden ones in the state instead.

    This is an *estimator*: it ignores the incoming ``updates`` and stands first in a chain.
    **Extra arguments of** ``update``: ``batch``; ``jacobian_batch``, optional: an independent draw
    for the direction of the parameters; ``key``, optional: random key for fields that draw by
    themselves, which otherwise follows from ``seed`` and the number of the update.

    Args:
      field: such as :func:`stochopt.bilevel.adjoint_field`.
      tracker: how directions take in a draw, such as
        :func:`stochopt.compositional.recursive_tracker`; ``None`` takes them as they are.
      hidden_tracker: another one for the hidden variables; ``None`` means ``tracker``.
      seed: of the keys.

    Returns:
      The estimator.

    Raises:
      TypeError: ``update`` got no ``batch``, or masked leaves, or ``params`` that are no
        :class:`stochopt.bilevel.FieldParams` with the hidden variables of the field.
      ValueError: hidden variables are not shaped like those of ``field.start``, or an oracle
        returned no scalar.
    """
    parts = Directions(tracker, hidden_tracker or tracker)
    tracks = any(part is not None for part in parts)
    keeps_previous = any(part is not None and part.keeps_previous for part in parts)

    def init_fn(params: FieldParams) -> EstimateFieldState:
        # What is not read before the first update has written it: zeros do.
        tracked = Directions(
            *[
                None if part is None else _tree.zeros_at_least_float32(variable)
                for part, variable in zip(parts, _nameless(params), strict=True)
            ]
        )
        zero = jnp.zeros([], _tree.scalar_dtype(*jax.tree.leaves(params)))
        return EstimateFieldState(
            count=jnp.zeros([], jnp.int32),
            tracked_directions=tracked if tracks else None,
            previous_params=optax.tree.zeros_like(_nameless(params)) if keeps_previous else None,
            estimated_value=zero,
            curvature=jnp.zeros_like(zero),
        )

    def update_fn(
        updates: optax.Updates,
        state: EstimateFieldState,
        params: FieldParams | None = None,
        *,
        batch: Any = None,
        jacobian_batch: Any = None,
        key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[FieldParams, EstimateFieldState]:
        del updates, extra_args
        params = require_field_params("estimate_field", params, field.start)
        require_extra("estimate_field", "batch", batch, "batch=batch")
        if key is None:
            key = jax.random.fold_in(jax.random.key(seed), state.count)
        other_batch = batch if jacobian_batch is None else jacobian_batch
        draw = Draw(batch, other_batch, key, state.count)
        first = state.count == 0
        sampled = field.sample(*params, draw)
        previous = None
        if keeps_previous:
            # On first touch both points coincide: the old sample is finite wherever the new is.
            previous = optax.tree.where(first, params, _named(state.previous_params, params))
        used: list[Any] = []
        kept: list[Any] = []
        for position, part in enumerate(parts):
            direction = _nameless(sampled.directions)[position]
            if part is None:
                used.append(direction)
                kept.append(None)
                continue
            assert state.tracked_directions is not None
            # Both parts look at the same old point: the compiler does it once.
            part_at = lambda at, k=position: _nameless(field.sample(at[0], at[1], draw).directions)[
                k
            ]
            sample = Sample(direction, part_at, params, previous, first, state.count)
            use, keep = part.update(state.tracked_directions[position], sample)
            used.append(use)
            kept.append(keep)
        directions = optax.tree.cast_like(_named(used, params), params)
        as_kept = lambda x: jnp.asarray(x, state.estimated_value.dtype)
        return directions, EstimateFieldState(
            count=optax.safe_increment(state.count),
            tracked_directions=Directions(kept[0], kept[1]) if tracks else None,
            previous_params=_tree.copy(_nameless(params)) if keeps_previous else None,
            estimated_value=jnp.array(as_kept(sampled.value)),
            curvature=as_kept(sampled.curvature),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _nameless(variables: Any) -> Directions:
    params, hidden = variables
    return Directions(params, tuple(hidden))


def _named(variables: Any, like: FieldParams) -> FieldParams:
    params, hidden = variables
    return FieldParams(params, type(like.hidden)(*hidden))


class HideState(NamedTuple):
    """State of :func:`hide`."""

    hidden: Any  # the hidden variables of the field
    hidden_optimizer: tuple[Any, ...]  # the states of their optimizers
    estimator: Any


def hide(
    estimator: optax.GradientTransformationExtraArgs,
    start: Any,
    optimizers: Sequence[optax.GradientTransformation],
) -> optax.GradientTransformationExtraArgs:
    """Keeps the hidden variables of a field estimator in the state and moves them by itself.

    What is left is an estimator for the parameters alone. All variables move from the same point:
    the direction for the parameters is taken before the hidden ones move.

    Args:
      estimator: on :class:`stochopt.bilevel.FieldParams`, such as
        :func:`stochopt.bilevel.estimate_field`.
      start: the hidden variables at the start, such as ``field.start(lower_params)``.
      optimizers: one for each hidden variable.

    Returns:
      The estimator. Its state holds the variables under their names, such as ``lower_params``.

    Raises:
      ValueError: the numbers of optimizers and hidden variables differ, or ``estimator`` returned
        directions that are not like ``start``.
    """
    optimizers = tuple(optax.with_extra_args_support(o) for o in optimizers)
    if len(optimizers) != len(start):
        raise ValueError(f"optimizers has {len(optimizers)} entries for {len(start)} variables.")

    def init_fn(params: optax.Params) -> HideState:
        hidden = _tree.copy(start)
        states = tuple(o.init(x) for o, x in zip(optimizers, hidden, strict=True))
        return HideState(hidden, states, estimator.init(FieldParams(params, hidden)))

    def update_fn(
        updates: optax.Updates,
        state: HideState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, HideState]:
        del updates
        require_params("hide", params)
        joint = FieldParams(params, state.hidden)
        directions, inside = estimator.update(None, state.estimator, joint, **extra_args)
        check_like("the estimator's hidden direction", directions.hidden, state.hidden, "start")
        moved = [
            optimizer.update(direction, inner, x)
            for optimizer, direction, inner, x in zip(
                optimizers, directions.hidden, state.hidden_optimizer, state.hidden, strict=True
            )
        ]
        steps, states = zip(*moved, strict=True)
        hidden = optax.apply_updates(state.hidden, type(state.hidden)(*steps))
        return directions.params, HideState(hidden, tuple(states), inside)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
