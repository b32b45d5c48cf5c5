"""The claims of the catalog: sensitive verdicts, honest controls, nothing lost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import for_each_method

import stochopt
from stochopt import catalog, problems
from stochopt.claims import orthogonal
from stochopt.experiments import check_claim, check_claims, measure_claim, rates_report

#: One claim of each set of runs: the limit of all claims on the same runs is the same.
RUNS = {
    (method.name, claim.problem, claim.constants, tuple(claim.horizons)): (method, claim)
    for method in catalog.methods()
    for claim in method.claims
}
each_run = pytest.mark.parametrize(
    ("method", "claim"),
    [
        pytest.param(method, claim, id=f"{method.name}-{position}")
        for position, (method, claim) in enumerate(RUNS.values())
    ],
)


@for_each_method
def test_every_method_claims_a_rate(method):
    assert method.claims


def test_the_yardstick_claims_rates():
    assert catalog.find("sgd").claims


@each_run
def test_a_bias_of_five_percent_flips_the_verdict(method, claim):
    """That each claim holds without the bias is checked by `stochopt rates --quick`.

    Only the longest horizon of that ladder, where the limit is judged.
    """
    biased = problems.tilted(claim.problem(), 0.05)
    longest = dataclasses.replace(claim, horizons=claim.horizons[-3:])
    result = measure_claim(method, longest, problem=biased, quick=True, num_seeds=8)
    assert not result.holds
    assert any("optimum not reached" in reason for reason in result.reasons)


def short(claim, **changes):
    return dataclasses.replace(claim, horizons=(16, 32, 64, 128, 256, 512), **changes)


def with_claims(name, *claims):
    return dataclasses.replace(catalog.find(name), claims=claims)


def test_a_control_that_passes_too_is_held_against_the_claim():
    (claim, *_) = catalog.find("sgd").claims
    harmless = dataclasses.replace(claim.control, name="nothing wrong", bias=0.0)
    result = check_claim(
        catalog.find("sgd"), dataclasses.replace(claim, control=harmless), quick=True, num_seeds=8
    )
    assert result.result.holds
    assert result.control.holds
    assert result.verdict == "its control passes too, so that this shows nothing"
    assert not result.holds


def test_the_claims_constants_replace_the_catalogs_defaults():
    """SMB's row adjusts its step size by itself, which its theorem does not allow."""
    seen = []

    def factory(learning_rate, adjust_every=None):
        seen.append(adjust_every)
        return optax.sgd(learning_rate)

    method = dataclasses.replace(
        with_claims("smb", short(catalog.find("smb").claims[0])),
        factory=factory,
        gradient_counter=None,
    )
    assert method.defaults["adjust_every"]
    check_claims([method], num_seeds=2)
    assert seen
    assert set(seen) == {None}


def test_a_claim_that_fails_to_run_keeps_its_error_and_the_others_go_on():
    (claim, *_) = catalog.find("sgd").claims
    broken = short(claim, constants=lambda horizon: {"learning_rat": 1.0})
    said = []
    results = check_claims(
        [with_claims("sgd", broken, short(claim))], num_seeds=2, on_result=said.append
    )
    assert results == said
    assert [len(result.result.errors) for result in results] == [0, 2]
    assert results[0].verdict.startswith("ValueError: sgd has no hyper-parameter learning_rat")
    assert rates_report.table(results).rows[0][-1] == results[0].verdict


def test_claims_share_the_runs_that_serve_both_and_get_what_each_gets_alone():
    """Catches a result under the wrong claim, and runs shared in spite of other constants."""
    (claim, *_) = catalog.find("sgd").claims
    other = short(claim, measure="gradient_norm", over="tail", exponent=0.1)
    third = short(claim, constants=lambda horizon: {"learning_rate": 0.01})
    calls = []
    together = check_claims(
        [with_claims("sgd", short(claim), third, other)],
        num_seeds=2,
        on_progress=lambda method, claim, part, horizon: calls.append((claim, part)),
    )
    assert {claim for claim, part in calls if part == "method"} == {
        together[0].claim,
        together[1].claim,
    }
    for found in together:
        alone = check_claim(catalog.find("sgd"), found.claim, num_seeds=2)
        assert found.result.measure == found.claim.measure
        np.testing.assert_array_equal(found.result.errors, alone.result.errors)
        np.testing.assert_array_equal(found.control.errors, alone.control.errors)
        assert found.verdict == alone.verdict


