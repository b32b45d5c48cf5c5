"""Inventory with substitution: a linear program between the orders and their cost."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count
from stochopt.problems.causal._features import coefficients, correlated_normal, standardized
from stochopt.problems.causal.causal_sdro import (
    DecisionLoss,
    Kernel,
    causal_sdro,
    gaussian_kernel,
)
from stochopt.problems.problem import Problem

HOLDING = (1.0, 0.7, 0.6)
STOCKOUT = (1.8, 1.6, 1.2)
#: Row: product in stock; column: product asked for; infinite where it cannot stand in.
SUBSTITUTION = ((0.0, 1.7, 2.0), (np.inf, 0.0, 1.5), (np.inf, np.inf, 0.0))
_TOLERANCE = 1e-9


class InventoryData(NamedTuple):
    """Features and demands of :func:`inventory_data`, both parts standardized alike."""

    features: jax.Array  # shape=(num_train, dimension)
    outcomes: jax.Array  # shape=(num_train, 3)
    test_features: jax.Array  # shape=(num_test, dimension)
    test_outcomes: jax.Array  # shape=(num_test, 3)


def substitution_loss(
    holding: Sequence[float] = HOLDING,
    stockout: Sequence[float] = STOCKOUT,
    substitution: Sequence[Sequence[float]] = SUBSTITUTION,
) -> DecisionLoss:
    r"""The least cost of serving demands from stocks, as a function of both.

    With :math:`w_{ij}` units of product :math:`i` for demand :math:`j`, left-overs :math:`u` and
    unmet demands :math:`v`,

    .. math::

       \psi(z, y) = \min_{w, u, v \ge 0} \sum_{ij} c_{ij} w_{ij} + h^T u + b^T v \quad
         \text{with} \quad \sum_j w_{ij} + u_i = z_i, \quad \sum_i w_{ij} + v_j = y_j .

    By duality it is :math:`\max_k \alpha_k^T z + \beta_k^T y` over the vertices of
    :math:`\{\alpha \le h,\ \beta \le b,\ \alpha_i + \beta_j \le c_{ij}\}`, which are enumerated
    once: a few products only. The gradient in :math:`z` is the :math:`\alpha_k` of the vertex that
    attains the maximum, the mean over them where there are several. Where a stock or a demand is
    negative, and the program has no solution, the maximum over the vertices goes on convexly.

    Args:
      holding: :math:`h`.
      stockout: :math:`b`.
      substitution: :math:`c`, ``inf`` where a product cannot stand in for another.
    """
    vertices = dual_vertices(holding, stockout, substitution)

    def loss(decision: jax.Array, outcome: jax.Array) -> jax.Array:
        both = jnp.concatenate([decision, outcome])
        return jnp.max(jnp.asarray(vertices, both.dtype) @ both)

    return loss


def dual_vertices(
    holding: Sequence[float], stockout: Sequence[float], substitution: Sequence[Sequence[float]]
) -> np.ndarray:
    """Vertices of the dual of :func:`substitution_loss`, a row each: stocks, then demands."""
    unit_stocks, unit_demands = np.split(np.eye(len(holding) + len(stockout)), [len(holding)])
    costs = np.asarray(substitution, np.float64)
    allowed = list(zip(*np.nonzero(np.isfinite(costs)), strict=True))
    pairs = [unit_stocks[i] + unit_demands[j] for i, j in allowed]
    matrix = np.concatenate([unit_stocks, unit_demands, pairs])
    bound = np.concatenate([holding, stockout, [costs[place] for place in allowed]])
    active = np.array(list(itertools.combinations(range(len(matrix)), matrix.shape[1])))
    regular = np.abs(np.linalg.det(matrix[active])) > 0.5  # entries 0 and 1: a whole number
    active = active[regular]
    points = np.linalg.solve(matrix[active], bound[active][..., None])[..., 0]
    feasible = np.all(points @ matrix.T <= bound + _TOLERANCE, axis=1)
    return np.unique(np.round(points[feasible], 9), axis=0)


def inventory_data(
    key: jax.Array, num_train: int = 400, num_test: int = 10_000, dimension: int = 10
) -> InventoryData:
    r"""Demands for three products that move with a hidden index of the features.

    .. math::

       y_1 \sim \text{Exp}(\text{rate } e^s), \quad y_2 \sim \text{Gamma}(2, \text{scale } e^s),
       \quad y_3 \sim \text{Gamma}(4, \text{scale } e^s), \qquad s = \beta^T x, \quad
       x \sim N(0, \Sigma), \quad \Sigma_{ij} = 0.5^{|i - j|}, \quad \beta_i \sim U(-0.1, 0.1) .

    The features, training and test, are standardized by the mean and the deviation of the training
    features.

    Args:
      key: random key.
      num_train: training pairs.
      num_test: test pairs.
      dimension: of :math:`x`.
    """
    check_count("num_train", num_train)
    check_count("num_test", num_test)
    check_count("dimension", dimension)
    for_index, for_x, for_y = jax.random.split(key, 3)
    x = correlated_normal(for_x, num_train + num_test, dimension)
    scale = jnp.exp(x @ coefficients(for_index, dimension))
    units = jax.random.gamma(for_y, jnp.array([1.0, 2.0, 4.0]), (len(x), 3))
    y = units * jnp.stack([1 / scale, scale, scale], axis=1)
    train_x, test_x = standardized(x[:num_train], x[num_train:])
    return InventoryData(train_x, y[:num_train], test_x, y[num_train:])


def causal_inventory(
    num_train: int = 400,
    dimension: int = 10,
    multiplier: float = 4.0,
    regularization: float = 0.2,
    kernel: Kernel = gaussian_kernel,
    num_sampled: int = 32,
    batch_size: int = 4,
    seed: int = 0,
) -> Problem:
    r"""Robust orders of three products that may stand in for each other, by a soft forest.

    :func:`causal_sdro` with the data of :func:`inventory_data` and the loss
    :func:`substitution_loss`, a linear program.

    Args:
      num_train: :math:`n`.
      dimension: of the features.
      multiplier: :math:`\lambda`.
      regularization: :math:`\varepsilon`.
      kernel: of the perturbations.
      num_sampled: pairs in a batch.
      batch_size: draws around each of these pairs.
      seed: of the data.

    References:
      Zhang, Wang, `arXiv:2601.11016 <https://arxiv.org/abs/2601.11016>`_, 2026
    """
    data = inventory_data(jax.random.key(seed), num_train, dimension=dimension)
    problem = causal_sdro(
        data.features,
        data.outcomes,
        substitution_loss(),
        multiplier=multiplier,
        regularization=regularization,
        kernel=kernel,
        test_features=data.test_features,
        test_outcomes=data.test_outcomes,
        num_sampled=num_sampled,
        batch_size=batch_size,
    )
    summary = "robust orders of three substitutable products by a soft forest, coupled blocks"
    return dataclasses.replace(problem, name="causal-inventory", summary=summary)
