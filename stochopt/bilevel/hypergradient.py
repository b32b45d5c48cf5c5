r"""Implicit differentiation of a lower problem: second-order products, linear solvers, gradients.

For :math:`F(x) = f(x, y(x))` with :math:`y(x) = \arg\min_y g(x, y)` and :math:`g` strongly convex
in :math:`y`,

.. math::

   \nabla F(x) = \nabla_x f - \nabla^2_{xy} g \, p, \qquad
   p = (\nabla^2_{yy} g)^{-1} \nabla_y f \qquad \text{at } y = y(x) ,

where :math:`\nabla^2_{xy} g \, p` is the gradient in :math:`x` of
:math:`\langle \nabla_y g(x, y), p \rangle`. The adjoint variable :math:`p` is the solution of a
linear system of which only products with the Hessian are known.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from stochopt import _tree
from stochopt._checks import check_count, check_range
from stochopt._oracles import check_like, scalar_oracle

#: ``upper(params, lower_params, batch) -> scalar``
Upper = Callable[[Any, Any, Any], jax.Array]

#: ``lower(params, lower_params, batch) -> scalar``
Lower = Callable[[Any, Any, Any], jax.Array]

#: ``product(vector, term)``: the lower Hessian times a tree shaped like the lower variable. The
#: number ``term`` selects a fresh sample of a stochastic Hessian.
HessianProduct = Callable[[Any, Any], Any]


class LowerProducts(NamedTuple):
    """First and second derivatives of a lower function, from one pass."""

    gradient: Any  # of lower in lower_params, like lower_params
    hessian_product: Any  # second derivative in lower_params times the vector, like lower_params
    cross_product: Any  # gradient in params of <gradient, vector>, like params


def lower_products(
    lower: Lower, params: Any, lower_params: Any, batch: Any, vector: Any
) -> LowerProducts:
    r"""Gradient, Hessian product and cross product of a lower function at one point.

    .. math:: \nabla_y g(x, y), \qquad \nabla^2_{yy} g(x, y)\, p, \qquad \nabla^2_{xy} g(x, y)\, p

    for one sample of :math:`g`. One ``jax.vjp`` of :math:`\nabla_y g` gives all three; what is not
    used costs nothing in a compiled program.

    Args:
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`.
      params: :math:`x`, a tree of real arrays.
      lower_params: :math:`y`, likewise.
      batch: for ``lower``.
      vector: :math:`p`, shaped like ``lower_params``; cast to its dtypes.

    Raises:
      ValueError: ``lower`` returned no scalar, or ``vector`` is not shaped like ``lower_params``.
    """
    check_like("vector", vector, lower_params, "lower_params")
    slope = lambda params, lower_params: _slope(lower, params, lower_params, batch)
    gradient, pullback = jax.vjp(slope, params, lower_params)
    cross_product, hessian_product = pullback(optax.tree.cast_like(vector, gradient))
    return LowerProducts(gradient, hessian_product, cross_product)


def finite_difference_cross(
    lower: Lower,
    params: Any,
    lower_params: Any,
    batch: Any,
    vector: Any,
    *,
    scale: float | None = None,
) -> Any:
    r"""The cross product without second derivatives.

    .. math::

       \nabla^2_{xy} g(x, y)\, p \approx
         \frac{\nabla_x g(x, y + \epsilon p) - \nabla_x g(x, y - \epsilon p)}{2 \epsilon},
       \qquad \epsilon = \frac{s}{\|p\|} .

    Exact, but for rounding, where :math:`g` is quadratic in :math:`y`. Else the relative error is
    of the order :math:`s^2 + \epsilon_m (1 + \|y\|) / s` with the machine precision
    :math:`\epsilon_m`, so the default balances the two.

    Args:
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`.
      params: :math:`x`, a tree of real arrays.
      lower_params: :math:`y`, likewise.
      batch: for ``lower``.
      vector: :math:`p`, shaped like ``lower_params``. Zero gives zero.
      scale: :math:`s`, how far to move the lower variable. ``None`` means
        :math:`\epsilon_m^{1/3} \max(1, \|y\|)`, about 0.005 in single and 6e-6 in double precision.

    Returns:
      A tree like ``params``.

    Raises:
      ValueError: ``lower`` returned no scalar, or ``vector`` is not shaped like ``lower_params``.

    References:
      Liu, Simonyan, Yang, `DARTS: Differentiable Architecture Search
      <https://arxiv.org/abs/1806.09055>`_, 2019
    """
    if scale is not None:
        check_range("scale", scale, "(0, inf)")
    check_like("vector", vector, lower_params, "lower_params")
    leaves = jax.tree.leaves(lower_params)
    dtype = _tree.scalar_dtype(*leaves)
    norm_of = lambda tree: optax.tree.norm(jax.tree.map(lambda x: x.astype(dtype), tree))
    if scale is None:
        precision = max(float(jnp.finfo(leaf.dtype).eps) for leaf in leaves)
        scale = precision ** (1 / 3) * jnp.maximum(1, norm_of(lower_params))
    norm = norm_of(vector)
    epsilon = scale / jnp.where(norm == 0, 1, norm)

    def slope(sign: int) -> Any:
        moved = _tree.add_scaled(lower_params, sign * epsilon, vector)
        return jax.grad(scalar_oracle("lower", lower))(params, moved, batch)

    def quotient(ahead: jax.Array, behind: jax.Array) -> jax.Array:
        wide = _tree.at_least_float32(ahead.dtype)
        difference = ahead.astype(wide) - behind.astype(wide)
        return (difference / (2 * epsilon).astype(wide)).astype(ahead.dtype)

    return jax.tree.map(quotient, slope(1), slope(-1))


@dataclasses.dataclass(frozen=True)
class LinearSolver:
    r"""Solves :math:`H p = b` from products with a symmetric positive definite :math:`H`.

    Called as ``solver(product, right, key)`` with a :data:`HessianProduct`, the tree :math:`b` and
    a random key, which only some solvers need, it returns :math:`p` in the dtypes of :math:`b`. It
    computes in single precision or wider, except for the products.

    Attributes:
      solve: what is called.
      num_draws: how many samples of a stochastic Hessian may be asked for: ``term`` lies below it.
        A deterministic solver asks for the sample 0 only.
    """

    solve: Callable[[HessianProduct, Any, jax.Array | None], Any]
    num_draws: int = 1

    def __call__(self, product: HessianProduct, right: Any, key: jax.Array | None = None) -> Any:
        """The solution."""
        return self.solve(product, right, key)


def conjugate_gradient(
    *, max_steps: int = 100, tolerance: float = 1e-6, damping: float = 0.0
) -> LinearSolver:
    r"""Conjugate gradients from zero, one product a step.

    After :math:`k` steps the error in the norm of :math:`H` has fallen to at most
    :math:`2 \left(\frac{\sqrt\kappa - 1}{\sqrt\kappa + 1}\right)^k` of :math:`p`'s own, with the
    condition number :math:`\kappa` of :math:`H`.

    Args:
      max_steps: at most so many steps.
      tolerance: stops when the residual is below this fraction of :math:`\|b\|`.
      damping: :math:`\delta`, solves with :math:`H + \delta I`.
    """
    check_count("max_steps", max_steps)
    check_range("tolerance", tolerance, "[0, inf)")
    check_range("damping", damping, "[0, inf)")

    def solve(product: HessianProduct, right: Any, key: jax.Array | None) -> Any:
        del key
        wide_product, wide_right = _widened(product, right, damping)
        solution, _ = jax.scipy.sparse.linalg.cg(
            lambda vector: wide_product(vector, 0), wide_right, tol=tolerance, maxiter=max_steps
        )
        return optax.tree.cast_like(solution, right)

    return LinearSolver(solve)


def dense_solve(*, damping: float = 0.0) -> LinearSolver:
    r"""Builds the whole Hessian, one product a column, and solves by Cholesky factors.

    For lower variables of up to a few hundred numbers. The matrix is made symmetric first; where it
    is not positive definite the solution is NaN.

    Args:
      damping: :math:`\delta`, solves with :math:`H + \delta I`.
    """
    check_range("damping", damping, "[0, inf)")

    def solve(product: HessianProduct, right: Any, key: jax.Array | None) -> Any:
        del key
        wide_product, wide_right = _widened(product, right, damping)
        flat, unravel = ravel_pytree(wide_right)
        row = lambda vector: ravel_pytree(wide_product(unravel(vector), 0))[0]
        matrix = jax.vmap(row)(jnp.eye(flat.size, dtype=flat.dtype))
        solution = jax.scipy.linalg.solve((matrix + matrix.T) / 2, flat, assume_a="pos")
        return optax.tree.cast_like(unravel(solution), right)

    return LinearSolver(solve)


def neumann(num_terms: int, step_size: float, *, damping: float = 0.0) -> LinearSolver:
    r"""The truncated series of the inverse, exactly :math:`K` terms of it.

    .. math:: p = \eta \sum_{k=0}^{K-1} \prod_{j=0}^{k-1} (I - \eta H_j)\, b

    with a fresh sample of the Hessian for each factor, of which there are :math:`K - 1`. With
    independent samples of mean :math:`H` and :math:`\mu I \preceq H \preceq I / \eta` the bias
    :math:`E p - H^{-1} b = -H^{-1} (I - \eta H)^K b` is at most
    :math:`(1 - \eta \mu)^K \|b\| / \mu`.

    Args:
      num_terms: :math:`K`.
      step_size: :math:`\eta > 0`, at most one over the largest eigenvalue of :math:`H`.
      damping: :math:`\delta`, inverts :math:`H + \delta I`.

    References:
      Lorraine, Vicol, Duvenaud, `Optimizing Millions of Hyperparameters by Implicit
      Differentiation <https://arxiv.org/abs/1911.02590>`_, 2020
    """
    check_count("num_terms", num_terms)
    check_range("step_size", step_size, "(0, inf)")
    check_range("damping", damping, "[0, inf)")

    def solve(product: HessianProduct, right: Any, key: jax.Array | None) -> Any:
        del key
        wide_product, start = _widened(product, right, damping)

        def add_term(term: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            last, total = carry
            last = _tree.add_scaled(last, -step_size, wide_product(last, term))
            return last, optax.tree.add(total, last)

        _, total = jax.lax.fori_loop(0, num_terms - 1, add_term, (start, start))
        return optax.tree.cast_like(_scaled(step_size, total), right)

    return LinearSolver(solve, num_terms - 1)


def randomized_neumann(num_terms: int, step_size: float) -> LinearSolver:
    r"""One random term of the series in place of its sum, with the same mean.

    .. math:: p = \eta K \prod_{j=0}^{k-1} (I - \eta H_j)\, b, \qquad k \sim U\{0, \dots, K - 1\}

    The mean over :math:`k` is that of :func:`neumann` with :math:`K` terms, for about half as many
    products, :math:`(K - 1) / 2` on average, and more variance. Needs a key.

    Args:
      num_terms: :math:`K`.
      step_size: :math:`\eta > 0`, at most one over the largest eigenvalue of :math:`H`.

    References:
      Ghadimi, Wang, `Approximation Methods for Bilevel Programming
      <https://arxiv.org/abs/1802.02246>`_, 2018
    """
    check_count("num_terms", num_terms)
    check_range("step_size", step_size, "(0, inf)")

    def solve(product: HessianProduct, right: Any, key: jax.Array | None) -> Any:
        if key is None:
            raise TypeError("randomized_neumann: needs a random key; pass key=jax.random.key(...).")
        wide_product, start = _widened(product, right, 0.0)
        length = jax.random.randint(key, (), 0, num_terms)
        multiply = lambda term, last: _tree.add_scaled(last, -step_size, wide_product(last, term))
        last = jax.lax.fori_loop(0, length, multiply, start)
        return optax.tree.cast_like(_scaled(step_size * num_terms, last), right)

    return LinearSolver(solve, num_terms - 1)


def implicit_gradient(
    upper: Upper, lower: Lower, *, solver: LinearSolver | None = None
) -> Callable[..., tuple[Any, Any]]:
    r"""The gradient of the upper function through the minimizer of the lower one.

    Returns ``gradient(params, lower_params, batch, *, hessian_batches=None, key=None)``, which
    returns the pair

    .. math::

       \nabla_x f(x, y) - \nabla^2_{xy} g(x, y)\, p, \qquad
       p = \mathrm{solver}\left(\nabla^2_{yy} g(x, y), \nabla_y f(x, y)\right)

    at the given lower point :math:`y`. The first is :math:`\nabla F(x)` if :math:`y` minimizes the
    lower function and the solver is exact; the error grows in proportion to the distance of
    :math:`y` from the minimizer.

    - ``batch`` is for both oracles.
    - ``hessian_batches``, optional: batches of the lower function for a stochastic series, on a
      leading axis of one batch for each of the solver's ``num_draws`` products. Without it all
      products use ``batch``, and powers of one noisy Hessian are biased.
    - ``key``, for a randomized solver.

    Args:
      upper: ``upper(params, lower_params, batch) -> scalar``, :math:`f`.
      lower: ``lower(params, lower_params, batch) -> scalar``, :math:`g`, strongly convex in
        ``lower_params``.
      solver: of the linear system; ``None`` means :func:`conjugate_gradient`.

    Raises:
      ValueError: (on a call) an oracle returned no scalar, or ``hessian_batches`` holds too few.
      TypeError: (on a call) a randomized solver got no ``key``.

    References:
      Pedregosa, `Hyperparameter optimization with approximate gradient
      <https://arxiv.org/abs/1602.02355>`_, 2016
    """
    solve = conjugate_gradient() if solver is None else solver

    def gradient(
        params: Any,
        lower_params: Any,
        batch: Any,
        *,
        hessian_batches: Any = None,
        key: jax.Array | None = None,
    ) -> tuple[Any, Any]:
        _check_draws(hessian_batches, solve.num_draws)

        def product(vector: Any, term: Any) -> Any:
            draw = batch
            if hessian_batches is not None:
                draw = jax.tree.map(lambda x: x[term], hessian_batches)
            return lower_products(lower, params, lower_params, draw, vector).hessian_product

        slopes = jax.grad(scalar_oracle("upper", upper), argnums=(0, 1))
        direct, slope = slopes(params, lower_params, batch)
        adjoint = solve(product, slope, key)
        products = lower_products(lower, params, lower_params, batch, adjoint)
        return optax.tree.sub(direct, products.cross_product), adjoint

    return gradient


def _slope(lower: Lower, params: Any, lower_params: Any, batch: Any) -> Any:
    return jax.grad(scalar_oracle("lower", lower), argnums=1)(params, lower_params, batch)


def _check_draws(hessian_batches: Any, num_draws: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(hessian_batches):
        shape = jnp.shape(leaf)
        if num_draws and (not shape or shape[0] < num_draws):
            where = jax.tree_util.keystr(path)
            raise ValueError(
                f"hessian_batches{where} of shape {shape} needs a leading axis over the products "
                f"of the solver, of length {num_draws} or more."
            )


def _scaled(factor: Any, tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(factor, x.dtype) * x, tree)


def _widened(product: HessianProduct, right: Any, damping: float) -> tuple[HessianProduct, Any]:
    """The damped product and the right side, on vectors of single precision or wider."""
    widen = lambda tree: jax.tree.map(lambda x: x.astype(_tree.at_least_float32(x.dtype)), tree)

    def wide_product(vector: Any, term: Any) -> Any:
        result = widen(product(optax.tree.cast_like(vector, right), term))
        return _tree.add_scaled(result, damping, vector)

    return wide_product, widen(right)
