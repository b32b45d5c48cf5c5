"""Random matrices in NumPy float64, the exact polar factor, and the products in a program."""

import jax
import numpy as np


def gaussian(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


def rotation(seed, size):
    return np.linalg.qr(gaussian(seed, (size, size)))[0]


def ill_conditioned(seed, shape, condition):
    """Singular values spaced evenly on a logarithmic scale, from 1 to ``1 / condition``."""
    rows, columns = shape
    values = np.logspace(0, -np.log10(condition), rows)
    return rotation(seed, rows) * values @ rotation(seed + 1, columns)[:rows]


def low_rank(seed, shape, rank):
    return gaussian(seed, (shape[0], rank)) @ gaussian(seed + 1, (rank, shape[1]))


def polar(matrix):
    u, _, wh = np.linalg.svd(matrix, full_matrices=False)
    return u @ wh


def distance(x, y):
    """Relative to ``y``, in the Frobenius norm."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.linalg.norm(x - y) / np.linalg.norm(y)


def matrix_products(function, *args):
    """Every ``dot_general`` equation in the program of ``function``."""

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                yield equation
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=is_jaxpr):
                if is_jaxpr(inner):
                    yield from walk(getattr(inner, "jaxpr", inner))

    is_jaxpr = lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
    return list(walk(jax.make_jaxpr(function)(*args).jaxpr))
