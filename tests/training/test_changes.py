"""What may change between two starts of a run: each field of a config is either free or refused by name."""

import dataclasses
import re
import shutil
from types import SimpleNamespace

import pytest

from memgpt_jax import data
from memgpt_jax.checkpoint import load_run
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, TrainingConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig
from memgpt_jax.config.serialization import differences, to_json
from memgpt_jax.data.objectives import SpanCorruptionConfig
from memgpt_jax.data.tasks import TASKS
from memgpt_jax.data.tasks.labelled_text import LabelledTextConfig
from memgpt_jax.data.tasks.needle import NeedleConfig
from memgpt_jax.memory import MEMORIES
from memgpt_jax.models.heads import LabelHeadConfig
from memgpt_jax.training import RunError, read_metrics, train
from memgpt_jax.training.changes import check_changes, check_tokenizer, is_free
from memgpt_jax.training.metrics import CLOCKED

FREE = [
    *(f"parallel.{name}" for name in ("data", "fsdp", "tensor", "sequence", "stall_seconds")),
    *(f"training.{name}" for name in ("log_every", "checkpoint_every", "keep_checkpoints", "max_skipped")),
    *(f"evaluation.{name}" for name in ("split", "max_documents", "max_tokens", "batch_size", "chunk_length")),
    *(f"evaluation.{name}" for name in ("num_batches", "every", "metric", "patience")),
    *(f"data.{name}" for name in ("train", "valid", "test")),
    *(f"data.{name}" for name in ("path", "cache_dir", "tokenizer", "text.path", "text.cache_dir", "text.tokenizer")),
    *("distill.teachers", "distill.cache"),
    "pretrained",
    *("model.attention_implementation", "model.remat", "model.scan_layers", "model.context_length"),
    "model.memory.read_implementation",
]
SPANS = TextConfig(objective=SpanCorruptionConfig())


def experiments():
    """Configs that have every field there is between them."""
    yield from (ExperimentConfig(model=ModelConfig(memory=entry.config())) for entry in MEMORIES.values())
    yield from (ExperimentConfig(data=entry.config()) for entry in TASKS.values() if fits(entry.config()))
    encoder = EncoderConfig(heads=(), position="relative", memory=NoMemoryConfig())
    decoder = ModelConfig(position="relative", source_length=1024, memory=NoMemoryConfig())
    yield ExperimentConfig(model=Seq2SeqConfig(encoder=encoder, decoder=decoder), data=SPANS)
    headed = HeadedConfig(head=LabelHeadConfig())
    yield ExperimentConfig(model=headed, data=LabelledTextConfig(train="reviews.csv"))


def fits(task):
    try:
        return bool(ExperimentConfig(data=task))
    except ValueError:
        return False


def fields(values, prefix=""):
    for name, value in values.items():
        yield from fields(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]


def test_every_field_is_free_or_refused():
    names = {name for config in experiments() for name in fields(to_json(config)) if not name.endswith("type")}
    assert len(names) > 120
    free = {name for name in names if is_free(name)}
    assert {re.sub(r"^model\.(encoder|decoder|backbone)\.", "model.", name) for name in free} == set(FREE)


@pytest.mark.parametrize(
    "name", ["training.steps", *FREE[5:12], "seed", "pretrained", "data.tokenizer_vocab_size", "model.d_model"]
)
def test_one_changed_field(name, monkeypatch):
    """Through the comparison that a start makes."""
    saved = ExperimentConfig(data=TextConfig(corpus="folder", path="here"))
    other = {
        "evaluation.split": "test",
        "pretrained": "moved",
        "model.d_model": 64,
        "data.tokenizer_vocab_size": 512,
    }.get(name, 2048)
    *path, last = name.split(".")
    if path:
        part = getattr(saved, path[0])
        config = dataclasses.replace(saved, **{path[0]: dataclasses.replace(part, **{last: other})})
    else:
        config = dataclasses.replace(saved, **{last: other})
    assert [line.partition(":")[0] for line in differences(saved, config)] == [name]
    if name in FREE:
        check_changes(saved, config, 5, False, "run")
    else:
        with pytest.raises(RunError, match=rf"another config.*\n  {name}: "):
            check_changes(saved, config, 5, name != "training.steps", "run")


def test_steps():
    saved, more = (ExperimentConfig(training=TrainingConfig(steps=steps)) for steps in (400, 800))
    check_changes(saved, more, 400, True, "run")
    check_changes(more, more, 500, True, "run")
    with pytest.raises(RunError, match=r"steps: 400 → 800\n.*--extend"):
        check_changes(saved, more, 400, False, "run")
    with pytest.raises(RunError, match=r"has taken 500 steps; training\.steps=400 must be at least 800"):
        check_changes(more, saved, 500, True, "run")
    with pytest.raises(RunError, match=r"steps: 800 → 400$"):
        check_changes(more, saved, 300, True, "run")
    other = dataclasses.replace(more, seed=1)
    with pytest.raises(RunError, match=r":\n  seed: 0 → 1$"):
        check_changes(saved, other, 400, True, "run")


