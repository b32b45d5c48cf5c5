"""One experiment: a method on a problem, many seeds, compiled into a few calls.

Every seed has a key of its own; the batch of update ``t`` comes from that key folded with ``t``.
So all methods see the same starting points and the same batches, and neither the length of the
chunks nor an interruption changes a number.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt.catalog import Method
from stochopt.problems import Problem


def gradient_and_extras(
    problem: Problem, method: Method, params: Any, batch: Any
) -> tuple[Any, dict[str, Any]]:
    """What ``update`` gets: the incoming ``updates`` and every extra argument of the vocabulary."""
    if method.gradient_of is None:
        return optax.tree.zeros_like(params), {"batch": batch}
    oracle = getattr(problem, method.gradient_of)
    value_fn = lambda point: oracle(point, batch)
    value, grad = jax.value_and_grad(value_fn)(params)
    grad = optax.tree.conj(grad)  # as optax wants complex gradients; nothing changes for real ones
    return grad, {"value": value, "grad": grad, "value_fn": value_fn, "batch": batch}


class _Carry(NamedTuple):
    params: Any
    state: Any
    diverged_at: jax.Array  # the first update that made params not finite; 0 if none did


class _Records(NamedTuple):
    metrics: dict[str, jax.Array]
    num_gradients: jax.Array
    diverged_at: jax.Array


def split_traced(hyperparams: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Hyper-parameters fixed at compilation, and those (Python floats) that a program traces."""
    traced = {name: value for name, value in hyperparams.items() if isinstance(value, float)}
    static = {name: value for name, value in hyperparams.items() if name not in traced}
    return static, traced


class Program:
    """The compiled pieces of an experiment, reusable for other keys and hyper-parameters.

    Hyper-parameters that are Python floats are traced, so that a sweep over them compiles once.

    Args:
      problem: what to minimize.
      method: a row of the catalog.
      num_seeds: how many independent repetitions run at once.
      hyperparams: those that differ from the catalog's defaults.
    """

    def __init__(
        self,
        problem: Problem,
        method: Method,
        num_seeds: int,
        hyperparams: Mapping[str, Any] | None = None,
    ):
        static, traced = split_traced(hyperparams or {})
        # Complains about bad arguments before anything compiles.
        method.make(problem, **static, **traced)
        self.problem, self.method, self.num_seeds = problem, method, num_seeds

        def make(traced: dict[str, Any]) -> optax.GradientTransformationExtraArgs:
            return method.make(problem, **static, **traced)

        def start(key: jax.Array, traced: dict[str, Any]) -> _Carry:
            params = problem.init(key)
            return _Carry(params, make(traced).init(params), jnp.zeros([], jnp.int32))

        def advance(
            carry: _Carry, key: jax.Array, begin: jax.Array, end: jax.Array, traced: dict[str, Any]
        ) -> _Carry:
            optimizer = make(traced)

            def step(t: jax.Array, carry: _Carry) -> _Carry:
                params, state, diverged_at = carry
                batch = problem.sample(jax.random.fold_in(key, t))
                grad, extras = gradient_and_extras(problem, method, params, batch)
                updates, state = optimizer.update(grad, state, params, **extras)
                params = optax.apply_updates(params, updates)
                finite = jnp.isfinite(optax.tree.norm(params))
                first = (diverged_at == 0) & ~finite
                return _Carry(params, state, jnp.where(first, t + 1, diverged_at))

            return jax.lax.fori_loop(begin, end, step, carry)

        def measure(carry: _Carry, num_steps: jax.Array) -> _Records:
            counter = method.gradient_counter
            counted = optax.tree.get(carry.state, counter) if counter else num_steps
            point = method.eval_params(carry.state, carry.params)
            return _Records(problem.metrics(point), counted, carry.diverged_at)

        def over_seeds(function: Callable, shared: int) -> Callable:
            """Maps over seeds; the last ``shared`` arguments are the same for all of them."""

            def mapped(*args: Any) -> Any:
                own, common = args[: len(args) - shared], args[len(args) - shared :]
                each = lambda own: function(*own, *common)
                return jax.vmap(each)(own) if method.seeds == "vmap" else jax.lax.map(each, own)

            return mapped

        begin = end = jnp.zeros([], jnp.int32)
        keys = jax.random.split(jax.random.key(0), num_seeds)
        before = time.perf_counter()
        self.start = jax.jit(over_seeds(start, 1)).lower(keys, traced).compile()
        carry = jax.eval_shape(over_seeds(start, 1), keys, traced)
        donating = jax.jit(over_seeds(advance, 3), donate_argnums=0)
        self.advance = donating.lower(carry, keys, begin, end, traced).compile()
        self.measure = jax.jit(over_seeds(measure, 1)).lower(carry, end).compile()
        self.compile_seconds = time.perf_counter() - before


