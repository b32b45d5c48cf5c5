"""Every Python block of the README runs as it stands, and trains."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_two_blocks():
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS, ids=["optax loop", "nnx"])
def test_block_runs_and_lowers_the_loss(block):
    namespace = {}
    exec(block, namespace)
    assert float(namespace["value"]) < 0.1
