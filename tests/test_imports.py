"""Imports flow one way, heavy libraries stay where they belong, and importing the package is cheap."""

import ast
import graphlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "memgpt_jax"

# The parts of the package from the lowest floor to the highest. A part imports those before it, and no other: there are
# no exceptions, and an import inside a function counts like any other.
FLOORS = {
    "values": ["shapes", "errors", "files", "config"],
    "arrays": ["ops"],
    "modules": ["memory", "models"],
    "work": [
        "parallel",
        "data",
        "generation",
        "inspector",
        "evaluation",
        "checkpoint",
        "interop",
        "knowledge",
        "training",
        "pipelines",
        "serving",
    ],
    "doors": ["studies", ""],  # "": memgpt_jax/__init__.py
}
PARTS = [part for floor in FLOORS.values() for part in floor]
ALLOWED = {part: set(PARTS[:index]) for index, part in enumerate(PARTS)}
ALLOWED["data"] = set(FLOORS["values"])  # data sets and tokenizers work without a model
ALLOWED[""] -= {"studies"}  # the library does not import the experiments
ONLY_IN = {
    "orbax": ["checkpoint/"],
    "tensorflow_datasets": ["data/"],
    "array_record": ["data/"],
    "grain": ["data/"],
    "pyarrow": ["data/corpora/reading.py"],
    "sentencepiece": ["data/"],
    "matplotlib": ["studies/plots.py"],
    "tyro": ["studies/"],
    "torch": ["studies/benchmark/peers.py"],
    "transformers": ["studies/benchmark/peers.py"],
    "tensorflow": [],
    "safetensors": ["interop/tensors.py", "generation/document.py"],
    "fastapi": ["serving/", "studies/benchmark/serving.py"],
    "starlette": ["serving/"],
    "pydantic": ["serving/"],
    "jinja2": ["serving/chat.py"],
    "prometheus_client": ["serving/"],
    "uvicorn": ["studies/commands/serve.py", "studies/benchmark/serving.py"],
    "gguf": ["interop/gguf.py", "data/tokenizers/gguf_reader.py"],
    "tokenizers": ["data/tokenizers/json_file.py"],
    "huggingface_hub": ["data/hub.py"],
}

IMPORT_AND_REPORT = """
import sys, time
import jax, flax
start = time.process_time()
import memgpt_jax
seconds = time.process_time() - start
import json
from jax._src import xla_bridge
loaded = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps({"seconds": seconds, "loaded": loaded, "devices": xla_bridge.backends_are_initialized()}))
"""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Dotted names of all that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part_of(path: Path) -> str:
    """The layer of a file: `ops` for memgpt_jax/ops/read.py, `` for memgpt_jax/__init__.py."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    part = part_of(path)
    assert part in PARTS, f"put {part!r} on a floor of FLOORS"
    used = {name.split(".")[1] for name in imported(path) if name.startswith("memgpt_jax.")}
    assert not used - ALLOWED[part] - {part}


def test_no_circle_of_files():
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in modules()}
    graph = {}
    for path in modules():
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found = {used if used in names else used.rpartition(".")[0] for used in imported(path)}
        graph[name] = (found & names) - {name, "memgpt_jax"}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_stay_in_place(path):
    name = str(path.relative_to(PACKAGE))
    used = {imported_name.split(".")[0] for imported_name in imported(path)}
    for library in used & set(ONLY_IN):
        assert any(name.startswith(place) for place in ONLY_IN[library]), f"{library} does not belong into {name}"


def test_importing_is_cheap():
    # Its own process, as this one has everything loaded; the better of two, as a first import may write bytecode.
    command = [sys.executable, "-c", IMPORT_AND_REPORT]
    outputs = [subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout for _ in range(2)]
    reports = [json.loads(output) for output in outputs]
    heavy = {"tensorflow_datasets", "sentencepiece", "orbax", "grain", "array_record", "matplotlib", "tensorboardX"}
    assert not heavy & set(reports[0]["loaded"])
    assert not reports[0]["devices"]
    assert min(report["seconds"] for report in reports) < 2.0
