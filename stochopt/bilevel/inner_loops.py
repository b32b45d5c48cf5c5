r"""Methods for one lower problem with inner loops: a few lower steps before every direction."""

from typing import Any

import optax

from stochopt._checks import check_range
from stochopt.bilevel.field import SampleBatch
from stochopt.bilevel.hypergradient import Lower, Upper, neumann, randomized_neumann
from stochopt.bilevel.nested import estimate_nested


def amigo(
    upper: Upper,
    lower: Lower,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    sample: SampleBatch,
    lower_learning_rate: optax.ScalarOrSchedule = 0.1,
    adjoint_learning_rate: optax.ScalarOrSchedule | None = None,
    num_lower_steps: int = 10,
    num_adjoint_steps: int = 10,
    lower_params: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""AmIGO: warm-started inner loops for the lower variable and for the linear system.

    :func:`stochopt.bilevel.estimate_nested` with gradient steps in both loops, then
    :math:`x_{t+1} = x_t - \eta_t d_t`. With constant numbers of inner steps it has the rate of
    gradient descent with unbiased gradients, :math:`O(T^{-1/2})` for
    :math:`\eta \propto T^{-1/2}`.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`, strongly convex.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      sample: ``sample(key) -> batch``, a fresh draw for an inner step.
      lower_learning_rate: :math:`\tau \ge 0`, below 2 over the smoothness of :math:`g`; a number or
        a schedule of inner steps.
      adjoint_learning_rate: likewise; ``None`` means ``lower_learning_rate``.
      num_lower_steps: in each update.
      num_adjoint_steps: in each update.
      lower_params: where :math:`y` starts.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Arbel, Mairal, `Amortized Implicit Differentiation for Stochastic Bilevel Optimization
      <https://arxiv.org/abs/2111.14580>`_, 2022
    """
    if adjoint_learning_rate is None:
        adjoint_learning_rate = lower_learning_rate
    else:
        check_range("adjoint_learning_rate", adjoint_learning_rate, "[0, inf)")
    return _chain(
        upper,
        lower,
        learning_rate,
        lower_learning_rate,
        sample=sample,
        lower_params=lower_params,
        num_lower_steps=num_lower_steps,
        adjoint_optimizer=optax.sgd(adjoint_learning_rate),
        num_adjoint_steps=num_adjoint_steps,
    )


def stocbio(
    upper: Upper,
    lower: Lower,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    sample: SampleBatch,
    lower_learning_rate: optax.ScalarOrSchedule = 0.1,
    num_lower_steps: int = 10,
    num_terms: int = 10,
    series_step: float = 0.1,
    lower_params: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""StocBiO: warm-started lower steps, then a Neumann series of fixed length.

    :func:`stochopt.bilevel.estimate_nested` with :func:`stochopt.bilevel.neumann`, whose terms use
    fresh draws, then :math:`x_{t+1} = x_t - \eta_t d_t`. The series leaves a bias of at most
    :math:`(1 - \rho \mu)^K / \mu` of the slope of :math:`f`.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`, strongly convex.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      sample: ``sample(key) -> batch``, a fresh draw for an inner step or a term.
      lower_learning_rate: :math:`\tau \ge 0`, a number or a schedule of inner steps.
      num_lower_steps: in each update.
      num_terms: :math:`K`.
      series_step: :math:`\rho`, below 1 over the smoothness of :math:`g`.
      lower_params: where :math:`y` starts.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Ji, Yang, Liang, `Bilevel Optimization: Convergence Analysis and Enhanced Design
      <https://arxiv.org/abs/2010.07962>`_, 2021
    """
    return _chain(
        upper,
        lower,
        learning_rate,
        lower_learning_rate,
        sample=sample,
        lower_params=lower_params,
        num_lower_steps=num_lower_steps,
        solver=neumann(num_terms, series_step),
    )


def bsa(
    upper: Upper,
    lower: Lower,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    sample: SampleBatch,
    lower_learning_rate: optax.ScalarOrSchedule = 0.1,
    num_lower_steps: int = 10,
    num_terms: int = 10,
    series_step: float = 0.1,
    lower_params: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""BSA: lower steps, then a Neumann series of random length.

    :func:`stochopt.stocbio` with :func:`stochopt.bilevel.randomized_neumann`: one random term in
    place of the sum, the same in the mean. With ``num_lower_steps=1`` and the learning rates on two
    time scales, :math:`\eta \propto T^{-3/5}, \tau \propto T^{-2/5}`, this is TTSA.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`, strongly convex.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      sample: ``sample(key) -> batch``, a fresh draw for an inner step or a term.
      lower_learning_rate: :math:`\tau \ge 0`, a number or a schedule of inner steps.
      num_lower_steps: in each update.
      num_terms: :math:`K`.
      series_step: :math:`\rho`, below 1 over the smoothness of :math:`g`.
      lower_params: where :math:`y` starts.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Ghadimi, Wang, `Approximation Methods for Bilevel Programming
      <https://arxiv.org/abs/1802.02246>`_, 2018
    """
    return _chain(
        upper,
        lower,
        learning_rate,
        lower_learning_rate,
        sample=sample,
        lower_params=lower_params,
        num_lower_steps=num_lower_steps,
        solver=randomized_neumann(num_terms, series_step),
    )


def ttsa(
    upper: Upper,
    lower: Lower,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    sample: SampleBatch,
    lower_learning_rate: optax.ScalarOrSchedule = 0.1,
    num_terms: int = 10,
    series_step: float = 0.1,
    lower_params: Any,
) -> optax.GradientTransformationExtraArgs:
    r"""TTSA: one lower step, one upper step, on two time scales.

    :func:`stochopt.bsa` with one lower step. With :math:`\eta \propto T^{-3/5}` and
    :math:`\tau \propto T^{-2/5}` the average of :math:`E\|\nabla F(x_t)\|^2` is
    :math:`O(T^{-2/5})`.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`, strongly convex.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      sample: ``sample(key) -> batch``, a fresh draw for an inner step or a term.
      lower_learning_rate: :math:`\tau \ge 0`, a number or a schedule.
      num_terms: :math:`K`.
      series_step: :math:`\rho`, below 1 over the smoothness of :math:`g`.
      lower_params: where :math:`y` starts.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Hong et al., `A Two-Timescale Stochastic Algorithm Framework for Bilevel Optimization
      <https://arxiv.org/abs/2007.05170>`_, 2023
    """
    return bsa(
        upper,
        lower,
        learning_rate,
        sample=sample,
        lower_learning_rate=lower_learning_rate,
        num_lower_steps=1,
        num_terms=num_terms,
        series_step=series_step,
        lower_params=lower_params,
    )


def _chain(
    upper: Upper,
    lower: Lower,
    learning_rate: optax.ScalarOrSchedule,
    lower_learning_rate: optax.ScalarOrSchedule,
    **options: Any,
) -> optax.GradientTransformationExtraArgs:
    """Gradient descent above and below."""
    check_range("learning_rate", learning_rate, "[0, inf)")
    check_range("lower_learning_rate", lower_learning_rate, "[0, inf)")
    estimator = estimate_nested(
        upper, lower, lower_optimizer=optax.sgd(lower_learning_rate), **options
    )
    return optax.chain(estimator, optax.scale_by_learning_rate(learning_rate))
