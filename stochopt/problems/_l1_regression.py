"""A linear model with a lasso penalty, as a finite sum over blocks of features."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stochopt import proximal
from stochopt._checks import check_count, check_range
from stochopt.blocks.partition import equal_slices
from stochopt.blocks.theory import mahalanobis_constants
from stochopt.problems.problem import Problem


def check_sizes(
    num_features: int, num_examples: int, num_feature_blocks: int, batch_size: int, weight: float
) -> None:
    """Raises ``ValueError`` for sizes that do not fit."""
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


def l1_regression(
    rows: np.ndarray,
    responses: np.ndarray,
    residual_loss: Callable[[jax.Array], jax.Array],
    curvature: float,
    *,
    weight: float,
    num_feature_blocks: int,
    batch_size: int,
    gap: Callable[[jax.Array], jax.Array] | None = None,
    **fields: Any,
) -> Problem:
    r"""The mean of :math:`\varphi(a_i^T x - b_i)` over all rows plus :math:`\lambda \|x\|_1`.

    As :math:`|\varphi''| \le c`, for the columns :math:`A_j` of a block

    .. math::

       L_j = \frac{c \|A_j\|^2}{n}, \qquad Q_j = \frac{c^2 \|A_j\|^2}{n^2} A^T A, \qquad
       Q_j' = \frac{c^2}{n} \sum_i \|a_{ij}\|^2 a_i a_i^T,

    where :math:`Q_j` gives ``cyclic_smoothness`` and :math:`Q_j'`, which holds for single terms in
    the mean square, ``sampled_cyclic_smoothness``.

    Args:
      rows: :math:`a_i`.
      responses: :math:`b_i`.
      residual_loss: :math:`\varphi`.
      curvature: :math:`c`.
      weight: :math:`\lambda`.
      num_feature_blocks: of equal slices.
      batch_size: of distinct indices, which a batch is.
      gap: ``gap(params)``, the objective minus its minimum, which then is the objective.
      **fields: of the problem.
    """
    num_examples, num_features = rows.shape
    penalty = proximal.l1(weight)

    def smooth(params: jax.Array, batch: jax.Array) -> jax.Array:
        predictions = jnp.asarray(rows)[batch] @ params
        return jnp.mean(residual_loss(predictions - jnp.asarray(responses)[batch]))

    def full_smooth(params: jax.Array) -> jax.Array:
        return jnp.mean(residual_loss(jnp.asarray(rows) @ params - jnp.asarray(responses)))

    def full_loss(params: jax.Array) -> jax.Array:
        return full_smooth(params) + penalty.value(params)

    def subgradient(params: jax.Array) -> jax.Array:
        slope = jax.grad(full_smooth)(params)
        at_kink = jnp.sign(slope) * jnp.maximum(jnp.abs(slope) - weight, 0)
        return jnp.where(params == 0, at_kink, slope + weight * jnp.sign(params))

    objective = "objective" if gap is None else "gap"

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        return {
            objective: (gap or full_loss)(params),
            "squared_subgradient_norm": jnp.sum(jnp.square(subgradient(params))),
        }

    partition = equal_slices(num_feature_blocks)
    parts = np.stack(np.split(rows, num_feature_blocks, axis=1))  # A_j
    norms = np.linalg.norm(parts, 2, axis=(1, 2)) ** 2
    gram = (curvature / num_examples) ** 2 * rows.T @ rows
    of_all = norms[:, None, None] * gram
    weights = curvature**2 / num_examples * np.sum(parts**2, axis=2)
    of_terms = np.einsum("ji,ik,il->jkl", weights, rows, rows)
    params = np.zeros(num_features)
    return Problem(
        init=lambda key: jnp.zeros(num_features),
        sample=lambda key: jax.random.permutation(key, num_examples)[:batch_size].astype(jnp.int32),
        metrics=metrics,
        objective=objective,
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
        smoothness=float(curvature / num_examples * np.linalg.norm(rows, 2) ** 2),
        block_smoothness=curvature / num_examples * norms,
        cyclic_smoothness=mahalanobis_constants(of_all, partition, params),
        sampled_cyclic_smoothness=mahalanobis_constants(of_terms, partition, params),
        **fields,
    )
