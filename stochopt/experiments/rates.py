"""Measured convergence rates: a ladder of horizons, an exponent with an interval, a verdict."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt.catalog import Method
from stochopt.experiments.fit import Fit, TooShortError, power_law
from stochopt.experiments.measures import MissingMeasureError, each_update, is_squared
from stochopt.experiments.run import Program, Run
from stochopt.experiments.table import words
from stochopt.problems import Problem

#: The optimum counts as reached when the gradient norm has fallen to this part of its start.
LIMIT = 0.025
_ROUNDING = 1e-12  # relative to the start; squared for squared measures
_STATIONARITY = "squared_gradient_norm"


@dataclasses.dataclass(frozen=True, eq=False)
class RateResult:
    r"""A measured rate. Print it, or read :attr:`verdict`.

    Attributes:
      name: of the method.
      problem: name of the problem.
      measure: what was measured.
      over: whether ``errors`` are averages over the ``"run"`` or over its ``"tail"``, the last
        quarter.
      exponent: the predicted :math:`p` of :math:`O(N^{-p})`, ``None`` without a prediction.
      two_sided: whether a faster rate contradicts the prediction too.
      horizons: updates, shape (horizons,).
      costs: gradient evaluations, mean over seeds, shape (horizons,).
      errors: shape (seeds, horizons).
      residual: what is left of the gradient norm over the last quarter of the longest run, as a
        part of its start (root mean squares over seeds); of the measure itself where the problem
        has no exact gradient.
      residual_of: the measure that ``residual`` is about.
      fit: the power law through the errors of the finite seeds, ``None`` without one.
      troubles: what kept the measurement from being made in full, a sentence each.
      seconds: running time.
      compile_seconds: what compiling took.
    """

    name: str
    problem: str
    measure: str
    over: str
    exponent: float | None
    two_sided: bool
    horizons: np.ndarray
    costs: np.ndarray
    errors: np.ndarray
    residual: float = np.nan
    residual_of: str = _STATIONARITY
    fit: Fit | None = None
    troubles: tuple[str, ...] = ()
    seconds: float = 0.0
    compile_seconds: float = 0.0

    @property
    def reasons(self) -> list[str]:
        """What speaks against the prediction, a sentence each."""
        reasons = list(self.troubles)
        if self.fit is not None and self.exponent is not None:
            measured = f"exponent {self.fit.exponent:.2f} [{self.fit.low:.2f}, {self.fit.high:.2f}]"
            if self.fit.high < self.exponent:
                reasons.append(f"slower than predicted: {measured} against {self.exponent:g}")
            if self.two_sided and self.fit.low > self.exponent:
                reasons.append(f"faster than the closed form: {measured} against {self.exponent:g}")
        if len(self.errors) and not self.residual <= LIMIT:
            what = words(self.residual_of.removeprefix("squared_"))
            reasons.append(
                f"optimum not reached: {what} ends at {self.residual:.1%} of its start, "
                f"above {LIMIT:.1%}"
            )
        return reasons

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the prediction."""
        return not self.reasons

    @property
    def verdict(self) -> str:
        """``"holds"``, or what speaks against it."""
        return "; ".join(self.reasons) or "holds"

    def __str__(self) -> str:
        law = "no fit"
        if self.fit is not None:
            low, high = self.fit.low, self.fit.high
            law = f"{self.fit.coefficient:.3g} N^-{self.fit.exponent:.3f} [{low:.3f}, {high:.3f}]"
        predicted = "" if self.exponent is None else f", predicted N^-{self.exponent:.3f}"
        lines = [f"{self.name} on {self.problem}: {self.measure} ~ {law}{predicted}"]
        means = self.errors.mean(axis=0) if len(self.errors) else []
        lines += [f"{n:12.0f} {error:12.4g}" for n, error in zip(self.costs, means, strict=True)]
        return "\n".join([*lines, self.verdict])


class Question(NamedTuple):
    """What is asked of a ladder of runs; the fields are the arguments of :func:`measure_rate`."""

    measure: str = _STATIONARITY
    over: Literal["run", "tail"] = "run"
    exponent: float | None = None
    two_sided: bool = False


