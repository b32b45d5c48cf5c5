"""A penalty for each feature of a logistic regression, for the loss on validation data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count
from stochopt.problems.libsvm import Source
from stochopt.problems.problem import Problem
from stochopt.problems.reweighted_logistic import signed_examples

#: Bounds of the logarithms of the penalties.
LEAST, MOST = -8.0, 0.0

_NEWTON_STEPS = 25

# The index of a minibatch of training examples and that of one of validation examples.
_Batch = tuple[jax.Array, jax.Array]


def feature_regularization(data: Source, *, batch_size: int = 64, seed: int = 0) -> Problem:
    r"""A penalty :math:`e^{x_k}` for each feature of a logistic regression.

    .. math::

       F(x) = \frac1n \sum_{j \in \text{validation}} \ell(b_j \langle a_j, y(x) \rangle), \qquad
       y(x) = \arg\min_y \frac1n \sum_{i \in \text{training}} \ell(b_i \langle a_i, y \rangle)
         + \frac12 \sum_k e^{x_k} y_k^2

    with :math:`\ell(z) = \log(1 + e^{-z})` and labels :math:`b_i = \pm 1`. Every row :math:`a_i`
    has a one in front, which is penalized too. A feature
    that is best left out wants an infinite penalty, with which no lower step is short enough, so
    keep :math:`-8 \le x_k \le 0` (``LEAST`` and ``MOST`` of the module) by projection; all
    :math:`x_k` start in the middle. :math:`F` is not convex, and it is flat where penalties are
    small: the hypergradient of :math:`x_k` is proportional to :math:`e^{x_k}`.

    The examples are shuffled and cut into fixed minibatches, half of them for training and half for
    validation; what is left over is not used. A batch is a pair of indices drawn independently: of
    a training minibatch and of a validation minibatch.

    ``metrics`` and the exact quantities solve the lower problem by Newton's method with its whole
    Hessian. ``validation_loss`` is :math:`F`. The minimizer is not known.

    Args:
      data: path of a file in LIBSVM's text format, or a pair of rows and labels; a label counts as
        1 where positive, else -1.
      batch_size: examples in a minibatch.
      seed: of the shuffle.

    Raises:
      ValueError: an argument is out of range, or there are too few examples for a minibatch of each
        part.

    References:
      Dagréou et al., `A Framework for Bilevel Optimization that Enables Stochastic and Global
      Variance Reduction Algorithms <https://arxiv.org/abs/2201.13409>`_, 2022
    """
    check_count("batch_size", batch_size)
    examples = signed_examples("data", data)
    num_batches = len(examples) // (2 * batch_size)
    if not num_batches:
        raise ValueError(f"data must hold {2 * batch_size} examples, got {len(examples)}.")
    half, dimension = num_batches * batch_size, examples.shape[1]
    shuffled = examples[np.random.default_rng(seed).permutation(len(examples))]
    train, validation = shuffled[:half], shuffled[half : 2 * half]

    def minibatch(part: np.ndarray, index: jax.Array) -> jax.Array:
        return jnp.asarray(part.reshape(num_batches, batch_size, dimension))[index]

    def mean_loss(rows: Any, y: jax.Array) -> jax.Array:
        return jnp.mean(jax.nn.softplus(-(rows @ y)))

    def penalized(params: jax.Array, y: jax.Array, rows: Any) -> jax.Array:
        return mean_loss(rows, y) + jnp.vdot(jnp.exp(params), jnp.square(y)) / 2

    def upper(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        del params
        return mean_loss(minibatch(validation, batch[1]), lower_params)

    def lower(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        return penalized(params, lower_params, minibatch(train, batch[0]))

    def solve(params: jax.Array, y: jax.Array, right: jax.Array) -> jax.Array:
        missing = jax.nn.sigmoid(-(train @ y))
        curved = train * (missing * (1 - missing))[:, None]
        hessian = curved.T @ train / half + jnp.diag(jnp.exp(params))
        return jax.scipy.linalg.solve(hessian, right, assume_a="pos")

    def solution(params: jax.Array) -> jax.Array:
        precision = float(jnp.finfo(params.dtype).eps) ** 0.5

        def newton(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            y, _, count = carry
            step = solve(params, y, jax.grad(penalized, 1)(params, y, train))
            size = jnp.linalg.norm(step) / jnp.linalg.norm(y - step)
            return y - step, size, count + 1

        # Newton's method squares the size of its steps, so the last one is as good as rounding.
        unfinished = lambda carry: (carry[1] > precision) & (carry[2] < _NEWTON_STEPS)
        start = jnp.zeros(dimension, params.dtype)
        return jax.lax.while_loop(unfinished, newton, (start, jnp.inf, 0))[0]

    def adjoint_at(params: jax.Array, y: jax.Array) -> jax.Array:
        return solve(params, y, jax.grad(mean_loss, 1)(validation, y))

    def gradient(params: jax.Array) -> jax.Array:
        y = solution(params)
        return -jnp.exp(params) * y * adjoint_at(params, y)

    def sample(key: jax.Array) -> _Batch:
        for_train, for_validation = jax.random.split(key)
        return (
            jax.random.randint(for_train, (), 0, num_batches, jnp.int32),
            jax.random.randint(for_validation, (), 0, num_batches, jnp.int32),
        )

    return Problem(
        name="feature-regularization",
        summary="a penalty for each feature of a logistic regression",
        init=lambda key: jnp.full(dimension, (LEAST + MOST) / 2),
        sample=sample,
        metrics=lambda params: {"validation_loss": mean_loss(validation, solution(params))},
        objective="validation_loss",
        upper=upper,
        lower=lower,
        lower_params=jnp.zeros(dimension),
        num_samples=num_batches,
        sample_indices=lambda batch: batch,
        exact={
            "gradient": gradient,
            "lower": solution,
            "adjoint": lambda params: adjoint_at(params, solution(params)),
        },
    )
