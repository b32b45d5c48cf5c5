"""Conditional entropic risk of a distance: one logarithm of an expectation for each block."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.special

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem

# Block indices and standard normal points of each block, on a leading axis over the blocks.
_Batch = tuple[jax.Array, jax.Array]


def entropic_risk(
    num_blocks: int = 20,
    num_sampled: int = 5,
    batch_size: int = 8,
    dimension: int = 3,
    temperature: float = 2.0,
    seed: int = 0,
) -> Problem:
    r"""The mean over Gaussian clusters of the entropic risk of the distance to a point.

    .. math::

       F(w) = \frac1n \sum_i T \log E_{\zeta \sim N(c_i, \sigma_i^2 I)}
         \exp \frac{\|w - \zeta\|^2}{2 T}
       = \text{const} + \frac1n \sum_i \frac{T \|w - c_i\|^2}{2 (T - \sigma_i^2)} ,

    so the minimizer is a weighted mean of the centers :math:`c_i`, with the weights
    :math:`1 / (T - \sigma_i^2)`. The variances :math:`\sigma_i^2` grow from 0.02 T to 0.35 T, along
    with the first coordinate of the random centers; below T / 2 the exponentials have a variance.
    A method that averages plain losses settles at the mean of the centers instead, and one that
    takes a single logarithm, of the mean over all blocks, at the minimizer of that.

    The positive inner values are in the log domain: ``inner`` returns the logarithm of the batch
    mean of :math:`\exp(\|w - \zeta\|^2 / 2T)`, ``outer`` multiplies a logarithm by :math:`T`, and
    ``exact["inner"]`` holds the logarithms of all :math:`n` expectations.

    Args:
      num_blocks: :math:`n`.
      num_sampled: blocks in a batch, drawn without replacement, at most all of them.
      batch_size: points of each of these blocks.
      dimension: of :math:`w`.
      temperature: :math:`T`.
      seed: of the random centers.
    """
    check_count("num_blocks", num_blocks)
    check_count("num_sampled", num_sampled)
    check_count("batch_size", batch_size)
    check_count("dimension", dimension)
    check_range("temperature", temperature, "(0, inf)")
    if num_sampled > num_blocks:
        raise ValueError(f"num_sampled must be at most {num_blocks}, got {num_sampled}.")
    rng = np.random.default_rng(seed)
    centers = 0.5 + 0.7 * rng.standard_normal((num_blocks, dimension))
    centers = centers[np.argsort(centers[:, 0])]
    variances = temperature * np.linspace(0.02, 0.35, num_blocks)
    deviations = np.sqrt(variances)

    margins = temperature - variances
    curvature = float(np.mean(temperature / margins))
    optimum = (1 / margins) @ centers / np.sum(1 / margins)
    constants = -dimension / 2 * np.log1p(-variances / temperature)

    def log_of_mean(point: np.ndarray) -> float:
        squares = np.sum(np.square(point - centers), axis=1)
        return float(scipy.special.logsumexp(constants + squares / (2 * margins)))

    found = scipy.optimize.minimize(log_of_mean, optimum, method="BFGS").x
    gap_at = lambda point: float(curvature / 2 * np.sum(np.square(point - optimum)))

    def inner(params: jax.Array, batch: _Batch) -> jax.Array:
        block, noise = batch
        points = jnp.asarray(centers)[block] + jnp.asarray(deviations)[block] * noise
        squares = jnp.sum(jnp.square(params - points), axis=-1)
        return jax.nn.logsumexp(squares / (2 * temperature)) - np.log(batch_size).item()

    def outer(value: jax.Array, params: jax.Array, batch: _Batch) -> jax.Array:
        del params, batch
        return temperature * value

    def sample(key: jax.Array) -> _Batch:
        for_blocks, for_points = jax.random.split(key)
        blocks = jax.random.permutation(for_blocks, num_blocks)[:num_sampled].astype(jnp.int32)
        return blocks, jax.random.normal(for_points, (num_sampled, batch_size, dimension))

    def loss(params: jax.Array, batch: _Batch) -> jax.Array:
        plug_in = lambda batch_i: outer(inner(params, batch_i), params, batch_i)
        return jnp.mean(jax.vmap(plug_in)(batch))

    def exact_inner(params: jax.Array) -> jax.Array:
        squares = jnp.sum(jnp.square(params - centers), axis=1)
        return squares / (2 * margins) + constants

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        squared_distance = jnp.sum(jnp.square(params - optimum))
        return {"gap": curvature / 2 * squared_distance, "squared_distance": squared_distance}

    return Problem(
        name="entropic-risk",
        summary="entropic risk of a distance, coupled blocks in the log domain, closed forms",
        init=lambda key: jnp.zeros(dimension),
        sample=sample,
        metrics=metrics,
        objective="gap",
        loss=loss,
        inner=inner,
        outer=outer,
        num_blocks=num_blocks,
        blocks=lambda batch: (batch[0], batch),
        levels={
            "limit of plain averages": gap_at(np.mean(centers, axis=0)),
            "limit of one logarithm": gap_at(found),
        },
        optimum=optimum,
        exact={
            "gradient": lambda params: curvature * (params - optimum),
            "inner": exact_inner,
        },
        smoothness=curvature,
        strong_convexity=curvature,
    )
