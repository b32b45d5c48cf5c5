"""What a row of the catalog says of a method, and how it is built for a problem."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax.numpy as jnp
import optax

from stochopt.claims import Claim
from stochopt.problems import ORACLES, Problem

# Factory arguments that a problem supplies, to its fields: the oracles, and what goes with them.
_FROM_PROBLEM = {
    name: name
    for name in (
        *ORACLES,
        "inner_shape",
        "lower_params",
        "num_batches",
        "num_blocks",
        "num_sampled",
        "num_samples",
        "prox",
        "sample",
    )
} | {"num_examples": "num_blocks"}

# A factory that takes ``prox`` too wants them without the simple part.
_BESIDE_PROX = {"loss": "unregularized", "full_loss": "full_unregularized"}


#: Name to ``function(state)``: what a state holds an estimate of.
Estimates = Mapping[str, Callable[[Any], Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """A method, as experiments, tests, documentation and the command line see it.

    Attributes:
      name: unique; optax's own methods carry the path below ``optax``.
      factory: returns the transformation. Arguments named like an oracle (or ``inner_shape``,
        ``lower_params``, ``num_batches``, ``num_blocks``, ``num_sampled``, ``num_samples``,
        ``sample``) are taken from the :class:`stochopt.problems.Problem`; ``num_examples`` is its
        ``num_blocks``. Beside ``prox``, ``loss`` and ``full_loss`` are those without the simple
        part.
      family: heading of the list.
      summary: one line.
      paper: authors, year and where to read it.
      defaults: hyper-parameters that differ from the factory's own or that it has no default for.
      from_problem: further arguments of the factory that the problem supplies, to its fields.
      gradient_of: the oracle whose gradient is fed to ``update``, or ``"unregularized"`` of the
        problem; ``None`` for an estimator, which calls its oracles itself.
      takes: what ``update`` gets as ``batch``: the problem's ``"batch"``, or its view ``"blocks"``
        (with ``block_indices``) or ``"data"``, or the batch with ``"sample_indices"``.
      independent_jacobian: whether experiments draw a second batch for the Jacobian of the inner
        function (``jacobian_batch``, and its blocks), for a method that needs independence.
      gradient_counter: name in the state that counts gradient evaluations; ``None`` means that
        every update costs one.
      eval_params: ``eval_params(state, params)``, the point to evaluate.
      estimates: name to ``function(state)``: what the state holds an estimate of, under the names
        of ``exact`` of a :class:`stochopt.problems.Problem`.
      claims: the convergence rates that are claimed of the method.
      seeds: how an experiment batches seeds: ``"vmap"``, or ``"map"`` for methods that branch
        (``vmap`` runs both branches of a ``cond``).
    """

    name: str
    factory: Callable[..., optax.GradientTransformation]
    family: str
    summary: str
    paper: str
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    from_problem: Mapping[str, str] = dataclasses.field(default_factory=dict)
    gradient_of: str | None = "loss"
    takes: Literal["batch", "blocks", "data", "sample_indices"] = "batch"
    independent_jacobian: bool = False
    gradient_counter: str | None = None
    eval_params: Callable[[Any, Any], Any] = lambda state, params: params
    estimates: Estimates = dataclasses.field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    seeds: Literal["vmap", "map"] = "vmap"

    @property
    def bound(self) -> tuple[str, ...]:
        """Arguments of the factory that the problem supplies."""
        return tuple(self._sources)

    @property
    def _sources(self) -> dict[str, str]:
        """The bound arguments, to fields of the problem."""
        parameters = inspect.signature(self.factory).parameters
        fields = _FROM_PROBLEM | (_BESIDE_PROX if "prox" in parameters else {})
        fields |= self.from_problem
        return {name: fields[name] for name in parameters if name in fields}

    @property
    def oracles(self) -> tuple[str, ...]:
        """Every oracle that a problem must offer."""
        bound = (name for name in self.bound if name in ORACLES)
        view = None if self.takes == "batch" else self.takes
        return tuple(filter(None, (self.gradient_of, *bound, *self.from_problem.values(), view)))

    @property
    def hyperparams(self) -> dict[str, Any]:
        """Every hyper-parameter with its default; ``inspect.Parameter.empty`` without one."""
        parameters = inspect.signature(self.factory).parameters.values()
        own = {p.name: p.default for p in parameters if p.name not in self._sources}
        return {**own, **self.defaults}

    def make(self, problem: Problem, **hyperparams: Any) -> optax.GradientTransformationExtraArgs:
        """Builds the transformation for ``problem``.

        Raises:
          ValueError: the problem lacks an oracle, or a hyper-parameter is unknown.
        """
        bound_oracles = (self._sources[name] for name in self.bound if name in ORACLES)
        if missing := problem.missing(tuple(dict.fromkeys((*self.oracles, *bound_oracles)))):
            raise ValueError(
                f"{self.name} needs the oracles {', '.join(self.oracles)}; "
                f"problem {problem.name!r} has no {', '.join(missing)}."
            )
        if unknown := set(hyperparams) - set(self.hyperparams):
            raise ValueError(
                f"{self.name} has no hyper-parameter {', '.join(sorted(unknown))}; "
                f"it has {', '.join(self.hyperparams)}."
            )
        bound = {name: getattr(problem, field) for name, field in self._sources.items()}
        transformation = self.factory(**bound, **{**self.defaults, **hyperparams})
        return optax.with_extra_args_support(transformation)


def inverse_sqrt(start: float, knee: float) -> optax.Schedule:
    r"""The schedule :math:`s / \sqrt{1 + t / k}`: flat for ``knee`` updates, then decaying."""
    return lambda count: start / jnp.sqrt(1 + count / knee)


def held(**fields: str) -> Estimates:
    """Estimates that a state holds as they are: what they are of, to the name in the state."""
    return {of: functools.partial(optax.tree.get, key=field) for of, field in fields.items()}
