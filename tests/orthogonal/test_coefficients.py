"""Tables of coefficients: published numbers, best approximation, and bad arguments."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from stochopt.orthogonal import (
    CANS,
    CUBIC,
    JORDAN,
    JORDAN_CONVERGED,
    QUINTIC,
    lengthened,
    newton_schulz,
    polar_express,
)

# The list that the paper's program prints, without safety factors.
PUBLISHED = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
    (1.875, -1.25, 0.375),
    (1.875, -1.25, 0.375),
)
PUBLISHED_CUSHION = 0.02407327424182761
IN_USE = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def quintic(triple, x):
    a, b, c = triple
    return a * x + b * x**3 + c * x**5


def test_short_tables_are_the_published_ones():
    assert JORDAN == ((3.4445, -4.7750, 2.0315),) * 5
    assert JORDAN_CONVERGED == ((3.4445, -4.7750, 2.0315),) * 8 + ((2.0, -1.5, 0.5),) * 2
    assert QUINTIC == (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    )
    assert CANS == (
        (8.4703, -25.1081, 18.6293),
        (4.1828, -3.1087, 0.5806),
        (3.9619, -2.9541, 0.5630),
        (3.2866, -2.4647, 0.5074),
        (2.2737, -1.6447, 0.4162),
    )
    assert CUBIC == (
        (3.3656576, -3.3420992, 0.0),
        (2.5744352, -1.4957376, 0.0),
        (2.5368962, -1.4312570, 0.0),
        (2.4418906, -1.2764040, 0.0),
        (2.2230472, -0.9630650, 0.0),
    )


def test_polar_express_is_the_published_list():
    found = polar_express(9, safety=0.0, cushion=PUBLISHED_CUSHION)
    np.testing.assert_allclose(found[:6], PUBLISHED[:6], rtol=0, atol=1e-12)
    # Near the limit the published program stops its exchange of points earlier.
    np.testing.assert_allclose(found[6:], PUBLISHED[6:], rtol=0, atol=5e-9)


def test_polar_express_with_safety_factors():
    np.testing.assert_allclose(polar_express(), IN_USE, rtol=0, atol=1e-12)


def test_every_step_is_the_best_quintic_on_its_interval():
    # Linear programming on a grid: a lower bound for the error of every odd quintic.
    lower, upper = 0.01, 1.0
    for triple in polar_express(3, safety=0.0, lower=lower, cushion=0.0):
        grid = np.linspace(0, 1, 2000)
        x = lower + (upper - lower) * np.concatenate([grid, grid**3])
        powers, ones = np.stack([x, x**3, x**5], axis=1), np.ones((len(x), 1))
        program = scipy.optimize.linprog(
            [0, 0, 0, 1],
            A_ub=np.block([[powers, -ones], [-powers, -ones]]),
            b_ub=np.concatenate([ones, -ones]).ravel(),
            bounds=[(None, None)] * 3 + [(0, None)],
        )
        error = np.abs(1 - quintic(triple, x)).max()
        assert program.fun <= error <= program.fun * (1 + 1e-4)
        lower, upper = quintic(triple, lower), 2 - quintic(triple, lower)


def test_intervals_are_passed_on_and_stay_centred():
    lower, upper = 1e-3, 1.0
    for triple in polar_express(6, safety=0.0):
        x = np.linspace(lower, upper, 4001)
        y = quintic(triple, x)
        np.testing.assert_allclose(y[0] + y[-1], 2, rtol=1e-12)
        lower, upper = y[0], 2 - y[0]
        assert y.min() >= lower - 1e-12
        assert y.max() <= upper + 1e-12
    assert upper - lower < 0.01


def test_safety_stretches_every_step_but_the_last():
    plain, safe = (polar_express(2, safety=safety)[0] for safety in (0.0, 0.5))
    np.testing.assert_allclose(safe, np.array(plain) / 1.5 ** np.array([1, 3, 5]), rtol=1e-14)
    assert polar_express(1, safety=0.5) == polar_express(1, safety=0.0)


def test_lower_end_is_lifted():
    for lower in (1e-1, 1e-5):
        value = lower
        for triple in polar_express(12, safety=0.0, lower=lower):
            value = quintic(triple, value)
        np.testing.assert_allclose(value, 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", 2.5),
        ("safety", -0.1),
        ("lower", 0.0),
        ("lower", 1.0),
        ("cushion", -0.1),
        ("cushion", 1.0),
        ("cushion", float("nan")),
    ],
)
def test_polar_express_names_bad_arguments(name, value):
    with pytest.raises(ValueError, match=f"^{name}"):
        polar_express(**{name: value})


def test_lengthened_repeats_the_last_triple():
    assert lengthened(QUINTIC, 5) == QUINTIC
    assert lengthened(QUINTIC, 7) == (*QUINTIC, QUINTIC[-1], QUINTIC[-1])
    # One step more of the converging list is its own continuation.
    np.testing.assert_allclose(lengthened(PUBLISHED[:8], 9), PUBLISHED)


@pytest.mark.parametrize("steps", [4, 0, 5.5])
def test_tables_are_not_cut(steps):
    with pytest.raises(ValueError, match="steps"):
        lengthened(QUINTIC, steps)


@pytest.mark.parametrize(
    "table",
    [
        (),
        ((),),
        ((3.0, -1.0),),
        ((3.0, -1.0, 0.5, 0.1),),
        (3.0, -1.0, 0.5),
        (JORDAN[0], (1.0, 2.0)),
        ((3.0, float("nan"), 0.5),),
        ((float("inf"), -1.0, 0.5),),
        (("3", "x", "0.5"),),
        (("3", "-1", "0.5"),),
        "123",
        ("123",),
        "abc",
        ("abc",),
        5,
        None,
    ],
    ids=repr,
)
def test_what_is_no_table_is_named(table):
    with pytest.raises(ValueError, match="coefficients must be a sequence of triples"):
        newton_schulz(jnp.eye(2), table)


@pytest.mark.parametrize("make", [list, np.array, lambda t: tuple(map(list, t))])
def test_any_sequence_of_triples_is_a_table(make):
    x = jnp.asarray([[1.0, 2.0], [0.5, -1.0]])
    np.testing.assert_array_equal(newton_schulz(x, make(QUINTIC)), newton_schulz(x, QUINTIC))
