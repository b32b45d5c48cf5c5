r"""Coefficient tables of the Newton-Schulz iteration.

A table is a tuple of triples :math:`(a_k, b_k, c_k)`, one for each step, in which every singular
value :math:`\sigma \in [0, 1]` moves to :math:`a_k \sigma + b_k \sigma^3 + c_k \sigma^5`. The
length of the table is the number of steps.
"""

import numpy as np

from stochopt._checks import check_count, check_range

#: One triple :math:`(a, b, c)` for each step.
Table = tuple[tuple[float, float, float], ...]

#: Keller Jordan's coefficients: steep at zero, so that five steps lift singular values from 0.0015
#: of the Frobenius norm upwards to the band [0.68, 1.2] instead of converging to one.
JORDAN = ((3.4445, -4.7750, 2.0315),) * 5

#: Eight of Jordan's steps and two that converge: exact for condition numbers up to a thousand.
JORDAN_CONVERGED = JORDAN[:1] * 8 + ((2.0, -1.5, 0.5),) * 2

#: Five different steps; the closest to one of the short tables on well-conditioned matrices.
QUINTIC = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)

#: Five steps optimized by Chebyshev alternation (CANS). In bfloat16 its steep first step can
#: explode: there :func:`polar_express` is safe.
CANS = (
    (8.4703, -25.1081, 18.6293),
    (4.1828, -3.1087, 0.5806),
    (3.9619, -2.9541, 0.5630),
    (3.2866, -2.4647, 0.5074),
    (2.2737, -1.6447, 0.4162),
)

#: Five cubic steps, :math:`c = 0`: one product fewer in each step, and a wide band.
CUBIC = (
    (3.3656576, -3.3420992, 0.0),
    (2.5744352, -1.4957376, 0.0),
    (2.5368962, -1.4312570, 0.0),
    (2.4418906, -1.2764040, 0.0),
    (2.2230472, -0.9630650, 0.0),
)


def lengthened(table: Table, steps: int) -> Table:
    """The table with its last triple repeated until there are ``steps``.

    Raises:
      ValueError: ``steps`` is less than the length of the table. A table is made as a whole, so
        leaving out its last steps does not give the best shorter one.
    """
    check_count("steps", steps)
    if steps < len(table):
        raise ValueError(f"steps: the table has {len(table)} triples, got steps={steps}.")
    return table + table[-1:] * (steps - len(table))


def check_table(table: Table) -> Table:
    """A tuple of triples of floats; raises ``ValueError`` that names ``coefficients`` otherwise."""
    try:
        triples = np.array([(a, b, c) for a, b, c in table])
    except (TypeError, ValueError):
        triples = np.empty(0)
    if not triples.size or triples.dtype.kind not in "iuf" or not np.all(np.isfinite(triples)):
        raise ValueError(
            "coefficients must be a sequence of triples (a, b, c) of finite numbers, one for each "
            f"step; got {table!r}."
        )
    return tuple((a, b, c) for a, b, c in triples.astype(np.float64).tolist())


def polar_express(
    steps: int = 5, *, safety: float = 0.02, lower: float = 1e-3, cushion: float = 0.02
) -> Table:
    r"""The Polar Express: the composition of quintics that lifts ``[lower, 1]`` closest to one.

    Step :math:`k` takes the odd quintic :math:`p_k` that minimizes
    :math:`\max_{\ell_k \le x \le u_k} |1 - p_k(x)|`, and passes the interval
    :math:`[p_k(\ell_k), 2 - p_k(\ell_k)]` on to the next step; the last steps tend to
    :math:`(15/8, -10/8, 3/8)`, which converges.

    Args:
      steps: number of triples.
      safety: every step but the last is computed for an interval longer by the factor
        ``1 + safety``, so that rounding in half precision cannot leave it.
      lower: the least singular value, as a part of the largest, that is to reach one.
      cushion: the step is computed for ``[max(lower, cushion * u), u]`` and then centred, which
        keeps the polynomials from growing too steep; in [0, 1).

    References:
      Amsel et al., `The Polar Express <https://arxiv.org/abs/2505.16932>`_, 2025
    """
    check_count("steps", steps)
    check_range("safety", safety, "[0, inf)")
    check_range("lower", lower, "(0, 1)")
    check_range("cushion", cushion, "[0, 1)")
    table, upper = [], 1.0
    for step in range(steps):
        a, b, c = _best_quintic(max(lower, cushion * upper), upper)
        value = lambda x, a=a, b=b, c=c: a * x + b * x**3 + c * x**5
        scale = 2 / (value(lower) + value(upper))
        shrink = 1 + safety if step < steps - 1 else 1.0
        triple = (scale * a / shrink, scale * b / shrink**3, scale * c / shrink**5)
        table.append(triple)
        lower = float(np.dot(triple, (lower, lower**3, lower**5)))
        upper = 2 - lower
    return tuple(table)


def _best_quintic(lower: float, upper: float) -> tuple[float, float, float]:
    """The odd quintic closest to one on an interval, by Remez's exchange of alternation points."""
    if lower > (1 - 5e-6) * upper:  # the limit, where the system below is singular
        return 15 / 8 / upper, -10 / 8 / upper**3, 3 / 8 / upper**5
    inner = np.array([3 * lower + upper, lower + 3 * upper]) / 4
    error, previous = np.inf, -np.inf
    for _ in range(100):  # a handful is enough; rounding may keep the last digits moving
        if abs(error - previous) <= 1e-15:
            break
        points = np.array([lower, *inner, upper])
        system = np.stack([points, points**3, points**5, [1.0, -1.0, 1.0, -1.0]], axis=1)
        previous = error
        a, b, c, error = np.linalg.solve(system, np.ones(4))
        roots = np.sqrt(9 * b * b - 20 * a * c)
        inner = np.sqrt((-3 * b + np.array([-roots, roots])) / (10 * c))
    return float(a), float(b), float(c)
