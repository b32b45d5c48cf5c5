"""A proximal operator that knows its penalty, and what every penalty is built with."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import check_range

#: ``prox(params, step) -> params``: the proximal operator of ``step`` times a function.
Prox = Callable[[Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class ProximalOperator:
    r"""The proximal operator of a penalty :math:`r`, called as ``prox(params, step)``.

    .. math::

       \mathrm{prox}(v, s) = \arg\min_p \; r(p) + \frac{1}{2 s} \|p - v\|^2

    It is a function of the vocabulary, ``prox(params, step) -> params``, and goes wherever one is
    asked for. An objective needs the penalty as well, which is ``prox.value(params)``.

    The step is a number or a traced scalar, at least zero. Leaves keep their dtypes; the
    computation, and the value, are in float32 or wider.

    Args:
      prox: ``prox(params, step) -> params``, which gets leaves that are float32 or wider.
      function: ``function(params) -> scalar``, :math:`r`; it gets the same leaves.
    """

    prox: Prox
    function: Callable[[Any], jax.Array]

    def __call__(self, params: Any, step: Any) -> Any:
        """The minimizer, a tree like ``params``; ``ValueError`` if ``step`` is negative."""
        check_range("step", step, "[0, inf)")
        return optax.tree.cast_like(self.prox(_widened(params), step), params)

    def value(self, params: Any) -> jax.Array:
        """The penalty at ``params``."""
        return self.function(_widened(params))


def scalars(x: jax.Array, *numbers: Any) -> tuple[jax.Array, ...]:
    """``numbers`` in the real dtype that belongs to ``x``, so that none of them promotes it."""
    return tuple(jnp.asarray(number, jnp.finfo(x.dtype).dtype) for number in numbers)


def total(function: Callable[[jax.Array], jax.Array], tree: Any) -> jax.Array:
    """The sum of ``function(leaf)`` over all entries of all leaves."""
    leaves = jax.tree.leaves(tree)
    dtype = _tree.scalar_dtype(*leaves)
    return sum((jnp.sum(function(x)).astype(dtype) for x in leaves), jnp.zeros([], dtype))


def square(x: jax.Array) -> jax.Array:
    r""":math:`|x|^2` entry by entry, with a derivative at zero for complex entries too."""
    return (x * x.conj()).real


def root(squares: jax.Array) -> jax.Array:
    """The square root, with derivative zero at zero."""
    is_zero = squares == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squares)))


def _widened(tree: Any) -> Any:
    def widened(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        return x.astype(_tree.at_least_float32(x.dtype))

    return jax.tree.map(widened, tree)
