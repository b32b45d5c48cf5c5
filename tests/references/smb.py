"""SMB and SMBi in NumPy float64, from the published coefficients (arXiv:2111.07058).

``coefficients`` also works on arrays of ``decimal.Decimal``, which shows the effect of rounding.
"""

from decimal import Decimal

import numpy as np


def _sqrt(x):
    return x.sqrt() if isinstance(x, Decimal) else np.sqrt(x)


def coefficients(g, s, y, eta, h=None):
    """The published ``sigma, theta, c_g, c_s, c_y``; ``h`` is the gradient to step along."""
    h = g if h is None else h
    dot = lambda a, b: np.sum(a * b)
    ys, ss, yy, gg = dot(y, s), dot(s, s), dot(y, y), dot(g, g)
    yh, sh = dot(y, h), dot(s, h)
    sigma = (_sqrt(ss) * (_sqrt(yy) + _sqrt(gg) / eta) - ys) / 2
    theta = (ys + 2 * sigma) ** 2 - ss * yy
    c_g = -ss / (2 * sigma)
    c_s = (c_g / theta) * (-(ys + 2 * sigma) * yh + yy * sh)
    c_y = (c_g / theta) * (-(ys + 2 * sigma) * sh + ss * yh)
    return sigma, theta, c_g, c_s, c_y


def published_step(g, y, alpha, eta, h=None):
    h = g if h is None else h
    s = -alpha * g
    _, _, c_g, c_s, c_y = coefficients(g, s, y, eta, h)
    return c_g * h + c_s * s + c_y * y


def exact_step(g, y, alpha, eta, h=None):
    """``published_step`` in exact arithmetic of many digits, rounded to float64 at the end."""
    exact = lambda x: np.array([Decimal(float(v)) for v in x], dtype=object)
    args = exact(g), exact(y), Decimal(float(alpha)), Decimal(float(eta))
    return published_step(*args, None if h is None else exact(h)).astype(np.float64)


def model_matrix(g, y, alpha, eta):
    s = -alpha * g
    two_sigma = np.linalg.norm(s) * (np.linalg.norm(y) + np.linalg.norm(g) / eta) - s @ y
    return (np.outer(s, y) + np.outer(y, s) + two_sigma * np.eye(len(g))) / (s @ s)


def solved_step(g, y, alpha, eta, h=None):
    return np.linalg.solve(model_matrix(g, y, alpha, eta), -(g if h is None else h))


class Smb:
    """SMB, or SMBi with ``independent``, over a list of arrays.

    ``groups`` lists the indices of the arrays that share one model; ``flip_y`` and ``use_eta``
    make wrong variants for negative controls.
    """

    def __init__(
        self,
        learning_rate,
        *,
        eta=0.99,
        sufficient_decrease=0.1,
        adjust_every=None,
        adjust_fraction=0.05,
        adjust_factor=0.9,
        max_learning_rate=20.0,
        groups=None,
        independent=False,
        step=published_step,
        flip_y=False,
        use_eta=True,
    ):
        self.learning_rate = learning_rate
        self.eta = eta if use_eta else 1.0
        self.sufficient_decrease = sufficient_decrease
        self.adjust_every = adjust_every
        self.adjust_fraction = adjust_fraction / 2 if independent else adjust_fraction
        self.adjust_factor = adjust_factor
        self.max_learning_rate = max_learning_rate
        self.groups = groups
        self.independent = independent
        self.model_step = step
        self.sign = -1.0 if flip_y else 1.0
        self.adjustment = 1.0
        self.count = self.seen = self.modelled = 0
        self.pending = None
        self.accepted = None  # the outcome of the last test; None without one

    def step(self, x, value_fn, grad_fn):
        rate = self.learning_rate
        alpha = self.adjustment * (rate(self.count) if callable(rate) else rate)
        self.count += 1
        g = grad_fn(x)
        trial = [a - alpha * b for a, b in zip(x, g, strict=True)]
        model = lambda h: self._model(x, g, grad_fn(trial), h, alpha)
        if self.pending is not None:
            new, made_model, self.accepted, self.pending = model(self.pending), True, None, None
        else:
            squared = sum(np.sum(b * b) for b in g)
            bound = value_fn(x) - self.sufficient_decrease * alpha * squared
            self.accepted = bool(value_fn(trial) <= bound or np.sqrt(squared) < 1e-8)
            made_model = not self.accepted and not self.independent
            if self.accepted:
                new = trial
            elif self.independent:
                new, self.pending = x, g
            else:
                new = model(g)
        self._adjust(alpha, made_model)
        return new

    def _model(self, x, g, g_trial, h, alpha):
        new = list(x)
        for members in self.groups or [[i] for i in range(len(x))]:
            flat = lambda arrays, members=members: np.concatenate(
                [np.ravel(arrays[i]) for i in members]
            )
            y = self.sign * (flat(g_trial) - flat(g))
            step = self.model_step(flat(g), y, alpha, self.eta, flat(h))
            for i in members:
                part, step = step[: x[i].size], step[x[i].size :]
                new[i] = x[i] + part.reshape(x[i].shape)
        return new

    def _adjust(self, alpha, made_model):
        self.seen += 1
        self.modelled += made_model
        if self.adjust_every is None or self.seen < self.adjust_every:
            return
        if self.modelled / self.seen > self.adjust_fraction:
            self.adjustment *= self.adjust_factor
        elif alpha / self.adjust_factor <= self.max_learning_rate:
            self.adjustment /= self.adjust_factor
        self.seen = self.modelled = 0
