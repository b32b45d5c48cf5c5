"""Contrastive learning on so few views that the global loss is a sum over all pairs of them."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from stochopt._checks import check_count, check_range
from stochopt.problems.problem import Problem

# Which examples, and two views of each, on a leading axis.
_Batch = tuple[jax.Array, tuple[jax.Array, jax.Array]]


def contrastive_views(
    num_examples: int = 12,
    num_sampled: int = 6,
    num_views: int = 2,
    dimension: int = 3,
    spread: float = 0.5,
    temperature: float = 0.1,
    seed: int = 0,
) -> Problem:
    r"""The global contrastive loss of a linear embedding, exact by enumeration.

    Each of :math:`n` examples has a few views :math:`a \in \mathbb R^d`: a standard normal centre
    and a normal deviation of standard deviation ``spread`` each. A view's feature is the angle of
    :math:`(\langle x, a \rangle, 1)`, so that :math:`x` has a length of its own, and :math:`s` the
    cosine of the difference of two angles:

    .. math::

       F(x) = \frac1n \sum_i \left( -E\, s(a_i, a'_i) + \tau \log g_i(x) \right), \qquad
       g_i(x) = E_{a_i, z}\, e^{s(a_i, z) / \tau},

    with :math:`a_i, a'_i` independent, uniform among the views of example :math:`i`, and :math:`z`
    among those of all others. A batch holds two views of each of a few examples, drawn without
    replacement; ``loss`` is the batch loss, with the mean over the others in the batch within the
    logarithm. Its gradient is biased.

    Args:
      num_examples: :math:`n`, at least two.
      num_sampled: examples in a batch, at least two.
      num_views: of each example.
      dimension: :math:`d`.
      spread: of the views of one example.
      temperature: :math:`\tau > 0`.
      seed: of the random views.

    References:
      Yuan et al., `Provable Stochastic Optimization for Global Contrastive Learning: Small Batch
      Does Not Harm Performance <https://arxiv.org/abs/2202.12387>`_, 2022
    """
    check_range("temperature", temperature, "(0, inf)")
    views = _views(num_examples, num_views, dimension, spread, seed)
    check_range("num_sampled", num_sampled, f"[2, {num_examples}]")

    def init(key: jax.Array) -> jax.Array:
        del key
        # Nearly alike features, which the others push apart: the gradient is largest about here.
        return jnp.full(dimension, 0.15 / np.sqrt(dimension))

    def sample(key: jax.Array) -> _Batch:
        for_examples, *for_views = jax.random.split(key, 3)
        indices = jax.random.permutation(for_examples, num_examples)[:num_sampled]

        def view(key: jax.Array) -> jax.Array:
            which = jax.random.randint(key, (num_sampled,), 0, num_views)
            return jnp.asarray(views)[indices, which]

        return indices.astype(jnp.int32), (view(for_views[0]), view(for_views[1]))

    def loss(params: jax.Array, batch: _Batch) -> jax.Array:
        first, second = (_unit_features(params, view) for view in batch[1])
        both = jnp.stack([first, second], axis=1)
        normalizers = _log_normalizers(both, jnp.full(num_sampled, temperature))
        return jnp.mean(temperature * normalizers - jnp.sum(first * second, axis=-1))

    exact = _exact(views, lambda features: jnp.full(num_examples, temperature), radius=0.0)
    return Problem(
        name="contrastive-views",
        summary="global contrastive loss over finitely many views, small batches",
        init=init,
        sample=sample,
        metrics=lambda params: {"loss": exact["loss"](params)},
        objective="loss",
        loss=loss,
        embed=_embed,
        num_blocks=num_examples,
        blocks=lambda batch: batch,
        exact={name: exact[name] for name in ("gradient", "inner")},
    )


def robust_contrastive_views(
    num_examples: int = 12,
    num_sampled: int = 6,
    num_views: int = 2,
    dimension: int = 3,
    spread: float = 0.5,
    temperature: float = 0.1,
    min_temperature: float = 0.05,
    max_temperature: float = 0.7,
    radius: float = 0.3,
    seed: int = 0,
) -> Problem:
    r"""The same, robust to the weights of the others: the least over a temperature for each.

    .. math::

       F(x) = \frac1n \sum_i \min_{\tau_{\min} \le \tau \le \tau_{\max}}
         \left( -E\, s(a_i, a'_i) + \tau \log g_i(x, \tau) + \rho \tau \right) .

    The term is convex in :math:`\tau`, and its minimizer is found by Newton's method.

    Args:
      num_examples: :math:`n`, at least two.
      num_sampled: examples in a batch, at least two.
      num_views: of each example.
      dimension: :math:`d`.
      spread: of the views of one example.
      temperature: :math:`\tau` of ``loss``, the batch loss with one temperature for all.
      min_temperature: :math:`\tau_{\min} > 0`.
      max_temperature: :math:`\tau_{\max}`.
      radius: :math:`\rho \ge 0`.
      seed: of the random views.

    References:
      Qiu et al., `Not All Semantics are Created Equal: Contrastive Self-supervised Learning with
      Automatic Temperature Individualization <https://arxiv.org/abs/2305.11965>`_, 2023
    """
    check_range("min_temperature", min_temperature, "(0, inf)")
    check_range("max_temperature", max_temperature, f"[{min_temperature}, inf)")
    check_range("radius", radius, "[0, inf)")
    plain = contrastive_views(
        num_examples, num_sampled, num_views, dimension, spread, temperature, seed
    )

    def best(features: jax.Array) -> jax.Array:
        """Newton's method on the slope, which rises, halving the interval where it would leave."""
        low = jnp.full(num_examples, min_temperature, features.dtype)
        high = jnp.full_like(low, max_temperature)

        def slope(temperatures: jax.Array) -> tuple[jax.Array, jax.Array]:
            total, mean, variance = _moments(features, temperatures)
            return total + radius - mean / temperatures, variance / temperatures**3

        def refine(_: int, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            low, high, at = state
            first, second = slope(at)
            low, high = jnp.where(first < 0, at, low), jnp.where(first < 0, high, at)
            newton = at - first / second
            inside = (newton > low) & (newton < high)
            return low, high, jnp.where(inside, newton, (low + high) / 2)

        _, _, found = jax.lax.fori_loop(0, 10, refine, (low, high, (low + high) / 2))
        found = jnp.where(slope(high)[0] <= 0, high, found)
        return jnp.where(slope(low)[0] >= 0, low, found)

    views = _views(num_examples, num_views, dimension, spread, seed)
    exact = _exact(views, best, radius)
    return dataclasses.replace(
        plain,
        name="robust-contrastive-views",
        summary="the same with the best temperature for each example",
        metrics=lambda params: {"loss": exact["loss"](params)},
        exact={name: exact[name] for name in ("gradient", "inner", "temperature")},
    )


def _embed(params: jax.Array, views: jax.Array) -> jax.Array:
    along = views @ params
    return jnp.stack([along, jnp.ones_like(along)], axis=-1)


def _unit_features(params: jax.Array, views: jax.Array) -> jax.Array:
    features = _embed(params, views)
    return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


def _views(
    num_examples: int, num_views: int, dimension: int, spread: float, seed: int
) -> np.ndarray:
    """All views, shape (num_examples, num_views, dimension)."""
    check_count("num_examples", num_examples)
    check_count("num_views", num_views)
    check_count("dimension", dimension)
    check_range("spread", spread, "[0, inf)")
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((num_examples, 1, dimension))
    return centres + spread * rng.standard_normal((num_examples, num_views, dimension))


def _log_normalizers(features: jax.Array, temperatures: jax.Array) -> jax.Array:
    """The logarithm of each example's mean over pairs of a view and a view of another example.

    ``features`` of unit length, shape (examples, views, 2).
    """
    similarities, others = _pairs(features)
    exponents = similarities / temperatures[:, None]
    total = jax.nn.logsumexp(exponents, axis=1, where=others)
    return total - jnp.log(jnp.sum(others, axis=1))


def _moments(features: jax.Array, temperatures: jax.Array) -> tuple[jax.Array, ...]:
    """That logarithm, and mean and variance of the similarities under its exponential weights."""
    similarities, others = _pairs(features)
    total = _log_normalizers(features, temperatures)
    weights = jnp.exp(similarities / temperatures[:, None] - total[:, None])
    weights = jnp.where(others, weights, 0) / jnp.sum(others, axis=1, keepdims=True)
    mean = jnp.sum(weights * similarities, axis=1)
    return total, mean, jnp.sum(weights * (similarities - mean[:, None]) ** 2, axis=1)


def _pairs(features: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Similarities of all pairs of views, a row for each example, and which are with others."""
    similarities = jnp.einsum("iak,jbk->iajb", features, features)
    others = ~jnp.eye(len(features), dtype=bool)[:, None, :, None]
    others = jnp.broadcast_to(others, similarities.shape)
    return similarities.reshape(len(features), -1), others.reshape(len(features), -1)


def _exact(
    views: np.ndarray,
    temperatures_of: Callable[[jax.Array], jax.Array],
    radius: float,
) -> dict[str, Callable[[jax.Array], jax.Array]]:
    """Loss, its gradient, log normalizers and temperatures, by enumeration of all views."""

    def features_of(params: jax.Array) -> jax.Array:
        return _unit_features(params, jnp.asarray(views))

    def loss(params: jax.Array) -> jax.Array:
        features = features_of(params)
        # At a minimizer the temperature's own change does not count.
        temperatures = temperatures_of(jax.lax.stop_gradient(features))
        positives = jnp.sum(jnp.mean(features, axis=1) ** 2, axis=-1)
        return jnp.mean(
            temperatures * (_log_normalizers(features, temperatures) + radius) - positives
        )

    def temperatures(params: jax.Array) -> jax.Array:
        return temperatures_of(features_of(params))

    return {
        "loss": loss,
        "gradient": jax.grad(loss),
        "inner": lambda params: _log_normalizers(features_of(params), temperatures(params)),
        "temperature": temperatures,
    }
