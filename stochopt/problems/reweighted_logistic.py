"""Which training examples to trust: weights shared by many logistic regressions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.libsvm import Source, read_examples
from stochopt.problems.problem import Problem

_COOLEST, _HOTTEST = 1.1, 10.9
_NEWTON_STEPS = 25
_MAX_PRODUCTS = 200  # of each of its linear systems


class SignedParts(NamedTuple):
    """Rows times their label, the first entry for the intercept: all that a logistic loss reads."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class _Batch(NamedTuple):
    """Some blocks, and for each of them the indices of a minibatch of both parts."""

    block: jax.Array  # shape=(num_sampled,), dtype=int32
    train: jax.Array  # shape=(num_sampled, batch_size), dtype=int32
    validation: jax.Array  # likewise


def reweighted_logistic(
    training: Source,
    testing: Source,
    *,
    num_blocks: int = 100,
    num_sampled: int = 10,
    batch_size: int = 32,
    ridge: float = 1e-3,
) -> Problem:
    r"""Weights of training examples, for logistic regressions at many temperatures.

    .. math::

       F(x) = \frac1m \sum_{i=1}^m \frac{1}{n_v} \sum_{j \in \text{validation}}
         \ell\left(\frac{b_j \langle a_j, y_i(x) \rangle}{T_i}\right), \qquad
       y_i(x) = \arg\min_y \frac1n \sum_{j \in \text{training}} \sigma(x_j)\,
         \ell\left(\frac{b_j \langle a_j, y \rangle}{T_i}\right) + \frac{r}{2} \|y\|^2

    with :math:`\ell(z) = \log(1 + e^{-z})`, the logistic function :math:`\sigma` and labels
    :math:`b_j = \pm 1`. Every row :math:`a_j` has a one in front. The temperatures are equally
    spaced from 1.1 to 10.9. A hot block sees a flat loss, which the ridge holds down, so it gains
    from greater weights; curvatures of the blocks differ by a factor of a hundred. Every weight
    starts at 1/2.

    The last fifth of the training data is for validation, and disjoint from the rest. A batch holds
    a few blocks, drawn without replacement, and for each of them indices of a minibatch of training
    examples and of one of validation examples, drawn with replacement. Entries of the gradient are
    of the order :math:`1 / n`, so learning rates of plain descent are large.

    ``metrics`` solves all lower problems for the weights that it gets by Newton's method, and so do
    the exact quantities: a call takes about a hundred products of the training rows with a matrix
    of :math:`m` columns. ``validation_loss`` is :math:`F`; the test losses and accuracies are of
    :math:`y_i(x)` too, averaged over the blocks. The minimizer is not known.

    Args:
      training: path of a file in LIBSVM's text format, or a pair of rows and labels.
      testing: likewise.
      num_blocks: :math:`m`.
      num_sampled: blocks in a batch, at most all of them.
      batch_size: examples of each part and of each block in a batch.
      ridge: :math:`r > 0`.

    References:
      Hu, Qiu, Guo, Zhang, Yang, `Blockwise Stochastic Variance-Reduced Methods with Parallel
      Speedup for Multi-Block Bilevel Optimization <https://arxiv.org/abs/2305.18730>`_, 2023
    """
    check_count("num_blocks", num_blocks)
    check_count("num_sampled", num_sampled)
    check_count("batch_size", batch_size)
    check_range("ridge", ridge, "(0, inf)")
    if num_sampled > num_blocks:
        raise ValueError(f"num_sampled must be at most {num_blocks}, got {num_sampled}.")
    parts = signed_parts(training, testing)
    num_train, dimension = parts.train.shape
    num_validation = len(parts.validation)
    temperatures = block_temperatures(num_blocks)

    def upper(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        del params
        margins = jnp.asarray(parts.validation)[batch.validation] @ lower_params
        return jnp.mean(jax.nn.softplus(-margins / jnp.asarray(temperatures)[batch.block]))

    def lower(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        margins = jnp.asarray(parts.train)[batch.train] @ lower_params
        losses = jax.nn.softplus(-margins / jnp.asarray(temperatures)[batch.block])
        penalty = ridge / 2 * jnp.vdot(lower_params, lower_params)
        return jnp.mean(jax.nn.sigmoid(params[batch.train]) * losses) + penalty

    def sample(key: jax.Array) -> _Batch:
        for_blocks, for_train, for_validation = jax.random.split(key, 3)
        shape = num_sampled, batch_size
        return _Batch(
            jax.random.permutation(for_blocks, num_blocks)[:num_sampled].astype(jnp.int32),
            jax.random.randint(for_train, shape, 0, num_train, jnp.int32),
            jax.random.randint(for_validation, shape, 0, num_validation, jnp.int32),
        )

    # All blocks at once from here: a row of a table, or of its products, for each of them.
    rows = parts.train

    def slack(table: jax.Array) -> jax.Array:
        """One minus the probability of the right label, for each block and example."""
        return jax.nn.sigmoid(-(table @ rows.T) / temperatures[:, None])

    def solver(weights: jax.Array) -> Any:
        """``solve(slacks, right, tolerance)``: the lower Hessians' inverses times vectors."""
        values, vectors = jnp.linalg.eigh((rows * weights[:, None]).T @ rows / num_train)

        def solve(slacks: jax.Array, right: jax.Array, tolerance: float) -> jax.Array:
            scaled = weights * slacks * (1 - slacks) / jnp.square(temperatures)[:, None]
            # The mean curvature of the loss in place of that of each example.
            levels = jnp.sum(scaled, axis=1) / jnp.sum(weights)

            def of_block(curvature: jax.Array, level: jax.Array, right: jax.Array) -> jax.Array:
                product = lambda v: (curvature * (rows @ v)) @ rows / num_train + ridge * v
                precondition = lambda v: vectors @ (vectors.T @ v / (level * values + ridge))
                return jax.scipy.sparse.linalg.cg(
                    product, right, tol=tolerance, maxiter=_MAX_PRODUCTS, M=precondition
                )[0]

            return jax.vmap(of_block)(scaled, levels, right)

        return solve

    def solution(params: jax.Array) -> jax.Array:
        weights = jax.nn.sigmoid(params)
        solve, precision = solver(weights), float(jnp.finfo(params.dtype).eps) ** 0.5

        def newton(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            table, _, count = carry
            slacks = slack(table)
            slope = -(weights * slacks / temperatures[:, None]) @ rows / num_train + ridge * table
            step = solve(slacks, slope, precision)
            size = jnp.linalg.norm(step, axis=1) / jnp.linalg.norm(table - step, axis=1)
            return table - step, jnp.max(size), count + 1

        # Newton's method squares the size of its steps, so the last one is as good as rounding.
        unfinished = lambda carry: (carry[1] > precision) & (carry[2] < _NEWTON_STEPS)
        start = jnp.zeros((num_blocks, dimension), params.dtype)
        return jax.lax.while_loop(unfinished, newton, (start, jnp.inf, 0))[0]

    def adjoint_at(params: jax.Array, table: jax.Array) -> jax.Array:
        held_out = jnp.asarray(parts.validation)
        missing = jax.nn.sigmoid(-(table @ held_out.T) / temperatures[:, None])
        slope = -(missing / temperatures[:, None]) @ held_out / num_validation
        tolerance = 10 * float(jnp.finfo(params.dtype).eps)
        return solver(jax.nn.sigmoid(params))(slack(table), slope, tolerance)

    def gradient(params: jax.Array) -> jax.Array:
        table = solution(params)
        along = adjoint_at(params, table) @ rows.T / temperatures[:, None]
        slopes = jax.grad(lambda x: jnp.sum(jax.nn.sigmoid(x)))(params)
        return slopes * jnp.mean(slack(table) * along, axis=0) / num_train

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        table, measured = solution(params), {}
        for name, part in (("validation", parts.validation), ("test", parts.test)):
            margins = table @ part.T / temperatures[:, None]
            measured[f"{name}_loss"] = jnp.mean(jax.nn.softplus(-margins))
            measured[f"{name}_accuracy"] = jnp.mean(margins > 0, dtype=jnp.float32)
        measured["mean_weight"] = jnp.mean(jax.nn.sigmoid(params))
        return measured

    return Problem(
        name="reweighted-logistic",
        summary="weights of training examples, logistic regressions at many temperatures",
        init=lambda key: jnp.zeros(num_train),
        sample=sample,
        metrics=metrics,
        objective="validation_loss",
        score="test_loss",
        upper=upper,
        lower=lower,
        lower_params=jnp.zeros(dimension),
        num_blocks=num_blocks,
        blocks=lambda batch: (batch.block, batch),
        exact={
            "gradient": gradient,
            "lower": solution,
            "adjoint": lambda params: adjoint_at(params, solution(params)),
        },
    )


def block_temperatures(num_blocks: int) -> np.ndarray:
    """The temperatures of :func:`reweighted_logistic`, one for each block."""
    return np.linspace(_COOLEST, _HOTTEST, num_blocks, dtype=np.float32)


def signed_parts(training: Source, testing: Source) -> SignedParts:
    """The examples of :func:`reweighted_logistic`, one a row.

    Args:
      training: path of a file in LIBSVM's text format, or a pair of rows and labels.
      testing: likewise; a file may be narrower where its last features never occur.
    """
    every, test = signed_examples("training", training), signed_examples("testing", testing)
    if len(every) < 5:
        raise ValueError(f"training must hold at least 5 examples, got {len(every)}.")
    width = max(every.shape[1], test.shape[1])
    every, test = (np.pad(rows, ((0, 0), (0, width - rows.shape[1]))) for rows in (every, test))
    kept = len(every) - len(every) // 5
    return SignedParts(every[:kept], every[kept:], test)


def signed_examples(name: str, source: Source) -> np.ndarray:
    """Rows with a one in front times their label, float32; errors say the name of the source."""
    rows, labels = read_examples(name, source)
    padded = np.pad(rows, ((0, 0), (1, 0)), constant_values=1)
    return np.where(labels > 0, padded.T, -padded.T).T.astype(np.float32, order="C")
