"""The non-Euclidean trust-region method with momentum: one method for every norm."""

from typing import Any, NamedTuple

import jax
import optax

from stochopt import _tree
from stochopt._checks import check_range
from stochopt.orthogonal.lmo import LinearMinimizer, euclidean, product, spectral
from stochopt.orthogonal.matrices import hidden_matrices


class ScaleByLmoState(NamedTuple):
    """State of :func:`scale_by_lmo`."""

    mu: optax.Updates  # momentum, like params


def scale_by_lmo(
    lmo: LinearMinimizer,
    *,
    momentum: jax.typing.ArrayLike = 0.95,
    nesterov: bool = False,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""The unit step of a norm along the averaged gradient.

    From :math:`M_0 = 0`, with momentum :math:`\mu`, gradient :math:`G_t` and the linear minimizer
    :math:`D(m) = \arg\max_{N(d) \le 1} \langle m, d \rangle`:

    .. math::

       M_t &= \mu M_{t-1} + (1 - \mu) G_t \\
       U_t &= D(M_t), \quad\text{or with Nesterov's momentum}\quad U_t = D(\mu M_t + (1 - \mu) G_t)

    Args:
      lmo: one of :func:`stochopt.orthogonal.spectral`, :func:`~stochopt.orthogonal.euclidean`,
        :func:`~stochopt.orthogonal.max_norm`, :func:`~stochopt.orthogonal.column_norm`,
        :func:`~stochopt.orthogonal.nuclear`, :func:`~stochopt.orthogonal.product`, or your own.
      momentum: :math:`\mu` in [0, 1), the weight on the old momentum.
      nesterov: whether to look ahead.
      mu_dtype: dtype of the momentum; ``None`` takes the parameter's.

    Returns:
      The transformation; subtract its result with ``optax.scale_by_learning_rate``.

    Raises:
      ValueError: ``momentum`` is out of range.
    """
    check_range("momentum", momentum, "[0, 1)")

    def init_fn(params: optax.Params) -> ScaleByLmoState:
        return ScaleByLmoState(optax.tree.zeros_like(params, dtype=mu_dtype))

    def update_fn(
        updates: optax.Updates,
        state: ScaleByLmoState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ScaleByLmoState]:
        del params, extra_args
        mu = _tree.moving_average(state.mu, updates, momentum)
        ahead = _tree.moving_average(mu, updates, momentum) if nesterov else mu
        return optax.tree.cast_like(lmo(ahead), updates), ScaleByLmoState(mu)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def trust_region(
    learning_rate: optax.ScalarOrSchedule,
    lmo: LinearMinimizer | None = None,
    *,
    momentum: jax.typing.ArrayLike = 0.95,
    nesterov: bool = False,
    mu_dtype: jax.typing.DTypeLike | None = None,
    weight_decay: jax.typing.ArrayLike = 0.0,
    weight_decay_mask: Any = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Minimizes the linear model in a ball of any norm around the point.

    With the momentum :math:`M_t` of :func:`stochopt.orthogonal.scale_by_lmo`, radius
    :math:`\eta_t` and norm :math:`N`,

    .. math::

       x_{t+1} = \arg\min_{N(x - x_t) \le \eta_t} \langle M_t, x \rangle
       \;-\; \eta_t \lambda x_t
       = (1 - \eta_t \lambda)\, x_t - \eta_t D(M_t) .

    Every step has length :math:`\eta_t` in the norm, however small the gradient is: near a solution
    the radius must shrink. With decay, :math:`\eta_t \lambda \le 1` and an exact minimizer
    the iterates stay in the ball :math:`N(x) \le 1 / \lambda` once they are there. Instances:

    - ``lmo=spectral()``: Muon without Nesterov's momentum and shape factor;
    - ``lmo=euclidean()``: normalized gradient descent with momentum;
    - ``lmo=max_norm()``: sign descent with momentum.

    Args:
      learning_rate: radius :math:`\eta_t` of the ball, in the units of the parameters.
      lmo: the norm, by its linear minimizer. ``None`` means the larger of the spectral norms of the
        hidden matrices and the Euclidean norm of everything else. Under
        ``optax.inject_hyperparams`` name it in ``static_args``.
      momentum: weight on the old momentum, in [0, 1).
      nesterov: whether to look ahead.
      mu_dtype: dtype of the momentum; ``None`` takes the parameter's.
      weight_decay: :math:`\lambda \ge 0`.
      weight_decay_mask: tree of booleans, or a function from ``params`` to one, saying which
        leaves decay.

    Returns:
      The optimizer.

    Raises:
      ValueError: a hyper-parameter is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, stochopt
      >>> from stochopt.orthogonal import max_norm
      >>> loss = lambda w: jnp.sum((w - 1) ** 2)
      >>> optimizer = stochopt.trust_region(0.5, max_norm())
      >>> params = jnp.array([3.0, 0.0])
      >>> state = optimizer.init(params)
      >>> for _ in range(3):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(params)
      [2.5 0.5]
      [2. 1.]
      [1.5 1.5]

    References:
      Kovalev, `Understanding Gradient Orthogonalization for Deep Learning via Non-Euclidean
      Trust-Region Optimization <https://arxiv.org/abs/2503.12645>`_, 2025
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    check_range("weight_decay", weight_decay, "[0, inf)")
    if lmo is None:
        rule = hidden_matrices()
        hidden = spectral(weight_dimension_numbers=rule)
        lmo = product(hidden, euclidean(), weight_dimension_numbers=rule)
    return optax.chain(
        scale_by_lmo(lmo, momentum=momentum, nesterov=nesterov, mu_dtype=mu_dtype),
        optax.add_decayed_weights(weight_decay, weight_decay_mask),
        optax.scale_by_learning_rate(learning_rate),
        optax.stateless(optax.tree.cast_like),  # a traced decay is float32 whatever the leaf
    )
