"""Sliding in NumPy float64, on one vector, from the recursions and policies of the literature.

A policy is a function from ``k = 1, 2, ...`` to a :class:`Step`. ``squared_bound`` is M^2 for exact
subgradients and M^2 + sigma^2 for stochastic ones, ``error`` is 4 M^2 or 8 (M^2 + sigma^2).
"""

from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    mixing: float
    prox_weight: float
    length: int
    restart: bool = False


def inner_loop(gradient, center, beta, length, mu, subgradient, prox):
    """Lan's procedure with weights beta p_t = t (beta + mu) / 2; last point and average."""
    u, average = center.copy(), center.copy()
    for t in range(1, length + 1):
        beta_p = t * (beta + mu) / 2
        s = beta + beta_p
        u = prox((beta * center + beta_p * u - gradient - subgradient(u)) / s, 1 / s)
        theta = 2 * (t + 1) / (t * (t + 3))
        average = (1 - theta) * average + theta * u
    return u, average


def run(policy, gradient, subgradient, prox, start, num_steps, mu=0.0):
    """``(query point, x_bar, inner steps so far)`` of each step."""
    x, x_bar, total, history = start.copy(), start.copy(), 0, []
    for k in range(1, num_steps + 1):
        step = policy(k)
        if step.restart:
            x = x_bar
        query = (1 - step.mixing) * x_bar + step.mixing * x
        x, average = inner_loop(
            gradient(query), x, step.prox_weight, step.length, mu, subgradient, prox
        )
        x_bar = (1 - step.mixing) * x_bar + step.mixing * average
        total += step.length
        history.append((query, x_bar, total))
    return history


def _ceil(x):
    return max(1, int(np.ceil(x)))


def fixed_horizon(smoothness, squared_bound, horizon, budget):
    """``budget`` is the D tilde of the paper."""
    return lambda k: Step(
        2 / (k + 1),
        2 * smoothness / k,
        _ceil(squared_bound * horizon * k**2 / (budget * smoothness**2)),
    )


def any_time(smoothness, squared_bound, budget):
    def policy(k):
        length = _ceil(squared_bound * (k + 1) ** 3 / (budget * smoothness**2))
        p = 2 / ((length + 1) * (length + 2))
        return Step(3 / (k + 2), 9 * smoothness * (1 - p) / (2 * (k + 1)), length)

    return policy


def multi_phase(smoothness, mu, squared_bound, gap):
    phase_length = _ceil(2 * np.sqrt(5 * smoothness / mu))

    def policy(k):
        phase, done = divmod(k - 1, phase_length)
        budget = gap / (mu * 2 ** (phase + 1))
        step = fixed_horizon(smoothness, squared_bound, phase_length, budget)(done + 1)
        return step._replace(restart=done == 0)

    return policy


def restart_free(smoothness, mu, error, delta):
    gamma = min(1 / 4, np.sqrt(mu / smoothness) / 2)
    beta, rho = smoothness * gamma, 1 - gamma / 2
    length = lambda k: _ceil(2 * error / ((beta + mu) * delta * rho**k))
    return lambda k: Step(gamma, beta, length(k))


def restart_free_minibatch(smoothness, mu, error, delta):
    gamma = min(1 / 4, np.sqrt(mu / (8 * smoothness)))
    beta, rho = 2 * smoothness * gamma, 1 - gamma / 2
    length = lambda k: _ceil(4 * error / ((beta + mu) * delta * rho**k))
    return lambda k: Step(gamma, beta, length(k))


def restart_free_from_distance(smoothness, mu, squared_bound, error, v, budget, spent):
    """``spent`` is 2 for exact subgradients, 4 for stochastic ones."""
    gamma = min(1 / 4, np.sqrt(mu / smoothness) / 2)
    last = _ceil(2 / gamma - 1)
    early = fixed_horizon(smoothness, squared_bound, last, budget)
    delta = 1.5 * (2 * smoothness + mu / 3) * v + spent * smoothness * budget
    delta *= 2 / (last * (last + 1))
    late = restart_free(smoothness, mu, error, delta)

    def policy(k):
        if k <= last:
            return early(k)
        step = late(k - last)
        return step._replace(length=max(step.length, early(last).length))

    return policy
