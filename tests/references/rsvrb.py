"""RSVRB in NumPy float64, from the formulas of arXiv:2105.02266; block by block."""

import numpy as np
from references.bsvrb import (
    MIXED,
    RIDGE,
    floored,
    lower_gradient,
    lower_hessian,
    upper_value,
)


def cross_matrix(x, y, row):
    """Derivative in x of the gradient in y: a row for each entry of x."""
    return -row[1].T + MIXED * np.outer(np.ones_like(x), y)


def derivatives(x, y, row):
    return {
        "s": lower_gradient(x, y, row),
        "v": y - row[3],
        "H": lower_hessian(x, y, row),
        "V": cross_matrix(x, y, row),
    }


class RandomizedBilevel:
    """The direction, with recursive estimates of the vector of all blocks' derivatives.

    A draw is a list of ``(block, A, B, c, d)``.
    """

    def __init__(self, num_blocks, num_sampled, x, y, *, floor=None, damping=0.0):
        self.importance = num_blocks / num_sampled
        self.floor, self.damping = floor, damping
        self.y = self.old_y = np.tile(y, (num_blocks, 1))
        zeros = {"s": y, "v": y, "H": np.outer(y, y), "V": np.outer(x, y)}
        self.tracked = [{k: np.zeros_like(z) for k, z in zeros.items()} for _ in self.y]
        self.old_tracked = [dict(rows) for rows in self.tracked]
        self.visited = set()
        self.previous = self.direction = self.value = None
        self.at_floor = []

    def step(self, x, draw, alpha, beta, tau):
        """One update at ``x``; rates of this update."""
        y = self.y.copy()
        known = [dict(rows) for rows in self.tracked]
        old_known = [dict(rows) for rows in self.old_tracked]
        drawn = {i: row for i, *row in draw}
        for i in range(len(y)):
            if i not in drawn:
                for k in "svHV":
                    self.tracked[i][k] = (1 - alpha) * self.tracked[i][k]
                continue
            new = derivatives(x, y[i], drawn[i])
            if i in self.visited:
                old = derivatives(self.previous, self.old_y[i], drawn[i])
                for k in "svHV":
                    kept = self.tracked[i][k] - self.importance * old[k]
                    self.tracked[i][k] = (1 - alpha) * kept + self.importance * new[k]
            else:
                self.tracked[i] = dict(new)
            if self.floor is not None:
                values = np.linalg.eigvalsh((self.tracked[i]["H"] + self.tracked[i]["H"].T) / 2)
                self.at_floor.append(values[0] < self.floor)
            self.tracked[i]["H"] = floored(self.tracked[i]["H"], self.floor)
            if i not in self.visited:
                known[i] = old_known[i] = dict(self.tracked[i])

        def mean(x, y, tracked):
            total, value = np.zeros_like(x), 0.0
            for i, row in drawn.items():
                damped = tracked[i]["H"] + self.damping * np.eye(len(y[i]))
                adjoint = np.linalg.solve(damped, tracked[i]["v"])
                total = total + RIDGE * x - tracked[i]["V"] @ adjoint
                value += upper_value(x, y[i], row)
            count = max(len(drawn), 1)
            return total / count, value / count

        direction, self.value = mean(x, y, known)
        if self.previous is not None:
            before, _ = mean(self.previous, self.old_y, old_known)
            direction = direction + (1 - beta) * (self.direction - before)
        self.visited |= set(drawn)
        self.direction, self.previous = direction, x
        # What was known before this update is the old of the next.
        self.old_y, self.old_tracked = y, known
        self.y = y - tau * np.stack([rows["s"] for rows in self.tracked])
        return direction
