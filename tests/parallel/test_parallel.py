"""A run on many devices and in many processes is the run on one device; one that dies or stalls ends the others."""

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

import memgpt_jax as mg
from memgpt_jax import parallel
from memgpt_jax.checkpoint import Checkpoints, load_run
from memgpt_jax.config.experiment import ExperimentConfig, ParallelConfig
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.training import read_metrics, train
from memgpt_jax.training.saving import restore_run
from tests.laws.models import random_params
from tests.programs.restored_on_meshes import digest
from tests.programs.small_run import HEADS, STEPS, config, headed_config, spans_config, taught_config

SCRIPT = Path(__file__).parents[1] / "programs" / "small_run.py"
MESHES = [
    (4, "data=2,fsdp=2"),
    *(pytest.param(8, mesh, marks=pytest.mark.slow) for mesh in ("data=8", "data=2,fsdp=4", "data=4,tensor=2")),
]


@pytest.fixture(scope="module", autouse=True)
def environment(compiled_as_here):
    """Programs compile as this process does, with threads for all devices, however few cores there are: a collective
    waits for the others on a thread of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in compiled_as_here.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", str(SCRIPT.parents[2]))
        patch.setenv("JAX_PLATFORMS", "cpu")
        patch.setenv("PJRT_NPROC", "32")
        yield


def start(devices: int, workdir: Path, *words) -> subprocess.Popen:
    command = [sys.executable, SCRIPT, devices, workdir, *words]
    return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True)


def start_two(workdir: Path, *words, mesh: str = "fsdp=4") -> list[subprocess.Popen]:
    """Two processes of two devices each, joined."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [start(2, workdir, "--mesh", mesh, *words, "--join", address, 2, index) for index in range(2)]


def finish(*processes: subprocess.Popen) -> None:
    for process in processes:
        _, errors = process.communicate(timeout=800)
        assert process.returncode == 0, errors


def losses(workdir: Path) -> np.ndarray:
    return np.array([record["loss"] for record in read_metrics(workdir)])


