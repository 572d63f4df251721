"""Texts with any number of labels: files, batches, metrics, training and the pipeline."""

import itertools
import json

import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data import batch_shapes
from memgpt_jax.data.tasks.multi_label_text import MultiLabelTextTask
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.evaluation.metrics.multi_labels import multi_label_metrics
from memgpt_jax.training.own_batches import check_batches
from tests.laws.models import random_params

BYTES = ByteTokenizer()
ROWS = [
    {"text": f"{' and '.join(words) or 'nothing'} {number}", "labels": words}
    for number in range(4)
    for size in range(3)
    for words in map(list, itertools.combinations(("red", "big", "old"), size))
]
SIZES = {"vocab_size": 257, "d_model": 16, "num_layers": 1, "num_heads": 2, "segment_length": 16}


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def task_of(path, **options):
    return MultiLabelTextTask(mg.MultiLabelTextConfig(train=path, valid_every=1000, **options), "train", BYTES)


def test_packed_rows_hold_the_labels_of_each_text(tmp_path):
    task = task_of(written(tmp_path / "a.jsonl", ROWS))
    assert task.config.labels == ("big", "old", "red")
    batches = task.batches(0, 2, 64)
    shapes = batch_shapes(task.config, mg.TrainingConfig(batch_size=2, sequence_length=64))
    expected, seen = {row["text"]: set(row["labels"]) for row in ROWS}, set()
    for _, batch in zip(range(12), batches, strict=False):
        assert batch.targets["labels"].shape == shapes.targets["labels"].shape == (2, 64, 3)
        assert batch.targets["labels"].dtype == np.int32
        assert batch.weights["labels"].shape == shapes.weights["labels"].shape == (2, 64)
        for row, end in zip(*batch.weights["labels"].nonzero(), strict=True):
            first = batch.inputs["reset"][row, : end + 1].nonzero()[0][-1]
            text = BYTES.decode(batch.inputs["tokens"][row, first + 1 : end + 1].tolist())
            seen.add(text)
            target = batch.targets["labels"][row, first : end + 1]
            np.testing.assert_array_equal(target, np.tile(target[-1], (len(target), 1)))
            assert {task.config.labels[i] for i in target[-1].nonzero()[0]} == expected[text]
    assert seen == expected.keys()


def test_sampled_rows_hold_the_labels_of_one_text_each(tmp_path):
    task = task_of(written(tmp_path / "a.jsonl", ROWS), sample_rows=3)
    expected, texts = {row["text"]: set(row["labels"]) for row in ROWS}, 0
    for _, batch in zip(range(4), task.batches(0, 6, 64), strict=False):
        assert batch.targets["labels"].shape == (6, 64, 3) and batch.weights["labels"].shape == (6, 64)
        for row, end in zip(*batch.weights["labels"].nonzero(), strict=True):
            text = BYTES.decode(batch.inputs["tokens"][row, 1 : end + 1].tolist())
            assert {task.config.labels[i] for i in batch.targets["labels"][row, end].nonzero()[0]} == expected[text]
            texts += 1
    assert texts


def test_labels_may_be_a_string_or_be_missing(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,labels\nx,"b, a"\ny,\nz,a\n')
    examples = task_of(str(path)).examples
    assert [example.labels for example in examples] == [(0, 1), (), (0,)]
    path.write_text("text,labels\nx,b|a|a\ny,1\n")
    task = task_of(str(path), label_separator="|")
    assert task.config.labels == ("1", "a", "b") and task.target(0).tolist() == [0, 1, 1]
    numbers = written(tmp_path / "a.jsonl", [{"text": "x", "labels": [1, 2.0]}, {"text": "y", "labels": []}])
    assert task_of(numbers).config.labels == ("1", "2")


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["a", ""], {}, "a.jsonl, line 1: column 'labels' must be a label, it is empty"),
        (["a", None], {}, "a.jsonl, line 1: column 'labels' must be a label, it is null"),
        (["a", ["b"]], {}, "a.jsonl, line 1: column 'labels' must be a label, it is a list"),
        ("a,,b", {}, "column 'labels' must be a label, it is empty"),
        ("['a', 'b']", {}, "a.jsonl, line 1: column 'labels' holds a list as a text, .* give the labels with ','"),
        ("[]", {}, "column 'labels' holds a list as a text, '\\[\\]'"),
        (None, {}, "column 'labels' must be a list of labels or a string, it is null"),
        (3, {}, "column 'labels' must be a list of labels or a string, it is a int"),
        (0, {}, "column 'labels' must be a list of labels or a string, it is a int"),
        ({"a": 1}, {}, "column 'labels' must be a list of labels or a string, it is a dict"),
        (["a", "c"], {"labels": ("a", "b")}, "a.jsonl, line 1: the label 'c' is not one of the 2 labels"),
        (["a"], {}, "has only the label a"),
        (["a", "b"], {"labels": ("a",)}, "data.labels must be at least two labels"),
        (["a", "b"], {"label_separator": ""}, "data.label_separator must not be empty"),
    ],
)
def test_labels_that_are_refused(labels, options, message, tmp_path):
    path = written(tmp_path / "a.jsonl", [{"text": "x", "labels": labels}])
    with pytest.raises(ValueError, match=message):
        task_of(path, **options)


