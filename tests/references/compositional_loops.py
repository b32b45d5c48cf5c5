"""Compositional methods in NumPy float64, each a plain loop as its paper has it.

Steps are numbers or functions of the count; every loop returns the points after each step. Loops
take draws for the inner value and draws for its Jacobian, which may be the same.
"""

import numpy as np


class Quadratic:
    """f(u) = u' Q u / 2 - c' u of g(x) = (A + s E) x + b + t n, plus r x' x / 2; a draw is E, n."""

    def __init__(self, seed=0, *, size=6, inner=5, matrix_noise=0.5, vector_noise=0.1, ridge=0.1):
        rng = np.random.default_rng(seed)
        self.size, self.inner_size = size, inner
        self.matrix_noise, self.vector_noise, self.ridge = matrix_noise, vector_noise, ridge
        self.a = rng.standard_normal((inner, size)) / np.sqrt(size)
        self.b, self.c = rng.standard_normal((2, inner))
        root = rng.standard_normal((inner, inner)) / np.sqrt(inner)
        self.q = root @ root.T + 0.5 * np.eye(inner)
        self.start = rng.standard_normal(size)

    def draws(self, seed, num):
        rng = np.random.default_rng(seed)
        return rng.standard_normal((num, self.inner_size, self.size)), rng.standard_normal(
            (num, self.inner_size)
        )

    def jacobian(self, draw):
        return self.a + self.matrix_noise * draw[0]

    def inner(self, x, draw):
        return self.jacobian(draw) @ x + self.b + self.vector_noise * draw[1]

    def objective(self, u, x):
        return u @ self.q @ u / 2 - self.c @ u + self.ridge / 2 * (x @ x)

    def direction(self, x, u, draw):
        return self.jacobian(draw).T @ (self.q @ u - self.c) + self.ridge * x

    def settles_at(self, share=0.0):
        """Mean point where a share of the noise of a sample meets itself in the gradient."""
        hessian = self.a.T @ self.q @ self.a + self.ridge * np.eye(self.size)
        extra = share * self.matrix_noise**2 * np.trace(self.q)
        right = self.a.T @ (self.c - self.q @ self.b)
        return np.linalg.solve(hessian + extra * np.eye(self.size), right)


def at(rate, count):
    return rate(count) if callable(rate) else rate


def pairs(draws):
    return list(zip(*draws, strict=True))


def everywhere(x):
    return x


def scgd(problem, x, draws, jacobian_draws, rate, tracker_rate, projection=everywhere):
    """Wang, Fang, Liu, arXiv:1411.3803."""
    u, points = None, []
    for t, (draw, other) in enumerate(zip(pairs(draws), pairs(jacobian_draws), strict=True)):
        gamma, new = at(tracker_rate, t), problem.inner(x, draw)
        u = new if u is None else (1 - gamma) * u + gamma * new
        x = projection(x - at(rate, t) * problem.direction(x, u, other))
        points.append(x)
    return points


def asc_pg(problem, x, draws, jacobian_draws, rate, tracker_rate, prox=lambda x, step: x):
    """Wang, Liu, Fang, arXiv:1607.07329: a step, an extrapolation of it, a sample there."""
    draws, u, points = pairs(draws), None, []
    for t, other in enumerate(pairs(jacobian_draws)):
        if t == 0:
            u = problem.inner(x, draws[0])
        step = at(rate, t)
        moved = prox(x - step * problem.direction(x, u, other), step)
        if t + 1 < len(draws):
            beta = at(tracker_rate, t + 1)
            ahead = (1 - 1 / beta) * x + moved / beta
            u = (1 - beta) * u + beta * problem.inner(ahead, draws[t + 1])
        x = moved
        points.append(x)
    return points


def nasa(
    problem,
    x,
    draws,
    jacobian_draws,
    tau,
    tracker_weight,
    direction_weight,
    rate,
    projection=everywhere,
    before=None,
):
    """Ghadimi, Ruszczynski, Wang, arXiv:1812.01094; ``before`` is the direction at the start."""
    u, z, points = problem.inner(x, pairs(draws)[0]), before, []
    for t, (draw, other) in enumerate(zip(pairs(draws), pairs(jacobian_draws), strict=True)):
        step, new = at(tau, t), problem.direction(x, u, other)
        weight = direction_weight * step
        z = new if z is None else (1 - weight) * z + weight * new
        weight = tracker_weight * step
        u = (1 - weight) * u + weight * problem.inner(x, draw)
        x = x + step * (projection(x - rate * z) - x)
        points.append(x)
    return points


def scma(problem, x, draws, jacobian_draws, rate, tracker_rate, direction_rate):
    """NASA without constraints and with rates of its own."""
    u, v, points = None, None, []
    for t, (draw, other) in enumerate(zip(pairs(draws), pairs(jacobian_draws), strict=True)):
        gamma, beta = at(tracker_rate, t), at(direction_rate, t)
        new = problem.inner(x, draw)
        u = new if u is None else (1 - gamma) * u + gamma * new
        z = problem.direction(x, u, other)
        v = z if v is None else (1 - beta) * v + beta * z
        x = x - at(rate, t) * v
        points.append(x)
    return points


def scst(problem, x, draws, jacobian_draws, rate, tracker_rate, direction_rate):
    """STORM for the value and the direction: the old tracked value at the old point."""
    u, v, old, points = None, None, None, []
    for t, (draw, other) in enumerate(zip(pairs(draws), pairs(jacobian_draws), strict=True)):
        gamma, beta = at(tracker_rate, t), at(direction_rate, t)
        if old is None:
            u = problem.inner(x, draw)
            v = problem.direction(x, u, other)
        else:
            there = problem.direction(old, u, other)
            u = (1 - gamma) * (u - problem.inner(old, draw)) + problem.inner(x, draw)
            v = problem.direction(x, u, other) + (1 - beta) * (v - there)
        old, x = x, x - at(rate, t) * v
        points.append(x)
    return points


def multi_level_scsc(levels, jacobians, outer_gradient, x, draws, jacobian_draws, rate, beta):
    """SCSC of arXiv:2008.10847 for levels ``level(y, draw)``, outer gradient at the last value."""
    tracked, below, points = None, None, []
    for t, (draw, other) in enumerate(zip(draws, jacobian_draws, strict=True)):
        weight, inputs, values = at(beta, t), [x], []
        for number, level in enumerate(levels):
            value = level(inputs[-1], draw)
            if tracked is not None:
                old = level(below[number], draw)
                value = (1 - weight) * (tracked[number] - old) + value
            values.append(value)
            inputs.append(value)
        slope = outer_gradient(values[-1])
        for point, jacobian in reversed(list(zip(inputs[:-1], jacobians, strict=True))):
            slope = jacobian(point, other).T @ slope
        tracked, below = values, inputs[:-1]
        x = x - at(rate, t) * slope
        points.append((x, values))
    return points
