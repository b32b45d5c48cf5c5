"""Models of a sampled loss around a point."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import check_arguments, check_range
from stochopt._oracles import check_shapes
from stochopt.model_based.box import duality_gap, least_absolute_multipliers
from stochopt.model_based.step import Model, Move, Sample
from stochopt.proximal import Prox

#: ``loss_prox(params, step, batch) -> params``: that of ``step`` times the loss on a batch.
LossProx = Callable[[Any, Any, Any], Any]
#: ``residuals(params, batch) -> c``: numbers whose mean absolute value is the loss.
Residuals = Callable[[Any, Any], jax.Array]


def subgradient(prox: Prox | None = None) -> Model:
    r"""The loss as a line, and a regularizer as it is.

    .. math::

       f_x(y) = f(x) + \langle g, y - x \rangle, \qquad
       x_{t+1} = \mathrm{prox}_{\eta r}(x_t - \eta g)

    Args:
      prox: ``prox(params, step) -> params`` of :math:`r`; ``None`` where there is none.

    Raises:
      TypeError: ``prox`` takes other arguments.
      ValueError: ``prox`` returned another structure or other shapes than those of ``params``.
    """
    if prox is not None:
        check_arguments("prox", prox, "params, step")

    def minimize(sample: Sample, step: jax.Array) -> Move:
        if prox is None:
            return Move(_scaled(-step, sample.gradient), 0)
        point = prox(_tree.add_scaled(sample.params, -step, sample.gradient), step)
        check_shapes("prox", point, sample.params, "params")
        return Move(optax.tree.sub(point, sample.params), 0)

    return Model((), minimize)


def truncated(lower_bound: jax.typing.ArrayLike = 0.0) -> Model:
    r"""The loss as a line that ends at a lower bound.

    .. math::

       f_x(y) = \max\left(f(x) + \langle g, y - x \rangle,\, b\right), \qquad
       x_{t+1} = x_t - \min\left(\eta, \frac{(f(x_t) - b)_+}{\|g\|^2}\right) g

    Args:
      lower_bound: :math:`b`, of the loss on any batch; with minus infinity this is
        :func:`subgradient`.
    """
    check_range("lower_bound", lower_bound, "[-inf, inf)")

    def minimize(sample: Sample, step: jax.Array) -> Move:
        leaves = jax.tree.leaves(sample.gradient)
        squared_norm = sum((_tree.dot(x, x, step.dtype) for x in leaves), jnp.zeros([], step.dtype))
        excess = jnp.maximum(jnp.asarray(sample.value, step.dtype) - lower_bound, 0)
        moves = squared_norm > 0
        to_bound = jnp.where(moves, excess / jnp.where(moves, squared_norm, 1), 0)
        return Move(_scaled(-jnp.minimum(step, to_bound), sample.gradient), 0)

    return Model(("value",), minimize)


def prox_linear(residuals: Residuals) -> Model:
    r"""A mean of absolute values whose insides are taken as lines.

    For a loss :math:`f(x) = \frac1m \sum_i |c_i(x)|` with smooth :math:`c_i` and
    :math:`z_i = \nabla c_i(x)`,

    .. math::

       f_x(y) = \frac1m \sum_i \left|c_i(x) + \langle z_i, y - x \rangle\right| .

    One residual has the closed form

    .. math::

       x_{t+1} = x_t - \mathrm{clip}\left(\frac{c}{\|z\|^2}, -\eta, \eta\right) z .

    More of them, a minibatch, need one gradient for each and the solution of a quadratic program
    with :math:`m` unknowns; see :func:`stochopt.model_based.least_absolute_multipliers`.

    Args:
      residuals: ``residuals(params, batch) -> c``, a scalar or a vector.

    Raises:
      TypeError: ``residuals`` takes other arguments.
      ValueError: ``residuals`` returned something else than a real scalar or vector.
    """
    check_arguments("residuals", residuals, "params, batch")

    def minimize(sample: Sample, step: jax.Array) -> Move:
        inside = lambda params: _as_vector(residuals(params, sample.batch))
        values, pullback = jax.vjp(inside, sample.params)
        (rows,) = jax.vmap(pullback)(jnp.eye(values.size, dtype=values.dtype))
        rows = jax.tree.map(jnp.conj, rows)  # as optax wants complex gradients

        products = (_products(x, step.dtype) for x in jax.tree.leaves(rows))
        gram = sum(products, jnp.zeros([], step.dtype))
        share = step / values.size
        matrix, c = share * gram, values.astype(step.dtype)
        multipliers = least_absolute_multipliers(matrix, c)

        def combine(leaf: jax.Array) -> jax.Array:
            wide = _tree.at_least_float32(leaf.dtype)
            return jnp.tensordot((-share * multipliers).astype(wide), leaf.astype(wide), axes=1)

        return Move(jax.tree.map(combine, rows), duality_gap(matrix, c, multipliers))

    return Model(("batch",), minimize)


def prox_point(loss_prox: LossProx) -> Model:
    r"""The loss itself.

    .. math::

       f_x(y) = f(y), \qquad
       x_{t+1} = \arg\min_y\; f(y) + \frac{1}{2 \eta} \|y - x_t\|^2

    Args:
      loss_prox: ``loss_prox(params, step, batch) -> params``, that minimizer; taken to be exact.
        :func:`stochopt.model_based.iterated_prox` makes an approximate one from a loss.

    Raises:
      TypeError: ``loss_prox`` takes other arguments.
      ValueError: ``loss_prox`` returned another structure or other shapes than those of ``params``.
    """
    check_arguments("loss_prox", loss_prox, "params, step, batch")

    def minimize(sample: Sample, step: jax.Array) -> Move:
        point = loss_prox(sample.params, step, sample.batch)
        check_shapes("loss_prox", point, sample.params, "params")
        return Move(optax.tree.sub(point, sample.params), 0)

    return Model(("batch",), minimize)


def _scaled(factor: jax.Array, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: _tree.scale(factor, leaf), tree)


def _products(rows: jax.Array, dtype: Any) -> jax.Array:
    """Real inner products of all pairs of rows, the same on all devices."""
    parts = (rows.real, rows.imag) if jnp.iscomplexobj(rows) else (rows,)
    axes = tuple(range(1, rows.ndim))
    mesh = jax.typeof(rows).sharding.mesh
    whole = None if mesh.empty else jax.NamedSharding(mesh, jax.P(None, None))

    def products(part: jax.Array) -> jax.Array:
        wide = part.astype(dtype)
        return jax.lax.dot_general(wide, wide, ((axes, axes), ((), ())), out_sharding=whole)

    return sum(map(products, parts), jnp.zeros([], dtype))


def _as_vector(values: Any) -> jax.Array:
    shape, dtype = getattr(values, "shape", None), getattr(values, "dtype", None)
    real = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
    if shape is None or not real or len(shape) > 1 or 0 in shape:
        what = f"{dtype} of shape {shape}" if dtype is not None else type(values).__name__
        raise ValueError(f"residuals must return a real scalar or a vector of them, got {what}.")
    return jnp.atleast_1d(values)
