"""The contract of every task in `TASKS`. A new entry of the registry is tested without an edit here.

Tasks that read files or a corpus by default are tested in files of their own.
"""

import dataclasses
import json
from dataclasses import dataclass

import jax
import numpy as np
import pytest

from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.experiment import ExperimentConfig, TrainingConfig
from memgpt_jax.config.features import FramesConfig, PatchesConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig
from memgpt_jax.config.serialization import from_json, to_json
from memgpt_jax.data import TASKS, Batch, Task, batch_shapes, make_task, register_task, train_batches
from memgpt_jax.data.tasks.base import scored_rows
from memgpt_jax.evaluation import HELD_OUT_SEED, evaluate
from memgpt_jax.models.heads import (
    CTCHeadConfig,
    FramesHeadConfig,
    LabelHeadConfig,
    LinkHeadConfig,
    ScalarHeadConfig,
    SpanHeadConfig,
    VectorHeadConfig,
    WalkHeadConfig,
)
from tests.laws.models import random_params

ROWS = 4


def generated(config: TaskConfig) -> bool:
    """Whether the default configuration needs no file and no corpus."""
    if config.text is not None:
        return False
    try:
        make_task(config, "train")
    except ValueError as error:
        assert "data.path" in str(error) or "data.train" in str(error)
        return False
    return True


CONFIGS = {name: config for name, entry in TASKS.items() if generated(config := entry.config())}


def test_most_tasks_are_generated():
    assert len(CONFIGS) >= 8


@pytest.mark.parametrize("name", CONFIGS)
def test_batches(name):
    config = CONFIGS[name]
    length = config.row_length or 64
    task = make_task(config, "train")
    assert isinstance(task, TASKS[name].module) and TASKS.name_of(config) == name
    batch, again, other = (task.batch(seed, ROWS, length) for seed in (5, 5, 6))
    jax.tree.map(np.testing.assert_array_equal, batch, again)
    assert (batch.inputs["tokens"] != other.inputs["tokens"]).any()

    expected = batch_shapes(config, TrainingConfig(batch_size=ROWS, sequence_length=length))
    shared = batch._replace(info={name: batch.info[name] for name in expected.info})
    shapes = [jax.tree.map(lambda array: (array.shape, array.dtype), b) for b in (shared, expected)]
    assert shapes[0] == shapes[1]
    assert set(batch.info) <= {"target_bytes", "group", "answer"}
    ((head, targets),) = batch.targets.items()
    tokens, weights = batch.inputs["tokens"], batch.weights[head]
    assert 0 <= tokens.min() <= tokens.max() < config.num_ids
    scored = targets[weights > 0]
    assert 0 <= scored.min() <= scored.max() < (config.num_ids if head == "tokens" else len(config.output_names))
    assert batch.inputs["reset"][:, 0].all()
    assert (weights >= 0).all() and weights.any()
    if task.groups:
        assert ((batch.info["group"] >= 0) & (batch.info["group"] < len(task.groups))).all()
    if "answer" in batch.info:
        assert batch.info["answer"].shape == weights.shape


@pytest.mark.parametrize("name", CONFIGS)
def test_held_out_batches_are_not_drawn_in_training(name):
    config = CONFIGS[name]
    length = config.row_length or 64
    stream = next(train_batches(config, TrainingConfig(batch_size=ROWS, sequence_length=length), 0))
    held_out = next(iter(make_task(config, "valid").held_out(HELD_OUT_SEED, ROWS, length, 1)))
    assert stream.inputs["tokens"].shape == held_out.inputs["tokens"].shape
    assert (stream.inputs["tokens"] != held_out.inputs["tokens"]).any()


@pytest.mark.parametrize("name", TASKS)
def test_a_config_reads_back_from_json(name):
    config = TASKS[name].config()
    model = ModelConfig(vocab_size=config.num_ids + 4096)
    if "features" in config.objective.inputs:
        default = PatchesConfig() if name == "pictures" else FramesConfig()
        features = getattr(config, "features_config", default)
        model = dataclasses.replace(model, features=features)
    if "source_features" in config.objective.inputs:
        encoder = EncoderConfig(vocab_size=model.vocab_size, features=config.features_config, heads=())
        decoder = dataclasses.replace(model, source_length=config.source_tokens)
        model = Seq2SeqConfig(encoder=encoder, decoder=decoder)
    if "labels" in config.objective.heads:
        pool = "none" if config.objective.of_words else "mean"
        loss = "binary" if config.objective.several else "cross_entropy"
        model = HeadedConfig(backbone=model, head=LabelHeadConfig(pool=pool, loss=loss))
    elif "numbers" in config.objective.heads:
        model = HeadedConfig(backbone=model, head=ScalarHeadConfig(pool="mean"))
    elif "spans" in config.objective.heads:
        model = HeadedConfig(backbone=model, head=SpanHeadConfig())
    elif "pairs" in config.objective.heads:
        model = HeadedConfig(backbone=model, head=VectorHeadConfig())
    elif "transcript" in config.objective.heads:
        model = HeadedConfig(backbone=model, head=CTCHeadConfig())
    elif "frames" in config.objective.heads:
        model = HeadedConfig(backbone=model, head=FramesHeadConfig())
    elif "links" in config.objective.heads:
        model = HeadedConfig(backbone=model, head=LinkHeadConfig())
    elif "entities" in config.objective.heads:
        model = HeadedConfig(backbone=model, head=WalkHeadConfig())
    training = TrainingConfig(sequence_length=1024)
    experiment = ExperimentConfig(data=config, model=model, training=training)
    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment and hash(experiment) is not None


def test_a_users_own_task_is_registered_and_evaluated():
    @dataclass(frozen=True, kw_only=True)
    class ParityConfig(TaskConfig):
        length: int = 16

        @property
        def num_ids(self) -> int:
            return 2

        @property
        def row_length(self) -> int:
            return self.length

    class ParityTask(Task):
        def batch(self, rng, batch_size: int, length: int) -> Batch:
            bits = np.random.default_rng(rng).integers(2, size=(batch_size, length + 1))
            bits[:, -1] = bits[:, :-1].sum(axis=1) % 2
            weights = np.zeros((batch_size, length), np.float32)
            weights[:, -1] = 1
            return scored_rows(bits, weights)

    register_task("parity", ParityConfig, ParityTask)
    try:
        model = ModelConfig(vocab_size=2, d_model=8, num_layers=1, num_heads=1, window_size=8, segment_length=8)
        config = ExperimentConfig(data=ParityConfig(), model=model)
        result = evaluate(config, random_params(model))
        assert result["answers"] == config.evaluation.num_batches * config.evaluation.batch_size
        with pytest.raises(ValueError, match="ParityConfig is the configuration of"):
            register_task("parity_again", ParityConfig, ParityTask)
    finally:
        TASKS.unregister("parity")
    with pytest.raises(ValueError, match="ParityConfig is the configuration of no task; valid: RecallConfig"):
        make_task(ParityConfig(), "train")
