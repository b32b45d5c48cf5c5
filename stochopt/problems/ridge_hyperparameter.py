"""The penalty of ridge regression, chosen by validation, with exact gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem

# Rows and targets of a minibatch for training, and of one for validation.
_Part = tuple[jax.Array, jax.Array]
_Batch = tuple[_Part, _Part]


def ridge_hyperparameter(
    num_features: int = 10,
    num_train: int = 30,
    num_validation: int = 100,
    batch_size: int = 8,
    noise: float = 1.5,
    orthonormal: bool = False,
    seed: int = 0,
) -> Problem:
    r"""The logarithm of the penalty of ridge regression, tuned on validation data.

    .. math::

       F(\lambda) = \frac{1}{2 n_v} \|X_v w(\lambda) - t_v\|^2, \qquad
       w(\lambda) = \arg\min_w \frac{1}{2 n} \|X w - t\|^2 + \frac{e^\lambda}{2} \|w\|^2 .

    With :math:`S = X^T X / n` and :math:`S_v` likewise, the adjoint is
    :math:`p = (S + e^\lambda I)^{-1} X_v^T (X_v w - t_v) / n_v` and
    :math:`F'(\lambda) = -e^\lambda w(\lambda)^T p`. The optimum is found to rounding by a search
    on a grid of :math:`[-15, 15]` and a root of :math:`F'`. The exponential keeps the penalty
    positive without a constraint.

    For ``orthonormal`` designs :math:`S = S_v = I`, so :math:`w(\lambda) = s \hat w` with the
    shrinkage :math:`s = 1 / (1 + e^\lambda)` and the least squares solutions :math:`\hat w` and
    :math:`\hat w_v` of the two parts. Then :math:`F = \frac12 \|s \hat w - \hat w_v\|^2 +
    \text{const}` is minimized by :math:`s^* = \hat w^T \hat w_v / \|\hat w\|^2`, which is
    :math:`\lambda^* = \log(1 / s^* - 1)` for :math:`0 < s^* < 1`.

    A batch is a minibatch of each part, drawn with replacement. Targets are a random linear
    function of standard normal rows, with noise. ``params`` is the number :math:`\lambda`, which
    starts at 2: too strong a penalty.

    Args:
      num_features: length of :math:`w`.
      num_train: :math:`n`, at least ``num_features``.
      num_validation: :math:`n_v`, at least ``num_features``.
      batch_size: rows in each half of a batch.
      noise: standard deviation of the targets' noise; of the signal it is one.
      orthonormal: whether both designs are made orthonormal, up to their scale.
      seed: of the random data.

    Raises:
      ValueError: (also) no penalty is best: the noise is so weak that none is wanted, or so
        strong that nothing is left of the signal. Another seed or noise helps.

    References:
      Pedregosa, `Hyperparameter optimization with approximate gradient
      <https://arxiv.org/abs/1602.02355>`_, 2016
    """
    check_count("num_features", num_features)
    check_count("num_train", num_train)
    check_count("num_validation", num_validation)
    check_count("batch_size", batch_size)
    check_range("noise", noise, "[0, inf)")
    for name, count in (("num_train", num_train), ("num_validation", num_validation)):
        if count < num_features:
            raise ValueError(f"{name} must be at least {num_features}, got {count}.")
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(num_features)
    truth /= np.linalg.norm(truth)

    def part(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        rows = rng.standard_normal((num_rows, num_features))
        if orthonormal:
            rows = np.sqrt(num_rows) * np.linalg.qr(rows)[0]
        return rows, rows @ truth + noise * rng.standard_normal(num_rows)

    train, validation = part(num_train), part(num_validation)
    rows, targets = validation
    of_validation = rows.T @ rows / num_validation
    right = rows.T @ targets / num_validation
    rows, targets = train
    # In the eigenvectors Q of S = Q diag(spectrum) Q^T, w(lambda) = Q rotated / (spectrum + e^l).
    spectrum, basis = np.linalg.eigh(rows.T @ rows / num_train)
    rotated = basis.T @ rows.T @ targets / num_train

    def solution(params: jax.Array) -> jax.Array:
        return basis @ (rotated / (spectrum + jnp.exp(params)))

    def adjoint(params: jax.Array) -> jax.Array:
        slope = of_validation @ solution(params) - right
        return basis @ ((basis.T @ slope) / (spectrum + jnp.exp(params)))

    def gradient(params: jax.Array) -> jax.Array:
        return -jnp.exp(params) * jnp.vdot(solution(params), adjoint(params))

    optimum = _optimum(spectrum, rotated, basis.T @ of_validation @ basis, basis.T @ right)
    at_optimum = spectrum + np.exp(optimum)
    slope_at_optimum = of_validation @ (basis @ (rotated / at_optimum)) - right

    def metrics(params: jax.Array) -> dict[str, jax.Array]:
        # By differences from the optimum, which keep their digits where the gap is small.
        distance = params - optimum
        change = -np.exp(optimum) * jnp.expm1(distance) / (spectrum + jnp.exp(params))
        change = basis @ (change * (rotated / at_optimum))
        quadratic = jnp.vdot(change, of_validation @ change) / 2
        return {
            "gap": quadratic + jnp.vdot(change, slope_at_optimum),
            "squared_distance": jnp.square(distance),
        }

    def mean_square(lower_params: jax.Array, part: _Part) -> jax.Array:
        rows, targets = part
        return jnp.mean(jnp.square(rows @ lower_params - targets)) / 2

    def upper(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        del params
        return mean_square(lower_params, batch[1])

    def lower(params: jax.Array, lower_params: jax.Array, batch: _Batch) -> jax.Array:
        penalty = jnp.exp(params) / 2 * jnp.vdot(lower_params, lower_params)
        return mean_square(lower_params, batch[0]) + penalty

    def minibatch(key: jax.Array, part: tuple[np.ndarray, np.ndarray]) -> _Part:
        rows, targets = part
        index = jax.random.randint(key, (batch_size,), 0, len(targets))
        return jnp.asarray(rows)[index], jnp.asarray(targets)[index]

    def sample(key: jax.Array) -> _Batch:
        for_train, for_validation = jax.random.split(key)
        return minibatch(for_train, train), minibatch(for_validation, validation)

    return Problem(
        name="ridge-hyperparameter",
        summary="penalty of ridge regression by validation, exact gradients",
        init=lambda key: jnp.full((), 2.0),
        sample=sample,
        metrics=metrics,
        objective="gap",
        upper=upper,
        lower=lower,
        lower_params=jnp.zeros(num_features),
        optimum=optimum,
        exact={"gradient": gradient, "lower": solution, "adjoint": adjoint},
    )


def _optimum(
    spectrum: np.ndarray, rotated: np.ndarray, of_validation: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """The logarithm of the best penalty, from data in the eigenvectors of the training rows."""

    def value(x: float) -> float:
        w = rotated / (spectrum + np.exp(x))
        return w @ of_validation @ w / 2 - right @ w

    def slope(x: float) -> float:
        w = rotated / (spectrum + np.exp(x))
        return -w @ ((of_validation @ w - right) / (spectrum + np.exp(x)))

    grid = np.linspace(-15, 15, 601)
    best = int(np.argmin([value(x) for x in grid]))
    if best in (0, len(grid) - 1):
        side = "no" if best == 0 else "an infinite"
        raise ValueError(f"noise must make a finite penalty best, but {side} penalty is.")
    root = scipy.optimize.brentq(slope, grid[best - 1], grid[best + 1], xtol=1e-15, rtol=1e-15)
    return np.asarray(root)
