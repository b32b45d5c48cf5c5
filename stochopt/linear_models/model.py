"""A generalized linear model: design, targets, loss and penalty."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stochopt.linear_models.design import Design
from stochopt.linear_models.losses import Loss
from stochopt.linear_models.penalties import ConvexPenalty, Penalty


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LinearModel:
    """See :func:`linear_model`; a pytree, so a compiled function can take it as an argument.

    Attributes:
      design: the matrix of samples times features.
      targets: one for each sample, in the dtype of the design.
      loss: of a prediction and a target.
      penalty: of the coefficients.
    """

    design: Design
    targets: jax.Array
    loss: Loss = dataclasses.field(metadata={"static": True})
    penalty: Penalty

    def objective(self, params: jax.Array) -> jax.Array:
        """The mean loss plus the penalty."""
        losses = self.loss.value(self.design.matvec(params), self.targets)
        return jnp.mean(losses) + self.penalty.value(params)

    def gradient(self, params: jax.Array) -> jax.Array:
        """The gradient of the mean loss alone: one product with the design, one transposed."""
        slopes = self.loss.derivative(self.design.matvec(params), self.targets)
        return self.design.rmatvec(slopes) / self.design.shape[0]


def linear_model(design: Design, targets: Any, loss: Loss, penalty: Penalty) -> LinearModel:
    r"""The objective of a generalized linear model.

    .. math:: F(x) = \frac1n \sum_{i=1}^n \varphi(\langle a_i, x \rangle, b_i) + r(x)

    Args:
      design: rows :math:`a_i`, from :func:`dense` or :func:`sparse`.
      targets: :math:`b_i`.
      loss: :math:`\varphi`, such as :func:`squared` or :func:`logistic`.
      penalty: :math:`r`, such as :func:`l1`.

    Raises:
      ValueError: ``targets`` is not one for each sample, or has values that the loss does not take.
    """
    num_samples = design.shape[0]
    if np.shape(targets) != (num_samples,):
        raise ValueError(
            f"targets must be one for each of the {num_samples} samples of design, got shape "
            f"{np.shape(targets)}."
        )
    if loss.is_target is not None and not isinstance(targets, jax.core.Tracer):
        wrong = np.flatnonzero(~loss.is_target(np.asarray(targets)))
        if wrong.size:
            raise ValueError(
                f"targets[{wrong[0]}] = {np.asarray(targets)[wrong[0]]} is none that loss takes; "
                "labels are -1 and 1."
            )
    return LinearModel(design, jnp.asarray(targets, design.dtype), loss, penalty)


def duality_gap(model: LinearModel, params: jax.Array) -> jax.Array:
    r"""How far the objective is above its minimum, at most, for a convex penalty.

    .. math::

       F(x) + \frac1n \sum_i \varphi^*(s u_i, b_i)
         + r^*\Big(-\frac{s}{n} A^\top u\Big) \ge F(x) - \min F, \qquad
       u_i = \varphi'(\langle a_i, x \rangle, b_i),

    with the largest :math:`s \le 1` for which :math:`r^*` is finite. It vanishes at a minimizer,
    and costs one product with the design and one transposed.

    Args:
      model: with a convex penalty.
      params: :math:`x`.

    Returns:
      A scalar; rounding can make it negative.

    Raises:
      TypeError: the penalty is not convex.
    """
    penalty = convex_penalty("duality_gap", model)
    predictions = model.design.matvec(params)
    slopes = model.loss.derivative(predictions, model.targets)
    correlations = -model.design.rmatvec(slopes) / model.design.shape[0]
    scale = penalty.dual_scale(correlations)
    primal = jnp.mean(model.loss.value(predictions, model.targets)) + penalty.value(params)
    dual = -jnp.mean(model.loss.conjugate(scale * slopes, model.targets))
    return primal - (dual - penalty.conjugate(scale * correlations))


def optimality(model: LinearModel, params: jax.Array) -> jax.Array:
    r"""The largest violation of the optimality conditions over all groups, convex or not.

    .. math:: \max_g \; \mathrm{dist}\big({-\nabla_g f(x)},\; \partial r_g(x_g)\big)

    where :math:`f` is the mean loss and a group is one coefficient but for :func:`group_lasso`.

    Args:
      model: any.
      params: :math:`x`.
    """
    return jnp.max(model.penalty.violation(params, model.gradient(params)))


def convex_penalty(function: str, model: LinearModel) -> ConvexPenalty:
    """The penalty; ``TypeError`` if it is not convex."""
    if not hasattr(model.penalty, "conjugate"):
        name = type(model.penalty).__name__
        raise TypeError(f"{function}: penalty {name} is not convex; see optimality instead.")
    return model.penalty  # type: ignore[return-value]
