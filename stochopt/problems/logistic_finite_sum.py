"""Logistic regression as a finite sum whose terms a batch names, convex or not."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.blocks.partition import equal_slices
from stochopt.problems.libsvm import Source, read_examples
from stochopt.problems.logistic import synthetic_examples
from stochopt.problems.problem import Problem


def logistic_finite_sum(
    data: Source | None = None,
    *,
    num_features: int = 10,
    num_examples: int = 100,
    batch_size: int = 10,
    regularization: float = 0.1,
    decay: float = 0.0,
) -> Problem:
    r"""Logistic regression as a finite sum, with a bounded regularizer that is not convex.

    .. math::

       f(x) = \frac1n \sum_i \log(1 + e^{-b_i a_i^T x})
         + \lambda \sum_j \frac{x_j^2}{1 + x_j^2} + \frac{\rho}{2} \|x\|^2

    A batch is a vector of distinct indices, drawn uniformly, and ``loss`` looks the examples up; a
    single index is a batch of one. So a method can keep what it saw of each term, evaluate one
    batch at two points, or take the gradient of all terms, ``full_loss``.

    With :math:`\lambda > 0` it is not convex, with :math:`\lambda = 0` and :math:`\rho > 0` it is
    strongly convex. The smoothness is
    :math:`\tfrac14 \lambda_{\max}(\tfrac1n \sum_i a_i a_i^T) + 2 \lambda + \rho`. The blocks are
    the coordinates, of smoothness
    :math:`\tfrac1{4 n} \sum_i a_{ij}^2 + 2 \lambda + \rho`. It starts at zero.

    Args:
      data: path of a file in LIBSVM's text format, or a pair of rows and labels, which count as 1
        where positive and -1 elsewhere; ``None`` for the data of
        :func:`stochopt.problems.logistic`.
      num_features: of the synthetic data.
      num_examples: :math:`n` of the synthetic data.
      batch_size: at most :math:`n`.
      regularization: :math:`\lambda \ge 0`.
      decay: :math:`\rho \ge 0`.
    """
    check_count("num_features", num_features)
    check_count("num_examples", num_examples)
    check_count("batch_size", batch_size)
    check_range("regularization", regularization, "[0, inf)")
    check_range("decay", decay, "[0, inf)")
    if data is None:
        signed = synthetic_examples(num_examples, num_features)
    else:
        rows, labels = read_examples("data", data)
        signed = np.where(labels[:, None] > 0, rows, -rows)
    num_terms, dimension = signed.shape
    if batch_size > num_terms:
        raise ValueError(f"batch_size must be at most {num_terms}, got {batch_size}.")

    def penalized(losses: jax.Array, params: jax.Array) -> jax.Array:
        squares = jnp.square(params)
        penalty = regularization * jnp.sum(squares / (1 + squares)) + decay / 2 * jnp.sum(squares)
        return jnp.mean(losses) + penalty

    def loss(params: jax.Array, batch: jax.Array) -> jax.Array:
        return penalized(jax.nn.softplus(-(jnp.asarray(signed)[batch] @ params)), params)

    def full_loss(params: jax.Array) -> jax.Array:
        return penalized(jax.nn.softplus(-(jnp.asarray(signed) @ params)), params)

    def sample(key: jax.Array) -> jax.Array:
        return jax.random.permutation(key, num_terms)[:batch_size].astype(jnp.int32)

    curvature = 2 * regularization + decay
    largest = float(np.linalg.eigvalsh(signed.T @ signed / num_terms)[-1])
    return Problem(
        name="logistic-finite-sum",
        summary="logistic regression as a finite sum, regularizer not convex",
        init=lambda key: jnp.zeros(dimension),
        sample=sample,
        metrics=lambda params: {"train_loss": full_loss(params)},
        objective="train_loss",
        loss=loss,
        full_loss=full_loss,
        num_batches=-(-num_terms // batch_size),
        partition=equal_slices(dimension),
        num_blocks=num_terms,
        blocks=lambda batch: (batch, batch),
        exact={"gradient": jax.grad(full_loss)},
        smoothness=largest / 4 + curvature,
        block_smoothness=np.mean(signed**2, axis=0) / 4 + curvature,
        strong_convexity=decay if decay > 0 and regularization == 0 else None,
    )
