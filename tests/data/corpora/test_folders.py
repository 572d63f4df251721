"""The files of a folder that are read, and the report of all others."""

import gzip
import logging
import os
from pathlib import Path

import pytest

from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.serialization import from_json, to_json
from memgpt_jax.data import documents, make_tokenizer
from memgpt_jax.data.corpora import folders
from memgpt_jax.data.corpora.reading import Options
from memgpt_jax.studies.command_line import override


def write(folder, files):
    for name, content in files.items():
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        content = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(content) if path.name.lower().endswith(".gz") else content)
    return str(folder)


def names(folder, **patterns):
    return {file.name for file in folders.folder_files(str(folder), **patterns)}


def splits(folder):
    return {file.name: file.split for file in folders.folder_files(str(folder))}


def test_suffixes_of_any_case(tmp_path):
    found = [
        "A.TXT", "b.Md", "c.PY", "d.JSONL", "e.Jsonl.GZ", "f.CSV", "g.Tsv.gz", "h.PARQUET", "i.gz", "j.txt.Gz", "k .txt"
    ]  # fmt: skip
    write(tmp_path, dict.fromkeys(found, "x"))
    assert names(tmp_path) == set(found)


def test_skipped_files_are_listed_in_one_warning(tmp_path, caplog):
    write(
        tmp_path,
        {"a.txt": "a", "empty.txt": "", "b.zst": "x", "c.xz": "x", "d.json": "x", "e.pdf": "x", "f.TAR.GZ": "x"},
    )
    write(tmp_path, {".git/config.txt": "x", ".h.txt": "x", "sub/new\nline.exe": "x"})
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "itself.txt").symlink_to("itself.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    assert names(tmp_path) == names(tmp_path) == {"a.txt"}
    (message,) = [record.message for record in caplog.records]
    for part in (
        "2 (hidden): .git, .h.txt",
        "6 (other suffix): b.zst, c.xz, d.json, ...",
        "1 (empty): empty.txt",
        "2 (broken link): broken.txt, itself.txt",
        "1 (not a regular file): pipe.txt",
    ):
        assert part in message
    assert "\n" not in message


def test_links_are_followed_except_in_cycles(tmp_path, caplog):
    write(tmp_path / "elsewhere", {"a.txt": "a", "deep/b.txt": "b"})
    write(tmp_path / "text", {"c.txt": "c", "sub/d.txt": "d"})
    (tmp_path / "text" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "text" / "file.txt").symlink_to(tmp_path / "elsewhere" / "a.txt")
    (tmp_path / "text" / "sub" / "up").symlink_to("..")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "text")
    assert names(tmp_path / "text") == {"c.txt", "sub/d.txt", "linked/a.txt", "linked/deep/b.txt", "file.txt"}
    assert "2 (link to an enclosing folder): linked/back, sub/up" in caplog.text
    (tmp_path / "root").symlink_to(tmp_path / "elsewhere" / "deep")
    assert names(tmp_path / "root") == {"b.txt"}


def test_linked_splits(tmp_path):
    write(tmp_path, {"elsewhere/a.txt": "a", "text/valid/b.txt": "b"})
    (tmp_path / "text" / "train").symlink_to(tmp_path / "elsewhere")
    assert splits(tmp_path / "text") == {"train/a.txt": "train", "valid/b.txt": "valid"}
    (tmp_path / "elsewhere").rename(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"text/train, a split of the corpus, is a broken link"):
        names(tmp_path / "text")


def test_subfolders_are_the_splits(tmp_path, caplog):
    files = ["Train/a.txt", "Train/test/b.txt", "validation/c.jsonl", "val/d.txt", "dev/e.txt", "TEST/f.txt"]
    write(tmp_path, dict.fromkeys(files, "x") | {"README.md": "no", "other/g.txt": "no"})
    assert splits(tmp_path) == dict(zip(files, ["train", "train", "valid", "valid", "valid", "test"], strict=True))
    assert "2 (outside of the folders train, valid and test): README.md, other/g.txt" in caplog.text


def test_a_folder_named_test_alone_is_not_a_split(tmp_path):
    assert splits(write(tmp_path, {"test/a.py": "a", "b.py": "b"})) == {"test/a.py": None, "b.py": None}


