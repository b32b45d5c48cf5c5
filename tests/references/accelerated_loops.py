"""Accelerated sliding in NumPy float64, on one vector, as its recursions are written.

A policy is a function from ``k = 1, 2, ...`` to a :class:`Step`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    query_mixing: float  # gamma_k
    mixing: float  # lambda_k
    prox_weight: float  # beta_k
    length: int  # T_k
    alpha: Callable  # of t
    weight: Callable  # r_t
    smoothing: float | None = None  # eta_k


def inner_loop(gradient, center, x_bar, step, cheap_gradient, prox):
    """Last point and average."""
    lam, beta = step.mixing, step.prox_weight
    u, average = center.copy(), x_bar.copy()
    for t in range(1, step.length + 1):
        alpha, r = step.alpha(t), step.weight(t)
        low = (1 - lam) * x_bar + lam * ((1 - alpha) * average + alpha * u)
        slope = gradient + cheap_gradient(low, step.smoothing)
        u = prox((beta * center + r * u - slope) / (beta + r), 1 / (beta + r))
        average = (1 - alpha) * average + alpha * u
    return u, average


def run(policy, gradient, cheap_gradient, prox, start, num_steps):
    """``(query point, x_bar, inner steps so far)`` of each step."""
    x, x_bar, total, history = start.copy(), start.copy(), 0, []
    for k in range(1, num_steps + 1):
        step = policy(k)
        query = (1 - step.query_mixing) * x_bar + step.query_mixing * x
        x, average = inner_loop(gradient(query), x, x_bar, step, cheap_gradient, prox)
        x_bar = (1 - step.mixing) * x_bar + step.mixing * average
        total += step.length
        history.append((query, x_bar, total))
    return history


def _ceil(x):
    return max(1, int(np.ceil(x)))


def lan_ouyang(smoothness, cheap_smoothness):
    length = _ceil(np.sqrt(cheap_smoothness / smoothness))

    def policy(k):
        gamma = 2 / (k + 1)
        lam = 1.0 if k == 1 else gamma * (length + 1) * (length + 2) / (length * (length + 3))
        beta = 3 * smoothness * gamma / (k * lam)
        return Step(
            gamma,
            lam,
            beta,
            length,
            lambda t: 2 * (t + 1) / (t * (t + 3)),
            lambda t: beta * t / 2 + 6 * cheap_smoothness / (k * (t + 1)),
        )

    return policy


def _simplified(lam, beta, length, first_weight, mu, smoothing=None):
    weight = lambda t: first_weight / t + (beta + mu) * (t - 1) / 2
    return Step(lam, lam, beta, length, lambda t: 2 / (t + 1), weight, smoothing)


def convex(smoothness, cheap_smoothness):
    length = _ceil(2 * np.sqrt(cheap_smoothness / smoothness))
    return lambda k: _simplified(
        2 / (k + 1), 2 * smoothness / k, length, 4 * cheap_smoothness / k, 0.0
    )


def restart_free(smoothness, mu, cheap_smoothness):
    lam = min(1 / 2, np.sqrt(mu / smoothness) / 2)
    length = _ceil(2 * np.sqrt(cheap_smoothness / smoothness))
    first_weight = smoothness * lam * length * (length + 1) / 2
    return lambda k: _simplified(lam, smoothness * lam, length, first_weight, mu)


def smoothed(smoothness, mu, norm, diameter, delta, lam=None, slack=1):
    """``delta`` is at least four gaps; ``slack`` times L lambda is beta."""
    lam = min(1 / 2, np.sqrt(mu / smoothness) / 2) if lam is None else lam

    def policy(k):
        eta = delta / (4 * diameter) * (1 - lam / 2) ** k
        length = _ceil(2 * norm / np.sqrt(eta * smoothness))
        first_weight = smoothness * lam * length * (length + 1) / 2
        return _simplified(lam, slack * smoothness * lam, length, first_weight, mu, eta)

    return policy


def smoothed_minibatch(smoothness, mu, norm, diameter, delta):
    lam = min(1 / 4, np.sqrt(mu / (6 * smoothness)))
    return smoothed(smoothness, mu, norm, diameter, delta, lam, slack=2)
