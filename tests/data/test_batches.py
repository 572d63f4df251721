"""Training batches equal the concatenated documents."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from memgpt_jax.config.experiment import TrainingConfig
from memgpt_jax.data import ByteTokenizer, documents, make_tokenizer, train_batches
from memgpt_jax.data.tasks.recall import RecallConfig
from tests.references.batches import arrays_of

TEXTS = ["x" * n + chr(97 + n) for n in (0, 1, 2, 6, 7, 8, 9, 15, 16, 17, 23, 40)]  # about 8, the length of a batch
SHAPE = TrainingConfig(batch_size=3, sequence_length=8)


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def rows(batches, name):
    """[B, steps * L]: the stream of each row."""
    return np.concatenate([arrays_of(batch)[name] for batch in batches], axis=1)


@pytest.fixture
def config(folder_config):
    return folder_config({"train": TEXTS})


def test_each_row_is_a_stream_of_whole_documents(config):
    tokenizer = make_tokenizer(config)
    batches = take(train_batches(config, SHAPE, 0), 60)
    for name, dtype in [("tokens", np.int32), ("targets", np.int32), ("reset", bool), ("weights", np.float32)]:
        arrays = [arrays_of(batch)[name] for batch in batches]
        assert all(array.shape == (3, 8) and array.dtype == dtype for array in arrays)
    tokens = rows(batches, "tokens")
    np.testing.assert_array_equal(rows(batches, "targets")[:, :-1], tokens[:, 1:])  # across steps too
    np.testing.assert_array_equal(rows(batches, "reset"), tokens == tokenizer.start_id)
    assert rows(batches, "weights").all()
    seen = []
    for row in tokens:
        assert row[0] == tokenizer.start_id
        pieces = np.split(row, np.flatnonzero(row == tokenizer.start_id))[1:-1]  # the last one is cut off
        seen.append([tokenizer.decode(piece) for piece in pieces])
        assert set(seen[-1]) <= set(TEXTS)
    # Rows share out the documents; a row sees each of its own once in each epoch, in another order.
    assert sorted(text for row in seen for text in row[:4]) == sorted(TEXTS)
    assert all(sorted(row[:4]) == sorted(row[4:8]) for row in seen)
    assert any(row[:4] != row[4:8] for row in seen)


def test_target_bytes_add_up_to_the_text(config):
    tokenizer = make_tokenizer(config)
    batches = take(train_batches(config, SHAPE, 0), 5)
    target_bytes, targets = rows(batches, "target_bytes"), rows(batches, "targets")
    assert target_bytes.dtype == np.int32
    np.testing.assert_array_equal(target_bytes, targets != tokenizer.start_id)


def test_a_lossy_tokenizer_gives_zero_target_bytes(config):
    class Lossy(ByteTokenizer):
        lossless = False

    assert not rows(take(train_batches(config, SHAPE, 0, Lossy()), 2), "target_bytes").any()


def test_batches_depend_on_the_seed(config):
    first, again, other = (rows(take(train_batches(config, SHAPE, seed), 9), "tokens") for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("task", ["text", "recall"])
def test_batches_resume_at_every_step(config, task):
    config = RecallConfig() if task == "recall" else config
    reference = train_batches(config, SHAPE, 3)
    states, batches = [], []
    for _ in range(40):
        states.append(json.dumps(reference.get_state()))
        batches.append(next(reference))
    for step, state in enumerate(states):
        resumed = train_batches(config, SHAPE, 3)
        take(resumed, step % 3)  # wherever it stood before
        resumed.set_state(json.loads(state))
        assert json.dumps(resumed.get_state()) == state
        for batch, expected in zip(take(resumed, 2), batches[step : step + 2], strict=False):
            jax.tree.map(np.testing.assert_array_equal, batch, expected)
    assert max(map(len, states)) < 1000


@pytest.mark.parametrize("change", ["seed", "batch_size", "sequence_length", "text"])
def test_a_position_in_another_stream_is_refused(config, folder_config, change):
    state = train_batches(config, SHAPE, 0).get_state()
    shape = dataclasses.replace(SHAPE, **{change: 4}) if change in ("batch_size", "sequence_length") else SHAPE
    if change == "text":
        folder_config({"train": ["changed"]})
    other = train_batches(config, shape, 1 if change == "seed" else 0)
    with pytest.raises(ValueError, match=r"the saved data position belongs to other data.* before, now "):
        other.set_state(state)


def test_fewer_documents_than_rows(folder_config):
    config = folder_config({"train": [f"{i}" * 5 for i in range(4)]})
    tokens = rows(take(train_batches(config, TrainingConfig(batch_size=8, sequence_length=6), 0), 4), "tokens")
    assert all(len(set(row.tolist())) == 5 for row in tokens)  # every row reads every document
    assert len({row.tobytes() for row in tokens}) > 4


def test_one_document_repeats(folder_config):
    config = folder_config({"train": ["abc"]})
    (batch,) = take(train_batches(config, TrainingConfig(batch_size=2, sequence_length=10), 0), 1)
    np.testing.assert_array_equal(batch.inputs["tokens"], np.array([[256, 97, 98, 99, 256, 97, 98, 99, 256, 97]] * 2))


def test_bpe_is_the_default_tokenizer(folder_config):
    texts = ["one two three four five six\n" * 20] * 3
    config = folder_config({"train": texts}, tokenizer="bpe", tokenizer_vocab_size=300)
    batch = next(train_batches(config, SHAPE, 0))
    tokenizer = make_tokenizer(config)
    assert (batch.inputs["tokens"][:, 0] == tokenizer.start_id).all() and batch.inputs["tokens"].max() < 300
    np.testing.assert_array_equal(batch.info["target_bytes"], tokenizer.token_bytes[batch.targets["tokens"]])
    assert len(documents(config, "train", tokenizer)) == 3


def test_recall_batches_have_the_same_structure():
    config = RecallConfig(num_pairs=4, context_length=24, query_length=8)
    first, second = take(train_batches(config, TrainingConfig(batch_size=5), 0), 2)
    assert first.inputs["tokens"].shape == (5, 32) and (first.inputs["tokens"] != second.inputs["tokens"]).any()
    assert set(arrays_of(first)) == {"tokens", "targets", "reset", "weights", "target_bytes"}
