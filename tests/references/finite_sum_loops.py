"""Variance-reduced gradients in NumPy float64, from the equations of the papers.

Each is a generator: send it a point and the drawn indices (and whether to refresh), get a gradient.
``slopes(indices, x)`` returns the gradients of single terms, one a row.
"""

import numpy as np


def anchored(slopes, num_terms, *, moves):
    """PAGE and SPIDER with ``moves``, SVRG without."""
    everything = np.arange(num_terms)
    anchor = known = estimate = None
    while True:
        x, drawn, refresh = yield estimate
        if refresh:
            estimate = slopes(everything, x).mean(axis=0)
        else:
            estimate = slopes(drawn, x).mean(axis=0) - slopes(drawn, anchor).mean(axis=0) + known
        if refresh or moves:
            anchor, known = x.copy(), estimate.copy()


def storm(slopes, rate, correction=None):
    """STORM; ``correction=0`` is momentum."""
    previous = estimate = None
    while True:
        x, drawn, _ = yield estimate
        new = slopes(drawn, x).mean(axis=0)
        if previous is None:
            estimate = new
        else:
            weight = 1 - rate if correction is None else correction
            difference = new - slopes(drawn, previous).mean(axis=0)
            estimate = (1 - rate) * estimate + rate * new + weight * difference
        previous = x.copy()


def saga(slopes, num_terms):
    """SAGA, the mean of the table computed anew every time."""
    table, estimate = None, None
    while True:
        x, drawn, _ = yield estimate
        new = slopes(drawn, x)
        table = np.zeros((num_terms, len(x))) if table is None else table
        estimate = (new - table[drawn]).mean(axis=0) + table.mean(axis=0)
        table[drawn] = new


def descend(estimator, x, learning_rate, draws, refreshes):
    """Points and gradient estimates of gradient descent on what the estimator says."""
    next(estimator)
    points, estimates = [], []
    for drawn, refresh in zip(draws, refreshes, strict=True):
        estimate = estimator.send((x, drawn, refresh))
        points.append(x)
        estimates.append(estimate)
        x = x - learning_rate * estimate
    return np.stack(points), np.stack(estimates)
