"""A run in a folder: what it leaves there, what it refuses, and where it stops."""

import json
import logging
import shutil
from functools import partial

import jax
import numpy as np
import pytest

from memgpt_jax import data, models, parallel
from memgpt_jax.checkpoint import Checkpoints, load_run
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.data.tasks.babi import BabiConfig
from memgpt_jax.training import RunError, loop, metrics, read_metrics, state, train
from memgpt_jax.training.compilation import jitted_diagnostics
from memgpt_jax.training.metrics import CLOCKED, MetricsLog, WallTime
from memgpt_jax.training.process.progress import progress
from memgpt_jax.training.process.workdir import locked
from memgpt_jax.training.saving import restore_run
from memgpt_jax.training.start import run_tokenizer

PLAIN = {"memory": NoMemoryConfig()}


class Interrupted(Exception):
    """Stands for anything that ends a process in the middle of a run."""


@pytest.fixture
def change_batches(monkeypatch):
    """Pass every training batch, with its number from 0, through a function."""
    original = data.train_batches

    def install(change):
        class Changed:
            def __init__(self, *arguments):
                self.batches, self.number = original(*arguments), 0
                self.get_state = self.batches.get_state

            def set_state(self, state):
                self.batches.set_state(state)

            def __next__(self):
                self.number += 1
                return change(self.number - 1, next(self.batches))

        monkeypatch.setattr(data, "train_batches", Changed)

    return install


def interrupt_at(number):
    def change(n, batch):
        if n == number:
            raise Interrupted
        return batch

    return change


def timeless(workdir):
    """The records of a run, without what a clock measured."""
    return [record | dict.fromkeys(CLOCKED) for record in read_metrics(workdir)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, make_config):
    """A finished run with memory: workdir, config, results."""
    workdir, config = tmp_path_factory.mktemp("finished"), make_config()
    return workdir, config, train(config, workdir)


def test_a_run_leaves_metrics_checkpoints_and_an_evaluation(finished, capsys):
    workdir, config, results = finished
    records = read_metrics(workdir)
    assert [record["step"] for record in records] == [2, 4, 6, 8, 10, 12]
    for record in records:
        assert record["loss"] > 0 and 0 <= record["accuracy"] <= 1 and record["gradient_norm"] > 0
        assert record["bits_per_byte"] is None and record["skipped"] == 0
        assert record["tokens_per_second"] > 0
        shares = [value for name, value in record.items() if name == "goodput" or name.endswith("_share")]
        assert len(shares) == 5 and min(shares) >= 0 and sum(shares) == pytest.approx(1)
        assert len(record["fusion_gate"]) == config.model.num_layers
    evaluation = json.loads((workdir / "evaluation.json").read_text())
    assert evaluation.pop("settings")["num_batches"] == config.evaluation.num_batches
    assert len(evaluation.pop("crc32")) == 8
    assert results == records[-1] | {"evaluation": evaluation}
    assert list((workdir / "tensorboard").glob("events.*"))
    assert load_run(workdir).step == 12
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["10", "12"]


def test_several_steps_in_one_call_are_the_same_steps(finished, tmp_path, make_config, change_batches):
    """Also where the run was interrupted between two calls."""
    config = make_config(steps_per_call=2, checkpoint_every=4)
    change_batches(interrupt_at(7))
    with pytest.raises(Interrupted):
        train(config, tmp_path)
    assert load_run(tmp_path).step == 4
    change_batches(lambda number, batch: batch)
    train(config, tmp_path)
    figures = lambda workdir: [[r["step"], r["loss"], r["learning_rate"]] for r in read_metrics(workdir)]  # noqa: E731
    np.testing.assert_allclose(figures(tmp_path), figures(finished[0]), rtol=1e-5)
    with pytest.raises(ValueError, match=r"training.log_every=2 must be a multiple of training.steps_per_call=3"):
        make_config(steps_per_call=3)