def test_files_named_like_splits_are_not_splits_and_are_reported(tmp_path, caplog):
    write(tmp_path, {"train.jsonl": "x", "Valid.jsonl.gz": "x"})
    assert splits(tmp_path) == {"train.jsonl": None, "Valid.jsonl.gz": None}
    assert "only folders train, valid and test are splits" in caplog.text
    write(tmp_path / "others", {"train.txt": "x", "b.txt": "x"})
    caplog.clear()
    assert splits(tmp_path / "others") and not caplog.text


ODD = ["caf\udce9.txt", "new\nline.txt", "tab\there.txt", " .txt", "[a]*?.txt", "\u202eright.txt", "\\.txt", "ü/ü.txt"]


def test_odd_names_are_read(tmp_path):
    write(tmp_path / "train", {name: f"text {index}" for index, name in enumerate(ODD)})
    config = TextConfig(corpus="folder", path=str(tmp_path), tokenizer="byte", cache_dir=str(tmp_path / "cache[1]"))
    tokenizer = make_tokenizer(config)
    found = [tokenizer.decode(ids) for ids in documents(config, "train", tokenizer)]
    assert sorted(found) == [f"text {index}" for index in range(len(ODD))]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_refused_in_one_printable_line(tmp_path, name):
    write(tmp_path / "train", {name: b"bad \xff"})
    config = TextConfig(corpus="folder", path=str(tmp_path), tokenizer="byte", cache_dir=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=r"is not valid UTF-8 at byte offset 4") as caught:
        documents(config, "train", make_tokenizer(config))
    message = str(caught.value)
    assert message.isprintable() and message.encode()


PATTERNS = ["a.py", "b.txt", "src/c.py", "src/deep/d.py", "src/deep/e.txt", "src.py/f.txt", "notes/g.rst", "h.bin"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "a.py b.txt src/c.py src/deep/d.py src/deep/e.txt src.py/f.txt"),
        ({"include": ["*.py"]}, "a.py src/c.py src/deep/d.py src.py/f.txt"),
        ({"include": ["./a.py", "b.*"]}, "a.py b.txt"),
        ({"include": ["src/*.py"]}, "src/c.py"),
        ({"include": ["src/**/*.py"]}, "src/c.py src/deep/d.py"),
        ({"include": ["**/deep/*"]}, "src/deep/d.py src/deep/e.txt"),
        ({"include": ["src/"]}, "src/c.py src/deep/d.py src/deep/e.txt"),
        ({"include": ["deep"]}, "src/deep/d.py src/deep/e.txt"),
        ({"include": ["?.txt"], "exclude": ["src"]}, "b.txt src.py/f.txt"),
        ({"include": ["*.rst", "[ab].*"]}, "a.py b.txt notes/g.rst"),
        ({"exclude": ["*.txt"]}, "a.py src/c.py src/deep/d.py"),
        ({"exclude": ["src/deep", "b.txt", ".git"]}, "a.py src/c.py src.py/f.txt"),
    ],
)
def test_patterns(tmp_path, settings, expected, caplog):
    write(tmp_path, dict.fromkeys([*PATTERNS, ".git/x.py"], "text"))
    assert names(tmp_path, **settings) == set(expected.split())
    assert "1 (hidden): .git" in caplog.text


@pytest.mark.parametrize("setting", ["include", "exclude"])
def test_a_pattern_that_matches_nothing_is_refused_with_the_nearest_names(tmp_path, setting):
    write(tmp_path, dict.fromkeys(PATTERNS, "text"))
    with pytest.raises(ValueError, match=rf"data.{setting}: no file matches 'src/c.pz'; the nearest are src/c.py"):
        names(tmp_path, **{setting: ["src/c.pz"]})
    with pytest.raises(ValueError, match=rf"data.{setting}: no file matches '\*.PY'"):
        names(tmp_path, **{setting: ["*.PY"]})


def test_patterns_come_from_the_command_line():
    words = ["--data.corpus", "folder", "--data.path", "text", "--data.include", "*.py", "*.md", "--data.exclude=old"]
    data = override(ExperimentConfig(), words).data
    assert (data.include, data.exclude) == (("*.py", "*.md"), ("old",))
    assert from_json(to_json(data), (TextConfig,)) == data


