"""One experiment: a method on a problem, many seeds, compiled into a few calls.

Every seed has a key of its own; the batch of update ``t`` comes from that key folded with ``t``.
So all methods see the same starting points and the same batches, and neither the length of the
chunks nor an interruption changes a number.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from stochopt._checks import check_count
from stochopt.catalog import Method
from stochopt.experiments import storage
from stochopt.experiments.result import WARNINGS, RunResult
from stochopt.problems import Problem

#: ``each_update(point, params, state) -> dict`` of scalars: ``point`` is the one to evaluate and
#: ``params`` the one that the gradient was taken at, both before the update, ``state`` is after it.
EachUpdate = Callable[[Any, Any, Any], dict[str, jax.Array]]


def gradient_and_extras(
    problem: Problem, method: Method, params: Any, batch: Any, key: jax.Array | None = None
) -> tuple[Any, dict[str, Any]]:
    """What ``update`` gets: the incoming ``updates`` and every extra argument of the vocabulary."""
    if method.gradient_of is None:
        extras = {"key": key, **_views(problem, method, batch)}
        if method.independent_jacobian and key is not None:
            other = _views(problem, method, problem.sample(key))
            extras |= {f"jacobian_{name}": view for name, view in other.items()}
        return optax.tree.zeros_like(params), extras
    oracle = getattr(problem, method.gradient_of)
    value_fn = lambda point: oracle(point, batch)
    value, grad = jax.value_and_grad(value_fn)(params)
    grad = optax.tree.conj(grad)  # as optax wants complex gradients; nothing changes for real ones
    extras = {"value": value, "grad": grad, "value_fn": value_fn, "batch": batch}
    return grad, {**extras, "key": key}


def _views(problem: Problem, method: Method, batch: Any) -> dict[str, Any]:
    """A batch as the method takes it."""
    if problem.blocks is not None and method.takes == "blocks":
        indices, block_batch = problem.blocks(batch)
        return {"batch": block_batch, "block_indices": indices}
    if problem.data is not None and method.takes == "data":
        return {"batch": problem.data(batch)}
    if problem.sample_indices is not None and method.takes == "sample_indices":
        return {"batch": batch, "sample_indices": problem.sample_indices(batch)}
    return {"batch": batch}


class _Carry(NamedTuple):
    params: Any
    state: Any
    diverged_at: jax.Array  # the first update that made params not finite; 0 if none did
    sums: dict[str, jax.Array]  # over the updates since the last record


class _Records(NamedTuple):
    metrics: dict[str, jax.Array]
    sums: dict[str, jax.Array]
    num_gradients: jax.Array
    diverged_at: jax.Array
    warnings: dict[str, jax.Array]


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
      each_update: what to measure at every update and to add up from record to record, see
        :data:`EachUpdate`; these are the ``sums`` of the result.
    """

    def __init__(
        self,
        problem: Problem,
        method: Method,
        num_seeds: int,
        hyperparams: Mapping[str, Any] | None = None,
        each_update: EachUpdate = lambda point, params, state: {},
    ):
        check_count("num_seeds", num_seeds)
        static, traced = split_traced(hyperparams or {})
        # Complains about bad arguments before anything compiles.
        method.make(problem, **static, **traced)
        self.problem, self.method, self.num_seeds = problem, method, num_seeds

        def make(traced: dict[str, Any]) -> optax.GradientTransformationExtraArgs:
            return method.make(problem, **static, **traced)

        def start(key: jax.Array, traced: dict[str, Any]) -> _Carry:
            params = problem.init(key)
            state = make(traced).init(params)
            measured = jax.eval_shape(each_update, params, params, state)
            return _Carry(params, state, jnp.zeros([], jnp.int32), optax.tree.zeros_like(measured))

        def advance(
            carry: _Carry, key: jax.Array, begin: jax.Array, end: jax.Array, traced: dict[str, Any]
        ) -> _Carry:
            optimizer = make(traced)

            def step(t: jax.Array, carry: _Carry) -> _Carry:
                params, state, diverged_at, sums = carry
                batch = problem.sample(jax.random.fold_in(key, t))
                # For what a method draws by itself; no batch has such a number.
                own_key = jax.random.fold_in(key, t.astype(jnp.uint32) + jnp.uint32(2**31))
                grad, extras = gradient_and_extras(problem, method, params, batch, own_key)
                point = method.eval_params(state, params)
                updates, state = optimizer.update(grad, state, params, **extras)
                sums = optax.tree.add(sums, each_update(point, params, state))
                params = optax.apply_updates(params, updates)
                finite = jnp.isfinite(optax.tree.norm(params))
                first = (diverged_at == 0) & ~finite
                return _Carry(params, state, jnp.where(first, t + 1, diverged_at), sums)

            # From zero for every record: a small sum would drown in the large one before it.
            carry = carry._replace(sums=optax.tree.zeros_like(carry.sums))
            return jax.lax.fori_loop(begin, end, step, carry)

        def measure(carry: _Carry, num_steps: jax.Array) -> _Records:
            counter = method.gradient_counter
            counted = optax.tree.get(carry.state, counter) if counter else num_steps
            point = method.eval_params(carry.state, carry.params)
            return _Records(
                metrics=problem.metrics(point),
                sums=carry.sums,
                num_gradients=counted,
                diverged_at=carry.diverged_at,
                warnings={
                    name: count
                    for name in WARNINGS
                    if (count := optax.tree.get(carry.state, name)) is not None
                },
            )

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
        self.carry_shape = carry
        self.records_shape = jax.eval_shape(over_seeds(measure, 1), carry, end)
        self.compile_seconds = time.perf_counter() - before