def test_a_damaged_checkpoint_costs_the_steps_since_the_last_good_one(finished, tmp_path, caplog):
    """Afterwards everything is bitwise as if nothing had happened."""
    workdir, config, results = finished
    shutil.copytree(workdir, tmp_path / "run")
    damaged = max((tmp_path / "run/checkpoints/12/params").rglob("*"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(b"x" + damaged.read_bytes()[1:])
    again = train(config, tmp_path / "run", print_progress=False)
    assert "checkpoint of step 12 is damaged" in caplog.text and damaged.name in caplog.text
    assert again["evaluation"] == results["evaluation"]
    assert timeless(tmp_path / "run") == timeless(workdir)
    jax.tree.map(np.testing.assert_array_equal, load_run(tmp_path / "run").params, load_run(workdir).params)
    assert load_run(tmp_path / "run").step == 12


def test_a_start_traces_the_state_twice_and_a_restart_once(tmp_path, make_config, monkeypatch):
    """For its shapes, which are kept, and to make it."""
    config, traced, original = make_config(model=PLAIN, steps=2, log_every=2), [], state.state_of

    def state_of(config, params):
        traced.append(config)
        return original(config, params)

    monkeypatch.setattr(state, "state_of", state_of)
    train(config, tmp_path, print_progress=False)
    assert len(traced) == 2
    state.abstract_state.cache_clear()
    train(config, tmp_path, print_progress=False)
    assert len(traced) == 3


@pytest.mark.slow
def test_diagnostics_are_means_over_the_batches_of_a_call(make_config):
    config = make_config(optimizer={"accumulate_steps": 2})
    start, mesh = jax.jit(partial(state.create, config))(), parallel.make_mesh(config.parallel)
    batches = data.train_batches(config.data, config.training, 0)
    batch = loop.stack([next(batches) for _ in range(2)])
    diagnose = jitted_diagnostics(config, mesh)
    first, second = (jax.tree.map(lambda array: array[number : number + 1], batch) for number in range(2))  # noqa: B023
    one = jax.tree.map(lambda array: array[0], batch)
    score = jax.jit(partial(models.functional(config.model).score, alignment="aligned"))
    _, memory = score(start.params, targets=one.targets, state=start.model_state, **one.inputs)
    singles = [diagnose(start.params, first, start.model_state), diagnose(start.params, second, memory)]
    found = diagnose(start.params, batch, start.model_state)
    for name, array in found.items():
        np.testing.assert_allclose(array, (singles[0][name] + singles[1][name]) / 2, rtol=1e-4)
    assert any(np.abs(singles[0][name] - singles[1][name]).max() > 1e-3 for name in found)


def test_a_finished_run_returns_its_results_without_a_step(finished, change_batches):
    workdir, config, results = finished
    change_batches(interrupt_at(0))
    assert train(config, workdir) == results


def test_another_config_is_refused_with_the_difference(finished, make_config):
    with pytest.raises(RunError, match=r"\n  training\.steps: 12 → 13\nTo train for more steps, give --extend"):
        train(make_config(steps=13), finished[0])
    with pytest.raises(RunError, match=r"\n  training\.batch_size: 4 → 8$"):
        train(make_config(batch_size=8), finished[0])


def test_a_second_trainer_is_refused(finished):
    workdir, config, _ = finished
    with locked(workdir), pytest.raises(RunError, match=r"in use by another trainer \(process \d+\)"):
        train(config, workdir)


@pytest.mark.slow
def test_an_interrupted_text_run_is_resumed_bitwise(tmp_path, make_config, change_batches):
    corpus = tmp_path / "corpus"
    for split, number in (("train", 9), ("valid", 2)):
        (corpus / split).mkdir(parents=True)
        for i in range(number):
            (corpus / split / f"{i}.txt").write_text(f"document {i} of {split}. " * (3 + 2 * i))
    text = TextConfig(corpus="folder", path=str(corpus), tokenizer="byte", cache_dir=str(tmp_path / "cache"))
    config = make_config(data=text, model=PLAIN | {"vocab_size": 260}, optimizer={"accumulate_steps": 2})
    expected = train(config, tmp_path / "whole")
    assert expected["bits_per_byte"] > 0

    workdir = tmp_path / "cut"
    change_batches(interrupt_at(16))  # in step 9, after step 8 was logged and step 5 saved
    with pytest.raises(Interrupted):
        train(config, workdir)
    assert [record["step"] for record in read_metrics(workdir)][-1] > load_run(workdir).step == 5
    change_batches(lambda number, batch: batch)
    results = train(config, workdir)
    assert timeless(workdir) == timeless(tmp_path / "whole")
    assert results["evaluation"] == expected["evaluation"]
    for name in ("params", "model_state"):
        trees = []
        for folder in (workdir, tmp_path / "whole"):
            with Checkpoints(folder) as checkpoints:
                trees.append(getattr(restore_run(checkpoints, config)[0], name))
        jax.tree.map(np.testing.assert_array_equal, *trees)


def test_updates_skipped_in_a_row_stop_the_run_with_a_good_checkpoint(tmp_path, make_config, change_batches, caplog):
    def poison(number, batch):
        weights = {"tokens": batch.weights["tokens"] * np.nan}
        return batch._replace(weights=weights) if number in (2, 6, 7, 8) else batch

    config = make_config(model=PLAIN, max_skipped=3)
    change_batches(poison)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(RunError, match=r"stopped at step 9: 3 updates in a row were skipped.*loss is not finite"),
    ):
        train(config, tmp_path)
    assert [record.message.split(":")[0] for record in caplog.records] == ["step 3", "step 7", "step 8", "step 9"]
    assert [record["skipped"] for record in read_metrics(tmp_path)] == [0, 1, 1, 3]
    assert all(record["loss"] is None or np.isfinite(record["loss"]) for record in read_metrics(tmp_path))
    loaded = load_run(tmp_path)
    assert loaded.step == 5
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(loaded.params))


