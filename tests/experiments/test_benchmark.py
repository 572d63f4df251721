"""A stream of a million tokens: one compilation, flat memory, flat time; and how speeds are compared."""

import importlib.util
import time
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


def script(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def benchmark():
    return script("benchmark")


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


def test_speeds_are_relative_to_the_reference(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    compare = script("benchmark_mechanisms").relative_speed
    fast, slow = (lambda seconds=seconds: time.sleep(seconds) for seconds in (0.02, 0.06))
    assert 0.2 < compare(slow, fast, rounds=2) < 0.5
