"""What a written record needs besides its numbers."""

import math
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import jax


def environment() -> dict[str, Any]:
    """What a run needs to be repeated: arguments, versions, device."""
    packages = ("stochopt", "jax", "jaxlib", "optax", "numpy")
    return {
        "arguments": sys.argv[1:],
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "device": jax.devices()[0].device_kind,
    }


def finite(value: Any) -> Any:
    """``value`` with ``None`` for every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
