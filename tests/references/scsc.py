"""SCSC on one vector in NumPy float64, from arXiv:2008.10847."""

import numpy as np


class Scsc:
    """``inner(x, batch)``, its ``jacobian(x, batch)`` and ``outer_gradient(u)``.

    ``corrected=False`` (a plain moving average) and an ``old_batch`` other than the batch (another
    sample at the old point) are wrong variants for negative controls.
    """

    def __init__(
        self, inner, jacobian, outer_gradient, learning_rate, tracker_rate, *, corrected=True
    ):
        self.inner = inner
        self.jacobian = jacobian
        self.outer_gradient = outer_gradient
        self.learning_rate = learning_rate
        self.tracker_rate = tracker_rate
        self.corrected = corrected
        self.count = 0
        self.tracked = self.previous = None

    def step(self, x, batch, old_batch=None, jacobian_batch=None):
        alpha, beta = (
            rate(self.count) if callable(rate) else rate
            for rate in (self.learning_rate, self.tracker_rate)
        )
        self.count += 1
        new = self.inner(x, batch)
        if self.tracked is None:
            self.tracked = new
        elif self.corrected:
            old = self.inner(self.previous, batch if old_batch is None else old_batch)
            self.tracked = (1 - beta) * (self.tracked + new - old) + beta * new
        else:
            self.tracked = (1 - beta) * self.tracked + beta * new
        self.previous = x
        jacobian = self.jacobian(x, batch if jacobian_batch is None else jacobian_batch)
        return x - alpha * np.transpose(jacobian) @ self.outer_gradient(self.tracked)
