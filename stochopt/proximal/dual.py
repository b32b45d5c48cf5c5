r"""Functions that are a maximum over dual variables, smoothed.

.. math::

   \phi(v) = \max_{y \in Y} \; \langle v, y \rangle, \qquad
   \phi_\eta(v) = \max_{y \in Y} \; \langle v, y \rangle - \eta W(y), \qquad
   \phi_\eta \le \phi \le \phi_\eta + \eta D, \quad D = \max_Y W,

with :math:`W \ge 0` 1-strongly convex in some norm. Then :math:`\nabla \phi_\eta(v)` is the
maximizer :math:`y_\eta(v)`, and :math:`\phi_\eta(K x)` has a gradient
:math:`K^\top y_\eta(K x)` with Lipschitz constant :math:`\|K\|^2 / \eta`.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from stochopt._checks import check_count
from stochopt.proximal.operator import root, scalars, square, total


@dataclasses.dataclass(frozen=True)
class DualMap:
    r"""The maximizer :math:`y_\eta` of a smoothed function, called as ``dual(values, smoothing)``.

    Attributes:
      maximizer: ``maximizer(values, smoothing) -> y``, a tree like ``values``.
      function: ``function(values) -> scalar``, :math:`\phi` itself.
      diameter: :math:`D`, the largest value of :math:`W`.
    """

    maximizer: Callable[[Any, Any], Any]
    function: Callable[[Any], jax.Array]
    diameter: float

    def __call__(self, values: Any, smoothing: Any) -> Any:
        r""":math:`y_\eta` at ``values``, for ``smoothing`` :math:`\eta > 0`."""
        return self.maximizer(values, smoothing)

    def value(self, values: Any) -> jax.Array:
        """The function without smoothing."""
        return self.function(values)


def dual_of_l1(num_values: int) -> DualMap:
    r"""The sum of absolute values, smoothed to Huber's function; anisotropic total variation.

    .. math:: y_i = \frac{v_i}{\max(\eta, |v_i|)}, \qquad W(y) = \tfrac12 \|y\|^2, \qquad
       D = \tfrac n2

    Args:
      num_values: :math:`n`, how many entries the values have, over all leaves.

    Examples:
      The total variation of a signal of 100 entries is

      >>> import jax.numpy as jnp
      >>> from stochopt import proximal
      >>> operator = lambda x: jnp.diff(x)  # its norm is at most 2
      >>> dual = proximal.dual_of_l1(99)
      >>> print(dual.value(operator(jnp.arange(100.0))))
      99.0
    """
    check_count("num_values", num_values)
    return _of_balls("num_values", num_values, lambda v: root(square(v)))


def dual_of_group_norms(num_groups: int, axis: int | tuple[int, ...] = 0) -> DualMap:
    r"""The sum of the Euclidean norms of groups, such as isotropic total variation.

    .. math:: y_g = \frac{v_g}{\max(\eta, \|v_g\|)}, \qquad W(y) = \tfrac12 \|y\|^2, \qquad
       D = \tfrac n2

    Args:
      num_groups: :math:`n`, over all leaves.
      axis: along which a group runs in every leaf; the other axes count the groups. The differences
        of an image in its two directions, stacked to shape ``(2, height, width)``, have groups
        along axis 0.
    """
    check_count("num_groups", num_groups)
    norms = lambda v: root(jnp.sum(square(v), axis=axis, keepdims=True))
    return _of_balls("num_groups", num_groups, norms)


def dual_of_max(num_values: int) -> DualMap:
    r"""The largest value, smoothed with the entropy.

    .. math:: y_i \propto \exp \frac{v_i}{\eta}, \qquad W(y) = \ln n + \sum_i y_i \ln y_i, \qquad
       D = \ln n

    :math:`W` is strongly convex in the :math:`\ell_1` norm: :math:`\|K\|` is the largest Euclidean
    norm of a **row** of the operator.

    Args:
      num_values: :math:`n \ge 2`, how many entries the values have, over all leaves.
    """
    check_count("num_values", num_values)
    if num_values == 1:
        raise ValueError("num_values must be at least 2: the largest of one value is that value.")

    def maximizer(values: Any, smoothing: Any) -> Any:
        flat, unravel = ravel_pytree(values)
        _check_number("num_values", num_values, flat.size)
        (eta,) = scalars(flat, smoothing)
        return unravel(jax.nn.softmax(flat / eta))

    return DualMap(maximizer, lambda values: jnp.max(ravel_pytree(values)[0]), math.log(num_values))


def _of_balls(name: str, number: int, norms: Callable[[jax.Array], jax.Array]) -> DualMap:
    """Projections on unit balls; ``norms`` are those of the groups of a leaf."""

    def maximizer(values: Any, smoothing: Any) -> Any:
        sizes = jax.tree.map(norms, values)
        _check_number(name, number, sum(leaf.size for leaf in jax.tree.leaves(sizes)))
        scale = lambda v, size: v / jnp.maximum(scalars(size, smoothing)[0], size)
        return jax.tree.map(scale, values, sizes)

    return DualMap(maximizer, lambda values: total(norms, values), number / 2)


def _check_number(name: str, number: int, found: int) -> None:
    if found != number:
        raise ValueError(f"{name} is {number}, but the values of the operator have {found}.")
