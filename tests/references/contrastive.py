"""SogCLR and iSogCLR in NumPy float64, one pair of views at a time, from the papers.

arXiv:2202.12387 and arXiv:2305.11965. The tracked numbers are means of exponentials, not their
logarithms, and gradients are written out. The embedding is ``tanh(x @ weights)``.
"""

import numpy as np


def embed(weights, views):
    return np.tanh(views @ weights)


def similarities(weights, views):
    """Cosines of all pairs of views, and the derivative of each in the weights."""
    raw = embed(weights, views)
    lengths = np.linalg.norm(raw, axis=1)
    unit = raw / lengths[:, None]
    cosine = unit @ unit.T
    slope = np.zeros((len(views), len(views), *weights.shape))
    for a in range(len(views)):
        for z in range(len(views)):
            # d cos / d raw_a = (unit_z - cos unit_a) / |raw_a|, likewise in raw_z.
            in_a = (unit[z] - cosine[a, z] * unit[a]) / lengths[a] * (1 - raw[a] ** 2)
            in_z = (unit[a] - cosine[a, z] * unit[z]) / lengths[z] * (1 - raw[z] ** 2)
            slope[a, z] = np.outer(views[a], in_a) + np.outer(views[z], in_z)
    return cosine, slope


class Contrastive:
    """Tables over the examples; ``temperatures`` stay unless ``temperature_step`` is given."""

    def __init__(self, tracker_rate, temperatures, *, temperature_step=None):
        self.tracker_rate = tracker_rate
        self.temperatures = np.array(temperatures, float)
        self.tracked = np.full(len(temperatures), np.nan)  # nan: never sampled
        self.momentum = np.full(len(temperatures), np.nan)
        self.temperature_step = temperature_step

    def direction(self, weights, views, other_views, examples):
        """The direction and the mean loss of the batch; tables move on."""
        size = len(examples)
        cosine, slope = similarities(weights, np.concatenate([views, other_views]))
        total, loss = np.zeros_like(weights), 0.0
        for i, example in enumerate(examples):
            tau = self.temperatures[example]
            pairs = [
                (anchor, negative)
                for anchor in (i, size + i)
                for negative in range(2 * size)
                if negative % size != i
            ]
            terms = np.array([np.exp(cosine[pair] / tau) for pair in pairs])
            new, old = terms.mean(), self.tracked[example]
            gamma = self.tracker_rate
            u = new if np.isnan(old) else (1 - gamma) * old + gamma * new
            self.tracked[example] = u
            gradient = sum(term * slope[pair] for term, pair in zip(terms, pairs, strict=True))
            total += -slope[i, size + i] + gradient / (len(pairs) * u)
            loss += -cosine[i, size + i] + tau * np.log(u)
            if self.temperature_step is not None:
                rho, rate, beta, low, high = self.temperature_step
                scaled = np.array([cosine[pair] / tau for pair in pairs])
                new = np.log(u) + rho - (terms * scaled).mean() / u
                old = self.momentum[example]
                momentum = new if np.isnan(old) else (1 - beta) * old + beta * new
                self.momentum[example] = momentum
                self.temperatures[example] = np.clip(tau - rate * momentum, low, high)
                loss += rho * tau
        return total / size, loss / size
