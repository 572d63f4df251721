"""A run is evaluated while it is trained, and keeps its best parameters."""

import json
import shutil

import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.training import train, validation

pytest.importorskip("sklearn", reason="the extra `tasks` is not installed")
SIZES = {"vocab_size": 257, "d_model": 16, "num_layers": 1, "num_heads": 2, "segment_length": 16}
REVIEWS = [
    {"text": f"a {word} film {number}", "label": label}
    for number in range(7)
    for label, words in (("good", ("fine", "lovely", "great")), ("bad", ("dull", "awful", "slow")))
    for word in words
]


def validated(folder, training, **evaluation):
    """A classifier of reviews that is evaluated after every fourth step."""
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in REVIEWS))
    backbone = mg.ModelConfig(**SIZES, window_size=16, memory=mg.NoMemoryConfig())
    return mg.ExperimentConfig(
        model=mg.HeadedConfig(backbone=backbone, head=mg.LabelHeadConfig()),
        data=mg.LabelledTextConfig(train=str(folder / "a.jsonl"), tokenizer="byte"),
        training=mg.TrainingConfig(batch_size=2, sequence_length=32, carry_state=False, **training),
        evaluation=mg.EvaluationConfig(every=4, batch_size=4, chunk_length=32, **evaluation),
    )


def test_a_run_that_no_longer_improves_stops_and_keeps_its_best(tmp_path, monkeypatch):
    """Also if it is killed after the best step; and a stopped run is finished."""
    config = validated(tmp_path, {"steps": 40, "checkpoint_every": 2, "log_every": 4}, patience=2, metric="loss")
    values, evaluated = iter([3.0, 2.0, 2.5, 2.6, 9.0]), validation.evaluate

    def evaluate(*arguments):
        return evaluated(*arguments) | {"loss": next(values)}

    monkeypatch.setattr(validation, "evaluate", evaluate)
    result = train(config, tmp_path / "run", print_progress=False)
    records = validation.read_validations(tmp_path / "run")
    assert [(record["step"], record["loss"]) for record in records] == [(4, 3.0), (8, 2.0), (12, 2.5), (16, 2.6)]
    assert result["step"] == 16 and mg.load_run(tmp_path / "run").step == 16
    best = mg.load_run(tmp_path / "run" / "best")
    assert best.step == 8
    at_8 = evaluated(config_of(tmp_path / "run"), best.params, ByteTokenizer())
    assert result["evaluation"]["loss"] == at_8["loss"]
    pipeline = mg.pipeline(tmp_path / "run")
    np.testing.assert_array_equal(pipeline.params["head"]["output"]["kernel"], best.params["head"]["output"]["kernel"])
    assert train(config, tmp_path / "run", print_progress=False)["step"] == 16  # it is finished


@pytest.mark.slow
def test_the_last_parameters_and_those_of_a_killed_run_are_compared_too(tmp_path, monkeypatch):
    config = validated(tmp_path, {"steps": 6, "checkpoint_every": 4, "log_every": 2})
    evaluated = validation.evaluate
    monkeypatch.setattr(validation, "evaluate", lambda *arguments: evaluated(*arguments) | {"loss": next(values)})

    values = iter([3.0, 2.0])
    train(config, tmp_path / "run", print_progress=False)
    assert [record["step"] for record in validation.read_validations(tmp_path / "run")] == [4, 6]
    assert mg.load_run(tmp_path / "run" / "best").step == 6

    shutil.rmtree(tmp_path / "run" / "best")  # as if killed between the last checkpoint and its evaluation
    path = tmp_path / "run" / "validations.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    values = iter([2.0])
    train(config, tmp_path / "run", print_progress=False)
    records = validation.read_validations(tmp_path / "run")
    assert [(record["step"], record["loss"]) for record in records] == [(4, 3.0), (6, 2.0)]
    assert mg.load_run(tmp_path / "run" / "best").step == 6


def config_of(workdir):
    return mg.load_run(workdir).config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"every": 3}, "evaluation.every=3 must be a multiple of training.checkpoint_every=100"),
        ({"patience": 1}, "evaluation.patience=1 needs evaluation.every"),
    ],
)
def test_evaluations_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        mg.ExperimentConfig(evaluation=mg.EvaluationConfig(**changes))
