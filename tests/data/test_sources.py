"""Which files make up a corpus, and what is refused."""

import gzip
import json
import os

import pytest

from memgpt_jax.data import sources


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(folder)


def read(files, invalid_utf8="error"):
    """{split: {name: text}} of all files."""
    return {
        split: dict(item for file in files for item in sources.read_documents(file, split, invalid_utf8))
        for split in sources.SPLITS
    }


def test_stdlib_files_are_source_without_tests_and_generated_tables():
    names = {file.name for file in sources.stdlib_files()}
    assert {"argparse.py", "json/decoder.py", "asyncio/events.py", "encodings/utf_8.py"} <= names
    assert not {"keyword.py", "token.py", "stringprep.py", "encodings/cp1252.py", "pydoc_data/topics.py"} & names
    assert not [name for name in names if {"site-packages", "test", "tests"} & set(name.split("/"))]
    assert not [name for name in names if "ensurepip" in name or "_sysconfigdata" in name]
    counts = [sum(sources.hash_split(name) == split for name in names) for split in sources.SPLITS]
    assert counts[0] > 0.85 * len(names) and min(counts) >= 5


def test_splits_follow_from_the_name_alone():
    assert [sources.hash_split(name) for name in ("argparse.py", "json/decoder.py")] == ["train", "train"]
    found = [sources.hash_split(f"module_{i}.py") for i in range(10_000)]
    assert [round(found.count(split) / 10_000, 2) for split in sources.SPLITS] == [0.90, 0.05, 0.05]


