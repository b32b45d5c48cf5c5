"""One call for all matrices of a kind: bucketing by shape, and layouts on a mesh."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stochopt.orthogonal.matrices import MatrixAxes, fans
from stochopt.orthogonal.newton_schulz import LARGE

BatchFunction = Callable[[jax.Array], jax.Array]
_EXPLICIT = jax.sharding.AxisType.Explicit
#: Where to spread the matrices of a bucket: a mesh axis, or a layout of the bucket's first axis.
Distribution = str | jax.sharding.NamedSharding

# How many arrays of small matrices share a call on a CPU. A batched product of small matrices runs
# on one core there, and groups that do not depend on each other run side by side. Groups also take
# less to compile than a whole bucket: kernels that are equal to the last number are compiled once,
# and those that take a stack apart differ in the position only.
_CPU_GROUP = 6


def map_matrices(
    function: BatchFunction,
    arrays: Sequence[jax.Array],
    axes: Sequence[MatrixAxes],
    distribute: Distribution | None = None,
) -> list[jax.Array]:
    """Applies ``function`` to every matrix in ``arrays``, with one call for all of equal shape.

    (On a CPU a bucket falls into groups, and matrices with 128 rows and more get calls of their
    own: the compiler recognizes equal ones.)

    Matrices that are equal in shape up to transposition, in dtype and in layout form a *bucket*, an
    array (k, m, n) with ``m <= n``; so ``function`` must map transposed matrices to transposed
    results. On a mesh with explicit axes a bucket is gathered along its matrix axes as a whole,
    because products of a matrix with its own transpose have no unambiguous layout otherwise, and
    the result goes back to the layout of the arrays. A batch axis that is sharded stays so: each
    device sees its own matrices only.

    Args:
      function: from a batch of matrices (k, m, n) to the same shape.
      arrays: of any rank.
      axes: of each array.
      distribute: name of a mesh axis over which to spread each bucket's matrices, so that each
        device computes its share (buckets are padded with zeros to a multiple of the number of
        devices); or a ``NamedSharding`` with that axis first, which also says the mesh where
        neither the arrays nor ``jax.set_mesh`` do. Arrays whose batch axis is sharded already keep
        their layout.

    Returns:
      Arrays like ``arrays``, in their layouts.

    Raises:
      ValueError: there is no mesh with the axis ``distribute``, or it is a manual one, as inside
        ``jax.shard_map``.
    """
    buckets: dict[Any, list[int]] = {}
    batches = [_to_batch(x, a) for x, a in zip(arrays, axes, strict=True)]
    for i, batch in enumerate(batches):
        spec = jax.typeof(batch).sharding.spec
        alone = i if spec[0] is not None else None  # no concatenation along a sharded axis
        buckets.setdefault((batch.shape[1:], batch.dtype, spec, alone), []).append(i)
    results: list[Any] = [None] * len(batches)
    for members in buckets.values():
        bucket = [batches[i] for i in members]
        for i, result in zip(members, _map_bucket(function, bucket, distribute), strict=True):
            results[i] = _from_batch(result, arrays[i], axes[i])
    return results


def _map_bucket(
    function: BatchFunction, bucket: list[jax.Array], distribute: Distribution | None
) -> list[jax.Array]:
    """``function`` of the arrays of one bucket, each array as it came."""

    def together(*arrays: jax.Array) -> list[jax.Array]:
        if len(arrays) == 1:
            return [_apply(function, arrays[0], distribute)]
        whole = _apply(function, jnp.concatenate(arrays), distribute)
        ends = list(itertools.accumulate(map(len, arrays)))
        return [whole[end - len(x) : end] for end, x in zip(ends, arrays, strict=True)]

    def in_groups(*arrays: jax.Array) -> list[jax.Array]:
        groups = [arrays[i : i + size] for i in range(0, len(arrays), size)]
        return [y for group in groups for y in together(*group)]

    size = 1 if bucket[0].shape[1] >= LARGE else _CPU_GROUP
    sharded = any(entry is not None for entry in jax.typeof(bucket[0]).sharding.spec)
    if len(bucket) <= size or sharded or distribute:
        return together(*bucket)
    return jax.lax.platform_dependent(*bucket, cpu=in_groups, default=together)


def _order(x: jax.Array, axes: MatrixAxes) -> tuple[tuple[int, ...], ...]:
    """Groups of axes that become one each: batch, then the matrix with the shorter side first."""
    rows, columns = fans(x, axes)
    sides = (axes.reduction, axes.output) if rows <= columns else (axes.output, axes.reduction)
    return (axes.batch, *sides)


def _to_batch(x: jax.Array, axes: MatrixAxes) -> jax.Array:
    """The matrices of ``x`` as (k, m, n) with ``m <= n``; single axes keep their layout."""
    groups = _order(x, axes)
    sharding = jax.typeof(x).sharding
    # Only the first of several axes can stay sharded when they become one.
    merged = {axis for group in groups for axis in group[1:]}
    merged |= {axis for group in groups[1:] if len(group) > 1 for axis in group}
    if any(sharding.spec[axis] is not None for axis in merged):
        spec = [None if axis in merged else sharding.spec[axis] for axis in range(x.ndim)]
        x = jax.reshard(x, jax.NamedSharding(sharding.mesh, jax.P(*spec)))
    y = x.transpose(sum(groups, ()))
    if not axes.batch:
        y = y[None]
    if y.ndim == 3:
        return y
    kept = jax.typeof(y).sharding
    starts = (0, max(1, len(groups[0])), max(1, len(groups[0])) + len(groups[1]))
    out = jax.NamedSharding(kept.mesh, jax.P(*(kept.spec[s] for s in starts)))
    shape = [math.prod(x.shape[axis] for axis in group) for group in groups]
    return jax.lax.reshape(y, shape, out_sharding=None if kept.mesh.empty else out)


def _from_batch(y: jax.Array, like: jax.Array, axes: MatrixAxes) -> jax.Array:
    """The inverse of :func:`_to_batch`, in the layout of ``like``."""
    order = sum(_order(like, axes), ())
    sharding = jax.typeof(like).sharding
    shape = tuple(like.shape[axis] for axis in order)
    if y.ndim - (not axes.batch) != like.ndim:
        out = jax.NamedSharding(sharding.mesh, jax.P(*(sharding.spec[axis] for axis in order)))
        y = jax.lax.reshape(y, shape, out_sharding=None if sharding.mesh.empty else out)
    else:
        y = y.reshape(shape)
    y = y.transpose(tuple(order.index(axis) for axis in range(like.ndim)))
    return _placed(y, sharding)


def _apply(function: BatchFunction, x: jax.Array, distribute: Distribution | None) -> jax.Array:
    """``function`` of one bucket, each matrix whole on the devices that compute it."""
    sharding = jax.typeof(x).sharding
    first = sharding.spec[0]
    mesh: Any = sharding.mesh
    count = len(x)
    if distribute is not None and first is None:
        mesh, first = _mesh_and_axis(distribute, mesh)
        devices = math.prod(mesh.shape[name] for name in _names(first))
        if padding := -count % devices:
            x = jnp.pad(x, ((0, padding), (0, 0), (0, 0)))  # in the layout of x
    layout = jax.P(first, None, None)
    if _EXPLICIT in sharding.mesh.axis_types and sharding.spec != layout:
        x = jax.reshard(x, jax.NamedSharding(mesh, layout))
    if first is not None:
        function = jax.shard_map(function, mesh=mesh, in_specs=layout, out_specs=layout)
    y = _placed(function(x), sharding)
    return y[:count] if len(y) > count else y


def _placed(y: jax.Array, sharding: Any) -> jax.Array:
    """``y`` in a layout; where that says no mesh, the compiler knows better."""
    there = sharding.mesh.empty or jax.typeof(y).sharding == sharding
    return y if there else jax.reshard(y, sharding)


def _names(axis: Any) -> tuple[str, ...]:
    return axis if isinstance(axis, tuple) else (axis,)


def _mesh_and_axis(distribute: Distribution, mesh: Any) -> tuple[Any, Any]:
    """Checks ``distribute`` for arrays that lie on ``mesh``, an empty one for none."""
    context, manual = jax.sharding.get_abstract_mesh(), jax.sharding.AxisType.Manual
    on_no_mesh = mesh.empty
    if isinstance(distribute, jax.sharding.NamedSharding):
        axis = distribute.spec[0] if distribute.spec else None
        # Inside shard_map the axes are those that it has left.
        mesh = context if manual in context.axis_types else distribute.mesh
    else:
        axis = distribute
        mesh = context if on_no_mesh else mesh
    known = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if axis is None or any(known.get(name, manual) == manual for name in _names(axis)):
        raise ValueError(
            f"distribute={distribute!r} must name an axis of a mesh that the arrays lie on, or "
            "that jax.set_mesh sets, and not a manual one (as inside jax.shard_map); this mesh "
            f"has {', '.join(f'{name} ({kind.name})' for name, kind in known.items()) or 'none'}. "
            "On a mesh that is only known to the compiler pass a NamedSharding."
        )
    if on_no_mesh and _EXPLICIT in known.values():
        raise ValueError(
            f"distribute={distribute!r}: the mesh has explicit axes, and the arrays do not lie on "
            "it; put them there with jax.device_put."
        )
    return mesh, axis
