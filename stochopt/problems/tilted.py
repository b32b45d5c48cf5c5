"""The same problem seen through biased oracles: what convergence evidence must notice."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt.problems.problem import Problem

# Where ``params`` stands among the arguments of the oracles that may carry a term of its own.
_POSITIONS = {"loss": 0, "outer": 1}


def tilted(problem: Problem, fraction: float) -> Problem:
    r"""Adds :math:`\langle b, x \rangle` to the oracles of a problem, and to nothing it measures.

    Every gradient that a method can get hold of is then biased by the same vector :math:`b`, whose
    entries are equal and whose norm is ``fraction`` of the initial gradient norm. A method
    that works converges to a point of :math:`\nabla F(x) = -b`, not to the optimum.

    Args:
      problem: with an exact gradient.
      fraction: of the norm of the exact gradient at ``problem.init(key(0))``.
    """
    if "gradient" not in problem.exact:
        raise ValueError(f"problem {problem.name!r} has no exact gradient to take a fraction of.")
    params = problem.init(jax.random.key(0))
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    entry = float(fraction * optax.tree.norm(problem.exact["gradient"](params)) / np.sqrt(size))

    def add_tilt(oracle: Any, position: int) -> Any:
        def tilted_oracle(*arguments: Any) -> jax.Array:
            leaves = jax.tree.leaves(arguments[position])
            return oracle(*arguments) + entry * sum(jnp.sum(leaf) for leaf in leaves)

        return tilted_oracle

    changed = {
        name: add_tilt(getattr(problem, name), position)
        for name, position in _POSITIONS.items()
        if getattr(problem, name) is not None
    }
    return dataclasses.replace(problem, **changed)
