"""The memory of a run: counted before compiling, reported by the compiler, and refused where it does not fit."""

import dataclasses
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from memgpt_jax import data, parallel
from memgpt_jax.config.experiment import ParallelConfig
from memgpt_jax.training import RunError, loop, read_metrics, start, train
from memgpt_jax.training.compilation import compiled_step
from memgpt_jax.training.device_memory import check_peak, held_bytes, in_bytes, peak_bytes
from memgpt_jax.training.state import state_of
from tests.laws.models import random_params

SIZES = {"optimizer": {"accumulate_steps": 2}, "steps_per_call": 2, "checkpoint_every": 4}


def one_device():
    return parallel.make_mesh(ParallelConfig(data=1))


def size(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def test_counts_are_those_of_the_arrays(make_config):
    config = make_config(**SIZES)
    state, batch = (
        state_of(config, random_params(config.model)),
        next(data.train_batches(config.data, config.training, 0)),
    )
    held = held_bytes(config, one_device())
    assert held.parameters == size(state.params) and held.optimizer_state == size(state.opt_state)
    assert held.model_state == size(state.model_state) and held.batch == 4 * size(batch)
    assert held == held_bytes(config, one_device(), batch)
    assert held.total == sum(held)


@pytest.mark.parametrize("axis", ["data", "fsdp", "tensor", "sequence"])
def test_a_mesh_splits_what_a_device_holds(make_config, axis):
    config = make_config(model={"vocab_size": 32})
    mesh = jax.sharding.AbstractMesh(tuple(2 if name == axis else 1 for name in parallel.AXES), parallel.AXES)
    whole, half = held_bytes(config, one_device()), held_bytes(config, mesh)
    splits_rows = axis in ("data", "fsdp")
    assert half.batch == whole.batch // (2 if splits_rows else 1)
    if axis != "tensor":
        assert half.model_state < 0.75 * whole.model_state
    assert (half.parameters < 0.7 * whole.parameters) == (axis in ("fsdp", "tensor"))


@pytest.mark.slow
def test_the_compiler_reports_more_than_is_held_and_the_step_is_compiled_once(make_config):
    config, mesh = make_config(), one_device()
    with jax.set_mesh(mesh):
        shapes = loop.call_shapes(config, data.batch_shapes(config.data, config.training))
        compiled = compiled_step(config, mesh, shapes)
        assert compiled_step(config, mesh, shapes) is compiled
    peak, held = peak_bytes(compiled), held_bytes(config, mesh).total
    assert held < peak < 50 * held
    assert check_peak(compiled, peak) == check_peak(compiled, None) == peak
    with pytest.raises(RunError, match=rf"compiled training step needs {re.escape(in_bytes(peak))}"):
        check_peak(compiled, peak - 1)


def test_a_step_that_does_not_fit_is_refused_before_the_first_update(tmp_path, make_config, monkeypatch, capsys):
    config = make_config()
    held = held_bytes(config, one_device()).total
    for limit, message in ((held - 1, "training step needs at least .* of parameters,"), (held + 1, "compiled train")):
        monkeypatch.setattr(start, "device_memory", lambda mesh, limit=limit: limit)
        with pytest.raises(RunError, match=message):
            train(config, tmp_path / "run")
        assert not read_metrics(tmp_path / "run") and not list(tmp_path.glob("run/checkpoints/*"))
    monkeypatch.undo()
    train(config, tmp_path / "run")
    assert re.search(
        r"^[\d,]+ parameters; on each device: .* of batch; the compiled step needs", capsys.readouterr().out
    )


@pytest.mark.slow
def test_what_does_not_fit_is_refused_by_name_before_it_is_compiled(tmp_path):
    words = ["train", "quickstart", "--workdir", str(tmp_path / "run"), "--model.num_layers", "24"]
    words += ["--model.d_model", "1024", "--training.batch_size", "10000000", "--model.memory.memory_size", "2048"]
    start, root = time.monotonic(), Path(__file__).parents[2]
    command = [sys.executable, "-c", "from memgpt_jax.studies.entry import main; main()", *words]
    environment = os.environ | {"PYTHONPATH": str(root)}
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert re.search(r"needs at least [\d.,]+ TB of memory on each device, which has .*of model state", ended.stderr)
    assert not (tmp_path / "run" / "checkpoints").exists() and time.monotonic() - start < 120


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (999, "999 B"), (1.5e9, "1.5 GB"), (2.5e13, "25 TB")])
def test_bytes_are_written_with_three_digits(number, text):
    assert in_bytes(number) == text


def test_a_lost_log_is_noticed_when_the_run_is_resumed(tmp_path, make_config):
    config = make_config()
    train(config, tmp_path, print_progress=False)
    (tmp_path / "metrics.jsonl").unlink()
    longer = dataclasses.replace(config, training=dataclasses.replace(config.training, steps=14))
    with pytest.raises(RunError, match=r"a run of 12 steps, but no metrics\.jsonl"):
        train(longer, tmp_path, extend=True, print_progress=False)
