"""A small folder corpus; running as another user."""

import os
import tempfile
from pathlib import Path

import pytest

from memgpt_jax.config.data import TextConfig
from memgpt_jax.data import OBJECTIVES


@pytest.fixture
def folder_config(tmp_path):
    """A function that makes a TextConfig of a folder with {split: texts}; `objective` is a name in OBJECTIVES."""

    def make(documents=None, mask_rate=None, **changes):
        documents = documents or {"train": [f"document {i} " * (i + 1) for i in range(6)], "valid": ["held out"]}
        for split, texts in documents.items():
            (tmp_path / "corpus" / split).mkdir(parents=True, exist_ok=True)
            for index, text in enumerate(texts):
                (tmp_path / "corpus" / split / f"{index}.txt").write_text(text)
        defaults = {"corpus": "folder", "path": str(tmp_path / "corpus"), "tokenizer": "byte"}
        if "objective" in changes:
            changes["objective"] = OBJECTIVES[changes["objective"]].config(
                **{} if mask_rate is None else {"mask_rate": mask_rate}
            )
        return TextConfig(**defaults | {"cache_dir": str(tmp_path / "cache")} | changes)

    return make


@pytest.fixture
def as_nobody():
    """A folder that every user can read, and a function that drops root's permissions until the test ends."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder), lambda: os.seteuid(65534)
        os.seteuid(0)
