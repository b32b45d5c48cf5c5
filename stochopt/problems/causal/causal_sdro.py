"""Causal Sinkhorn robust decisions: the worst case around each training pair, softly."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem

#: ``kernel(key, shape, regularization)``: noise around zero.
Kernel = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]
#: ``loss(decision, outcome)`` of one decision vector and one outcome vector.
DecisionLoss = Callable[[jax.Array, jax.Array], jax.Array]
#: ``init(key) -> params`` and ``apply(params, features[..., d]) -> decisions[..., k]``.
Rule = tuple[Callable[[jax.Array], Any], Callable[[Any, jax.Array], jax.Array]]
# Block indices, noise of the features and noise of the outcomes, on a leading axis over blocks.
_Batch = tuple[jax.Array, jax.Array, jax.Array]


def laplace_kernel(key: jax.Array, shape: tuple[int, ...], regularization: Any) -> jax.Array:
    r"""Laplace noise of scale :math:`\varepsilon`, variance :math:`2 \varepsilon^2`: order 1."""
    return regularization * jax.random.laplace(key, shape)


def gaussian_kernel(key: jax.Array, shape: tuple[int, ...], regularization: Any) -> jax.Array:
    r"""Gaussian noise of variance :math:`\varepsilon / 2`: transport cost of order 2."""
    return jnp.sqrt(regularization / 2) * jax.random.normal(key, shape)


def causal_sdro(
    features: Any,
    outcomes: Any,
    loss: DecisionLoss,
    *,
    multiplier: Any,
    regularization: Any,
    kernel: Kernel = gaussian_kernel,
    rule: Rule | None = None,
    num_outputs: int | None = None,
    test_features: Any = None,
    test_outcomes: Any = None,
    num_sampled: int = 32,
    batch_size: int = 4,
    num_evaluation: int = 32,
) -> Problem:
    r"""Robust contextual decisions, one logarithm of an expectation for each training pair.

    A rule :math:`f_\theta` maps features to a decision, and :math:`\psi(z, y)` is the loss of the
    decision :math:`z` at the outcome :math:`y`. Around every pair :math:`(\hat x_i, \hat y_i)` a
    kernel draws features and outcomes, and with the temperature :math:`T = \lambda \varepsilon`

    .. math::

       F(\theta) = \frac1n \sum_i T \log E_{x, y} \exp \frac{\psi(f_\theta(x), y)}{T}, \qquad
       x \sim Q_\varepsilon(\hat x_i), \quad y \sim Q_\varepsilon(\hat y_i) .

    It is the penalized dual of the worst case over distributions within a causal optimal transport
    distance with entropic regularization :math:`\varepsilon`, for a fixed multiplier
    :math:`\lambda` of the radius, and *where every* :math:`\hat x` *comes with one*
    :math:`\hat y`. With several outcomes at one :math:`\hat x` there is one more logarithm inside,
    a problem of three levels that is not this one. For large :math:`\lambda` it becomes the mean
    loss under noise. For small :math:`\varepsilon` at one :math:`\lambda`, the mean of
    :math:`\sup \psi - \lambda \, \text{distance}^p` over perturbations, with the order :math:`p`
    of the kernel; at one temperature, the plain mean loss.

    The Laplace kernel has exponential tails, so :math:`F` is finite only where
    :math:`\lambda` exceeds the growth rate of :math:`\psi` in every single outcome and feature, and
    the exponentials have a variance only above twice that rate. The Gaussian kernel asks for
    nothing as long as the growth is linear.

    The positive inner values are in the log domain: ``inner`` returns the logarithm of the mean of
    :math:`\exp(\psi / T)` over a block's draws, ``outer`` multiplies a logarithm by :math:`T`.
    A batch holds distinct pairs and the noise around each of them. Metrics: ``robust_loss``,
    :math:`F` with the expectation replaced by a mean over fixed draws; ``train_loss``, the mean of
    :math:`\psi` over the pairs themselves; ``test_loss`` over the test set, if there is one.

    Multiplier, regularization and data may be traced, so that experiments can map over them.

    Args:
      features: :math:`\hat x`, shape (n, features).
      outcomes: :math:`\hat y`, shape (n, outcomes), with an axis of length one for numbers.
      loss: :math:`\psi`, ``loss(decision, outcome) -> scalar`` of two vectors.
      multiplier: :math:`\lambda > 0`.
      regularization: :math:`\varepsilon > 0`.
      kernel: ``kernel(key, shape, regularization)``, the noise.
      rule: ``(init, apply)``, where ``apply(params, x[..., features])`` returns decision vectors;
        by default a ``stochopt.problems.causal.forest.SoftRegressionForest``, which needs
        flax.
      num_outputs: size of a decision of the default rule, by default that of an outcome.
      test_features: further features for ``test_loss``.
      test_outcomes: their outcomes.
      num_sampled: pairs in a batch, drawn without replacement, at most all of them.
      batch_size: draws around each of these pairs.
      num_evaluation: fixed draws around every pair for ``robust_loss``.

    References:
      Zhang, Wang, `arXiv:2601.11016 <https://arxiv.org/abs/2601.11016>`_, 2026
    """
    check_count("num_sampled", num_sampled)
    check_count("batch_size", batch_size)
    check_count("num_evaluation", num_evaluation)
    check_range("multiplier", multiplier, "(0, inf)")
    check_range("regularization", regularization, "(0, inf)")
    num_blocks, dimension = _matrix("features", features)
    rows, num_outcomes = _matrix("outcomes", outcomes)
    if rows != num_blocks:
        raise ValueError(f"outcomes must have as many rows as features, {num_blocks}, got {rows}.")
    if num_sampled > num_blocks:
        raise ValueError(f"num_sampled must be at most {num_blocks}, got {num_sampled}.")
    if (test_features is None) != (test_outcomes is None):
        raise ValueError("test_features and test_outcomes must be given together.")
    init, apply = _forest(dimension, num_outputs or num_outcomes) if rule is None else rule
    temperature = multiplier * regularization
    losses = jax.vmap(loss)

    def inner(params: Any, batch: _Batch) -> jax.Array:
        block, noise_of_features, noise_of_outcomes = batch
        decisions = apply(params, jnp.asarray(features)[block] + noise_of_features)
        values = losses(decisions, jnp.asarray(outcomes)[block] + noise_of_outcomes)
        return jax.nn.logsumexp(values / temperature) - np.log(len(values)).item()

    def outer(value: jax.Array, params: Any, batch: _Batch) -> jax.Array:
        del params, batch
        return temperature * value

    def noise(key: jax.Array, *shape: int) -> tuple[jax.Array, jax.Array]:
        for_features, for_outcomes = jax.random.split(key)
        return (
            kernel(for_features, (*shape, dimension), regularization),
            kernel(for_outcomes, (*shape, num_outcomes), regularization),
        )

    def sample(key: jax.Array) -> _Batch:
        for_blocks, for_noise = jax.random.split(key)
        blocks = jax.random.permutation(for_blocks, num_blocks)[:num_sampled].astype(jnp.int32)
        return (blocks, *noise(for_noise, num_sampled, batch_size))

    def plug_in(params: Any, batch: _Batch) -> jax.Array:
        at = lambda batch_i: outer(inner(params, batch_i), params, batch_i)
        return jnp.mean(jax.vmap(at)(batch))

    def mean_loss(params: Any, x: Any, y: Any) -> jax.Array:
        return jnp.mean(losses(apply(params, jnp.asarray(x)), jnp.asarray(y)))

    def metrics(params: Any) -> dict[str, jax.Array]:
        everywhere = jnp.arange(num_blocks, dtype=jnp.int32)
        draws = noise(jax.random.key(0), num_blocks, num_evaluation)
        measured = {
            "robust_loss": plug_in(params, (everywhere, *draws)),
            "train_loss": mean_loss(params, features, outcomes),
        }
        if test_features is not None:
            measured["test_loss"] = mean_loss(params, test_features, test_outcomes)
        return measured

    return Problem(
        name="causal-sdro",
        summary="robust contextual decisions, coupled blocks in the log domain",
        init=init,
        sample=sample,
        metrics=metrics,
        objective="robust_loss",
        score=None if test_features is None else "test_loss",
        loss=plug_in,
        inner=inner,
        outer=outer,
        num_blocks=num_blocks,
        blocks=lambda batch: (batch[0], batch),
    )


def _matrix(name: str, value: Any) -> tuple[int, int]:
    shape = np.shape(value)
    if len(shape) != 2:
        raise ValueError(f"{name} must be a matrix with one row for each pair, got shape {shape}.")
    return shape


def _forest(num_features: int, num_outputs: int) -> Rule:
    from stochopt.problems._flax import functional
    from stochopt.problems.causal.forest import SoftRegressionForest

    return functional(lambda rngs: SoftRegressionForest(num_features, num_outputs, rngs=rngs))
