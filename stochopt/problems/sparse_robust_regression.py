"""Regression with a bounded loss and a lasso penalty, as a finite sum over blocks of features."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt.problems._l1_regression import check_sizes, l1_regression
from stochopt.problems.problem import Problem


def sparse_robust_regression(
    num_features: int = 12,
    num_examples: int = 100,
    num_feature_blocks: int = 6,
    batch_size: int = 10,
    weight: float = 0.01,
    seed: int = 0,
) -> Problem:
    r"""Linear regression with outliers: a bounded loss, not convex, and a lasso penalty.

    .. math::

       F(x) = \underbrace{\frac1n \sum_i \varphi(a_i^T x - b_i)}_{f(x)} + \lambda \|x\|_1, \qquad
       \varphi(r) = \frac{r^2}{1 + r^2},

    with features that share a factor, :math:`a_i = z_i + u_i \mathbf 1` for normal :math:`z_i` and
    :math:`u_i`, and responses of a sparse vector with normal noise, one in five replaced by an
    outlier. A batch is a vector of distinct indices, drawn uniformly. The blocks are equal slices
    of the features. It starts at zero. ``smooth`` and ``full_smooth`` are :math:`f`, and the
    proximal operator is that of the penalty.

    The metric ``squared_subgradient_norm`` is :math:`\mathrm{dist}^2(0, \partial F(x))`, of the
    least subgradient, which is the exact ``subgradient``.

    Here :math:`|\varphi''| \le 2`, from which the constants of the blocks and of a cycle follow.

    Args:
      num_features: :math:`d`.
      num_examples: :math:`n`.
      num_feature_blocks: divides :math:`d`.
      batch_size: at most :math:`n`.
      weight: :math:`\lambda \ge 0`.
      seed: of the random data.
    """
    check_sizes(num_features, num_examples, num_feature_blocks, batch_size, weight)
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((num_examples, 1))
    rows = rng.standard_normal((num_examples, num_features)) + factor
    truth = np.where(rng.random(num_features) < 0.5, rng.standard_normal(num_features) / 3, 0.0)
    responses = rows @ truth + 0.1 * rng.standard_normal(num_examples)
    is_outlier = rng.random(num_examples) < 0.2
    responses = np.where(is_outlier, 5 * rng.standard_normal(num_examples), responses)

    def robust(residuals: jax.Array) -> jax.Array:
        squares = jnp.square(residuals)
        return squares / (1 + squares)

    return l1_regression(
        rows,
        responses,
        robust,
        2.0,  # the largest modulus of its second derivative, at zero
        weight=weight,
        num_feature_blocks=num_feature_blocks,
        batch_size=batch_size,
        name="sparse-robust-regression",
        summary="linear regression with a bounded loss and a lasso penalty, blocks of features",
    )
