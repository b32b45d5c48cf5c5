"""A quadratic of an expectation, with multiplicative noise and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem
from stochopt.problems.quadratic_value import quadratic_value


def quadratic_composition(
    dimension: int = 6,
    inner_dimension: int = 5,
    matrix_noise: float = 0.5,
    vector_noise: float = 0.1,
    ridge: float = 0.1,
    seed: int = 0,
) -> Problem:
    r"""A quadratic of an expectation with multiplicative noise and closed forms.

    .. math::

       g_\zeta(x) = (A + \sigma_A E) x + b + \sigma_b n, \qquad
       f(u) = \tfrac12 u^T Q u - c^T u, \qquad F(x) = f(E g_\zeta(x)) + \tfrac{\rho}{2} \|x\|^2,

    with :math:`E, n` standard normal. Then :math:`\nabla F(x) = H x - A^T (c - Q b)` with
    :math:`H = A^T Q A + \rho I`, the minimizer is :math:`x^* = H^{-1} A^T (c - Q b)`, and the naive
    plug-in gradient, which evaluates :math:`f` at one sample of :math:`g`, settles on average at
    :math:`x_b = (H + \sigma_A^2 \mathrm{tr}(Q) I)^{-1} A^T (c - Q b)` instead.

    :math:`A, b, c` and the positive definite :math:`Q` are random.

    Args:
      dimension: of :math:`x`.
      inner_dimension: of :math:`g(x)`.
      matrix_noise: :math:`\sigma_A`.
      vector_noise: :math:`\sigma_b`.
      ridge: :math:`\rho`.
      seed: of the random data.
    """
    check_count("dimension", dimension)
    check_count("inner_dimension", inner_dimension)
    check_range("matrix_noise", matrix_noise, "[0, inf)")
    check_range("vector_noise", vector_noise, "[0, inf)")
    check_range("ridge", ridge, "[0, inf)")
    rng = np.random.default_rng(seed)
    d, p = dimension, inner_dimension
    a = rng.standard_normal((p, d)) / np.sqrt(d)
    b, c = rng.standard_normal(p), rng.standard_normal(p)
    root = rng.standard_normal((p, p)) / np.sqrt(p)
    q = root @ root.T + 0.5 * np.eye(p)

    hessian = a.T @ q @ a + ridge * np.eye(d)
    right = a.T @ (c - q @ b)
    optimum = np.linalg.solve(hessian, right)
    biased = np.linalg.solve(hessian + matrix_noise**2 * np.trace(q) * np.eye(d), right)

    def inner(params: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        matrix, vector = batch
        return (a + matrix_noise * matrix) @ params + b + vector_noise * vector

    def outer(value: jax.Array, params: jax.Array, batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        del batch
        penalty = ridge / 2 * jnp.vdot(params, params)
        return jnp.vdot(value, q @ value) / 2 - jnp.vdot(jnp.asarray(c), value) + penalty

    def sample(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        for_matrix, for_vector = jax.random.split(key)
        return jax.random.normal(for_matrix, (p, d)), jax.random.normal(for_vector, (p,))

    error = biased - optimum
    biased_gap = float(error @ hessian @ error / 2)

    return Problem(
        name="quadratic-composition",
        summary="a quadratic of an expectation, multiplicative noise, closed forms",
        init=lambda key: jnp.zeros(d),
        sample=sample,
        loss=lambda params, batch: outer(inner(params, batch), params, batch),
        inner=inner,
        outer=outer,
        levels={"limit of the naive gradient": biased_gap},
        **quadratic_value(
            hessian,
            optimum,
            inner=lambda params: a @ params + b,
        ),
    )