def measure_rate(
    problem: Problem,
    make_optimizer: Callable[[Any], optax.GradientTransformation],
    horizons: Sequence[int],
    *,
    measure: str = _STATIONARITY,
    over: Literal["run", "tail"] = "run",
    exponent: float | None = None,
    two_sided: bool = False,
    num_seeds: int = 32,
    seed: int = 0,
    name: str = "optimizer",
    on_progress: Callable[[int], None] = lambda horizon: None,
    **fields: Any,
) -> RateResult:
    r"""Measures how an error falls with the number of gradient evaluations.

    A theorem of the form *with step sizes that suit* :math:`T`, *the error after* :math:`T`
    *updates is* :math:`O(T^{-p})` is about many runs of different lengths, not about one curve.
    For every horizon :math:`T` of the ladder this runs ``make_optimizer(T)`` for :math:`T` updates
    on all seeds, in double precision and compiled once for the whole ladder, and fits
    :math:`c N^{-p}` to the mean error against the mean number :math:`N` of gradient evaluations.

    The prediction holds if the 99 % bootstrap interval of the exponent reaches it, if every seed
    stayed finite, and if the gradient norm over the last quarter of the longest run is at most
    2.5 % of its start: the right limit, and not merely the right speed.

    Args:
      problem: what to minimize; ``exact["gradient"]`` is needed for gradient norms.
      make_optimizer: from a horizon to a transformation. The horizon is a traced number: compute
        with it, but do not branch on it.
      horizons: numbers of updates, rising.
      measure: ``"squared_gradient_norm"``, ``"gradient_norm"``, a metric of the problem, or an
        estimate's error, see :class:`stochopt.claims.Claim`.
      over: average it over the whole ``"run"``, or over its last quarter, the ``"tail"``.
      exponent: the predicted :math:`p`; ``None`` only measures.
      two_sided: whether a faster rate contradicts the prediction too.
      num_seeds: repetitions of every run.
      seed: of the random key; all horizons share starting points and batches.
      name: for tables and pictures.
      on_progress: called as ``on_progress(horizon)`` before each horizon; with 0 before
        compilation.
      **fields: other fields of :class:`stochopt.catalog.Method` than their defaults, such as
        ``gradient_of=None`` for an estimator.

    Returns:
      The errors, the fit and a verdict. What is missing or goes wrong is a sentence in the verdict.

    Raises:
      ValueError: ``horizons`` do not rise, or a field is unknown.
    """
    (result,) = measure_rates(
        problem,
        make_optimizer,
        horizons,
        [Question(measure, over, exponent, two_sided)],
        num_seeds=num_seeds,
        seed=seed,
        name=name,
        on_progress=on_progress,
        **fields,
    )
    return result


def measure_rates(
    problem: Problem,
    make_optimizer: Callable[[Any], optax.GradientTransformation],
    horizons: Sequence[int],
    questions: Sequence[Question],
    *,
    num_seeds: int = 32,
    seed: int = 0,
    name: str = "optimizer",
    on_progress: Callable[[int], None] = lambda horizon: None,
    **fields: Any,
) -> list[RateResult]:
    """Measures several rates on the same runs; see :func:`measure_rate`.

    Args:
      problem: what to minimize.
      make_optimizer: from a horizon to a transformation.
      horizons: numbers of updates, rising.
      questions: what to measure, and what is predicted of it.
      num_seeds: repetitions of every run.
      seed: of the random key.
      name: for tables and pictures.
      on_progress: called before compilation and before each horizon.
      **fields: other fields of :class:`stochopt.catalog.Method` than their defaults.

    Returns:
      A result for each question, in order. Their times are those of the runs they share.
    """
    ladder = np.asarray(horizons)
    whole = ladder.ndim == 1 and np.issubdtype(ladder.dtype, np.integer)
    if not whole or not len(ladder) or ladder[0] < 4 or np.any(np.diff(ladder) <= 0):
        raise ValueError(f"horizons must be rising whole numbers of at least 4, got {horizons}.")
    for question in questions:
        if question.over not in ("run", "tail"):
            raise ValueError(f"over must be 'run' or 'tail', got {question.over!r}.")
    method = Method(
        name=name,
        factory=lambda horizon: make_optimizer(horizon),
        **{"family": "", "summary": "", "paper": "", **fields},
    )
    found = [unmeasured(name, problem.name, ladder, question) for question in questions]
    measures: list[str] = []
    for position, (measure, *_) in enumerate(questions):
        stationarity = _STATIONARITY if "gradient" in problem.exact else measure
        found[position] = dataclasses.replace(found[position], residual_of=stationarity)
        try:
            each_update(problem, method, [measure, stationarity])
        except MissingMeasureError as error:
            found[position] = dataclasses.replace(found[position], troubles=(str(error),))
        else:
            measures += [measure, stationarity]
    if not measures:
        return found
    with jax.enable_x64(True):
        climbed = _climb(
            _in_double(problem),
            method,
            ladder,
            list(dict.fromkeys(measures)),
            num_seeds,
            seed,
            on_progress,
        )
    return [empty if empty.troubles else _answered(empty, climbed) for empty in found]


