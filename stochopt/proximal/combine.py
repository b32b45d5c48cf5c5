"""Penalties made of others."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import optax

from stochopt._checks import check_range
from stochopt.proximal.operator import Prox, ProximalOperator
from stochopt.proximal.separable import l1, ridge


def plus_ridge(prox: ProximalOperator, weight: Any) -> ProximalOperator:
    r"""Half of the squared norm added to another penalty, :math:`r(x) + \frac{\mu}{2} \|x\|^2`.

    .. math::

       \mathrm{prox}(v, s) = \mathrm{prox}_r\left(\frac{v}{1 + s \mu}, \frac{s}{1 + s \mu}\right)

    It moves strong convexity from the smooth part of an objective to its proximal part: take
    :math:`\mu x` off the gradient and add it here. A penalty that allows steps below a bound
    allows longer ones with a ridge.

    Args:
      prox: the operator of :math:`r`.
      weight: :math:`\mu \ge 0`.

    References:
      Parikh, Boyd, `Proximal Algorithms <https://web.stanford.edu/~boyd/papers/prox_algs.html>`_,
      2014, section 2.2.
    """
    check_range("weight", weight, "[0, inf)")
    return ProximalOperator(
        ridge_added(prox, weight),
        lambda params: prox.value(params) + ridge(weight).value(params),
    )


def ridge_added(prox: Prox, weight: Any) -> Prox:
    """The operator of :func:`plus_ridge`, of a function whose value need not be known."""
    scaled = ridge(weight)
    return lambda params, step: prox(scaled(params, step), step / (1 + step * weight))


def elastic_net(weight: Any, ridge_weight: Any) -> ProximalOperator:
    r"""Lasso and ridge, :math:`\lambda \|x\|_1 + \frac{\mu}{2} \|x\|^2`.

    .. math:: p_i = \frac{\mathrm{sign}(v_i) \max(|v_i| - s \lambda, 0)}{1 + s \mu}

    Args:
      weight: :math:`\lambda \ge 0`.
      ridge_weight: :math:`\mu \ge 0`.

    References:
      Zou, Hastie, `Regularization and Variable Selection via the Elastic Net
      <https://doi.org/10.1111/j.1467-9868.2005.00503.x>`_, 2005.
    """
    check_range("ridge_weight", ridge_weight, "[0, inf)")
    return plus_ridge(l1(weight), ridge_weight)


def partition(
    operators: Mapping[Hashable, ProximalOperator], labels: Any | Callable[[Any], Any]
) -> ProximalOperator:
    r"""A penalty for each part of the tree, :math:`\sum_k r_k(x_k)`: one operator for each part.

    The leaves of one label are one tree for their operator, as in ``optax.partition``.

    Args:
      operators: from labels to operators.
      labels: a tree of labels like ``params`` or a prefix of it, or a function from ``params`` to
        one.

    Raises:
      ValueError: a label without an operator.
    """
    is_masked = lambda x: isinstance(x, optax.MaskedNode)

    def parts(params: Any) -> dict[Hashable, Any]:
        """The leaves of each label, with ``optax.MaskedNode`` in place of the others."""
        tree = labels(params) if callable(labels) else labels
        spread = lambda label, subtree: jax.tree.map(lambda _: label, subtree)
        tree = jax.tree.map(spread, tree, params)
        unknown = set(jax.tree.leaves(tree)) - set(operators)
        if unknown:
            raise ValueError(
                f"partition: no operator for {sorted(map(repr, unknown))}, "
                f"only for {sorted(map(repr, operators))}."
            )
        only = lambda wanted: jax.tree.map(
            lambda label, x: x if label == wanted else optax.MaskedNode(), tree, params
        )
        return {label: only(label) for label in operators}

    def prox(params: Any, step: Any) -> Any:
        for label, part in parts(params).items():
            moved = operators[label](part, step)
            keep = lambda new, old: old if is_masked(new) else new
            params = jax.tree.map(keep, moved, params, is_leaf=is_masked)
        return params

    def function(params: Any) -> jax.Array:
        values = [operators[label].value(part) for label, part in parts(params).items()]
        return optax.tree.sum(values)

    return ProximalOperator(prox, function)
