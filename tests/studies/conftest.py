"""Commands in this process: as `memgpt-jax COMMAND ...`, without the seconds that a new process takes to import JAX."""

import io
import sys

import pytest

from memgpt_jax.studies import entry


@pytest.fixture
def memgpt(monkeypatch, capsys):
    """Runs a command with its words; returns its output, or its error message if it must end with a code above 0."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", sys.argv)  # the entry point changes it

    def run(command: str, *words, code: int = 0, typed: str = "") -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        capsys.readouterr()
        try:
            ended = entry.main([command, *map(str, words)])
        except SystemExit as end:
            ended = end.code
        captured = capsys.readouterr()
        assert ended == code, captured.err
        return captured.err if code == 2 else captured.out

    return run
