"""Corpora of files: splits, few documents, fingerprints, the standard library."""

import os
import shutil
import time
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memgpt_jax.data.corpora import sources
from memgpt_jax.data.corpora.folders import folder_corpus
from memgpt_jax.data.corpora.reading import Options


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder)


def names_of(corpus):
    return {split: [document.name for document in corpus.read(split)] for split in corpus.splits}


def test_stdlib_is_source_without_tests_and_generated_tables():
    names = {file.name for file in sources.stdlib_files() if sources.is_written_by_hand(file)}
    assert {"argparse.py", "json/decoder.py", "asyncio/events.py", "encodings/utf_8.py"} <= names
    assert not {"keyword.py", "token.py", "stringprep.py", "encodings/cp1252.py", "pydoc_data/topics.py"} & names
    assert not [name for name in names if {"site-packages", "test", "tests"} & set(name.split("/"))]
    assert not [name for name in names if "ensurepip" in name or "_sysconfigdata" in name]
    counts = [sum(sources.hash_split(name) == split for name in names) for split in sources.SPLITS]
    assert counts[0] > 0.85 * len(names) and min(counts) >= 5
    corpus = names_of(sources.stdlib_corpus())
    assert {name: split for split, found in corpus.items() for name in found} == {
        name: sources.hash_split(name) for name in names
    }


def test_splits_follow_from_the_name_alone():
    assert [sources.hash_split(name) for name in ("argparse.py", "json/decoder.py")] == ["train", "train"]
    found = [sources.hash_split(f"module_{i}.py") for i in range(10_000)]
    assert [round(found.count(split) / 10_000, 2) for split in sources.SPLITS] == [0.90, 0.05, 0.05]


def test_a_python_without_source_is_refused(tmp_path, monkeypatch):
    write(tmp_path, {"site.py": "pass"})
    monkeypatch.setattr(sources.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match=r"ships only 1 source files .*data.corpus='folder'"):
        sources.stdlib_files()


@given(st.lists(st.sampled_from(sources.SPLITS), min_size=1, max_size=12))
def test_few_documents_fill_every_split(hashed):
    """With n <= 3 documents, each of the first n splits has one document; larger corpora are split by the hash."""
    files = [sources.SourceFile(f"{number}.txt", None) for number in range(len(hashed))]
    by_name = {file.name: split for file, split in zip(files, hashed, strict=True)}
    with mock.patch.object(sources, "hash_split", by_name.get):
        found = names_of(sources.FileCorpus("corpus", files))
    assert sorted(name for names in found.values() for name in names) == sorted(by_name)
    assert list(found) == list(sources.SPLITS[: len(hashed)])
    if set(hashed) == set(sources.SPLITS):
        assert {name: split for split, names in found.items() for name in names} == by_name


def test_few_rows_fill_every_split_too(tmp_path):
    write(tmp_path, {"a.csv": "text\n" + "".join(f"row {number}\n" for number in range(4))})
    found = {split: list(folder_corpus(str(tmp_path)).read(split)) for split in sources.SPLITS}
    assert sorted(map(len, found.values())) == [1, 1, 2]


def test_a_single_document_is_in_the_training_split(tmp_path):
    for name in ("a.txt", "module_14.txt", "module_3.txt"):  # hashed to different splits
        corpus = folder_corpus(write(tmp_path / name, {name: "text"}))
        assert corpus.splits == ["train"]
        with pytest.raises(ValueError, match=r"no documents in split 'valid', only in 'train'; add documents .*three"):
            corpus.read("valid").__next__()


def test_splits_of_subfolders_are_not_changed(tmp_path):
    corpus = folder_corpus(write(tmp_path, {f"train/{number}.txt": "text" for number in range(9)}))
    assert corpus.splits == ["train"]


def test_every_change_of_a_folder_changes_its_fingerprint(tmp_path):
    def fingerprint(**settings):
        return folder_corpus(str(tmp_path), **settings).fingerprint

    write(tmp_path, {"a.txt": "a", "b.txt": "b"})
    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    found = (tmp_path / "a.txt").stat()
    time.sleep(0.02)
    write(tmp_path, {"a.txt": "c"})
    os.utime(tmp_path / "a.txt", ns=(found.st_atime_ns, found.st_mtime_ns))  # same size, same time of change
    seen.append(fingerprint())
    (tmp_path / "b.txt").rename(tmp_path / "c.txt")
    seen.append(fingerprint())
    write(tmp_path, {"d.txt": "d"})
    seen.append(fingerprint())
    shutil.copy2(tmp_path / "d.txt", tmp_path / "new")
    os.replace(tmp_path / "new", tmp_path / "d.txt")  # another file of the same size and time
    seen.append(fingerprint())
    seen += [fingerprint(include=["a*"]), fingerprint(exclude=["a*"])]
    seen += [fingerprint(options=Options("replace"))]
    write(tmp_path, {"e.csv": "body\nx\n"})
    seen += [fingerprint(), fingerprint(options=Options(text_column="body"))]
    assert len(set(seen)) == 10


def test_a_vanished_file_is_named(tmp_path):
    write(tmp_path, {"a.txt": "a", "b.txt": "b"})
    corpus = folder_corpus(str(tmp_path))
    (tmp_path / "a.txt").unlink()
    with pytest.raises(ValueError, match=r"a.txt cannot be read: No such file"):
        [list(document.pieces) for split in corpus.splits for document in corpus.read(split)]
    with pytest.raises(ValueError, match=r"a.txt cannot be read: No such file"):
        _ = corpus.fingerprint


@pytest.mark.parametrize("path", ["$NO_SUCH_VARIABLE/x", "${NO_SUCH_VARIABLE}", "~nobody_of_this_name/x"])
def test_paths_that_cannot_be_expanded_are_refused(path):
    with pytest.raises(ValueError, match=r"no such environment variable is set|cannot be expanded"):
        sources.expand(path)