def test_a_stray_table_can_be_skipped(tmp_path):
    write(tmp_path, {"train/a.py": "a = 1", "train/data/b.jsonl": '{"body": 1}\n'})
    settings = {"corpus": "folder", "path": str(tmp_path), "tokenizer": "byte", "cache_dir": str(tmp_path / "cache")}
    remedies = r"b.jsonl, line 1 needs a field 'text'.*fields 'body'; set data.text_column .* skip .* data.exclude"
    with pytest.raises(ValueError, match=remedies):
        documents(TextConfig(**settings), "train", make_tokenizer(TextConfig(**settings)))
    for patterns in ({"include": ["*.py"]}, {"exclude": "*.jsonl"}, {"exclude": ("data",)}):
        config = TextConfig(**settings, **patterns)
        assert len(documents(config, "train", make_tokenizer(config))) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"corpus": "stdlib", "include": ["*.py"]}, r"data.include=\('\*.py',\) needs data.corpus='folder'"),
        ({"corpus": "pg19", "exclude": "*.py"}, r"data.exclude=.* needs data.corpus='folder', got 'pg19'"),
        ({"corpus": "folder", "path": "x", "include": [""]}, "data.include must be non-empty patterns"),
        ({"corpus": "folder", "path": "x", "text_column": ""}, "data.text_column='' must name a column"),
        ({"corpus": "stdlib", "path": "text"}, "data.path='text' needs data.corpus='folder', got 'stdlib'"),
        ({"corpus": "stdlib", "text_column": "body"}, "data.text_column='body' .* data.corpus='stdlib' has none"),
    ],
)
def test_settings_without_effect_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TextConfig(**settings)


def test_a_text_column_without_tables_is_refused(tmp_path):
    write(tmp_path, {"a.txt": "a"})
    with pytest.raises(ValueError, match=r"data.text_column='body': no file of data.path=.* is a table"):
        folders.folder_corpus(str(tmp_path), options=Options(text_column="body"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"holds no .txt, .md, .py, .gz, .jsonl, .csv, .tsv or .parquet file$"),
        ({"image.png": b"x", ".a.txt": b"x"}, r"holds no .* file to read; 1 \(hidden\): .a.txt; 1 \(other suffix\)"),
        ({"train/image.png": b"x", "a.txt": "a"}, "in its sub-folders train, valid and test to read"),
    ],
)
def test_folders_without_text_are_refused(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        names(write(tmp_path, files))


def test_absent_folders_and_other_files_are_refused(tmp_path):
    (tmp_path / "linked").symlink_to(tmp_path / "nowhere")
    write(tmp_path, {"a.txt": "a", "b.csv": "text\na\n"})
    os.mkfifo(tmp_path / "pipe")
    for name, message in [
        ("nowhere", "nowhere does not exist"),
        ("linked", "linked is a link to .*nowhere, which does not exist"),
        ("a.txt/b", "b does not exist"),
        ("a.txt", "a.txt is neither a folder nor a .jsonl, .csv, .tsv or .parquet file"),
        ("pipe", "pipe is neither a folder nor a file"),
        ("n" * 300, "cannot be read: File name too long"),
    ]:
        with pytest.raises(ValueError, match=message):
            names(tmp_path / name)
    assert names(tmp_path / "b.csv") == {"b.csv"}


def test_path_variables_are_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOKS", str(tmp_path))
    write(tmp_path, {"books/a.txt": "a"})
    assert names("$BOOKS/books") == {"a.txt"}


def test_unreadable_files_and_folders_are_refused_by_name(as_nobody):
    folder, become_nobody = as_nobody
    write(folder, {"train/a.txt": "a", "train/secret.txt": "b", "locked/c.txt": "c"})
    (folder / "train" / "secret.txt").chmod(0)
    (folder / "locked").chmod(0)
    become_nobody()
    with pytest.raises(ValueError, match=r"locked cannot be read: Permission denied; data.exclude skips folders"):
        names(folder)
    with pytest.raises(ValueError, match=r"locked cannot be read: Permission denied$"):
        names(folder / "locked")
    with pytest.raises(ValueError, match=r"secret.txt cannot be read: Permission denied"):
        corpus = folders.folder_corpus(str(folder), exclude=["locked"])
        [list(document.pieces) for document in corpus.read("train")]


def test_nothing_is_logged_if_no_file_is_skipped(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG):
        names(write(tmp_path, {"a.txt": "a"}))
    assert not caplog.records
