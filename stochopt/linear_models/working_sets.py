"""The lasso and the elastic net to a duality gap, on working sets that grow by themselves."""

import functools
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from stochopt._checks import check_count, check_range
from stochopt.linear_models.design import DenseDesign, Design, SparseDesign, dense, sparse
from stochopt.linear_models.gram import GramQuadratic, dual_scale, lasso_gap, minimize_with_l1

#: Features that may join an almost empty support at once.
FIRST_FEATURES = 64

#: The part of the gap, and of the tolerance, to which the problem on a working set is solved.
INNER_ACCURACY = 0.3


class LassoResult(NamedTuple):
    """What :func:`lasso` returns; :func:`lasso_path` puts one row for each penalty in front.

    Attributes:
      params: the coefficients, exactly zero outside of the support.
      objective: its value there.
      duality_gap: a bound on the objective minus its minimum.
      support_size: the number of coefficients that are not zero.
      num_working_sets: the number of problems on working sets that were solved.
    """

    params: jax.Array
    objective: jax.Array
    duality_gap: jax.Array
    support_size: jax.Array
    num_working_sets: jax.Array


def lasso(
    matrix: Any,
    targets: Any,
    penalty: float,
    *,
    ridge_weight: float = 0.0,
    tolerance: float = 1e-6,
    start: Any = None,
    max_working_sets: int = 100,
) -> LassoResult:
    r"""Least squares with an l1 penalty, optionally with a ridge too.

    .. math::

       \min_x F(x), \qquad
       F(x) = \frac{1}{2n} \|A x - b\|^2 + \lambda \|x\|_1 + \frac\mu2 \|x\|^2

    It ends when the :func:`duality gap <stochopt.linear_models.lasso_gap>` is at most
    ``tolerance`` times :math:`F(0) = \|b\|^2 / 2n`. Until then it

    1. takes the support and the features that are nearest to violating the optimality conditions,
       by :math:`(\lambda - s |g_j|) / \|A_j\|` with :math:`g = A^\top (b - A x) / n - \mu x` and
       the dual scale :math:`s`: as many as violate them, but at most half as many as the support
       has or, early on, 64;
    2. solves the problem in these alone from their Gram matrix, by cyclic coordinate descent and
       Newton steps on the support, to a part of the gap or, if no other feature violates the
       conditions, of the tolerance;
    3. looks at the whole problem again.

    A look costs a product with :math:`A^\top`, a new working set of :math:`k` features
    :math:`n k^2` operations for its Gram matrix. The loop is one in Python around compiled pieces,
    since the sizes of the arrays depend on the data. Working sets have 16, 24, 32, 48, 64, ...
    features, so few sizes are compiled, and once. It runs in the dtype of ``matrix``; in single
    precision the gap does not get much below 1e-6 of :math:`F(0)`.

    Args:
      matrix: :math:`A`, of shape (n, d): an array, a SciPy sparse matrix, or a
        :class:`design <stochopt.linear_models.Design>`, which is converted once and for all.
      targets: :math:`b`, of shape (n,).
      penalty: :math:`\lambda > 0`; from :func:`largest_penalty` on all coefficients are zero.
      ridge_weight: :math:`\mu \ge 0`.
      tolerance: of the duality gap, relative to :math:`F(0)`.
      start: coefficients to start from, such as those for another penalty; zero by default.
      max_working_sets: after so many problems on working sets it ends. That, and an end in
        rounding errors, is a ``RuntimeWarning``.

    Returns:
      The :class:`LassoResult`.

    Raises:
      ValueError: an argument is out of its range or has another shape; the message names it.

    Examples:
      >>> import jax.numpy as jnp
      >>> from stochopt.linear_models.working_sets import lasso
      >>> rows = jnp.array([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
      >>> result = lasso(rows, rows @ jnp.array([1.0, 0.0]), penalty=0.1)
      >>> print(f"{result.params[0]:.2f} {result.params[1]:.2f}", result.support_size)
      0.85 0.00 1

    References:
      Massias, Gramfort, Salmon, `Celer: a Fast Solver for the Lasso with Dual Extrapolation
      <https://arxiv.org/abs/1802.07481>`_, 2018, for the working sets.

      Bertrand, Klopfenstein, Bannier, Gidel, Massias, `Beyond L1: Faster and Better Sparse Models
      with skglm <https://arxiv.org/abs/2204.07826>`_, 2022.
    """
    problem = _problem(matrix, targets, ridge_weight, tolerance, max_working_sets)
    search = _start(problem, start)
    return _minimize(problem, search, penalty)[0]


