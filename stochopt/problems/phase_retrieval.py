"""Robust phase retrieval: neither convex nor smooth, but weakly convex."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem


def phase_retrieval(
    dimension: int = 10,
    num_examples: int = 100,
    batch_size: int = 10,
    corruption: float = 0.1,
    seed: int = 0,
) -> Problem:
    r"""Recovers a signal from squared measurements, some of them wrong.

    .. math:: f(x) = \frac{1}{n} \sum_i \left| \langle a_i, x \rangle^2 - b_i \right|

    with standard normal :math:`a_i` and :math:`b_i = \langle a_i, x^* \rangle^2`, except for a
    part ``corruption`` of them, which is drawn anew and independent of :math:`x^*`. While this part
    is small the minimizers are :math:`\pm x^*` all the same, and the objective grows linearly
    around them. It is :math:`\rho`-weakly convex, that is :math:`f + \tfrac{\rho}{2} \|x\|^2` is
    convex, with :math:`\rho = 2 \lambda_{\max}(\tfrac1n \sum_i a_i a_i^T)`. The start is random, at
    distance :math:`\|x^*\| / 2` from :math:`x^*`.

    The metric ``distance`` is to the nearer of :math:`x^*` and :math:`-x^*`, of norm 1.

    Args:
      dimension: of :math:`x`.
      num_examples: :math:`n`.
      batch_size: examples a minibatch, drawn with replacement.
      corruption: part of the measurements that is wrong, in [0, 0.5).
      seed: of the random data.

    References:
      Davis, Drusvyatskiy, `Stochastic Model-Based Minimization of Weakly Convex Functions
      <https://arxiv.org/abs/1803.06523>`_, 2019
    """
    check_count("dimension", dimension)
    check_count("num_examples", num_examples)
    check_count("batch_size", batch_size)
    check_range("corruption", corruption, "[0, 0.5)")
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_examples, dimension))
    signal = rng.standard_normal(dimension)
    signal /= np.linalg.norm(signal)
    squares = (rows @ signal) ** 2
    wrong = rng.permutation(num_examples)[: round(corruption * num_examples)]
    squares[wrong] = rng.standard_normal(len(wrong)) ** 2

    def loss(params: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        a, b = batch
        return jnp.mean(jnp.abs(jnp.square(a @ params) - b))

    def sample(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        index = jax.random.randint(key, (batch_size,), 0, num_examples)
        return jnp.asarray(rows)[index], jnp.asarray(squares)[index]

    def init(key: jax.Array) -> jax.Array:
        direction = jax.random.normal(key, (dimension,))
        return signal + direction / (2 * jnp.linalg.norm(direction))

    least = np.mean(np.abs((rows @ signal) ** 2 - squares))

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        both = jnp.stack([params - signal, params + signal])
        return {
            "gap": loss(params, (jnp.asarray(rows), jnp.asarray(squares))) - least,
            "distance": jnp.min(jnp.linalg.norm(both, axis=1)),
        }

    return Problem(
        name="phase-retrieval",
        summary="robust phase retrieval: neither convex nor smooth",
        init=init,
        sample=sample,
        metrics=metrics,
        objective="gap",
        loss=loss,
        optimum=signal,
    )
