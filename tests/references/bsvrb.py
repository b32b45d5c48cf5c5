"""BSVRB-v1 and -v2 in NumPy float64, from the formulas of arXiv:2305.18730; every block moves."""

import numpy as np

QUARTIC, MIXED, RIDGE = 0.1, 0.2, 0.1


def lower_gradient(x, y, row):
    r"""Of y'Ay/2 - y'(Bx + c) + QUARTIC |y|^4 / 4 + MIXED (1'x) |y|^2 / 2, in y."""
    a, b, c, _ = row
    return a @ y - b @ x - c + QUARTIC * (y @ y) * y + MIXED * x.sum() * y


def lower_hessian(x, y, row):
    diagonal = QUARTIC * (y @ y) + MIXED * x.sum()
    return row[0] + 2 * QUARTIC * np.outer(y, y) + diagonal * np.eye(len(y))


def cross_product(x, y, row, p):
    return -row[1].T @ p + MIXED * (y @ p) * np.ones_like(x)


def upper_value(x, y, row):
    return ((y - row[3]) @ (y - row[3]) + RIDGE * x @ x) / 2


def floored(matrix, floor):
    matrix = (matrix + matrix.T) / 2
    if floor is None:
        return matrix
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(np.maximum(values, floor)) @ vectors.T


def msvr_correction(rate, num_blocks, num_sampled):
    return (num_blocks - num_sampled) / (num_sampled * (1 - rate)) + 1 - rate


class BlockwiseBilevel:
    """The direction of a mean of least squares at the minimizers of the blocks' lower functions.

    A draw is a list of ``(block, A, B, c, d)``. ``tracks_hessian`` is version 1; version 2 moves an
    adjoint variable for each block, inside a ball of ``radius``.
    """

    def __init__(self, num_blocks, y, *, tracks_hessian, floor=None, damping=0.0, radius=np.inf):
        self.tracks_hessian = tracks_hessian
        self.floor, self.damping, self.radius = floor, damping, radius
        self.y = self.old_y = np.tile(y, (num_blocks, 1))
        self.p = self.old_p = np.zeros_like(self.y)
        self.s, self.u = np.zeros_like(self.y), np.zeros_like(self.y)
        self.hessian, self.old_hessian = {}, {}
        self.visited = set()
        self.previous = self.direction = self.value = None
        self.at_floor = []  # whether the floor acted, one for each sampled block

    def step(self, x, draw, alpha, correction, beta, steps):
        """One update at ``x``; rates of this update. ``steps`` are for y and p."""
        y, p, hessian = self.y.copy(), self.p.copy(), dict(self.hessian)
        old_hessian = dict(self.old_hessian)

        def track(old, now, there):
            return (1 - alpha) * old + alpha * now + correction * (now - there)

        def adjoint_slope(x, y, p, row):
            return lower_hessian(x, y, row) @ p - (y - row[3])

        for i, *row in draw:
            here = (x, y[i])
            if i in self.visited:
                there = (self.previous, self.old_y[i])
                self.s[i] = track(
                    self.s[i], lower_gradient(*here, row), lower_gradient(*there, row)
                )
                self.u[i] = track(
                    self.u[i],
                    adjoint_slope(*here, p[i], row),
                    adjoint_slope(*there, self.old_p[i], row),
                )
                new = track(self.hessian[i], lower_hessian(*here, row), lower_hessian(*there, row))
                self.hessian[i] = floored(new, self.floor)
            else:
                self.s[i] = lower_gradient(*here, row)
                self.u[i] = adjoint_slope(*here, p[i], row)
                new = lower_hessian(*here, row)
                self.hessian[i] = floored(new, self.floor)
                hessian[i] = old_hessian[i] = self.hessian[i]
            if self.floor is not None:
                self.at_floor.append(np.linalg.eigvalsh(new)[0] < self.floor)

        def mean(x, y, p, hessian):
            total, value = np.zeros_like(x), 0.0
            for i, *row in draw:
                adjoint = p[i]
                if self.tracks_hessian:
                    damped = hessian[i] + self.damping * np.eye(len(y[i]))
                    adjoint = np.linalg.solve(damped, y[i] - row[3])
                total = total + RIDGE * x - cross_product(x, y[i], row, adjoint)
                value += upper_value(x, y[i], row)
            count = max(len(draw), 1)
            return total / count, value / count

        direction, self.value = mean(x, y, p, hessian)
        if self.previous is not None:
            before, _ = mean(self.previous, self.old_y, self.old_p, old_hessian)
            direction = direction + (1 - beta) * (self.direction - before)
        self.visited |= {i for i, *_ in draw}
        self.direction, self.previous = direction, x
        # What was known before this update is the old of the next.
        self.old_y, self.old_p, self.old_hessian = y, p, hessian
        self.y, self.p = y - steps[0] * self.s, p - steps[1] * self.u
        norms = np.maximum(np.linalg.norm(self.p, axis=1, keepdims=True), 1e-300)
        self.p = self.p * np.minimum(1, self.radius / norms)
        return direction