def lasso_path(
    matrix: Any,
    targets: Any,
    penalties: Sequence[float],
    *,
    ridge_weight: float = 0.0,
    tolerance: float = 1e-6,
    max_working_sets: int = 100,
) -> LassoResult:
    """:func:`lasso` for several penalties, each from the solution for the one before.

    Args:
      matrix: as of :func:`lasso`.
      targets: likewise.
      penalties: in the order in which they are taken, best from large to small.
      ridge_weight: likewise.
      tolerance: likewise.
      max_working_sets: likewise, for each penalty.

    Returns:
      A :class:`LassoResult` whose fields have one row for each penalty.

    Raises:
      ValueError: an argument is out of its range or has another shape; the message names it.
    """
    if np.ndim(penalties) != 1 or len(penalties) == 0:
        raise ValueError(f"penalties must be a sequence of numbers, got {penalties}.")
    check_range("penalties", penalties, "(0, inf)")
    problem = _problem(matrix, targets, ridge_weight, tolerance, max_working_sets)
    search, results = _start(problem, None), []
    for penalty in penalties:
        result, search = _minimize(problem, search, penalty)
        results.append(result)
    stack = lambda *rows: jnp.asarray(np.stack(rows))
    return jax.tree.map(stack, *jax.device_get(results))


def largest_penalty(matrix: Any, targets: Any) -> jax.Array:
    r"""The least penalty for which all coefficients are zero, :math:`\|A^\top b\|_\infty / n`.

    Args:
      matrix: as of :func:`lasso`.
      targets: likewise.
    """
    design = _as_design(matrix)
    targets = _as_targets(design, targets)
    return jnp.max(jnp.abs(design.rmatvec(targets))) / targets.shape[0]


class _Problem(NamedTuple):
    design: Design
    targets: jax.Array
    norms: jax.Array
    ridge_weight: jax.Array
    accuracy: float  # of the duality gap, absolute
    max_working_sets: int


class _WorkingSet(NamedTuple):
    indices: jax.Array
    inside: jax.Array  # one flag for each feature
    columns: jax.Array  # one in each row
    quadratic: GramQuadratic


class _Search(NamedTuple):
    params: jax.Array
    residual: jax.Array
    working_set: _WorkingSet | None


class _Look(NamedTuple):
    objective: jax.Array
    duality_gap: jax.Array
    support_size: jax.Array
    num_outside: jax.Array  # features outside of the working set that violate optimality


def _problem(
    matrix: Any, targets: Any, ridge_weight: float, tolerance: float, max_working_sets: int
) -> _Problem:
    check_range("ridge_weight", ridge_weight, "[0, inf)")
    check_range("tolerance", tolerance, "(0, inf)")
    check_count("max_working_sets", max_working_sets)
    design = _as_design(matrix)
    targets = _as_targets(design, targets)
    norms, at_zero = jax.device_get(_scales(design, targets))
    ridge = jnp.asarray(ridge_weight, design.dtype)
    accuracy = float(tolerance * at_zero)
    return _Problem(design, targets, jnp.asarray(norms), ridge, accuracy, max_working_sets)


def _as_design(matrix: Any) -> Design:
    if isinstance(matrix, (DenseDesign, SparseDesign)):
        return matrix
    return sparse(matrix) if scipy.sparse.issparse(matrix) else dense(matrix)


def _as_targets(design: Design, targets: Any) -> jax.Array:
    targets = jnp.asarray(targets, design.dtype)
    if targets.shape != design.shape[:1]:
        raise ValueError(
            f"targets must have one number for each of the {design.shape[0]} rows of matrix, "
            f"got shape {targets.shape}."
        )
    return targets


def _start(problem: _Problem, start: Any) -> _Search:
    num_features = problem.design.shape[1]
    if start is None:
        zeros = jnp.zeros(num_features, problem.design.dtype)
        return _Search(zeros, problem.targets, None)
    params = jnp.asarray(start, problem.design.dtype)
    if params.shape != (num_features,):
        raise ValueError(
            f"start must have one number for each of the {num_features} columns of matrix, "
            f"got shape {params.shape}."
        )
    return _Search(params, problem.targets - problem.design.matvec(params), None)


