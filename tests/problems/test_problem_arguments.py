"""Bad arguments of problems: a clear error that names the argument."""

import pytest

from stochopt.problems import (
    cosine,
    logistic,
    matrix_regression,
    noisy_quadratic,
    noisy_squares,
    phase_retrieval,
    polyak_lojasiewicz,
    proxy_quadratic,
    quadratic_composition,
    simplex_quadratic,
    target_logistic,
    text,
)

NOISY = (
    cosine,
    matrix_regression,
    noisy_quadratic,
    polyak_lojasiewicz,
    proxy_quadratic,
    simplex_quadratic,
    target_logistic,
)

BAD = [
    *[(factory, "noise", value) for factory in NOISY for value in (-1, float("nan"))],
    *[
        (noisy_quadratic, "spectrum", value)
        for value in ((), (1, 0), (1, -1), (1, float("inf")), ((1, 2), (3, 4)))
    ],
    *[(noisy_squares, "noise", value) for value in (0, 1.5)],
    *[(noisy_squares, name, 0) for name in ("dimension", "batch_size")],
    *[(phase_retrieval, "corruption", value) for value in (0.5, -0.1)],
    *[(phase_retrieval, "start_distance", value) for value in (-0.1, float("inf"))],
    *[
        (phase_retrieval, name, value)
        for name in ("dimension", "num_examples", "batch_size")
        for value in (0, 2.5)
    ],
    *[
        (logistic, name, value)
        for name in ("num_features", "num_examples", "batch_size")
        for value in (0, 2.5)
    ],
    *[(logistic, "decay", value) for value in (0, -1)],
    *[(matrix_regression, "start", value) for value in (0, -1)],
    *[(matrix_regression, name, 0) for name in ("rows", "columns")],
    *[(quadratic_composition, name, 0) for name in ("dimension", "inner_dimension")],
    *[(quadratic_composition, name, -1) for name in ("matrix_noise", "vector_noise", "ridge")],
    *[(cosine, "dimension", value) for value in (0, 2.5)],
    *[(polyak_lojasiewicz, "dimension", value) for value in (0, 2.5)],
    *[
        (text, name, value)
        for name in ("layers", "width", "heads", "context", "batch_size")
        for value in (0, 2.5)
    ],
    *[(proxy_quadratic, name, 0) for name in ("dimension", "smoothness", "strong_convexity")],
    (proxy_quadratic, "strong_convexity", 11),  # above the smoothness
    (proxy_quadratic, "proxy_distance", -1),
    *[(simplex_quadratic, "dimension", value) for value in (0, 1, 2.5)],
    (simplex_quadratic, "condition", 0.5),
    *[(simplex_quadratic, "prices", value) for value in (0, -1)],
    *[(target_logistic, name, 0) for name in ("num_features", "num_examples", "condition")],
    (text, "width", 66),  # four heads by default
    (text, "context", 10**6),
]


@pytest.mark.parametrize(
    ("factory", "argument", "value"), BAD, ids=[f"{f.__name__}-{a}-{v}" for f, a, v in BAD]
)
def test_bad_arguments_are_named(factory, argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must "):
        factory(**{argument: value})


@pytest.mark.parametrize("factory", NOISY)
def test_no_noise_is_allowed(factory):
    problem = factory(noise=0)
    assert problem.noise == 0
