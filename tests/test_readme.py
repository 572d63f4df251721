"""Every Python block of the README runs as it stands."""

import re
from pathlib import Path

import pytest

from memgpt_jax.memory import MEMORIES

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readme_shows_code():
    assert len(BLOCKS) >= 2


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {number}" for number in range(1, len(BLOCKS) + 1)])
def test_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # blocks may write files
    before = set(MEMORIES)
    exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    for name in set(MEMORIES) - before:
        MEMORIES.unregister(name)
