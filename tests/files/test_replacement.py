"""Files and folders are replaced atomically: the old content is kept if writing fails or the process is killed."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest

from memgpt_jax.files.checksums import DamagedError, record_all, verify
from memgpt_jax.files.replacement import readable_folder, recover_folder, replace_file, replacing_folder
from memgpt_jax.files.saved_files import replacing_files

FULL = OSError(errno.ENOSPC, "No space left on device")


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_file_is_replaced(tmp_path):
    for content, expected in (("é\r\n", b"\xc3\xa9\r\n"), (os.fsdecode(b"\xff"), b"\xff"), (b"\0\1", b"\0\1")):
        replace_file(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == expected and os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("failing", ["pathlib.Path.write_bytes", "os.replace"])
@pytest.mark.parametrize("error", [FULL, KeyboardInterrupt()], ids=["full", "interrupted"])
def test_a_file_is_unchanged_if_its_replacement_fails(tmp_path, failing, error):
    (tmp_path / "a").write_text("old")
    with mock.patch(failing, side_effect=error), pytest.raises(type(error)):
        replace_file(tmp_path / "a", "new")
    assert contents(tmp_path) == {"a": "old"}


def test_a_reader_never_sees_an_incomplete_file(tmp_path):
    replace_file(tmp_path / "a", "old")
    with (tmp_path / "a").open() as reader:
        replace_file(tmp_path / "a", "new")
        assert reader.read() == "old" and (tmp_path / "a").read_text() == "new"


def write_folder(folder, content):
    with replacing_folder(folder) as new:
        (new / "one").write_text(content)
        (new / "two").write_text(content)


def test_a_folder_is_replaced(tmp_path):
    folder = tmp_path / "made" / "folder"
    write_folder(folder, "old")
    (folder / "three").write_text("three")
    write_folder(folder, "new")
    assert contents(tmp_path) == {"made/folder/one": "new", "made/folder/two": "new"}
    assert os.listdir(tmp_path / "made") == ["folder"]
    assert folder.stat().st_mode == (tmp_path / "made").stat().st_mode


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_is_unchanged_if_writing_fails(tmp_path, exists):
    if exists:
        write_folder(tmp_path / "folder", "old")
    before = contents(tmp_path)
    with pytest.raises(OSError, match="No space"), replacing_folder(tmp_path / "folder") as new:
        (new / "one").write_text("new")
        raise FULL
    assert contents(tmp_path) == before and os.listdir(tmp_path) == ["folder"] * exists


@pytest.mark.parametrize("renamed", [0, 1])
def test_a_folder_is_unchanged_if_a_renaming_fails(tmp_path, renamed, monkeypatch):
    write_folder(tmp_path / "folder", "old")
    rename, calls = Path.rename, []

    def failing(self, target):
        calls.append(target)
        if len(calls) == 1 + renamed:
            raise FULL
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space"):
        write_folder(tmp_path / "folder", "new")
    assert contents(tmp_path) == {"folder/one": "old", "folder/two": "old"} and os.listdir(tmp_path) == ["folder"]


def test_a_folder_whose_replacement_was_killed_is_restored(tmp_path):
    write_folder(tmp_path / "folder", "old")
    (tmp_path / "folder").rename(tmp_path / ".folder.before")  # killed between the two renamings
    recover_folder(tmp_path / "folder")
    assert contents(tmp_path) == {"folder/one": "old", "folder/two": "old"}
    (tmp_path / ".folder.before").mkdir()  # killed after them
    recover_folder(tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.fixture
def saved(tmp_path):
    (tmp_path / "kept").write_text("kept")
    (tmp_path / "stale").write_text("stale")
    (tmp_path / "one").write_text("old")
    record_all(tmp_path)
    return tmp_path


def test_other_files_of_the_folder_are_kept(saved):
    (saved / ".saving").mkdir()  # of a process that was killed
    (saved / ".saving" / "left").write_text("left")
    with replacing_files(saved, {"stale", "one"}.__contains__) as new:
        (new / "one").write_text("new")
        (new / "two").write_text("new")
        assert (saved / "one").read_text() == "old"
    found = contents(saved)
    sums = found.pop("SHA256SUMS")
    assert found == {"kept": "kept", "one": "new", "two": "new"}
    assert sorted(line.split()[1] for line in sums.splitlines()) == ["kept", "one", "two"]
    verify(saved)


def test_files_are_unchanged_if_writing_fails(saved):
    before = contents(saved)
    with pytest.raises(OSError, match="No space"), replacing_files(saved, {"stale"}.__contains__) as new:
        (new / "one").write_text("new")
        raise FULL
    assert contents(saved) == before and not (saved / ".saving").exists()


@pytest.mark.parametrize("has_sums", [True, False])
@pytest.mark.parametrize("before", ["one", "two"])
def test_a_mixture_of_two_saves_is_detected(saved, monkeypatch, before, has_sums):
    """The process is killed before the replacement of a file: the checksums are those of the new files."""
    replace = os.replace
    (saved / "two").write_text("old")
    record_all(saved)
    if not has_sums:  # as a folder of another library
        (saved / "SHA256SUMS").unlink()

    def killed(source, target):
        if Path(target) == saved / before:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt), replacing_files(saved) as new:
        (new / "one").write_text("new")
        (new / "two").write_text("new")
    with pytest.raises(DamagedError, match=f"{before} differs from its checksum"):
        verify(saved)


def test_two_writers_of_a_file_leave_the_content_of_one(tmp_path):
    contents = [bytes([number]) * 200_000 for number in range(4)]

    def write(content):
        for _ in range(25):
            replace_file(tmp_path / "file", content)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, contents))
    assert (tmp_path / "file").read_bytes() in contents and [*tmp_path.iterdir()] == [tmp_path / "file"]


def test_a_reader_does_not_disturb_a_replacement(tmp_path):
    folder = tmp_path / "k"
    folder.mkdir()
    assert readable_folder(folder) == folder
    folder.rename(tmp_path / ".k.before")  # between the two renamings
    assert readable_folder(folder) == tmp_path / ".k.before" and not folder.exists()
    recover_folder(folder)
    assert readable_folder(folder) == folder
