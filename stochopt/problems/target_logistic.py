"""Logistic regression as a loss of predictions, for methods that work on these."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.logistic import minimizer
from stochopt.problems.problem import Problem


def target_logistic(
    num_features: int = 20,
    num_examples: int = 200,
    condition: float = 1000.0,
    noise: float = 0.01,
    seed: int = 0,
) -> Problem:
    r"""Ill-conditioned logistic regression on full batches, with noise in the predictions.

    .. math::

       z(x) = (b_i a_i^T x)_{i \le n}, \qquad
       \ell_\xi(z) = \frac1n \sum_i \log(1 + e^{-z_i}) + \langle \xi, z \rangle .

    Features are standard normal, with scales such that the eigenvalues of their covariance are
    geometric from :math:`1 / \kappa` to 1; labels :math:`b_i = \pm 1` follow a logistic model with
    margins of standard deviation 1.5. The Gaussian :math:`\xi` is such that the gradient in
    :math:`x` has an error of root mean square :math:`\sigma`. The loss is
    :math:`\tfrac1{4 n}`-smooth in the targets :math:`z`. The minimizer is SciPy's.

    Args:
      num_features: :math:`d`.
      num_examples: :math:`n`.
      condition: :math:`\kappa \ge 1`.
      noise: :math:`\sigma \ge 0`.
      seed: of the random data.
    """
    check_count("num_features", num_features)
    check_count("num_examples", num_examples)
    check_range("condition", condition, "[1, inf)")
    check_range("noise", noise, "[0, inf)")
    rng = np.random.default_rng(seed)
    scales = np.sqrt(np.geomspace(1 / condition, 1, num_features))
    rows = rng.standard_normal((num_examples, num_features)) * scales
    margins = rows @ (rng.standard_normal(num_features) / scales)
    margins *= 1.5 / np.std(margins)
    labels = np.where(rng.uniform(size=num_examples) < 1 / (1 + np.exp(-margins)), 1.0, -1.0)
    signed = rows * labels[:, None]
    optimum = minimizer(signed, 0.0)
    scale = noise / np.linalg.norm(signed)

    def predict(params: jax.Array, batch: jax.Array) -> jax.Array:
        del batch
        return jnp.dot(signed, params)

    def target_loss(targets: jax.Array, batch: jax.Array) -> jax.Array:
        return jnp.mean(jax.nn.softplus(-targets)) + jnp.sum(batch * targets)

    def train_loss(params: jax.Array) -> jax.Array:
        return jnp.mean(jax.nn.softplus(-jnp.dot(signed, params)))

    def gradient(params: jax.Array) -> jax.Array:
        return -jax.nn.sigmoid(-jnp.dot(signed, params)) @ signed / num_examples

    least = float(np.mean(np.logaddexp(0, -signed @ optimum)))
    return Problem(
        name="target-logistic",
        summary="ill-conditioned logistic regression, a loss of predictions",
        init=lambda key: jnp.zeros(num_features),
        sample=lambda key: scale * jax.random.normal(key, (num_examples,)),
        metrics=lambda params: {
            "train_loss": train_loss(params),
            "excess_loss": train_loss(params) - least,
        },
        objective="train_loss",
        loss=lambda params, batch: target_loss(predict(params, batch), batch),
        predict=predict,
        target_loss=target_loss,
        optimum=optimum,
        exact={"gradient": gradient},
        smoothness=float(np.linalg.norm(signed, 2) ** 2 / (4 * num_examples)),
        noise=float(noise),
    )
