r"""The randomized variance-reduced bilevel method, as a chain of the parts."""

from typing import Any

import optax

from stochopt._checks import check_range
from stochopt.bilevel.hypergradient import Lower, Upper
from stochopt.bilevel.randomized import estimate_randomized
from stochopt.compositional import recursive_tracker


def rsvrb(
    upper: Upper,
    lower: Lower,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    lower_learning_rate: optax.ScalarOrSchedule = 0.1,
    tracker_rate: optax.ScalarOrSchedule = 0.1,
    direction_rate: optax.ScalarOrSchedule = 0.1,
    hessian_floor: float | None = None,
    damping: float = 0.0,
    lower_params: Any,
    num_blocks: int,
    num_sampled: int,
) -> optax.GradientTransformationExtraArgs:
    r"""RSVRB: many lower problems, of which a few are sampled; all derivatives tracked as a whole.

    For :math:`F(x) = \frac1n \sum_i f_i(x, y_i(x))`, :math:`y_i(x) = \arg\min_y g_i(x, y)`, with
    :math:`B` sampled blocks in each update. The recursion acts on the vector of all blocks, whose
    sample is :math:`n / B` times the derivative of a sampled block and zero for the others:

    .. math::

       s_i &\leftarrow (1 - \alpha_t) \left(s_i - \tfrac nB \nabla_y g_i^{t-1}\right)
         + \tfrac nB \nabla_y g_i^t \quad \text{for sampled } i, \qquad
       s_i \leftarrow (1 - \alpha_t) s_i \quad \text{for all others}, \\
       z_t &= G_t + (1 - \beta_t) (z_{t-1} - \tilde G_{t-1}), \qquad
       G = \frac1B \sum_i \nabla_x f_i - V_i H_i^{-1} v_i \\
       y_i &\leftarrow y_i - \tau_t s_i \quad \text{for all } i, \qquad x_{t+1} = x_t - \eta_t z_t

    with :math:`v_i \approx \nabla_y f_i`, :math:`V_i \approx \nabla^2_{xy} g_i` and
    :math:`H_i \approx \nabla^2_{yy} g_i` tracked just as :math:`s_i` is, the matrices of sampled
    blocks raised to :math:`\Pi_{\succeq \mu}`. :math:`G` has the :math:`v, V, H` of before the
    update and :math:`\nabla_x f_i` at the present sample; :math:`\tilde G_{t-1}` has the same
    blocks and samples at the point before. (The paper's program draws a second set of blocks for
    :math:`G` and takes :math:`v, V, H` of after the update; with those of before, one set serves.)

    With :math:`\eta, \tau \propto T^{-1/3}` and :math:`\alpha, \beta \propto T^{-2/3}` the average
    of :math:`E\|\nabla F(x_t)\|^2` is :math:`O(T^{-2/3})`. Zeros for the blocks that are not
    sampled are noise: at a fixed point the mean squared error of a tracked :math:`\phi_i` with
    samples of variance :math:`\sigma^2` becomes

    .. math::

       \frac{\alpha}{2 - \alpha} \left(\frac nB \sigma^2
         + \left(\frac nB - 1\right) \|\phi_i\|^2\right),

    that of :func:`stochopt.bsvrb_v1` :math:`\frac{\alpha}{2 - \alpha} \sigma^2`; with
    :math:`B = n` both are the same recursion.

    Every block's row changes in every update, so time and memory traffic of one are
    :math:`O(n (d_y^2 + d_x d_y))`. There is no lazy form, because the decay of a block between two
    visits is a product of rates that underflows. Memory:
    :math:`2 d_y^2 + 2 d_x d_y + 5 d_y` numbers for each block.

    Args:
      upper: ``upper(params, lower_params_i, batch_i) -> scalar``, :math:`f_i`.
      lower: ``lower(params, lower_params_i, batch_i) -> scalar``, :math:`g_i`, strongly convex.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      lower_learning_rate: :math:`\tau \ge 0`, well below 1 over the smoothness of :math:`g_i`, by a
        multiple of :math:`B / n`; a number or a schedule.
      tracker_rate: :math:`\alpha` in (0, 1], weight on the new sample; a number or a schedule.
      direction_rate: :math:`\beta` in (0, 1], weight on the new direction; a number or a schedule.
      hessian_floor: :math:`\mu > 0`, least eigenvalue that is kept of a sampled block's matrix;
        ``None`` keeps them all.
      damping: :math:`\delta \ge 0`, added to :math:`H_i` when the system is solved.
      lower_params: where every :math:`y_i` starts: a tree of arrays, of one block.
      num_blocks: :math:`n`.
      num_sampled: :math:`B`.

    Returns:
      The optimizer; ``update`` needs ``batch`` and ``block_indices``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` lacks an extra argument.

    References:
      Guo et al., `Randomized Stochastic Variance-Reduced Methods for Multi-Task Stochastic Bilevel
      Optimization <https://arxiv.org/abs/2105.02266>`_, 2021
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    check_range("lower_learning_rate", lower_learning_rate, "[0, inf)")
    estimator = estimate_randomized(
        upper,
        lower,
        tracker=recursive_tracker(tracker_rate),
        lower_params=lower_params,
        num_blocks=num_blocks,
        num_sampled=num_sampled,
        learning_rate=lower_learning_rate,
        direction_rate=direction_rate,
        hessian_floor=hessian_floor,
        damping=damping,
    )
    return optax.chain(estimator, optax.scale_by_learning_rate(learning_rate))
