"""The same problem seen through biased oracles: what convergence evidence must notice."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt.problems.problem import Problem

# Where ``params`` stands among the arguments of the oracles that may carry a term of its own.
_POSITIONS = {
    "loss": 0,
    "full_loss": 0,
    "smooth": 0,
    "full_smooth": 0,
    "outer": 1,
    "upper": 0,
}
# Where the kink of a linear residual lies, relative to the start.
_FAR = 100.0


def tilted(problem: Problem, fraction: float) -> Problem:
    r"""Adds :math:`\langle b, x \rangle` to the oracles of a problem, and to nothing it measures.

    Every gradient that a method can get hold of is then biased by the same vector :math:`b`, whose
    entries are equal and whose norm is ``fraction`` of the initial gradient norm. A method
    that works converges to a point of :math:`\nabla F(x) = -b`, not to the optimum.

    Args:
      problem: with an exact gradient, or a subgradient where it is not smooth.
      fraction: of the norm of the exact gradient at ``problem.init(key(0))``.
    """
    gradient = problem.exact.get("gradient", problem.exact.get("subgradient"))
    if gradient is None:
        raise ValueError(f"problem {problem.name!r} has no exact gradient to take a fraction of.")
    params = problem.init(jax.random.key(0))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    entry = float(fraction * optax.tree.norm(gradient(params)) / np.sqrt(size))

    def tilt(params: Any) -> Any:
        return entry * sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params))

    def add_tilt(oracle: Any, position: int) -> Any:
        return lambda *arguments: oracle(*arguments) + tilt(arguments[position])

    changed = {
        name: add_tilt(getattr(problem, name), position)
        for name, position in _POSITIONS.items()
        if getattr(problem, name) is not None
    }
    if problem.residuals is not None:
        far = _FAR * entry * sum(jnp.sum(jnp.abs(leaf)) for leaf in jax.tree.leaves(params))
        changed["residuals"] = _tilted_residuals(problem.residuals, tilt, far)
    if problem.loss_prox is not None:
        changed["loss_prox"] = _tilted_prox(problem.loss_prox, entry)
    for name in ("embed", "predict"):
        if (model := getattr(problem, name)) is not None:
            changed[name] = _tilted_model(model, entry)
    if problem.log_density is not None:
        changed |= _tilted_density(problem, tilt)
    return dataclasses.replace(problem, **changed)


def _tilted_residuals(residuals: Any, tilt: Any, offset: Any) -> Any:
    """One residual more, so far above zero that its absolute value is the linear term.

    The others are weighted so that the mean over all of them is as before, and a constant.
    """

    def biased(params: Any, batch: Any) -> Any:
        values = jnp.atleast_1d(residuals(params, batch))
        number = values.size + 1
        further = number * (tilt(params) + offset)
        return jnp.append(values * number / values.size, further)

    return biased


def _tilted_prox(loss_prox: Any, entry: float) -> Any:
    r"""The proximal operator of :math:`f + \langle b, \cdot \rangle`: that of :math:`f`, shifted.

    .. math::

       \langle b, y \rangle + \tfrac{1}{2 \eta} \|y - x\|^2
       = \tfrac{1}{2 \eta} \|y - (x - \eta b)\|^2 + \text{const}
    """

    def biased(params: Any, step: Any, batch: Any) -> Any:
        return loss_prox(jax.tree.map(lambda x: x - step * entry, params), step, batch)

    return biased


def _tilted_model(model: Any, entry: float) -> Any:
    """The same outputs, but whatever is pulled back through them is off by the vector.

    They go into a loss that is not linear in them, so no term of their own could be a plain sum.
    """

    @jax.custom_vjp
    def biased(params: Any) -> Any:
        return params

    def backward(_: None, slope: Any) -> tuple[Any]:
        return (jax.tree.map(lambda x: x + entry, slope),)

    biased.defvjp(lambda params: (params, None), backward)
    return lambda params, batch: model(biased(params), batch)


def _tilted_density(problem: Any, tilt: Any) -> dict[str, Any]:
    """A model whose observed points, and not the noise, say that they are less likely.

    The same factor for both would belong to the normalization and change no gradient. So a point
    carries a mark beside it: one where it was observed, zero where it is noise.
    """
    data, log_density = problem.data, problem.log_density
    log_noise_density, sample_noise = problem.log_noise_density, problem.sample_noise

    def marked(batch: Any) -> Any:
        points = data(batch)
        return points, jnp.ones(len(jax.tree.leaves(points)[0]))

    return {
        "data": marked,
        "log_density": lambda params, x: log_density(params, x[0]) - x[1] * tilt(params),
        "log_noise_density": lambda x: log_noise_density(x[0]),
        "sample_noise": lambda key: (sample_noise(key), jnp.zeros([])),
    }