class Run:
    """An experiment in progress: iterate to advance it by one record at a time.

    Iterating again goes on from the last record. So does another ``Run`` with the same arguments,
    in another process too, after :meth:`save` there and :meth:`load` here, bit for bit.

    Args:
      program: the compiled pieces.
      key: random key of the whole experiment.
      num_steps: updates in all.
      record_every: updates between two records, or the numbers of updates to record at (start and
        end are recorded in any case); ``None`` makes about 50 records.
      hyperparams: values of the program's traced hyper-parameters.
    """

    def __init__(
        self,
        program: Program,
        *,
        key: jax.Array,
        num_steps: int,
        record_every: int | Sequence[int] | None = None,
        hyperparams: Mapping[str, Any] | None = None,
    ):
        if num_steps < 1:
            raise ValueError(f"num_steps must be a whole number of at least 1, got {num_steps}.")
        every = max(1, num_steps // 50) if record_every is None else record_every
        if isinstance(every, int):
            if every < 1:
                raise ValueError(f"record_every must be at least 1, got {record_every}.")
            every = range(every, num_steps, every)
        elif any(not 0 <= stop <= num_steps for stop in every):
            raise ValueError(f"record_every must lie in [0, {num_steps}], got {record_every}.")
        self.program, self.num_steps = program, num_steps
        self._stops = sorted({*every, num_steps} - {0})
        self._hyperparams = dict(hyperparams or {})
        start_key, self._sample_keys = (
            jax.random.split(k, program.num_seeds) for k in jax.random.split(key)
        )
        _, self._traced = split_traced(self._hyperparams)
        self._carry = program.start(start_key, self._traced)
        self._rows: list[tuple[int, float, _Records]] = []
        self._identity = storage.plain(
            {
                "problem": program.problem.name,
                "method": program.method.name,
                "hyperparams": self._hyperparams,
                "num_seeds": program.num_seeds,
                "num_steps": num_steps,
                "records": self._stops,
                "key": jax.random.key_data(key).tolist(),
            }
        )

    def __iter__(self) -> Iterator[int]:
        """Yields the number of updates done, after each record."""
        if not self._rows:
            self._record(0, 0.0)
            yield 0
        begin = self._rows[-1][0]
        for end in [stop for stop in self._stops if stop > begin]:
            bounds = (jnp.asarray(n, jnp.int32) for n in (begin, end))
            before = time.perf_counter()
            self._carry = self.program.advance(
                self._carry, self._sample_keys, *bounds, self._traced
            )
            jax.block_until_ready(self._carry)
            self._record(end, time.perf_counter() - before)
            yield end
            begin = end

    def _record(self, step: int, seconds: float) -> None:
        records = self.program.measure(self._carry, jnp.asarray(step, jnp.int32))
        self._rows.append((step, seconds, jax.device_get(records)))

    def save(self, path: str | Path) -> Path:
        """Writes everything that :meth:`load` needs to go on from the last record."""
        steps, seconds, records = zip(*self._rows, strict=True)
        rows = jax.tree.leaves(jax.tree.map(lambda *leaves: np.stack(leaves), *records))
        carry = jax.tree.leaves(jax.device_get(self._carry))
        arrays = {"steps": np.array(steps), "seconds": np.array(seconds)}
        arrays |= {f"records/{i}": leaf for i, leaf in enumerate(rows)}
        arrays |= {f"carry/{i}": leaf for i, leaf in enumerate(carry)}
        return storage.write(path, "half-finished run", arrays, self._identity)

    def load(self, path: str | Path) -> None:
        """Goes back to where :meth:`save` was called, perhaps in another process.

        Raises:
          FileNotFoundError: there is no such file.
          ValueError: the file is something else, or of a run with other arguments; the message
            names them.
        """
        arrays, identity = storage.read(path, "half-finished run")
        if different := [
            f"{name} {identity.get(name)} there, {here} here"
            for name, here in self._identity.items()
            if identity.get(name) != here
        ]:
            raise ValueError(f"{path} is of another run: {'; '.join(different)}.")

        def tree(name: str, shape: Any) -> Any:
            leaves, treedef = jax.tree.flatten(shape)
            # NumPy's files forget the names of types that are not its own, such as bfloat16.
            found = [arrays[f"{name}/{i}"].view(leaf.dtype) for i, leaf in enumerate(leaves)]
            return jax.tree.unflatten(treedef, found)

        self._carry = jax.device_put(tree("carry", self.program.carry_shape))
        records = tree("records", self.program.records_shape)
        self._rows = [
            (int(step), float(seconds), jax.tree.map(lambda leaf, i=i: leaf[i], records))
            for i, (step, seconds) in enumerate(
                zip(arrays["steps"], arrays["seconds"], strict=True)
            )
        ]

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
            sums=stacked.sums,
            diverged_at=stacked.diverged_at[:, -1],
            warnings={name: counts[:, -1] for name, counts in stacked.warnings.items()},
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
    record_every: int | Sequence[int] | None = None,
    checkpoint: str | Path | None = None,
    **hyperparams: Any,
) -> RunResult:
    """Runs a method on a problem and returns what was measured.

    Args:
      problem: what to minimize.
      method: a row of the catalog, see :func:`stochopt.catalog.find`.
      key: random key of the whole experiment.
      num_steps: updates.
      num_seeds: independent repetitions, with starting points and batches of their own.
      record_every: updates between two records, or the numbers of updates to record at; ``None``
        makes about 50 records.
      checkpoint: file to write after every record. If it exists, the run goes on from there, bit
        for bit as if it had never stopped.
      **hyperparams: those that differ from the catalog's defaults.
    """
    program = Program(problem, method, num_seeds, hyperparams)
    experiment = Run(
        program, key=key, num_steps=num_steps, record_every=record_every, hyperparams=hyperparams
    )
    if checkpoint is not None and Path(checkpoint).exists():
        experiment.load(checkpoint)
    for _ in experiment:
        if checkpoint is not None:
            experiment.save(checkpoint)
    return experiment.result
