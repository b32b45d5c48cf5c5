"""Sliding methods under the names of their papers: a policy, and autodiff for the subgradient."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from stochopt._oracles import check_scalar
from stochopt.proximal import DualMap, Prox
from stochopt.sliding.accelerated import saddle_gradient, slide_accelerated
from stochopt.sliding.accelerated_policies import accelerated, restart_free_smoothed
from stochopt.sliding.geometry import euclidean
from stochopt.sliding.gradient_sliding import Subgradient, slide
from stochopt.sliding.policies import fixed_horizon, restart_free

#: ``nonsmooth(params, batch) -> scalar``.
Nonsmooth = Callable[[Any, Any], jax.Array]


def gradient_sliding(
    nonsmooth: Nonsmooth,
    *,
    smoothness: float,
    subgradient_bound: float,
    horizon: int,
    initial_distance: float,
    prox: Prox | None = None,
    max_inner: int = 10_000_000,
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient sliding: smooth plus nonsmooth and convex, each at its own price.

    Minimizes :math:`\Psi = f + h + \chi` where the gradient of the smooth :math:`f` is expensive,
    subgradients of :math:`h` are cheap and :math:`\chi` has a proximal operator. After a horizon of
    :math:`N` updates

    .. math:: \Psi(\bar x_N) - \min \Psi \le \frac{6 L D^2}{N (N + 1)} .

    This is :func:`stochopt.sliding.slide` with the policy
    :func:`stochopt.sliding.fixed_horizon`. ``updates`` are the gradient of :math:`f` *alone* at
    ``params``; evaluate :func:`stochopt.sliding.sliding_eval_params`.

    **Extra argument of** ``update``: ``batch``, passed on to ``nonsmooth``; ``None`` by default.

    Args:
      nonsmooth: ``nonsmooth(params, batch) -> scalar``, :math:`h`.
      smoothness: :math:`L > 0`, a Lipschitz constant of the gradient of :math:`f`.
      subgradient_bound: :math:`M = 2 G`, **twice** the Lipschitz constant of :math:`h`.
      horizon: :math:`N`.
      initial_distance: :math:`D \ge \|x_0 - x^*\|`.
      prox: ``prox(params, step) -> params`` of :math:`\chi`; ``None`` for :math:`\chi = 0`.
      max_inner: inner loops are not longer than this.

    Returns:
      The optimizer.

    Raises:
      ValueError: a constant is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, optax
      >>> from stochopt import gradient_sliding
      >>> from stochopt.sliding import sliding_eval_params
      >>> smooth = lambda x: 0.5 * jnp.sum((x - 3.0) ** 2)
      >>> nonsmooth = lambda x, batch: jnp.sum(jnp.abs(x))
      >>> optimizer = gradient_sliding(
      ...     nonsmooth, smoothness=1.0, subgradient_bound=2 * 2 ** 0.5,
      ...     horizon=20, initial_distance=3.0)
      >>> params = jnp.zeros(2)
      >>> state = optimizer.init(params)
      >>> step = jax.jit(lambda p, s: optimizer.update(jax.grad(smooth)(p), s, p))
      >>> for _ in range(20):
      ...     updates, state = step(params, state)
      ...     params = optax.apply_updates(params, updates)
      >>> print(sliding_eval_params(state, params).round(2))
      [2. 2.]

    References:
      Lan, `Gradient sliding for composite optimization <https://arxiv.org/abs/1406.0919>`_, 2016
    """
    policy = fixed_horizon(smoothness, subgradient_bound, horizon, initial_distance)
    return slide(policy, _subgradient(nonsmooth), geometry=euclidean(prox), max_inner=max_inner)


