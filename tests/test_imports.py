"""Imports flow one way, heavy libraries stay where they belong, and importing the package is cheap."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "memgpt_jax"

# What each part may import of the others. `config` and its parts hold plain values; everything may read them.
CONFIG_PARTS = {"config_data", "config_memory", "config_model", "config_positions", "config_reading", "config_tasks"}
LAYERS = {
    "shapes": set(),
    "paths": set(),
    "checks": set(),
    "checksums": {"paths"},
    "config_data": {"checks"},
    "config_memory": {"checks"},
    "config_model": {"checks", "config"},
    "config_positions": {"checks"},
    "config_reading": {"checks", "config"},
    "config_tasks": {"checks", "config"},
    "config": {"checks"},
    "config_json": {"config"},
    "ops": {"shapes"},
    "memory": {"shapes", "config", "ops"},
    "models": {
        "shapes",
        "checks",
        "config",
        "ops",
        "memory",
        "generation",
        "interop",
    },  # the last two: in `MemGPT.generate`, ...
    "parallel": {"checks", "config", "ops"},
    "parameters": {"config", "models"},
    "data": {"checksums", "config", "hub", "paths"},
    "hub": set(),
    "plots": set(),
    "command_line": {"config", "memory"},
    "generation": {"shapes", "checks", "checksums", "config", "config_json", "ops", "memory", "models"},
    "interop": {"shapes", "checks", "checksums", "config", "config_json", "data", "hub", "memory", "models", "ops"}
    | {"training"},
    "evaluate": {"config", "models", "data", "ops"},
    "needle_stream": {"config", "models", "data", "evaluate"},
    "runs": {"config", "command_line", "data", "training"},
    "verification": {"checksums", "training"},
    "machine": set(),
    "benchmark": {"config", "data", "generation", "machine", "memory", "models", "parallel", "parameters", "training"},
    "ledger": {"command_line", "config", "evaluate", "machine", "memory", "needle_stream", "runs", "training"}
    | {"checks", "paths"},
    "training": {
        "shapes",
        "checks",
        "checksums",
        "machine",
        "paths",
        "config",
        "config_json",
        "ops",
        "memory",
        "models",
        "data",
        "evaluate",
        "parallel",
    }
    | {"interop"},
    "": {"config", "ops", "memory", "models", "parameters", "data", "generation", "interop", "evaluate", "training"},
}
ONLY_IN = {
    "orbax": ["training/checkpoint.py", "training/orbax_files.py"],
    "tensorflow_datasets": ["data/"],
    "array_record": ["data/"],
    "grain": ["data/"],
    "pyarrow": ["data/reading.py"],
    "sentencepiece": ["data/"],
    "matplotlib": ["plots.py"],
    "tyro": ["command_line.py"],
    "torch": ["benchmark/peers.py"],
    "transformers": ["benchmark/peers.py"],
    "tensorflow": [],
    "safetensors": ["interop/tensors.py", "generation/session.py"],
    "gguf": ["interop/gguf.py", "data/gguf_reader.py"],
    "tokenizers": ["data/tokenizer_json.py"],
    "huggingface_hub": ["hub.py"],
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
def test_layers(path):
    part = part_of(path)
    assert part in LAYERS, f"say in LAYERS what {part} may import"
    used = {name.split(".")[1] for name in imported(path) if name.startswith("memgpt_jax.")}
    values = CONFIG_PARTS if "config" in {part, *LAYERS[part]} else set()
    assert not used - LAYERS[part] - {part} - values


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
