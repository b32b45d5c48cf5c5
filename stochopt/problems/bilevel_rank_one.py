"""Quadratics at both levels from samples of rank one, in fixed minibatches, closed forms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem
from stochopt.problems.quadratic_value import quadratic_value

# The index of a minibatch of the lower function and that of one of the upper function.
_Batch = tuple[jax.Array, jax.Array]


class _Samples(NamedTuple):
    """What a level's samples are made of; a minibatch, a sample, then the coordinates."""

    root: np.ndarray  # a, of the curvature in the lower variable
    above: np.ndarray  # u, the half of the coupling that meets x
    below: np.ndarray  # v, the half that meets y
    slope: np.ndarray  # c


def bilevel_rank_one(
    num_samples: int = 8192,
    dimension: int = 10,
    lower_dimension: int = 100,
    *,
    batch_size: int = 64,
    least: float = 0.1,
    coupling: float = 0.1,
    seed: int = 0,
) -> Problem:
    r"""Quadratics with given spectra at both levels, from samples of rank one.

    .. math::

       F(x) = f(x, y(x)), \qquad y(x) = \arg\min_y g(x, y), \qquad
       f = \frac1n \sum_{j=1}^n f_j, \qquad g = \frac1n \sum_{i=1}^n g_i, \\
       g_i(x, y) = \tfrac12 (a_i^T y)^2 + (u_i^T x) (v_i^T y) + c_i^T y, \\
       f_j(x, y) = \tfrac12 (\tilde a_j^T y)^2 + \tfrac12 (r_j^T x)^2
         + (\tilde u_j^T x) (\tilde v_j^T y) + \tilde c_j^T y + d_j^T x .

    The vectors are Gaussian, such that :math:`E\, a a^T`, :math:`E\, \tilde a \tilde a^T` and
    :math:`E\, r r^T` have eigenvalues equally spaced on a logarithmic scale from :math:`\mu` to 1,
    and :math:`E\, u v^T` and :math:`E\, \tilde u \tilde v^T` singular values likewise from the
    lesser to the greater of :math:`\mu` and :math:`\kappa`; the linear terms have the mean zero, so
    they are nearly nothing but noise. The samples are cut into fixed minibatches, and a batch is a
    pair of indices drawn independently: of a minibatch of :math:`g` and of one of :math:`f`. A
    minibatch has fewer samples than :math:`y` has coordinates, so :math:`g` is strongly convex in
    the mean only.

    With :math:`A, C, c` and :math:`S, R, \tilde C, \tilde c, d` the means over all samples,

    .. math::

       y(x) = -A^{-1} (C^T x + c), \qquad
       p(x) = A^{-1} (S y(x) + \tilde C^T x + \tilde c), \qquad
       \nabla F(x) = R x + \tilde C y(x) + d - C p(x) .

    ``init`` draws a standard normal point.

    Args:
      num_samples: :math:`n`, a multiple of ``batch_size``.
      dimension: of :math:`x`.
      lower_dimension: of :math:`y`.
      batch_size: samples in a minibatch.
      least: :math:`\mu` in (0, 1].
      coupling: :math:`\kappa > 0`.
      seed: of the random data.

    Raises:
      ValueError: an argument is out of range, or :math:`F` is not strongly convex: too few samples,
        or too much coupling.

    References:
      Dagréou et al., `A Framework for Bilevel Optimization that Enables Stochastic and Global
      Variance Reduction Algorithms <https://arxiv.org/abs/2201.13409>`_, 2022
    """
    for name, value in {
        "num_samples": num_samples,
        "dimension": dimension,
        "lower_dimension": lower_dimension,
        "batch_size": batch_size,
    }.items():
        check_count(name, value)
    check_range("least", least, "(0, 1]")
    check_range("coupling", coupling, "(0, inf)")
    if num_samples % batch_size:
        raise ValueError(f"num_samples must be a multiple of {batch_size}, got {num_samples}.")
    rng = np.random.default_rng(seed)
    d, p, num_batches = dimension, lower_dimension, num_samples // batch_size

    def curved(size: int) -> np.ndarray:
        root = np.sqrt(np.geomspace(least, 1.0, size)) * _rotation(rng, size)
        return rng.standard_normal((num_samples, size)) @ root.T

    def level() -> _Samples:
        rank = min(d, p)
        normal = rng.standard_normal((num_samples, p))
        singular = np.geomspace(min(least, coupling), max(least, coupling), rank)
        above = normal[:, :rank] * singular @ _rotation(rng, d)[:rank]
        slope = rng.standard_normal((num_samples, p))
        return _Samples(curved(p), above, normal @ _rotation(rng, p), slope)

    lower_samples, upper_samples = level(), level()
    roots_above, slopes_above = curved(d), rng.standard_normal((num_samples, d))

    (a, cross, c), (s, upper_cross, upper_c) = map(_means, (lower_samples, upper_samples))
    solve = lambda right: np.linalg.solve(a, right)
    to_lower, offset = -solve(cross.T), -solve(c)
    to_adjoint = solve(s @ to_lower + upper_cross.T)
    adjoint_offset = solve(s @ offset + upper_c)
    hessian = roots_above.T @ roots_above / num_samples
    hessian += upper_cross @ to_lower - cross @ to_adjoint
    hessian = (hessian + hessian.T) / 2
    linear = upper_cross @ offset + slopes_above.mean(0) - cross @ adjoint_offset
    eigenvalues = np.linalg.eigvalsh(hessian)
    if eigenvalues[0] <= 0:
        raise ValueError(f"F is not strongly convex: its least curvature is {eigenvalues[0]:.2g}.")
    optimum = np.linalg.solve(hessian, -linear)

    cut = lambda rows: rows.astype(np.float32).reshape(num_batches, batch_size, -1)
    lower_batches = _Samples(*map(cut, lower_samples))
    upper_batches = _Samples(*map(cut, upper_samples))
    above_batches = cut(roots_above), cut(slopes_above)

    def along(samples: _Samples, params: jax.Array, y: jax.Array) -> jax.Array:
        """The terms that both levels have, the mean over a minibatch."""
        coupled = jnp.vdot(samples.above @ params, samples.below @ y)
        of_minibatch = jnp.vdot(samples.root @ y, samples.root @ y) / 2 + coupled
        return of_minibatch / batch_size + jnp.mean(samples.slope @ y)

    def upper(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        samples, (root, slope) = jax.tree.map(
            lambda rows: jnp.asarray(rows)[batch[1]], (upper_batches, above_batches)
        )
        alone = jnp.mean(jnp.square(root @ params)) / 2 + jnp.mean(slope @ params)
        return along(samples, params, lower_params) + alone

    def lower(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        samples = jax.tree.map(lambda rows: jnp.asarray(rows)[batch[0]], lower_batches)
        return along(samples, params, lower_params)

    def sample(key: jax.Array) -> _Batch:
        for_lower, for_upper = jax.random.split(key)
        return (
            jax.random.randint(for_lower, (), 0, num_batches, jnp.int32),
            jax.random.randint(for_upper, (), 0, num_batches, jnp.int32),
        )

    return Problem(
        name="bilevel-rank-one",
        summary="quadratics with given spectra at both levels, samples of rank one",
        init=lambda key: jax.random.normal(key, (d,)),
        sample=sample,
        upper=upper,
        lower=lower,
        lower_params=jnp.zeros(p),
        num_samples=num_batches,
        sample_indices=lambda batch: batch,
        **quadratic_value(
            hessian,
            optimum,
            lower=lambda params: to_lower @ params + offset,
            adjoint=lambda params: to_adjoint @ params + adjoint_offset,
        ),
    )


def _rotation(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.linalg.qr(rng.standard_normal((size, size)))[0]


def _means(samples: _Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Curvature, coupling and slope over all samples."""
    root, above, below, slope = samples
    return root.T @ root / len(root), above.T @ below / len(root), slope.mean(0)
