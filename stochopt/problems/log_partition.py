"""A Gaussian mean by maximum likelihood, as if its normalization were not known."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem

# Data points and noise points.
_Batch = tuple[jax.Array, jax.Array]


def log_partition(
    mean: float = 1.5,
    noise_mean: float = 0.0,
    noise_variance: float = 3.0,
    num_noise: int = 8,
    num_data: int = 8,
) -> Problem:
    r"""Maximum likelihood of an unnormalized Gaussian, whose log-partition function is known.

    .. math::

       p_\theta(x) = \frac{e^{\theta x - x^2/2}}{Z(\theta)}, \qquad
       Z(\theta) = E_{z \sim q} \frac{e^{\theta z - z^2/2}}{q(z)} = \sqrt{2 \pi}\, e^{\theta^2/2},
       \qquad F(\theta) = \log Z(\theta) - E_x\, \theta x + \text{const},

    for data :math:`x \sim N(\theta^*, 1)` and noise :math:`q = N(\mu_q, s^2)`, so that the gap is
    :math:`(\theta - \theta^*)^2 / 2`. The ratio has the relative second moment

    .. math::

       1 + \chi^2(p_\theta \| q)
         = \frac{s^2}{\sqrt{2 s^2 - 1}} \exp \frac{(\theta - \mu_q)^2}{2 s^2 - 1}

    for :math:`s^2 > 1/2`; it is smaller for wide noise. The ratio has heavy tails and rare values
    throw :math:`\theta` far off, where everything is worse: a method has to project onto
    :math:`[-4, 4]`, which holds the start :math:`\theta = 0`.

    ``inner`` returns the logarithm of the mean ratio at the noise points of a batch, ``outer`` gets
    a logarithm, and ``exact["inner"]`` is :math:`\log Z`. The naive plug-in gradient settles where
    the expected logarithm of the mean of :math:`m` ratios, less :math:`\theta^* \theta`, is least
    in :math:`[-4, 4]`.

    Args:
      mean: :math:`\theta^*` in (-4, 4).
      noise_mean: :math:`\mu_q`.
      noise_variance: :math:`s^2 > 1/2`.
      num_noise: :math:`m`, noise points in a batch.
      num_data: data points in a batch.

    References:
      Jiang et al., `Learning Unnormalized Statistical Models via Compositional Optimization
      <https://arxiv.org/abs/2306.07485>`_, 2023
    """
    check_range("mean", mean, "(-4, 4)")
    check_range("noise_mean", noise_mean, "(-inf, inf)")
    check_range("noise_variance", noise_variance, "(0.5, inf)")
    check_count("num_noise", num_noise)
    check_count("num_data", num_data)
    deviation = float(np.sqrt(noise_variance))
    settled = _limit_of_plug_in(mean, noise_mean, deviation, num_noise)

    def log_density(params: jax.Array, x: jax.Array) -> jax.Array:
        return params * x - jnp.square(x) / 2

    def log_noise_density(x: jax.Array) -> jax.Array:
        return -jnp.square((x - noise_mean) / deviation) / 2 - _log_root(deviation)

    def sample_noise(key: jax.Array) -> jax.Array:
        return noise_mean + deviation * jax.random.normal(key)

    def inner(params: jax.Array, batch: _Batch) -> jax.Array:
        _, noise = batch
        log_ratios = log_density(params, noise) - log_noise_density(noise)
        return jax.nn.logsumexp(log_ratios) - np.log(num_noise).item()

    def outer(value: jax.Array, params: jax.Array, batch: _Batch) -> jax.Array:
        data, _ = batch
        return value - jnp.mean(log_density(params, data))

    def sample(key: jax.Array) -> _Batch:
        for_data, for_noise = jax.random.split(key)
        data = mean + jax.random.normal(for_data, (num_data,))
        return data, jax.vmap(sample_noise)(jax.random.split(for_noise, num_noise))

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        squared_distance = jnp.square(params - mean)
        return {"gap": squared_distance / 2, "squared_distance": squared_distance}

    return Problem(
        name="log-partition",
        summary="a Gaussian mean by an unnormalized model, closed forms",
        init=lambda key: jnp.zeros([]),
        sample=sample,
        metrics=metrics,
        objective="gap",
        loss=lambda params, batch: outer(inner(params, batch), params, batch),
        inner=inner,
        outer=outer,
        data=lambda batch: batch[0],
        log_density=log_density,
        log_noise_density=log_noise_density,
        sample_noise=sample_noise,
        levels={"limit of the naive gradient": (settled - mean) ** 2 / 2},
        optimum=np.asarray(mean, np.float64),
        exact={
            "gradient": lambda params: params - mean,
            "inner": lambda params: jnp.square(params) / 2 + _log_root(1.0),
        },
        smoothness=1.0,
        strong_convexity=1.0,
    )


def _log_root(deviation: float) -> float:
    """Logarithm of the normalization of a Gaussian density."""
    return float(np.log(2 * np.pi) / 2 + np.log(deviation))


def _limit_of_plug_in(mean: float, noise_mean: float, deviation: float, num_noise: int) -> float:
    r"""Where the plug-in objective with ``num_noise`` ratios :math:`r` is least.

    From :math:`\log x = \int (e^{-t} - e^{-tx}) \frac{dt}{t}`, the expected logarithm of a mean of
    :math:`m` independent ratios is :math:`\int (e^{-t} - (E e^{-tr/m})^m) \frac{dt}{t}`, two
    integrals in one dimension, by the trapezoidal rule in :math:`\log t` and in the noise.
    """
    u, step = np.linspace(-9, 9, 301, retstep=True)
    weights = np.exp(-(u**2) / 2) * step / np.sqrt(2 * np.pi)
    z = noise_mean + deviation * u
    log_t, log_step = np.linspace(-50, 50, 801, retstep=True)
    one = np.exp(-np.exp(log_t))

    def objective(theta: float) -> float:
        log_ratios = theta * z - z**2 / 2 + u**2 / 2 + _log_root(deviation)
        exponents = np.minimum(log_t[:, None] + log_ratios - np.log(num_noise), 700)
        transform = np.exp(-np.exp(exponents)) @ weights
        return float(np.sum(one - transform**num_noise) * log_step - theta * mean)

    return float(scipy.optimize.minimize_scalar(objective, bounds=(-4, 4), method="bounded").x)
