"""AdaGO for one matrix in NumPy float64, from arXiv:2509.02981.

The options after the star of ``Adago`` that default to the paper's rule exist for negative
controls.
"""

import numpy as np

JORDAN = ((3.4445, -4.7750, 2.0315),) * 5


def polar(matrix):
    u, _, wh = np.linalg.svd(matrix, full_matrices=False)
    return u @ wh


def newton_schulz(matrix, coefficients=JORDAN):
    if matrix.shape[0] > matrix.shape[1]:
        return newton_schulz(matrix.conj().T, coefficients).conj().T
    x = matrix / np.linalg.norm(matrix)
    for a, b, c in coefficients:
        gram = x @ x.conj().T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x


class Adago:
    """State and step of one matrix; ``accumulator`` starts at the square of v0."""

    def __init__(
        self,
        shape,
        learning_rate=0.05,
        *,
        momentum=0.95,
        max_gradient_norm=10.0,
        min_step_size=5e-4,
        initial_accumulator=1e-3,
        weight_decay=0.0,
        orthogonalize=polar,
        root=True,
        factor=1.0,
    ):
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.max_gradient_norm = max_gradient_norm
        self.min_step_size = min_step_size
        self.weight_decay = weight_decay
        self.orthogonalize = orthogonalize
        self.root = root  # False: divide by V instead of its square root
        self.factor = factor
        self.count = 0
        self.mu = np.zeros(shape)
        self.accumulator = initial_accumulator**2
        self.step_size = 0.0

    def step(self, weights, gradient):
        rate = self.learning_rate
        eta = rate(self.count) if callable(rate) else rate
        self.count += 1
        clipped = min(np.linalg.norm(gradient), self.max_gradient_norm)
        self.mu = self.momentum * self.mu + (1 - self.momentum) * gradient
        self.accumulator += clipped**2
        denominator = np.sqrt(self.accumulator) if self.root else self.accumulator
        self.step_size = max(self.min_step_size, self.factor * eta * clipped / denominator)
        decayed = weights * (1 - eta * self.weight_decay)
        return decayed - self.step_size * self.orthogonalize(self.mu)
