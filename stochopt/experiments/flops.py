"""Floating-point operations of the matrix products in a program, loops counted with their length.

The cost analysis of a compiled program counts the body of a loop once.
"""

import math
from collections.abc import Callable
from typing import Any

import jax


def matmul_flops(function: Callable, *args: Any, **kwargs: Any) -> int:
    """FLOPs of all matrix products and convolutions in one call of ``function``.

    A product of an (m, k) and a (k, n) matrix counts ``2 m n k``, whatever the dtype. Of a branch
    the dearest side counts. The body of a ``shard_map`` counts once, so what is inside one is the
    work of a single device.

    Args:
      function: is traced, not run.
      *args: arrays or ``jax.ShapeDtypeStruct``.
      **kwargs: as ``args``.

    Raises:
      ValueError: the program holds a ``while`` loop with matrix products, whose length no one
        knows before it runs.
    """
    return _count(jax.make_jaxpr(function)(*args, **kwargs).jaxpr)


def _count(jaxpr: Any) -> int:
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation: Any) -> int:
    name = equation.primitive.name
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * depth * equation.outvars[0].aval.size
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval
        outputs = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
        return 2 * equation.outvars[0].aval.size * kernel.size // outputs
    inner = [_count(jaxpr) for jaxpr in _inner(equation.params)]
    if name == "while" and any(inner):
        raise ValueError("a while loop with matrix products: its length is unknown before it runs.")
    if name == "cond":
        return max(inner)
    return sum(inner) * (equation.params["length"] if name == "scan" else 1)


def _inner(params: Any) -> list[Any]:
    """Every jaxpr among the parameters of an equation."""
    is_jaxpr = lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
    found = [x for x in jax.tree.leaves(list(params.values()), is_leaf=is_jaxpr) if is_jaxpr(x)]
    return [getattr(x, "jaxpr", x) for x in found]
