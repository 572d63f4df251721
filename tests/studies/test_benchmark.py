"""Benchmarks take interleaving and write tables and plots; a stream needs one compilation and no more memory."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax import data
from memgpt_jax.checkpoint import load_run
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import ExperimentConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import batch_shapes
from memgpt_jax.memory import layer_memory_bytes
from memgpt_jax.models import from_params
from memgpt_jax.models.parameters import count_parameters
from memgpt_jax.studies import benchmark
from memgpt_jax.studies.benchmark import Case, interleaving
from memgpt_jax.studies.benchmark.training import forward_flops
from memgpt_jax.studies.command_line import load_config, override
from memgpt_jax.studies.commands import benchmark as command
from memgpt_jax.training import train

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "benchmark.py"
TINY = [
    *("--model.vocab_size", "64", "--model.d_model", "16", "--model.num_layers", "1", "--model.num_heads", "2"),
    *("--model.window_size", "16", "--model.segment_length", "16", "--rounds", "1"),
    *("--training.batch_size", "1", "--training.sequence_length", "32"),
]


@pytest.fixture
def uncompiled():
    """Programs that other tests of this process compiled would not be counted."""
    jax.clear_caches()


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("by_token", [False, True], ids=["read", "written"])
def test_a_stream_needs_one_compilation_and_no_more_memory(by_token):
    found = benchmark.long_stream_measurements(20_000, by_token)  # the growth of the last half
    assert found["compilations"] == 1
    assert found["growth"] <= 16


@pytest.mark.slow
@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("by_token", [False, True], ids=["read", "written"])
def test_a_million_tokens(by_token):
    found = benchmark.long_stream_measurements(1_000_000, by_token)
    assert found["compilations"] == 1
    assert found["growth"] <= 16
    assert found["milliseconds"][9] <= 1.1 * found["milliseconds"][1]


@pytest.fixture
def clock(monkeypatch):
    """Seconds of a clock that only cases move, by `clock[0] += seconds`."""
    seconds = [0.0]
    monkeypatch.setattr(interleaving, "time", SimpleNamespace(perf_counter=lambda: seconds[0]))
    return seconds


def test_candidates_interleave(clock):
    order = []

    def case(name, seconds):
        def run():
            order.append(name)
            clock[0] += seconds * (10 if order[-2:] != [name, name] else 1)  # the first of a turn is slow
            return seconds / 2

        return Case(run=run)

    times = benchmark.interleave({"fast": case("fast", 0.25), "slow": case("slow", 1.0)}, rounds=2)
    assert order == 2 * (4 * ["fast"] + 4 * ["slow"])
    assert times == {"fast": benchmark.Medians(0.25, 0.125), "slow": benchmark.Medians(1.0, 0.5)}


def test_a_row_reports_the_share_of_the_machines_peak():
    case = Case(run=lambda: 0.0, tokens=10, flops=600, bytes_moved=50, facts={"parameters": 7})
    probe = Case(run=lambda: 0.0, flops=1000, bytes_moved=100)
    row = benchmark.measured_row(case, benchmark.Medians(2.0, 0.5), probe, benchmark.Medians(1.0, 0.0))
    assert row == {
        "tokens/s": 5.0,
        "host, ms": 500.0,
        "share of matmul rate": 0.3,
        "share of memory rate": 0.25,
        "parameters": 7,
    }


def test_a_larger_memory_is_not_tried_where_a_smaller_is_too_slow(clock):
    def maker(memory, size, seconds):
        label = {"model.memory": memory, "model.memory.memory_size": size}
        return label, lambda: Case(run=lambda: clock.__setitem__(0, clock[0] + seconds) or 0.0, tokens=1)

    makers = [maker("none", None, 1.0), maker("kv", "8", 16.0), maker("kv", "16", 2.0), maker("knn", "16", 2.0)]
    kept = []
    probe = Case(run=lambda: clock.__setitem__(0, clock[0] + 1.0) or 0.0)
    rows = command.measure([(*maker, probe) for maker in makers], rounds=1, keep=lambda rows: kept.append(len(rows)))
    assert kept == [1, 2, 3]
    assert [row["model.memory"] for row in rows] == ["none", "kv", "knn"]
    assert [row["relative speed"] for row in rows] == [1, 1 / 16, 1 / 2]


def test_a_reference_that_fails_ends_the_benchmark(clock):
    def case():
        return Case(run=lambda: clock.__setitem__(0, clock[0] + 1.0) or 0.0, tokens=1)

    def fails():
        raise ValueError("out of memory\nat 0x0")

    kept = []
    makers = [({"rows": rows}, make, case()) for rows, make in ((1, fails), (2, case))]
    with pytest.raises(ValueError, match=r"the first case, rows=1, is the reference, .* measured: out of memory$"):
        command.measure(makers, rounds=1, keep=kept.append)
    assert not kept
    rows = command.measure(makers[::-1], rounds=1, keep=kept.append)
    assert rows[1] == {"rows": 1, "failed": "out of memory"} and rows[0]["relative speed"] == 1


def test_each_dtype_has_its_own_probe(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(command, "measure", lambda makers, rounds, keep: found.extend(makers) or [])
    monkeypatch.setattr(benchmark, "matmul_probe", lambda dtype: dtype)
    words = ["--sweep", "model.dtype=float32,bfloat16", "model.window_size=8,16", "--output", str(tmp_path)]
    monkeypatch.setattr(command, "draw", lambda *_: None)
    command.main(["train", "recall", *words])
    assert [(label["model.dtype"], probe) for label, _, probe in found] == [
        (dtype, dtype) for dtype in ("float32", "bfloat16") for _ in range(2)
    ]


def test_peers_are_run_as_often_as_ours():
    pytest.importorskip("transformers", reason="transformers and torch are not installed")
    model = ModelConfig(vocab_size=64, d_model=16, num_layers=1, num_heads=2, window_size=16, segment_length=16)
    config = ExperimentConfig(model=model, training=TrainingConfig(batch_size=2, sequence_length=32))
    peers = benchmark.training_peers(config)["GPT-2 of transformers"](), *benchmark.decoding_peers(config, 2).values()
    training, decoding = peers[0], peers[1]()
    assert (training.tokens, decoding.tokens) == (64, 2 * 64)
    for case in (training, decoding):
        assert all(case.run() > 0 for _ in range(2))


@pytest.mark.slow
def test_candidates_are_our_training_step_and_our_decoding():
    memory = KVMemoryConfig(memory_size=16)
    model = ModelConfig(vocab_size=64, d_model=16, num_layers=1, window_size=16, segment_length=16, memory=memory)
    config = ExperimentConfig(model=model, training=TrainingConfig(batch_size=2, sequence_length=32))
    training, decoding = benchmark.training_case(config), benchmark.decoding_case(model, context=32, rows=3)
    assert training.tokens == 64 and decoding.tokens == 3 * 64
    assert training.facts["parameters"] == decoding.facts["parameters"] == count_parameters(model)
    assert training.facts["state bytes"] == layer_memory_bytes(model) and training.facts["temporary bytes"] > 0
    assert training.flops == 3 * forward_flops(model, batch_shapes(config.data, config.training))
    assert decoding.bytes_moved > 64 * (4 * count_parameters(model) + 3 * layer_memory_bytes(model))
    for case in (training, decoding):
        assert all(case.run() > 0 for _ in range(2))


@pytest.mark.slow
def test_a_run_with_compressed_memories(tmp_path):
    """The row of a size and a way is the loss of a model of this size that goes on from the compressed state."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(80):
        (folder / f"{number}.txt").write_text(f"{number} bottles of beer on the wall, " * 8)
    config = ExperimentConfig(
        model=ModelConfig(
            vocab_size=257,
            d_model=16,
            num_layers=1,
            num_heads=2,
            window_size=8,
            segment_length=8,
            memory=KVMemoryConfig(memory_size=32, num_heads=2, head_dim=8),
        ),
        data=TextConfig(corpus="folder", path=str(folder), tokenizer="byte", cache_dir=str(tmp_path / "cache")),
        training=TrainingConfig(steps=2, batch_size=2, sequence_length=32),
    )
    train(config, tmp_path / "run", print_progress=False)
    found = benchmark.compressed_rows(tmp_path / "run", (16, 8), ("merge", "oldest"), 64, 24, 2)
    assert [(row["entries"], row["by"]) for row in found] == [
        (32, "all"),
        *((size, by) for size in (16, 8) for by in ("merge", "oldest")),
    ]
    assert found[1]["share of bytes"] < 0.6 and found[3]["kB"] < found[1]["kB"] < found[0]["kB"]
    assert len({row["bits per byte"] for row in found}) == 5 and found[0]["worse by, %"] == 0
    run = load_run(tmp_path / "run")
    model, texts = from_params(run.config.model, run.params), data.documents(config.data, "valid", run.tokenizer)
    nats = 0.0
    for index in range(2):
        ids = np.array([256, *texts[index]], np.int32)[None]
        small, state = mg.compress_memory(model, model(ids[:, :64])[1], 8)
        scores, _ = small.score(ids[:, 64:88], {"tokens": ids[:, 65:89]}, state)
        nats += float(scores["tokens"].losses.sum())
    assert found[3]["bits per byte"] == pytest.approx(nats / np.log(2) / 48, rel=1e-4)
    with pytest.raises(ValueError, match="no document of the validation split has 100,000 tokens"):
        benchmark.compressed_rows(tmp_path / "run", (8,), ("merge",), 99_000, 1000, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["span_corruption", pytest.param("permutation", marks=pytest.mark.slow)])
