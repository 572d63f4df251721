"""`experiments/evaluate.py --lengths`: tasks at other lengths than in training, as a table, JSON and a plot."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from memgpt_jax import data
from memgpt_jax.checkpoint import load_run
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.copy import CopyConfig
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig
from memgpt_jax.data.tasks.needle import NeedleConfig
from memgpt_jax.data.tasks.ratings import RatingsConfig
from memgpt_jax.data.tasks.recall import RecallConfig
from memgpt_jax.data.tasks.tagged_text import TaggedTextConfig
from memgpt_jax.evaluation import HELD_OUT_SEED, TASK_EVALUATORS, evaluate, measured_names
from memgpt_jax.models.heads import LabelHeadConfig
from memgpt_jax.studies import comparison
from memgpt_jax.studies import runs as run_folders
from memgpt_jax.studies.commands import evaluate as command
from memgpt_jax.studies.plots import plot_recall
from tests.laws.runs import untrained_run

TASK = CopyConfig(num_symbols=4, max_length=3)
LABELS = LabelledTextConfig(train="a.jsonl", tokenizer="byte", labels=("a", "b"))
TAGS = TaggedTextConfig(train="a.conll", tokenizer="byte", tags=("B-a", "O"))


def config(task) -> ExperimentConfig:
    memory = KVMemoryConfig(memory_size=8, head_dim=8)
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=300, d_model=16, num_layers=1, num_heads=2, window_size=4, segment_length=4, memory=memory
        ),
        data=task,
        optimizer=OptimizerConfig(warmup_steps=1),
        training=TrainingConfig(steps=2, batch_size=2, sequence_length=40, carry_state=False),
        evaluation=EvaluationConfig(batch_size=2, num_batches=2, max_documents=1, max_tokens=8, chunk_length=8),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """A run, and a copy of it, which `script` takes for one of seed 1."""
    folder = tmp_path_factory.mktemp("lengths")
    run = untrained_run(config(TASK), folder / "copy-0")
    return [run, Path(shutil.copytree(run, folder / "copy-1"))]


@pytest.fixture
def script(monkeypatch):
    """The command as a function of its words, which returns the arguments of its plot."""
    load = run_folders.load_run

    def load_seed(workdir, step=None):
        saved = load(workdir, step)
        return saved._replace(config=dataclasses.replace(saved.config, seed=int(workdir.name == "copy-1")))

    monkeypatch.setattr(run_folders, "load_run", load_seed)
    plotted = []
    monkeypatch.setattr(command, "plot_recall", lambda *words: (plotted.append(words), plot_recall(*words)))

    def run(*words):
        command.main([str(word) for word in words])
        return plotted[-1] if plotted else None

    return run


@pytest.mark.slow
def test_table_json_and_plot(runs, script, capsys, tmp_path):
    lines, path, _, unit, metric = script(*runs, "--lengths", 3, 6, "--output", tmp_path)
    results = json.loads((tmp_path / "comparison.json").read_text())
    assert list(results) == [f"{run} length {length}" for run in runs for length in (3, 6)]
    assert path.read_bytes().startswith(b"\x89PNG") and (unit, metric) == ("max_length", "accuracy")
    assert lines == {str(runs[0].parent / "copy"): [[results[f"{run} length {n}"] for n in (3, 6)] for run in runs]}
    table = capsys.readouterr().out
    assert "length" in table and "accuracy" in table

    saved = load_run(runs[0])
    assert results[f"{runs[0]} length 6"].pop("length") == 6
    direct = evaluate(config(CopyConfig(num_symbols=4, min_length=6, max_length=6)), saved.params)
    assert results[f"{runs[0]} length 6"] == pytest.approx(direct)
    task = data.make_task(CopyConfig(num_symbols=4, min_length=6, max_length=6), "valid")
    batches = task.held_out(HELD_OUT_SEED, 2, 14, 2)
    assert direct["answers"] == sum(int(np.sum(batch.weights["tokens"])) for batch in batches) == 4 * 6


@pytest.mark.slow
def test_every_memory_size_is_a_line(runs, script, tmp_path):
    lines, *_ = script(runs[0], "--lengths", 3, 6, "--memory-size", 0, 8, "--output", tmp_path)
    assert list(lines) == [f"{runs[0]} memory {size}" for size in (0, 8)]
    assert [[point["length"] for point in seeds[0]] for seeds in lines.values()] == [[3, 6], [3, 6]]


def test_no_result_is_lost_by_a_run_that_cannot_be_measured(runs, tmp_path, capsys, monkeypatch):
    """All folders are checked before the first is measured; a run that fails later does not stop the others."""
    measured = []
    monkeypatch.setattr(command, "evaluate", lambda config, *_: measured.append(config) or {"accuracy": 0.5})
    (tmp_path / "results.csv").write_text("x")

    def fails(*words):
        with pytest.raises(SystemExit):
            command.main([*map(str, words), "--output", str(tmp_path)])
        return capsys.readouterr().err

    assert f"results.csv is a file, not the folder of a run; all runs of an ablation: {tmp_path}/*/" in fails(
        runs[0], tmp_path / "results.csv"
    )
    assert "there is no checkpoint in" in fails(runs[0], tmp_path / "nowhere")
    assert "no checkpoint of step 3" in fails(runs[0], "--step", 3) and not measured
    untrained_run(dataclasses.replace(config(TASK), data=RecallConfig()), tmp_path / "recall")
    error = fails(runs[0], tmp_path / "recall", runs[1], "--change", "data.num_symbols=4")
    assert "1 of 3 runs failed" in error and len(measured) == 2
    assert list(json.loads((tmp_path / "comparison.json").read_text())) == [str(run) for run in runs]


def test_results_are_written_before_a_report_that_is_not_possible(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "evaluate", lambda *_: {"loss": 0.5})
    words = ["--lengths", "3", "6", "--output", str(tmp_path), "--report", str(tmp_path / "report.md")]
    with pytest.raises(SystemExit):
        command.main([str(runs[0]), *words])
    assert "report: only runs on" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "comparison.json").read_text())) == 2 and (tmp_path / "comparison.png").is_file()


def test_all_documents_are_read_by_one_spelling(runs, tmp_path, monkeypatch, capsys):
    measured = []
    monkeypatch.setattr(command, "evaluate", lambda config, *_: measured.append(config.evaluation) or {"loss": 0.5})
    for words in ([], ["--max-documents", "None"], ["--max-documents", "3", "--max-tokens", "None"]):
        command.main([str(runs[0]), *words, "--output", str(tmp_path)])
    assert [(found.max_documents, found.max_tokens) for found in measured] == [(1, 8), (None, 8), (3, None)]
    with pytest.raises(SystemExit):
        command.main([str(runs[0]), "--max-documents", "0", "--output", str(tmp_path)])
    assert "max_documents must be at least 1, got 0" in capsys.readouterr().err


@pytest.fixture
def other_runs(tmp_path, runs, script, monkeypatch):
    """Runs of text and of needles: checkpoints whose config says so."""
    text = TextConfig(corpus="folder", path=str(tmp_path))
    saved = load_run(runs[0])
    changed = {"text": config(text), "needle": config(NeedleConfig(text=text))}

    def load(workdir, step):
        return saved._replace(config=changed[Path(workdir).name], tokenizer=data.ByteTokenizer())

    monkeypatch.setattr(run_folders, "load_run", load)
    monkeypatch.setattr(comparison, "check_run", lambda workdir, step: None)


@pytest.mark.usefixtures("other_runs")
@pytest.mark.parametrize(("name", "kind"), [("text", "TextConfig"), ("needle", "NeedleConfig")])
def test_runs_without_a_length_are_refused(name, kind, script, capsys):
    with pytest.raises(SystemExit) as error:
        script(name, "--lengths", 3)
    message = capsys.readouterr().err
    assert error.value.code == 2
    assert message == f"error: {name} was trained on {kind}, which has no length for --lengths to set\n"


def test_results_by_length_are_a_table_and_a_plot(tmp_path, capsys, monkeypatch):
    """Two runs that differ in the memory are two lines; results of another metric are not set side by side."""
    ratings = tmp_path / "ratings.csv"
    rows = [f"{user},{item},3,{item}" for user in range(6) for item in range(1, 9)]
    ratings.write_text("userId,movieId,rating,timestamp\n" + "\n".join(rows) + "\n")
    task = RatingsConfig(path=str(ratings), min_ratings=1, held_out=2)
    with_memory = with_fields(config(task), {"model.vocab_size": task.completed().num_ids, "evaluation.split": "test"})
    without = with_fields(with_memory, {"model.memory": NoMemoryConfig()})
    runs = [untrained_run(with_memory, tmp_path / "kv"), untrained_run(without, tmp_path / "none")]
    plotted = []
    monkeypatch.setattr(command, "plot_by_length", lambda *words: plotted.append(words))
    command.main([*map(str, runs), "--output", str(tmp_path)])
    results = json.loads((tmp_path / "comparison.json").read_text())
    ((lines, path, _),) = plotted
    assert path == tmp_path / "comparison.png"
    assert lines == {str(run): [results[str(run)]["by_length"]] for run in runs}
    table = capsys.readouterr().out
    assert "hit rate 10 by items before" in " ".join(table.split()) and "6 to 6" in table and "7 to 7" in table
    found = {label: result["by_length"] for label, result in results.items()}
    other = {"a": {"by_length": found[str(runs[0])] | {"metric": "f1"}}, "b": {"by_length": found[str(runs[1])]}}
    assert command.comparable(results) == found and command.comparable(other) == command.comparable({"a": {}}) == {}


@pytest.mark.parametrize(
    ("kind", "count"), [("multi_labels", "examples"), ("numbers", "numbers"), ("ranking", "users")]
)
def test_the_table_has_all_results_and_says_how_much_was_read(kind, count):
    names = [*measured_names(TASK_EVALUATORS[kind].evaluate), count]
    table = command.results_table({"a": dict.fromkeys(names, 0.25)})
    assert {column.header for column in table.columns} == {"run", *(name.replace("_", " ") for name in names)}


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        (LABELS, "data.labels=b a", r"head with output_names=\('a', 'b'\), and the data need \('b', 'a'\): leave out"),
        (LABELS, "data.labels=a b c", r"output_names=\('a', 'b'\), and the data need \('a', 'b', 'c'\)"),
        (LABELS, "data.max_length=4", None),
        (TAGS, "data.tag_token=first", "head with tag_token=last, and the data need first: leave out the change"),
        (TAGS, "data.tags=O B-a", r"output_names=\('B-a', 'O'\)"),
        (TAGS, "data.clean.lower=True", None),
    ],
)
def test_changes_of_data_that_need_another_head_are_refused(task, change, message, tmp_path):
    plain, of_words = config(TASK), task is TAGS
    head = LabelHeadConfig(pool="none" if of_words else "mean", output_names=task.output_names)
    model = HeadedConfig(backbone=plain.model, head=head)
    workdir = untrained_run(dataclasses.replace(plain, model=model, data=task), tmp_path / "run")
    if message is None:
        assert run_folders.reopen(workdir, [change]).config.data != task
        return
    with pytest.raises(ValueError, match=message):
        run_folders.reopen(workdir, [change])


def test_impossible_lengths_are_refused(runs, script, capsys):
    with pytest.raises(SystemExit):
        script(runs[0], "--lengths", 0)
    assert capsys.readouterr().err == f"error: {runs[0]} at length 0: min_length must be at least 1, got 0\n"
