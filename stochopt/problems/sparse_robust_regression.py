"""Regression with a bounded loss and a lasso penalty, as a finite sum over blocks of features."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt import proximal
from stochopt._checks import check_count, check_range
from stochopt.blocks.partition import equal_slices
from stochopt.blocks.theory import mahalanobis_constants
from stochopt.problems.problem import Problem

_CURVATURE = 2.0  # the largest modulus of the second derivative of r^2 / (1 + r^2), at zero


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

    As :math:`|\varphi''| \le c = 2`, for the columns :math:`A_j` of a block

    .. math::

       L_j = \frac{c \|A_j\|^2}{n}, \qquad Q_j = \frac{c^2 \|A_j\|^2}{n^2} A^T A, \qquad
       Q_j' = \frac{c^2}{n} \sum_i \|a_{ij}\|^2 a_i a_i^T,

    where :math:`Q_j` gives ``cyclic_smoothness`` and :math:`Q_j'`, which holds for single terms in
    the mean square, ``sampled_cyclic_smoothness``.

    Args:
      num_features: :math:`d`.
      num_examples: :math:`n`.
      num_feature_blocks: divides :math:`d`.
      batch_size: at most :math:`n`.
      weight: :math:`\lambda \ge 0`.
      seed: of the random data.
    """
    check_count("num_features", num_features)
    check_count("num_examples", num_examples)
    check_count("num_feature_blocks", num_feature_blocks)
    check_count("batch_size", batch_size)
    check_range("weight", weight, "[0, inf)")
    if batch_size > num_examples:
        raise ValueError(f"batch_size must be at most {num_examples}, got {batch_size}.")
    if num_features % num_feature_blocks:
        raise ValueError(
            f"num_feature_blocks must divide {num_features}, got {num_feature_blocks}."
        )
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((num_examples, 1))
    rows = rng.standard_normal((num_examples, num_features)) + factor
    truth = np.where(rng.random(num_features) < 0.5, rng.standard_normal(num_features) / 3, 0.0)
    responses = rows @ truth + 0.1 * rng.standard_normal(num_examples)
    is_outlier = rng.random(num_examples) < 0.2
    responses = np.where(is_outlier, 5 * rng.standard_normal(num_examples), responses)
    penalty = proximal.l1(weight)

    def robust(rows: jax.Array, responses: jax.Array, params: jax.Array) -> jax.Array:
        squares = jnp.square(rows @ params - responses)
        return jnp.mean(squares / (1 + squares))

    def smooth(params: jax.Array, batch: jax.Array) -> jax.Array:
        return robust(jnp.asarray(rows)[batch], jnp.asarray(responses)[batch], params)

    def full_smooth(params: jax.Array) -> jax.Array:
        return robust(jnp.asarray(rows), jnp.asarray(responses), params)

    def full_loss(params: jax.Array) -> jax.Array:
        return full_smooth(params) + penalty.value(params)

    def subgradient(params: jax.Array) -> jax.Array:
        slope = jax.grad(full_smooth)(params)
        at_kink = jnp.sign(slope) * jnp.maximum(jnp.abs(slope) - weight, 0)
        return jnp.where(params == 0, at_kink, slope + weight * jnp.sign(params))

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        return {
            "objective": full_loss(params),
            "squared_subgradient_norm": jnp.sum(jnp.square(subgradient(params))),
        }

    partition = equal_slices(num_feature_blocks)
    parts = np.stack(np.split(rows, num_feature_blocks, axis=1))  # A_j
    norms = np.linalg.norm(parts, 2, axis=(1, 2)) ** 2
    gram = (_CURVATURE / num_examples) ** 2 * rows.T @ rows
    of_all = norms[:, None, None] * gram
    weights = _CURVATURE**2 / num_examples * np.sum(parts**2, axis=2)
    of_terms = np.einsum("ji,ik,il->jkl", weights, rows, rows)
    params = np.zeros(num_features)
    return Problem(
        name="sparse-robust-regression",
        summary="linear regression with a bounded loss and a lasso penalty, blocks of features",
        init=lambda key: jnp.zeros(num_features),
        sample=lambda key: jax.random.permutation(key, num_examples)[:batch_size].astype(jnp.int32),
        metrics=metrics,
        objective="objective",
        loss=lambda params, batch: smooth(params, batch) + penalty.value(params),
        full_loss=full_loss,
        num_batches=-(-num_examples // batch_size),
        partition=partition,
        smooth=smooth,
        full_smooth=full_smooth,
        prox=penalty,
        num_blocks=num_examples,
        blocks=lambda batch: (batch, batch),
        exact={"subgradient": subgradient},
        smoothness=float(_CURVATURE / num_examples * np.linalg.norm(rows, 2) ** 2),
        block_smoothness=_CURVATURE / num_examples * norms,
        cyclic_smoothness=mahalanobis_constants(of_all, partition, params),
        sampled_cyclic_smoothness=mahalanobis_constants(of_terms, partition, params),
    )
