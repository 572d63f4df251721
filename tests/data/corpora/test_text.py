"""Tokenized text: its content, when it is tokenized again, and the cost of importing."""

import dataclasses
import gzip
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.config.data import TextConfig
from memgpt_jax.data import documents, make_tokenizer
from memgpt_jax.data.corpora import text
from memgpt_jax.data.corpora.reading import Document
from memgpt_jax.data.corpora.text import TokenizedText, encode_pieces
from memgpt_jax.data.tokenizers.byte import ByteTokenizer
from memgpt_jax.data.tokenizers.sentencepiece_file import train_sentencepiece
from tests.laws.real_data import DATA

BOOKS = DATA / "books_pg"


def decoded(config, split="train"):
    tokenizer = make_tokenizer(config)
    return [tokenizer.decode(ids) for ids in documents(config, split, tokenizer)]


def made(config, monkeypatch):
    """The number of documents that `decoded` tokenizes."""
    count = []
    encode = ByteTokenizer.encode_pieces
    monkeypatch.setattr(ByteTokenizer, "encode_pieces", lambda self, text: count.append(1) or encode(self, text))
    decoded(config)
    monkeypatch.setattr(ByteTokenizer, "encode_pieces", encode)
    return len(count)


def test_documents_round_trip(folder_config):
    config = folder_config()
    tokenizer = make_tokenizer(config)
    found = documents(config, "train", tokenizer)
    assert sorted(map(tokenizer.decode, found)) == sorted(f"document {i} " * (i + 1) for i in range(6))
    assert len(found) == 6 and found[-1].dtype == np.int32
    np.testing.assert_array_equal(found[-1], found[5])
    with pytest.raises(IndexError):
        found[6]


def test_documents_without_text_are_skipped_and_an_empty_split_is_refused(folder_config, caplog):
    config = folder_config({"train": ["a", "", "b"], "valid": [""]})
    (Path(config.path) / "train" / "mark.txt").write_bytes(b"\xef\xbb\xbf")
    assert sorted(decoded(config)) == ["a", "b"]
    assert "2 (empty): train/1.txt, valid/0.txt" in caplog.text
    assert "Skipped 1 (without text): train/mark.txt" in caplog.text
    with pytest.raises(
        ValueError, match=r"split 'valid' of .*corpus: .*holds no documents in split 'valid'.*add documents"
    ):
        decoded(config, "valid")
    with pytest.raises(ValueError, match=r"split must be one of 'train', 'valid', 'test', got 'dev'"):
        decoded(config, "dev")


def test_a_corpus_is_tokenized_once_and_again_after_every_change(folder_config, monkeypatch):
    config = folder_config()
    assert made(config, monkeypatch) == 6
    assert made(config, monkeypatch) == 0
    assert made(dataclasses.replace(config, max_documents=2), monkeypatch) == 2
    assert made(dataclasses.replace(config, invalid_utf8="replace"), monkeypatch) == 6
    Path(config.path, "train", "0.txt").write_text("other")
    assert made(config, monkeypatch) == 6
    assert "other" in decoded(config)


def test_bytes_and_words_of_documents_are_those_of_their_texts(folder_config):
    texts = ["one two  three\n", "é 東京 \x0b x", " "]
    found = documents(folder_config({"train": texts}), "train", ByteTokenizer())
    whole = {ByteTokenizer().decode(ids): i for i, ids in enumerate(found)}
    sizes = {text: (found.bytes_of(i), found.words_of(i)) for text, i in whole.items()}
    assert sizes == {text: (len(text.encode()), len(text.split())) for text in texts}


def test_bpe_is_trained_once_on_the_training_split(folder_config, monkeypatch):
    words = [f"alpha{i} beta{i} gamma{i} delta{i}\n" for i in range(200)]
    config = folder_config({"train": words, "valid": ["zzzz" * 1000]}, tokenizer="bpe", tokenizer_vocab_size=330)
    tokenizer = make_tokenizer(config)
    assert tokenizer.vocab_size == 330 and len(tokenizer.encode("alpha")) < 3 and len(tokenizer.encode("zzzz")) == 4
    assert sorted(decoded(config)) == sorted(words)
    monkeypatch.setattr("memgpt_jax.data.corpora.text.train_sentencepiece", None)
    assert make_tokenizer(config).fingerprint == tokenizer.fingerprint


