"""A separable quadratic on a simplex, solved exactly."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.additive_noise import with_additive_noise
from stochopt.problems.problem import Problem


def simplex_quadratic(
    dimension: int = 50,
    condition: float = 100.0,
    prices: Any = 1.0,
    noise: float = 0.01,
    seed: int = 0,
) -> Problem:
    r"""The nearest point of a budget set in a metric of its own.

    .. math::

       f_\xi(x) = \tfrac12 \sum_i \lambda_i (x_i - a_i)^2 + \langle \xi, x \rangle \quad
       \text{on} \quad C = \left\{x \ge 0, \; \sum_i p_i x_i = 1\right\}, \qquad
       \xi \sim N\left(0, \tfrac{\sigma^2}{d} I\right),

    with :math:`\lambda` geometric between :math:`1 / \kappa` and :math:`L = 1` in random order and
    random :math:`a`. Equal prices make the probability simplex. The set is given by its
    ``linear_minimizer``, whose values are the vertices :math:`e_i / p_i`; the start is one of
    them. The solution is
    :math:`x^*_i = \max(0, a_i - \tau p_i / \lambda_i)`, with :math:`\tau` from the sorted kinks of
    a piecewise linear equation.

    The metric ``gap`` is :math:`f(x) - f(x^*)`. Away from :math:`C` it may be negative.

    Args:
      dimension: :math:`d`, at least 2.
      condition: :math:`\kappa \ge 1`.
      prices: :math:`p > 0`, one or for each entry.
      noise: :math:`\sigma \ge 0`, the root of the expected squared norm of the gradient's error.
      seed: of the random data.
    """
    check_count("dimension", dimension)
    check_range("dimension", dimension, "[2, inf)")
    check_range("condition", condition, "[1, inf)")
    check_range("prices", prices, "(0, inf)")
    rng = np.random.default_rng(seed)
    curvature = rng.permutation(np.geomspace(1 / condition, 1, dimension))
    target = 0.2 * rng.standard_normal(dimension)
    price = np.broadcast_to(np.asarray(prices, float), (dimension,))
    optimum = _nearest(curvature, target, price)
    slope = curvature * (optimum - target)

    def gap(params: jax.Array) -> jax.Array:
        away = params - optimum
        return jnp.sum(curvature * jnp.square(away)) / 2 + jnp.sum(slope * away)

    def linear_minimizer(slope: jax.Array) -> jax.Array:
        best = jax.nn.one_hot(jnp.argmin(slope / price), dimension, dtype=slope.dtype)
        return best / price

    problem = with_additive_noise(
        name="simplex-quadratic",
        summary="a quadratic on a simplex, linear minimization only",
        function=gap,
        gradient=lambda params: jnp.multiply(curvature, params - target),
        init=lambda key: jnp.zeros(dimension).at[0].set(1 / price[0]),
        shape=(dimension,),
        noise=noise,
        metrics=lambda params: {
            "gap": gap(params),
            "squared_distance": jnp.sum(jnp.square(params - optimum)),
        },
        objective="gap",
        linear_minimizer=linear_minimizer,
        optimum=optimum,
        smoothness=1.0,
        strong_convexity=1 / float(condition),
    )
    # It does not vanish at the solution, which is on the boundary.
    return dataclasses.replace(problem, exact={"subgradient": problem.exact["gradient"]})


def _nearest(curvature: np.ndarray, target: np.ndarray, price: np.ndarray) -> np.ndarray:
    """The solution: what is spent falls with tau, linearly between the kinks."""
    kinks = target * curvature / price  # where an entry becomes zero
    order = np.argsort(-kinks)
    spent = np.cumsum((price * target)[order])
    slopes = np.cumsum((price**2 / curvature)[order])
    taus = (spent - 1) / slopes  # if just the first so many entries are positive
    active = np.flatnonzero(taus < kinks[order])[-1]
    return np.maximum(0, target - taus[active] * price / curvature)
