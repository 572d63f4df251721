"""The cache: damaged entries are rebuilt, errors of the system are one line, and no incomplete entry remains."""

import dataclasses
import errno
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from unittest import mock

import pytest

from memgpt_jax.data import documents, make_tokenizer
from memgpt_jax.files.checksums import SUMS
from memgpt_jax.files.replacement import NEW


def decoded(config):
    tokenizer = make_tokenizer(config)
    return [tokenizer.decode(ids) for ids in documents(config, "train", tokenizer)]


def kept(config):
    """The files of the cache except the lock."""
    return [path for path in Path(config.cache_dir).rglob("*") if path.is_file() and path.name != "lock"]


@pytest.fixture
def config(folder_config):
    words = [f"alpha{i} beta{i} gamma{i} delta{i}\n" for i in range(100)]
    return folder_config({"train": words, "valid": ["held out"]}, tokenizer="bpe", tokenizer_vocab_size=310)


@pytest.mark.parametrize("name", ["tokens.bin", "offsets.npy", "sizes.npy", "counts.json", "tokenizer.model", SUMS])
@pytest.mark.parametrize("damage", ["cut", "empty", "absent", "longer"])
def test_damaged_entries_are_rebuilt(config, name, damage, caplog):
    expected = decoded(config)
    for file in [path for path in kept(config) if path.name == name]:
        if damage == "absent":
            file.unlink()
        elif damage == "longer":
            file.write_bytes(file.read_bytes() + b"\0")
        else:
            os.truncate(file, 0 if damage == "empty" else file.stat().st_size // 2)
    assert decoded(config) == expected
    assert "Rebuilding" in caplog.text and (name in caplog.text)
    caplog.clear()
    assert decoded(config) == expected and not caplog.text
    assert [len(list(Path(config.cache_dir, kind).iterdir())) for kind in ("tokens", "tokenizers")] == [1, 1]


@pytest.mark.slow
def test_every_flipped_bit_is_detected(config, caplog):
    expected, draw = decoded(config), random.Random(0)
    for _ in range(40):
        file = draw.choice(sorted(kept(config)))
        content = bytearray(file.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(content)
        caplog.clear()
        assert decoded(config) == expected
        assert f"Rebuilding {file.parent}: " in caplog.text


def test_leftovers_of_killed_processes_are_removed(config):
    folder = Path(config.cache_dir, "tokens", f"{NEW}old")
    folder.mkdir(parents=True)
    (folder / "tokens.bin").write_bytes(b"1" * 1000)
    decoded(config)
    assert not folder.exists()


def test_a_cache_dir_that_is_not_a_folder_is_refused(folder_config, tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(ValueError, match=r"data.cache_dir='.*file.*' cannot be used: .*file.*: (File|Not a)"):
            decoded(folder_config(cache_dir=str(tmp_path / place)))
    with pytest.raises(ValueError, match=r"cannot be used: .*: File name too long"):
        decoded(folder_config(cache_dir=str(tmp_path / ("n" * 300))))
    with pytest.raises(ValueError, match=r"NO_SUCH_PLACE, and no such environment variable"):
        decoded(folder_config(cache_dir="$NO_SUCH_PLACE/cache"))


@pytest.mark.parametrize("failing", ["write", "numpy.save", "pathlib.Path.write_text", "os.replace", "os.mkdir"])
def test_a_full_disk_leaves_nothing_incomplete(folder_config, failing, monkeypatch):
    config = folder_config()
    full = OSError(errno.ENOSPC, "No space left on device")
    Path(config.cache_dir).mkdir()
    target = failing if "." in failing else "memgpt_jax.data.corpora.text.TokenizedText.write"
    with mock.patch(target, side_effect=full), pytest.raises(ValueError, match=r"data.cache_dir=.*: No space left"):
        decoded(config)
    assert not kept(config)
    assert len(decoded(config)) == 6


def test_a_full_file_system_is_reported(folder_config):
    """A real file system of 1 MB."""
    place = tempfile.mkdtemp()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode:
        shutil.rmtree(place)
        pytest.skip("this user cannot mount a file system")
    try:
        config = folder_config({"train": ["x" * 2_000_000], "valid": ["y"]}, cache_dir=place)
        with pytest.raises(ValueError, match=r"data.cache_dir=.* cannot be used: No space left on device") as caught:
            decoded(config)
        assert "\n" not in str(caught.value) and not kept(config)
        Path(config.path, "train", "0.txt").write_text("short")
        assert decoded(config) == ["short"]
    finally:
        subprocess.run(["umount", place], check=True)
        os.rmdir(place)


def test_a_read_only_cache_can_be_read(as_nobody, folder_config):
    place, become_nobody = as_nobody
    (place / "text" / "train").mkdir(parents=True)
    (place / "text" / "train" / "a.txt").write_text("read only")
    config = folder_config(path=str(place / "text"), cache_dir=str(place / "cache"))
    assert decoded(config) == ["read only"]
    become_nobody()
    assert decoded(config) == ["read only"]
    with pytest.raises(ValueError, match=r"data.cache_dir='.*cache' cannot be used: .*: Permission denied"):
        decoded(dataclasses.replace(config, max_documents=1))
