"""Corpora as TFDS data sets: our own from files, and TFDS's by name, without network."""

import os
import random
import sys
import types
from pathlib import Path
from unittest import mock

import pytest
import tensorflow_datasets as tfds

from memgpt_jax.config.data import TextConfig
from memgpt_jax.data import documents, make_tokenizer
from memgpt_jax.data.corpora.builders import Stdlib
from memgpt_jax.data.corpora.text import open_corpus
from memgpt_jax.files import checksums


def texts(config, split):
    return ["".join(document.pieces) for document in open_corpus(config).read(split)]


class TinyTextSet(tfds.core.GeneratorBasedBuilder):
    """A TFDS data set of another author, with only a train split."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"content": tfds.features.Text(), "title": tfds.features.Text()}),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(40):
            yield i, {"content": b"caf\xe9" if i == 39 else f"text {i}", "title": "t"}


def tiny(tmp_path, **settings):
    settings = {"invalid_utf8": "replace", "tokenizer": "byte"} | settings
    return TextConfig(corpus="tiny_text_set", cache_dir=str(tmp_path / "cache"), **settings)


def prepared(config):
    (file,) = Path(config.cache_dir).rglob("*-train.array_record*")
    return file


def test_documents_of_a_folder_have_a_fixed_order(folder_config):
    config = folder_config()
    found = texts(config, "train")
    assert sorted(found) == sorted(f"document {i} " * (i + 1) for i in range(6))
    assert texts(config, "train") == found and texts(config, "valid") == ["held out"]
    tokenizer = make_tokenizer(config)
    first = documents(folder_config(max_documents=2), "train", tokenizer)
    assert [tokenizer.decode(ids) for ids in first] == found[:2]


def test_an_absent_split_is_refused(folder_config):
    with pytest.raises(ValueError, match=r"no documents in split 'test', only in 'train', 'valid'; .* the sub-folders"):
        texts(folder_config(), "test")


def test_a_changed_folder_is_prepared_again(folder_config):
    config = folder_config()
    before, fingerprint = texts(config, "valid"), open_corpus(config).fingerprint
    Path(config.path, "valid", "0.txt").write_text("HELD OUT, too")
    assert before == ["held out"] and texts(config, "valid") == ["HELD OUT, too"]
    assert open_corpus(config).fingerprint != fingerprint


def test_invalid_utf8_follows_the_config(folder_config):
    config = folder_config()
    Path(config.path, "train", "0.txt").write_bytes(b"ab\xff")
    with pytest.raises(ValueError, match=r"0.txt is not valid UTF-8 at byte offset 2"):
        texts(config, "train")
    assert "ab\ufffd" in texts(folder_config({"valid": ["v"]}, invalid_utf8="replace"), "train")
    with pytest.raises(ValueError, match=r"0.txt is not valid UTF-8 at byte offset 2"):
        texts(config, "train")


@pytest.mark.parametrize("keep", [0, 0.5, 0.999])
@pytest.mark.parametrize("sums", [True, False])
def test_a_truncated_record_file_is_detected(tmp_path, keep, sums):
    config = tiny(tmp_path)
    texts(config, "train")
    file = prepared(config)
    os.truncate(file, int(keep * file.stat().st_size))
    if not sums:  # as of a set that TFDS prepared alone
        (file.parent / checksums.SUMS).unlink()
    message = (
        "array_record.* differs from its checksum.*or delete .*prepared again" if sums else "holds 0 of 40 documents"
    )
    with pytest.raises(ValueError, match=message):
        texts(config, "train")


def test_a_flipped_bit_of_a_prepared_data_set_is_detected(tmp_path):
    config = tiny(tmp_path)
    texts(config, "train")
    draw = random.Random(0)
    for file in [path for path in prepared(config).parent.iterdir() if path.is_file()]:
        whole = file.read_bytes()
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|differs from its checksum|is missing"):
            texts(config, "train")
        file.write_bytes(whole)
    assert len(texts(config, "train")) == 36


def test_stdlib_is_read_from_this_python(tmp_path, monkeypatch):
    monkeypatch.setattr("memgpt_jax.data.corpora.sources.STDLIB_FEWEST_FILES", 3)
    for name in ("a.py", "b.py", "json/c.py", "test/d.py"):
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(f"# {name}")
    monkeypatch.setattr("memgpt_jax.data.corpora.sources.sysconfig.get_path", lambda name: str(tmp_path / "lib"))
    config = TextConfig(cache_dir=str(tmp_path / "cache"))
    found = [text for split in ("train", "valid", "test") for text in texts(config, split)]
    assert sorted(found) == ["# a.py", "# b.py", "# json/c.py"]
    here = open_corpus(config).fingerprint
    monkeypatch.setattr("memgpt_jax.data.corpora.sources.platform.python_version", lambda: "3.99.1")
    assert open_corpus(config).fingerprint != here


def test_builders_are_tfds_builders(tmp_path):
    for name, text in [("a.txt", "a"), ("b.jsonl", '{"body": "b"}'), ("caf\udce9.txt", "c"), ("d.md", "d")]:
        (tmp_path / name).write_text(text)
    settings = {"path": str(tmp_path), "include": ["*.txt", "*.jsonl"], "text_column": "body"}
    builder = tfds.builder("folder", data_dir=str(tmp_path / ".cache"), **settings)
    builder.download_and_prepare()
    records = [dict(record) for source in builder.as_data_source().values() for record in source]
    assert sorted((record["name"], record["text"]) for record in records) == [
        (b"a.txt", b"a"), (b"b.jsonl:1", b"b"), (b"caf\\xe9.txt", b"c")
    ]  # fmt: skip
    changed = tfds.builder("folder", data_dir=str(tmp_path / ".cache"), **settings | {"invalid_utf8": "replace"})
    assert changed.info.full_name != builder.info.full_name
    assert tfds.builder_cls("stdlib") is Stdlib


@pytest.mark.parametrize("name", ["pg19", "lm1b", "wiki40b/en"])
def test_text_data_sets_of_tfds_are_opened_by_name(name, tmp_path):
    split = types.SimpleNamespace(filepaths=[], shard_lengths=[])
    with (
        tfds.testing.mock_data(num_examples=7),
        mock.patch.object(tfds.core.DatasetInfo, "splits", {"train": split, "validation": split, "test": split}),
    ):
        config = TextConfig(corpus=name, cache_dir=str(tmp_path))
        for ours in ("train", "valid", "test"):
            found = texts(config, ours)
            assert len(found) == 7 and all(isinstance(text, str) and text for text in found)
        assert open_corpus(config).fingerprint.startswith(name)


def test_a_data_set_with_only_a_train_split_is_divided(tmp_path):
    numbered = [f"text {i}" for i in range(39)] + ["caf\ufffd"]
    place = tmp_path / "[odd] \u00fc*?%"
    assert [texts(tiny(place), split) for split in ("train", "valid", "test")] == [
        numbered[:36], numbered[36:38], numbered[38:]
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"document 1 of split 'test' of tiny_text_set/1.0.0 is not valid UTF-8"):
        texts(tiny(tmp_path, invalid_utf8="error"), "test")


def test_the_text_feature_is_found_by_name(tmp_path):
    assert texts(tiny(tmp_path, text_column="title"), "test") == ["t", "t"]
    with pytest.raises(ValueError, match=r"no text feature named 'body', and not .*'content', 'title'"):
        texts(tiny(tmp_path, text_column="body"), "test")


def test_a_data_set_without_text_is_refused(tmp_path):
    split = types.SimpleNamespace(filepaths=[], shard_lengths=[])
    with (
        tfds.testing.mock_data(),
        mock.patch.object(tfds.core.DatasetInfo, "splits", {"train": split, "test": split}),
        pytest.raises(ValueError, match=r"squad.* has no text feature named .*'context'.*data.text_column"),
    ):
        texts(TextConfig(corpus="squad", cache_dir=str(tmp_path)), "test")


def test_unknown_corpora_are_refused_with_the_nearest_names(tmp_path):
    with pytest.raises(ValueError, match=r"'wiki40' is neither 'stdlib' nor 'folder' .*'wiki40b'"):
        open_corpus(TextConfig(corpus="wiki40", cache_dir=str(tmp_path)))
    with pytest.raises(ValueError, match=r"nearest names are 'folder'"):
        open_corpus(TextConfig(corpus="foldr", cache_dir=str(tmp_path)))
    with pytest.raises(ValueError, match=r"data.corpus='wiki40b/klingon' cannot be opened in .*klingon"):
        open_corpus(TextConfig(corpus="wiki40b/klingon", cache_dir=str(tmp_path)))


def test_a_data_set_that_cannot_be_prepared_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    config = TextConfig(corpus="tiny_text_set", cache_dir=str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"data.corpus='tiny_text_set' cannot be .*file.*: Not"):
        texts(config, "train")
    for error in (OSError(28, "No space left on device"), RuntimeError("download\nfailed")):
        monkeypatch.setattr(TinyTextSet, "download_and_prepare", mock.Mock(side_effect=error))
        with pytest.raises(ValueError, match=r"data.corpus='tiny_text_set' cannot be prepared in .*cache") as caught:
            texts(tiny(tmp_path), "train")
        assert "\n" not in str(caught.value)


def test_preparation_is_quiet_when_not_on_a_terminal(tmp_path, capfd):
    texts(tiny(tmp_path), "train")
    assert capfd.readouterr() == ("", "")


def test_a_tokenized_data_set_is_opened_without_tfds(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow_datasets")  # as in a fresh process
    config = TextConfig(corpus="lm1b", tokenizer="byte", cache_dir=str(tmp_path))
    corpus = mock.Mock(fingerprint="lm1b/1.1.0", read=lambda split: [mock.Mock(pieces=["one text"])])
    monkeypatch.setattr("memgpt_jax.data.corpora.text.open_corpus", lambda config: corpus)
    assert len(documents(config, "train", make_tokenizer(config))) == 1
    monkeypatch.setattr("memgpt_jax.data.corpora.text.open_corpus", None)
    assert len(documents(config, "train", make_tokenizer(config))) == 1
    assert "tensorflow_datasets" not in sys.modules
