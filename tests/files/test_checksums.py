"""Checksums of the files in a folder."""

import subprocess

import pytest

from memgpt_jax.files.checksums import SUMS, DamagedError, record, record_all, recorded, verify


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a file").write_bytes(bytes(range(256)))
    (tmp_path / "b.json").write_text('{"x": 1}')
    record_all(tmp_path)
    return tmp_path


def test_every_flipped_bit_is_detected(folder):
    for path in (folder / "inner" / "a file", folder / "b.json", folder / SUMS):
        whole = path.read_bytes()
        for bit in range(0, 8 * len(whole), 7):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with pytest.raises(DamagedError):
                verify(folder)
        path.write_bytes(whole)
    verify(folder)


def test_files_that_are_not_read_are_not_checked(folder):
    (folder / "b.json").write_text("{}")
    verify(folder, ["inner/a file", "c.json"])
    with pytest.raises(DamagedError, match=r"b\.json differs from its checksum"):
        verify(folder, ["b.json"])


def test_a_missing_file_is_named(folder):
    (folder / "b.json").unlink()
    with pytest.raises(DamagedError, match=r"b\.json is missing"):
        verify(folder, ["inner/a file"])


def test_recording_again_replaces_old_checksums(folder):
    (folder / "b.json").unlink()
    (folder / "c.json").write_text("[]")
    record(folder, ["c.json"])
    assert sorted(recorded(folder)) == ["c.json", "inner/a file"]
    verify(folder)


def test_a_folder_without_checksums_is_not_checked(tmp_path):
    (tmp_path / "a").write_text("a")
    verify(tmp_path)


def test_sha256sum_reads_them(folder):
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=folder, check=True, capture_output=True)


def test_a_path_in_two_lines_is_refused(folder):
    """A flipped bit can turn a name into the name of another file, whose correct digest would hide the damage."""
    sums = (folder / SUMS).read_text()
    (folder / SUMS).write_text(sums.replace("  inner/a file", "  b.json"))
    with pytest.raises(DamagedError, match="the same path"):
        verify(folder, [])
