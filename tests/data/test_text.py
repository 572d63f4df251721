"""Tokenized text: what is kept, when it is made anew, and what importing costs."""

import dataclasses
import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from memgpt_jax.config_data import TextConfig
from memgpt_jax.data import documents, load_tokenizer
from memgpt_jax.data.tokenizer import ByteTokenizer, train_sentencepiece

BOOKS = Path(os.environ.get("MEMGPT_DATA", "../shared/data")) / "books_pg"


def decoded(config, split="train"):
    tokenizer = load_tokenizer(config)
    return [tokenizer.decode(ids) for ids in documents(config, split, tokenizer)]


def made(config, monkeypatch):
    """How many documents `decoded` tokenizes."""
    count = []
    encode = ByteTokenizer.encode
    monkeypatch.setattr(ByteTokenizer, "encode", lambda self, text: count.append(1) or encode(self, text))
    decoded(config)
    monkeypatch.setattr(ByteTokenizer, "encode", encode)
    return len(count)


def test_documents_come_back(folder_config):
    config = folder_config()
    tokenizer = load_tokenizer(config)
    found = documents(config, "train", tokenizer)
    assert sorted(map(tokenizer.decode, found)) == sorted(f"document {i} " * (i + 1) for i in range(6))
    assert len(found) == 6 and found[-1].dtype == np.int32
    np.testing.assert_array_equal(found[-1], found[5])
    with pytest.raises(IndexError):
        found[6]


def test_documents_without_text_are_left_out_and_a_split_of_them_is_refused(folder_config):
    config = folder_config({"train": ["a", "", "b"], "valid": [""]})
    assert sorted(decoded(config)) == ["a", "b"]
    with pytest.raises(ValueError, match=r"split 'valid' of .*corpus: none of its documents holds any text"):
        decoded(config, "valid")
    with pytest.raises(ValueError, match=r"split must be one of 'train', 'valid', 'test', got 'dev'"):
        decoded(config, "dev")


def test_tokenized_once_and_anew_when_anything_changes(folder_config, monkeypatch):
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
    tokenizer = load_tokenizer(config)
    assert tokenizer.vocab_size == 330 and len(tokenizer.encode("alpha")) < 3 and len(tokenizer.encode("zzzz")) == 4
    assert sorted(decoded(config)) == sorted(words)
    monkeypatch.setattr("memgpt_jax.data.text.train_sentencepiece", None)
    assert load_tokenizer(config).fingerprint == tokenizer.fingerprint


def test_an_existing_model_and_what_is_none(folder_config, tmp_path):
    tokenizer = train_sentencepiece(["one two three four five six seven\n" * 100], 300)
    tokenizer.save(tmp_path)
    assert load_tokenizer(folder_config(tokenizer=str(tmp_path / "tokenizer.model"))).model == tokenizer.model
    (tmp_path / "bad.model").write_text("no model")
    for name, message in [
        ("bad.model", "bad.model is not a sentencepiece model"),
        ("absent.model", "there is no file .*absent.model"),
        ("words", "must be 'bpe', 'byte', or a tokenizer: .* there is no folder"),
    ]:
        with pytest.raises(ValueError, match=message):
            load_tokenizer(folder_config(tokenizer=str(tmp_path / name)))


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy", "counts.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "absent"])
def test_damaged_files_are_made_anew(folder_config, name, damage, caplog):
    config = folder_config()
    expected = decoded(config)
    (file,) = Path(config.cache_dir, "tokens").rglob(name)
    if damage == "absent":
        file.unlink()
    else:
        os.truncate(file, 0 if damage == "empty" else file.stat().st_size // 2)
    assert decoded(config) == expected
    assert "anew" in caplog.text
    assert len(list(Path(config.cache_dir, "tokens").iterdir())) == 1


def test_a_failed_preparation_leaves_nothing(folder_config, monkeypatch):
    config = folder_config()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ByteTokenizer, "encode", lambda self, text: (_ for _ in ()).throw(KeyboardInterrupt))
        decoded(config)
    assert not list(Path(config.cache_dir, "tokens").iterdir())
    assert len(decoded(config)) == 6


def test_processes_prepare_the_same_corpus_at_once(folder_config):
    config = folder_config()
    code = (
        "from memgpt_jax.config_data import TextConfig; from memgpt_jax.data import *; "
        f"import sys; c = {config!r}; print(len(documents(c, sys.argv[1], load_tokenizer(c))))"
    )
    commands = [[sys.executable, "-c", code, split] for split in ("train", "train", "valid")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["6\n", "6\n", "1\n"]


def test_importing_is_light():
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
