r"""What a bilevel method samples: directions for the parameters and for the variables below.

For :math:`F(x) = f(x, y(x))` with :math:`y(x) = \arg\min_y g(x, y)` a *field* gives, from one draw,
directions for :math:`x` and for the hidden variables that are to follow it. At a point where the
hidden directions vanish, the direction for :math:`x` is the gradient of :math:`F`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt._oracles import scalar_oracle
from stochopt._schedules import value_at
from stochopt.bilevel.hypergradient import LinearSolver, Lower, Upper, lower_products

#: ``sample(key) -> batch``, one fresh draw.
SampleBatch = Callable[[jax.Array], Any]


class Draw(NamedTuple):
    """The randomness of one evaluation of a field, the same at every point that it looks at.

    Attributes:
      batch: for the directions of the hidden variables.
      other_batch: for the direction of the parameters; perhaps the same.
      key: random key of this update.
      count: number of updates before this one, for schedules.
    """

    batch: Any
    other_batch: Any
    key: jax.Array
    count: jax.Array  # type: ignore[assignment]


class Directions(NamedTuple):
    """Where to move, each shaped like the variable that it is for: to be descended."""

    params: Any
    hidden: Any


class FieldSample(NamedTuple):
    """One evaluation of a field.

    Attributes:
      directions: for the parameters and the hidden variables.
      value: of the upper function.
      curvature: :math:`p^T H p / p^T p` of the lower Hessian along the adjoint variable; negative
        where the lower problem is not convex.
    """

    directions: Directions
    value: jax.Array
    curvature: jax.Array


class Field(NamedTuple):
    """What a single-loop method follows.

    Attributes:
      start: ``start(lower_params)``, the hidden variables at the start, a NamedTuple whose first
        part is the lower variable.
      sample: ``sample(params, hidden, draw) -> FieldSample``.
    """

    start: Callable[[Any], Any]
    sample: Callable[[Any, Any, Draw], FieldSample]


class LowerAndAdjoint(NamedTuple):
    """Hidden variables of :func:`adjoint_field`."""

    lower_params: Any  # y
    adjoint: Any  # p, like y


class LowerOnly(NamedTuple):
    """Hidden variables of :func:`solver_field`."""

    lower_params: Any  # y


class LowerAndPenalized(NamedTuple):
    """Hidden variables of :func:`penalty_field`."""

    lower_params: Any  # w, minimizes g
    penalized_lower_params: Any  # y, minimizes f + lambda g


def adjoint_field(upper: Upper, lower: Lower) -> Field:
    r"""The field of :math:`x`, the lower variable and the solution of the linear system.

    .. math::

       D_x &= \nabla_x f(x, y) - \nabla^2_{xy} g(x, y)\, p \\
       D_y &= \nabla_y g(x, y) \\
       D_p &= \nabla^2_{yy} g(x, y)\, p - \nabla_y f(x, y)

    with :math:`p \approx (\nabla^2_{yy} g)^{-1} \nabla_y f`, which starts at zero. Unbiased at
    every point, because each term is linear in the oracles.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`.

    References:
      Dagréou et al., `A Framework for Bilevel Optimization that Enables Stochastic and Global
      Variance Reduction Algorithms <https://arxiv.org/abs/2201.13409>`_, 2022
    """

    def sample(params: Any, hidden: LowerAndAdjoint, draw: Draw) -> FieldSample:
        y, p = hidden
        _, (_, slope) = _upper_slopes(upper, params, y, draw.batch)
        products = lower_products(lower, params, y, draw.batch, p)
        value, (direct, _) = _upper_slopes(upper, params, y, draw.other_batch)
        cross = products.cross_product
        if draw.other_batch is not draw.batch:
            cross = lower_products(lower, params, y, draw.other_batch, p).cross_product
        hidden_directions = LowerAndAdjoint(
            products.gradient, optax.tree.sub(products.hessian_product, slope)
        )
        return FieldSample(
            Directions(hypergradient(direct, cross), hidden_directions),
            value,
            curvature_along(p, products.hessian_product),
        )

    return Field(lambda y: LowerAndAdjoint(y, optax.tree.zeros_like(y)), sample)


def solver_field(
    upper: Upper, lower: Lower, solver: LinearSolver, sample: SampleBatch | None = None
) -> Field:
    r"""The field of :math:`x` and the lower variable, with the linear system solved on the spot.

    .. math::

       D_x = \nabla_x f(x, y) - \nabla^2_{xy} g(x, y)\, p, \qquad
       p = \mathrm{solver}\left(\nabla^2_{yy} g, \nabla_y f\right), \qquad
       D_y = \nabla_y g(x, y) .

    With one draw for all products of a stochastic series its powers of a noisy Hessian, and with
    them :math:`D_x`, are biased; with ``sample`` each term has a draw of its own.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`.
      solver: such as :func:`stochopt.bilevel.neumann`.
      sample: ``sample(key) -> batch``, a fresh draw for a term; ``None`` takes the batch for all.
    """

    def sample_field(params: Any, hidden: LowerOnly, draw: Draw) -> FieldSample:
        (y,) = hidden
        gradient = jax.grad(scalar_oracle("lower", lower), argnums=1)(params, y, draw.batch)
        for_terms, for_solver = jax.random.split(draw.key)
        value, direction, curvature = solved_direction(
            upper,
            lower,
            solver,
            params,
            y,
            draw.other_batch,
            for_solver,
            draws=None if sample is None else lambda k: sample(jax.random.fold_in(for_terms, k)),
        )
        return FieldSample(Directions(direction, LowerOnly(gradient)), value, curvature)

    return Field(LowerOnly, sample_field)


def solved_direction(
    upper: Upper,
    lower: Lower,
    solver: LinearSolver,
    params: Any,
    y: Any,
    batch: Any,
    key: Any,
    draws: Callable[[Any], Any] | None = None,
) -> tuple[jax.Array, Any, jax.Array]:
    """Upper value, direction for the parameters and curvature, with the system solved anew.

    ``draws(term)`` is the batch for a term of a stochastic series, ``batch`` without it.
    """
    value, (direct, slope) = _upper_slopes(upper, params, y, batch)

    def product(vector: Any, term: Any) -> Any:
        draw = batch if draws is None else draws(term)
        return lower_products(lower, params, y, draw, vector).hessian_product

    p = solver(product, slope, key)
    products = lower_products(lower, params, y, batch, p)
    direction = hypergradient(direct, products.cross_product)
    return value, direction, curvature_along(p, products.hessian_product)


def penalty_field(upper: Upper, lower: Lower, penalty: optax.ScalarOrSchedule) -> Field:
    r"""A field without second derivatives: the lower problem as a penalty.

    .. math::

       D_w &= \nabla_y g(x, w), \qquad
       D_y = \nabla_y f(x, y) + \lambda_t \nabla_y g(x, y) \\
       D_x &= \nabla_x f(x, y) + \lambda_t \left(\nabla_x g(x, y) - \nabla_x g(x, w)\right)

    Its limit is off by :math:`O(1 / \lambda)`, so :math:`\lambda` has to grow, and the step of
    :math:`y` to shrink with it.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`.
      penalty: :math:`\lambda > 0`, a number or a schedule; more than twice the smoothness of
        :math:`f` over the strong convexity of :math:`g`.

    References:
      Kwon et al., `A Fully First-Order Method for Stochastic Bilevel Optimization
      <https://arxiv.org/abs/2301.10945>`_, 2023
    """

    def sample(params: Any, hidden: LowerAndPenalized, draw: Draw) -> FieldSample:
        w, y = hidden
        weight = value_at(penalty, draw.count)
        below = jax.grad(scalar_oracle("lower", lower), argnums=(0, 1))
        of_w = below(params, w, draw.batch)
        of_y = below(params, y, draw.batch)
        value, (direct, slope) = _upper_slopes(upper, params, y, draw.batch)
        scaled = lambda tree: jax.tree.map(lambda g: (weight * g).astype(g.dtype), tree)
        across = scaled(optax.tree.sub(of_y[0], of_w[0]))
        move_y = optax.tree.add(slope, scaled(of_y[1]))
        return FieldSample(
            Directions(
                optax.tree.conj(optax.tree.add(direct, across)), LowerAndPenalized(of_w[1], move_y)
            ),
            value,
            jnp.full_like(value, jnp.nan),  # no second derivative is ever taken
        )

    return Field(lambda y: LowerAndPenalized(y, jax.tree.map(jnp.copy, y)), sample)


def hypergradient(direct: Any, cross: Any) -> Any:
    """The direct part less the cross product; conjugated, as optax wants complex gradients."""
    return optax.tree.conj(optax.tree.sub(direct, cross))


def curvature_along(vector: Any, product: Any) -> jax.Array:
    """The Rayleigh quotient of a Hessian; zero for a zero vector."""
    squared = optax.tree.vdot(vector, vector)
    return optax.tree.vdot(vector, product) / jnp.where(squared > 0, squared, 1)


def _upper_slopes(upper: Upper, params: Any, y: Any, batch: Any) -> tuple[jax.Array, Any]:
    return jax.value_and_grad(scalar_oracle("upper", upper), argnums=(0, 1))(params, y, batch)
