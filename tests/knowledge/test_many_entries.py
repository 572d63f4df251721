"""A million entries: memory while they are encoded, and after they have been read."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("index", [[], ["0", "4096"]], ids=["all keys", "an index"])
def test_a_million_entries_within_two_gigabytes(tmp_path, index):
    command = [sys.executable, "-m", "tests.programs.many_entries", "1000000", str(tmp_path), "32", *index]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(found)
    assert not index or found["recall_8_probes"] > 0.8
    assert found["mb_encoding"] - found["mb_before"] < 100  # the entries take 256 MB
    assert found["mb_reading"] < 2048
