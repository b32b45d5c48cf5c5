"""Robust regression: the worst case over perturbed features and responses, softly."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem

# Block indices, noise of the features and noise of the responses, on a leading axis over blocks.
_Batch = tuple[jax.Array, jax.Array, jax.Array]


def causal_gaussian(
    num_blocks: int = 30,
    num_sampled: int = 5,
    batch_size: int = 8,
    dimension: int = 3,
    feature_noise: float = 0.5,
    response_noise: float = 0.3,
    temperature: float = 1.0,
    seed: int = 0,
) -> Problem:
    r"""Distributionally robust linear regression around fixed pairs, with a closed form.

    Each of :math:`n` pairs :math:`(\hat x_i, \hat y_i)` has its own logarithm of an expectation,

    .. math::

       F(\theta) = \frac1n \sum_i T \log E_{x, y} \exp \frac{(\theta^T x - y)^2}{2 T}, \qquad
       x \sim N(\hat x_i, \sigma^2 I), \quad y \sim N(\hat y_i, \tau^2) .

    Causal distributionally robust regression with an entropic penalty takes this form where every
    :math:`\hat x` comes with one :math:`\hat y`. With
    :math:`\kappa = T - \tau^2 - \sigma^2 \|\theta\|^2 > 0` (elsewhere it is infinite)

    .. math::

       F(\theta) = -\frac{T}{2} \log \frac{\kappa}{T}
         + \frac{T}{2 \kappa} R(\theta), \qquad
       R(\theta) = \frac1n \sum_i (\theta^T \hat x_i - \hat y_i)^2 .

    It is convex, and its gradient vanishes where :math:`\theta` is the ridge regression with the
    penalty :math:`\sigma^2 (1 + R(\theta) / \kappa)`: one equation in one unknown, solved
    numerically. A method that averages plain losses at noisy pairs settles at the ridge regression
    with the penalty :math:`\sigma^2`.

    The positive inner values are in the log domain: ``inner`` returns the logarithm of the batch
    mean of :math:`\exp((\theta^T x - y)^2 / 2T)`, ``outer`` multiplies a logarithm by :math:`T`,
    and ``exact["inner"]`` holds the logarithms of all :math:`n` expectations. The pairs are random.

    Args:
      num_blocks: :math:`n`, at least the dimension.
      num_sampled: pairs in a batch, drawn without replacement, at most all of them.
      batch_size: perturbed points of each of these pairs.
      dimension: of :math:`\theta`.
      feature_noise: :math:`\sigma \ge 0`.
      response_noise: :math:`\tau \ge 0`.
      temperature: :math:`T`, so large that the exponentials have a variance at both limits.
      seed: of the random pairs.

    References:
      Zhang, Wang, `arXiv:2601.11016 <https://arxiv.org/abs/2601.11016>`_, 2026
    """
    check_count("num_blocks", num_blocks)
    check_count("num_sampled", num_sampled)
    check_count("batch_size", batch_size)
    check_count("dimension", dimension)
    check_range("feature_noise", feature_noise, "[0, inf)")
    check_range("response_noise", response_noise, "[0, inf)")
    check_range("temperature", temperature, "(0, inf)")
    if num_sampled > num_blocks:
        raise ValueError(f"num_sampled must be at most {num_blocks}, got {num_sampled}.")
    if num_blocks < dimension:
        raise ValueError(f"num_blocks must be at least {dimension}, got {num_blocks}.")
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((num_blocks, dimension))
    direction = rng.standard_normal(dimension)
    responses = features @ direction / np.linalg.norm(direction)
    responses += rng.standard_normal(num_blocks)

    squared = feature_noise**2
    moments = features.T @ features / num_blocks
    cross = features.T @ responses / num_blocks
    ridge = lambda penalty: np.linalg.solve(moments + penalty * np.eye(dimension), cross)
    residual = lambda point: float(np.mean(np.square(features @ point - responses)))
    margin = lambda point: float(temperature - response_noise**2 - squared * point @ point)

    plain = ridge(squared)
    if margin(plain) <= temperature / 2:
        least = 2 * (temperature - margin(plain))
        raise ValueError(f"temperature must exceed {least:.3g} on these pairs, got {temperature}.")

    def excess(factor: float) -> float:
        point = ridge(squared * factor)
        return factor - 1 - residual(point) / margin(point)

    def objective(point: np.ndarray) -> float:
        ratio = residual(point) / margin(point)
        return temperature / 2 * (ratio - float(np.log(margin(point) / temperature)))

    # Along the penalties from that of plain averages the margin stays above T / 2.
    upper = 2 + 2 * float(np.mean(np.square(responses))) / temperature
    optimum = ridge(squared * scipy.optimize.brentq(excess, 1.0, upper, xtol=1e-14))
    best_residual, best_margin = residual(optimum), margin(optimum)

    def gap(params: jax.Array) -> jax.Array:
        # Differences to the optimum throughout: F itself would drown a small gap in rounding.
        step = params - optimum
        towards = 2 * (moments @ optimum - cross) + moments @ step
        more_residual = jnp.vdot(step, towards)
        less_margin = squared * jnp.vdot(step, step + 2 * optimum)
        inside = less_margin < best_margin
        less_margin = jnp.where(inside, less_margin, 0.0)
        growth = more_residual * best_margin + best_residual * less_margin
        growth = growth / (best_margin * (best_margin - less_margin))
        value = temperature / 2 * (growth - jnp.log1p(-less_margin / best_margin))
        return jnp.where(inside, value, jnp.inf)

    def inner(params: jax.Array, batch: _Batch) -> jax.Array:
        block, noise_of_features, noise_of_responses = batch
        x = jnp.asarray(features)[block] + feature_noise * noise_of_features
        y = jnp.asarray(responses)[block] + response_noise * noise_of_responses
        squares = jnp.square(x @ params - y)
        return jax.nn.logsumexp(squares / (2 * temperature)) - np.log(batch_size).item()

    def outer(value: jax.Array, params: jax.Array, batch: _Batch) -> jax.Array:
        del params, batch
        return temperature * value

    def sample(key: jax.Array) -> _Batch:
        for_blocks, for_features, for_responses = jax.random.split(key, 3)
        return (
            jax.random.permutation(for_blocks, num_blocks)[:num_sampled].astype(jnp.int32),
            jax.random.normal(for_features, (num_sampled, batch_size, dimension)),
            jax.random.normal(for_responses, (num_sampled, batch_size)),
        )

    def loss(params: jax.Array, batch: _Batch) -> jax.Array:
        plug_in = lambda batch_i: outer(inner(params, batch_i), params, batch_i)
        return jnp.mean(jax.vmap(plug_in)(batch))

    def exact_inner(params: jax.Array) -> jax.Array:
        margin = temperature - response_noise**2 - squared * jnp.vdot(params, params)
        squares = jnp.square(features @ params - responses)
        return squares / (2 * margin) - jnp.log(margin / temperature) / 2

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        return {"gap": gap(params), "squared_distance": jnp.sum(jnp.square(params - optimum))}

    return Problem(
        name="causal-gaussian",
        summary="robust regression, coupled blocks in the log domain, a closed form",
        init=lambda key: jnp.zeros(dimension),
        sample=sample,
        metrics=metrics,
        objective="gap",
        loss=loss,
        inner=inner,
        outer=outer,
        num_blocks=num_blocks,
        blocks=lambda batch: (batch[0], batch),
        levels={"limit of plain averages": objective(plain) - objective(optimum)},
        optimum=optimum,
        exact={"gradient": jax.grad(gap), "inner": exact_inner},
    )
