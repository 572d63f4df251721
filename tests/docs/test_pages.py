"""The Python code of README.md and of the pages of the documentation runs as it is printed."""

import ast
import inspect
import re
from pathlib import Path

import matplotlib
import pytest

import memgpt_jax as mg
from memgpt_jax.memory import MEMORIES

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(
    r"^```(?:\{code-cell\} *|\{code-block\} *)?(python|ipython3|py) *\n(.*?)^```", re.DOTALL | re.MULTILINE
)


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page that run, code cells of notebooks included."""
    return [code for label, code in FENCE.findall(page.read_text()) if label != "py"]


def all_blocks(page: Path) -> list[str]:
    """`blocks`, and the `py` blocks, which need a network, a trained run or the reader's own texts."""
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


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


WITH_CODE = [page for page in PAGES if blocks(page)]


@pytest.mark.slow  # the tests of each folder run by default what the pages show; names and arguments are checked below
@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_blocks_of_the_page_run(page):
    run(page, blocks(page))


def public(node: ast.expr):
    """The object that `mg.a.b` names; None for other expressions."""
    if isinstance(node, ast.Attribute):
        parent = mg if isinstance(node.value, ast.Name) and node.value.id == "mg" else public(node.value)
        return None if parent is None else getattr(parent, node.attr)
    return None


def check_names(code: str) -> None:
    """Every import of a block, and every name and argument of this package in it, exists."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), "import", "exec"), {})
        elif isinstance(node, ast.Attribute):
            public(node)
        elif isinstance(node, ast.Call) and (function := public(node.func)) is not None:
            # Of unpacked arguments the names are unknown: they are left out.
            args = [word for word in node.args if not isinstance(word, ast.Starred)]
            inspect.signature(function).bind_partial(*args, **{word.arg: word for word in node.keywords if word.arg})


@pytest.mark.parametrize("page", [page for page in (README, *PAGES) if all_blocks(page)], ids=name_of)
def test_names_and_arguments_of_the_page_exist(page):
    for code in all_blocks(page):
        check_names(code)


@pytest.mark.parametrize(
    "code, error",
    [
        ("mg.Nothing", AttributeError),
        ("mg.ModelConfig(widht=3)", TypeError),
        ("import memgpt_jax.nothing", ImportError),
    ],
)
def test_a_name_or_argument_that_does_not_exist_is_found(code, error):
    with pytest.raises(error):
        check_names(code)


def test_all_fences_are_known():
    """No code escapes the tests by an unusual label."""
    known = {"python", "sh", "text", "toctree", "ledger", "benchmark", "mechanism", "fields", "members", "namespace"}
    known |= {"py"}  # Python that is not run: see `all_blocks`
    known |= {"code-cell", "code-block", "literalinclude", "eval-rst"}
    for page in [README, *PAGES]:
        labels = re.findall(r"^`{3,}\{?([\w-]+)", page.read_text(), re.MULTILINE)
        assert set(labels) <= known, f"{page}: {set(labels) - known}"
