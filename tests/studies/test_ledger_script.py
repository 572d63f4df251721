"""`experiments/ledger.py` as a user types it: claims of the cpu tier are measured, failures show, errors are clear."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from memgpt_jax.files.sealed import seal, unseal

ROOT = Path(__file__).resolve().parents[2]


def ledger(*words) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "experiments" / "ledger.py"), *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # most of the time is compiling
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.mark.timeout(1200)
def test_writing_matters(tmp_path):
    """The fixed subset of the cpu tier that runs with the tests: one claim, one seed; again, it is read back."""
    words = ["writing_matters", "--seeds", "0", "--workdir", tmp_path]
    result = ledger(*words)
    assert result.returncode == 0, result.stdout + result.stderr
    entry = json.loads((tmp_path / "ledger.json").read_text())[0]
    text = (tmp_path / "LEDGER.md").read_text()
    assert entry["holds"] and "## writing_matters" in text and "1 hold, 0 failed" in text
    assert all(case["seconds"] > 0 and case["state_bytes"] > 0 for case in entry["cases"])

    # A claim that no longer holds is shown as failed, and the exit code says so.
    (evaluation,) = [path for path in tmp_path.glob("*/evaluation.json") if "lowest_gate" not in str(path)]
    evaluation.write_text(seal(unseal(evaluation.read_text().strip()) | {"accuracy": 0.5}) + "\n")
    again = ledger(*words)
    assert again.returncode == 1 and "0 of 1 claims hold" in " ".join(again.stdout.split())
    assert "read and written, seed 0: 0.5000 is not at least 0.95" in (tmp_path / "LEDGER.md").read_text()


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "error: name claims, or a tier that has some:\n  convolution_binds (cpu): "),
        (["convolution"], "error: there is no claim 'convolution'; there are: convolution_binds, writing_matters"),
    ],
)
def test_errors_say_what_there_is(words, message, tmp_path):
    result = ledger(*words, "--workdir", tmp_path / "new")
    assert result.returncode == 2 and result.stderr.startswith(message) and "Traceback" not in result.stderr
    assert not (tmp_path / "new").exists()
