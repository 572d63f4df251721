"""A stream of a million tokens: one compilation, flat memory, flat time."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[2] / "experiments" / "benchmark.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("by_token", [False, True], ids=["read", "written"])
def test_a_stream_needs_one_compilation_and_no_more_memory(benchmark, by_token):
    found = benchmark.stream_measurements(40_000, by_token)
    assert found["compilations"] == 1
    assert found["growth"] <= 16


@pytest.mark.slow
@pytest.mark.parametrize("by_token", [False, True], ids=["read", "written"])
def test_a_million_tokens(benchmark, by_token):
    found = benchmark.stream_measurements(1_000_000, by_token)
    assert found["compilations"] == 1
    assert found["growth"] <= 16
    assert found["milliseconds"][9] <= 1.1 * found["milliseconds"][1]
