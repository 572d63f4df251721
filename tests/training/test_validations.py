"""A run is evaluated while it is trained, and keeps its best parameters."""

import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.errors import RunError
from memgpt_jax.evaluation import EVALUATORS, TASK_EVALUATORS, measured_names
from memgpt_jax.studies.runs import reopen
from memgpt_jax.training import evaluation, loop, metrics, read_metrics, train, validation

pytest.importorskip("sklearn", reason="the extra `tasks` is not installed")
validation_evaluate = validation.evaluate
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
    assert result["step"] == 16 and mg.load_run(tmp_path / "run", step=16).step == 16
    best = mg.load_run(tmp_path / "run")
    assert best.step == reopen(tmp_path / "run").step == mg.load_run(tmp_path / "run", step=8).step == 8
    with pytest.raises(RunError, match="no checkpoint of step 2"):
        mg.load_run(tmp_path / "run", step=2)
    (tmp_path / "first" / "best" / "checkpoints" / "4.orbax-checkpoint-tmp-0").mkdir(parents=True)  # killed at its save
    shutil.copytree(tmp_path / "run" / "checkpoints", tmp_path / "first" / "checkpoints")
    assert mg.load_run(tmp_path / "first").step == 16
    at_8 = evaluated(config_of(tmp_path / "run"), best.params, ByteTokenizer())
    assert result["evaluation"]["loss"] == at_8["loss"]
    pipeline = mg.pipeline(tmp_path / "run")
    np.testing.assert_array_equal(pipeline.params["head"]["output"]["kernel"], best.params["head"]["output"]["kernel"])
    assert train(config, tmp_path / "run", print_progress=False)["step"] == 16  # it is finished
    settings = dataclasses.replace(config.evaluation, every=None, patience=None)
    with pytest.raises(RunError, match=r"set evaluation.every, or move validations.jsonl and best/ elsewhere"):
        train(dataclasses.replace(config, evaluation=settings), tmp_path / "run", print_progress=False)
    values = iter([1.0, 1.5, 1.6, 1.7, 9.0])  # at the steps 20 to 32
    more = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, patience=3))
    assert train(more, tmp_path / "run", print_progress=False)["step"] == 32
    assert train(config, tmp_path / "run", print_progress=False)["step"] == 32 and best_step(tmp_path / "run") == 20


def test_a_new_run_does_not_take_the_best_parameters_of_an_earlier_one(tmp_path):
    config = validated(tmp_path, {"steps": 4, "checkpoint_every": 4})
    train(config, tmp_path / "run", print_progress=False)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    for every, names in ((4, "validations.jsonl and best/"), (None, "best/")):
        settings = dataclasses.replace(config.evaluation, every=every)
        with pytest.raises(RunError, match=f"holds no checkpoint, but {names} of an earlier run"):
            train(dataclasses.replace(config, seed=7, evaluation=settings), tmp_path / "run", print_progress=False)
        (tmp_path / "run" / "validations.jsonl").unlink(missing_ok=True)


def test_the_best_parameters_replace_those_of_an_evaluation_that_was_not_recorded(tmp_path):
    config = validated(tmp_path, {"steps": 4, "checkpoint_every": 4})
    for name, seed in (("run", 0), ("other", 1)):
        train(dataclasses.replace(config, seed=seed), tmp_path / name, print_progress=False)
    wanted = mg.load_run(tmp_path / "run").params
    shutil.rmtree(tmp_path / "run" / "best")
    shutil.copytree(tmp_path / "other" / "best", tmp_path / "run" / "best")
    (tmp_path / "run" / "validations.jsonl").unlink()
    train(config, tmp_path / "run", print_progress=False)
    jax.tree.map(np.testing.assert_array_equal, mg.load_run(tmp_path / "run").params, wanted)


@pytest.mark.slow
def test_evaluations_are_no_time_of_training_steps(tmp_path, monkeypatch):
    """By the clock, each evaluation takes 10^6 seconds, and the rest less than 1,000."""
    config = validated(tmp_path, {"steps": 8, "checkpoint_every": 4, "log_every": 4})
    jump, now = [0.0], metrics.time.perf_counter
    monkeypatch.setattr(metrics.time, "perf_counter", lambda: now() + jump[0])

    def evaluate(*arguments):
        jump[0] += 1e6
        return validation_evaluate(*arguments)

    monkeypatch.setattr(validation, "evaluate", evaluate)
    train(config, tmp_path / "run", print_progress=False)
    first, second = read_metrics(tmp_path / "run")
    assert first["evaluation_share"] < 0.01 and second["evaluation_share"] > 0.99
    assert second["tokens_per_second"] > 4 * 2 * 32 / 1000


