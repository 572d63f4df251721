"""Pairs of texts: files, rows, batches, and what is refused."""

import gzip
import json
from itertools import islice

import numpy as np
import pytest

from memgpt_jax.config.data import CausalConfig
from memgpt_jax.config.experiment import ExperimentConfig, TrainingConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig, Seq2SeqConfig
from memgpt_jax.data import ByteTokenizer, batch_shapes, make_task, tokenizer_of, train_batches
from memgpt_jax.data.tasks.text_pairs import TextPairsConfig, pairs
from memgpt_jax.studies.command_line import load_config
from tests.laws.real_data import DATA

START = END = ByteTokenizer.start_id
WORDS = ["one", "two", "three", "four", "five", "six"]
SIZES = {"vocab_size": 257, "d_model": 8, "num_layers": 1, "num_heads": 1, "memory": NoMemoryConfig()}


@pytest.fixture
def parallel(tmp_path):
    with gzip.open(tmp_path / "train.en.gz", "wt") as file:
        file.write("".join(f"{word}\n" for word in WORDS))
    with gzip.open(tmp_path / "train.de.gz", "wt") as file:
        file.write("".join(f"{word[::-1]}\n" for word in WORDS))
    return TextPairsConfig(
        train=str(tmp_path / "train.*.gz"), form="parallel", source_column="en", target_column="de", valid_every=3
    )


def table(folder, rows, **options):
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TextPairsConfig(train=str(path), **options)


def test_parallel_files_are_records_by_line(parallel):
    found = pairs(parallel, "train")
    assert [(pair.source, pair.targets) for pair in found] == [(w, (w[::-1],)) for w in ("one", "two", "four", "five")]
    assert found[2].where.endswith("train.en.gz, line 4")
    assert [pair.source for pair in pairs(parallel, "valid")] == ["three", "six"]


