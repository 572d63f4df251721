"""Train, kill, resume, evaluate and generate by the command lines that a user types."""

import json
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memgpt_jax.studies import entry

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
from memgpt_jax.config import *
from memgpt_jax.config.data import *
from memgpt_jax.config.memory import *

def config():
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=257, d_model=16, num_layers=1, num_heads=2, window_size=16, segment_length=16,
            memory=KVMemoryConfig(memory_size=32, head_dim=8),
        ),
        data=TextConfig(corpus="folder", path="{folder}/corpus", tokenizer="byte", cache_dir="{folder}/cache"),
        optimizer=OptimizerConfig(warmup_steps=5),
        training=TrainingConfig(steps={steps}, batch_size=2, sequence_length=32, log_every=1, checkpoint_every=10),
        evaluation=EvaluationConfig(max_documents=2, max_tokens=128, batch_size=2, chunk_length=64),
    )
"""
STEPS = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A corpus with splits, and a config of a tiny model on it."""
    folder = tmp_path_factory.mktemp("end_to_end")
    for split in ("train", "valid", "test"):
        (folder / "corpus" / split).mkdir(parents=True)
        for number in range(3):
            (folder / "corpus" / split / f"{number}.txt").write_text(f"Der Bär Nummer {number} in {split}. " * 40)
    (folder / "tiny.py").write_text(CONFIG.replace("{folder}", str(folder)).replace("{steps}", str(STEPS)))
    return folder


def train_command(*words) -> list[str]:
    return [sys.executable, str(ROOT / "experiments" / "train.py"), *map(str, words)]


@pytest.fixture(scope="module", autouse=True)
def environment(compiled_as_here):
    """A process compiles as this one does, so that their losses are equal."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in compiled_as_here.items():
            patch.setenv(name, value)
        patch.setenv("JAX_PLATFORMS", "cpu")
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


def losses(workdir: Path) -> list[tuple[int, float]]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [(record["step"], record["loss"]) for record in map(json.loads, lines)]


def kill_after(workdir: Path, step: int, *words) -> None:
    """Start training and kill it once it has logged a step and before it is done."""
    process = subprocess.Popen(train_command(*words), stderr=subprocess.PIPE, text=True)
    try:
        deadline, log = time.monotonic() + 180, workdir / "metrics.jsonl"
        while not log.exists() or len(log.read_bytes().splitlines()) < step:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline, "training did not get under way"
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert process.returncode == -signal.SIGKILL
    assert not (workdir / "evaluation.json").exists()


def test_train_kill_resume_evaluate_generate(folder, memgpt):
    config, killed, whole = folder / "tiny.py", folder / "killed", folder / "whole"
    kill_after(killed, 15, config, "--workdir", killed)
    for workdir in (killed, whole):
        memgpt("train", config, "--workdir", workdir)
    assert [step for step, _ in losses(whole)] == list(range(1, STEPS + 1))
    assert losses(killed) == losses(whole)  # bitwise: JSON writes floats exactly

    memgpt("evaluate", killed, whole, "--memory-size", 0, 32, "--split", "test", "--output", folder / "comparison")
    results = json.loads((folder / "comparison" / "comparison.json").read_text())
    assert len(results) == 4
    without, with_memory = results[f"{killed} memory 0"], results[f"{killed} memory 32"]
    assert without["bits_per_byte"] != with_memory["bits_per_byte"]
    assert with_memory == results[f"{whole} memory 32"]
    assert (folder / "comparison" / "comparison.png").read_bytes().startswith(b"\x89PNG")

    greedy = ("--prompt", "Der Bär", "--max-new-tokens", 20, "--temperature", 0)
    text = memgpt("generate", killed, *greedy)
    assert text.startswith("Der Bär") and len(text) > len("Der Bär")
    assert text == memgpt("generate", whole, *greedy, "--stream")

    lines = ["Der", "/fork", "Bär", f"/save {folder / 'session'}", "/back", "/memory", "/forth", "/reset", "/memory"]
    lines += [f"/load {folder / 'nowhere'}", f"/load {folder / 'session'}", "/memory", "/back", "/quit"]
    text = memgpt("generate", killed, "--interactive", "--max-new-tokens", 8, typed="\n".join(lines))
    shown = [line for line in text.splitlines() if "tokens read" in line]
    assert [int(line.split()[-3].strip("> ")) for line in shown] == [13, 1, 26]
    for message in ("back at point 1", "no command /forth", "no session in", "there is no saved point"):
        assert message in text


@pytest.mark.slow
def test_ablation_is_resumed(folder, memgpt):
    words = [folder / "tiny.py", "--training.steps=5", "--workdir", folder / "ablation", "--sweep"]
    memgpt("ablate", *words, "model.memory=kv", "seed=0")
    first = folder / "ablation" / "model.memory=kv,seed=0"
    before = (first / "evaluation.json").stat().st_mtime_ns
    output = memgpt("ablate", *words, "model.memory=none,kv", "seed=0")
    assert (first / "evaluation.json").stat().st_mtime_ns == before  # read back, not run again
    assert "kv" in output and "none" in output
    lines = (folder / "ablation" / "results.csv").read_text().splitlines()
    assert lines[0].startswith("model.memory,seed,loss,bits_per_byte") and len(lines) == 3
    assert (folder / "ablation" / "results.png").exists() and (folder / "ablation" / "curves.png").exists()


@pytest.mark.parametrize("command", ["evaluate", "generate"])
def test_a_folder_without_a_run_is_one_clear_line(command, tmp_path, memgpt):
    error = memgpt(command, tmp_path, code=2)
    assert error.startswith("error: there is no checkpoint") and "Traceback" not in error


@pytest.mark.parametrize(("option", "least"), [("max-tokens", 1), ("top", 1), ("step", 0)])
def test_numbers_of_an_inspection_are_checked(option, least, tmp_path, memgpt):
    words = [tmp_path, "--text", "a", "--json", tmp_path / "trace.json", f"--{option}", least - 1]
    assert f"must be at least {least}, got {least - 1}" in memgpt("inspect", *words, code=2)


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda path: path.name)
def test_every_script_is_a_command(path):
    module = runpy.run_path(str(path))
    assert path.stem in entry.COMMANDS and module["main"].__module__ == f"memgpt_jax.studies.commands.{path.stem}"


def test_every_command_has_a_script_and_a_help_text(memgpt):
    assert {path.stem for path in (ROOT / "experiments").glob("*.py")} == entry.COMMANDS.keys()
    usage = memgpt("--help")
    for name in entry.COMMANDS:
        assert f"  {name} " in usage and f"memgpt-jax {name}" in memgpt(name, "--help")


def test_an_unknown_command_lists_the_valid_ones(memgpt):
    assert memgpt("fly", code=2).startswith("error: there is no command 'fly'; valid: train, evaluate, ")