def test_the_parameters_of_step_0_are_not_evaluated(tmp_path, monkeypatch):
    """A run that is killed before its first step ends as one that was not."""
    config = validated(tmp_path, {"steps": 4, "checkpoint_every": 4})
    with monkeypatch.context() as patched:
        patched.setattr(loop, "run", None)
        with pytest.raises(TypeError):
            train(config, tmp_path / "run", print_progress=False)
    train(config, tmp_path / "run", print_progress=False)
    assert [record["step"] for record in validation.read_validations(tmp_path / "run")] == [4]


def test_a_metric_that_is_undefined_in_every_evaluation_is_an_error(tmp_path, monkeypatch):
    """One that was defined before is then the worst."""
    config = validated(tmp_path, {"steps": 8, "checkpoint_every": 4}, patience=1, metric="accuracy")
    values = iter([None, 0.5, None])
    monkeypatch.setattr(
        validation, "evaluate", lambda *arguments: validation_evaluate(*arguments) | {"accuracy": next(values)}
    )
    with pytest.raises(RunError, match=r"'accuracy' is undefined .* step 4 .*; choose another of loss, "):
        train(config, tmp_path / "run", print_progress=False)
    assert not validation.read_validations(tmp_path / "run")
    assert train(config, tmp_path / "run", print_progress=False)["step"] == 8 and best_step(tmp_path / "run") == 4


@pytest.fixture
def validated_by(monkeypatch):
    """Makes validations with given losses, one after another; an exception in their place is raised."""

    def replace(*losses):
        values, evaluated = iter(losses), validation_evaluate

        def evaluate(*arguments):
            value = next(values)
            if isinstance(value, BaseException):
                raise value
            return evaluated(*arguments) | {"loss": value}

        monkeypatch.setattr(validation, "evaluate", evaluate)

    return replace


@pytest.mark.slow
def test_a_run_that_is_killed_at_the_evaluation_that_stops_it_ends_as_if_it_was_not(tmp_path, validated_by):
    config = validated(tmp_path, {"steps": 40, "checkpoint_every": 4, "log_every": 4}, patience=1, metric="loss")
    validated_by(2.0, 3.0)
    whole = train(config, tmp_path / "whole", print_progress=False)
    validated_by(2.0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "killed", print_progress=False)
    validated_by(3.0)
    killed = train(config, tmp_path / "killed", print_progress=False)
    assert killed["evaluation"] == whole["evaluation"] and killed["step"] == whole["step"] == 8
    validations = [(tmp_path / name / "validations.jsonl").read_text() for name in ("whole", "killed")]
    assert validations[0] == validations[1]
    for step in (4, 8):
        params = [mg.load_run(tmp_path / name, step).params for name in ("whole", "killed")]
        jax.tree.map(np.testing.assert_array_equal, *params)

    longer = dataclasses.replace(config, training=dataclasses.replace(config.training, steps=48))
    validated_by(2.0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "extended", print_progress=False)
    validated_by(3.0, 4.0)  # at the steps 8, where the run would have stopped, and 12
    assert train(longer, tmp_path / "extended", extend=True, print_progress=False)["step"] == 12


def test_evaluations_by_other_settings_are_not_compared(tmp_path, validated_by):
    config = validated(tmp_path, {"steps": 12, "checkpoint_every": 4, "log_every": 4}, metric="loss")
    validated_by(2.0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", print_progress=False)
    for name, value in (("metric", "accuracy"), ("max_documents", 4)):
        changed = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, **{name: value}))
        with pytest.raises(RunError, match=rf"move validations.jsonl .*\n  evaluation.{name}: .* before, now"):
            train(changed, tmp_path / "run", print_progress=False)
    validated_by(1.0, 3.0, 4.0)
    patient = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, patience=2))
    train(patient, tmp_path / "run", print_progress=False)
    assert best_step(tmp_path / "run") == 8


