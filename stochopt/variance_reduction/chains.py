"""The methods of papers on variance reduction, as chains of the parts."""

import jax
import optax

from stochopt._checks import check_range
from stochopt.compositional import proximal_step
from stochopt.proximal import Prox
from stochopt.variance_reduction.anchored import estimate_page, estimate_svrg
from stochopt.variance_reduction.oracles import FullLoss, Loss
from stochopt.variance_reduction.saga import estimate_saga
from stochopt.variance_reduction.storm import estimate_storm


def page(
    loss: Loss,
    full_loss: FullLoss,
    learning_rate: optax.ScalarOrSchedule = 0.1,
    *,
    num_batches: int,
    refresh_probability: optax.ScalarOrSchedule | None = None,
    prox: Prox | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""PAGE: finite sums, convex or not, with a full gradient now and then.

    .. math::

       d_t = \begin{cases}
         \nabla f(x_t) & \text{with probability } p \\
         d_{t-1} + \nabla f_{B_t}(x_t) - \nabla f_{B_t}(x_{t-1}) & \text{otherwise}
       \end{cases} \qquad x_{t+1} = x_t - \eta d_t

    With :math:`\eta \le \left(L \left(1 + \sqrt{(1 - p) / (p b)}\right)\right)^{-1}` the average of
    :math:`E\|\nabla f(x_t)\|^2` over :math:`T` updates is at most
    :math:`2 (f(x_0) - \min f) / (\eta T)`: :math:`O(n + \sqrt n / \epsilon^2)` gradients of single
    terms for a gradient norm of :math:`\epsilon`, with :math:`b = \sqrt n` and the default
    :math:`p`, which is optimal. Under the Polyak-Lojasiewicz condition the rate is linear.

    It is ``chain(estimate_page(...), scale_by_learning_rate(...))``.

    Args:
      loss: ``loss(params, batch) -> scalar``, the mean over a batch of :math:`b` terms.
      full_loss: ``full_loss(params) -> scalar``, :math:`f`, the mean over all :math:`n` terms.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      num_batches: :math:`n / b`, rounded up.
      refresh_probability: :math:`p` in (0, 1], a number or a schedule; ``None`` is
        :math:`b / (n + b)`.
      prox: ``prox(params, step) -> params`` of a further term, such as one of
        :mod:`stochopt.proximal`; ``None`` without one.
      seed: of the coins.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch`` and takes a ``key``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, stochopt
      >>> rows = jax.random.normal(jax.random.key(0), (100, 3))
      >>> targets = rows @ jnp.ones(3) + jax.random.normal(jax.random.key(1), (100,))
      >>> loss = lambda x, batch: jnp.mean((rows[batch] @ x - targets[batch]) ** 2)
      >>> full_loss = lambda x: loss(x, jnp.arange(100))
      >>> optimizer = stochopt.page(loss, full_loss, 0.1, num_batches=10)
      >>> params = jnp.zeros(3)
      >>> state = optimizer.init(params)
      >>> @jax.jit
      ... def step(params, state, key):
      ...     batch = jax.random.permutation(key, 100)[:10]
      ...     updates, state = optimizer.update(None, state, params, batch=batch)
      ...     return optax.apply_updates(params, updates), state
      >>> for key in jax.random.split(jax.random.key(2), 200):
      ...     params, state = step(params, state, key)
      >>> bool(jnp.linalg.norm(jax.grad(full_loss)(params)) < 1e-5)
      True

    References:
      Li, Bao, Zhang, Richtárik, `PAGE: A Simple and Optimal Probabilistic Gradient Estimator for
      Nonconvex Optimization <https://arxiv.org/abs/2008.10898>`_, 2021
    """
    estimator = estimate_page(
        loss,
        full_loss,
        num_batches=num_batches,
        refresh_probability=refresh_probability,
        seed=seed,
    )
    return optax.chain(estimator, _descent(learning_rate, prox))


def storm(
    loss: Loss,
    learning_rate: optax.ScalarOrSchedule = 0.01,
    *,
    direction_rate: optax.ScalarOrSchedule = 0.1,
    correction: jax.typing.ArrayLike | None = None,
    prox: Prox | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""STORM: recursive momentum, for streams; no full gradient and no large batch.

    .. math::

       d_t = \nabla f_\xi(x_t) + (1 - a_t) \left(d_{t-1} - \nabla f_\xi(x_{t-1})\right),
       \qquad x_{t+1} = x_t - \eta_t d_t

    With :math:`\eta \propto T^{-1/3}` and :math:`a \propto T^{-2/3}` the average of
    :math:`E\|\nabla f(x_t)\|^2` is :math:`O(T^{-2/3})`, where momentum and plain SGD have
    :math:`O(T^{-1/2})`, if the gradients of the *samples* are Lipschitz in mean square. Not the
    step sizes of the paper, which adapt to the gradients that it meets. Two gradients an update.

    Args:
      loss: ``loss(params, batch) -> scalar``, the mean over a batch.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      direction_rate: :math:`a` in (0, 1], the weight on the new gradient; a number or a schedule.
      correction: weight on the difference of the two gradients; ``None`` is :math:`1 - a_t`, see
        :func:`stochopt.variance_reduction.estimate_storm`.
      prox: ``prox(params, step) -> params`` of a further term; ``None`` without one.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Cutkosky, Orabona, `Momentum-Based Variance Reduction in Non-Convex SGD
      <https://arxiv.org/abs/1905.10018>`_, 2019
    """
    estimator = estimate_storm(loss, direction_rate=direction_rate, correction=correction)
    return optax.chain(estimator, _descent(learning_rate, prox))


def svrg(
    loss: Loss,
    full_loss: FullLoss,
    learning_rate: optax.ScalarOrSchedule = 0.1,
    *,
    num_batches: int,
    refresh_every: int | None = None,
    prox: Prox | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SVRG: finite sums, with a snapshot whose full gradient is known.

    .. math::

       x_{t+1} = x_t - \eta \left(\nabla f_{B_t}(x_t) - \nabla f_{B_t}(w) + \nabla f(w)\right),
       \qquad w \leftarrow x_t \text{ in every } m\text{-th update}

    Linear for :math:`\mu`-strongly convex :math:`f` with constant steps: with single terms,
    :math:`\eta = O(1 / L)` and :math:`m = O(L / \mu)`, :math:`O((n + L / \mu) \ln(1 / \epsilon))`
    gradients of terms. The snapshot is the last point of an epoch; the theorem is about a random
    one.

    Args:
      loss: ``loss(params, batch) -> scalar``, the mean over a batch.
      full_loss: ``full_loss(params) -> scalar``, the mean over all terms.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      num_batches: how many batches make up the full loss, rounded up.
      refresh_every: :math:`m`; ``None`` is twice ``num_batches``.
      prox: ``prox(params, step) -> params`` of a further term (Prox-SVRG); ``None`` without one.

    Returns:
      The optimizer; ``update`` needs the extra argument ``batch``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` got no ``batch``.

    References:
      Johnson, Zhang, `Accelerating Stochastic Gradient Descent using Predictive Variance Reduction
      <https://papers.nips.cc/paper/2013/hash/ac1dd209cbcc5e5d1c6e28598e8cbbe8-Abstract.html>`_,
      2013; Xiao, Zhang, `A Proximal Stochastic Gradient Method with Progressive Variance Reduction
      <https://arxiv.org/abs/1403.4699>`_, 2014
    """
    estimator = estimate_svrg(loss, full_loss, num_batches=num_batches, refresh_every=refresh_every)
    return optax.chain(estimator, _descent(learning_rate, prox))


def saga(
    loss: Loss,
    learning_rate: optax.ScalarOrSchedule = 0.1,
    *,
    num_blocks: int,
    prox: Prox | None = None,
    check: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""SAGA: finite sums, with the memory of the last gradient of every sample.

    .. math::

       x_{t+1} = x_t - \eta \Big(\frac{1}{|B_t|} \sum_{i \in B_t} (\nabla f_i(x_t) - g_i)
         + \frac1n \sum_i g_i\Big), \qquad g_i \leftarrow \nabla f_i(x_t) \text{ for } i \in B_t

    Linear for :math:`\mu`-strongly convex :math:`f`: with single samples and
    :math:`\eta = 1 / (3 L)` for :math:`L`-smooth :math:`f_i` the squared distance falls by the
    factor :math:`1 - \min(1 / (4 n), \mu / (3 L))` in expectation. No full gradient, one gradient
    of each drawn sample, and :math:`n` copies of ``params``.

    Args:
      loss: ``loss(params, batch_i) -> scalar``, of one sample.
      learning_rate: :math:`\eta \ge 0`, a number or a schedule.
      num_blocks: :math:`n`, how many samples there are.
      prox: ``prox(params, step) -> params`` of a further term; ``None`` without one.
      check: whether to raise for indices that repeat or lie outside, see
        :func:`stochopt.variance_reduction.estimate_saga`.

    Returns:
      The optimizer; ``update`` needs ``batch`` and ``block_indices``.

    Raises:
      ValueError: a hyper-parameter is out of range.
      TypeError: ``update`` lacks an extra argument.

    References:
      Defazio, Bach, Lacoste-Julien, `SAGA: A Fast Incremental Gradient Method With Support for
      Non-Strongly Convex Composite Objectives <https://arxiv.org/abs/1407.0202>`_, 2014
    """
    estimator = estimate_saga(loss, num_blocks=num_blocks, check=check)
    return optax.chain(estimator, _descent(learning_rate, prox))


def _descent(
    learning_rate: optax.ScalarOrSchedule, prox: Prox | None
) -> optax.GradientTransformation:
    check_range("learning_rate", learning_rate, "[0, inf)")
    if prox is None:
        return optax.scale_by_learning_rate(learning_rate)
    return proximal_step(learning_rate, prox)