def _minimize(problem: _Problem, search: _Search, penalty: float) -> tuple[LassoResult, _Search]:
    """Solves the problem for one penalty and says where the next one may start."""
    check_range("penalty", penalty, "(0, inf)")
    design, targets, norms, ridge_weight, accuracy, max_working_sets = problem
    weight = jnp.asarray(penalty, design.dtype)
    params, residual, working_set = search
    nobody = jnp.zeros(design.shape[1], bool)
    complete, last_gap = False, np.inf
    for count in range(max_working_sets + 1):
        inside = nobody if working_set is None else working_set.inside
        look, slack = _look(design, norms, params, residual, inside, weight, ridge_weight)
        found = jax.device_get(look)
        complete_before = complete
        complete = working_set is not None and found.num_outside == 0
        # The same problem again, and no gain: what is left is rounding.
        stuck = complete and complete_before and found.duality_gap >= last_gap
        if found.duality_gap <= accuracy or stuck or count == max_working_sets:
            break
        last_gap = found.duality_gap
        aim = INNER_ACCURACY * accuracy
        if not complete:
            aim = max(aim, INNER_ACCURACY * float(found.duality_gap))
            size = _padded_size(found.support_size, found.num_outside, design.shape[1])
            working_set = _choose(design, targets, ridge_weight, slack, size)
        tolerance = jnp.asarray(aim, design.dtype)
        params, residual = _solve(working_set, targets, params, weight, tolerance)
    if found.duality_gap > accuracy:
        warnings.warn(
            f"the duality gap is {found.duality_gap:.3g}, above {accuracy:.3g}, after "
            f"{count} working sets.",
            RuntimeWarning,
            stacklevel=3,
        )
    result = LassoResult(
        params, look.objective, look.duality_gap, look.support_size, jnp.int32(count)
    )
    return result, _Search(params, residual, working_set)


def _padded_size(support_size: int, num_outside: int, num_features: int) -> int:
    """Half as many again as the support, or fewer if that is all; one of a few sizes."""
    wanted = support_size + min(num_outside, max(support_size // 2, FIRST_FEATURES))
    size = 16
    while size < wanted:
        size *= 2
    size = 3 * size // 4 if wanted <= 3 * size // 4 else size
    return min(size, num_features)


@jax.jit
def _scales(design: Design, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The norms of the columns, and the objective at zero."""
    norms = jnp.sqrt(design.squared_column_norms())
    return norms, targets @ targets / (2 * targets.shape[0])


@jax.jit
def _look(
    design: Design,
    norms: jax.Array,
    params: jax.Array,
    residual: jax.Array,
    inside: jax.Array,
    penalty: jax.Array,
    ridge_weight: jax.Array,
) -> tuple[_Look, jax.Array]:
    """The whole problem at a point, and the slack of each feature: negative on the support."""
    num_rows = residual.shape[0]
    slope = design.rmatvec(residual) / num_rows - ridge_weight * params
    energy = residual @ residual / num_rows + ridge_weight * (params @ params)
    look = _Look(
        objective=energy / 2 + penalty * jnp.sum(jnp.abs(params)),
        duality_gap=lasso_gap(penalty, params, slope, energy),
        support_size=jnp.sum(params != 0),
        num_outside=jnp.sum((jnp.abs(slope) > penalty) & ~inside),
    )
    slack = (penalty - dual_scale(penalty, slope) * jnp.abs(slope)) / norms
    return look, jnp.where(params != 0, -1, slack)


@functools.partial(jax.jit, static_argnames="size")
def _choose(
    design: Design, targets: jax.Array, ridge_weight: jax.Array, slack: jax.Array, size: int
) -> _WorkingSet:
    """The features with the least slack, and the quadratic in these."""
    indices = jax.lax.top_k(-slack, size)[1]
    columns = design.columns(indices).T
    num_rows = targets.shape[0]
    quadratic = GramQuadratic(
        gram=columns @ columns.T / num_rows + ridge_weight * jnp.eye(size, dtype=design.dtype),
        linear=columns @ targets / num_rows,
        energy=targets @ targets / num_rows,
    )
    inside = jnp.zeros(slack.shape, bool).at[indices].set(True)
    return _WorkingSet(indices, inside, columns, quadratic)


@jax.jit
def _solve(
    working_set: _WorkingSet,
    targets: jax.Array,
    params: jax.Array,
    penalty: jax.Array,
    tolerance: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The minimizer on a working set, and its residual."""
    indices, _, columns, quadratic = working_set
    solution = minimize_with_l1(quadratic, penalty, params[indices], tolerance)
    return jnp.zeros_like(params).at[indices].set(solution), targets - solution @ columns
