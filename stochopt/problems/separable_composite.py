"""A smooth part, a nonsmooth part and a ridge whose minimizer is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem
from stochopt.proximal import dual_of_l1


def separable_composite(
    dimension: int = 100,
    condition: float = 200.0,
    weight: float = 0.05,
    noise: float = 0.5,
    seed: int = 0,
) -> Problem:
    r"""An ill-conditioned quadratic, an absolute deviation seen through noise, and a ridge.

    .. math::

       \Psi(x) = \underbrace{\tfrac12 \sum_i \lambda_i (x_i - a_i)^2}_{\text{smooth}}
         + \underbrace{w \|x - c\|_1 + \langle \xi, x \rangle}_{\text{nonsmooth}}
         + \tfrac{\mu}{2} \|x\|^2,
       \qquad \xi \sim N\left(0, \tfrac{\sigma^2}{d} I\right),

    with :math:`\lambda` geometric between :math:`10^{-3}` and :math:`L = 1`, random :math:`a`, and
    :math:`c` random in half of its entries and zero in the others; from :math:`x = 0`. The
    proximal operator is that of the ridge. Without noise the nonsmooth part is
    :math:`\max_{\|y\|_\infty \le 1} \langle w (x - c), y \rangle`, which gives the operator and its
    dual map. In closed form

    .. math:: x^*_i = c_i + S\left( \frac{\lambda_i a_i}{\lambda_i + \mu} - c_i,
       \frac{w}{\lambda_i + \mu} \right), \qquad S(v, t) = \mathrm{sign}(v) \max(|v| - t, 0) .

    The metric ``gap`` is :math:`\Psi(x) - \Psi(x^*)`, as a sum of terms that are not negative, so
    it keeps its digits near the solution.

    Args:
      dimension: :math:`d`.
      condition: :math:`L / \mu \ge 1`.
      weight: :math:`w > 0`; the nonsmooth part is :math:`w \sqrt d`-Lipschitz.
      noise: :math:`\sigma \ge 0`, the root of the expected squared norm of :math:`\xi`.
      seed: of the random data.
    """
    check_count("dimension", dimension)
    check_range("condition", condition, "[1, inf)")
    check_range("weight", weight, "(0, inf)")
    check_range("noise", noise, "[0, inf)")
    rng = np.random.default_rng(seed)
    smoothness, ridge = 1.0, 1.0 / condition
    curvature = np.geomspace(1e-3, smoothness, dimension)
    target = rng.standard_normal(dimension)
    kink = np.where(rng.random(dimension) < 0.5, 0.0, rng.standard_normal(dimension))
    unpenalized = curvature * target / (curvature + ridge) - kink
    threshold = weight / (curvature + ridge)
    beyond = np.abs(unpenalized) > threshold
    sign = np.where(beyond, np.sign(unpenalized), unpenalized / threshold)  # subgradient at x*
    optimum = kink + np.where(beyond, unpenalized - threshold * sign, 0.0)

    def smooth(params: jax.Array, batch: jax.Array) -> jax.Array:
        del batch
        return jnp.sum(curvature * jnp.square(params - target)) / 2

    def nonsmooth(params: jax.Array, batch: jax.Array) -> jax.Array:
        return weight * jnp.sum(jnp.abs(params - kink)) + jnp.sum(batch * params)

    def loss(params: jax.Array, batch: jax.Array) -> jax.Array:
        simple = ridge / 2 * jnp.sum(jnp.square(params))
        return smooth(params, batch) + nonsmooth(params, batch) + simple

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        squares = jnp.square(params - optimum)
        rest = params - kink
        return {
            "gap": jnp.sum((curvature + ridge) * squares) / 2
            + weight * jnp.sum(jnp.abs(rest) - sign * rest),
            "squared_distance": jnp.sum(squares),
        }

    return Problem(
        name="separable-composite",
        summary="smooth plus nonsmooth plus ridge, solution in closed form",
        init=lambda key: jnp.zeros(dimension),
        sample=lambda key: noise / np.sqrt(dimension) * jax.random.normal(key, (dimension,)),
        metrics=metrics,
        objective="gap",
        loss=loss,
        smooth=smooth,
        nonsmooth=nonsmooth,
        operator=lambda params: weight * (params - kink),
        dual=dual_of_l1(dimension),
        prox=lambda params, step: params / (1 + ridge * step),
        optimum=optimum,
        exact={"subgradient": jax.grad(lambda params: loss(params, jnp.zeros(dimension)))},
        smoothness=smoothness,
        strong_convexity=ridge,
        operator_norm=weight,
        subgradient_bound=2 * weight * float(np.sqrt(dimension)),
        noise=noise,
    )
