"""One wrong bit in any file of a run is found."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memgpt_jax import data
from memgpt_jax.checkpoint import Checkpoints
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.files import checksums
from memgpt_jax.files.checksums import DamagedError
from memgpt_jax.files.sealed import seal, unseal
from memgpt_jax.studies.verification import verify_folder
from memgpt_jax.training import RunError, read_metrics, train
from memgpt_jax.training.evaluation import read_evaluation
from memgpt_jax.training.saving import restore_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on text."""
    folder = tmp_path_factory.mktemp("run")
    for split in ("train", "valid"):
        (folder / "text" / split).mkdir(parents=True)
        (folder / "text" / split / "a.txt").write_text("some text to read. " * 20)
    memory = KVMemoryConfig(memory_size=8, head_dim=8)
    config = ExperimentConfig(
        model=ModelConfig(
            vocab_size=260, d_model=16, num_layers=1, num_heads=2, window_size=8, segment_length=8, memory=memory
        ),
        data=TextConfig(corpus="folder", path=str(folder / "text"), tokenizer="byte", cache_dir=str(folder / "cache")),
        training=TrainingConfig(steps=4, batch_size=1, sequence_length=16, log_every=1, checkpoint_every=2),
        evaluation=EvaluationConfig(batch_size=1, chunk_length=16),
    )
    train(config, folder / "run [1]", print_progress=False)
    return folder / "run [1]", config


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def problems(folder):
    return [part for part in verify_folder(folder) if part.problem]


def test_a_run_is_whole_and_everything_in_it_is_covered(run):
    parts = verify_folder(run[0])
    assert not any(part.problem for part in parts)
    assert [part.name for part in parts][:3] == ["checkpoints/2", "checkpoints/4", "tokenizer"]
    assert {"metrics.jsonl", "evaluation.json"} <= {part.name for part in parts}
    assert not any("without checksums" in part.kind for part in parts), parts
    assert (run[0] / "lock").read_bytes() == b""


@pytest.mark.slow
def test_every_file_is_covered_with_single_bits(run):
    """Each file of the run, at its first or last and at a random bit."""
    draw = random.Random(1)
    for path in sorted(path for path in run[0].rglob("*") if path.is_file() and path.stat().st_size):
        before, size = path.read_bytes(), 8 * path.stat().st_size
        for bit in (draw.choice([0, size - 1, size - 8, size - 4]), draw.randrange(size)):
            flip(path, bit)
            assert problems(run[0]), f"bit {bit} of {path}"
            path.write_bytes(before)
    assert not problems(run[0])


@pytest.mark.parametrize("name", ["metrics.jsonl", "evaluation.json"])
def test_the_bits_of_what_is_read_again(run, tmp_path, name):
    """All of the end, where checksum and line end are, and every 13th before it."""
    content = (run[0] / name).read_bytes()
    size = 8 * len(content)
    for bit in [*range(0, size - 256, 13), *range(size - 256, size)]:
        (tmp_path / name).write_bytes(content)
        flip(tmp_path / name, bit)
        with pytest.raises(RunError, match="is damaged"):
            read_metrics(tmp_path) if name == "metrics.jsonl" else read_evaluation(tmp_path)


def test_a_metrics_file_that_a_kill_cut_is_whole(run, tmp_path):
    content = (run[0] / "metrics.jsonl").read_bytes()
    lines = content.splitlines(keepends=True)
    for length in range(len(lines[0]), len(lines[0]) + len(lines[1]) + 1):
        (tmp_path / "metrics.jsonl").write_bytes(content[:length])
        assert len(read_metrics(tmp_path)) == (2 if length == len(lines[0]) + len(lines[1]) else 1)


def test_seal():
    values = {"loss": 0.1, "list": [1, None], "text": 'ü"}'}
    assert unseal(seal(values)) == values
    assert unseal('{"step": 3, "gates": [0.5]}') == {"step": 3, "gates": [0.5]}  # of an earlier version
    with pytest.raises(DamagedError, match="JSON"):
        unseal("[" * 200_000)