def test_updates_skipped_within_a_call_are_reported_and_stop_the_run(tmp_path, make_config, change_batches, caplog):
    def poison(number, batch):
        weights = {"tokens": batch.weights["tokens"] * np.nan}
        return batch._replace(weights=weights) if number in (1, 4, 5) else batch

    config = make_config(model=PLAIN, max_skipped=2, steps_per_call=4, log_every=4, checkpoint_every=4)
    change_batches(poison)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(RunError, match=r"stopped at step 8: 2 updates in a row were skipped: the loss is not finite"),
    ):
        train(config, tmp_path)
    assert [record.message.split(":")[0] for record in caplog.records] == ["steps 1 to 4", "steps 5 to 8"]


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path, make_config, monkeypatch):
    class Tokenizer:
        vocab_size = 300

    monkeypatch.setattr(data, "tokenizer_of", lambda config: Tokenizer())
    with pytest.raises(RunError, match=r"300 token ids, but model.vocab_size is 20"):
        run_tokenizer(make_config(data=TextConfig()), tmp_path)


def test_data_that_is_not_there_ends_the_run_with_the_reason(tmp_path, make_config):
    config = make_config(data=BabiConfig(path=str(tmp_path / "nowhere"), num_words=20))
    with pytest.raises(RunError, match=r"data\.path='.*nowhere' must be a folder"):
        train(config, tmp_path / "run")


def test_metrics_after_the_checkpoint_and_cut_lines_are_dropped(tmp_path):
    lines = [json.dumps({"step": step, "loss": step / 2}) + "\n" for step in (2, 4, 6)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"step": 8, "lo')
    assert [record["step"] for record in read_metrics(tmp_path)] == [2, 4, 6]
    with MetricsLog(tmp_path, step=4) as log:
        log.write({"step": 6, "loss": None, "gates": [0.5, 0.25], "histogram": [[1, 2], [3, 4]]})
    assert [record["loss"] for record in read_metrics(tmp_path)] == [1.0, 2.0, None]


def test_wall_time_is_shared_out(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: clock[0])
    wall_time = WallTime()
    for what, seconds in (("data", 1.0), ("compilation", 2.0), ("data", 1.0)):
        with wall_time.spent(what):
            clock[0] += seconds
    clock[0] += 4.0
    assert wall_time.shares() == {
        "goodput": 0.5, "data_share": 0.25, "compilation_share": 0.25, "checkpoints_share": 0.0, "evaluation_share": 0.0
    }  # fmt: skip
    clock[0] += 1.0
    assert wall_time.shares()["goodput"] == 1.0


def test_progress_fits_a_terminal_and_logs_elsewhere(caplog, capsys):
    record = {"loss": 1.25, "bits_per_byte": 2.5, "tokens_per_second": 12345.6}
    with progress(0, 10, shown=True) as advance:
        advance(1, None)
        advance(2, record)
    last = capsys.readouterr().out.splitlines()[-1]
    assert "2/10" in last and "loss 1.250  bits/byte 2.500  12,346 tokens/s" in last and "left" in last
    with caplog.at_level(logging.INFO), progress(0, 10, shown=False) as advance:
        advance(1, None)
        advance(2, record)
    assert [line.message for line in caplog.records] == ["step 2: loss 1.250  bits/byte 2.500  12,346 tokens/s"]
    assert capsys.readouterr().out == ""
