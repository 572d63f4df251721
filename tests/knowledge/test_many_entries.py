"""A million entries: memory while they are encoded, and after they have been read."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_million_entries_within_two_gigabytes(tmp_path):
    command = [sys.executable, "-m", "tests.programs.many_entries", "1000000", str(tmp_path), "32"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(found)
    assert found["mb_encoding"] - found["mb_before"] < 100  # the entries take 256 MB
    assert found["mb_reading"] < 2048
