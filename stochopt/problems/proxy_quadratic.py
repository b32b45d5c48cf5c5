"""A random quadratic beside a proxy at a known distance from it."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.additive_noise import with_additive_noise
from stochopt.problems.problem import Problem


def proxy_quadratic(
    dimension: int = 20,
    smoothness: float = 10.0,
    strong_convexity: float = 0.1,
    proxy_distance: float = 0.5,
    noise: float = 0.1,
    seed: int = 0,
) -> Problem:
    r"""A target whose gradients are noisy and a proxy without noise and with another Hessian.

    .. math::

       f_\xi(x) = \tfrac12 (x - x^*)^T H (x - x^*) + \langle \xi, x \rangle, \qquad
       \hat f(x) = \tfrac12 x^T (H + E) x, \qquad \|E\| = \delta, \qquad
       \xi \sim N\left(0, \tfrac{\sigma^2}{d} I\right),

    with eigenvalues of :math:`H` geometric between :math:`\mu` and :math:`L`, random
    eigenvectors, a random symmetric :math:`E` and a random :math:`x^*`; so :math:`f - \hat f` is
    :math:`\delta`-smooth. The proxy need not be convex. The start is random with the same gap in
    every direction of curvature, 1/2 in all, whatever the spectrum: what methods need is
    comparable over :math:`L`.

    Args:
      dimension: :math:`d`.
      smoothness: :math:`L`.
      strong_convexity: :math:`\mu` in (0, L].
      proxy_distance: :math:`\delta \ge 0`.
      noise: :math:`\sigma \ge 0`, the root of the expected squared norm of the gradient's error.
      seed: of the random data.
    """
    check_count("dimension", dimension)
    check_range("smoothness", smoothness, "(0, inf)")
    check_range("strong_convexity", strong_convexity, f"(0, {float(smoothness)}]")
    check_range("proxy_distance", proxy_distance, "[0, inf)")
    rng = np.random.default_rng(seed)
    eigenvalues = np.geomspace(strong_convexity, smoothness, dimension)
    vectors, _ = np.linalg.qr(rng.standard_normal((dimension, dimension)))
    hessian = vectors * eigenvalues @ vectors.T
    optimum = rng.standard_normal(dimension)
    difference = rng.standard_normal((dimension, dimension))
    difference = difference + difference.T
    difference *= proxy_distance / np.linalg.norm(difference, 2)
    proxy_hessian = hessian + difference

    def init(key: jax.Array) -> jax.Array:
        signs = jax.random.rademacher(key, (dimension,), float)
        return optimum + vectors @ (signs / np.sqrt(dimension * eigenvalues))

    def gap(params: jax.Array) -> jax.Array:
        error = params - optimum
        return jnp.vdot(error, hessian @ error) / 2

    return with_additive_noise(
        name="proxy-quadratic",
        summary="a quadratic beside a similar one that is cheap",
        function=gap,
        gradient=lambda params: jnp.dot(hessian, params - optimum),
        init=init,
        shape=(dimension,),
        noise=noise,
        metrics=lambda params: {
            "gap": gap(params),
            "squared_distance": jnp.sum(jnp.square(params - optimum)),
        },
        objective="gap",
        proxy=lambda params, batch: jnp.vdot(params, proxy_hessian @ params) / 2,
        optimum=optimum,
        smoothness=float(smoothness),
        strong_convexity=float(strong_convexity),
    )