def test_lists_are_sentences_of_a_source_and_alternatives_of_a_target(tmp_path):
    (pair,) = pairs(table(tmp_path, [{"source": ["A b.", " ", "C d."], "target": ["x", " y "]}], valid="v"), "train")
    assert pair.source == "A b. C d." and pair.targets == ("x", "y")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"en": "a\nb\nc\n"}, r"train.en, line 3 has no counterpart: .*train.de ended before it"),
        ({"de": "a\n \n"}, r"train.en, line 2: the text of column 'de' is empty"),
        ({"de": None}, "there is no file"),
    ],
)
def test_bad_parallel_files_are_refused(tmp_path, change, message):
    for column, content in ({"en": "a\nb\n", "de": "a\nb\n"} | change).items():
        if content is not None:
            (tmp_path / f"train.{column}").write_text(content)
    options = {"form": "parallel", "source_column": "en", "target_column": "de"}
    with pytest.raises(ValueError, match=message):
        pairs(TextPairsConfig(train=str(tmp_path / "train.*"), **options), "train")
    with pytest.raises(ValueError, match=r"must hold '\*' in place of the columns en, de"):
        pairs(TextPairsConfig(train=str(tmp_path / "train"), **options), "train")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"target": "a"}, "line 1 has no column 'source'"),
        ({"source": 1, "target": "a"}, "line 1: column 'source' must be a string"),
        ({"source": " ", "target": "a"}, "line 1: the text of column 'source' is empty"),
        ({"source": "a", "target": []}, "line 1: the text of column 'target' is empty"),
        ({"source": "a", "target": [None]}, "line 1: column 'target' must be a list of strings"),
    ],
)
def test_bad_records_are_refused(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        pairs(table(tmp_path, [row], valid="v"), "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "no place"}, "data.prompt must hold {source} once, got 'no place'"),
        ({"prompt": "{source} {source}"}, "data.prompt must hold {source} once"),
        ({"metrics": ("bleu", "meteor")}, "data.metrics must be distinct names of bleu, chrf, rouge, exact"),
        ({"metrics": ()}, "data.metrics must be distinct names"),
        ({"source_column": "target"}, "data.source_column and data.target_column must differ"),
        ({"num_beams": 0}, "num_beams"),
        ({"source_length": 0}, "source_length"),
        ({"source_length": 4, "start_token": False}, "data.start_token=False is for decoders"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TextPairsConfig(**options)


def seq2seq(**options):
    encoder = EncoderConfig(**SIZES, heads=())
    return Seq2SeqConfig(encoder=encoder, decoder=ModelConfig(**SIZES, source_length=8, **options))


@pytest.mark.parametrize(
    ("model", "source_length", "message"),
    [
        (ModelConfig(**SIZES), 8, "data.source_length=8 is for the encoder of an encoder-decoder"),
        (seq2seq(), None, "data.source_length=None must be the number of tokens of a source, at most"),
        (seq2seq(), 9, "data.source_length=9 must be the number of tokens of a source, at most"),
        (EncoderConfig(**SIZES), None, "needs a model with the head 'tokens'"),
    ],
)
def test_models_that_do_not_fit(model, source_length, message):
    with pytest.raises(ValueError, match=message):
        ExperimentConfig(model=model, data=TextPairsConfig(source_length=source_length))


def test_a_row_of_a_decoder():
    """The prompt, then the target; its spaces at the end begin the target. Only the target has weights."""
    tokens = TextPairsConfig(prompt="<{source}> ").tokens(ByteTokenizer())
    row = tokens.row("ab", "xy")
    assert row["tokens"].tolist() == [START, *b"<ab> xy"]
    assert row["targets"].tolist() == [*b"<ab> xy", END]
    assert row["weights"].tolist() == [0] * 4 + [1] * 4  # " ", "x", "y" and the end
    assert tokens.text(np.array([*b" xy", END])) == "xy"


def test_a_row_without_the_start_token():
    """The prompt comes first; without a prompt, the target's first id is not predicted."""
    tokens = TextPairsConfig(prompt="<{source}> ", start_token=False).tokens(ByteTokenizer())
    row = tokens.row("ab", "xy")
    assert row["tokens"].tolist() == [*b"<ab> xy"] and row["targets"].tolist() == [*b"ab> xy", END]
    assert row["weights"].tolist() == [0] * 3 + [1] * 4 and tokens.source("ab").tolist() == [*b"<ab>"]
    row = TextPairsConfig(prompt="{source}", start_token=False).tokens(ByteTokenizer()).row("ab", "xy", length=2)
    assert row["tokens"].tolist() == [*b"xy"] and row["targets"].tolist() == [ord("y"), END]
    assert row["weights"].tolist() == [1, 1]


def test_long_sources_are_cut_so_that_the_row_holds_the_target():
    tokens = TextPairsConfig().tokens(ByteTokenizer())
    row = tokens.row("abcdefgh", "xy", length=7)
    assert bytes(row["tokens"].tolist()[1:]) == b"abc\nxy" and row["targets"].tolist() == [*b"abc\nxy", END]
    long = tokens.row("ab", "x" * 20, length=7)
    assert len(long["tokens"]) == 7 and long["tokens"].tolist()[:2] == [START, ord("\n")]
    assert len(tokens.source("abcdefgh" * 100)) == 802  # read whole in evaluation


def test_a_row_of_an_encoder_decoder():
    tokens = TextPairsConfig(source_length=5, prompt="> {source}").tokens(ByteTokenizer())
    row = tokens.row("abcdef", "xy")
    assert row["source"].tolist() == [*b"> ab", END] and row["weights"].tolist() == [1, 1, 1]
    assert row["tokens"].tolist() == [START, *b"xy"] and row["targets"].tolist() == [*b"xy", END]


@pytest.mark.parametrize("source_length", [None, 4])
def test_batches_hold_every_pair_once_an_epoch_and_have_the_declared_shapes(tmp_path, source_length):
    rows = [{"source": word, "target": word[::-1]} for word in WORDS]
    config = table(tmp_path, rows, source_length=source_length, tokenizer="byte", valid="v")
    training = TrainingConfig(batch_size=2, sequence_length=12)
    task, batches = make_task(config, "train", ByteTokenizer()), train_batches(config, training, 0, ByteTokenizer())
    expected = batch_shapes(config, training)
    state, first = batches.get_state(), next(batches)
    for part, shapes in zip(first, expected, strict=True):
        assert {n: (a.shape, a.dtype) for n, a in part.items()} == {n: (a.shape, a.dtype) for n, a in shapes.items()}
    batches.set_state(state)
    np.testing.assert_array_equal(next(batches).targets["tokens"], first.targets["tokens"])
    words = []
    for batch in islice(task.batches(0, 2, 12), 12):
        targets, weights = batch.targets["tokens"], batch.weights["tokens"]
        words += bytes(np.where(targets == END, ord(" "), targets)[weights > 0].tolist()).decode().split()
    if source_length is not None:
        assert len(words) == 24 and sorted(words[:6]) == sorted(words[6:12]) == sorted(w[::-1] for w in WORDS)
    assert set(words) == {word[::-1] for word in WORDS}
    assert task.training_tokens(12) == (72 if source_length else sum(2 * len(word) + 2 for word in WORDS))


def test_bpe_is_trained_on_both_columns(tmp_path):
    """A word of the targets that no source holds is one piece."""
    words = [f"{a}{b}" for a in "abcdefgh" for b in "klmnop"]
    rows = [{"source": " ".join(words[i:]), "target": "zzyyxx " * 9} for i in range(40)]
    options = {"tokenizer": "bpe", "tokenizer_vocab_size": 350, "valid": "v", "cache_dir": str(tmp_path / "cache")}
    config = table(tmp_path, rows, **options)
    tokenizer = tokenizer_of(config)
    assert len(tokenizer.encode(" zzyyxx")) == 1 and tokenizer.decode(tokenizer.encode("ak zzyyxx")) == "ak zzyyxx"
    assert tokenizer_of(config).fingerprint == tokenizer.fingerprint
    assert config.text.objective == config.objective != CausalConfig()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder", "sizes"),
    [
        ("multi30k_de", "multi30k", (29_000, 1014, 1000)),
        ("multi30k_fr", "multi30k", (29_000, 1014, 1000)),
        ("scitldr", "scitldr", (1793, 199, 619)),
    ],
)
def test_the_splits_of_the_configs(monkeypatch, name, folder, sizes):
    if not (DATA / folder).is_dir():
        pytest.skip(f"MEMGPT_DATA does not name a folder with {folder}")
    monkeypatch.setenv("MEMGPT_DATA", str(DATA))
    found = {split: pairs(load_config(name).data, split) for split in ("train", "valid", "test")}
    assert tuple(map(len, found.values())) == sizes
    if folder == "multi30k":
        assert found["train"][0].source == "Two young, White males are outside near many bushes."
    else:  # one to four alternatives
        assert {len(pair.targets) for pair in found["test"]} == {1, 2, 3, 4}
