"""A lasso with more features than examples whose solution is known."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems._l1_regression import check_sizes, l1_regression
from stochopt.problems.problem import Problem

_SLACK = 0.1  # of the optimality conditions off the support, in parts of the weight


def sparse_regression(
    num_features: int = 60,
    num_examples: int = 40,
    support_size: int = 5,
    *,
    num_feature_blocks: int | None = None,
    batch_size: int = 8,
    weight: float = 0.1,
    seed: int = 0,
) -> Problem:
    r"""The lasso, from its solution back to the data.

    .. math:: F(x) = \frac{1}{2 n} \|A x - b\|^2 + \lambda \|x\|_1

    For normal :math:`A` and a sparse :math:`x^*` with signs :math:`s` on its support :math:`S`, let
    :math:`r = n \lambda A_S (A_S^T A_S)^{-1} s`. Columns outside of the support are shortened where
    they must be for :math:`|A_j^T r| \le 0.9\, n \lambda`. Then with :math:`b = A x^* + r` the
    vector :math:`x^*` satisfies the optimality conditions, with the margin :math:`\delta = 0.1
    \lambda` off the support, so it is the only minimizer and a proximal step finds its zeros from
    all points within :math:`\delta / (2 L)`.

    A batch is a vector of distinct indices, drawn uniformly. It starts at zero. ``smooth`` and
    ``full_smooth`` are the first term, the proximal operator is that of the second. The metric
    ``gap`` is :math:`F(x) - F(x^*)` without cancellation, the metric ``squared_subgradient_norm``
    is :math:`\mathrm{dist}^2(0, \partial F(x))`.

    Args:
      num_features: :math:`d`.
      num_examples: :math:`n`.
      support_size: of the solution, at most :math:`n` and :math:`d`.
      num_feature_blocks: divides :math:`d`; ``None`` for single coordinates.
      batch_size: at most :math:`n`.
      weight: :math:`\lambda > 0`.
      seed: of the random data.
    """
    if num_feature_blocks is None:
        num_feature_blocks = num_features
    check_sizes(num_features, num_examples, num_feature_blocks, batch_size, weight)
    check_range("weight", weight, "(0, inf)")
    check_count("support_size", support_size)
    if support_size > min(num_examples, num_features):
        raise ValueError(
            f"support_size must be at most {min(num_examples, num_features)}, got {support_size}."
        )
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_examples, num_features))
    support = np.sort(rng.choice(num_features, support_size, replace=False))
    signs = rng.choice([-1.0, 1.0], support_size)
    solution = np.zeros(num_features)
    solution[support] = signs * rng.uniform(0.5, 1.5, support_size)

    active = rows[:, support]
    residual = num_examples * weight * active @ np.linalg.solve(active.T @ active, signs)
    slopes = np.abs(rows.T @ residual) / num_examples
    shorter = np.minimum(1, (1 - _SLACK) * weight / slopes)
    shorter[support] = 1
    rows = rows * shorter
    certificate = rows.T @ residual / (num_examples * weight)  # in the subdifferential at x*

    def gap(params: jax.Array) -> jax.Array:
        predictions = jnp.asarray(rows) @ (params - jnp.asarray(solution))
        kinks = jnp.abs(params) - jnp.asarray(certificate) * params
        return jnp.mean(jnp.square(predictions)) / 2 + weight * jnp.sum(kinks)

    return l1_regression(
        rows,
        rows @ solution + residual,
        lambda residuals: jnp.square(residuals) / 2,
        1.0,
        weight=weight,
        num_feature_blocks=num_feature_blocks,
        batch_size=batch_size,
        gap=gap,
        name="sparse-regression",
        summary="a lasso whose solution is known, more features than examples",
        optimum=solution,
    )
