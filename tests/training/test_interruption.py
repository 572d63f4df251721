"""Real processes, killed: a run that was interrupted ends bitwise equal to one that was not."""

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from memgpt_jax import data
from memgpt_jax.checkpoint import Checkpoints, load_run
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.serialization import to_json
from memgpt_jax.training import RunError, read_metrics, train
from memgpt_jax.training.metrics import CLOCKED
from memgpt_jax.training.saving import restore_run

PROGRAM = """
import json, sys
from memgpt_jax.config.serialization import from_json
from memgpt_jax.training import train
train(from_json(json.loads(sys.argv[1])), sys.argv[2])
"""


@pytest.fixture(scope="module")
def start(compiled_as_here):
    """Starts a trainer in a process of its own, which computes bitwise what this process does."""

    def launch(config, workdir):
        command = [sys.executable, "-c", PROGRAM, json.dumps(to_json(config)), str(workdir)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=compiled_as_here, **options)

    return launch


@pytest.fixture(scope="module")
def uninterrupted(make_config, tmp_path_factory):
    """Makes a configuration with frequent checkpoints, and the folder of its run without interruptions."""

    @functools.cache
    def make(steps):
        config, workdir = make_config(steps=steps, checkpoint_every=3), tmp_path_factory.mktemp("uninterrupted")
        train(config, workdir, print_progress=False)
        return config, workdir

    return make


def finish(process):
    """Wait until the process exits with code 0; returns its output."""
    output, _ = process.communicate(timeout=800)
    assert process.returncode == 0, output
    return output


def wait_for_steps(process, workdir, seconds):
    """Wait until the run has logged a new step, then for a number of seconds."""
    before = last_step(workdir)
    while process.poll() is None and last_step(workdir) <= before:
        time.sleep(0.01)
    time.sleep(seconds)


def last_step(workdir):
    """The last step in the metrics; 0 if there is none."""
    records = read_metrics(workdir)
    return records[-1]["step"] if records else 0


def assert_same_run(config, workdir, expected):
    """Logged figures, results, and the whole state, bitwise."""
    timeless = [[record | dict.fromkeys(CLOCKED) for record in read_metrics(folder)] for folder in (workdir, expected)]
    assert timeless[0] == timeless[1]
    assert (workdir / "evaluation.json").read_text() == (expected / "evaluation.json").read_text()
    states = []
    for folder in (workdir, expected):
        with Checkpoints(folder) as checkpoints:
            state, data_state = restore_run(checkpoints, config)
        states.append((state._replace(key=jax.random.key_data(state.key)), data_state["position"]))
    assert states[0][1] == states[1][1]
    jax.tree.map(np.testing.assert_array_equal, states[0][0], states[1][0])


@pytest.mark.parametrize(
    "kills, steps",  # a run that is killed once is in tests/studies/test_end_to_end.py
    [
        pytest.param(1, 48, marks=pytest.mark.slow),
        pytest.param(20, 200, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_a_killed_run_ends_bitwise_equal(start, uninterrupted, tmp_path, kills, steps):
    config, expected = uninterrupted(steps)
    moments, killed = random.Random(kills), 0
    for kill in range(kills):
        process = start(config, tmp_path)
        if kill % 4 == 2:
            time.sleep(moments.uniform(0, 5))  # while it starts: imports, lock, restoring, compiling
        else:
            wait_for_steps(process, tmp_path, moments.uniform(0, 1 / kills))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed == kills, "the run ended before it could be killed: make it longer"
    train(config, tmp_path, print_progress=False)
    assert_same_run(config, tmp_path, expected)


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]])
def test_stop_signals_save_the_step_and_exit_with_0(start, uninterrupted, tmp_path, numbers):
    config, expected = uninterrupted(48)
    for number in numbers:
        process = start(config, tmp_path)
        wait_for_steps(process, tmp_path, 0.05)
        with pytest.raises(RunError, match=f"in use by another trainer .process {process.pid}"):
            train(config, tmp_path)
        process.send_signal(number)
        output = finish(process)
        step = load_run(tmp_path).step
        assert 0 < step < config.training.steps
        assert last_step(tmp_path) == step - step % config.training.log_every  # the saved step is on record
        assert output.count("\n") == 1 and "parameters" in output  # no progress bar where there is no terminal
    train(config, tmp_path, print_progress=False)
    assert_same_run(config, tmp_path, expected)


@pytest.mark.parametrize(
    ("number", "prompt"),
    [(signal.SIGINT, True), (signal.SIGTERM, False)]
    + [pytest.param(*row, marks=pytest.mark.slow) for row in [(signal.SIGINT, False), (signal.SIGTERM, True)]],
)
def test_an_interrupt_at_a_prompt_does_not_end_the_process(tmp_path, make_config, monkeypatch, number, prompt):
    """The run is saved all the same, and continues in the same process."""
    config, original, count = make_config(model={"memory": NoMemoryConfig()}), data.train_batches, []

    class Interrupting(data.BatchIterator):
        def __next__(self):
            count.append(1)
            if len(count) == 4:
                os.kill(os.getpid(), number)
            return super().__next__()

    def interrupting(*arguments):
        batches = original(*arguments)
        return Interrupting(batches.iterator, batches.source)

    monkeypatch.setattr(data, "train_batches", interrupting)
    if prompt:
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(KeyboardInterrupt if prompt and number == signal.SIGINT else SystemExit) as end:
        train(config, tmp_path, print_progress=False)
    assert getattr(end.value, "code", 0) == 0
    assert load_run(tmp_path).step == last_step(tmp_path) == 4
    assert train(config, tmp_path, print_progress=False)["step"] == config.training.steps
