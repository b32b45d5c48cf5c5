"""Measured rates against closed forms, and every sentence a verdict can say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import stochopt
from stochopt import catalog, problems
from stochopt.experiments import measure_rate, run
from stochopt.experiments.plots import rates_figure, save

LADDER = [2**k for k in range(5, 12)]
SPECTRUM, NOISE = np.array([1.0, 0.5, 0.25]), 0.5


def sgd(horizon):
    return optax.sgd(4 / horizon**0.5)


def quadratic(**options):
    return problems.noisy_quadratic(spectrum=SPECTRUM, noise=NOISE, **options)


def closed_form(horizon, over):
    """Mean squared gradient norm of gradient descent, by its recursion in each coordinate."""
    rate, moments, squares = 4 / horizon**0.5, np.ones(3), []
    for _ in range(horizon):
        squares.append(np.sum(SPECTRUM**2 * moments))
        moments = (1 - rate * SPECTRUM) ** 2 * moments + rate**2 * NOISE**2 / 3
    return np.mean(squares if over == "run" else squares[3 * horizon // 4 :])


@pytest.mark.parametrize("over", ["run", "tail"])
def test_errors_are_those_of_the_closed_form(over):
    """Catches an average over other updates, other points, other constants or other noise."""
    result = measure_rate(quadratic(), sgd, LADDER, over=over, num_seeds=64)
    expected = [closed_form(horizon, over) for horizon in LADDER]
    standard_error = result.errors.std(axis=0, ddof=1) / 8
    assert np.all(np.abs(result.errors.mean(axis=0) - expected) < 4 * standard_error)
    assert np.all(standard_error < 0.1 * np.array(expected)), "too noisy to tell"
    np.testing.assert_array_equal(result.costs, LADDER)


def test_the_residual_is_the_last_quarter_over_the_start():
    result = measure_rate(quadratic(), sgd, LADDER, num_seeds=64)
    start = np.sum(SPECTRUM**2)
    expected = np.sqrt(closed_form(LADDER[-1], "tail") / start)
    assert result.residual == pytest.approx(expected, rel=0.05)


def test_norms_and_metrics_have_their_own_units():
    problem = problems.noisy_quadratic(spectrum=[0.5], noise=0.0)
    of = lambda measure: measure_rate(problem, sgd, LADDER, measure=measure, num_seeds=2).errors
    squared, norm, gap = map(of, ("squared_gradient_norm", "gradient_norm", "gap"))
    np.testing.assert_allclose(gap, squared, rtol=1e-12)  # (x/2)^2 = x^2 / 4 and 0.5 x^2 / 2
    decay = 0.5 * (1 - 2 / 32**0.5) ** np.arange(32)
    np.testing.assert_allclose(norm[:, 0], np.mean(decay))
    np.testing.assert_allclose(squared[:, 0], np.mean(decay**2))


def test_a_tail_far_below_the_start_keeps_its_digits():
    """Catches a tail that is a difference of sums from the start: 1e-16 of them is its noise."""
    problem = problems.noisy_quadratic(spectrum=[1.0], noise=0.0)
    result = measure_rate(problem, lambda t: optax.sgd(0.5), LADDER[:2], over="tail", num_seeds=2)
    np.testing.assert_allclose(result.errors[:, 1], np.mean(0.25 ** np.arange(48.0, 64)), rtol=0.01)


def test_the_error_of_an_estimate_is_taken_at_the_point_of_the_gradient():
    """Without noise, momentum 0 makes AdaGO's momentum the exact gradient at that point."""
    problem = problems.matrix_regression(noise=0.0)
    method = catalog.find("adago")
    result = measure_rate(
        problem,
        lambda horizon: stochopt.adago(1 / horizon**0.5, momentum=0.0, min_step_size=0.0),
        [8, 16, 32, 64],
        measure="gradient_error",
        estimates=method.estimates,
        num_seeds=2,
    )
    assert np.all(result.errors < 1e-25)
    assert result.residual > 1e-3, "the gradient itself is far from zero"


def test_gradient_evaluations_are_counted_not_updates():
    result = measure_rate(
        problems.cosine(dimension=2, noise=0.0),
        lambda horizon: stochopt.smb(3.0, eta=0.5),
        [8, 16, 32, 64],
        num_seeds=2,
        **{n: getattr(catalog.find("smb"), n) for n in ("gradient_of", "gradient_counter")},
    )
    assert np.all(result.costs > result.horizons)
    assert np.all(result.costs <= 2 * result.horizons)


def test_the_same_seed_gives_the_same_numbers_and_another_one_others():
    first, again = (measure_rate(quadratic(), sgd, LADDER[:4], num_seeds=4) for _ in range(2))
    np.testing.assert_array_equal(first.errors, again.errors)
    assert str(first) == str(again)
    other = measure_rate(quadratic(), sgd, LADDER[:4], num_seeds=4, seed=1)
    assert np.all(first.errors != other.errors)


def test_a_ladder_compiles_once():
    traces = []

    def make(horizon):
        traces.append(horizon)
        return sgd(horizon)

    measure_rate(quadratic(), make, LADDER[:4], num_seeds=2)
    short = len(traces)
    measure_rate(quadratic(), make, LADDER, num_seeds=2)
    assert len(traces) == 2 * short


def test_double_precision_ends_with_the_measurement():
    problem = quadratic()
    result = measure_rate(problem, sgd, LADDER[:4], num_seeds=2)
    assert result.errors.dtype == np.float64
    assert jnp.ones(2).dtype == jnp.float32
    after = run(problem, catalog.find("sgd"), key=jax.random.key(0), num_steps=4)
    assert after.final().dtype == np.float32
    assert np.isfinite(after.final()).all()