@pytest.mark.slow
def test_evaluations_on_other_examples_are_not_compared(tmp_path, validated_by, monkeypatch):
    config = validated(tmp_path, {"steps": 8, "checkpoint_every": 4, "log_every": 4}, metric="loss")
    valid = tmp_path / "valid.jsonl"
    lines = "".join(json.dumps(row) + "\n" for row in REVIEWS[:6])
    valid.write_text(lines)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, valid=str(valid)))
    validated_by(2.0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", print_progress=False)
    valid.write_text("".join(json.dumps(row) + "\n" for row in REVIEWS[:5]))
    with pytest.raises(RunError, match=r"Restore these, or move .*\n  the examples of the split have changed"):
        train(config, tmp_path / "run", print_progress=False)
    valid.write_text(lines)
    validated_by(3.0)
    found = train(config, tmp_path / "run", print_progress=False)["evaluation"]
    monkeypatch.setattr(evaluation, "evaluate", None)  # it is kept
    assert train(config, tmp_path / "run", print_progress=False)["evaluation"] == found


@pytest.mark.slow
def test_the_best_of_a_run_that_went_on_from_an_earlier_step_replaces_a_later_one(tmp_path, validated_by):
    config = validated(tmp_path, {"steps": 12, "checkpoint_every": 2, "keep_checkpoints": 9, "log_every": 2})
    validated_by(3.0, 2.0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", print_progress=False)
    assert best_step(tmp_path / "run") == 8
    for step in (6, 8, 10, 12):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step), ignore_errors=True)
    often = dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, every=6))
    validated_by(1.0, 4.0)
    train(often, tmp_path / "run", print_progress=False)
    assert best_step(tmp_path / "run") == 6


def best_step(workdir):
    return mg.load_run(workdir).step


def test_a_model_that_diverged_is_an_error_of_the_run(tmp_path, monkeypatch):
    def diverged(*arguments):
        raise ValueError("the outputs of the model are not finite")

    config = validated(tmp_path, {"steps": 4, "checkpoint_every": 4, "log_every": 4})
    for module, every in ((validation, 4), (evaluation, None)):
        monkeypatch.setattr(module, "evaluate", diverged)
        settings = dataclasses.replace(config.evaluation, every=every)
        with pytest.raises(RunError, match="not finite"):
            train(dataclasses.replace(config, evaluation=settings), tmp_path / "run", print_progress=False)


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
        ({"metric": "accuracy"}, "evaluation.metric='accuracy' needs evaluation.every"),
    ],
)
def test_evaluations_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        mg.ExperimentConfig(evaluation=mg.EvaluationConfig(**changes))


def test_a_metric_that_the_results_lack_is_refused_before_training(tmp_path):
    for name in ("acuracy", "examples", "accuracy_interval"):
        config = validated(tmp_path, {"steps": 4, "checkpoint_every": 2}, metric=name)
        with pytest.raises(
            RunError, match=f"evaluation.metric='{name}' is not in the results; valid: accuracy, macro_f1"
        ):
            train(config, tmp_path / "run", print_progress=False)
        assert not validation.read_validations(tmp_path / "run")


def test_the_best_record_has_the_lowest_error_or_the_highest_score():
    records = [{"step": 1}, {"step": 2, "mae": 0.1, "pearson": 0.5}, {"step": 3, "mae": 0.2, "pearson": 0.6}]
    assert [validation.best_record(records, name)["step"] for name in ("mae", "pearson", "undefined")] == [2, 3, 1]
    assert validation.best_record([{"step": 1, "loss": math.nan}, {"step": 2, "loss": 3.0}], "loss")["step"] == 2
    losses = [{"step": 1, "head_loss": 0.3}, {"step": 2, "head_loss": 2.9}]
    assert validation.best_record(losses, "head_loss")["step"] == 1, "of a head of one's own, too"


def test_every_error_that_an_evaluation_has_is_known_as_one():
    """The names of the results that a run can be chosen by, of all evaluations."""
    names = set()
    for evaluator in (*TASK_EVALUATORS.values(), *EVALUATORS.values()):
        names.update(measured_names(evaluator.evaluate))
    of_errors = ("perplexity", "bits", "error", "rmse", "mae", "wer", "l1", "seconds")
    errors = {name for name in names if any(part in name.split("_") for part in of_errors)}
    assert errors == set(validation.LOWER_IS_BETTER)
