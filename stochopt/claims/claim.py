"""What is claimed of a method's convergence, in the form that a measurement can contradict."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp

from stochopt.problems import Problem

#: From a horizon :math:`T` to the hyper-parameters of a run of :math:`T` updates.
Constants = Callable[[Any], Mapping[str, Any]]


def powers_of_two(first: int, last: int) -> tuple[int, ...]:
    r"""The horizons :math:`2^{first}, \dots, 2^{last}`."""
    return tuple(2**k for k in range(first, last + 1))


def powers(caps: Mapping[str, float] | None = None, **constants: tuple[float, float]) -> Constants:
    """Each constant a factor and a negative power of the horizon, at most its cap or one."""
    at_most = dict.fromkeys(constants, 1.0) | dict(caps or {})
    return lambda horizon: {
        name: jnp.minimum(c / horizon**p, at_most[name]) for name, (c, p) in constants.items()
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Control:
    """A deliberately wrong variant, which must fail the same test.

    Attributes:
      name: what is wrong with it.
      constants: other hyper-parameters than the claim's.
      bias: part of the initial gradient norm by which every oracle is biased.
      method: fields of the :class:`stochopt.catalog.Method` that differ, such as ``factory``.
    """

    name: str
    constants: Constants | None = None
    bias: float = 0.0
    method: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Claim:
    r"""A measure is :math:`O(T^{-p})` over runs of :math:`T` updates with constants fit for it.

    Attributes:
      setting: assumptions in a few words.
      theorem: who proved it, where.
      problem: makes the problem to measure on.
      constants: hyper-parameters as a function of the horizon :math:`T`.
      measure: ``"gradient_norm"``, ``"squared_gradient_norm"``, a metric of the problem, or
        ``"<name>_error"``: the mean squared distance of the method's estimate ``name`` from its
        exact value.
      exponent: :math:`p`.
      control: what must fail.
      over: average the measure over the whole ``"run"``, or over its last quarter, the ``"tail"``.
      two_sided: whether faster is wrong too, because the exponent follows from a closed form and
        not from an upper bound.
      horizons: the ladder of :math:`T`.
    """

    setting: str
    theorem: str
    problem: Callable[[], Problem]
    constants: Constants
    measure: str
    exponent: float
    control: Control
    over: Literal["run", "tail"] = "run"
    two_sided: bool = False
    horizons: Sequence[int] = powers_of_two(8, 16)
