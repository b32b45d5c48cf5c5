"""A quadratic, an absolute loss on a stream, and a ridge; the expectation is in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem


def streaming_absolute_loss(
    dimension: int = 50,
    condition: float = 50.0,
    weight: float = 0.3,
    spread: float = 0.5,
    batch_size: int = 1,
    seed: int = 0,
) -> Problem:
    r"""An ill-conditioned quadratic, an absolute loss on a stream of examples, and a ridge.

    .. math::

       \Psi(x) = \underbrace{\tfrac12 \sum_i \lambda_i (x_i - a_i)^2}_{\text{smooth}}
         + \underbrace{w \, \mathbb E\, |\langle z, x \rangle - y|}_{\text{nonsmooth}}
         + \tfrac{\mu}{2} \|x\|^2, \qquad
       z \sim N(0, I), \quad y = \langle z, \hat x \rangle + s \, N(0, 1),

    with :math:`\lambda` geometric between :math:`10^{-3}` and :math:`L = 1`, and random :math:`a`
    and :math:`\hat x`; from :math:`x = 0`. Every example is new: no finite sum is behind the
    stream. The proximal operator is that of the ridge. In closed form

    .. math::

       \mathbb E\, |\langle z, x \rangle - y| = \sqrt{2 / \pi} \; r(x), \qquad
       r(x) = \sqrt{\|x - \hat x\|^2 + s^2},

    so with :math:`b = w \sqrt{2 / \pi}`

    .. math:: x^*_i = \hat x_i
       + \frac{\lambda_i a_i - (\lambda_i + \mu) \hat x_i}{\lambda_i + \mu + b / r(x^*)},

    which leaves one unknown, :math:`r(x^*)`. The metric ``gap`` is :math:`\Psi(x) - \Psi(x^*)`, as
    a sum of terms that are not negative, so it keeps its digits near the solution.

    Args:
      dimension: :math:`d`.
      condition: :math:`L / \mu \ge 1`.
      weight: :math:`w > 0`; the nonsmooth part is :math:`w \sqrt{2 / \pi}`-Lipschitz.
      spread: :math:`s > 0`, of the noise in :math:`y`; the smaller, the closer is the expectation
        to a cone with its tip at :math:`\hat x`.
      batch_size: how many examples a batch averages.
      seed: of the random data.
    """
    check_count("dimension", dimension)
    check_range("condition", condition, "[1, inf)")
    check_range("weight", weight, "(0, inf)")
    check_range("spread", spread, "(0, inf)")
    check_count("batch_size", batch_size)
    rng = np.random.default_rng(seed)
    smoothness, ridge = 1.0, 1.0 / condition
    curvature = np.geomspace(1e-3, smoothness, dimension)
    target, truth = rng.standard_normal((2, dimension))
    steepness = weight * float(np.sqrt(2 / np.pi))
    pull = curvature * target - (curvature + ridge) * truth

    def offset_at(r: float) -> np.ndarray:
        return pull / (curvature + ridge + steepness / r)

    def excess(r: float) -> float:
        return float(np.hypot(np.linalg.norm(offset_at(r)), spread)) - r

    farthest = float(np.hypot(np.linalg.norm(pull / (curvature + ridge)), spread))
    radius = float(scipy.optimize.brentq(excess, spread, farthest, xtol=1e-15))
    offset = offset_at(radius)  # of the solution from the truth
    optimum = truth + offset

    def smooth(params: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        del batch
        return jnp.sum(curvature * jnp.square(params - target)) / 2

    def nonsmooth(params: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        features, response = batch
        return weight * jnp.mean(jnp.abs(features @ params - response))

    def simple(params: jax.Array) -> jax.Array:
        return ridge / 2 * jnp.sum(jnp.square(params))

    def loss(params: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        return smooth(params, batch) + nonsmooth(params, batch) + simple(params)

    def sample(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        for_features, for_noise = jax.random.split(key)
        features = jax.random.normal(for_features, (batch_size, dimension))
        noise = jax.random.normal(for_noise, (batch_size,))
        return features, features @ truth + spread * noise

    def subgradient(params: jax.Array) -> jax.Array:
        rest = params - truth
        bend = steepness / jnp.sqrt(jnp.sum(jnp.square(rest)) + spread**2)
        return curvature * (params - target) + ridge * params + bend * rest

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        change = params - optimum
        r = jnp.sqrt(jnp.sum(jnp.square(change + offset)) + spread**2)
        # r less its linear model: from what the vector (offset, spread) changes across itself.
        along = jnp.vdot(offset, change) / radius
        across = jnp.sum(jnp.square(change - along / radius * offset))
        across += jnp.square(along * spread / radius)
        return {
            "gap": jnp.sum((curvature + ridge) * jnp.square(change)) / 2
            + steepness * across / (r + radius + along),
            "squared_distance": jnp.sum(jnp.square(change)),
        }

    return Problem(
        name="streaming-absolute-loss",
        summary="quadratic plus absolute loss on a stream plus ridge, expectation in closed form",
        init=lambda key: jnp.zeros(dimension),
        sample=sample,
        metrics=metrics,
        objective="gap",
        loss=loss,
        smooth=smooth,
        nonsmooth=nonsmooth,
        prox=lambda params, step: params / (1 + ridge * step),
        optimum=optimum,
        exact={"subgradient": subgradient},
        smoothness=smoothness,
        strong_convexity=ridge,
        subgradient_bound=2 * steepness,
        # Attained at the truth; elsewhere less by at most the part 2 / (pi d).
        noise=weight * float(np.sqrt(dimension / batch_size)),
    )