@pytest.fixture(scope="module")
def one_device(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("one")
    train(config(STEPS, ParallelConfig()), workdir, print_progress=False)
    return workdir


@pytest.mark.parametrize(("devices", "mesh"), MESHES)
def test_losses_on_a_mesh_are_those_of_one_device(devices, mesh, one_device, tmp_path):
    finish(start(devices, tmp_path, "--mesh", mesh))
    expected = losses(one_device)
    assert len(expected) == STEPS and expected[-1] < expected[0]
    np.testing.assert_allclose(losses(tmp_path), expected, rtol=1e-5)


def examples(path: Path) -> Path:
    """Sentences of 2 to 11 words, with a tag for each word and up to three labels."""
    rows = [
        {
            "words": ["a"] * number + ["Ada", "B"],
            "column1": ["O"] * number + ["B-name", "I-name"],
            "text": "a" * number + "bc",
            "labels": ["odd"] * (number % 2) + ["third"] * (number % 3 == 0) + ["long"] * (number > 4),
        }
        for number in range(10)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("mesh", ["data=2,fsdp=4", "data=2,fsdp=2,tensor=2"])
def test_losses_of_a_head_on_a_mesh_are_those_of_one_device(head, mesh, tmp_path):
    file = str(examples(tmp_path / "examples.jsonl"))
    train(headed_config(head, file, ParallelConfig()), tmp_path / "one", print_progress=False)
    finish(start(8, tmp_path / "many", "--mesh", mesh, "--head", head, file))
    expected = losses(tmp_path / "one")
    assert len(expected) == STEPS and expected[-1] < expected[0]
    np.testing.assert_allclose(losses(tmp_path / "many"), expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("top_k", [0, 5])
def test_a_student_on_a_mesh_is_that_of_one_device(top_k, one_device, tmp_path):
    """Alone and in two processes; the teacher runs in each step, or is cached."""
    teacher = str(one_device)
    train(taught_config(teacher, top_k, ParallelConfig()), tmp_path / "one", print_progress=False)
    finish(start(8, tmp_path / "many", "--mesh", "data=2,fsdp=2,tensor=2", "--teacher", teacher, top_k))
    finish(*start_two(tmp_path / "two", "--teacher", teacher, top_k))
    found = read_metrics(tmp_path / "one")
    assert found[-1]["distillation"] < found[0]["distillation"]
    assert_equal_distillation(tmp_path)


def assert_equal_distillation(folder: Path) -> None:
    """The runs `many` and `two` learn as the run `one`."""
    expected = read_metrics(folder / "one")
    assert len(expected) == STEPS and all(record["distillation"] > 0 for record in expected)
    for name in ("many", "two"):
        found = read_metrics(folder / name)
        for key in ("loss", "distillation"):
            np.testing.assert_allclose([r[key] for r in found], [r[key] for r in expected], rtol=1e-4)


@pytest.mark.slow
def test_a_student_by_spans_on_a_mesh_is_that_of_one_device(tmp_path):
    """All processes read with the teacher, whose segments are others than those of the student."""
    sizes = {"vocab_size": 257, "d_model": 8, "num_layers": 1, "num_heads": 2, "window_size": 24, "segment_length": 24}
    teacher = mg.ModelConfig(**sizes, memory=mg.KVMemoryConfig(memory_size=48))
    mg.save_pretrained(mg.from_params(teacher, random_params(teacher)), tmp_path / "teacher", tokenizer=ByteTokenizer())
    for split, number in (("train", 8), ("valid", 1)):
        (tmp_path / "texts" / split).mkdir(parents=True)
        for index in range(number):
            (tmp_path / "texts" / split / f"{index}.txt").write_text(f"text {index} of {split}. " * (index + 2))
    words = str(tmp_path / "teacher"), str(tmp_path / "texts")
    train(spans_config(*words, ParallelConfig()), tmp_path / "one", print_progress=False)
    finish(start(8, tmp_path / "many", "--mesh", "data=2,fsdp=2,tensor=2", "--spans", *words))
    finish(*start_two(tmp_path / "two", "--spans", *words))
    assert_equal_distillation(tmp_path)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("two")
    finish(*start_two(workdir))
    return workdir


@pytest.mark.slow
def test_losses_in_two_processes_are_those_of_one_device(one_device, two_processes):
    np.testing.assert_allclose(losses(two_processes), losses(one_device), rtol=1e-5)


@pytest.mark.slow
def test_a_checkpoint_of_two_processes_restores_bitwise_on_other_meshes(two_processes):
    """Parameters and optimizer state, on one device and on a mesh of another shape."""
    with Checkpoints(two_processes, read_only=True) as checkpoints:
        state, _ = restore_run(checkpoints, checkpoints.config(STEPS))
    assert state.step == STEPS and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    command = [sys.executable, SCRIPT.parent / "restored_on_meshes.py", two_processes]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert output.split() == [digest(state)] * 3


@pytest.mark.slow
def test_another_mesh_resumes_the_run_of_two_processes(one_device, two_processes, tmp_path):
    shutil.copytree(two_processes, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / str(STEPS))
    finish(start(8, tmp_path / "run", "--mesh", "data=2,tensor=2,sequence=2"))
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(one_device), rtol=1e-5)
    assert load_run(tmp_path / "run").step == STEPS


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others(tmp_path):
    first, second = start_two(tmp_path, "--steps", 10**6)
    wait_for_steps(tmp_path, 3)
    second.kill()
    _, errors = first.communicate(timeout=400)  # it would train for days; how soon it ends depends on the machine
    second.communicate()
    assert first.returncode not in (0, None) and "process" in errors.lower(), errors


@pytest.mark.slow
def test_a_process_without_progress_ends_all_with_the_stacks_of_their_threads(tmp_path):
    processes = start_two(tmp_path, "--steps", 10**6, "--stuck_after", 5, mesh="fsdp=4,stall_seconds=5")
    for process in processes:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 1 and "Timeout" in errors and "Thread 0x" in errors and "loop.py" in errors


def test_the_watchdog_ends_a_process_without_progress():
    program = """
import time
from memgpt_jax.training.process.watchdog import Watchdog
watch = Watchdog(0.2)
watch.alive()
watch.rest()
time.sleep(0.5)
print("rested", flush=True)
watch.alive()
time.sleep(60)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert result.returncode == 1 and result.stdout == "rested\n"
    assert "Timeout" in result.stderr and "Thread 0x" in result.stderr and 'File "<string>", line 10' in result.stderr


def wait_for_steps(workdir: Path, number: int) -> None:
    deadline = time.monotonic() + 400
    while len(read_metrics(workdir)) < number:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"data": 3}, r"the mesh data=3 x fsdp=1 .* needs 3 devices; 1 available"),
        ({"fsdp": 2}, r"the mesh fsdp=2 .* must divide the number of devices; 1 available"),
    ],
)
def test_sizes_that_do_not_fit_the_devices_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        parallel.make_mesh(ParallelConfig(**sizes))


@pytest.mark.parametrize(
    "axis, message",
    [
        ("data", r"training.batch_size=8 must be a multiple of parallel data x fsdp=3"),
        ("fsdp", r"training.batch_size=8 must be a multiple of parallel data x fsdp=3"),
        ("tensor", r"model.num_heads=4 must be a multiple of parallel tensor=3"),
        ("sequence", r"model.memory.memory_size=1024 must be a multiple of parallel sequence=3"),
    ],
)
def test_dimensions_that_an_axis_does_not_divide_are_refused(axis, message):
    mesh = AbstractMesh(tuple(3 if name == axis else 1 for name in parallel.AXES), parallel.AXES)
    with pytest.raises(ValueError, match=message):
        parallel.check_divides(ExperimentConfig(), mesh)


def test_only_part_of_joining_is_refused():
    with pytest.raises(ValueError, match="give all of coordinator, num_processes and process_id, or none"):
        parallel.join_processes("localhost:1", 2)


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param(["softmax_over_all", "best_of_all", "segments"], marks=pytest.mark.slow),
        pytest.param(["kernels"], marks=pytest.mark.slow),
        pytest.param(["joined", "on_a_mesh_of_somebody_else"], marks=pytest.mark.slow),
    ],
    ids=["memories", "kernels", "models"],
)
def test_a_read_of_split_entries_is_the_read_of_all(parts):
    """With two small collectives, whatever the number of entries: the highest logits, and the sums."""
    command = [sys.executable, SCRIPT.parent / "sharded_read.py", *parts]
    subprocess.run(command, check=True)
