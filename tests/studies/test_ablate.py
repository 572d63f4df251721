"""What an ablation over mechanisms and sizes reports: table, CSV, and the plot against the bytes of the state."""

import csv
from pathlib import Path

import pytest

from memgpt_jax.studies import plots
from memgpt_jax.studies.command_line import sweep
from memgpt_jax.studies.commands import ablate
from memgpt_jax.training import RunError


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved, by the name of the file."""
    saved = {}
    monkeypatch.setattr(plots, "save", lambda figure, path: saved.update({Path(path).name: figure}))
    return saved


@pytest.mark.slow
def test_mechanisms_against_state_bytes(tmp_path, figures):
    combinations = sweep(["model.memory=none,kv", "model.memory.match_state_bytes=1024,4096", "seed=0,1"])
    results = [
        {"accuracy": 0.02, "state_bytes": 0, "parameters": 9},
        {"accuracy": 0.04, "state_bytes": 0, "parameters": 9},
    ]
    results += [
        {"accuracy": accuracy, "state_bytes": size, "parameters": 9, "groups": {}}
        for size in (1000, 4000)
        for accuracy in (0.5, 0.7)
    ]
    table = ablate.report(combinations, results, tmp_path, "title")
    columns = [list(column.cells) for column in table.columns]
    assert columns[:3] == [
        ["none", "kv", "kv"],
        ["", "match_state_bytes 1024", "match_state_bytes 4096"],
        ["0", "1,000", "4,000"],
    ]
    assert columns[3] == ["9", "9", "9"]
    assert columns[4] == ["0.0300", "0.6000", "0.6000"] and columns[6] == ["2", "2", "2"]
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "model.memory",
        "seed",
        "model.memory.match_state_bytes",
        "accuracy",
        "state_bytes",
        "parameters",
    ]
    assert rows[0]["model.memory.match_state_bytes"] == "" and rows[5]["state_bytes"] == "4000"
    assert figures.keys() == {"results.png", "state_bytes.png"}
    (axes,) = figures["state_bytes.png"].axes
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"memory none", "memory kv"}
    assert axes.containers[0].lines[0].get_xdata().tolist() == [1000, 4000]


def test_runs_of_one_size_have_no_such_plot(tmp_path, figures):
    ablate.report(sweep(["seed=0,1"]), [{"accuracy": 1.0, "state_bytes": 7, "parameters": 9}] * 2, tmp_path, "title")
    assert figures.keys() == {"results.png"}


def test_a_size_that_nothing_fits_ends_it_at_once(tmp_path, memgpt):
    words = ["recall", "--sweep", "model.memory.match_state_bytes=4096,4", "--workdir", tmp_path / "new"]
    error = memgpt("ablate", *words, code=2)
    named = "error: model.memory.match_state_bytes=4: match_state_bytes=4: the smallest state of KVMemoryConfig has"
    assert named in error
    assert not (tmp_path / "new").exists()


def test_a_sweep_of_configs_applies_the_options_to_each(tmp_path, monkeypatch, memgpt, figures):
    def train(config, workdir):
        workdir.mkdir(parents=True)
        head = type(config.model.head).__name__
        groups = {"all": 0.9, "without text": 0.5} if head == "GraphHeadConfig" else {"all": 0.8}
        assert config.training.steps == 20 and config.seed in (0, 1)
        return {"evaluation": {"accuracy": 0.5 + config.seed / 10, "groups": groups}}

    monkeypatch.setattr(ablate, "train", train)
    monkeypatch.setattr(ablate, "trained_parameters", lambda workdir: 9)
    words = [
        "--training.steps",
        "20",
        "--sweep",
        "config=shapes,shapes_graph",
        "seed=0,1",
        "--workdir",
        tmp_path / "new",
    ]
    printed = " ".join(memgpt("ablate", "shapes", *words).split())
    assert "config" in printed and "without text" in printed
    with open(tmp_path / "new" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["config"] for row in rows] == ["shapes"] * 2 + ["shapes_graph"] * 2
    assert [row["groups.all"] for row in rows] == ["0.8"] * 2 + ["0.9"] * 2 and rows[0]["groups.without text"] == ""
    words[3] = "config=shapes,nothing"
    assert "there is no config 'nothing'" in memgpt("ablate", "shapes", *words, code=2)


def test_runs_are_compared_by_a_metric_that_all_have(tmp_path, figures):
    results = [
        {"accuracy": 0.5, "loss": 1.0, "state_bytes": 0, "parameters": 9},
        {"loss": 2.0, "state_bytes": 4, "parameters": 9},
    ]
    table = ablate.report(sweep(["config=a,b"]), results, tmp_path, "title")
    assert [column.header for column in table.columns][4] == "loss" and [*table.columns[4].cells] == [
        "1.0000",
        "2.0000",
    ]
    del results[1]["loss"]
    figures.clear()
    table = ablate.report(sweep(["config=a,b"]), results, tmp_path, "title")
    assert [*table.columns[4].cells] == ["", ""] and [*table.columns[6].cells] == ["1", "1"] and not figures
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 3


def test_an_illegal_combination_is_named(tmp_path, memgpt):
    words = ["recall", "--sweep", "model.memory.num_heads=1,0", "seed=0,1", "--workdir", tmp_path / "new"]
    error = memgpt("ablate", *words, code=2)
    assert "error: model.memory.num_heads=0,seed=0: " in error and "num_heads must be at least 1, got 0" in error


@pytest.mark.parametrize("kind", [RunError, ValueError])
def test_a_run_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, memgpt, kind):
    def train(config, workdir):
        workdir.mkdir(parents=True)
        if config.seed == 1:
            raise kind("the loss is not finite")
        return {"evaluation": {"accuracy": 0.5}}

    monkeypatch.setattr(ablate, "train", train)
    monkeypatch.setattr(ablate, "trained_parameters", lambda workdir: 9)
    error = memgpt("ablate", "recall", "--sweep", "seed=0,1,2", "--workdir", tmp_path / "new", code=2)
    assert "1 of 3 runs failed" in error and "seed=1: the loss is not finite" in error
    assert len((tmp_path / "new" / "results.csv").read_text().splitlines()) == 3


def test_losses_per_other_tokens_are_not_compared(tmp_path, monkeypatch, memgpt, figures):
    def train(config, workdir):
        workdir.mkdir(parents=True)
        tokens = 90 if config.data.tokenizer == "byte" else 30
        return {"evaluation": {"loss": 0.5, "documents": 3, "tokens": tokens, "bytes": None}}

    monkeypatch.setattr(ablate, "train", train)
    monkeypatch.setattr(ablate, "trained_parameters", lambda workdir: 9)
    words = ["stdlib", "--model.vocab_size", "4096", "--sweep"]
    for field, compared in (("data.tokenizer=byte,bpe", False), ("seed=0,1", True)):
        printed = " ".join(memgpt("ablate", *words, field, "--workdir", tmp_path / field).split())
        assert ("the losses are not compared" in printed) != compared
        assert ("not evaluated on the same text: 90, 30 tokens" in printed) != compared
        assert figures.keys() == ({"results.png"} if compared else set())
    assert ablate.unequal_text([{"bytes": 5, "tokens": 1}, {"bytes": 5, "tokens": 2}]) is None


def test_a_length_that_the_task_does_not_use_is_not_swept(tmp_path, memgpt):
    words = ["--sweep", "training.sequence_length=128,256", "--workdir", tmp_path / "new"]
    error = memgpt("ablate", "recall", *words, code=2)
    assert "training.sequence_length has no effect: rows of RecallConfig have" in error
    assert "sweep data.context_length" in error and not (tmp_path / "new").exists()
