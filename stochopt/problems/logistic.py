"""Logistic regression on a synthetic data set, solved to high precision."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.special

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem


def logistic(
    num_features: int = 1000, num_examples: int = 4096, batch_size: int = 16, decay: float = 1e-3
) -> Problem:
    r"""Minibatch logistic regression with an l2 term.

    .. math:: \frac{1}{n} \sum_i \log(1 + e^{-b_i a_i^T x}) + \frac{\lambda}{2} \|x\|^2

    Rows :math:`a_i` are standard normal over :math:`\sqrt d`, labels :math:`b_i = \pm 1` follow a
    logistic model whose margins have standard deviation 4; all from NumPy's ``default_rng(0)``.
    The minimizer is SciPy's, by a trust-region Newton method. The smoothness is
    :math:`\tfrac14 \lambda_{\max}(\tfrac1n \sum_i a_i a_i^T) + \lambda` and the strong convexity
    :math:`\lambda`; ``noise`` is that of one minibatch's gradient at the minimizer.

    Args:
      num_features: :math:`d`.
      num_examples: :math:`n`.
      batch_size: examples a minibatch, drawn with replacement.
      decay: :math:`\lambda > 0`.
    """
    check_count("num_features", num_features)
    check_count("num_examples", num_examples)
    check_count("batch_size", batch_size)
    check_range("decay", decay, "(0, inf)")
    signed = synthetic_examples(num_examples, num_features)
    optimum = minimizer(signed, decay)

    def loss(params: jax.Array, batch: jax.Array) -> jax.Array:
        penalty = decay / 2 * jnp.vdot(params, params)
        return jnp.mean(jax.nn.softplus(-(batch @ params))) + penalty

    def sample(key: jax.Array) -> jax.Array:
        return jnp.asarray(signed)[jax.random.randint(key, (batch_size,), 0, num_examples)]

    def average_loss(params: jax.Array) -> jax.Array:
        return loss(params, jnp.asarray(signed))

    def gradient(params: jax.Array) -> jax.Array:
        weights = jax.nn.sigmoid(-(signed @ params))
        return decay * params - weights @ signed / num_examples

    weights = scipy.special.expit(-(signed @ optimum))
    deviations = decay * optimum - weights[:, None] * signed
    largest = float(np.linalg.eigvalsh(signed.T @ signed / num_examples)[-1])
    return Problem(
        name="logistic",
        summary="logistic regression, synthetic data",
        init=lambda key: jnp.zeros(num_features),
        sample=sample,
        metrics=lambda params: {
            "train_loss": average_loss(params),
            "squared_distance": jnp.sum(jnp.square(params - optimum)),
        },
        objective="train_loss",
        loss=loss,
        optimum=optimum,
        exact={"gradient": gradient},
        smoothness=largest / 4 + decay,
        strong_convexity=decay,
        noise=float(np.sqrt(np.mean(np.sum(deviations**2, axis=1)) / batch_size)),
    )


def synthetic_examples(num_examples: int, num_features: int) -> np.ndarray:
    """The data of :func:`logistic`: rows times their labels."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((num_examples, num_features)) / np.sqrt(num_features)
    truth = rng.standard_normal(num_features)
    margins = rows @ (4 * np.sqrt(num_features) * truth / np.linalg.norm(truth))
    labels = np.where(rng.uniform(size=num_examples) < 1 / (1 + np.exp(-margins)), 1.0, -1.0)
    return rows * labels[:, None]


def minimizer(signed: np.ndarray, decay: float) -> np.ndarray:
    """The minimizer of the average loss, to the rounding of the gradient."""

    def function(x: np.ndarray) -> float:
        return np.mean(np.logaddexp(0, -(signed @ x))) + decay / 2 * x @ x

    def gradient(x: np.ndarray) -> np.ndarray:
        return decay * x - scipy.special.expit(-(signed @ x)) @ signed / len(signed)

    def hessian(x: np.ndarray) -> np.ndarray:
        p = scipy.special.expit(signed @ x)
        weighted = (p * (1 - p))[:, None] * signed
        return signed.T @ weighted / len(signed) + decay * np.eye(len(x))

    start = np.zeros(signed.shape[1])
    solved = scipy.optimize.minimize(
        function, start, jac=gradient, hess=hessian, method="trust-exact", options={"gtol": 1e-12}
    )
    return solved.x
