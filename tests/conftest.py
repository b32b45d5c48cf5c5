"""Eight CPU devices, strict numerics on demand, and one hypothesis profile."""

import hypothesis
import jax
import pytest

pytest.register_assert_rewrite("state_checks")

# Before anything touches a device.
jax.config.update("jax_num_cpu_devices", 8)

hypothesis.settings.register_profile(
    "stochopt", deadline=None, max_examples=50, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("stochopt")


def pytest_collection_modifyitems(items):
    """The longest file starts first, so that no other process waits for it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)


@pytest.fixture
def x64():
    """Double precision for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def strict():
    """No silent dtype or rank promotion for one test."""
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    yield
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    jax.config.update("jax_numpy_rank_promotion", "allow")