def test_a_measure_that_is_missing_spoils_no_other_claim_on_the_same_runs():
    (claim, *_) = catalog.find("sgd").claims
    missing = short(claim, measure="momentum_error")
    results = check_claims([with_claims("sgd", missing, short(claim))], num_seeds=2)
    assert "momentum" in results[0].verdict
    assert [len(result.result.errors) for result in results] == [0, 2]
    assert not results[1].result.troubles


def test_an_interrupted_check_keeps_what_was_measured():
    (claim, *_) = catalog.find("sgd").claims
    calls = []

    def stop(method, claim, part, horizon):
        calls.append(part)
        if calls.count("control") > 10:
            raise KeyboardInterrupt

    results = check_claims(
        [with_claims("sgd", short(claim), short(claim))], num_seeds=2, on_progress=stop
    )
    assert len(results) == 1
    assert len(results[0].control.errors) == 2


# Controls are what their names say.


def test_the_accumulator_without_its_root():
    """One step by hand: learning rate * c / V in place of c / sqrt(V)."""
    gradient = jnp.array([[3.0, 0.0], [0.0, 4.0]])
    options = {"momentum": 0.0, "min_step_size": 0.0, "initial_accumulator": 1.0}
    options["orthogonalize"] = stochopt.orthogonal.svd_polar
    for factory, expected in (
        (stochopt.adago, 0.5 * 5 / np.sqrt(26)),
        (orthogonal._without_root, 0.5 * 5 / 26),
    ):
        optimizer = factory(learning_rate=0.5, **options)
        updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
        np.testing.assert_allclose(updates, -expected * np.eye(2), rtol=1e-6, atol=1e-7)


def test_exchanged_weights_and_the_estimate_behind_them():
    claim = orthogonal.MOMENTUM
    right, wrong = claim.constants(10_000.0), orthogonal.STOCHASTIC.control.constants(10_000.0)
    assert right["momentum"] == pytest.approx(1 - wrong["momentum"])
    method = catalog.find("adago")
    optimizer = method.make(claim.problem(), **right)
    gradient = jnp.ones((4, 3))
    _, state = optimizer.update(gradient, optimizer.init(gradient), gradient)
    np.testing.assert_allclose(method.estimates["gradient"](state), 0.04 * gradient, rtol=1e-5)


@each_run
def test_estimates_and_exact_values_have_one_shape(method, claim):
    problem = claim.problem()
    params = problem.init(jax.random.key(0))
    optimizer = method.make(problem, **claim.constants(256.0))
    state = optimizer.init(params)
    for name, estimate in method.estimates.items():
        exact = problem.exact[name](params)
        assert jax.tree.map(jnp.shape, estimate(state)) == jax.tree.map(jnp.shape, exact)


# What is written.


def test_the_record_holds_what_was_measured(tmp_path):
    (claim, *_) = catalog.find("sgd").claims
    results = check_claims([with_claims("sgd", short(claim))], num_seeds=3)
    rates_report.write_csv(results, tmp_path / "rates.csv")
    lines = (tmp_path / "rates.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 3 * 6
    last = lines[18].split(",")  # the method's last seed at the longest horizon
    assert float(last[-1]) == results[0].result.errors[2, 5]
    assert last[-3:-1] == ["512", "512.0"]
    (row,) = rates_report.as_json(results)["claims"]
    assert row["holds"] == results[0].holds
    assert row["result"]["measured"]["p"] == results[0].result.fit.exponent
    assert row["control"]["name"] == "gradients biased by 10 %"