def test_interpreter_without_source_is_refused(tmp_path, monkeypatch):
    write(tmp_path, {"site.py": "pass"})
    monkeypatch.setattr(sources.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(ValueError, match=r"ships only 1 source files .*data.corpus='folder'"):
        sources.stdlib_files()


def test_folder_reads_every_kind_of_file_as_it_is(tmp_path):
    lines = "\n".join(json.dumps({"text": text, "id": 3}) for text in ("one\n", "two ▁", "")) + "\n\n"
    files = {
        "a.txt": "A\r\n\tä ",
        "b/c.md": "# B",
        "c.py": "x = 1",
        "d.gz": "packed",
        "e.md.gz": "zipped",
        "f.jsonl": lines,
        "g.jsonl.gz": lines,
        ".hidden/h.txt": "no",
        "image.png": b"\0\1",
    }
    found = read(sources.folder_files(write(tmp_path, files)))
    documents = {name: text for split in found.values() for name, text in split.items()}
    assert documents == {
        "a.txt": "A\r\n\tä ",
        "b/c.md": "# B",
        "c.py": "x = 1",
        "d.gz": "packed",
        "e.md.gz": "zipped",
        "f.jsonl:1": "one\n",
        "f.jsonl:2": "two ▁",
        "f.jsonl:3": "",
        "g.jsonl.gz:1": "one\n",
        "g.jsonl.gz:2": "two ▁",
        "g.jsonl.gz:3": "",
    }


def test_subfolders_are_the_splits(tmp_path):
    files = {"train/a.txt": "a", "train/test/b.txt": "b", "validation/c.jsonl": '{"text": "c"}', "README.md": "no"}
    found = sources.folder_files(write(tmp_path, files))
    assert read(found) == {
        "train": {"train/a.txt": "a", "train/test/b.txt": "b"},
        "valid": {"validation/c.jsonl:1": "c"},
        "test": {},
    }
    assert sources.present_splits(found) == ["train", "valid"]


def test_a_folder_called_test_alone_is_no_split(tmp_path):
    names = {file.name for file in sources.folder_files(write(tmp_path, {"test/a.py": "a", "b.py": "b"}))}
    assert names == {"test/a.py", "b.py"}


def test_a_jsonl_file_is_a_corpus(tmp_path):
    write(tmp_path, {"set.jsonl": "".join(json.dumps({"text": str(i)}) + "\n" for i in range(200))})
    files = sources.folder_files(str(tmp_path / "set.jsonl"))
    found = read(files)
    assert sources.present_splits(files) == ["train", "valid", "test"]
    assert sorted(int(text) for split in found.values() for text in split.values()) == list(range(200))


def test_path_variables_are_filled_in(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOKS", str(tmp_path))
    write(tmp_path, {"books/a.txt": "a"})
    assert [file.name for file in sources.folder_files("$BOOKS/books")] == ["a.txt"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no .txt, .md, .py, .gz or .jsonl file$"),
        ({"image.png": b"x"}, "holds no .txt"),
        ({"train/image.png": b"x", "a.txt": "a"}, "in its sub-folders train, valid and test"),
        ({"a.txt": b"ab\0c"}, "a.txt is not text: it holds a zero byte at offset 2"),
        ({"a.txt": b"abc\xff\xfe"}, "a.txt is not valid UTF-8 at byte offset 3: .*data.invalid_utf8='replace'"),
        ({"a.md.gz": b"abcd\xff"}, "a.md.gz is not valid UTF-8 at byte offset 4"),
        ({"a.jsonl": b'{"text": "a"}\n{"text": "\xff"}'}, "a.jsonl is not valid UTF-8 at byte offset 24"),
        ({"a.jsonl": '{"text": "a"}\n{"text'}, "a.jsonl, line 2 is not JSON"),
        ({"a.jsonl": '{"body": "a", "id": 1}'}, "line 1 needs a field 'text' .* holds the fields 'body', 'id'"),
        ({"a.jsonl": '{"text": 3}'}, "line 1 needs a field 'text' that is a string"),
        ({"a.jsonl": "[1]"}, "line 1 needs a field 'text' .* it holds list"),
        ({"a.jsonl": r'{"text": "\ud800"}'}, "the text of .*a.jsonl, line 1 is not valid UTF-8 at byte offset 0"),
    ],
)
def test_what_is_not_text_is_refused_by_name(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        read(sources.folder_files(write(tmp_path, files)))


def test_broken_gzip_files_are_refused_by_name(tmp_path):
    (tmp_path / "a.gz").write_bytes(b"not packed")
    with pytest.raises(ValueError, match=r"a.gz is not a complete gzip file"):
        read(sources.folder_files(str(tmp_path)))
    (tmp_path / "a.gz").write_bytes(gzip.compress(os.urandom(1000).hex().encode())[:-20])
    with pytest.raises(ValueError, match=r"a.gz is not a complete gzip file"):
        read(sources.folder_files(str(tmp_path)))


def test_absent_folders_and_other_files_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.* does not exist"):
        sources.folder_files(str(tmp_path / "nowhere"))
    write(tmp_path, {"a.csv": "a"})
    with pytest.raises(ValueError, match=r"a.csv is neither a folder nor a .jsonl"):
        sources.folder_files(str(tmp_path / "a.csv"))


def test_invalid_utf8_is_replaced_where_the_config_says_so(tmp_path):
    files = {"train/a.txt": b"a\xffb", "train/b.jsonl": b'{"text": "c\xffd"}\n{"text": "\\ud800"}'}
    found = read(sources.folder_files(write(tmp_path, files)), "replace")["train"]
    assert found["train/a.txt"] == "a\ufffdb" and found["train/b.jsonl:1"] == "c\ufffdd"
    assert set(found["train/b.jsonl:2"]) == {"\ufffd"}


def test_every_change_of_a_folder_changes_its_fingerprint(tmp_path):
    def fingerprint():
        return sources.fingerprint(sources.folder_files(str(tmp_path)))

    write(tmp_path, {"a.txt": "a", "b.txt": "b"})
    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    stat = (tmp_path / "a.txt").stat()
    write(tmp_path, {"a.txt": "c"})
    os.utime(tmp_path / "a.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time of change
    seen.append(fingerprint())
    (tmp_path / "b.txt").rename(tmp_path / "c.txt")
    seen.append(fingerprint())
    write(tmp_path, {"d.txt": "d"})
    seen.append(fingerprint())
    assert len(set(seen)) == 4
