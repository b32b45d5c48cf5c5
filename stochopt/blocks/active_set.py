"""A lasso: find the support by proximal gradient steps, then solve on it by Newton's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from stochopt import _counters, _tree, proximal
from stochopt._checks import (
    check_arguments,
    check_count,
    check_range,
    require_params,
    require_whole_tree,
)
from stochopt._oracles import check_scalar
from stochopt._schedules import value_at
from stochopt.blocks._bounds import dot, exceeds
from stochopt.blocks._cycle import displacement
from stochopt.blocks.gradient import at_dtypes_of
from stochopt.blocks.matrices import cholesky_solve


class ActiveSetNewtonState(NamedTuple):
    """State of :func:`active_set_newton`."""

    count: jax.Array  # type: ignore[assignment]  # updates; shape=(), dtype=int32
    num_steady_steps: jax.Array  # in a row with the same signs; shape=(), dtype=int32
    num_newton_steps: jax.Array  # that were accepted; shape=(), dtype=int32
    num_descent_violations: jax.Array  # shape=(), dtype=int32; stays at its maximum


def active_set_newton(
    loss: Callable[[Any, Any], jax.Array],
    weight: Any,
    smoothness: optax.ScalarOrSchedule,
    *,
    num_steady: int = 5,
) -> optax.GradientTransformationExtraArgs:
    r"""Proximal gradient steps until the support stands, then Newton steps on the support.

    Minimizes :math:`F(x) = f(x) + \lambda \|x\|_1` for few real parameters. Each ``update`` takes
    the proximal gradient step

    .. math:: y = \mathrm{prox}_{\lambda \|\cdot\|_1}\left(x - \frac{\nabla f(x)}{L},\;
       \frac{1}{L}\right) .

    Where the signs of all entries have stood for ``num_steady`` such steps, zeros included, it
    tries Newton's step on the support :math:`S = \{i : x_i \ne 0\}` with these signs,

    .. math:: z_S = x_S - \left(\nabla^2_{SS} f(x)\right)^{-1}
       \left(\nabla_S f(x) + \lambda\, \mathrm{sign}(x_S)\right), \qquad z_i = 0
       \text{ elsewhere},

    and takes it if :math:`z` has the same signs and :math:`F(z) \le F(y)`, up to rounding;
    otherwise :math:`y`. So the objective never rises, and a support that stood but was wrong is
    left again.

    If :math:`|\nabla_i f(x^*)| \le \lambda - \delta` wherever :math:`x^*_i = 0`, the proximal step
    finds all zeros from any point with :math:`\|x - x^*\| \le \delta / (2 L)`. For a
    :math:`\mu`-strongly convex quadratic, :math:`\kappa = L / \mu`, that is so after
    :math:`\kappa \ln(2 L \|x_0 - x^*\| / \delta)` steps (:func:`identification_bound`), and one
    Newton step on the right support and signs is the end; otherwise these converge superlinearly.

    A *mover*: it returns the new point minus the old, ignores the incoming ``updates``, and stands
    alone. Every ``update`` takes a gradient and two values; a Newton step takes the whole Hessian
    too, :math:`d` products with vectors and :math:`O(d^2)` memory, one more value and
    :math:`O(d^3)` operations. Under ``jax.vmap`` every update does.

    **Extra argument of** ``update``: ``batch``, passed to ``loss``; ``None`` by default.

    Args:
      loss: ``loss(params, batch) -> scalar``, :math:`f`, twice differentiable.
      weight: :math:`\lambda \ge 0`, of every entry.
      smoothness: :math:`L > 0`, a number or a schedule.
      num_steady: steps for which the signs must have stood.

    Returns:
      The optimizer. ``num_descent_violations`` in its state counts proximal steps after which
      :math:`f` was above its quadratic bound, beyond rounding: :math:`L` was too small.

    Raises:
      TypeError: ``loss`` takes other arguments, or ``update`` got masked leaves.
      ValueError: a hyper-parameter is out of range; ``loss`` returned no scalar; ``update`` got no
        ``params``, or complex ones.

    Examples:
      >>> import jax.numpy as jnp, optax
      >>> from stochopt import blocks
      >>> loss = lambda x, batch: jnp.sum(jnp.array([4.0, 1.0]) * (x - jnp.array([1.0, 0.1])) ** 2)
      >>> optimizer = blocks.active_set_newton(loss, weight=1.0, smoothness=100.0, num_steady=2)
      >>> x = jnp.array([0.5, 0.0])
      >>> state = optimizer.init(x)
      >>> for _ in range(3):
      ...     updates, state = optimizer.update(None, state, x)
      ...     x = optax.apply_updates(x, updates)
      >>> print(x)
      [0.875 0.   ]

    References:
      Nutini, Laradji, Schmidt, `Let's Make Block Coordinate Descent Converge Faster
      <https://arxiv.org/abs/1712.08859>`_, Journal of Machine Learning Research 2022, section 5
    """
    check_arguments("loss", loss, "params, batch")
    check_range("weight", weight, "[0, inf)")
    check_range("smoothness", smoothness, "(0, inf)")
    check_count("num_steady", num_steady)
    prox = proximal.l1(weight)

    def init_fn(params: optax.Params) -> ActiveSetNewtonState:
        if any(jnp.iscomplexobj(x) for x in jax.tree.leaves(params)):
            raise ValueError("active_set_newton: params must be real, they have signs.")
        return ActiveSetNewtonState(*(jnp.zeros([], jnp.int32) for _ in range(4)))

    def update_fn(
        updates: optax.Updates,
        state: ActiveSetNewtonState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ActiveSetNewtonState]:
        del updates, extra_args
        require_params("active_set_newton", params)
        require_whole_tree("active_set_newton", params)
        dtype = _tree.scalar_dtype(*jax.tree.leaves(params))
        x, unravel = ravel_pytree(_tree.wide(params))
        constant = jnp.asarray(value_at(smoothness, state.count), x.dtype)
        function = at_dtypes_of(params, lambda point: loss(point, batch))

        def smooth(x: jax.Array) -> jax.Array:
            value = function(unravel(x))
            check_scalar("loss", value)
            return value.astype(dtype)

        value, slope = jax.value_and_grad(smooth)(x)
        y = prox(x - slope / constant, 1 / constant)
        change, value_there = y - x, smooth(y)
        model = dot(slope, change, dtype) + constant.astype(dtype) / 2 * dot(change, change, dtype)
        steady = jnp.all(jnp.sign(y) == jnp.sign(x))
        num_steady_steps = jnp.where(steady, optax.safe_increment(state.num_steady_steps), 0)

        def newton() -> tuple[jax.Array, jax.Array]:
            z = x + _newton_on_support(jax.hessian(smooth)(x), slope, x, weight)
            rises = exceeds(smooth(z) + prox.value(z), value_there + prox.value(y))
            accepted = ~rises & jnp.all(jnp.sign(z) == jnp.sign(x))
            return jnp.where(accepted, z, y), accepted.astype(jnp.int32)

        stay = lambda: (y, jnp.zeros([], jnp.int32))
        end, accepted = jax.lax.cond(num_steady_steps >= num_steady, newton, stay)
        exceeded = exceeds(value_there, value + model)
        return displacement(unravel(end), params), ActiveSetNewtonState(
            count=optax.safe_increment(state.count),
            num_steady_steps=num_steady_steps,
            num_newton_steps=_counters.add(state.num_newton_steps, accepted),
            num_descent_violations=_counters.add(state.num_descent_violations, exceeded),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def identification_bound(condition: Any, smoothness: Any, distance: Any, margin: Any) -> Any:
    r"""After how many proximal gradient steps every zero of the solution is found.

    .. math:: \kappa \ln \frac{2 L \|x_0 - x^*\|}{\delta}

    for a strongly convex quadratic and steps of size :math:`1 / L`. From then on each point that a
    step ends in is zero where the solution is.

    Args:
      condition: :math:`\kappa = L / \mu`.
      smoothness: :math:`L`.
      distance: :math:`\|x_0 - x^*\|`.
      margin: :math:`\delta > 0`, the least distance of a derivative :math:`-\nabla_i f(x^*)` where
        :math:`x^*_i = 0` to the ends of the subdifferential of the penalty.
    """
    return condition * jnp.log(2 * smoothness * distance / margin)


def _newton_on_support(hessian: jax.Array, slope: jax.Array, x: jax.Array, weight: Any) -> Any:
    """Newton's direction on the entries that are not zero; NaN if there is no minimum."""
    inside = x != 0
    both = inside[:, None] & inside[None, :]
    matrix = jnp.where(both, hessian, jnp.eye(x.size, dtype=x.dtype))
    residual = jnp.where(inside, slope + jnp.asarray(weight, x.dtype) * jnp.sign(x), 0)
    return -cholesky_solve(jnp.linalg.cholesky(matrix), residual)
