"""A lock is held by one process at a time, and released when the process ends."""

import subprocess
import sys
import threading

import pytest

from memgpt_jax.files.locks import LockedError, file_lock

HOLD = """
import sys
from pathlib import Path
from memgpt_jax.files.locks import file_lock
with file_lock(Path(sys.argv[1]), wait=False):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock until its standard input is closed or it is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_held_lock_is_refused_and_names_the_process(holder, tmp_path):
    with pytest.raises(LockedError, match=f"process {holder.pid}") as caught, file_lock(tmp_path / "lock", wait=False):
        pass
    assert caught.value.holder == str(holder.pid)


def test_a_killed_process_releases_its_lock(holder, tmp_path):
    holder.kill()
    holder.wait()
    with file_lock(tmp_path / "lock", wait=False):
        assert (tmp_path / "lock").read_text()
    assert (tmp_path / "lock").read_text() == ""


def test_waiting_ends_when_the_lock_is_released(holder, tmp_path):
    entered = threading.Event()

    def wait():
        with file_lock(tmp_path / "lock", wait=True):
            entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not entered.wait(0.2)
    holder.stdin.close()
    assert entered.wait(30)
    thread.join()
