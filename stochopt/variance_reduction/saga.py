"""SAGA: the memory of the last gradient of every sample."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _table, _tree
from stochopt._checks import check_count, require_extra, require_params, require_whole_tree
from stochopt._oracles import check_leading_axis
from stochopt.variance_reduction.oracles import Loss, gradient_of


class EstimateSagaState(NamedTuple):
    """State of :func:`estimate_saga`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    gradient_table: Any  # a row for each sample: its gradient when it was last drawn
    mean_gradient: Any  # over the whole table, like params, float32 or wider


def estimate_saga(
    loss: Loss, *, num_blocks: int, check: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""The gradient estimator with the memory of all samples, SAGA.

    For :math:`f = \frac1n \sum_i f_i` and a batch :math:`B_t` of distinct samples,

    .. math::

       d_t = \frac{1}{|B_t|} \sum_{i \in B_t} \left(\nabla f_i(x_t) - g_i\right)
         + \frac1n \sum_i g_i, \qquad
       g_i \leftarrow \nabla f_i(x_t) \text{ for } i \in B_t,

    unbiased for uniform draws, with a variance that vanishes as the point comes to rest. There is
    no full gradient, neither at the start, where every :math:`g_i = 0`, nor later. One gradient of
    each drawn sample an update; the memory is :math:`n` copies of ``params``, so it is for small
    models. An update reads and writes the rows of the batch only.

    **Extra arguments of** ``update``: ``batch``, whose leaves have a leading axis over the samples
    (``loss`` gets one sample, without it: the library maps over them); ``block_indices``, which
    samples these are, integers in the same order, without repetition
    (:func:`stochopt.compositional.sample_blocks` draws them). The index ``num_blocks`` is padding.

    Args:
      loss: ``loss(params, batch_i) -> scalar``, :math:`f_i`, of one sample.
      num_blocks: :math:`n`, how many samples there are.
      check: whether to raise for indices that repeat or lie outside; a compiled step has to be
        wrapped with ``jax.experimental.checkify.checkify``.

    Raises:
      TypeError: ``update`` lacks an extra argument, or got ``params`` with masked leaves.
      ValueError: a leaf of ``batch`` has another leading axis than ``block_indices``, or ``loss``
        returned no scalar.

    References:
      Defazio, Bach, Lacoste-Julien, `SAGA: A Fast Incremental Gradient Method With Support for
      Non-Strongly Convex Composite Objectives <https://arxiv.org/abs/1407.0202>`_, 2014
    """
    check_count("num_blocks", num_blocks)
    gradients = jax.vmap(gradient_of("loss", loss), (None, 0))

    def init_fn(params: optax.Params) -> EstimateSagaState:
        mean = _tree.zeros_at_least_float32(params)
        return EstimateSagaState(
            count=jnp.zeros([], jnp.int32),
            # Rows that follow the layout of what they are like.
            gradient_table=jax.tree.map(lambda u: jnp.repeat(u[None], num_blocks, axis=0), mean),
            mean_gradient=mean,
        )

    def update_fn(
        updates: optax.Updates,
        state: EstimateSagaState,
        params: optax.Params | None = None,
        *,
        batch: Any = None,
        block_indices: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, EstimateSagaState]:
        del updates, extra_args
        require_params("estimate_saga", params)
        require_whole_tree("estimate_saga", params)
        pass_what = "batch=batch, block_indices=indices"
        require_extra("estimate_saga", "batch", batch, pass_what)
        require_extra("estimate_saga", "block_indices", block_indices, pass_what)
        indices = _table.as_indices(
            "estimate_saga", "block_indices", block_indices, num_blocks, check
        )
        check_leading_axis("batch", batch, len(indices), "block_indices")
        difference, table, mean = _table.exchange(
            state.gradient_table, state.mean_gradient, indices, gradients(params, batch)
        )
        drawn = jnp.maximum(jnp.sum(indices < num_blocks), 1)
        direction = jax.tree.map(
            lambda d, m: m + jnp.sum(d, axis=0) / drawn.astype(m.dtype),
            difference,
            state.mean_gradient,
        )
        return optax.tree.cast_like(direction, params), EstimateSagaState(
            count=optax.safe_increment(state.count), gradient_table=table, mean_gradient=mean
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
