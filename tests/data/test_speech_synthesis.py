"""Texts that are said: rows by hand, aligned durations, noise, splits by speaker, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from memgpt_jax.config.experiment import TrainingConfig
from memgpt_jax.data import ByteTokenizer, batch_shapes, make_task, train_batches
from memgpt_jax.data.tasks import SpeechSynthesisConfig
from memgpt_jax.data.tasks.speech_synthesis import aligned
from tests.data.test_media import wav, written

pytest.importorskip("soundfile", reason="the extra `senses` is not installed")
START = 256


@pytest.fixture
def clips(tmp_path):
    """Three takes of two digits by two speakers; take n has n + 1 tokens at 16 kHz."""
    rng = np.random.default_rng(0)
    files = {
        f"{digit}_{name}_{take}.wav": wav(rng.uniform(-0.5, 0.5, 320 * (take + 1)))
        for digit in range(2)
        for name in "ab"
        for take in range(3)
    }
    path, pattern = str(written(tmp_path, files)), r"(?P<label>\d)_(?P<group>\w)_\d\.wav$"
    fields = {"path": path, "pattern": pattern, "words": ("0=no", "1=one"), "num_mels": 8, "source_length": 6}
    return SpeechSynthesisConfig(**fields, test_last=1, valid_every=9)


def test_rows_by_hand(clips):
    task = make_task(clips, "test")
    assert task.config.speakers == ("a", "b") and task.config.num_ids == 2
    names = [file.where.rpartition("/")[2] for file in task.files]
    assert names == ["0_a_2.wav", "0_b_2.wav", "1_a_2.wav", "1_b_2.wav"]  # the last of each digit and speaker
    row, frames = task.row(3), task.decoded[3].reshape(3, 16)
    assert row["tokens"].tolist() == [START + 2, *b"one", START, 0, 0, 0]
    assert row["weights"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert not row["features"][:5].any() and not row["targets"][:4].any()
    np.testing.assert_array_equal(row["features"][5:], frames)
    np.testing.assert_array_equal(row["targets"][4:7, :-1], frames)
    assert row["targets"][4:, -1].tolist() == [0, 0, 0, 1] and not row["targets"][7, :-1].any()


def test_sounds_of_a_kind_are_aligned(clips):
    rise = [np.linspace(0, 1, number)[:, None] for number in (4, 8, 6, 20)]
    found = aligned(rise, ["a", "a", "a", "b"])
    assert [len(frames) for frames in found] == [6, 6, 6, 20]
    for frames in found[:3]:
        np.testing.assert_allclose(frames, rise[2])
    task = make_task(dataclasses.replace(clips, align=True, test_last=None, valid_every=12), "train")
    assert {len(frames) for frames in task.decoded} == {4}  # the mean of 1, 2 and 3 tokens
    assert {len(frames) for frames in make_task(dataclasses.replace(clips, align=True), "test").decoded} == {6}


def test_training_rows_are_packed_and_noise_is_in_what_is_read(clips):
    config, training = dataclasses.replace(clips, noise=0.5, max_clips=2).completed(), TrainingConfig(batch_size=2)
    training = dataclasses.replace(training, sequence_length=32)
    batch, expected = next(train_batches(config, training, 0, ByteTokenizer())), batch_shapes(config, training)
    types = [jax.tree.map(lambda array: (array.shape, array.dtype), found[:3]) for found in (batch, expected)]
    assert types[0] == types[1]
    read, said = batch.inputs["features"][:, 1:], batch.targets["frames"][:, :-1, :-1]
    both = (batch.inputs["tokens"][:, 1:] == 0) & (batch.weights["frames"][:, :-1] > 0)
    assert both.sum() > 8 and batch.inputs["reset"].sum() > 4
    assert 0.4 < (read - said)[both].std() < 0.6
    plain = next(train_batches(dataclasses.replace(config, noise=0.0), training, 0, ByteTokenizer()))
    both = (plain.inputs["tokens"][:, 1:] == 0) & (plain.weights["frames"][:, :-1] > 0)
    np.testing.assert_array_equal(plain.inputs["features"][:, 1:][both], plain.targets["frames"][:, :-1, :-1][both])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speakers": ("a",)}, "speaker must be one of a, got 'b'"),
        ({"pattern": r"(?P<label>\d)_"}, "the files have no speakers"),
        ({"mask": 0.1}, "data.mask=0.1 would put gaps"),
        ({"center": True}, "data.center=True removes the loudness"),
        ({"noise": -1.0}, "data.noise must be a number of at least 0"),
        ({"source_length": 2}, r"a sound of 6 frames is too long: data.source_length=2"),
        ({"words": ("0=\0",)}, "has a character of id 0"),
    ],
)
def test_bad_settings_are_refused(clips, changes, message):
    with pytest.raises(ValueError, match=message):
        make_task(dataclasses.replace(clips, **changes), "test")
