r"""Methods for one lower problem that move everything once in each update, as chains of the parts.

All minimize :math:`F(x) = f(x, y(x))` with :math:`y(x) = \arg\min_y g(x, y)`. They differ in the
field that they follow and in how its samples are averaged.
"""

from typing import Any

import optax

from stochopt._checks import check_range
from stochopt.bilevel.estimator import estimate_field, hide
from stochopt.bilevel.field import SampleBatch, adjoint_field, penalty_field, solver_field
from stochopt.bilevel.hypergradient import Lower, Upper, neumann, randomized_neumann
from stochopt.bilevel.saga import estimate_saga_field
from stochopt.compositional import recursive_tracker


def soba(
    upper: Upper,
    lower: Lower,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    lower_learning_rate: optax.ScalarOrSchedule = 0.1,
    adjoint_learning_rate: optax.ScalarOrSchedule | None = None,
    lower_params: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""SOBA: parameters, lower variable and adjoint variable descend at once.

    .. math::

       y_{t+1} &= y_t - \tau_t \nabla_y g(x_t, y_t), \qquad
       p_{t+1} = p_t - \bar\tau_t \left(\nabla^2_{yy} g\, p_t - \nabla_y f\right) \\
       x_{t+1} &= x_t - \eta_t \left(\nabla_x f(x_t, y_t) - \nabla^2_{xy} g(x_t, y_t)\, p_t\right)

    with one sample for all terms. With :math:`\eta, \tau \propto T^{-1/2}` the average of
    :math:`E\|\nabla F(x_t)\|^2` is :math:`O(T^{-1/2})`.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`, strongly convex.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      lower_learning_rate: :math:`\tau \ge 0`, below 2 over the smoothness of :math:`g`.
      adjoint_learning_rate: :math:`\bar\tau`; ``None`` means ``lower_learning_rate``.
      lower_params: where :math:`y` starts.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Dagréou et al., `A Framework for Bilevel Optimization that Enables Stochastic and Global
      Variance Reduction Algorithms <https://arxiv.org/abs/2201.13409>`_, 2022
    """
    field = adjoint_field(upper, lower)
    optimizers = _two_steps(lower_learning_rate, adjoint_learning_rate)
    return _chain(estimate_field(field), field.start(lower_params), optimizers, learning_rate)


def saba(
    upper: Upper,
    lower: Lower,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    lower_learning_rate: optax.ScalarOrSchedule = 0.1,
    adjoint_learning_rate: optax.ScalarOrSchedule | None = None,
    num_samples: int,
    num_upper_samples: int | None = None,
    lower_params: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""SABA: SOBA with the memory of all samples of two finite sums.

    The directions of :func:`stochopt.soba`, each term estimated as in
    :func:`stochopt.bilevel.estimate_saga_field`. Constant steps converge: the average of
    :math:`E\|\nabla F(x_t)\|^2` is :math:`O(1 / T)`, and linear under the Polyak-Lojasiewicz
    condition.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f_j`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g_i`; the sum is strongly
        convex.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      lower_learning_rate: :math:`\tau \ge 0`, a number or a schedule.
      adjoint_learning_rate: :math:`\bar\tau`; ``None`` means ``lower_learning_rate``.
      num_samples: of the lower sum.
      num_upper_samples: of the upper sum; ``None`` means ``num_samples``.
      lower_params: where :math:`y` starts.

    Returns:
      The optimizer; ``update`` needs ``batch`` and ``sample_indices``, the pair ``(i, j)``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Dagréou et al., `A Framework for Bilevel Optimization that Enables Stochastic and Global
      Variance Reduction Algorithms <https://arxiv.org/abs/2201.13409>`_, 2022
    """
    estimator = estimate_saga_field(
        upper,
        lower,
        num_lower_samples=num_samples,
        num_upper_samples=num_samples if num_upper_samples is None else num_upper_samples,
    )
    start = adjoint_field(upper, lower).start(lower_params)
    optimizers = _two_steps(lower_learning_rate, adjoint_learning_rate)
    return _chain(estimator, start, optimizers, learning_rate)


def mrbo(
    upper: Upper,
    lower: Lower,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    lower_learning_rate: optax.ScalarOrSchedule = 0.1,
    lower_rate: optax.ScalarOrSchedule = 0.1,
    direction_rate: optax.ScalarOrSchedule = 0.1,
    num_terms: int = 10,
    series_step: float = 0.1,
    sample: SampleBatch | None = None,
    lower_params: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""MRBO: recursive variance reduction of both directions, the adjoint by a Neumann series.

    .. math::

       d^y_t &= \nabla_y g_\zeta(x_t, y_t)
         + (1 - \alpha_t) \left(d^y_{t-1} - \nabla_y g_\zeta(x_{t-1}, y_{t-1})\right) \\
       d^x_t &= h_\zeta(x_t, y_t)
         + (1 - \beta_t) \left(d^x_{t-1} - h_\zeta(x_{t-1}, y_{t-1})\right) \\
       h(x, y) &= \nabla_x f - \nabla^2_{xy} g \;
         \rho \sum_{k < K} \left(I - \rho \nabla^2_{yy} g\right)^k \nabla_y f

    with the same samples at both points, :math:`y_{t+1} = y_t - \tau_t d^y_t` and
    :math:`x_{t+1} = x_t - \eta_t d^x_t`. With :math:`\eta, \tau \propto T^{-1/3}` and
    :math:`\alpha, \beta \propto T^{-2/3}` the average of :math:`E\|\nabla F(x_t)\|^2` is
    :math:`O(T^{-2/3})`, up to the truncation of the series, at most :math:`(1 - \rho \mu)^K / \mu`
    of the slope of :math:`f`.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`, strongly convex.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      lower_learning_rate: :math:`\tau \ge 0`, a number or a schedule.
      lower_rate: :math:`\alpha` in (0, 1], weight on the new sample; a number or a schedule.
      direction_rate: :math:`\beta` in (0, 1], weight on the new sample; a number or a schedule.
      num_terms: :math:`K`.
      series_step: :math:`\rho`, below 1 over the smoothness of :math:`g`.
      sample: ``sample(key) -> batch``, a fresh draw for each term of the series; ``None`` takes the
        batch for all of them, which biases powers of a noisy Hessian.
      lower_params: where :math:`y` starts.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Yang, Ji, Liang, `Provably Faster Algorithms for Bilevel Optimization
      <https://arxiv.org/abs/2106.04692>`_, 2021
    """
    solver = neumann(num_terms, series_step)
    field = solver_field(upper, lower, solver, sample)
    return _recursive(
        field, lower_params, learning_rate, lower_learning_rate, lower_rate, direction_rate
    )


def sustain(
    upper: Upper,
    lower: Lower,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    lower_learning_rate: optax.ScalarOrSchedule = 0.1,
    lower_rate: optax.ScalarOrSchedule = 0.1,
    direction_rate: optax.ScalarOrSchedule = 0.1,
    num_terms: int = 10,
    series_step: float = 0.1,
    sample: SampleBatch | None = None,
    lower_params: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""SUSTAIN: recursive variance reduction of both directions, a Neumann series of random length.

    :func:`stochopt.mrbo` with one random term in place of the sum,

    .. math::

       \rho K \prod_{j < k} \left(I - \rho \nabla^2_{yy} g_{\zeta_j}\right) \nabla_y f,
       \qquad k \sim U\{0, \dots, K - 1\},

    the same :math:`k` at both points: cheaper by half, the same in the mean, and noisier.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`, strongly convex.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      lower_learning_rate: :math:`\tau \ge 0`, a number or a schedule.
      lower_rate: :math:`\alpha` in (0, 1], weight on the new sample; a number or a schedule.
      direction_rate: :math:`\beta` in (0, 1], weight on the new sample; a number or a schedule.
      num_terms: :math:`K`.
      series_step: :math:`\rho`, below 1 over the smoothness of :math:`g`.
      sample: see :func:`stochopt.mrbo`.
      lower_params: where :math:`y` starts.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Khanduri et al., `A Near-Optimal Algorithm for Stochastic Bilevel Optimization via
      Double-Momentum <https://arxiv.org/abs/2102.07367>`_, 2021
    """
    solver = randomized_neumann(num_terms, series_step)
    field = solver_field(upper, lower, solver, sample)
    return _recursive(
        field, lower_params, learning_rate, lower_learning_rate, lower_rate, direction_rate
    )


def f2sa(
    upper: Upper,
    lower: Lower,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    lower_learning_rate: optax.ScalarOrSchedule = 0.1,
    penalized_learning_rate: optax.ScalarOrSchedule = 0.01,
    penalty: optax.ScalarOrSchedule = 10.0,
    lower_params: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""F2SA: bilevel optimization with first derivatives only.

    .. math::

       w_{t+1} &= w_t - \tau_t \nabla_y g(x_t, w_t), \qquad
       y_{t+1} = y_t - \bar\tau_t \left(\nabla_y f + \lambda_t \nabla_y g\right)(x_t, y_t) \\
       x_{t+1} &= x_t - \eta_t \left(\nabla_x f(x_t, y_t)
         + \lambda_t (\nabla_x g(x_t, y_t) - \nabla_x g(x_t, w_t))\right)

    The gradient is off by :math:`O(1 / \lambda)`. Steps :math:`\bar\tau` and :math:`\eta` are to be
    of the order of :math:`\tau / \lambda`.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`, strongly convex.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      lower_learning_rate: :math:`\tau \ge 0`, of :math:`w`, a number or a schedule.
      penalized_learning_rate: :math:`\bar\tau \ge 0`, of :math:`y`, a number or a schedule.
      penalty: :math:`\lambda > 0`, a number or a rising schedule; more than twice the smoothness of
        :math:`f` over the strong convexity of :math:`g`.
      lower_params: where :math:`y` and :math:`w` start.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Kwon et al., `A Fully First-Order Method for Stochastic Bilevel Optimization
      <https://arxiv.org/abs/2301.10945>`_, 2023
    """
    check_range("penalty", penalty, "(0, inf)")
    check_range("lower_learning_rate", lower_learning_rate, "[0, inf)")
    check_range("penalized_learning_rate", penalized_learning_rate, "[0, inf)")
    field = penalty_field(upper, lower, penalty)
    optimizers = (optax.sgd(lower_learning_rate), optax.sgd(penalized_learning_rate))
    return _chain(estimate_field(field), field.start(lower_params), optimizers, learning_rate)


def _two_steps(
    lower_learning_rate: optax.ScalarOrSchedule,
    adjoint_learning_rate: optax.ScalarOrSchedule | None,
) -> tuple[optax.GradientTransformation, ...]:
    """Gradient descent for the lower and the adjoint variable."""
    if adjoint_learning_rate is None:
        adjoint_learning_rate = lower_learning_rate
    check_range("lower_learning_rate", lower_learning_rate, "[0, inf)")
    check_range("adjoint_learning_rate", adjoint_learning_rate, "[0, inf)")
    return optax.sgd(lower_learning_rate), optax.sgd(adjoint_learning_rate)


def _recursive(
    field: Any,
    lower_params: Any,
    learning_rate: optax.ScalarOrSchedule,
    lower_learning_rate: optax.ScalarOrSchedule,
    lower_rate: optax.ScalarOrSchedule,
    direction_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    check_range("lower_learning_rate", lower_learning_rate, "[0, inf)")
    check_range("lower_rate", lower_rate, "(0, 1]")
    check_range("direction_rate", direction_rate, "(0, 1]")
    estimator = estimate_field(
        field,
        tracker=recursive_tracker(direction_rate),
        hidden_tracker=recursive_tracker(lower_rate),
    )
    optimizers = (optax.sgd(lower_learning_rate),)
    return _chain(estimator, field.start(lower_params), optimizers, learning_rate)


def _chain(
    estimator: optax.GradientTransformationExtraArgs,
    start: Any,
    optimizers: tuple[optax.GradientTransformation, ...],
    learning_rate: optax.ScalarOrSchedule,
) -> optax.GradientTransformationExtraArgs:
    check_range("learning_rate", learning_rate, "[0, inf)")
    hidden = hide(estimator, start, optimizers)
    return optax.chain(hidden, optax.scale_by_learning_rate(learning_rate))
