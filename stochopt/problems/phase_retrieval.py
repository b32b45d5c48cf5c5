"""Robust phase retrieval: neither convex nor smooth, but weakly convex."""

from typing import Any

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
    start_distance: float | None = 0.5,
) -> Problem:
    r"""Recovers a signal from squared measurements, some of them wrong.

    .. math:: f(x) = \frac{1}{n} \sum_i \left| \langle a_i, x \rangle^2 - b_i \right|

    with standard normal :math:`a_i` and :math:`b_i = \langle a_i, x^* \rangle^2`, except for a
    part ``corruption`` of them, which is drawn anew and independent of :math:`x^*`. While this part
    is small the minimizers are :math:`\pm x^*` all the same, and the objective grows linearly
    around them. It is :math:`\rho`-weakly convex, that is :math:`f + \tfrac{\rho}{2} \|x\|^2` is
    convex, with :math:`\rho = 2 \lambda_{\max}(\tfrac1n \sum_i a_i a_i^T)`. The start is random, at
    distance :math:`\|x^*\| / 2` from :math:`x^*` or anywhere on the sphere. Without wrong
    measurements the least value is zero, for every example at once.

    The oracle ``residuals`` is :math:`\langle a_i, x \rangle^2 - b_i`; with batches of one example
    there is also ``loss_prox``, by :func:`square_prox`.

    The metric ``distance`` is to the nearer of :math:`x^*` and :math:`-x^*`, of norm 1.

    Args:
      dimension: of :math:`x`.
      num_examples: :math:`n`.
      batch_size: examples a minibatch, drawn with replacement.
      corruption: part of the measurements that is wrong, in [0, 0.5).
      seed: of the random data.
      start_distance: from the start to :math:`x^*`; ``None`` for a start that is uniform on the
        unit sphere, as :math:`x^*` is.

    References:
      Davis, Drusvyatskiy, `Stochastic Model-Based Minimization of Weakly Convex Functions
      <https://arxiv.org/abs/1803.06523>`_, 2019
    """
    check_count("dimension", dimension)
    check_count("num_examples", num_examples)
    check_count("batch_size", batch_size)
    check_range("corruption", corruption, "[0, 0.5)")
    if start_distance is not None:
        check_range("start_distance", start_distance, "[0, inf)")
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((num_examples, dimension))
    signal = rng.standard_normal(dimension)
    signal /= np.linalg.norm(signal)
    squares = (rows @ signal) ** 2
    wrong = rng.permutation(num_examples)[: round(corruption * num_examples)]
    squares[wrong] = rng.standard_normal(len(wrong)) ** 2

    def residuals(params: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        a, b = batch
        return jnp.square(a @ params) - b

    def loss(params: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.mean(jnp.abs(residuals(params, batch)))

    def loss_prox(params: jax.Array, step: Any, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        a, b = batch
        return square_prox(params, step, a[0], b[0])

    def sample(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        index = jax.random.randint(key, (batch_size,), 0, num_examples)
        return jnp.asarray(rows)[index], jnp.asarray(squares)[index]

    def init(key: jax.Array) -> jax.Array:
        direction = jax.random.normal(key, (dimension,))
        direction /= jnp.linalg.norm(direction)
        return direction if start_distance is None else signal + start_distance * direction

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
        residuals=residuals,
        loss_prox=loss_prox if batch_size == 1 else None,
        optimum=signal,
    )


def square_prox(x: jax.Array, step: Any, a: jax.Array, b: jax.Array) -> jax.Array:
    r"""The proximal operator of ``step`` times :math:`f(x) = |\langle a, x \rangle^2 - b|`.

    With :math:`p = \langle a, x \rangle` and :math:`\beta = 1 / \text{step}` it is the best of at
    most four points :math:`x + t a`, stationary ones of the two branches of :math:`f` and its two
    kinks:

    .. math::

       t = \frac{-2 p}{2 \|a\|^2 + \beta}, \qquad
       t = \frac{2 p}{\beta - 2 \|a\|^2} \text{ if } \beta > 2 \|a\|^2, \qquad
       t = \frac{\pm \sqrt b - p}{\|a\|^2} .

    Args:
      x: a point.
      step: positive.
      a: of the shape of ``x``.
      b: a measurement, at least zero.
    """
    p, squared_norm = jnp.vdot(a, x), jnp.vdot(a, a)
    two, norm = 2 * step * squared_norm, jnp.where(squared_norm > 0, squared_norm, 1)
    root = jnp.sqrt(b)
    outside = -2 * step * p / (1 + two)
    inside = jnp.where(two < 1, 2 * step * p / jnp.where(two < 1, 1 - two, 1), outside)
    t = jnp.stack([outside, inside, (root - p) / norm, (-root - p) / norm])
    objective = step * jnp.abs(jnp.square(p + t * squared_norm) - b) + squared_norm * t**2 / 2
    return x + t[jnp.argmin(objective)] * a
