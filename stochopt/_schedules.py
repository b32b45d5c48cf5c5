"""Numbers that may be schedules."""

from typing import Any

import jax
import optax


def value_at(rate: optax.ScalarOrSchedule, count: jax.Array) -> Any:
    """The value of a number or schedule at the update number ``count``."""
    return rate(count) if callable(rate) else rate
