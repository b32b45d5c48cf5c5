r"""The SAGA estimate of a bilevel field, for finite sums at both levels."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _table, _tree
from stochopt._checks import check_count, require_extra
from stochopt._oracles import scalar_oracle
from stochopt.bilevel.estimator import FieldParams, require_field_params
from stochopt.bilevel.field import LowerAndAdjoint, curvature_along, hypergradient
from stochopt.bilevel.hypergradient import Lower, Upper, lower_products


class LowerTerms(NamedTuple):
    """What a sample of the lower function gives."""

    gradient: Any  # in the lower variable
    hessian_product: Any  # with the adjoint
    cross_product: Any  # with the adjoint, like params


class UpperTerms(NamedTuple):
    """What a sample of the upper function gives."""

    direct: Any  # gradient in the parameters
    slope: Any  # gradient in the lower variable


class EstimateSagaFieldState(NamedTuple):
    """State of :func:`estimate_saga_field`."""

    count: jax.Array  # type: ignore[assignment]  # shape=(), dtype=int32
    lower_table: LowerTerms  # the terms of each sample when it was last drawn
    upper_table: UpperTerms
    lower_mean: LowerTerms  # over the whole table
    upper_mean: UpperTerms
    estimated_value: jax.Array  # of the upper function at the last draw, shape=()
    curvature: jax.Array  # of the lower function along the adjoint variable, shape=()


def estimate_saga_field(
    upper: Upper, lower: Lower, *, num_lower_samples: int, num_upper_samples: int
) -> optax.GradientTransformationExtraArgs:
    r"""The field of :func:`stochopt.bilevel.adjoint_field` with the memory of all samples (SABA).

    For :math:`f = \frac1m \sum_j f_j` and :math:`g = \frac1n \sum_i g_i` each of the five terms
    :math:`t \in \{\nabla_y g, \nabla^2_{yy} g\, p, \nabla^2_{xy} g\, p, \nabla_x f, \nabla_y f\}`
    is estimated by

    .. math::

       t_i(x, y, p) - t_i^{\text{kept}} + \frac1n \sum_k t_k^{\text{kept}}, \qquad
       t_i^{\text{kept}} \leftarrow t_i(x, y, p),

    unbiased, with a variance that vanishes as the point comes to rest. A sample that was never
    drawn has the kept term zero. Memory: :math:`n (2 d_y + d_x) + m (d_y + d_x)` numbers; an update
    costs one sample of each level and touches one row of each table. Constant steps converge, and
    linearly under the Polyak-Lojasiewicz condition.

    An *estimator* on :class:`stochopt.bilevel.FieldParams` whose hidden variables are a
    :class:`stochopt.bilevel.LowerAndAdjoint`; :func:`stochopt.bilevel.hide` keeps these in the
    state. **Extra arguments of** ``update``: ``batch``, passed to both oracles, and
    ``sample_indices``, the pair ``(i, j)`` of integers: which lower and which upper sample it
    holds, drawn independently.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f_j`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g_i`.
      num_lower_samples: :math:`n`.
      num_upper_samples: :math:`m`.

    Raises:
      TypeError: ``update`` lacks an extra argument, or got other ``params`` than those above.
      ValueError: hidden variables differ in shape, or an oracle returned no scalar.

    References:
      Dagréou et al., `A Framework for Bilevel Optimization that Enables Stochastic and Global
      Variance Reduction Algorithms <https://arxiv.org/abs/2201.13409>`_, 2022
    """
    check_count("num_lower_samples", num_lower_samples)
    check_count("num_upper_samples", num_upper_samples)
    upper, lower = scalar_oracle("upper", upper), scalar_oracle("lower", lower)
    start = lambda y: LowerAndAdjoint(y, y)

    def init_fn(params: FieldParams) -> EstimateSagaFieldState:
        x, (y, _) = params
        zeros = lambda tree: _tree.zeros_at_least_float32(tree)
        lower_mean = LowerTerms(zeros(y), zeros(y), zeros(x))
        upper_mean = UpperTerms(zeros(x), zeros(y))
        # Rows that follow the layout of what they are like.
        table = lambda n, mean: jax.tree.map(lambda u: jnp.repeat(u[None], n, axis=0), mean)
        zero = jnp.zeros([], _tree.scalar_dtype(*jax.tree.leaves(y)))
        return EstimateSagaFieldState(
            count=jnp.zeros([], jnp.int32),
            lower_table=table(num_lower_samples, lower_mean),
            upper_table=table(num_upper_samples, upper_mean),
            lower_mean=lower_mean,
            upper_mean=upper_mean,
            estimated_value=zero,
            curvature=jnp.zeros_like(zero),
        )

    def update_fn(
        updates: optax.Updates,
        state: EstimateSagaFieldState,
        params: FieldParams | None = None,
        *,
        batch: Any = None,
        sample_indices: tuple[jax.Array, jax.Array] | None = None,
        **extra_args: Any,
    ) -> tuple[FieldParams, EstimateSagaFieldState]:
        del updates, extra_args
        params = require_field_params("estimate_saga_field", params, start)
        pass_what = "batch=batch, sample_indices=(lower_index, upper_index)"
        require_extra("estimate_saga_field", "batch", batch, pass_what)
        require_extra("estimate_saga_field", "sample_indices", sample_indices, pass_what)
        assert sample_indices is not None
        i, j = map(jnp.asarray, sample_indices)
        x, (y, p) = params
        below = LowerTerms(*lower_products(lower, x, y, batch, p))
        value, slopes = jax.value_and_grad(upper, argnums=(0, 1))(x, y, batch)
        g, g_mean, g_table = _saga(below, i, state.lower_table, state.lower_mean)
        f, f_mean, f_table = _saga(UpperTerms(*slopes), j, state.upper_table, state.upper_mean)
        directions = FieldParams(
            hypergradient(f.direct, g.cross_product),
            LowerAndAdjoint(g.gradient, optax.tree.sub(g.hessian_product, f.slope)),
        )
        as_kept = lambda u: jnp.array(u, state.estimated_value.dtype)
        return optax.tree.cast_like(directions, params), EstimateSagaFieldState(
            count=optax.safe_increment(state.count),
            lower_table=g_table,
            upper_table=f_table,
            lower_mean=g_mean,
            upper_mean=f_mean,
            estimated_value=as_kept(value),
            curvature=as_kept(curvature_along(p, below.hessian_product)),
        )

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _saga(new: Any, index: jax.Array, table: Any, mean: Any) -> tuple[Any, Any, Any]:
    """The estimate, the mean and the table after a sample was drawn."""
    indices, rows = jnp.reshape(index, 1), jax.tree.map(lambda u: u[None], new)
    difference, table, new_mean = _table.exchange(table, mean, indices, rows)
    return jax.tree.map(lambda d, m: d[0] + m, difference, mean), new_mean, table