# Verdicts.


def reasons(problem=None, make=sgd, horizons=LADDER, **options):
    options = {"exponent": 0.5, "num_seeds": 16, **options}
    return measure_rate(problem or quadratic(), make, horizons, **options).reasons


def test_a_rate_that_holds_has_no_reason_against_it():
    result = measure_rate(
        problems.cosine(noise=0.3),
        lambda t: optax.sgd(8 / t**0.5),
        [2**k for k in range(8, 15)],
        exponent=0.5,
    )
    assert result.holds
    assert result.verdict == "holds"
    assert "holds" in str(result)


def test_without_a_prediction_only_the_measurement_is_judged():
    result = measure_rate(problems.noisy_quadratic(noise=0.0), lambda t: optax.sgd(1.0), LADDER)
    assert result.holds
    assert result.fit.exponent == pytest.approx(1, abs=0.01)


def test_slower_than_predicted():
    (slow, *_) = reasons(exponent=0.75)
    assert slow.startswith("slower than predicted: exponent 0.")
    assert slow.endswith("against 0.75")


def test_faster_is_wrong_only_for_a_closed_form():
    noiseless = lambda **o: reasons(
        problems.noisy_quadratic(noise=0.0), lambda t: optax.sgd(1.0), **o
    )
    assert noiseless() == []
    (fast,) = noiseless(two_sided=True)
    assert fast.startswith("faster than the closed form: exponent 1.0")


def test_an_optimum_that_is_not_reached():
    """The speed is right and the limit is wrong: without noise the tilted problem is as fast."""
    tilted = problems.tilted(problems.noisy_quadratic(noise=0.0), 0.05)
    (reason,) = reasons(tilted, lambda t: optax.sgd(1.0), exponent=None)
    assert reason == ("optimum not reached: gradient norm ends at 5.0% of its start, above 2.5%")


def test_a_start_at_the_optimum_shows_nothing():
    still = problems.cosine(noise=0.0, start=0.0)
    assert not measure_rate(still, sgd, LADDER, num_seeds=2).holds


def test_a_ladder_too_short():
    found = reasons(horizons=LADDER[:3], exponent=None)
    assert "the ladder is too short: 3 horizons; a fit needs 4" in found


def test_a_ladder_in_the_rounding():
    found = reasons(
        problems.noisy_quadratic(spectrum=[1.0], noise=0.0), lambda t: optax.sgd(0.5), over="tail"
    )
    (reason,) = found
    assert "at the level of rounding" in reason


def sometimes_nan(probability):
    problem = quadratic()

    def sample(key):
        bad = jax.random.bernoulli(key, probability)
        return jnp.where(bad, jnp.nan, problem.sample(key))

    return dataclasses.replace(problem, sample=sample)


def test_seeds_that_are_not_finite():
    result = measure_rate(sometimes_nan(1e-3), sgd, LADDER, num_seeds=16)
    bad = ~np.isfinite(result.errors)
    assert 0 < bad.any(axis=1).sum() < 16, "some, not all"
    first = result.horizons[bad.any(axis=0)][0]
    count = bad.any(axis=1).sum()
    assert f"{count} of 16 seeds not finite, the first at horizon {first}" in result.reasons
    assert result.fit is not None, "the others are still fitted"
    assert not result.holds


def test_no_seed_is_finite():
    found = reasons(make=lambda t: optax.sgd(1e200))
    assert found[0].startswith("16 of 16 seeds not finite")


@pytest.mark.parametrize(
    ("problem", "measure", "said"),
    [
        (problems.phase_retrieval, "squared_gradient_norm", "'phase-retrieval' has no exact 'grad"),
        (quadratic, "accuracy", "no measure 'accuracy'; its metrics are gap, squared_distance"),
        (quadratic, "inner_error", "'noisy-quadratic' has no exact 'inner'"),
        (quadratic, "gradient_error", "optimizer keeps no estimate of 'gradient'"),
    ],
)
def test_a_measure_that_is_lacking(problem, measure, said):
    (reason,) = reasons(problem(), measure=measure)
    assert said in reason


def test_a_problem_without_gradients_is_judged_by_the_measure_itself():
    result = measure_rate(
        problems.phase_retrieval(corruption=0.0),
        lambda t: optax.sgd(0.3 / t**0.5),
        [2**k for k in range(6, 11)],
        measure="distance",
        over="tail",
    )
    assert result.fit.exponent > 0
    expected = result.errors[:, -1].mean() / 0.5  # every seed starts at distance 1/2
    assert result.residual == pytest.approx(expected)
    assert ("distance ends at" in result.verdict) == (expected > 0.025)


@pytest.mark.parametrize("horizons", [[], [1, 2, 4, 8], [8, 8, 16, 32], [32, 16], [8.5, 9.5]])
def test_bad_horizons_name_the_argument(horizons):
    with pytest.raises(ValueError, match="horizons must be rising whole numbers of at least 4"):
        measure_rate(quadratic(), sgd, horizons)


def test_a_bad_part_of_the_run_names_the_argument():
    with pytest.raises(ValueError, match="over must be 'run' or 'tail'"):
        measure_rate(quadratic(), sgd, LADDER, over="end")


def test_results_are_drawn_without_a_claim(tmp_path):
    result = measure_rate(quadratic(), sgd, LADDER, exponent=0.5, num_seeds=4)
    short = measure_rate(quadratic(), sgd, LADDER[:2], num_seeds=4)
    figure = rates_figure([result, short, result])
    assert len(figure.axes) == 3
    assert {path.suffix for path in save(figure, tmp_path / "rates")} == {".png", ".svg"}