def stochastic_gradient_sliding(
    nonsmooth: Nonsmooth,
    sample: Callable[[jax.Array], Any],
    *,
    smoothness: float,
    subgradient_bound: float,
    noise: float,
    horizon: int,
    initial_distance: float,
    prox: Prox | None = None,
    max_inner: int = 10_000_000,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient sliding where the nonsmooth part is seen through samples.

    As :func:`stochopt.gradient_sliding` with :math:`h(x) = \mathbb E\, h_\xi(x)`: each
    inner step draws one batch. The same bound holds in expectation.

    **Extra argument of** ``update``: ``key``, optional: random key of the draws, which otherwise
    follows from ``seed`` and the number of the update.

    Args:
      nonsmooth: ``nonsmooth(params, batch) -> scalar``, :math:`h_\xi`.
      sample: ``sample(key) -> batch``, a fresh draw.
      smoothness: :math:`L > 0`, a Lipschitz constant of the gradient of :math:`f`.
      subgradient_bound: :math:`M = 2 G`, **twice** the Lipschitz constant of :math:`h`.
      noise: :math:`\sigma`, with :math:`\mathbb E \|h'_\xi - h'\|^2 \le \sigma^2`.
      horizon: :math:`N`, the number of updates.
      initial_distance: :math:`D \ge \|x_0 - x^*\|`.
      prox: ``prox(params, step) -> params`` of :math:`\chi`; ``None`` for :math:`\chi = 0`.
      max_inner: inner loops are not longer than this.
      seed: of the draws.

    Returns:
      The optimizer.

    Raises:
      ValueError: a constant is out of range.

    References:
      Lan, `Gradient sliding for composite optimization <https://arxiv.org/abs/1406.0919>`_, 2016
    """
    policy = fixed_horizon(smoothness, subgradient_bound, horizon, initial_distance, noise=noise)
    return slide(
        policy,
        _subgradient(nonsmooth),
        sample=sample,
        geometry=euclidean(prox),
        max_inner=max_inner,
        seed=seed,
    )


def restart_free_sliding(
    nonsmooth: Nonsmooth,
    sample: Callable[[jax.Array], Any] | None = None,
    *,
    smoothness: float,
    strong_convexity: float,
    subgradient_bound: float,
    initial_gap: float,
    noise: float | None = None,
    prox: Prox | None = None,
    max_inner: int = 10_000_000,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Sliding for strongly convex problems: a logarithmic number of smooth gradients.

    As :func:`stochopt.gradient_sliding`, with a strongly convex :math:`\chi`. The mixing
    weight is constant, the inner loops grow geometrically, and there are no restarts:

    .. math::

       \mathbb E\, \Psi(\bar x_k) - \min \Psi
       \le 1.75 \, \Delta \left( 1 - \tfrac14 \sqrt{\mu / L} \right)^k

    for :math:`L \ge 4 \mu`. This is
    :func:`stochopt.sliding.slide` with the policy :func:`stochopt.sliding.restart_free`.

    **Extra arguments of** ``update``: ``batch``, passed on to ``nonsmooth`` where there is no
    ``sample``; ``key``, optional: random key of the draws, which otherwise follows from ``seed``
    and the number of the update.

    Args:
      nonsmooth: ``nonsmooth(params, batch) -> scalar``, :math:`h`.
      sample: ``sample(key) -> batch``, a fresh draw for each inner step.
      smoothness: :math:`L > 0`, a Lipschitz constant of the gradient of :math:`f`.
      strong_convexity: :math:`\mu` in (0, L] of :math:`\chi`; where :math:`f` has it, see
        :func:`stochopt.sliding.shift_strong_convexity`.
      subgradient_bound: :math:`M = 2 G`, **twice** the Lipschitz constant of :math:`h`.
      initial_gap: :math:`\Delta \ge \Psi(x_0) - \min \Psi`. Too large costs smooth gradients, too
        small costs subgradients.
      noise: :math:`\sigma`, with :math:`\mathbb E \|h'_\xi - h'\|^2 \le \sigma^2`; ``None`` for
        exact subgradients.
      prox: ``prox(params, step) -> params`` of :math:`\chi`, which must hold the strong convexity.
      max_inner: inner loops are not longer than this.
      seed: of the draws.

    Returns:
      The optimizer.

    Raises:
      ValueError: a constant is out of range, or ``strong_convexity`` exceeds ``smoothness``.
    """
    policy = restart_free(
        smoothness,
        strong_convexity,
        subgradient_bound,
        initial_gap,
        noise=noise,
    )
    return slide(
        policy,
        _subgradient(nonsmooth),
        sample=sample,
        geometry=euclidean(prox),
        max_inner=max_inner,
        seed=seed,
    )


def accelerated_sliding(
    cheap: Callable[[Any, Any], jax.Array],
    *,
    smoothness: float,
    cheap_smoothness: float,
    prox: Prox | None = None,
    max_inner: int = 10_000_000,
) -> optax.GradientTransformationExtraArgs:
    r"""Accelerated sliding: two smooth and convex parts, each at its own price.

    Minimizes :math:`\Psi = f + h + \chi` where the gradient of :math:`f` is expensive, that of
    :math:`h` is cheap and varies faster, and :math:`\chi` has a proximal operator. Each update
    takes one gradient of :math:`f` and :math:`\lceil 2 \sqrt{L_h / L} \rceil` of :math:`h`, and
    after any number :math:`N` of them

    .. math:: \Psi(\bar x_N) - \min \Psi \le \frac{4 L \|x_0 - x^*\|^2}{N (N + 1)} ,

    as if the gradient of :math:`h` were free. This is :func:`stochopt.sliding.slide_accelerated`
    with the policy :func:`stochopt.sliding.accelerated`; for a strongly convex :math:`\chi` use it
    with :func:`stochopt.sliding.restart_free_accelerated`. ``updates`` are the gradient of
    :math:`f` *alone* at ``params``; evaluate :func:`stochopt.sliding.sliding_eval_params`.

    **Extra argument of** ``update``: ``batch``, passed on to ``cheap``; ``None`` by default.

    Args:
      cheap: ``cheap(params, batch) -> scalar``, :math:`h`.
      smoothness: :math:`L > 0`, a Lipschitz constant of the gradient of :math:`f`.
      cheap_smoothness: :math:`L_h > 0`, that of the gradient of :math:`h`.
      prox: ``prox(params, step) -> params`` of :math:`\chi`; ``None`` for :math:`\chi = 0`.
      max_inner: inner loops are not longer than this.

    Returns:
      The optimizer.

    Raises:
      ValueError: a constant is out of range.

    References:
      Lan, Ouyang, `Accelerated gradient sliding for structured convex optimization
      <https://doi.org/10.1007/s10589-022-00365-z>`_, 2022; the constants are derived here.
    """

    def named(params: Any, batch: Any) -> jax.Array:
        value = cheap(params, batch)
        check_scalar("cheap", value)
        return value

    def gradient(params: Any, batch: Any, smoothing: None) -> Any:
        del smoothing
        return optax.tree.conj(jax.grad(named)(params, batch))

    policy = accelerated(smoothness, cheap_smoothness)
    return slide_accelerated(policy, gradient, geometry=euclidean(prox), max_inner=max_inner)


def restart_free_accelerated_sliding(
    operator: Callable[[Any], Any],
    dual: DualMap,
    *,
    smoothness: float,
    strong_convexity: float,
    operator_norm: float,
    initial_gap: float,
    prox: Prox | None = None,
    max_inner: int = 10_000_000,
) -> optax.GradientTransformationExtraArgs:
    r"""Accelerated sliding for :math:`h = \phi(K x)` with kinks, strongly convex, without restarts.

    Minimizes :math:`\Psi(x) = f(x) + \phi(K x + b) + \chi(x)` where the gradient of :math:`f` is
    expensive, :math:`\phi` is a maximum over dual variables such as a norm, and :math:`\chi` is
    strongly convex and has a proximal operator. :math:`\phi(K x + b)` needs none: this is for total
    variation, graph penalties, overlapping groups. It is smoothed, less with every update:

    .. math::

       \Psi(\bar x_k) - \min \Psi \le 4 \Delta \left( 1 - \tfrac14 \sqrt{\mu / L} \right)^k,

    and a gap of :math:`\epsilon` costs :math:`O(\|K\| / \sqrt{\mu \epsilon})` applications of
    :math:`K`, where the subgradients of :func:`stochopt.restart_free_sliding` are
    :math:`O(1 / (\mu \epsilon))`. This is :func:`stochopt.sliding.slide_accelerated` with the
    policy :func:`stochopt.sliding.restart_free_smoothed`. ``updates`` are the gradient of
    :math:`f` *alone* at ``params``; evaluate :func:`stochopt.sliding.sliding_eval_params`.

    Args:
      operator: ``operator(params) -> values``, :math:`K x + b`, any tree; JAX transposes it.
      dual: what :math:`\phi` is: :func:`stochopt.proximal.dual_of_l1`,
        :func:`stochopt.proximal.dual_of_group_norms`, :func:`stochopt.proximal.dual_of_max`.
      smoothness: :math:`L > 0`, a Lipschitz constant of the gradient of :math:`f`.
      strong_convexity: :math:`\mu` in (0, L] of :math:`\chi`; where :math:`f` has it, see
        :func:`stochopt.sliding.shift_strong_convexity`.
      operator_norm: :math:`\|K\| > 0`, or an upper bound; the weight of the penalty is part of
        :math:`K`.
      initial_gap: :math:`\Delta \ge \Psi(x_0) - \min \Psi`. Too large costs smooth gradients, too
        small costs applications of :math:`K`.
      prox: ``prox(params, step) -> params`` of :math:`\chi`, which must hold the strong convexity.
      max_inner: inner loops are not longer than this.

    Returns:
      The optimizer.

    Raises:
      ValueError: a constant is out of range, or ``strong_convexity`` exceeds ``smoothness``.

    Examples:
      Denoising a step by total variation; the strong convexity is that of the data term.

      >>> import jax, jax.numpy as jnp, optax
      >>> from stochopt import proximal, restart_free_accelerated_sliding
      >>> from stochopt.sliding import sliding_eval_params
      >>> data = jnp.array([1.0, -1.0, 0.0, 11.0, 9.0, 10.0])
      >>> optimizer = restart_free_accelerated_sliding(
      ...     lambda x: 3.0 * jnp.diff(x), proximal.dual_of_l1(5), smoothness=1.0,
      ...     strong_convexity=1.0, operator_norm=6.0, initial_gap=200.0,
      ...     prox=proximal.ridge(1.0))
      >>> params = jnp.zeros(6)
      >>> state = optimizer.init(params)
      >>> step = jax.jit(lambda p, s: optimizer.update(-data, s, p))
      >>> for _ in range(40):
      ...     updates, state = step(params, state)
      ...     params = optax.apply_updates(params, updates)
      >>> print(sliding_eval_params(state, params).round())
      [1. 1. 1. 9. 9. 9.]

    References:
      Source of the complexity: Wu, Xu, Zhang, `Restart-Free (Accelerated) Gradient Sliding Methods
      for Strongly Convex Composite Optimization <https://arxiv.org/abs/2602.04161>`_, 2026. The
      constants are derived here.
    """
    policy = restart_free_smoothed(
        smoothness, strong_convexity, operator_norm, dual.diameter, initial_gap
    )
    return slide_accelerated(
        policy, saddle_gradient(operator, dual), geometry=euclidean(prox), max_inner=max_inner
    )


def _subgradient(nonsmooth: Nonsmooth) -> Subgradient:
    def named(params: Any, batch: Any) -> jax.Array:
        value = nonsmooth(params, batch)
        check_scalar("nonsmooth", value)
        return value

    return jax.grad(named)
