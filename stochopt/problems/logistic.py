"""Logistic regression on a synthetic data set."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt.problems.problem import Problem


def logistic(
    num_features: int = 1000, num_examples: int = 4096, batch_size: int = 16, decay: float = 1e-3
) -> Problem:
    r"""Minibatch logistic regression with an l2 term.

    .. math:: \frac{1}{n} \sum_i \log(1 + e^{-b_i a_i^T x}) + \frac{\lambda}{2} \|x\|^2

    Rows :math:`a_i` are standard normal over :math:`\sqrt d`, labels :math:`b_i = \pm 1` follow a
    logistic model whose margins have standard deviation 4; all from NumPy's ``default_rng(0)``.

    Args:
      num_features: :math:`d`.
      num_examples: :math:`n`.
      batch_size: examples a minibatch, drawn with replacement.
      decay: :math:`\lambda`.
    """
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((num_examples, num_features)) / np.sqrt(num_features)
    truth = rng.standard_normal(num_features)
    margins = rows @ (4 * np.sqrt(num_features) * truth / np.linalg.norm(truth))
    labels = np.where(rng.uniform(size=num_examples) < 1 / (1 + np.exp(-margins)), 1.0, -1.0)
    signed = (rows * labels[:, None]).astype(np.float32)

    def loss(params: jax.Array, batch: jax.Array) -> jax.Array:
        penalty = decay / 2 * jnp.vdot(params, params)
        return jnp.mean(jax.nn.softplus(-(batch @ params))) + penalty

    def sample(key: jax.Array) -> jax.Array:
        return jnp.asarray(signed)[jax.random.randint(key, (batch_size,), 0, num_examples)]

    return Problem(
        name="logistic",
        summary="logistic regression, synthetic data",
        init=lambda key: jnp.zeros(num_features),
        sample=sample,
        metrics=lambda params: {"train_loss": loss(params, jnp.asarray(signed))},
        objective="train_loss",
        loss=loss,
    )
