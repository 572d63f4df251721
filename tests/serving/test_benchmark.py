"""The benchmark of the server."""

from functools import partial

import pytest

from memgpt_jax.pipelines.base import Loaded
from memgpt_jax.serving.settings import ServerSettings
from memgpt_jax.studies.benchmark import interleaving, serving
from memgpt_jax.studies.commands import benchmark as command


@pytest.mark.slow
def test_engines_and_the_server_answer_the_same_requests(tiny, monkeypatch, tmp_path, capsys):
    pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    monkeypatch.setattr(serving, "ServerSettings", partial(ServerSettings, piece_length=4))  # as in the other tests
    monkeypatch.setattr(interleaving, "RUNS_PER_ROUND", 1)
    monkeypatch.setattr(command, "load", lambda model: Loaded(tiny.config, tiny.params, tiny.tokenizer, 8))
    sizes = ["--slots", "3", "--context", "5", "--new", "4", "--rounds", "1"]
    command.serve(["serve", "tiny", *sizes, "--output", str(tmp_path)])
    heading, _, *rows = capsys.readouterr().out.splitlines()
    assert heading == "| server | relative speed | tokens/s | seconds |"
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    names = ["engine, 1 slot", "engine, 3 slots", "engine, the prompts read alone", "HTTP, 3 slots"]
    assert [cell[0] for cell in cells] == names
    assert cells[0][1] == "1" and cells[2][1:3] == ["", ""] and all(float(cell[3]) > 0 for cell in cells)
    assert "benchmark.py serve tiny --slots 3" in (tmp_path / "BENCHMARKS.md").read_text()
