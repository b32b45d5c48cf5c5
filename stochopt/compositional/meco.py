r"""Unnormalized models: maximum likelihood by a compositional view of the normalization."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt._checks import check_count, check_range, require_extra, require_params
from stochopt.compositional.steps import Projection, average_direction, proximal_step
from stochopt.compositional.trackers import log_moving_average
from stochopt.compositional.two_level import EstimateCompositionalState, estimate_compositional

#: ``log_density(params, x) -> scalar``, of one point, up to a constant that depends on ``params``.
LogDensity = Callable[[Any, Any], jax.Array]
#: ``log_noise_density(x) -> scalar``, normalized, of one point.
LogNoiseDensity = Callable[[Any], jax.Array]
#: ``sample_noise(key) -> x``, one point.
SampleNoise = Callable[[jax.Array], Any]


class EstimateLikelihoodState(NamedTuple):
    """State of :func:`estimate_likelihood`."""

    estimator: EstimateCompositionalState  # its tracked_value is the logarithm of Z
    effective_sample_size: jax.Array  # of the last noise points, between 1 and their number
    relative_second_moment: jax.Array  # E_q (p/q)^2 = 1 + chi-squared(p || q), estimated


def estimate_likelihood(
    log_density: LogDensity,
    log_noise_density: LogNoiseDensity,
    sample_noise: SampleNoise,
    *,
    tracker_rate: optax.ScalarOrSchedule = 0.1,
    num_noise: int = 64,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Estimates the gradient of the negative log-likelihood of an unnormalized model.

    For :math:`p_\theta(x) = e^{\phi_\theta(x)} / Z(\theta)` and noise with a density :math:`q`,

    .. math::

       F(\theta) = -E_{\text{data}}\, \phi_\theta(x) + \log Z(\theta), \qquad
       Z(\theta) = E_{z \sim q}\, e^{\ell_\theta(z)}, \quad
       \ell_\theta(z) = \phi_\theta(z) - \log q(z),

    is a logarithm of an expectation. One number, :math:`\nu \approx \log Z`, is tracked in the log
    domain, and with :math:`m` fresh noise points :math:`z_j` in each update

    .. math::

       e^{\nu_t} &= (1 - \gamma_t) e^{\nu_{t-1}}
         + \frac{\gamma_t}{m} \sum_j e^{\ell_{\theta_t}(z_j)} \\
       d_t &= -\mathrm{mean}_i \nabla \phi_{\theta_t}(x_i)
         + \frac1m \sum_j e^{\ell_{\theta_t}(z_j) - \nu_t} \nabla \phi_{\theta_t}(z_j) .

    The variance of the weights is :math:`E_q (p_\theta / q)^2 - 1 = \chi^2(p_\theta \| q)`: choose
    a wide :math:`q`, wider than the model anywhere. The state estimates it as
    ``relative_second_moment``, from the last points alone, and says how many of them counted as
    ``effective_sample_size``, :math:`(\sum_j w_j)^2 / \sum_j w_j^2`. A small one (or a second
    moment beyond :math:`m`, which :math:`m` points cannot even show) means that the gradient is not
    to be trusted.

    An *estimator*: it ignores the incoming ``updates`` and stands first in a chain.
    **Extra arguments of** ``update``: ``batch``, data points on a leading axis; ``key``, optional:
    random key for the noise of this update. Without it the noise follows from ``seed`` and the
    number of the update.

    Args:
      log_density: ``log_density(params, x)``, :math:`\phi_\theta(x)` of one point.
      log_noise_density: ``log_noise_density(x)``, :math:`\log q(x)` of one point.
      sample_noise: ``sample_noise(key)``, one point of :math:`q`.
      tracker_rate: :math:`\gamma` in (0, 1], the weight on the new sample; a number or a schedule.
      num_noise: :math:`m`, noise points in each update.
      seed: of the noise where ``update`` gets no ``key``.

    Returns:
      The estimator.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Jiang et al., `Learning Unnormalized Statistical Models via Compositional Optimization
      <https://arxiv.org/abs/2306.07485>`_, 2023
    """
    check_count("num_noise", num_noise)

    def log_weights(params: Any, noise: Any) -> jax.Array:
        weight = lambda z: log_density(params, z) - log_noise_density(z)
        return jax.vmap(weight)(noise)

    def inner(params: Any, batch: Any) -> jax.Array:
        _, noise = batch
        return jax.nn.logsumexp(log_weights(params, noise)) - jnp.log(num_noise)

    def outer(log_normalizer: jax.Array, params: Any, batch: Any) -> jax.Array:
        data, _ = batch
        return log_normalizer - jnp.mean(jax.vmap(log_density, in_axes=(None, 0))(params, data))

    estimator = estimate_compositional(
        inner,
        outer,
        tracker=log_moving_average(tracker_rate),
        inner_shape=jax.ShapeDtypeStruct((), jnp.result_type(float)),
    )

    def init_fn(params: optax.Params) -> EstimateLikelihoodState:
        zero = jnp.zeros([], jnp.float32)
        return EstimateLikelihoodState(estimator.init(params), zero, jnp.zeros_like(zero))

    def update_fn(
        updates: optax.Updates,
        state: EstimateLikelihoodState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EstimateLikelihoodState]:
        del extra_args
        require_params("estimate_likelihood", params)
        require_extra("estimate_likelihood", "batch", batch, "batch=data")
        if key is None:
            key = jax.random.fold_in(jax.random.key(seed), state.estimator.count)
        noise = jax.vmap(sample_noise)(jax.random.split(key, num_noise))
        direction, inside = estimator.update(updates, state.estimator, params, batch=(batch, noise))
        weights = log_weights(params, noise)  # the compiler sees that the estimator has them too
        total, squares = jax.nn.logsumexp(weights), jax.nn.logsumexp(2 * weights)
        second_moment = squares - jnp.log(num_noise) - 2 * inside.tracked_value
        as_kept = lambda x: jnp.exp(x).astype(jnp.float32)
        return direction, EstimateLikelihoodState(
            inside, as_kept(2 * total - squares), as_kept(second_moment)
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def meco(
    log_density: LogDensity,
    log_noise_density: LogNoiseDensity,
    sample_noise: SampleNoise,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    tracker_rate: optax.ScalarOrSchedule = 0.1,
    direction_rate: optax.ScalarOrSchedule = 0.1,
    num_noise: int = 64,
    projection: Projection | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""MECO: maximum likelihood for an unnormalized model, with two moving averages.

    :func:`stochopt.compositional.estimate_likelihood`, whose tracked normalization gives the
    direction :math:`d_t`, then

    .. math::

       v_t = (1 - \beta_t) v_{t-1} + \beta_t d_t, \qquad
       \theta_{t+1} = \Pi\left(\theta_t - \eta_t v_t\right) .

    With :math:`\eta, \gamma, \beta \propto T^{-1/2}` the average of :math:`E\|\nabla F\|^2` is
    :math:`O(T^{-1/2})` while :math:`\chi^2(p_\theta \| q)` stays bounded; under the
    Polyak-Lojasiewicz condition with constant :math:`\mu` the gap falls like :math:`1 / t` in one
    loop for :math:`\eta_t = c / (\mu (t + t_0))` and
    :math:`\gamma_t, \beta_t \propto 1 / (t + t_1)`. Weights have heavy tails: bound
    :math:`\theta` by ``projection``, or clip.

    Args:
      log_density: ``log_density(params, x)``, :math:`\phi_\theta(x)` of one point.
      log_noise_density: ``log_noise_density(x)``, :math:`\log q(x)` of one point.
      sample_noise: ``sample_noise(key)``, one point of :math:`q`.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      tracker_rate: :math:`\gamma` in (0, 1], weight on the new sample; a number or a schedule.
      direction_rate: :math:`\beta` in (0, 1], weight on the new direction; a number or a schedule.
      num_noise: noise points in each update. Under ``optax.inject_hyperparams`` name it in
        ``static_args``.
      projection: ``projection(params) -> params`` onto a convex set, ``None`` for all of space.
      seed: of the noise where ``update`` gets no ``key``.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``, data points on a leading axis.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Jiang et al., `Learning Unnormalized Statistical Models via Compositional Optimization
      <https://arxiv.org/abs/2306.07485>`_, 2023
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    step = (
        optax.scale_by_learning_rate(learning_rate)
        if projection is None
        else proximal_step(learning_rate, lambda params, step: projection(params))
    )
    return optax.chain(
        estimate_likelihood(
            log_density,
            log_noise_density,
            sample_noise,
            tracker_rate=tracker_rate,
            num_noise=num_noise,
            seed=seed,
        ),
        average_direction(direction_rate),
        step,
    )