def test_tokenizer_files_and_invalid_ones(folder_config, tmp_path):
    tokenizer = train_sentencepiece(["one two three four five six seven\n" * 100], 300)
    tokenizer.save(tmp_path)
    assert make_tokenizer(folder_config(tokenizer=str(tmp_path / "tokenizer.model"))).model == tokenizer.model
    (tmp_path / "bad.model").write_text("no model")
    for name, message in [
        ("bad.model", "bad.model is not a sentencepiece model"),
        ("absent.model", "there is no file .*absent.model"),
        ("words", "must be 'bpe', 'byte', or a tokenizer: .* there is no folder"),
    ]:
        with pytest.raises(ValueError, match=message):
            make_tokenizer(folder_config(tokenizer=str(tmp_path / name)))


def test_a_failed_preparation_leaves_nothing(folder_config, monkeypatch):
    config = folder_config()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ByteTokenizer, "encode_pieces", lambda self, text: (_ for _ in ()).throw(KeyboardInterrupt))
        decoded(config)
    assert not list(Path(config.cache_dir, "tokens").iterdir())
    assert len(decoded(config)) == 6


@pytest.mark.slow
def test_processes_prepare_the_same_corpus_at_once(folder_config):
    config = folder_config()
    code = (
        "from memgpt_jax.config.data import CausalConfig, TextConfig; from memgpt_jax.data import *; "
        f"import sys; c = {config!r}; print(len(documents(c, sys.argv[1], make_tokenizer(c))))"
    )
    commands = [[sys.executable, "-c", code, split] for split in ("train", "train", "valid")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["6\n", "6\n", "1\n"]


@pytest.mark.parametrize(
    ("files", "present"),
    [
        ({"a.txt": "one"}, ["train"]),
        ({"a.txt": "one", "b.txt": "two"}, ["train", "valid"]),
        ({"a.txt": "one", "b.txt": "two", "c.txt": "three"}, ["train", "valid", "test"]),
        ({"train/a.txt": "one", "test/b.txt": "two"}, ["train", "test"]),
        ({"train/a.txt": "one", "valid/b.jsonl": '{"text": ""}\n'}, ["train"]),
        ({"a.csv": "text\none\ntwo\nthree\n"}, ["train", "valid", "test"]),
    ],
)
def test_few_documents_fill_the_splits_and_an_empty_one_is_refused_with_the_remedies(tmp_path, files, present):
    for name, content in files.items():
        (tmp_path / "text" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "text" / name).write_text(content)
    settings = {"path": str(tmp_path / "text"), "cache_dir": str(tmp_path / "cache"), "tokenizer": "byte"}
    config = TextConfig(corpus="folder", **settings)
    assert all(len(documents(config, split, ByteTokenizer())) for split in present)
    for split in {"train", "valid", "test"} - set(present):
        remedy = rf"split '{split}' of .*text: .*(no documents|contains text).*add documents .*evaluation.split"
        with pytest.raises(ValueError, match=remedy):
            documents(config, split, ByteTokenizer())


def test_bytes_and_words_are_those_of_the_text(folder_config):
    texts = ["a  b\n\nc", " \u00e9t\u00e9 \u2029 \U0001f600\u3000x ", "\n", "word " * 300_000 + "end"]
    config = folder_config({"train": texts})
    found = documents(config, "train", make_tokenizer(config))
    sizes = [(found.bytes_of(index), found.words_of(index)) for index in range(len(found))]
    assert sorted(sizes) == sorted((len(text.encode()), len(text.split())) for text in texts)


@given(pieces=st.lists(st.text(st.sampled_from("ab \n\u00e9\u2003\x1c"), max_size=5), max_size=6))
def test_counts_do_not_depend_on_pieces(pieces, tmp_path_factory):
    text = "".join(pieces)
    if text:
        folder = tmp_path_factory.getbasetemp()
        TokenizedText.write(folder, [Document("a", pieces)], ByteTokenizer())
        found = TokenizedText(folder)
        assert (found.bytes_of(0), found.words_of(0)) == (len(text.encode()), len(text.split()))
        assert ByteTokenizer().decode(found[0]) == text


def trained():
    return train_sentencepiece(["one two  three\n\n onetwo twothree threeone\u2581   one two three\n" * 100], 300)


class WholeTokenizer(ByteTokenizer):
    """A tokenizer that can only encode whole texts."""

    encode_pieces = property()  # absent: `hasattr` is false


@pytest.mark.parametrize("make", [ByteTokenizer, WholeTokenizer, trained])
def test_pieces_give_the_ids_of_the_whole(make):
    tokenizer = make()
    assert hasattr(tokenizer, "encode_pieces") == (make is not WholeTokenizer)

    words = st.sampled_from(
        ["one", "two", "three", " ", " ", "  ", "\n", "\t", "\u3000", "\u2581", "\ue000", "\U0001f600"]
    )

    @given(st.lists(st.lists(words, max_size=5).map("".join), max_size=5))
    def check(pieces):
        found = [token for ids in encode_pieces(tokenizer, pieces) for token in ids.tolist()]
        assert found == tokenizer.encode("".join(pieces))

    check()


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_memory_of_a_large_document(tmp_path, name):
    """A document is tokenized in blocks: 8 MB of text need less than 1 byte of memory per byte of text."""
    line = "\U0001f600 " + "x" * 200 + "\n"
    size = 8_000_000 // len(line.encode()) * len(line.encode())
    data = (line * (size // len(line.encode()))).encode()
    (tmp_path / name).write_bytes(gzip.compress(data, 1) if name.endswith("gz") else data)
    config = TextConfig(corpus="folder", path=str(tmp_path), tokenizer="byte", cache_dir=str(tmp_path / ".cache"))
    tokenizer = make_tokenizer(config)
    tracemalloc.start()
    try:
        found = documents(config, "train", tokenizer)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.bytes_of(0) == size == len(found.flat) - 2 and peak < size


def test_importing_does_not_import_heavy_libraries():
    code = "import sys, memgpt_jax.data; print([m for m in sys.modules if m in sys.argv[1:]])"
    heavy = ["tensorflow_datasets", "sentencepiece", "grain", "array_record", "tensorflow"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.skipif(not BOOKS.is_dir(), reason=f"{BOOKS} is not there: MEMGPT_DATA names the folder of real data")
def test_real_books(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOKS", str(BOOKS.resolve()))
    config = TextConfig(corpus="folder", path="$BOOKS", tokenizer="byte", cache_dir=str(tmp_path), max_documents=2)
    found = decoded(config, "valid")
    assert len(found) == 2 and min(map(len, found)) > 50_000
    originals = [gzip.decompress(path.read_bytes()).decode() for path in (BOOKS / "valid").glob("*.gz")]
    assert set(found) <= set(originals)


def test_a_corpus_is_opened_once_for_each_call(folder_config, monkeypatch):
    words = [f"alpha{i} beta{i} gamma{i} delta{i}\n" for i in range(100)]
    texts = {"train": words, "valid": ["held out"]}
    config, opened = folder_config(texts, tokenizer="bpe", tokenizer_vocab_size=310), []
    open_corpus = text.open_corpus
    monkeypatch.setattr(text, "open_corpus", lambda config: opened.append(config) or open_corpus(config))
    for _ in range(2):  # the second time, all is cached
        tokenizer = make_tokenizer(config)
        assert len(opened) == 1
        assert documents(config, "train", tokenizer) and documents(config, "valid", tokenizer)
        assert len(opened) == 3
        opened.clear()
