"""The Python code of README.md and of the pages of the documentation runs as it is printed."""

import re
from pathlib import Path

import matplotlib
import pytest

from memgpt_jax.memory import MEMORIES

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(r"^```(?:\{code-cell\} *|\{code-block\} *)?(python|ipython3) *\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page, code cells of notebooks included."""
    return [code for _, code in FENCE.findall(page.read_text())]


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """Blocks may write files, draw, and register mechanisms."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    known = set(MEMORIES)
    yield
    for name in set(MEMORIES) - known:
        MEMORIES.unregister(name)


def run(page: Path, codes: list[str]) -> None:
    """Execute blocks one after the other in one namespace."""
    namespace = {"__name__": "__main__"}
    for number, code in enumerate(codes, 1):
        exec(compile(code, f"{page.name}, block {number}", "exec"), namespace)


@pytest.mark.parametrize("number", range(len(blocks(README))))
def test_block_of_the_readme_runs(number):
    run(README, [blocks(README)[number]])


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_blocks_of_the_page_run(page):
    run(page, blocks(page))


def test_all_fences_are_known():
    """No code escapes the tests by an unusual label."""
    known = {"python", "sh", "text", "toctree", "ledger", "benchmark", "mechanism", "fields", "members", "namespace"}
    known |= {"py"}  # Python that needs a network; not run
    known |= {"code-cell", "code-block", "literalinclude", "eval-rst"}
    for page in [README, *PAGES]:
        labels = re.findall(r"^`{3,}\{?([\w-]+)", page.read_text(), re.MULTILINE)
        assert set(labels) <= known, f"{page}: {set(labels) - known}"
