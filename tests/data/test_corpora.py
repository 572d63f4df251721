"""Corpora as TFDS data sets: our own from files, and TFDS's by name, without network."""

import os
import types
from pathlib import Path
from unittest import mock

import pytest
import tensorflow_datasets as tfds

from memgpt_jax.config_data import TextConfig
from memgpt_jax.data.corpora import Stdlib, open_corpus


def texts(config, split):
    count, documents = open_corpus(config).read(split)
    found = [text for _, text in documents]
    assert len(found) == count
    return found


class TinyTextSet(tfds.core.GeneratorBasedBuilder):
    """A data set of TFDS, as another author would write it, with only a train split."""

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


def test_folder_documents_come_back_in_a_fixed_order(folder_config):
    config = folder_config()
    found = texts(config, "train")
    assert sorted(found) == sorted(f"document {i} " * (i + 1) for i in range(6))
    assert texts(config, "train") == found and texts(config, "valid") == ["held out"]
    assert texts(folder_config(max_documents=2), "train") == found[:2]


def test_absent_split_is_refused_by_name(folder_config):
    with pytest.raises(ValueError, match=r"no documents in split 'test', only in 'train', 'valid'; the sub-folders"):
        texts(folder_config(), "test")


def test_a_changed_folder_is_prepared_anew(folder_config):
    config = folder_config()
    before, fingerprint = texts(config, "valid"), open_corpus(config).fingerprint
    Path(config.path, "valid", "0.txt").write_text("HELD OUT")
    assert before == ["held out"] and texts(config, "valid") == ["HELD OUT"]
    assert open_corpus(config).fingerprint != fingerprint


def test_invalid_utf8_follows_the_config_even_when_prepared_before(folder_config):
    config = folder_config()
    Path(config.path, "train", "0.txt").write_bytes(b"ab\xff")
    with pytest.raises(ValueError, match=r"0.txt is not valid UTF-8 at byte offset 2"):
        texts(config, "train")
    assert "ab\ufffd" in texts(folder_config({"valid": ["v"]}, invalid_utf8="replace"), "train")
    with pytest.raises(ValueError, match=r"0.txt is not valid UTF-8 at byte offset 2"):
        texts(config, "train")


@pytest.mark.parametrize("keep", [0, 0.5, 0.999])
def test_a_record_file_cut_short_is_noticed(folder_config, keep):
    config = folder_config()
    texts(config, "train")
    (file,) = Path(config.cache_dir).rglob("*-train.array_record*")
    os.truncate(file, int(keep * file.stat().st_size))
    with pytest.raises(ValueError, match=r"is damaged: it holds 0 of 6 documents"):
        texts(config, "train")


def test_stdlib_is_prepared_from_this_python(tmp_path, monkeypatch):
    monkeypatch.setattr("memgpt_jax.data.sources.STDLIB_FEWEST_FILES", 3)
    for name in ("a.py", "b.py", "json/c.py", "test/d.py"):
        (tmp_path / "lib" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lib" / name).write_text(f"# {name}")
    monkeypatch.setattr("memgpt_jax.data.sources.sysconfig.get_path", lambda name: str(tmp_path / "lib"))
    monkeypatch.setattr("memgpt_jax.data.sources.hash_split", lambda name: "train")
    config = TextConfig(cache_dir=str(tmp_path / "cache"))
    assert sorted(texts(config, "train")) == ["# a.py", "# b.py", "# json/c.py"]
    here = open_corpus(config).fingerprint
    monkeypatch.setattr("memgpt_jax.data.corpora.platform.python_version", lambda: "3.99.1")
    assert open_corpus(config).fingerprint != here and "python3.99.1" in open_corpus(config).fingerprint


def test_builders_belong_to_tfds(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    builder = tfds.builder("folder", path=str(tmp_path), data_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    assert next(iter(builder.as_data_source().values()))[0] == {"name": b"a.txt", "text": b"a"}
    assert tfds.builder_cls("stdlib") is Stdlib


@pytest.mark.parametrize("name", ["pg19", "lm1b", "wiki40b/en"])
def test_text_sets_of_tfds_by_name(name, tmp_path):
    split = types.SimpleNamespace(filepaths=[], shard_lengths=[])
    with (
        tfds.testing.mock_data(num_examples=7),
        mock.patch.object(tfds.core.DatasetInfo, "splits", {"train": split, "validation": split, "test": split}),
    ):
        config = TextConfig(corpus=name, cache_dir=str(tmp_path), max_documents=5)
        for ours in ("train", "valid", "test"):
            found = texts(config, ours)
            assert len(found) == 5 and all(isinstance(text, str) and text for text in found)
        assert open_corpus(config).fingerprint.startswith(name)


def test_a_set_with_only_a_train_split_is_cut(tmp_path):
    config = TextConfig(corpus="tiny_text_set", cache_dir=str(tmp_path), invalid_utf8="replace")
    numbered = [f"text {i}" for i in range(39)] + ["caf\ufffd"]
    assert [texts(config, split) for split in ("train", "valid", "test")] == [
        numbered[:36], numbered[36:38], numbered[38:]
    ]  # fmt: skip
    strict = TextConfig(corpus="tiny_text_set", cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match=r"document 1 of split 'test' of tiny_text_set/1.0.0 is not valid UTF-8"):
        texts(strict, "test")


def test_a_set_without_a_text_is_refused_by_name(tmp_path):
    split = types.SimpleNamespace(filepaths=[], shard_lengths=[])
    with (
        tfds.testing.mock_data(),
        mock.patch.object(tfds.core.DatasetInfo, "splits", {"train": split, "test": split}),
        pytest.raises(ValueError, match=r"squad.* has no feature that is plainly its text.*'context'"),
    ):
        texts(TextConfig(corpus="squad", cache_dir=str(tmp_path)), "test")


def test_unknown_corpora_are_refused_with_the_nearest_names(tmp_path):
    with pytest.raises(ValueError, match=r"'wiki40' is neither 'stdlib' nor 'folder' .*'wiki40b'"):
        open_corpus(TextConfig(corpus="wiki40", cache_dir=str(tmp_path)))
    with pytest.raises(ValueError, match=r"nearest names are 'folder'"):
        open_corpus(TextConfig(corpus="foldr", cache_dir=str(tmp_path)))


def test_preparation_is_quiet_when_not_on_a_terminal(folder_config, capfd):
    texts(folder_config(), "train")
    assert capfd.readouterr() == ("", "")
