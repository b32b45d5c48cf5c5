"""The power-law fit: exponent, interval, asymptotic part, rounding floor."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from stochopt.experiments.fit import TooShortError, power_law

COSTS = 2.0 ** np.arange(6, 15)


def noisy(exponent, seed, num_seeds=24, spread=0.3):
    """Errors of seeds whose mean is a power law."""
    rng = np.random.default_rng(seed)
    factors = np.exp(spread * rng.standard_normal((num_seeds, len(COSTS))) - spread**2 / 2)
    return 3 * COSTS**-exponent * factors


def test_an_exact_power_law_is_recovered():
    fit = power_law(COSTS, np.tile(3 * COSTS**-0.5, (4, 1)))
    assert fit.exponent == pytest.approx(0.5, abs=1e-12)
    assert fit.coefficient == pytest.approx(3, rel=1e-12)
    assert fit.low == pytest.approx(fit.high, abs=1e-12)


def test_the_mean_over_seeds_is_fitted_not_the_median_or_each_seed():
    """Catches a fit of the mean logarithm: half of the seeds fall, the others rise to the law."""
    law = COSTS**-0.5
    wobble = np.where(np.arange(len(COSTS)) % 2 == 0, 0.9, 0.1)
    fit = power_law(COSTS, np.stack([law * (1 + wobble), law * (1 - wobble)]))
    assert fit.exponent == pytest.approx(0.5, abs=1e-12)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """99 % nominal; percentile intervals of 24 seeds cover a little less. Seeds must be resampled
    whole: a wrong resampling gives intervals that are far too short or too long."""
    fits = [power_law(COSTS, noisy(0.5, seed)) for seed in range(200)]
    covered = np.mean([fit.low <= 0.5 <= fit.high for fit in fits])
    assert 0.94 <= covered < 1
    # Its width is that of 2.58 standard deviations to either side of the estimates themselves.
    widths = np.median([fit.high - fit.low for fit in fits])
    assert widths == pytest.approx(5.15 * np.std([fit.exponent for fit in fits]), rel=0.2)


def test_only_the_upper_half_is_fitted():
    """Catches a fit of the whole ladder, which a fast start flatters."""
    means = np.maximum(COSTS**-2.0 * COSTS[4] ** 1.5, COSTS**-0.5)
    fit = power_law(COSTS, np.tile(means, (3, 1)))
    assert fit.exponent == pytest.approx(0.5, abs=1e-12)
    assert fit.used.tolist() == [False] * 4 + [True] * 5


def test_what_rounding_has_reached_is_left_out():
    means = np.maximum(COSTS**-4.0, 1e-13)
    fit = power_law(COSTS, np.tile(means, (3, 1)), floor=1e-12)
    assert fit.exponent == pytest.approx(4, abs=1e-9)
    assert not fit.used[means <= 1e-12].any()
    without = power_law(COSTS, np.tile(means, (3, 1)))
    assert without.exponent < 3, "the floor did not matter"


@pytest.mark.parametrize(
    ("length", "floor", "said"),
    [(3, 0.0, "3 horizons; a fit needs 4"), (9, 0.2, "at the level of rounding")],
)
def test_a_short_ladder_is_refused_with_its_length(length, floor, said):
    with pytest.raises(TooShortError, match=said):
        power_law(COSTS[:length], noisy(0.5, 0)[:, :length], floor)


@hypothesis.given(
    st.floats(0.05, 4), st.floats(-12, 6), st.floats(-3, 3), st.integers(0, 2**16), st.booleans()
)
def test_units_do_not_matter(exponent, error_unit, cost_unit, seed, reverse):
    """Errors and costs in other units, seeds in another order: the same exponent and interval."""
    errors = noisy(exponent, seed, num_seeds=5)
    fit = power_law(COSTS, errors)
    other = power_law(10**cost_unit * COSTS, 10**error_unit * errors)
    for name in ("exponent", "low", "high"):
        assert getattr(other, name) == pytest.approx(getattr(fit, name), abs=1e-8)
    turned = power_law(COSTS, errors[::-1] if reverse else errors)
    assert turned.exponent == pytest.approx(fit.exponent, abs=1e-12)
