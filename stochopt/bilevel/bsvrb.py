r"""Blockwise variance-reduced bilevel methods, as chains of the parts."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from stochopt._checks import check_range
from stochopt.bilevel.blockwise import estimate_blockwise
from stochopt.bilevel.hypergradient import Lower, Upper
from stochopt.bilevel.schemes import tracked_hessian, tracked_solution
from stochopt.compositional import Tracker, msvr_tracker, recursive_tracker


def bsvrb_v1(
    upper: Upper,
    lower: Lower,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    lower_learning_rate: optax.ScalarOrSchedule = 0.1,
    tracker_rate: optax.ScalarOrSchedule = 0.1,
    hessian_rate: optax.ScalarOrSchedule | None = None,
    direction_rate: optax.ScalarOrSchedule = 0.1,
    correction: float | None = None,
    hessian_floor: float | None = None,
    damping: float = 0.0,
    lower_params: Any,
    num_blocks: int,
    num_sampled: int,
    lazy: bool = True,
    table_sharding: jax.sharding.NamedSharding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""BSVRB-v1: many lower problems, of which a few are sampled; their Hessians are tracked.

    For :math:`F(x) = \frac1n \sum_i f_i(x, y_i(x))`, :math:`y_i(x) = \arg\min_y g_i(x, y)`, with
    :math:`B` sampled blocks in each update:

    .. math::

       s_i &\leftarrow (1 - \alpha_t) s_i + \alpha_t \nabla_y g_i(x_t, y_i^t)
         + \gamma_t \left(\nabla_y g_i(x_t, y_i^t) - \nabla_y g_i(x_{t-1}, y_i^{t-1})\right) \\
       H_i &\leftarrow \Pi_{\succeq \mu}\left[(1 - \alpha_t) H_i + \alpha_t \nabla^2_{yy} g_i^t
         + \gamma_t \left(\nabla^2_{yy} g_i^t - \nabla^2_{yy} g_i^{t-1}\right)\right] \\
       z_t &= G_t + (1 - \beta_t) (z_{t-1} - \tilde G_{t-1}), \qquad
       G = \frac1B \sum_i \nabla_x f_i - \nabla^2_{xy} g_i H_i^{-1} \nabla_y f_i \\
       y_i &\leftarrow y_i - \tau_t s_i \quad \text{for all } i, \qquad x_{t+1} = x_t - \eta_t z_t

    with the :math:`H_i` of before the update in :math:`G`, and the same blocks and samples in
    :math:`\tilde G_{t-1}` at the point before. Memory: :math:`2 d^2 + 2 d` numbers for each block;
    for small :math:`d`, otherwise :func:`stochopt.bsvrb_v2`. With
    :math:`\eta, \tau \propto T^{-1/3}` and :math:`\alpha, \beta \propto T^{-2/3}` the average of
    :math:`E\|\nabla F(x_t)\|^2` is :math:`O(T^{-2/3})`.

    Args:
      upper: ``upper(params, lower_params_i, batch_i) -> scalar``, :math:`f_i`.
      lower: ``lower(params, lower_params_i, batch_i) -> scalar``, :math:`g_i`, strongly convex.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      lower_learning_rate: :math:`\tau \ge 0`, below 1 over the smoothness of :math:`g_i`; a number
        or a schedule.
      tracker_rate: :math:`\alpha` in (0, 1), weight on the new sample; a number or a schedule.
      hessian_rate: the same for the Hessians; ``None`` means ``tracker_rate``.
      direction_rate: :math:`\beta` in (0, 1], weight on the new direction; a number or a schedule.
      correction: :math:`\gamma`; ``None`` means
        :math:`\frac{n - B}{B (1 - \alpha)} + 1 - \alpha`, which makes up for the motion since a
        block was last sampled. It amplifies noise by :math:`n / B`, so steps have to be short; a
        smaller one lags behind the motion, which may be worse.
      hessian_floor: :math:`\mu > 0`, least eigenvalue that is kept; ``None`` keeps them all.
      damping: :math:`\delta \ge 0`, added to :math:`H_i` when the system is solved.
      lower_params: where every :math:`y_i` starts: a tree of arrays, of one block.
      num_blocks: :math:`n`.
      num_sampled: :math:`B`.
      lazy: see :func:`stochopt.bilevel.estimate_blockwise`.
      table_sharding: see :func:`stochopt.bilevel.estimate_blockwise`.

    Returns:
      The optimizer; ``update`` needs ``batch`` and ``block_indices``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` lacks an extra argument.

    References:
      Hu et al., `Blockwise Stochastic Variance-Reduced Methods with Parallel Speedup for
      Multi-Block Bilevel Optimization <https://arxiv.org/abs/2305.18730>`_, 2023
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    check_range("lower_learning_rate", lower_learning_rate, "[0, inf)")
    tracker = _tracker(correction, num_blocks, num_sampled)
    estimator = estimate_blockwise(
        upper,
        lower,
        tracked_hessian(lower, floor=hessian_floor, damping=damping),
        tracker=tracker(tracker_rate),
        hessian_tracker=tracker(tracker_rate if hessian_rate is None else hessian_rate),
        lower_params=lower_params,
        num_blocks=num_blocks,
        learning_rates=(lower_learning_rate,),
        direction_rate=direction_rate,
        lazy=lazy,
        table_sharding=table_sharding,
    )
    return optax.chain(estimator, optax.scale_by_learning_rate(learning_rate))


def bsvrb_v2(
    upper: Upper,
    lower: Lower,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    lower_learning_rate: optax.ScalarOrSchedule = 0.1,
    adjoint_learning_rate: optax.ScalarOrSchedule | None = None,
    tracker_rate: optax.ScalarOrSchedule = 0.1,
    direction_rate: optax.ScalarOrSchedule | None = 0.1,
    correction: float | None = None,
    adjoint_radius: float | None = None,
    lower_params: Any,
    num_blocks: int,
    num_sampled: int,
    lazy: bool = True,
    table_sharding: jax.sharding.NamedSharding | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""BSVRB-v2: many lower problems, of which a few are sampled; their adjoints are tracked.

    :func:`stochopt.bsvrb_v1` without matrices: each block has an adjoint variable :math:`p_i` that
    descends :math:`\frac12 p^T \nabla^2_{yy} g_i\, p - p^T \nabla_y f_i` along a tracked direction,

    .. math::

       u_i &\leftarrow (1 - \alpha_t) u_i + \alpha_t \varphi_i^t
         + \gamma_t (\varphi_i^t - \varphi_i^{t-1}), \qquad
       \varphi_i = \nabla^2_{yy} g_i\, p_i - \nabla_y f_i \\
       p_i &\leftarrow \Pi_R\left[p_i - \bar\tau_t u_i\right] \quad \text{for all } i, \qquad
       G = \frac1B \sum_i \nabla_x f_i - \nabla^2_{xy} g_i\, p_i ,

    and :math:`s_i, y_i, z_t, x_t` as there. Memory: :math:`4 d` numbers for each block; two
    Hessian-vector products and two cross products for each sampled one.

    Args:
      upper: ``upper(params, lower_params_i, batch_i) -> scalar``, :math:`f_i`.
      lower: ``lower(params, lower_params_i, batch_i) -> scalar``, :math:`g_i`, strongly convex.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      lower_learning_rate: :math:`\tau \ge 0`, below 1 over the smoothness of :math:`g_i`; a number
        or a schedule.
      adjoint_learning_rate: :math:`\bar\tau`, likewise; ``None`` means ``lower_learning_rate``.
      tracker_rate: :math:`\alpha` in (0, 1), weight on the new sample; a number or a schedule.
      direction_rate: :math:`\beta` in (0, 1], weight on the new direction; a number or a schedule.
        ``None`` takes :math:`z_t` as it is drawn, for an ``optax.ema`` behind it. Do so where a
        sample reaches a small share :math:`q` of the upper variables, such as the weights of a
        few examples: corrections add little noise only for
        :math:`\eta L \ll \sqrt{2 \beta q}`, which an average does not ask for.
      correction: :math:`\gamma`, see :func:`stochopt.bsvrb_v1`.
      adjoint_radius: :math:`R > 0` of the ball for :math:`p_i`, at least the norm of
        :math:`\nabla_y f_i` over the strong convexity; ``None`` for none.
      lower_params: where every :math:`y_i` starts: a tree of arrays, of one block.
      num_blocks: :math:`n`.
      num_sampled: :math:`B`.
      lazy: see :func:`stochopt.bilevel.estimate_blockwise`.
      table_sharding: see :func:`stochopt.bilevel.estimate_blockwise`.

    Returns:
      The optimizer; ``update`` needs ``batch`` and ``block_indices``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` lacks an extra argument.

    References:
      Hu et al., `Blockwise Stochastic Variance-Reduced Methods with Parallel Speedup for
      Multi-Block Bilevel Optimization <https://arxiv.org/abs/2305.18730>`_, 2023
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    if adjoint_learning_rate is None:
        adjoint_learning_rate = lower_learning_rate
    check_range("lower_learning_rate", lower_learning_rate, "[0, inf)")
    check_range("adjoint_learning_rate", adjoint_learning_rate, "[0, inf)")
    ball = None
    if adjoint_radius is not None:
        check_range("adjoint_radius", adjoint_radius, "(0, inf)")
        ball = lambda p: optax.projections.projection_l2_ball(p, adjoint_radius)
    estimator = estimate_blockwise(
        upper,
        lower,
        tracked_solution(upper, lower),
        tracker=_tracker(correction, num_blocks, num_sampled)(tracker_rate),
        lower_params=lower_params,
        num_blocks=num_blocks,
        learning_rates=(lower_learning_rate, adjoint_learning_rate),
        projections=(None, ball),
        direction_rate=direction_rate,
        lazy=lazy,
        table_sharding=table_sharding,
    )
    return optax.chain(estimator, optax.scale_by_learning_rate(learning_rate))


def _tracker(
    correction: float | None, num_blocks: int, num_sampled: int
) -> Callable[[optax.ScalarOrSchedule], Tracker]:
    """From the rate to the tracker."""
    if correction is None:
        return lambda rate: msvr_tracker(rate, num_blocks=num_blocks, num_sampled=num_sampled)
    check_range("correction", correction, "[0, inf)")
    return lambda rate: recursive_tracker(rate, correction=lambda weight: correction)
