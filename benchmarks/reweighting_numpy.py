r"""BSVRB as a Python loop over the sampled blocks, in NumPy: the yardstick of a step's time.

One call of a derivative for each block, point and kind, and dense moves of all blocks, as the
paper's program has them; over the examples of a minibatch NumPy's products run, where that program
loops in Python. Numbers are float64.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np


def expit(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


@dataclass
class Loop:
    """The method's state, changed in place; ``version`` is 1 or 2."""

    version: int
    parts: Any
    temperatures: np.ndarray
    ridge: float
    learning_rate: float
    lower_learning_rate: float
    tracker_rate: float
    correction: float
    direction_rate: float
    damping: float

    def __post_init__(self):
        num_blocks, (num_train, d) = len(self.temperatures), self.parts.train.shape
        self.count, self.visited = 0, np.zeros(num_blocks, bool)
        self.x = self.x_before = self.direction = np.zeros(num_train)
        self.y, self.slope = np.zeros((2, num_blocks, d))
        self.adjoint, self.adjoint_slope = np.zeros((2, num_blocks, d))
        self.hessian = np.zeros((num_blocks, d, d))
        self.y_before, self.adjoint_before = self.y, self.adjoint
        self.hessian_before = self.hessian.copy()

    # Derivatives of one block's minibatch.

    def lower_slope(self, x, y, i, train):
        """Gradient of the lower function."""
        a, t = self.parts.train[train], self.temperatures[i]
        weighted = expit(x[train]) * expit(-(a @ y) / t)
        return -weighted @ a / (len(train) * t) + self.ridge * y

    def upper_slope(self, y, i, validation):
        """Gradient of the upper function in the lower variable."""
        a, t = self.parts.validation[validation], self.temperatures[i]
        return -expit(-(a @ y) / t) @ a / (len(validation) * t)

    def curvatures(self, x, y, i, train):
        """Rows of the minibatch and their weights in the lower Hessian."""
        a, t = self.parts.train[train], self.temperatures[i]
        miss = expit(-(a @ y) / t)
        return a, expit(x[train]) * miss * (1 - miss) / (len(train) * t**2)

    def hessian_of(self, x, y, i, train):
        """The lower Hessian."""
        a, curvatures = self.curvatures(x, y, i, train)
        return (a.T * curvatures) @ a + self.ridge * np.eye(len(y))

    def hessian_product(self, x, y, p, i, train):
        """The lower Hessian times p."""
        a, curvatures = self.curvatures(x, y, i, train)
        return (curvatures * (a @ p)) @ a + self.ridge * p

    def cross_product(self, x, y, p, i, train):
        """The mixed derivative times p, as long as x."""
        a, t = self.parts.train[train], self.temperatures[i]
        weights = expit(x[train])
        product = np.zeros_like(x)
        each = -weights * (1 - weights) * expit(-(a @ y) / t) * (a @ p) / (len(train) * t)
        np.add.at(product, train, each)
        return product

    def recursion(self, tracked, now, before, fresh):
        """What is tracked, after a sample at two points."""
        if fresh:
            return now
        alpha, gamma = self.tracker_rate, self.correction
        return (1 - alpha) * tracked + (alpha + gamma) * now - gamma * before

    def step(self, batch):
        """One update, with a batch of the problem."""
        x, x_before = self.x, self.x_before if self.count else self.x
        here, there = np.zeros_like(x), np.zeros_like(x)
        hessians = self.hessian.copy()
        for i, train, validation in zip(*map(np.asarray, batch), strict=True):
            fresh, y, p = not self.visited[i], self.y[i], self.adjoint[i]
            y_before = y if fresh else self.y_before[i]
            p_before = p if fresh else self.adjoint_before[i]
            now = self.lower_slope(x, y, i, train)
            before = self.lower_slope(x_before, y_before, i, train)
            self.slope[i] = self.recursion(self.slope[i], now, before, fresh)
            up = self.upper_slope(y, i, validation)
            up_before = self.upper_slope(y_before, i, validation)
            if self.version == 2:
                now = self.hessian_product(x, y, p, i, train) - up
                before = self.hessian_product(x_before, y_before, p_before, i, train) - up_before
                self.adjoint_slope[i] = self.recursion(self.adjoint_slope[i], now, before, fresh)
            else:
                now = self.hessian_of(x, y, i, train)
                before = self.hessian_of(x_before, y_before, i, train)
                hessians[i] = self.recursion(self.hessian[i], now, before, fresh)
                if fresh:
                    self.hessian[i] = self.hessian_before[i] = now
                shift = self.damping * np.eye(len(y))
                p = np.linalg.solve(self.hessian[i] + shift, up)
                p_before = np.linalg.solve(self.hessian_before[i] + shift, up_before)
            here -= self.cross_product(x, y, p, i, train)
            there -= self.cross_product(x_before, y_before, p_before, i, train)
            self.visited[i] = True
        size = len(batch[0])
        keep = (1 - self.direction_rate) if self.count else 0
        self.direction = here / size + keep * (self.direction - there / size)
        self.x_before, self.x = x, x - self.learning_rate * self.direction
        self.y_before, self.y = self.y, self.y - self.lower_learning_rate * self.slope
        self.adjoint_before = self.adjoint
        self.adjoint = self.adjoint - self.lower_learning_rate * self.adjoint_slope
        self.hessian_before, self.hessian = self.hessian, hessians
        self.count += 1
