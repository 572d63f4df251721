"""Pictures and sounds with texts: cells of a sheet, strings of clips by hand, batches, and what is refused."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from memgpt_jax.config.experiment import TrainingConfig
from memgpt_jax.data import ByteTokenizer, batch_shapes, make_task, sound, tokenizer_of, train_batches
from memgpt_jax.data.tasks import CaptionsConfig, CTCTranscriptsConfig, TranscriptsConfig
from memgpt_jax.data.tasks.ctc_transcripts import needed_tokens
from memgpt_jax.studies.command_line import load_config
from tests.data.test_media import DATA, png, wav, written

Image = pytest.importorskip("PIL.Image", reason="the extra `senses` is not installed")
pytest.importorskip("soundfile", reason="the extra `senses` is not installed")


@pytest.fixture
def sheet(tmp_path):
    """Six cells of 8 x 8 pixels with a border of one pixel; cell (x, y) has the colour (40 x, 90 y, 7)."""
    pixels = np.full((20, 30, 3), 255, np.uint8)
    rows = []
    for x in range(3):
        for y in range(2):
            pixels[10 * y + 1 : 10 * y + 9, 10 * x + 1 : 10 * x + 9] = (40 * x, 90 * y, 7)
            rows.append({"x": x, "y": y, "caption": f" cell {x} {y}", "split": "test" if y else "train"})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    written(tmp_path, {"sheet.png": png(Image.fromarray(pixels)), "captions.jsonl": lines.encode()})
    return {"path": str(tmp_path / "captions.jsonl"), "label_column": "caption", "group_column": "split"} | {
        "sheet": "sheet.png", "sheet_border": 1, "height": 8, "width": 8, "test_groups": ("test",), "valid_every": 3,
    }  # fmt: skip


def test_cells_of_a_sheet_and_their_captions(sheet):
    config = CaptionsConfig(**sheet)
    found = {split: make_task(config, split) for split in ("train", "valid", "test")}
    texts = {split: [example.targets[0] for example in task.examples] for split, task in found.items()}
    assert texts == {
        "train": ["cell 0 0", "cell 1 0"],
        "valid": ["cell 2 0"],
        "test": ["cell 0 1", "cell 1 1", "cell 2 1"],
    }
    for place, pixels in enumerate(found["test"].decoded):
        assert pixels.shape == (8, 8, 3) and (pixels == (40 * place, 90, 7)).all()
    assert found["test"].source(0).shape == (4, 48) and config.source_tokens == 4


def test_all_captions_of_a_picture_are_in_one_split(sheet):
    path = Path(sheet["path"])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row | {"caption": text}) + "\n" for text in "ab" for row in rows))
    texts = [
        [example.where.partition("(")[2] for example in make_task(CaptionsConfig(**sheet), split).examples]
        for split in ("train", "valid", "test")
    ]
    assert [len(part) for part in texts] == [4, 2, 6] and [len({*part}) for part in texts] == [2, 1, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sheet": "other.png"}, "there is no file 'other.png'"),
        ({"height": 12}, r"sheet.png of 30 x 20 pixels has no cell \(0, 1\) of 10 x 14 pixels"),
        ({"label_column": "name"}, "has no column 'name'"),
        ({"words": ("cell 0 0= ",)}, "its text is empty"),
        ({"words": ("cell 0 0=a", "cell 0 0=b")}, "data.words has several texts of cell 0 0"),
        ({"words": ("cell 0 0=a", "cell 9 9=b")}, "data.words: no file has the label of cell 9 9=b"),
        ({"words": ("cell",)}, "data.words must be texts LABEL=TEXT, got 'cell'"),
        ({"metrics": ("taste",)}, "data.metrics must be distinct names"),
        ({"phrase": "("}, "data.phrase='\\(' is not a regular expression"),
    ],
)
def test_bad_captions_are_refused(sheet, changes, message):
    with pytest.raises(ValueError, match=message):
        make_task(CaptionsConfig(**sheet | changes), "train")


@pytest.fixture
def clips(tmp_path):
    """Four digits of two speakers, of 320, 640, 960 and 1,280 samples: 1 to 4 tokens at 16 kHz."""
    rng = np.random.default_rng(0)
    files = {
        f"{digit}_{name}.wav": wav(rng.uniform(-0.5, 0.5, 320 * (digit + 1))) for digit in range(4) for name in "ab"
    }
    words = tuple(f"{digit}={word}" for digit, word in enumerate(("zero", "one", "two", "three")))
    pattern = r"(?P<label>\d)_(?P<group>\w)\.wav$"
    path = str(written(tmp_path, files))
    return {"path": path, "pattern": pattern, "words": words, "test_groups": ("b",), "num_mels": 8, "valid_every": 9}


def test_strings_are_clips_of_a_speaker_one_after_the_other(clips):
    config = TranscriptsConfig(**clips, min_clips=2, max_clips=3, source_length=12)
    task, again = (make_task(config, "test") for _ in range(2))
    names = ("zero", "one", "two", "three")
    assert [example[1:] for example in task.examples] == [example[1:] for example in again.examples]
    for index, example in enumerate(task.examples):
        digits = [int(task.files[place].label) for place in example.files]
        assert digits[0] == index and len(digits) in (2, 3)
        assert example.targets == (" ".join(names[digit] for digit in digits),)
        samples = np.concatenate([task.decoded[place] for place in example.files])
        frames = sound.log_mel(samples, 16000, 8).reshape(-1, 16)
        np.testing.assert_array_equal(task.source(index), frames)
        assert len(frames) == sum(digit + 1 for digit in digits) and "_b.wav" in example.where
    assert {len(example.files) for example in task.examples} == {2, 3}


def test_training_strings_are_drawn_in_every_epoch_and_fit(clips):
    config = TranscriptsConfig(**clips, max_clips=4, source_length=8, stretch=0.3)
    training = TrainingConfig(batch_size=4, sequence_length=32)
    batches = train_batches(config, training, 0, ByteTokenizer())
    found = [next(batches) for _ in range(6)]
    expected = batch_shapes(config, training)
    types = [jax.tree.map(lambda array: (array.shape, array.dtype), batch[:2]) for batch in (found[0], expected)]
    assert types[0] == types[1]
    sizes = np.concatenate([batch.inputs["source_valid"].sum(axis=1) for batch in found])
    assert 1 <= sizes.min() < sizes.max() <= 8 and not any(batch.inputs["source"].any() for batch in found)
    texts = {tuple(row) for batch in found for row in batch.targets["tokens"].tolist()}
    assert len(texts) > 8
    first = next(train_batches(config, training, 0, ByteTokenizer()))
    jax.tree.map(np.testing.assert_array_equal, first, found[0])


def test_labels_without_places_by_hand(clips):
    """A text needs a token for each label, and one more between equal labels: `three` six of them."""
    config = CTCTranscriptsConfig(**clips, source_length=4)
    task, letters = make_task(config, "test"), [*b"two"]
    row = task.row(2)
    assert row["targets"].tolist() == letters and row["weights"].tolist() == [1, 1, 1] and not row["tokens"].any()
    assert task.row(3)["targets"].tolist() == [-1] * 4 and not task.row(3)["weights"].any()
    assert [needed_tokens(np.array([*text])) for text in (b"", b"two", b"three", b"aaa")] == [0, 3, 6, 5]
    training = TrainingConfig(batch_size=4, sequence_length=99)
    batch, expected = next(train_batches(config, training, 0, ByteTokenizer())), batch_shapes(config, training)
    types = [jax.tree.map(lambda array: (array.shape, array.dtype), found[:3]) for found in (batch, expected)]
    assert types[0] == types[1] and sorted(batch.inputs["valid"].sum(axis=1)) == [1, 2, 3, 4]
    assert (batch.targets["transcript"] == 0).sum() == 0 and batch.weights["transcript"].sum() == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_length": 3}, r"3_a\.wav: a sound of 1280 samples is too long: data.source_length=3"),
        ({"min_clips": 9, "max_clips": 9}, "data.min_clips=9 files are longer than data.source_length=8 tokens"),
        ({"min_clips": 2}, "data.min_clips=2 must be at most data.max_clips=1"),
    ],
)
def test_bad_strings_are_refused(clips, changes, message):
    with pytest.raises(ValueError, match=message):
        make_task(TranscriptsConfig(**clips | {"source_length": 8} | changes), "train")


def test_a_tokenizer_of_the_texts_can_be_trained(clips, tmp_path):
    words = tuple(f"{digit}={'abcdefgh' * 9} {digit} {'klmnopqr' * 9}" for digit in range(4))
    config = TranscriptsConfig(**clips | {"words": words}, tokenizer="bpe", tokenizer_vocab_size=300)
    config = TranscriptsConfig(**vars(config) | {"cache_dir": str(tmp_path / "cache")})
    assert len(tokenizer_of(config).encode("abcdefgh" * 9)) < 30


def test_the_tokenizer_of_a_pretrained_model_needs_one(clips):
    config = TranscriptsConfig(**clips, tokenizer="pretrained")
    with pytest.raises(ValueError, match=r"data.tokenizer='pretrained' needs a pretrained model"):
        make_task(config, "train")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder", "sizes"),
    [("emoji_captions", "image/emoji32", (2871, 319, 591)), ("spoken_digit_stream", "audio", (1350, 150, 500))],
)
def test_the_splits_of_the_configs(monkeypatch, tmp_path, name, folder, sizes):
    if not (DATA / folder).is_dir():
        pytest.skip(f"MEMGPT_DATA does not name a folder with {folder}")
    monkeypatch.setenv("MEMGPT_DATA", str(DATA))
    data = dataclasses.replace(load_config(name).data, tokenizer="byte")
    found = [make_task(data, split) for split in ("train", "valid", "test")]
    assert tuple(len(task.examples) for task in found) == sizes
    if name == "emoji_captions":
        assert found[2].examples[0].targets == ("keycap 1",) and found[2].decoded[0].std() > 10
    else:
        assert {len(example.files) for example in found[2].examples} == {*range(1, 9)}
