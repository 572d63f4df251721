"""Needles in text: rows are decoded to text and checked by brute force."""

import dataclasses

import numpy as np
import pytest

from memgpt_jax.config.experiment import ExperimentConfig, TrainingConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import ByteTokenizer, NeedleTask, train_batches
from memgpt_jax.data.tasks.needle import NeedleConfig, find_words
from memgpt_jax.training import RunError, train
from tests.references.batches import arrays_of

TEXT = "".join(f"Line {number} of a story, 0123456789.\n" for number in range(40))
LENGTH = 256


@pytest.fixture
def config(folder_config):
    """A needle task with byte tokens, in which words are single letters."""
    text = folder_config({"train": [TEXT, TEXT[::-1]], "valid": ["#" * 300]})
    return NeedleConfig(text=text, num_needles=3, num_questions=2, num_words=26, gap_length=40)


def read(tokens: np.ndarray) -> str:
    """The text of a row of bytes and answer ids."""
    return "".join(f" {token}" if token > ByteTokenizer.start_id else chr(token) for token in tokens.tolist())


def facts_of(text: str) -> dict[str, str]:
    """The facts of a text in order: {word: answer}."""
    lines = [line.split() for line in text.split("\n") if line.startswith("The key of") and line.endswith(".")]
    return {words[3]: words[5].rstrip(".") for words in lines}


def test_rows_by_brute_force(config):
    task = NeedleTask(config, "train")
    batch = task.batch(0, 16, LENGTH)
    for name, dtype in [("tokens", np.int32), ("targets", np.int32), ("reset", bool), ("weights", np.float32)]:
        array = arrays_of(batch)[name]
        assert array.shape == (16, LENGTH) and array.dtype == dtype
    assert (batch.info["target_bytes"] == (batch.targets["tokens"] < 256)).all() and batch.info[
        "target_bytes"
    ].dtype == np.int32
    context_length = LENGTH - 2 * task.sentence_length
    for row in range(16):
        tokens, targets, weights = (arrays["tokens"][row] for arrays in batch[:3])
        context = read(tokens[:context_length])
        facts = facts_of(context)
        assert len(facts) == len(set(facts.values())) == 3
        assert "The key of" not in context[-config.gap_length :]
        assert targets[:-1].tolist() == tokens[1:].tolist()
        scored = np.flatnonzero(weights)
        assert len(scored) == 2 and set(weights) == {0.0, 1.0} and scored[0] > context_length
        asked = [read(tokens[: place + 1]).split()[-2] for place in scored]
        assert len(set(asked)) == 2
        assert [str(targets[place]) for place in scored] == [facts[word] for word in asked]
        assert batch.inputs["reset"][row].tolist() == [True] + [False] * (LENGTH - 1)


def test_tokens_outside_of_needles_are_the_corpus(config):
    task = NeedleTask(config, "valid")
    context = task.hide(np.random.default_rng(0), task.facts(np.random.default_rng(0), 4), 200)
    is_text = (context == ord("#")) | (context == ByteTokenizer.start_id)
    assert (is_text.sum(1) == 200 - 3 * task.sentence_length).all()
    again = task.text(np.array([5, 299]), 700)
    assert again.shape == (2, 700) and len(task.flat) == 302
    assert (again[:, 302:604] == again[:, :302]).all()  # after its end, it begins again


def test_needles_are_at_random_places_before_the_gap(config):
    task = NeedleTask(dataclasses.replace(config, num_needles=1, num_questions=1, gap_length=7), "train")
    size = task.sentence_length
    context = task.hide(np.random.default_rng(0), task.facts(np.random.default_rng(1), 2000), size + 20)
    start = np.array([row.tobytes().find(task.sentence[: task.key].tobytes()) // 4 for row in context])
    assert set(start) == set(range(20 - 7))
    assert np.bincount(start).min() > 90


def test_rows_depend_on_the_seed_and_streams_resume(config):
    task = NeedleTask(config, "train")
    first, again, other = (task.batch(seed, 4, LENGTH).inputs["tokens"] for seed in (5, 5, 6))
    assert (first == again).all() and (first != other).any() and (first[0] != first[1]).any()
    shape = TrainingConfig(batch_size=2, sequence_length=LENGTH)
    whole, resumed = (train_batches(config, shape, 3) for _ in range(2))
    batches = [next(whole).inputs["tokens"] for _ in range(3)]
    next(resumed)
    position = resumed.get_state()
    resumed = train_batches(config, shape, 3)
    resumed.set_state(position)
    assert (next(resumed).inputs["tokens"] == batches[1]).all() and (batches[0] != batches[1]).any()
    with pytest.raises(ValueError, match="belongs to"):
        train_batches(config, shape, 4).set_state(position)


def test_answers_are_outside_of_the_window():
    from memgpt_jax.studies.command_line import load_config

    experiment = load_config("needle")
    model: ModelConfig = experiment.model
    assert experiment.data.gap_length >= model.num_layers * model.window_size
    assert experiment.training.sequence_length <= 2048 and model.memory.memory_size <= 1024
    assert experiment.training.sequence_length > model.memory.memory_size


def test_words():
    class Tokenizer:
        vocab_size, pieces = 6, [" the", "x", " of", " word", "y", "\n"]

        def decode(self, ids):
            return self.pieces[ids[0]]

        def encode(self, text):
            return [99]

    words, space = find_words(Tokenizer(), 2)
    assert words.tolist() == [0, 3] and space == []  # " of" is short
    Tokenizer.pieces = ["x", " of", "y", "z", "the", "?"]
    words, space = find_words(Tokenizer(), 3)
    assert words.tolist() == [0, 2, 3] and space == [99]
    with pytest.raises(ValueError, match=r"num_words=4 needs as many words, or letters, .* has 3"):
        find_words(Tokenizer(), 4)


def test_bad_values(config):
    for values, message in (
        ({"num_needles": 0}, "num_needles must be at least 1, got 0"),
        ({"gap_length": -1}, "gap_length must be at least 0, got -1"),
        ({"num_questions": 9}, "num_questions=9 must be at most num_needles=8"),
        ({"num_needles": 65}, "num_needles=65, and that at most num_words=64"),
    ):
        with pytest.raises(ValueError, match=message):
            NeedleConfig(**values)
    with pytest.raises(ValueError, match=r"cannot hold 3 needles of 19 tokens .*data.gap_length=40"):
        NeedleTask(config, "train").batch(0, 2, 100)


def test_a_model_without_ids_for_the_answers_is_refused(config, tmp_path):
    experiment = ExperimentConfig(data=config, model=ModelConfig(vocab_size=282))
    with pytest.raises(RunError, match=r"has 257 token ids and there are 26 answers, .*at least 283"):
        train(experiment, tmp_path / "run")
