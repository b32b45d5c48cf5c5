"""Block descent on a linear model at the price of one gradient for each cycle."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt._checks import check_count, check_range, require_params
from stochopt._schedules import value_at
from stochopt.blocks import OrderOfCycle, cyclic
from stochopt.linear_models.column_blocks import column_blocks
from stochopt.linear_models.constants import block_smoothness
from stochopt.linear_models.model import LinearModel


class LinearModelDescentState(NamedTuple):
    """State of :func:`linear_model_descent`."""

    count: jax.Array  # type: ignore[assignment]  # cycles; shape=(), dtype=int32
    predictions: jax.Array  # A x at the point below; shape=(num_samples,)
    predicted_point: jax.Array  # like params
    num_predictions: jax.Array  # times they were computed anew; shape=(), dtype=int32


def linear_model_descent(
    model: LinearModel,
    *,
    block_width: int = 1,
    smoothness: Any = None,
    learning_rate: optax.ScalarOrSchedule = 1.0,
    order: OrderOfCycle = cyclic,
    refresh_every: int = 50,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Proximal gradient steps on blocks of coefficients, with the predictions :math:`z` kept.

    One ``update`` is one cycle over blocks of consecutive columns :math:`A_j`:

    .. math::

       x_j^+ = \mathrm{prox}_{r_j}\Big(x_j - \frac{\eta_j}{n} A_j^\top \varphi'(z, b),\;
         \eta_j\Big), \qquad
       z \leftarrow z + A_j (x_j^+ - x_j), \qquad \eta_j = \frac{\eta}{L_j}, \quad
       L_j = \frac{c}{n} \|A_j\|_2^2 .

    These are the points of :func:`stochopt.blocks.cyclic_block_descent`, which takes a gradient of
    the whole loss for each block; here a cycle reads every column once for the gradient and once
    for the predictions, as one gradient of the mean loss does.

    The predictions belong to one point. Where ``params`` is not exactly what the last update led
    to, because someone moved it, they are computed anew. They are also computed anew every
    ``refresh_every`` cycles: a cycle adds rounding errors of at most about
    :math:`m \varepsilon \|z\|_\infty`, with :math:`m` blocks and the unit of rounding
    :math:`\varepsilon`, and these add up until then. The price is one product with the design.

    A *mover*: it returns the new point minus the old, ignores the incoming ``updates``, and stands
    alone.

    **Extra arguments of** ``update``: ``key``, optional: of the order, which otherwise follows from
    ``seed`` and the number of the cycle.

    Args:
      model: from :func:`linear_model`; ``params`` is a vector in the dtype of its design. Large
        data should be an argument of the function that is compiled, which then makes the optimizer.
      block_width: columns in a block; the last may have fewer. Narrow blocks take longer steps,
        wide ones make better use of the machine. A multiple of the group size of the penalty.
      smoothness: :math:`L_j`, a number or one for each block; ``None`` for
        :func:`block_smoothness`, which is computed once, when the optimizer is made.
      learning_rate: :math:`\eta` in [0, 2), a number or a schedule. With a penalty that is not
        convex the objective falls for :math:`\eta \le 1`.
      order: ``order(key, num_blocks)``, such as :func:`stochopt.blocks.shuffled`.
      refresh_every: cycles from one computation of the predictions to the next.
      seed: of the orders.

    Returns:
      The optimizer. ``num_predictions`` in its state counts how often the predictions were
      computed anew.

    Raises:
      ValueError: a hyper-parameter is out of range or does not fit the model; a step is too long
        for the penalty; ``params`` is missing or no such vector.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from stochopt import linear_models as lm
      >>> design = lm.dense([[1.0, 1.0], [1.0, -1.0]])
      >>> model = lm.linear_model(design, jnp.array([4.0, 1.0]), lm.squared(), lm.l1(0.25))
      >>> optimizer = lm.linear_model_descent(model)
      >>> x = jnp.zeros(2)
      >>> state = optimizer.init(x)
      >>> for _ in range(2):
      ...     updates, state = optimizer.update(None, state, x)
      ...     x = optax.apply_updates(x, updates)
      >>> print(x, lm.duality_gap(model, x))
      [2.25 1.25] 0.0

    References:
      Friedman, Hastie, Tibshirani, `Regularization Paths for Generalized Linear Models via
      Coordinate Descent <https://doi.org/10.18637/jss.v033.i01>`_, 2010
    """
    check_count("block_width", block_width)
    check_count("refresh_every", refresh_every)
    check_range("learning_rate", learning_rate, "[0, 2)")
    if block_width % model.penalty.group_size:
        raise ValueError(
            f"block_width = {block_width} must be a multiple of the penalty's group_size = "
            f"{model.penalty.group_size}."
        )
    design = model.design
    num_samples, num_columns = design.shape
    blocks = column_blocks(design, block_width)
    num_blocks = blocks.slices.num_blocks
    constants = _constants(model, block_width, smoothness, num_blocks)
    _check_steps(model, constants, learning_rate)

    def init_fn(params: optax.Params) -> LinearModelDescentState:
        _check_vector(params, model)
        return LinearModelDescentState(
            count=jnp.zeros([], jnp.int32),
            predictions=jnp.zeros(num_samples, design.dtype),
            predicted_point=jnp.zeros(num_columns, design.dtype),
            num_predictions=jnp.zeros([], jnp.int32),
        )

    def update_fn(
        updates: optax.Updates,
        state: LinearModelDescentState,
        params: optax.Params | None = None,
        *,
        key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LinearModelDescentState]:
        del updates, extra_args
        require_params("linear_model_descent", params)
        _check_vector(params, model)
        params = jnp.asarray(params, design.dtype)
        moved = jnp.any(params != state.predicted_point)
        stale = moved | (state.count % refresh_every == 0)
        predictions = jax.lax.cond(stale, lambda: design.matvec(params), lambda: state.predictions)
        steps = jnp.asarray(value_at(learning_rate, state.count), design.dtype) / constants

        def step(index: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            x, z = carry
            gradient = blocks.rmatvec(index, model.loss.derivative(z, model.targets)) / num_samples
            old = blocks.slices.take(x, index)
            new = model.penalty.prox(old - steps[index] * gradient, steps[index])
            return blocks.slices.put(x, index, new), blocks.update(z, index, new - old)

        start = jnp.pad(params, (0, num_blocks * block_width - num_columns))
        if key is None:
            key = jax.random.fold_in(jax.random.key(seed), state.count)
        point, predictions = blocks.visit(order(key, num_blocks), step, (start, predictions))
        change = point[:num_columns] - params
        return change, LinearModelDescentState(
            count=optax.safe_increment(state.count),
            predictions=predictions,
            # Where the caller arrives: x + (y - x) is not y, but within the rounding of z.
            predicted_point=optax.apply_updates(params, change),
            num_predictions=jnp.where(
                stale, optax.safe_increment(state.num_predictions), state.num_predictions
            ),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _constants(model: LinearModel, block_width: int, smoothness: Any, num_blocks: int) -> jax.Array:
    """One positive number for each block."""
    if smoothness is None:
        constants = block_smoothness(model, block_width)
        # The loss does not depend on a block of zeros: any step will do.
        largest = jnp.max(constants)
        return jnp.where(constants > 0, constants, jnp.where(largest > 0, largest, 1))
    check_range("smoothness", smoothness, "(0, inf)")
    constants = jnp.asarray(smoothness, model.design.dtype)
    if constants.shape not in ((), (num_blocks,)):
        raise ValueError(
            f"smoothness must be a number or hold one for each of the {num_blocks} blocks, got "
            f"shape {constants.shape}."
        )
    return jnp.broadcast_to(constants, num_blocks)


def _check_steps(model: LinearModel, constants: jax.Array, learning_rate: Any) -> None:
    """Raises ``ValueError`` for a step that is known to be too long for the penalty."""
    numbers = (constants, learning_rate, model.penalty.largest_step)
    if any(callable(x) or isinstance(x, jax.core.Tracer) for x in numbers):
        return  # The operator gives NaN.
    steps = np.asarray(learning_rate) / np.asarray(constants)
    block = int(np.argmax(steps))
    if not steps[block] < model.penalty.largest_step:
        raise ValueError(
            f"linear_model_descent: the step {steps[block]:.3g} of block {block} must be below "
            f"{model.penalty.largest_step} for penalty {type(model.penalty).__name__}; scale the "
            "columns of design up or raise the penalty's gamma."
        )


def _check_vector(params: Any, model: LinearModel) -> None:
    shape, dtype = (model.design.shape[1],), model.design.dtype
    got = getattr(params, "shape", None), getattr(params, "dtype", None)
    if got[0] != shape or jax.dtypes.canonicalize_dtype(got[1]) != dtype:
        raise ValueError(
            f"linear_model_descent: params must be one array of shape {shape} and dtype {dtype}, "
            f"like the columns of design; got shape {got[0]} and dtype {got[1]}."
        )
