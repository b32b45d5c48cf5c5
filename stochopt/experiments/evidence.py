"""The claims of the catalog, measured beside their negative controls."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stochopt.catalog import Method
from stochopt.claims import Claim
from stochopt.experiments.rates import Question, RateResult, measure_rates, unmeasured
from stochopt.problems import Problem, tilted


@dataclasses.dataclass(frozen=True, eq=False)
class ClaimResult:
    """A claim, what was measured of it, and its negative control under the same test.

    Attributes:
      method: a row of the catalog.
      claim: one of its claims.
      result: the method's rate.
      control: the rate of the wrong variant, which must not hold.
    """

    method: Method
    claim: Claim
    result: RateResult
    control: RateResult

    @property
    def holds(self) -> bool:
        """Whether the method's rate holds and its control's does not."""
        return self.result.holds and not self.control.holds

    @property
    def verdict(self) -> str:
        """``"holds"``, or what speaks against it."""
        blind = ["its control passes too, so that this shows nothing"] if self.control.holds else []
        return "; ".join(self.result.reasons + blind) or "holds"


def measure_claim(
    method: Method,
    claim: Claim,
    *,
    problem: Problem | None = None,
    name: str | None = None,
    num_seeds: int = 32,
    seed: int = 0,
    quick: bool = False,
    on_progress: Callable[[int], None] = lambda horizon: None,
) -> RateResult:
    """Measures the rate of a method in the setting of a claim.

    The claim's constants are all that differs from the factory's own defaults; those of the catalog
    do not take part.

    Args:
      method: a row of the catalog.
      claim: where and what to measure.
      problem: instead of the claim's own, such as a :func:`stochopt.problems.tilted` one.
      name: instead of the method's.
      num_seeds: repetitions of every run.
      seed: of the random key.
      quick: leaves out the two longest horizons.
      on_progress: see :func:`measure_rate`.
    """
    (result,) = _measure(
        method,
        [claim],
        problem=claim.problem() if problem is None else problem,
        name=name or method.name,
        num_seeds=num_seeds,
        seed=seed,
        quick=quick,
        on_progress=on_progress,
    )
    return result


def _measure(
    method: Method,
    claims: Sequence[Claim],
    *,
    problem: Problem,
    name: str,
    quick: bool,
    **options: Any,
) -> list[RateResult]:
    """Measures claims that share problem, constants and horizons on the same runs."""
    bare = dataclasses.replace(method, defaults={})
    claim = claims[0]
    return measure_rates(
        problem,
        lambda horizon: bare.make(problem, **claim.constants(horizon)),
        claim.horizons[:-2] if quick else claim.horizons,
        [_question(claim) for claim in claims],
        name=name,
        gradient_of=method.gradient_of,
        takes=method.takes,
        independent_jacobian=method.independent_jacobian,
        gradient_counter=method.gradient_counter,
        eval_params=method.eval_params,
        estimates=method.estimates,
        **options,
    )


def _question(claim: Claim) -> Question:
    return Question(claim.measure, claim.over, claim.exponent, claim.two_sided)


def _share_runs(one: Claim, other: Claim) -> bool:
    same = (one.problem, one.constants, tuple(one.horizons))
    return same == (other.problem, other.constants, tuple(other.horizons))


def check_claim(
    method: Method,
    claim: Claim,
    *,
    num_seeds: int = 32,
    seed: int = 0,
    quick: bool = False,
    on_progress: Callable[[str, int], None] = lambda part, horizon: None,
) -> ClaimResult:
    """Measures a claim of the catalog and its negative control.

    Args:
      method: a row of the catalog.
      claim: one of ``method.claims``.
      num_seeds: repetitions of every run.
      seed: of the random key.
      quick: leaves out the two longest horizons.
      on_progress: called as ``on_progress(part, horizon)`` with part ``"method"`` or ``"control"``.
    """
    options: dict[str, Any] = {"num_seeds": num_seeds, "seed": seed, "quick": quick}
    progress = functools.partial(on_progress, "method")
    result = measure_claim(method, claim, on_progress=progress, **options)
    return _beside_control(method, claim, result, on_progress, options)


def _beside_control(
    method: Method,
    claim: Claim,
    result: RateResult,
    on_progress: Callable[[str, int], None],
    options: Mapping[str, Any],
) -> ClaimResult:
    control, problem = claim.control, claim.problem()
    wrong = measure_claim(
        dataclasses.replace(method, **control.method),
        dataclasses.replace(claim, constants=control.constants or claim.constants),
        problem=tilted(problem, control.bias) if control.bias else problem,
        name=control.name,
        on_progress=functools.partial(on_progress, "control"),
        **options,
    )
    return ClaimResult(method=method, claim=claim, result=result, control=wrong)


def check_claims(
    methods: Sequence[Method],
    *,
    num_seeds: int = 32,
    seed: int = 0,
    quick: bool = False,
    on_progress: Callable[[Method, Claim, str, int], None] = lambda *_: None,
    on_result: Callable[[ClaimResult], None] = lambda result: None,
) -> list[ClaimResult]:
    """Measures every claim of ``methods``, in order.

    Claims of one method that share problem, constants and horizons are measured on the same runs.
    A claim that cannot be measured keeps the error as its verdict and the others go on.
    ``KeyboardInterrupt`` ends the list early and keeps what was measured.

    Args:
      methods: rows of the catalog.
      num_seeds: repetitions of every run.
      seed: of the random key.
      quick: leaves out the two longest horizons of every ladder.
      on_progress: called as ``on_progress(method, claim, part, horizon)``, see
        :func:`check_claim`.
      on_result: called with every finished result.
    """
    options: dict[str, Any] = {"num_seeds": num_seeds, "seed": seed, "quick": quick}
    results: list[ClaimResult] = []
    try:
        for method in methods:
            measured: dict[int, RateResult] = {}
            for position, claim in enumerate(method.claims):
                report = lambda *at, m=method, c=claim: on_progress(m, c, *at)
                try:
                    if position not in measured:
                        measured |= _measured_with(method, position, report, options)
                    result = _beside_control(method, claim, measured[position], report, options)
                except Exception as error:
                    result = _failed(method, claim, error)
                results.append(result)
                on_result(result)
    except KeyboardInterrupt:
        pass
    return results


def _measured_with(
    method: Method,
    position: int,
    on_progress: Callable[[str, int], None],
    options: Mapping[str, Any],
) -> dict[int, RateResult]:
    """A claim's result by its position, and those of the later claims that its runs serve too."""
    claim = method.claims[position]
    served = [
        (k, other)
        for k, other in enumerate(method.claims)
        if k >= position and _share_runs(claim, other)
    ]
    results = _measure(
        method,
        [other for _, other in served],
        problem=claim.problem(),
        name=method.name,
        on_progress=functools.partial(on_progress, "method"),
        **options,
    )
    return {k: result for (k, _), result in zip(served, results, strict=True)}


def _failed(method: Method, claim: Claim, error: Exception) -> ClaimResult:
    first_line = str(error).split("\n")[0]
    trouble = f"{type(error).__name__}: {first_line}"
    nothing = unmeasured(method.name, "", np.asarray(claim.horizons), _question(claim), trouble)
    return ClaimResult(
        method, claim, nothing, dataclasses.replace(nothing, name=claim.control.name)
    )
