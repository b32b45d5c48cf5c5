"""Which training labels to trust: weights of examples, learned on a small clean set."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
import scipy.special

from stochopt._checks import check_count, check_range
from stochopt.problems.digits import digits_data
from stochopt.problems.problem import Problem

_CLASSES = 10

# From zero, where the curvature is greatest, Newton's method needs no safeguard with so much decay.
_LEAST_DECAY = 1e-3
_NEWTON_STEPS = 10
_TOLERANCE = 1e-4  # of each of its linear systems; each step gains at least that factor at last
_MAX_PRODUCTS = 100

# Indices of training examples and of validation examples.
_Batch = tuple[jax.Array, jax.Array]

# Pixels with a one behind, an example a row, and labels.
_Part = tuple[np.ndarray, np.ndarray]


def hyper_cleaning(
    num_train: int = 300,
    num_validation: int = 300,
    corruption: float = 0.5,
    batch_size: int = 32,
    decay: float = 0.01,
    seed: int = 0,
) -> Problem:
    r"""Weights of training examples, some of which carry a wrong label, for logistic regression.

    .. math::

       F(x) = \frac{1}{n_v} \sum_{j \in \text{validation}} \ell(W(x); a_j, t_j), \qquad
       W(x) = \arg\min_W \frac1n \sum_{i \in \text{training}} \sigma(x_i)\, \ell(W; a_i, t_i) +
         \frac{\delta}{2} \|W\|^2

    with the logistic function :math:`\sigma` and the cross-entropy :math:`\ell` of a linear
    classifier of handwritten digits. The lower variable is a matrix of 65 x 10 numbers: 64 pixels,
    scaled to [0, 1] and centered on the training mean, and a bias. Every weight starts at 1/2.

    Training and validation examples are disjoint, drawn from the training part of the digits; the
    whole testing part is for testing. A fraction of the training labels is replaced by another
    class, drawn at random. Validation and test labels are right. A batch is a minibatch of indices
    of each part, drawn with replacement. One weight matters little: entries of the gradient are of
    the order :math:`1 / n`, so learning rates of plain descent are of the order of :math:`n / 10`.

    ``metrics`` solves the lower problem for the weights that it gets by Newton's method, and so do
    the exact quantities: a call costs about a hundred products with the lower Hessian.
    ``validation_loss`` is :math:`F`; ``test_loss`` and the accuracies are of :math:`W(x)`;
    ``clean_weight`` and ``wrong_weight`` are the mean weights of training examples with a right
    and a wrong label. The minimizer is not known. A level shows :math:`F` where the wrong labels
    have weight zero and the others one.

    Args:
      num_train: :math:`n`.
      num_validation: :math:`n_v`; together at most 1437.
      corruption: fraction of wrong training labels, below one.
      batch_size: examples in each half of a batch.
      decay: :math:`\delta`, at least 0.001.
      seed: of the split and the corruption.

    References:
      Franceschi et al., `Forward and Reverse Gradient-Based Hyperparameter Optimization
      <https://arxiv.org/abs/1703.01785>`_, 2017
    """
    check_count("num_train", num_train)
    check_count("num_validation", num_validation)
    check_count("batch_size", batch_size)
    check_range("corruption", corruption, "[0, 1)")
    check_range("decay", decay, f"[{_LEAST_DECAY}, inf)")
    rows, given, wrong, parts = _corrupted(num_train, num_validation, corruption, seed)
    validation = parts["validation"]

    def cross_entropies(classifier: jax.Array, rows: Any, labels: Any) -> jax.Array:
        return optax.losses.softmax_cross_entropy_with_integer_labels(rows @ classifier, labels)

    def upper(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        del params
        rows, labels = (jnp.asarray(part)[batch[1]] for part in validation)
        return jnp.mean(cross_entropies(lower_params, rows, labels))

    def lower(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        index = batch[0]
        losses = cross_entropies(lower_params, jnp.asarray(rows)[index], jnp.asarray(given)[index])
        penalty = decay / 2 * jnp.vdot(lower_params, lower_params)
        return jnp.mean(jax.nn.sigmoid(params[index]) * losses) + penalty

    whole = np.arange(num_train, dtype=np.int32), np.arange(num_validation, dtype=np.int32)
    slope = lambda params, lower_params: jax.grad(lower, 1)(params, lower_params, whole)

    def solve(params: jax.Array, product: Any, right: jax.Array, tolerance: float) -> jax.Array:
        # Bohning's bound on the Hessian, which is the same for every class.
        weighted = jax.nn.sigmoid(params)[:, None] * rows
        bound = rows.T @ weighted / (2 * num_train) + decay * np.eye(rows.shape[1])
        factors = jax.scipy.linalg.cho_factor(bound)
        precondition = lambda vector: jax.scipy.linalg.cho_solve(factors, vector)
        return jax.scipy.sparse.linalg.cg(
            product, right, tol=tolerance, maxiter=_MAX_PRODUCTS, M=precondition
        )[0]

    def solution(params: jax.Array) -> jax.Array:
        def newton(_: Any, lower_params: jax.Array) -> jax.Array:
            right, product = jax.linearize(lambda w: slope(params, w), lower_params)
            return lower_params - solve(params, product, right, _TOLERANCE)

        start = jnp.zeros((rows.shape[1], _CLASSES), params.dtype)
        return jax.lax.fori_loop(0, _NEWTON_STEPS, newton, start)

    def adjoint_at(params: jax.Array, lower_params: jax.Array) -> jax.Array:
        right = jax.grad(upper, 1)(params, lower_params, whole)
        _, product = jax.linearize(lambda w: slope(params, w), lower_params)
        return solve(params, product, right, float(jnp.finfo(params.dtype).eps))

    def gradient(params: jax.Array) -> jax.Array:
        lower_params = solution(params)
        adjoint = adjoint_at(params, lower_params)
        return -jax.grad(lambda x: jnp.vdot(slope(x, lower_params), adjoint))(params)

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        lower_params = solution(params)
        measured = {}
        for name, (rows_of_part, labels) in parts.items():
            logits = rows_of_part @ lower_params
            losses = cross_entropies(lower_params, rows_of_part, labels)
            measured[f"{name}_loss"] = jnp.mean(losses)
            measured[f"{name}_accuracy"] = jnp.mean(logits.argmax(-1) == labels, dtype=jnp.float32)
        weights = jax.nn.sigmoid(params)
        measured["clean_weight"] = jnp.mean(weights, where=~wrong)
        measured["wrong_weight"] = jnp.sum(weights, where=wrong) / max(int(wrong.sum()), 1)
        return measured

    cleaned = _fit(rows[~wrong], given[~wrong], num_train, decay)
    level = _mean_cross_entropy(cleaned, *validation)[0]

    def sample(key: jax.Array) -> _Batch:
        for_train, for_validation = jax.random.split(key)
        return (
            jax.random.randint(for_train, (batch_size,), 0, num_train, jnp.int32),
            jax.random.randint(for_validation, (batch_size,), 0, num_validation, jnp.int32),
        )

    return Problem(
        name="hyper-cleaning",
        summary="weights of training examples with wrong labels, digits",
        init=lambda key: jnp.zeros(num_train),
        sample=sample,
        metrics=metrics,
        objective="validation_loss",
        score="test_accuracy",
        upper=upper,
        lower=lower,
        lower_params=jnp.zeros((rows.shape[1], _CLASSES)),
        levels={"without the wrong labels": level},
        exact={
            "gradient": gradient,
            "lower": solution,
            "adjoint": lambda params: adjoint_at(params, solution(params)),
        },
    )


class _Data(NamedTuple):
    rows: np.ndarray  # of the training examples
    given: np.ndarray  # their labels
    wrong: np.ndarray  # whether these are wrong
    parts: dict[str, _Part]  # "validation" and "test"


def _corrupted(num_train: int, num_validation: int, corruption: float, seed: int) -> _Data:
    """Digits, some of the training labels of which are another class."""
    data = digits_data()
    images, labels = data["train"]
    most = len(labels) - num_validation
    if num_train > most:
        raise ValueError(f"num_train must be at most {most}, got {num_train}.")
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(labels))[: num_train + num_validation]
    images, labels = images[chosen], labels[chosen]
    mean = images[:num_train].mean(0)
    with_bias = lambda images: np.hstack([images - mean, np.ones_like(images[:, :1])])
    given = labels[:num_train].copy()
    wrong = np.arange(num_train) < round(corruption * num_train)
    given[wrong] += rng.integers(1, _CLASSES, np.count_nonzero(wrong), given.dtype)
    parts = {
        "validation": (with_bias(images[num_train:]), labels[num_train:]),
        "test": (with_bias(data["test"][0]), data["test"][1]),
    }
    return _Data(with_bias(images[:num_train]), given % _CLASSES, wrong, parts)


def _mean_cross_entropy(
    classifier: np.ndarray, rows: np.ndarray, labels: np.ndarray
) -> tuple[float, np.ndarray]:
    """The mean cross-entropy and its gradient."""
    logits = rows @ classifier
    each = np.arange(len(labels))
    value = np.mean(scipy.special.logsumexp(logits, axis=1) - logits[each, labels])
    errors = scipy.special.softmax(logits, axis=1)
    errors[each, labels] -= 1
    return float(value), rows.T @ errors / len(labels)


def _fit(rows: np.ndarray, labels: np.ndarray, num_train: int, decay: float) -> np.ndarray:
    """The lower minimizer where these examples have weight one, and all others zero."""
    shape, share = (rows.shape[1], _CLASSES), len(labels) / num_train

    def function(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = _mean_cross_entropy(flat.reshape(shape), rows, labels)
        return share * value + decay / 2 * flat @ flat, share * slope.ravel() + decay * flat

    options = {"maxiter": 1000, "gtol": 1e-8, "ftol": 1e-14}
    found = scipy.optimize.minimize(
        function, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options
    )
    return found.x.reshape(shape)