def test_metrics_by_hand():
    pytest.importorskip("sklearn", reason="the extra `tasks` is not installed")
    targets = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]])
    predicted = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0]])
    found = multi_label_metrics(predicted, targets, ("a", "b", "c"))
    assert found["micro_f1"] == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))  # 3 right, one missed, one too many
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found["accuracy"] == 0.5
    assert found["classes"]["b"] == {"precision": 1, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    low, high = found["micro_f1_interval"]
    assert 0 <= low <= found["micro_f1"] <= high <= 1
    nothing = multi_label_metrics(0 * predicted, 0 * targets, ("a", "b", "c"))
    assert nothing["micro_f1"] == nothing["macro_f1"] == 0 and nothing["accuracy"] == 1


@pytest.mark.slow
def test_labels_are_learned_and_the_pipeline_gives_all_probabilities(tmp_path):
    pytest.importorskip("sklearn", reason="the extra `tasks` is not installed")
    config = mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), heads=())
    model = mg.from_params(config, random_params(config))
    options = {"epochs": 60, "batch_size": 4, "sequence_length": 32, "learning_rate": 1e-2, "dropout": 0.0}
    options |= {"tokenizer": BYTES, "workdir": tmp_path, "print_progress": False}
    run = mg.finetune(model, mg.MultiLabelTextConfig(), train=ROWS, valid=ROWS, **options)
    assert run.evaluation["micro_f1"] > 0.9 and run.evaluation["examples"] == len(ROWS)
    assert run.evaluation["loss"] < 0.3 and set(run.evaluation["classes"]) == {"red", "big", "old"}
    classify = mg.pipeline(run.workdir)
    found = {label["label"]: label["score"] for label in classify("red and big 1", top_k=None)}
    assert found["red"] > 0.5 and found["big"] > 0.5 and found["old"] < 0.5


def test_heads_and_batches_that_do_not_fit(tmp_path):
    backbone = mg.EncoderConfig(**SIZES, memory=mg.NoMemoryConfig(), heads=())

    def experiment(data, **head):
        training = mg.TrainingConfig(batch_size=2, sequence_length=16)
        return mg.ExperimentConfig(
            model=mg.HeadedConfig(backbone=backbone, head=mg.LabelHeadConfig(**head)), data=data, training=training
        )

    with pytest.raises(ValueError, match="for any number of labels give loss='binary'"):
        experiment(mg.MultiLabelTextConfig())
    with pytest.raises(ValueError, match="this task has one: take MultiLabelTextConfig"):
        experiment(mg.LabelledTextConfig(), loss="binary")

    class Same:
        def __init__(self, weights):
            inputs = {"tokens": np.zeros((2, 16), np.int32), "reset": np.zeros((2, 16), bool)}
            self.batch = mg.data.Batch(inputs, {"labels": np.zeros((2, 16, 3), np.int32)}, {"labels": weights}, {})

        def __next__(self):
            return self.batch

        def get_state(self):
            return 0

        def set_state(self, state):
            pass

    config = experiment(mg.MultiLabelTextConfig(), loss="binary", num_outputs=3)
    check_batches(config, Same(np.ones((2, 16), np.float32)))
    with pytest.raises(ValueError, match=r"weights\['labels'\] must have shape \(2, 16\), got \(2, 16, 3\)"):
        check_batches(config, Same(np.ones((2, 16, 3), np.float32)))