@dataclasses.dataclass(frozen=True, eq=False)
class RunResult:
    """What an experiment measured; arrays have a leading axis of seeds.

    Attributes:
      problem: name of the problem.
      method: name of the method.
      hyperparams: those that differed from the catalog's defaults.
      objective: name of the metric that was minimized.
      steps: updates done at each record, shape (records,); the first record is the start.
      num_gradients: gradient evaluations spent, shape (seeds, records).
      metrics: name to values, each of shape (seeds, records).
      diverged_at: first update whose parameters were not finite, 0 if none, shape (seeds,).
      seconds: wall-clock seconds of the updates before each record, shape (records,), all seeds
        together, without compilation and metrics; the first is zero.
      compile_seconds: what compiling its program took; the runs of a sweep share a program.
    """

    problem: str
    method: str
    hyperparams: dict[str, Any]
    objective: str
    steps: np.ndarray
    num_gradients: np.ndarray
    metrics: dict[str, np.ndarray]
    diverged_at: np.ndarray
    seconds: np.ndarray
    compile_seconds: float

    @property
    def num_seeds(self) -> int:
        """Number of repetitions."""
        return len(self.diverged_at)

    @property
    def values(self) -> np.ndarray:
        """The objective, shape (seeds, records); infinite from where it is not finite."""
        values = self.metrics[self.objective]
        return np.where(np.isfinite(values), values, np.inf)

    def final(self, metric: str | None = None) -> np.ndarray:
        """Last record of a metric (the objective by default), shape (seeds,)."""
        return self.values[:, -1] if metric is None else self.metrics[metric][:, -1]

    def seconds_per_step(self) -> float:
        """Median over chunks of the time one update of one seed takes."""
        done = np.diff(self.steps)
        return float(np.median(self.seconds[1:] / done / self.num_seeds)) if len(done) else np.nan

    def steps_to(self, target: float) -> np.ndarray:
        """First recorded number of updates with the objective at most ``target``; inf if none."""
        reached = self.values <= target
        return np.where(reached.any(1), self.steps[reached.argmax(1)], np.inf)


class Run:
    """An experiment in progress: iterate to advance it by one record at a time.

    Args:
      program: the compiled pieces.
      key: random key of the whole experiment.
      num_steps: updates in all.
      record_every: updates between two records; ``None`` makes about 50 records.
      hyperparams: values of the program's traced hyper-parameters.
    """

    def __init__(
        self,
        program: Program,
        *,
        key: jax.Array,
        num_steps: int,
        record_every: int | None = None,
        hyperparams: Mapping[str, Any] | None = None,
    ):
        if num_steps < 1:
            raise ValueError(f"num_steps must be a whole number of at least 1, got {num_steps}.")
        if record_every is not None and record_every < 1:
            raise ValueError(f"record_every must be at least 1, got {record_every}.")
        self.program, self.num_steps = program, num_steps
        self.record_every = record_every or max(1, num_steps // 50)
        self._hyperparams = dict(hyperparams or {})
        start_key, self._sample_keys = (
            jax.random.split(k, program.num_seeds) for k in jax.random.split(key)
        )
        _, self._traced = split_traced(self._hyperparams)
        self._carry = program.start(start_key, self._traced)
        self._rows: list[tuple[int, float, _Records]] = []

    def __iter__(self) -> Iterator[int]:
        """Yields the number of updates done, after each record."""
        self._record(0, 0.0)
        yield 0
        for begin in range(0, self.num_steps, self.record_every):
            end = min(begin + self.record_every, self.num_steps)
            bounds = (jnp.asarray(n, jnp.int32) for n in (begin, end))
            before = time.perf_counter()
            self._carry = self.program.advance(
                self._carry, self._sample_keys, *bounds, self._traced
            )
            jax.block_until_ready(self._carry)
            self._record(end, time.perf_counter() - before)
            yield end

    def _record(self, step: int, seconds: float) -> None:
        records = self.program.measure(self._carry, jnp.asarray(step, jnp.int32))
        self._rows.append((step, seconds, jax.device_get(records)))

    @property
    def started(self) -> bool:
        """Whether there is a record yet."""
        return bool(self._rows)

    def latest(self) -> float:
        """The median objective of the last record."""
        return float(np.median(self._rows[-1][2].metrics[self.program.problem.objective]))

    @property
    def result(self) -> RunResult:
        """Everything measured so far."""
        steps, seconds, records = zip(*self._rows, strict=True)
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *records)
        return RunResult(
            problem=self.program.problem.name,
            method=self.program.method.name,
            hyperparams=self._hyperparams,
            objective=self.program.problem.objective,
            steps=np.array(steps),
            num_gradients=stacked.num_gradients,
            metrics=stacked.metrics,
            diverged_at=stacked.diverged_at[:, -1],
            seconds=np.array(seconds),
            compile_seconds=self.program.compile_seconds,
        )


def run(
    problem: Problem,
    method: Method,
    *,
    key: jax.Array,
    num_steps: int,
    num_seeds: int = 1,
    record_every: int | None = None,
    **hyperparams: Any,
) -> RunResult:
    """Runs a method on a problem and returns what was measured.

    Args:
      problem: what to minimize.
      method: a row of the catalog, see :func:`stochopt.catalog.find`.
      key: random key of the whole experiment.
      num_steps: updates.
      num_seeds: independent repetitions, with starting points and batches of their own.
      record_every: updates between two records; ``None`` makes about 50 records.
      **hyperparams: those that differ from the catalog's defaults.
    """
    program = Program(problem, method, num_seeds, hyperparams)
    experiment = Run(
        program, key=key, num_steps=num_steps, record_every=record_every, hyperparams=hyperparams
    )
    for _ in experiment:
        pass
    return experiment.result