def test_a_finished_run_with_damaged_files_is_refused(run, tmp_path):
    workdir, config = run
    for name in ("tokenizer", "metrics.jsonl", "evaluation.json"):
        shutil.copytree(workdir, tmp_path / name)
        path = next(p for p in [tmp_path / name / name, *(tmp_path / name / name).rglob("*")] if p.is_file())
        flip(path, 8 * path.stat().st_size // 2)
        with pytest.raises(RunError, match=path.name):
            train(config, tmp_path / name, print_progress=False)


def test_a_checkpoint_without_checksums_is_named(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "2" / checksums.SUMS).unlink()
    assert "files without checksums, not verified: checkpoints/2/" in verify_folder(tmp_path / "run")[-1].kind


def test_other_folders(tmp_path, run):
    with pytest.raises(ValueError, match="there is no folder"):
        verify_folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no checksums"):
        verify_folder(tmp_path / "empty")
    data.ByteTokenizer().save(tmp_path)
    checksums.record_all(tmp_path)
    (part,) = verify_folder(tmp_path)
    assert part.name == "." and part.problem is None and part.kind.startswith("tokenizer")


def test_the_command(run, tmp_path, memgpt):
    assert str(run[0]) in memgpt("verify", run[0])
    shutil.copytree(run[0], tmp_path / "run")
    path = max((tmp_path / "run" / "checkpoints" / "4").rglob("*"), key=lambda path: path.stat().st_size)
    flip(path, 77)
    assert path.name in memgpt("verify", run[0], tmp_path / "run", code=1).replace("\n", "")
    assert "there is no folder" in memgpt("verify", tmp_path / "nowhere", code=2)
    assert "folders is empty" in memgpt("verify", code=2)


def test_a_damaged_log_is_named(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    (path,) = (tmp_path / "run" / "tensorboard").iterdir()
    flip(path, 8 * path.stat().st_size // 2)
    assert [path.name in part.problem for part in problems(tmp_path / "run")] == [True]


def test_a_finished_run_without_its_last_record_is_refused(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(RunError, match=r"metrics\.jsonl has no record of the last step, 4"):
        train(run[1], tmp_path / "run", print_progress=False)


LOST = """
import sys
sys.path.insert(0, sys.argv[1])
from memgpt_jax.data import load_tokenizer
from memgpt_jax.checkpoint import load_run
from memgpt_jax.training import RunError, read_metrics
from memgpt_jax.checkpoint import Checkpoints
from memgpt_jax.training.evaluation import read_evaluation
from memgpt_jax.checkpoint import load_run_tokenizer, run_folder
from memgpt_jax.studies.verification import verify_folder
folder = run_folder(sys.argv[2])
assert any(sys.argv[3] in part.problem for part in verify_folder(folder) if part.problem), verify_folder(folder)
reads = {"metrics.jsonl": [read_metrics], "evaluation.json": [read_evaluation]}
for read in reads.get(sys.argv[3], [load_run_tokenizer, load_tokenizer] if sys.argv[3] == "tokenizer" else [load_run]):
    try:
        read(folder)
    except (RunError, ValueError) as error:
        assert "Permission denied" in str(error) and "damaged" not in str(error) and "\\n" not in str(error), error
    else:
        raise AssertionError("it was read")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["checkpoints", "checkpoints/4", "checkpoints/4/SHA256SUMS", "tokenizer", "metrics.jsonl", "evaluation.json"],
)
def test_lost_permission_is_no_damage_and_never_silent(run, tmp_path, name):
    """In a process without the superuser's right to read everything."""
    command = [sys.executable, "-c", LOST, str(Path(__file__).parents[2]), str(tmp_path / "run"), name]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is not there, which takes the superuser's rights away")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    shutil.copytree(run[0], tmp_path / "run")
    (tmp_path / "run" / name).chmod(0)
    found = subprocess.run(command, capture_output=True, text=True)
    (tmp_path / "run" / name).chmod(0o700)
    assert found.returncode == 0, found.stderr[-2000:]


@pytest.mark.slow
def test_any_wrong_bit_of_the_latest_checkpoint_falls_back(run, tmp_path, caplog):
    shutil.copytree(run[0], tmp_path / "run")
    draw, good = random.Random(2), tmp_path / "run" / "checkpoints" / "4"
    for path in sorted(path for path in good.rglob("*") if path.is_file() and path.stat().st_size):
        before = path.read_bytes()
        flip(path, draw.randrange(8 * len(before)))
        caplog.clear()
        with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
            assert int(restore_run(checkpoints, run[1])[0].step) == 2, path
        assert "the checkpoint of step 4 is damaged" in caplog.text
        path.write_bytes(before)
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
        assert int(restore_run(checkpoints, run[1])[0].step) == 4