def unmeasured(
    name: str, problem: str, horizons: np.ndarray, question: Question, *troubles: str
) -> RateResult:
    """The result of a question without an answer, and why there is none."""
    return RateResult(
        name=name,
        problem=problem,
        **question._asdict(),
        horizons=horizons,
        costs=np.zeros(0),
        errors=np.zeros((0, 0)),
        troubles=troubles,
    )


def _answered(empty: RateResult, climbed: "_Climbed") -> RateResult:
    errors = climbed.averages[empty.over][empty.measure]
    start = climbed.start[empty.measure].mean()
    fit, troubles = _fit(climbed.costs, errors, empty.horizons, start, is_squared(empty.measure))
    return dataclasses.replace(
        empty,
        costs=climbed.costs,
        errors=errors,
        fit=fit,
        troubles=troubles,
        residual=_residual(climbed, empty.residual_of),
        seconds=climbed.seconds,
        compile_seconds=climbed.compile_seconds,
    )


@dataclasses.dataclass(frozen=True)
class _Climbed:
    """The measures of a whole ladder: by name, arrays of shape (seeds, horizons)."""

    averages: dict[str, dict[str, np.ndarray]]  # over the "run" and over its "tail"
    start: dict[str, np.ndarray]  # shape (seeds,)
    costs: np.ndarray  # shape (horizons,)
    seconds: float
    compile_seconds: float


def _climb(
    problem: Problem,
    method: Method,
    horizons: np.ndarray,
    measures: Sequence[str],
    num_seeds: int,
    seed: int,
    on_progress: Callable[[int], None],
) -> _Climbed:
    on_progress(0)
    program = Program(
        problem,
        method,
        num_seeds,
        {"horizon": float(horizons[0])},
        each_update(problem, method, measures),
    )
    before = time.perf_counter()
    results = []
    for horizon in horizons.tolist():
        on_progress(horizon)
        experiment = Run(
            program,
            key=jax.random.key(seed),
            num_steps=horizon,
            record_every=(1, 3 * horizon // 4),
            hyperparams={"horizon": float(horizon)},
        )
        for _ in experiment:
            pass
        results.append(experiment.result)

    # Records: the start, one update, three quarters, the end.
    def average(measure: str, first: int) -> np.ndarray:
        """Over the updates before the records from position ``first`` on."""
        columns = [
            r.sums[measure][:, first:].sum(axis=1) / (r.steps[-1] - r.steps[first - 1])
            for r in results
        ]
        return np.stack(columns, axis=1)

    return _Climbed(
        averages={
            over: {measure: average(measure, first) for measure in measures}
            for over, first in (("run", 1), ("tail", 3))
        },
        start={measure: results[0].sums[measure][:, 1] for measure in measures},
        costs=np.array([r.num_gradients[:, -1].mean() for r in results]),
        seconds=time.perf_counter() - before,
        compile_seconds=program.compile_seconds,
    )


def _in_double(problem: Problem) -> Problem:
    def init(key: jax.Array) -> Any:
        widen = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float64))
        return jax.tree.map(widen, problem.init(key))

    return dataclasses.replace(problem, init=init)


def _fit(
    costs: np.ndarray, errors: np.ndarray, horizons: np.ndarray, start: float, squared: bool
) -> tuple[Fit | None, tuple[str, ...]]:
    """The fit to the finite seeds, and what was wrong."""
    troubles = []
    finite = np.isfinite(errors)
    bad = ~finite.all(axis=1)
    if bad.any():
        first = horizons[~finite.all(axis=0)][0]
        troubles.append(
            f"{bad.sum()} of {len(errors)} seeds not finite, the first at horizon {first}"
        )
        if bad.all():
            return None, tuple(troubles)
    floor = (_ROUNDING**2 if squared else _ROUNDING) * start
    try:
        return power_law(costs, errors[~bad], floor), tuple(troubles)
    except TooShortError as error:
        return None, (*troubles, str(error))


def _residual(climbed: _Climbed, measure: str) -> float:
    """The tail of the longest run over the start; a squared measure as a ratio of roots."""
    end, start = climbed.averages["tail"][measure][:, -1], climbed.start[measure]
    finite = end[np.isfinite(end)]
    if not len(finite):
        return np.inf
    with np.errstate(divide="ignore", invalid="ignore"):  # a start at the optimum
        ratio = finite.mean() / start.mean()
    return float(np.sqrt(ratio) if is_squared(measure) else ratio)
