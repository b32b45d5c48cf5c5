"""A well-behaved expensive part, a stiff cheap one and a ridge: two quadratics."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem


def stiff_composite(
    dimension: int = 50,
    condition: float = 200.0,
    stiffness: float = 100.0,
    noise: float = 0.5,
    seed: int = 0,
) -> Problem:
    r"""Two quadratics that share no eigenvectors, one stiff and cheap, and a ridge.

    .. math::

       \Psi(x) = \underbrace{\tfrac12 \sum_i \lambda_i (x_i - a_i)^2
           + \langle \xi, x \rangle}_{\text{smooth}}
         + \underbrace{\tfrac12 (x - c)^\top Q (x - c)}_{\text{cheap}} + \tfrac{\mu}{2} \|x\|^2,
       \qquad \xi \sim N\left(0, \tfrac{\sigma^2}{d} I\right),

    with :math:`\lambda` geometric between :math:`10^{-3}` and :math:`L = 1`, and :math:`Q` in a
    random basis with half of its eigenvalues zero and the others geometric between
    :math:`10^{-3} L_h` and :math:`L_h`; from :math:`x = 0`. The proximal operator is that of the
    ridge, the minimizer comes from a linear system.

    Args:
      dimension: :math:`d`.
      condition: :math:`L / \mu \ge 1`.
      stiffness: :math:`L_h / L > 0`.
      noise: :math:`\sigma \ge 0`, the root of the expected squared norm of :math:`\xi`.
      seed: of the data.
    """
    check_count("dimension", dimension)
    check_range("condition", condition, "[1, inf)")
    check_range("stiffness", stiffness, "(0, inf)")
    check_range("noise", noise, "[0, inf)")
    rng = np.random.default_rng(seed)
    ridge = 1.0 / condition
    curvature = np.geomspace(1e-3, 1.0, dimension)
    target, center = rng.standard_normal((2, dimension))
    basis = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
    spread = np.geomspace(1e-3, 1.0, dimension) * (np.arange(dimension) % 2 == (dimension - 1) % 2)
    stiff = stiffness * (basis * spread) @ basis.T
    total = np.diag(curvature) + stiff + ridge * np.eye(dimension)
    optimum = np.linalg.solve(total, curvature * target + stiff @ center)

    def smooth(params: jax.Array, batch: jax.Array) -> jax.Array:
        return jnp.sum(curvature * jnp.square(params - target)) / 2 + jnp.sum(batch * params)

    def cheap(params: jax.Array, batch: jax.Array) -> jax.Array:
        del batch
        return (params - center) @ (stiff @ (params - center)) / 2

    def loss(params: jax.Array, batch: jax.Array) -> jax.Array:
        simple = ridge / 2 * jnp.sum(jnp.square(params))
        return smooth(params, batch) + cheap(params, batch) + simple

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        error = params - optimum
        return {"gap": error @ (total @ error) / 2, "squared_distance": jnp.sum(error**2)}

    return Problem(
        name="stiff-composite",
        summary="a smooth part, a stiff cheap one and a ridge, solution known",
        init=lambda key: jnp.zeros(dimension),
        sample=lambda key: noise / np.sqrt(dimension) * jax.random.normal(key, (dimension,)),
        metrics=metrics,
        objective="gap",
        loss=loss,
        smooth=smooth,
        cheap=cheap,
        prox=lambda params, step: params / (1 + ridge * step),
        optimum=optimum,
        exact={"gradient": lambda params: total @ (params - optimum)},
        smoothness=1.0,
        cheap_smoothness=stiffness,
        strong_convexity=ridge,
        noise=noise,
    )
