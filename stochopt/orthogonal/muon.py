"""Muon: momentum, orthogonalized."""

import math
from typing import Any

import jax
import optax

from stochopt import _tree
from stochopt._checks import check_range
from stochopt.orthogonal import matrices
from stochopt.orthogonal.buckets import Distribution
from stochopt.orthogonal.lmo import spectral
from stochopt.orthogonal.newton_schulz import Orthogonalizer
from stochopt.orthogonal.partition import with_adamw
from stochopt.orthogonal.trust_region import scale_by_lmo


def scale_by_shape(
    *,
    match_rms: jax.typing.ArrayLike | None = None,
    weight_dimension_numbers: matrices.DimensionNumbers | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales matrices of unit spectral norm by a factor of their shape.

    For a matrix with :math:`m` inputs and :math:`n` outputs the factor is
    :math:`\sqrt{\max(1, n / m)}`, Jordan's; or, with ``match_rms`` :math:`\rho`,
    :math:`\rho \sqrt{\max(m, n)}`. An orthogonal matrix has entries of root mean square
    :math:`1 / \sqrt{\max(m, n)}`, so the second gives every update the root mean square
    :math:`\rho`, about that of Adam for 0.2.

    Args:
      match_rms: :math:`\rho > 0`, or ``None`` for Jordan's factor.
      weight_dimension_numbers: as in :func:`stochopt.orthogonal.scale_by_adago`.

    References:
      Liu et al., `Muon is Scalable for LLM Training <https://arxiv.org/abs/2502.16982>`_, 2025
    """
    if match_rms is not None:
        check_range("match_rms", match_rms, "(0, inf)")

    def scale(x: jax.Array, axes: matrices.MatrixAxes) -> jax.Array:
        inputs, outputs = matrices.fans(x, axes)
        if match_rms is None:
            factor: Any = math.sqrt(max(1.0, outputs / inputs))
        else:
            factor = match_rms * math.sqrt(max(inputs, outputs))
        wide = _tree.at_least_float32(x.dtype)
        return jax.numpy.asarray(factor * x.astype(wide), x.dtype)

    def scale_all(updates: optax.Updates, params: optax.Params | None) -> optax.Updates:
        del params
        leaves, treedef = jax.tree.flatten(updates)
        axes = matrices.axes_of("scale_by_shape", weight_dimension_numbers, updates)
        return jax.tree.unflatten(treedef, map(scale, leaves, axes))

    return optax.with_extra_args_support(optax.stateless(scale_all))


def muon(
    learning_rate: optax.ScalarOrSchedule = 0.02,
    *,
    momentum: jax.typing.ArrayLike = 0.95,
    nesterov: bool = True,
    match_rms: jax.typing.ArrayLike | None = None,
    orthogonalize: Orthogonalizer | None = None,
    distribute: Distribution | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
    weight_decay: jax.typing.ArrayLike = 0.0,
    weight_decay_mask: Any = None,
    weight_dimension_numbers: matrices.DimensionNumbers | None = None,
    adam_learning_rate: optax.ScalarOrSchedule = 3e-4,
    adam_b1: jax.typing.ArrayLike = 0.9,
    adam_b2: jax.typing.ArrayLike = 0.95,
    adam_eps: jax.typing.ArrayLike = 1e-10,
    adam_weight_decay: jax.typing.ArrayLike = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Orthogonalized momentum on hidden matrices, AdamW on everything else.

    For a matrix :math:`\Theta` with :math:`m` inputs and :math:`n` outputs, gradient :math:`G_t`,
    momentum :math:`\mu` and :math:`M_0 = 0`:

    .. math::

       M_t &= \mu M_{t-1} + (1 - \mu) G_t \\
       U_t &= \mu M_t + (1 - \mu) G_t \qquad (U_t = M_t \text{ without Nesterov's momentum}) \\
       \Theta_t &= (1 - \eta_t \lambda) \Theta_{t-1}
       - \eta_t \sqrt{\max(1, n / m)}\, \mathrm{Orth}(U_t)

    This is Jordan's momentum. That of ``optax.contrib.muon`` differs by a bias correction, which
    changes the weights of the two terms of :math:`U_t` in the first steps.

    Args:
      learning_rate: :math:`\eta_t`, a number or a schedule.
      momentum: weight :math:`\mu` on the old momentum, in [0, 1).
      nesterov: whether to look ahead.
      match_rms: root mean square of every update at :math:`\eta = 1`, in place of Jordan's factor
        of the shape; with 0.2 the learning rate and the decay of AdamW can be kept.
      orthogonalize: function from a batch of matrices to their polar factors; ``None`` means
        :func:`stochopt.orthogonal.newton_schulz`. Under ``optax.inject_hyperparams`` name it in
        ``static_args``.
      distribute: mesh axis over which to spread the matrices of equal shape, each device
        orthogonalizing its share; or a ``NamedSharding`` with that axis first. Not inside
        ``jax.shard_map``, where each device has its own matrices only.
      mu_dtype: dtype of both first moments; ``None`` takes the parameter's.
      weight_decay: :math:`\lambda \ge 0` for the matrices.
      weight_decay_mask: tree of booleans, or a function from ``params`` to one, saying which
        leaves decay.
      weight_dimension_numbers: tree of ``optax.contrib.MuonDimensionNumbers`` with ``None`` at
        leaves that AdamW takes, or a function from ``params`` to one; ``None`` means
        :func:`stochopt.orthogonal.hidden_matrices`, which leaves out embeddings and heads.
      adam_learning_rate: AdamW's learning rate, a number or a schedule.
      adam_b1: AdamW's first decay rate.
      adam_b2: AdamW's second decay rate.
      adam_eps: AdamW's denominator guard.
      adam_weight_decay: AdamW's decoupled decay.

    Returns:
      The optimizer.

    Raises:
      ValueError: a hyper-parameter is out of range.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, stochopt
      >>> loss = lambda w: jnp.sum((w - jnp.eye(2)) ** 2)
      >>> optimizer = stochopt.muon(learning_rate=0.5)
      >>> params = jnp.full((2, 2), 3.0)
      >>> state = optimizer.init(params)
      >>> for _ in range(5):
      ...     updates, state = optimizer.update(jax.grad(loss)(params), state, params)
      ...     params = optax.apply_updates(params, updates)
      ...     print(f"{loss(params):.2f}")
      21.88
      18.36
      15.52
      13.21
      10.64

    References:
      Jordan et al., `Muon <https://kellerjordan.github.io/posts/muon/>`_, 2024
    """
    check_range("learning_rate", learning_rate, "[0, inf)")
    check_range("weight_decay", weight_decay, "[0, inf)")
    rule = matrices.or_hidden(weight_dimension_numbers)
    lmo = spectral(
        orthogonalize=orthogonalize, weight_dimension_numbers=rule, distribute=distribute
    )
    matrix_step = optax.chain(
        scale_by_lmo(lmo, momentum=momentum, nesterov=nesterov, mu_dtype=mu_dtype),
        scale_by_shape(match_rms=match_rms, weight_dimension_numbers=rule),
        optax.add_decayed_weights(weight_decay, weight_decay_mask),
        optax.scale_by_learning_rate(learning_rate),
        optax.stateless(optax.tree.cast_like),  # a traced decay is float32 whatever the leaf
    )
    return with_adamw(
        "muon",
        matrix_step,
        rule,
        mu_dtype=mu_dtype,
        weight_decay_mask=weight_decay_mask,
        adam_learning_rate=adam_learning_rate,
        adam_b1=adam_b1,
        adam_b2=adam_b2,
        adam_eps=adam_eps,
        adam_weight_decay=adam_weight_decay,
    )