@pytest.mark.parametrize("place", ["data", "text"])
def test_the_tokenizer_may_move_and_must_not_change(place, tmp_path):
    """Through the comparison that a start makes once it has read the tokenizer of the run."""

    def experiment(tokenizer):
        text = TextConfig(tokenizer=tokenizer)
        return ExperimentConfig(
            data=text if place == "data" else NeedleConfig(text=text, num_needles=1, num_questions=1)
        )

    byte = data.ByteTokenizer()
    byte.save(tmp_path / "moved")
    moved = experiment(str(tmp_path / "moved"))
    check_tokenizer(experiment("byte"), moved, byte, "run")
    check_tokenizer(moved, experiment("byte"), byte, "run")
    other = SimpleNamespace(fingerprint="other")
    check_tokenizer(moved, moved, other, "run")
    path = "data.tokenizer" if place == "data" else "data.text.tokenizer"
    with pytest.raises(RunError, match=rf"another tokenizer.*\n  {path}: '.*moved' → 'byte'$"):
        check_tokenizer(moved, experiment("byte"), other, "run")
    with pytest.raises(ValueError, match="nowhere"):
        check_tokenizer(moved, experiment(str(tmp_path / "nowhere")), byte, "run")


def timeless(workdir):
    return [record | dict.fromkeys(CLOCKED) for record in read_metrics(workdir)]


@pytest.mark.slow
def test_the_first_record_of_a_longer_run_has_its_own_steps_alone(tmp_path, make_config):
    """The last step of the shorter run has been logged."""
    fixed = {"model": {"memory": NoMemoryConfig()}, "optimizer": {"learning_rate": 1e-12}}
    single = make_config(steps=4, log_every=1, checkpoint_every=4, **fixed)
    train(single, tmp_path / "single", print_progress=False)
    for steps in (3, 4):
        config = make_config(steps=steps, log_every=2, checkpoint_every=4, **fixed)
        train(config, tmp_path / "longer", extend=True, print_progress=False)
    losses = {record["step"]: record["loss"] for record in read_metrics(tmp_path / "single")}
    found = {record["step"]: record["loss"] for record in read_metrics(tmp_path / "longer")}
    assert found[3] == pytest.approx(losses[3], rel=1e-5) and found[4] == pytest.approx(losses[4], rel=1e-5)


@pytest.mark.slow
def test_a_longer_run_follows_the_longer_schedule(tmp_path, make_config, capsys):
    config, longer = (
        make_config(model={"memory": NoMemoryConfig()}),
        make_config(model={"memory": NoMemoryConfig()}, steps=20),
    )
    first = train(config, tmp_path)
    train(longer, tmp_path, extend=True)
    assert "extended from 12 to 20 steps: from step 13 the learning rate follows" in capsys.readouterr().out
    rates = {record["step"]: record["learning_rate"] for record in read_metrics(tmp_path)}
    assert rates[12] == pytest.approx(3e-4) and rates[14] > 4 * rates[12] and rates[20] == pytest.approx(3e-4)
    done = timeless(tmp_path)
    again = train(longer, tmp_path, extend=True, print_progress=False)
    assert again["step"] == 20 and again["evaluation"]["loss"] != first["evaluation"]["loss"]
    assert timeless(tmp_path) == done and done[5]["loss"] == first["loss"]
    with pytest.raises(RunError, match="has taken 20 steps"):
        train(config, tmp_path)


@pytest.mark.slow
def test_a_finished_run_is_evaluated_again_under_other_settings(tmp_path, make_config):
    config = make_config(model={"memory": NoMemoryConfig()})
    results = [
        train(dataclasses.replace(config, evaluation=evaluation), tmp_path, print_progress=False)["evaluation"]
        for evaluation in (
            config.evaluation,
            EvaluationConfig(batch_size=4, num_batches=2, chunk_length=32),
            config.evaluation,
        )
    ]
    assert [result["answers"] for result in results] == [16, 32, 16]
    assert results[0] == results[2]


def test_data_may_move_and_must_not_change(tmp_path, make_config, monkeypatch):
    text = "The sun rises. A day begins, and a ship sails on. " * 20
    for split in ("train", "valid"):
        (tmp_path / "old" / split).mkdir(parents=True)
        (tmp_path / "old" / split / "a.txt").write_text(text)

    def text_in(folder, cache="cache"):
        return TextConfig(corpus="folder", path=str(folder), tokenizer="byte", cache_dir=str(tmp_path / cache))

    def config(*place):
        return make_config(data=text_in(*place), model={"memory": NoMemoryConfig(), "vocab_size": 260}, steps=2)

    def of_task(name):
        task = NeedleConfig(text=text_in(tmp_path / name), num_needles=1, num_questions=1, gap_length=8, num_words=2)
        return data.train_batches(task, TrainingConfig(batch_size=1, sequence_length=256), 0).source

    shutil.copytree(tmp_path / "old", tmp_path / "new")
    monkeypatch.setenv("DATA", str(tmp_path))
    train(config(tmp_path / "old"), tmp_path / "run", print_progress=False)
    for moved in (config("$DATA/new"), config(f"{tmp_path}/old/", "cache2")):
        train(moved, tmp_path / "run", print_progress=False)
    named = config(tmp_path / "old")
    named = dataclasses.replace(named, data=dataclasses.replace(named.data, tokenizer=str(tmp_path / "run/tokenizer")))
    train(named, tmp_path / "run", print_progress=False)
    assert of_task("old") == of_task("new")
    (tmp_path / "new" / "train" / "a.txt").write_text(text.replace("sun", "son"))
    assert of_task("old") != of_task("new")
    with pytest.raises(RunError, match=r"^data\.path='.*new': .*saved data position belongs to other data: the files"):
        train(config(tmp_path / "new"), tmp_path / "run", print_progress=False)
    assert load_run(tmp_path / "run").step == 2
