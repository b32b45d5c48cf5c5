"""Inventory with substitution: the enumerated program against a solver, and the demands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from stochopt.problems.causal import (
    causal_inventory,
    dual_vertices,
    inventory_data,
    substitution_loss,
)
from stochopt.problems.causal.inventory import HOLDING, STOCKOUT, SUBSTITUTION

key = jax.random.key
# Two products, either of which may stand in for the other.
TWO = ((1.0, 0.5), (2.0, 3.0), ((0.1, 0.4), (0.9, 0.0)))
COSTS = {"three": (HOLDING, STOCKOUT, SUBSTITUTION), "two": TWO}
each = pytest.mark.parametrize("name", COSTS)


def solve(costs, z, y):
    """The primal program: used quantities, then left-overs, then unmet demands."""
    holding, stockout, substitution = (np.asarray(cost, float) for cost in costs)
    n, m = substitution.shape
    places = [(i, j) for i in range(n) for j in range(m) if np.isfinite(substitution[i, j])]
    prices = np.concatenate([[substitution[p] for p in places], holding, stockout])
    balance = np.zeros((n + m, len(prices)))
    for column, (i, j) in enumerate(places):
        balance[i, column] = balance[n + j, column] = 1
    balance[:, len(places) :] = np.eye(n + m)
    return scipy.optimize.linprog(prices, A_eq=balance, b_eq=np.concatenate([z, y]))


def draws(costs, size, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.gamma(2.0, size=(size, len(costs[0]))) * rng.integers(0, 2, (size, 1))
    return z + rng.uniform(0, 1, z.shape), rng.gamma(2.0, size=(size, len(costs[1])))


@each
def test_values_and_slopes_are_those_of_a_solver(x64, name):
    costs = COSTS[name]
    loss = jax.jit(jax.vmap(jax.value_and_grad(substitution_loss(*costs), argnums=(0, 1))))
    z, y = draws(costs, 150)
    values, (in_z, in_y) = loss(jnp.asarray(z), jnp.asarray(y))
    for k in range(len(z)):
        solved = solve(costs, z[k], y[k])
        np.testing.assert_allclose(values[k], solved.fun, rtol=1e-9)
        marginals = np.concatenate([in_z[k], in_y[k]])
        np.testing.assert_allclose(marginals, solved.eqlin.marginals, atol=1e-7)


@each
def test_zero_stock_and_zero_demand(name):
    holding, stockout, _ = COSTS[name]
    loss = substitution_loss(*COSTS[name])
    size = len(holding)
    quantity = jnp.arange(1.0, size + 1)
    np.testing.assert_allclose(loss(jnp.zeros(size), quantity), quantity @ jnp.array(stockout))
    np.testing.assert_allclose(loss(quantity, jnp.zeros(size)), quantity @ jnp.array(holding))
    assert loss(jnp.zeros(size), jnp.zeros(size)) == 0


def test_vertices_are_feasible_and_extreme():
    vertices = dual_vertices(HOLDING, STOCKOUT, SUBSTITUTION)
    stocks, demands = vertices[:, :3], vertices[:, 3:]
    sums, costs = stocks[:, :, None] + demands[:, None, :], np.array(SUBSTITUTION)
    assert np.all(stocks <= np.array(HOLDING) + 1e-9)
    assert np.all(demands <= np.array(STOCKOUT) + 1e-9)
    assert np.all(sums <= costs + 1e-9)
    for stock, demand, total in zip(stocks, demands, sums, strict=True):
        tight = [np.eye(6)[i] for i in range(3) if np.isclose(stock[i], HOLDING[i])]
        tight += [np.eye(6)[3 + j] for j in range(3) if np.isclose(demand[j], STOCKOUT[j])]
        tight += [np.eye(6)[i] + np.eye(6)[3 + j] for i, j in np.argwhere(np.isclose(total, costs))]
        assert np.linalg.matrix_rank(np.array(tight)) == 6


def test_less_than_nothing_goes_on_convexly(x64):
    """Perturbed demands may be negative; the cost stays finite and convex along every line."""
    loss = substitution_loss()
    rng = np.random.default_rng(0)
    for _ in range(20):
        start, way = rng.normal(size=6), rng.normal(size=6)
        line = jax.vmap(lambda t, s=start, w=way: loss(*jnp.split(s + t * w, 2)))
        values = line(jnp.linspace(-3, 3, 61))
        assert np.all(np.diff(values, 2) > -1e-9)


def test_demands(x64):
    data = inventory_data(key(0), num_train=50_000, num_test=50_000, dimension=4)
    np.testing.assert_allclose(np.mean(data.features, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.std(data.features, axis=0), 1, rtol=1e-12)
    # The index is recovered from the mean of log y_3, which is linear in the features.
    x, y = np.asarray(data.test_features), np.asarray(data.test_outcomes)
    design = np.column_stack([np.ones(len(x)), x])
    shape = scipy.special.digamma(4.0)
    index = design @ np.linalg.lstsq(design, np.log(y[:, 2]) - shape, rcond=None)[0]
    assert index.std() > 0.05
    for column, sign, law in ((0, -1, 1.0), (1, 1, 2.0), (2, 1, 4.0)):
        scaled = y[:, column] * np.exp(-sign * index)
        np.testing.assert_allclose(scaled.mean(), law, rtol=0.03)
        np.testing.assert_allclose(scaled.var(), law, rtol=0.05)
        assert abs(np.corrcoef(scaled, index)[0, 1]) < 0.02


def test_the_problem():
    problem = causal_inventory(num_train=30, dimension=4, num_sampled=8, batch_size=2)
    params, batch = jax.jit(lambda k: (problem.init(k), problem.sample(k)))(key(0))
    assert problem.name == "causal-inventory"
    assert params["leaves"].shape == (8, 20, 3)
    slopes = jax.jit(jax.grad(problem.loss))(params, batch)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))
    # At the start nearly nothing is in stock: more of everything lowers the cost.
    assert np.all(slopes["leaves"] < 0)
