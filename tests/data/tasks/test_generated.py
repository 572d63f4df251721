"""All generated tasks: batches, seeds, lengths, and the functions for random draws."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from memgpt_jax.config.experiment import ExperimentConfig, TrainingConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.config.serialization import from_json, to_json
from memgpt_jax.data import make_task, train_batches
from memgpt_jax.data.tasks import base
from memgpt_jax.data.tasks.copy import CopyConfig
from memgpt_jax.data.tasks.dictionary import DictionaryConfig
from memgpt_jax.data.tasks.item_recall import ItemRecallConfig
from memgpt_jax.data.tasks.mqar import MQARConfig
from memgpt_jax.data.tasks.needle import NeedleConfig
from memgpt_jax.data.tasks.noise import NoiseNeedleConfig
from memgpt_jax.data.tasks.recall import RecallConfig
from memgpt_jax.data.tasks.tracking import TrackingConfig
from memgpt_jax.evaluation import HELD_OUT_SEED
from memgpt_jax.studies.command_line import load_config, override
from tests.references.batches import arrays_of

CONFIGS = [
    CopyConfig(max_length=6),
    CopyConfig(max_length=4, max_repeats=3, reverse=True, blank_answers=True),
    ItemRecallConfig(),
    MQARConfig(num_rewrites=4),
    MQARConfig(filler="vocabulary"),
    DictionaryConfig(),
    NoiseNeedleConfig(context_length=160),
    TrackingConfig(context_length=96),
    TrackingConfig(context_length=96, question="variables"),
    RecallConfig(num_rewrites=3),
]
NAMES = [f"{type(config).__name__}-{number}" for number, config in enumerate(CONFIGS)]


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_batches(config):
    batch = make_task(config, "train").batch(0, 64, config.row_length)
    for name, dtype in [("tokens", np.int32), ("targets", np.int32), ("reset", bool), ("weights", np.float32)]:
        array = arrays_of(batch)[name]
        assert array.shape == (64, config.row_length) and array.dtype == dtype
    assert batch.info["target_bytes"].shape == (64, config.row_length) and not batch.info["target_bytes"].any()
    assert batch.inputs["reset"][:, 0].all() and not batch.inputs["reset"][:, 1:].any()
    assert set(np.unique(batch.weights["tokens"])) == {0.0, 1.0} and batch.weights["tokens"].any(axis=1).all()
    used = np.concatenate([batch.inputs["tokens"], batch.targets["tokens"]])
    assert used.min() >= 0 and used.max() < config.num_ids
    assert used.max() >= config.num_ids - 16  # `num_ids` is what is needed, and no more


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_seeds(config):
    task = make_task(config, "train")
    first, again, other = (task.batch(seed, 8, config.row_length).inputs["tokens"] for seed in (5, 5, 6))
    assert (first == again).all() and (first != other).any() and (first[0] != first[1]).any()
    shape = TrainingConfig(batch_size=8)
    streams = [next(train_batches(config, shape, seed)).inputs["tokens"] for seed in (0, 0, 1)]
    assert (streams[0] == streams[1]).all() and (streams[0] != streams[2]).any()
    held_out = [
        next(make_task(config, split).held_out(HELD_OUT_SEED, 8, config.row_length, 1)).inputs["tokens"]
        for split in ("valid", "test")
    ]
    rows = [set(map(bytes, tokens)) for tokens in (*streams[1:], *held_out)]
    for some, others in itertools.combinations(rows, 2):
        assert len(some & others) < 8


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_ids_do_not_depend_on_the_length(config):
    longer = config.at_length(20 * getattr(config, config.length_fields[-1]))
    assert longer.num_ids == config.num_ids and longer.row_length > config.row_length
    assert all(getattr(longer, name) == getattr(longer, config.length_fields[0]) for name in config.length_fields)
    batch = make_task(longer, "valid").batch(0, 2, longer.row_length)
    assert batch.inputs["tokens"].shape == (2, longer.row_length) and batch.inputs["tokens"].max() < config.num_ids
    assert dataclasses.replace(longer, **{name: getattr(config, name) for name in config.length_fields}) == config


@pytest.mark.parametrize("config", CONFIGS, ids=NAMES)
def test_a_config_is_hashable_and_reads_back_from_json(config):
    experiment = ExperimentConfig(data=config, model=ModelConfig(vocab_size=config.num_ids))
    assert from_json(json.loads(json.dumps(to_json(experiment)))) == experiment and hash(experiment) is not None


def test_the_command_line_reaches_the_fields_of_a_task():
    copy = override(load_config("copy"), ["--data.reverse", "True", "--data.max_length=9"])
    assert copy.data.reverse and copy.data.max_length == 9
    assert override(load_config("tracking"), ["--data.question=variables"]).data.question == "variables"


def test_tasks_without_a_length_field_are_refused_at_length():
    with pytest.raises(ValueError, match="NeedleConfig has no length field"):
        NeedleConfig().at_length(5)


def test_too_few_ids_in_the_model_are_refused():
    with pytest.raises(ValueError, match=r"vocab_size=271 must be at least 272, the ids of the task"):
        ExperimentConfig(data=MQARConfig(), model=ModelConfig(vocab_size=271))


@pytest.mark.parametrize("most_to_permute", [base.MOST_TO_PERMUTE, 0])
def test_choose_draws_ordered_pairs_uniformly(monkeypatch, most_to_permute):
    monkeypatch.setattr(base, "MOST_TO_PERMUTE", most_to_permute)
    pairs = base.choose(np.random.default_rng(0), 12_000, 4, 2)
    assert pairs.shape == (12_000, 2)
    counts = np.zeros((4, 4), int)
    np.add.at(counts, (pairs[:, 0], pairs[:, 1]), 1)
    assert (np.diag(counts) == 0).all()
    assert counts[~np.eye(4, dtype=bool)].min() > 850 and counts.max() < 1150  # 1000 expected, deviation 30


def test_choose_from_a_large_range():
    chosen = base.choose(np.random.default_rng(0), 3, 2**61, 5)
    assert chosen.shape == (3, 5) and (chosen >= 0).all() and chosen.max() > 2**55
    chosen = base.choose(np.random.default_rng(0), 2, 70_000, 20_000)
    assert all(len(set(row)) == 20_000 for row in chosen)


def test_writes():
    order, last = base.writes(np.random.default_rng(0), 2000, 3, 4)
    assert order.shape == (2000, 7) and last.shape == (2000, 3)
    for writes, found in zip(order.tolist(), last.tolist(), strict=True):
        assert found == [max(place for place, pair in enumerate(writes) if pair == wanted) for wanted in range(3)]
    assert np.bincount(order[:, 0], minlength=3).min() > 560  # any pair may come first, 667 expected
    order, last = base.writes(np.random.default_rng(0), 2, 3, 0)
    assert order.tolist() == last.tolist() == [[0, 1, 2]] * 2


def test_insert():
    text, pieces = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[[10, 11], [20, 21]], [[30, 31], [40, 41]]])
    tokens = base.insert(text, np.array([[0, 3], [1, 1]]), pieces)
    assert tokens.tolist() == [[10, 11, 1, 2, 3, 20, 21], [4, 30, 31, 40, 41, 5, 6]]


def test_spell():
    words = base.spell(np.arange(27), 3, 3)
    assert words.shape == (27, 3) and len(set(map(tuple, words.tolist()))) == 27
    assert words.min() == 0 and words.max() == 2
