"""SOX and MSVR on least squares in NumPy float64, from arXiv:2202.12396 and arXiv:2207.08540."""

import numpy as np


class CoupledLeastSquares:
    r"""The direction of :math:`\frac1n \sum_i f_i(E g_i(x))` with a dictionary for the table.

    :math:`g_i(x) = A x + c` with a random slope and shift, :math:`f_i(u, x) = \frac12 \|u - b_i\|^2
    + \frac\rho2 \|x\|^2`. A draw is a list of ``(block, slope, shift, target)``; the block
    ``num_blocks`` is padding. ``correction`` is the weight on the difference between two points,
    zero for the moving average of SOX.

    ``swapped=True`` (the old point with the new table) is a wrong variant for negative controls.
    """

    def __init__(self, num_blocks, rate, correction=0.0, direction_rate=None, *, swapped=False):
        self.num_blocks = num_blocks
        self.rate = rate
        self.correction = correction
        self.direction_rate = direction_rate
        self.swapped = swapped
        self.regularization = 0.1
        self.table = {}
        self.previous = self.direction = self.value = None

    def step(self, x, draw, other_draw=None):
        draw = [row for row in draw if row[0] < self.num_blocks]
        other = draw if other_draw is None else other_draw
        other = [row for row in other if row[0] < self.num_blocks]
        old = dict(self.table)
        for block, slope, shift, _ in draw:
            new = slope @ x + shift
            if block in old:
                there = slope @ self.previous + shift
                kept = (1 - self.rate) * old[block] + self.rate * new
                self.table[block] = kept + self.correction * (new - there)
            else:
                self.table[block] = new
        # A block of the direction that was never tracked stands at its own sample.
        now = {row[0]: self.table.get(row[0], row[1] @ x + row[2]) for row in other}
        self.value, direction = self._mean(x, other, now)
        if self.direction_rate is not None:
            if self.direction is not None:
                before = (
                    now if self.swapped else {block: old.get(block, now[block]) for block in now}
                )
                _, there = self._mean(self.previous, other, before)
                direction = direction + (1 - self.direction_rate) * (self.direction - there)
            self.direction = direction
        self.previous = x
        return direction

    def _mean(self, x, draw, tracked):
        values, directions = [0.0], [np.zeros_like(x)]
        for block, slope, _, target in draw:
            residual = tracked[block] - target
            penalty = 0.5 * self.regularization * x @ x
            values.append(0.5 * residual @ residual + penalty)
            directions.append(slope.T @ residual + self.regularization * x)
        count = max(len(draw), 1)
        return sum(values) / count, sum(directions) / count


def msvr_correction(rate, num_blocks, num_sampled):
    return (num_blocks - num_sampled) / (num_sampled * (1 - rate)) + 1 - rate