def test_a_step_of_other_objectives_has_all_their_arrays(name):
    stacks = ("encoder.", "decoder.") if name == "span_corruption" else ("",)
    words = [word for stack in stacks for word in (f"--model.{stack}num_layers", "1", f"--model.{stack}d_model", "16")]
    words += ["--training.batch_size", "2"]
    case = benchmark.training_case(override(load_config(name), words))
    assert case.flops > 0 and all(case.run() > 0 for _ in range(2))


@pytest.mark.slow
def test_the_script_writes_table_and_plot(tmp_path):
    def run(*words):
        return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, cwd=tmp_path)

    sweep = ["--sweep", "model.memory=none,kv", "model.memory.memory_size=16"]
    done = run("train", "benchmark", *TINY, *sweep, "--output", "out")
    assert done.returncode == 0, done.stderr
    done = run("decode", "benchmark", *TINY, "--output", "out")
    assert done.returncode == 0, done.stderr
    training, decoding = (
        section["rows"] for section in json.loads((tmp_path / "out/benchmarks.json").read_text()).values()
    )
    assert [row.get("model.memory.memory_size") for row in training] == [None, "16"]
    assert training[0]["relative speed"] == training[0]["by multiply-adds"] == 1
    assert training[1]["by multiply-adds"] < 1
    assert all(row["tokens/s"] > 0 and row["temporary bytes"] > 0 for row in training)
    assert [row["context"] for row in decoding] == [1024] and decoding[0]["share of memory rate"] > 0
    text = (tmp_path / "out/BENCHMARKS.md").read_text()
    assert text.count("```sh\npython experiments/benchmark.py") == 2 and "| kv | 16 |" in text
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"train.png", "decode.png"}
    wrong = run("fly", "benchmark")
    assert wrong.returncode == 2 and "train, decode, stream, serve, quantized, compressed" in wrong.stderr
