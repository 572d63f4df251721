"""Numbers of texts: files, training, metrics and the pipeline."""

import json

import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data.tasks.scored_text import ScoredTextTask
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.evaluation.metrics.numbers import number_metrics
from memgpt_jax.studies import entry
from tests.laws.models import random_params

pytest.importorskip("sklearn", reason="the extra `tasks` is not installed")
WORDS = {"awful": 20.0, "slow": 30.0, "fine": 70.0, "lovely": 80.0}
ROWS = [{"text": f"a {word} film {i}", "number": number + i} for i in range(5) for word, number in WORDS.items()]
BYTES = ByteTokenizer()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    sizes = {"vocab_size": 257, "d_model": 32, "num_layers": 1, "num_heads": 2, "segment_length": 16}
    config = mg.ModelConfig(**sizes, window_size=64, memory=mg.NoMemoryConfig())
    model = mg.from_params(config, random_params(config))
    options = {"epochs": 60, "batch_size": 4, "sequence_length": 64, "learning_rate": 3e-3, "dropout": 0.0}
    workdir = tmp_path_factory.mktemp("stars")
    task = mg.ScoredTextConfig(max_length=48, clean=mg.CleanConfig(whitespace=True))
    return mg.finetune(model, task, train=ROWS, workdir=workdir, tokenizer=BYTES, print_progress=False, **options)


def test_a_small_set_is_learned_in_its_own_unit(trained):
    found = trained.evaluation
    assert found["documents"] == found["numbers"] == 2
    assert found["rmse"] < 15 and found["mae"] <= found["rmse"] and found["rmse_interval"][0] <= found["rmse"]
    head = mg.load_run(trained.workdir).config.model.head
    numbers = [row["number"] for place, row in enumerate(ROWS, start=1) if place % 10]
    assert head.mean == pytest.approx(np.mean(numbers)) and head.std == pytest.approx(np.std(numbers))
    assert head.max_length == 48
    assert found["loss"] == pytest.approx((found["rmse"] / head.std) ** 2, rel=1e-4)


@pytest.mark.slow
def test_the_pipeline_gives_numbers_whatever_the_calls(trained, capsys):
    rate = mg.pipeline(trained.workdir)
    good, bad = rate(["a lovely film 2", "an awful film 2"])
    assert good["score"] - bad["score"] > 30
    alone = rate("a lovely film 2")
    assert alone[0]["score"] == pytest.approx(good["score"], rel=1e-4) and rate([]) == []
    other = mg.pipeline("text-regression", model=trained.workdir, length=5)(["a lovely film 2"])
    assert other[0]["score"] == pytest.approx(good["score"], rel=1e-4)
    assert rate(" a  lovely   film 2 ")[0]["score"] == pytest.approx(good["score"], rel=1e-4)  # cleaned as in training
    with pytest.raises(ValueError, match=r"model\.head"):
        mg.pipeline("text-classification", model=trained.workdir)
    capsys.readouterr()
    entry.main(["predict", str(trained.workdir), "--text", "a lovely film 2"])
    line = json.loads(capsys.readouterr().out)
    assert line["text"] == "a lovely film 2" and line["score"] == pytest.approx(good["score"], rel=1e-4)


def test_a_target_stands_at_the_last_token_of_its_text(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = ScoredTextTask(mg.ScoredTextConfig(train=str(path)), "train", BYTES)
    batch = task.batch(0, 2, 64)
    assert batch.targets["numbers"].dtype == np.float32
    rows, ends = np.nonzero(batch.weights["numbers"])
    begins = np.nonzero(batch.inputs["reset"])
    assert len(rows) >= 4
    for row, end in zip(rows, ends, strict=True):
        start = max(place for other, place in zip(*begins, strict=True) if other == row and place <= end)
        text = bytes(batch.inputs["tokens"][row, start + 1 : end + 1].astype(np.uint8)).decode()
        expected = {example["text"]: example["number"] for example in ROWS}[text]
        assert batch.targets["numbers"][row, end] == np.float32(expected)


def numbered(*numbers):
    return "".join(json.dumps({"text": "a", "number": number}) + "\n" for number in numbers)


def test_given_statistics_are_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(numbered(1, 2, 3))
    config = mg.ScoredTextConfig(train=str(path), mean=10.0).completed()
    assert (config.mean, config.std) == (10.0, pytest.approx(np.std([1, 2, 3])))


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            '{"text": "a", "number": "many"}\n',
            {},
            "line 1: column 'number' must be a finite number, it is 'many'",
        ),
        ('{"text": "a", "number": null}\n', {}, "must be a finite number, it is null"),
        ('{"text": "a", "number": true}\n', {}, "must be a finite number, it is a bool"),
        ('{"text": "a", "number": NaN}\n', {}, "must be a finite number, it is NaN"),
        ('{"text": "a"}\n', {}, "line 1 has no column 'number'"),
        ('{"text": "a", "number": 1}\n{"text": "b", "number": 1}\n', {}, "has only the number 1.0"),
        ('{"text": " ", "number": 1}\n{"text": "b", "number": 2}\n', {}, "line 1: the text is empty"),
        ("", {"max_length": 2}, "data.max_length must be at least 3"),
        ("", {"std": 0.0}, "data.std must be positive, got 0.0"),
        ("", {"mean": float("nan")}, "mean must be finite, got nan"),
        (
            numbered(1.7e9, 1.7e9 + 9),
            {},
            r"numbers of up to 1.7e\+09 with .* are too large for float32, whose step .* 128",
        ),
        (numbered(1, 1e40), {}, "numbers of up to 1e\\+40 .* are too large for float32"),
    ],
)
def test_bad_files_are_named(tmp_path, content, options, message):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        ScoredTextTask(mg.ScoredTextConfig(train=str(path), **options), "train", BYTES)


def test_a_head_that_does_not_fit_is_named():
    backbone = mg.ModelConfig(memory=mg.NoMemoryConfig())
    for head, message in (
        (mg.ScalarHeadConfig(pool="none"), "does not fit a number for each text"),
        (mg.LabelHeadConfig(), "needs a model with the head 'numbers'"),
    ):
        model = mg.HeadedConfig(backbone=backbone, head=head)
        with pytest.raises(ValueError, match=message):
            mg.ExperimentConfig(model=model, data=mg.ScoredTextConfig(train="a.csv"))


def test_metrics_of_numbers_by_hand():
    found = number_metrics([np.array([1.0, 2.0]), np.array([4.0])], [np.array([1.0, 4.0]), np.array([5.0])])
    assert found["rmse"] == pytest.approx(np.sqrt(5 / 3)) and found["mae"] == pytest.approx(1.0)
    assert found["spearman"] == pytest.approx(1.0)
    x, y = np.array([1.0, 2, 4]) - 7 / 3, np.array([1.0, 4, 5]) - 10 / 3
    assert found["pearson"] == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)))
    assert found["rmse_interval"][0] < found["rmse"] < found["rmse_interval"][1]
    constant = number_metrics([np.array([2.0, 2.0])], [np.array([1.0, 3.0])])
    assert constant["pearson"] is None and constant["spearman"] is None and constant["rmse"] == 1
