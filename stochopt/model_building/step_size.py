"""The trial step size of model building, and its automatic adjustment."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from stochopt import _tree
from stochopt._checks import check_count, check_range
from stochopt._schedules import value_at


class StepSizeRule(NamedTuple):
    """Learning rate times an adjustment that follows the share of model steps.

    After every ``adjust_every`` updates the adjustment shrinks by ``adjust_factor`` when more than
    ``adjust_fraction`` of them were model steps, and else grows by it, unless the step size would
    leave ``max_learning_rate``.
    """

    learning_rate: Any
    adjust_every: Any
    adjust_fraction: Any
    adjust_factor: Any
    max_learning_rate: Any

    def check(self) -> None:
        """Raises ``ValueError`` for a hyper-parameter out of range."""
        check_range("learning_rate", self.learning_rate, "[0, inf)")
        if self.adjust_every is not None:
            check_count("adjust_every", self.adjust_every)
        check_range("adjust_fraction", self.adjust_fraction, "[0, 1]")
        check_range("adjust_factor", self.adjust_factor, "(0, 1)")
        check_range("max_learning_rate", self.max_learning_rate, "(0, inf)")

    def current(self, count: jax.Array, adjustment: jax.Array) -> jax.Array:
        """The step size of this update."""
        rate = value_at(self.learning_rate, count)
        return (rate * adjustment).astype(adjustment.dtype)

    def adjust(
        self,
        count: jax.Array,
        adjustment: jax.Array,
        num_model_steps: jax.Array,
        steps_per_model_step: int,
    ) -> tuple[jax.Array, jax.Array]:
        """The next ``(adjustment, num_model_steps)``; the latter counts within a period.

        A method that can make a model step only every ``steps_per_model_step``-th update is held
        to that part of ``adjust_fraction``.
        """
        if self.adjust_every is None:
            return adjustment, num_model_steps
        ends = (count + 1) % self.adjust_every == 0
        every = jnp.asarray(self.adjust_every, adjustment.dtype)
        tolerated = self.adjust_fraction * every / steps_per_model_step
        shrinks = num_model_steps.astype(adjustment.dtype) > tolerated
        step_size = self.current(count, adjustment)
        grows = step_size / self.adjust_factor <= self.max_learning_rate
        growth = jnp.where(grows, 1 / self.adjust_factor, 1.0)
        factor = jnp.where(ends, jnp.where(shrinks, self.adjust_factor, growth), 1.0)
        return (
            (adjustment * factor).astype(adjustment.dtype),
            jnp.where(ends, 0, num_model_steps),
        )


def count_if(counter: jax.Array, happened: jax.Array) -> jax.Array:
    """One more where it happened, saturating."""
    return jnp.where(happened, optax.safe_increment(counter), counter)


def initial_fields(params: Any) -> dict[str, jax.Array]:
    """The fields that both states begin with; no two share a buffer."""
    dtype = _tree.scalar_dtype(*jax.tree.leaves(params))
    counters = ("count", "num_gradients", "num_model_steps")
    return {
        **{name: jnp.zeros([], jnp.int32) for name in counters},
        "adjustment": jnp.ones([], dtype),
        "step_size": jnp.zeros([], dtype),
    }
