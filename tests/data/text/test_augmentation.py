"""Augmentation: each change by hand and by its rate, tags stay with their words, batches depend on the seed alone."""

import collections
import json

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config.experiment import TrainingConfig
from memgpt_jax.data import make_task, train_batches
from memgpt_jax.data.text import Augmentation, write_vectors
from memgpt_jax.data.text.vectors import read_vectors
from memgpt_jax.data.tokenizers.byte import ByteTokenizer

WORDS = [f"w{i}" for i in range(2000)]
BYTES = ByteTokenizer()
VECTORS = "good 1 0 0\ngreat 0.9 0.1 0\nfine 0.8 0.3 0\nbad -1 0 0.1\nfilm 0 0 1\n"


@pytest.fixture
def vectors(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text(VECTORS)
    return str(path)


def changed(words, tags=None, seed=0, **rates):
    return Augmentation(mg.AugmentConfig(**rates)).words(words, tags or ["O"] * len(words), np.random.default_rng(seed))


def test_rates_are_shares_of_words():
    deleted, _ = changed(WORDS, delete=0.2)
    assert 0.77 < len(deleted) / len(WORDS) < 0.83 and deleted == [word for word in WORDS if word in set(deleted)]
    inserted, tags = changed(WORDS, insert=0.2)
    assert 1.17 < len(inserted) / len(WORDS) < 1.23 and set(inserted) == set(WORDS) and set(tags) == {"O"}
    swapped, _ = changed(WORDS, swap=0.1)
    moved = np.mean([one != other for one, other in zip(WORDS, swapped, strict=True)])
    assert sorted(swapped) == sorted(WORDS) and 0.15 < moved < 0.22
    for rates in ({}, {"delete": 0.0}):
        assert changed(WORDS, **rates) == (WORDS, ["O"] * len(WORDS))


def test_one_word_always_stays():
    assert len(changed(["a", "b"], delete=1.0)[0]) == 1
    for rates in ({"delete": 1.0}, {"swap": 1.0}, {"insert": 1.0}):
        assert changed([], **rates) == ([], [])
        assert set(changed(["a"], **rates)[0]) == {"a"}


def test_words_are_replaced_by_neighbours_in_their_form(vectors):
    options = {"vectors": vectors, "neighbours": 2}
    for seed in range(10):
        words, _ = changed(["Good,", "(film)", "unknown", "GOOD", "..."], seed=seed, substitute=1.0, **options)
        assert words[0] in ("Great,", "Fine,") and words[3] in ("Great", "Fine")
        assert words[1] != "(film)" and words[1][0] + words[1][-1] == "()" and words[2] == "unknown"
        assert words[4] == "..."
    seen = {changed(["good"], seed=seed, substitute=1.0, **options)[0][0] for seed in range(20)}
    assert seen == {"great", "fine"}
    inserted = {changed(["good"], seed=seed, insert=1.0, **options)[0][1] for seed in range(20)}
    assert inserted == {"great", "fine"}


def test_nearest_words_are_those_of_the_largest_cosine():
    rng = np.random.default_rng(0)
    table, words = rng.normal(size=(30, 4)).astype(np.float32), [f"x{i}" for i in range(30)]
    vectors = mg.data.text.vectors.WordVectors(words, table)
    for i, word in enumerate(words):
        cosines = [
            (table[i] @ other / np.linalg.norm(other) / np.linalg.norm(table[i]), words[j])
            for j, other in enumerate(table)
            if j != i
        ]
        assert vectors.nearest(word, 3) == tuple(other for _, other in sorted(cosines, reverse=True)[:3])
    assert vectors.nearest("unknown", 3) == ()


def test_entities_stay_whole_and_tags_go_with_their_words():
    words = ["in", "New", "York", "City", "he", "met", "Ada", "."]
    tags = ["O", "B-loc", "I-loc", "I-loc", "O", "O", "B-per", "O"]
    tag_of = dict(zip(words, tags, strict=True))
    lengths = set()
    for seed in range(50):
        found, found_tags = changed(words, tags, seed, insert=0.3, swap=0.5, delete=0.3)
        lengths.add(len(found))
        assert [tag_of[word] for word in found] == found_tags
        place = found.index("New")
        assert found[place : place + 3] == ["New", "York", "City"]
        assert [found.count(word) for word in ("New", "York", "City", "Ada")] == [1, 1, 1, 1]
    assert len(lengths) > 3


def test_a_text_is_its_words_and_an_unchanged_one_itself():
    augmentation = Augmentation(mg.AugmentConfig(swap=1.0))
    assert augmentation.text("a  b\nc", np.random.default_rng(0)) == "b c a"
    assert augmentation.text(" a \n", np.random.default_rng(0)) == " a \n"
    assert augmentation.text("", np.random.default_rng(0)) == ""


def test_the_embeddings_of_a_model_are_word_vectors(tmp_path):
    table = np.random.default_rng(0).normal(size=(257, 4)).astype(np.float32)
    path = tmp_path / "own.txt"
    assert write_vectors(path, BYTES, table) == 52  # the letters of bytes
    read = read_vectors(str(path))
    assert sorted(read.words) == sorted(map(chr, (*range(65, 91), *range(97, 123))))
    expected = table[ord("q")] / np.linalg.norm(table[ord("q")])
    np.testing.assert_allclose(read.vectors[read.places["q"]], expected, rtol=1e-4)
    with pytest.raises(ValueError, match=r"table must be \[V, D\] with V of at least 257"):
        write_vectors(path, BYTES, table[:100])


def test_words_of_vectors_may_hold_spaces(tmp_path):
    (tmp_path / "vectors.txt").write_text("a 1 2\n. . . 3 4\n")
    assert read_vectors(str(tmp_path / "vectors.txt")).words == ["a", ". . ."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a 1 2\nb 1 2 3\n", r"vectors.txt, line 2 has 3 numbers, and the lines before it 2"),
        ("a 1 2\nb 1\n", r"vectors.txt, line 2 has 1 numbers, and the lines before it 2"),
        ("a 1 2\nb 1 x\n", r"vectors.txt, line 2 must be a word and its numbers: could not convert"),
        ("a 1 2\nb 1 nan\n", r"vectors.txt, line 2 has a number that is not finite"),
        ("a\nb\n", r"vectors.txt, line 1 must be a word and its numbers, got 'a'"),
        ("2 2\na 1 2\n", r"must have at least two words, got 1"),
        (b"a 1 2\n\xff 1 2\n", r"vectors.txt, line 2 is not valid UTF-8"),
    ],
)
def test_bad_vectors_are_named(tmp_path, content, message):
    (tmp_path / "vectors.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        read_vectors(str(tmp_path / "vectors.txt"))
    with pytest.raises(ValueError, match="there is no such file"):
        read_vectors(str(tmp_path / "absent.txt"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delete": 1.5}, r"augment.delete must be in \[0, 1\], got 1.5"),
        ({"substitute": 0.1}, "augment.substitute=0.1 needs augment.vectors"),
        ({"delete": 0.1, "vectors": "v.txt"}, "is used by augment.substitute and augment.insert"),
        ({"insert": 0.1, "neighbours": 0}, "neighbours must be at least 1"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        mg.AugmentConfig(**changes)


AUGMENT = {"augment": mg.AugmentConfig(insert=0.2, swap=0.2, delete=0.2)}
TRAINING = TrainingConfig(batch_size=2, sequence_length=48)


def labelled(folder, **changes):
    rows = [{"text": f"a film of the {i}th kind it is", "label": "ab"[i % 2]} for i in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return mg.LabelledTextConfig(train=str(folder / "rows.jsonl"), tokenizer="byte", **changes)


def tagged(folder, **changes):
    rows = [{"words": [*"abcdefgh", f"N{i}"], "tags": [*("O" * 8), "B-x"]} for i in range(12)]
    (folder / "words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return mg.TaggedTextConfig(train=str(folder / "words.jsonl"), tag_column="tags", tokenizer="byte", **changes)


def texts_of(batch) -> list[str]:
    """The documents of a batch."""
    tokens, reset = batch.inputs["tokens"].reshape(-1), batch.inputs["reset"].reshape(-1)
    parts = np.split(tokens, np.flatnonzero(reset)[1:])
    return [BYTES.decode([int(token) for token in part[1:]]) for part in parts if part.any()]


@pytest.mark.parametrize("make", [labelled, tagged])
def test_batches_depend_on_seed_epoch_and_document_and_resume_bitwise(tmp_path, make):
    config = make(tmp_path, **AUGMENT)

    def batches(seed=3):
        return train_batches(config, TRAINING, seed, BYTES)

    stream = batches()
    whole = [next(stream) for _ in range(30)]
    stream, resumed = batches(), batches()
    for _ in range(11):
        next(stream)
    resumed.set_state(json.loads(json.dumps(stream.get_state())))
    for batch in whole[11:]:
        jax.tree.map(np.testing.assert_array_equal, batch, next(resumed))
    assert texts_of(next(batches(4))) != texts_of(whole[0])
    counts = collections.Counter(text for batch in whole for text in texts_of(batch))
    assert len(counts) > 40  # eleven documents, changed in other ways in each epoch
    plain = train_batches(make(tmp_path), TRAINING, 3, BYTES)
    assert len({text for _ in range(30) for text in texts_of(next(plain))}) == 11  # every tenth is held out
    with pytest.raises(ValueError, match="the saved data position belongs to"):
        plain.set_state(stream.get_state())


@pytest.mark.parametrize("make", [labelled, tagged])
def test_only_the_training_split_changes(tmp_path, make):
    config = make(tmp_path, valid=str(tmp_path / ("rows.jsonl" if make is labelled else "words.jsonl")), **AUGMENT)
    train, valid = (make_task(config, split, BYTES) for split in ("train", "valid"))
    assert train.augmentation is not None and valid.augmentation is None
    assert train.examples == valid.examples
    plain = make_task(make(tmp_path, valid=config.valid), "valid", BYTES)
    jax.tree.map(np.testing.assert_array_equal, valid.batch(0, 2, 48), plain.batch(0, 2, 48))


def test_tags_are_targets_of_their_words_after_changes(tmp_path):
    task = make_task(tagged(tmp_path, **AUGMENT), "train", BYTES)
    entity = task.config.tags.index("B-x")
    for seed in range(20):
        row = task.row(0, 0, 48, np.random.default_rng(seed))
        text = BYTES.decode([int(token) for token in row["tokens"][1:]])
        assert row["weights"].sum() == len(text.split())
        (place,) = np.flatnonzero((row["targets"] == entity) & (row["weights"] > 0))
        assert text[:place].endswith("N0") and row["tokens"][place] == ord("0")
    parts = [task.row(0, first, 4, np.random.default_rng(0))["tokens"] for first in (0, 4, 8, 40)]
    assert all(1 <= len(part) <= 4 for part in parts)


def test_other_vectors_are_other_data(tmp_path, vectors):
    augment = mg.AugmentConfig(insert=0.5, vectors=vectors)
    contents = [make_task(labelled(tmp_path, augment=augment), "train", BYTES).content]
    (tmp_path / "vectors.txt").write_text(VECTORS + "new 1 1 1\n")
    contents.append(make_task(labelled(tmp_path, augment=augment), "train", BYTES).content)
    assert contents[0] != contents[1]
