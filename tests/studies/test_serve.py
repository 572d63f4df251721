"""The command `serve`: its keys and addresses, and a process that is killed or told to end."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from memgpt_jax import models
from memgpt_jax.interop import save_pretrained
from memgpt_jax.studies.commands import serve
from tests.laws.rereading import Tiny

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
ROOT = Path(__file__).parents[2]


def test_keys_come_from_a_file_and_the_environment(tmp_path, monkeypatch):
    (tmp_path / "keys").write_text("one\n\n two \none\n")
    monkeypatch.setenv("MEMGPT_API_KEYS", "three,,one")
    assert serve.api_keys(tmp_path / "keys") == ("three", "one", "two")
    monkeypatch.delenv("MEMGPT_API_KEYS")
    assert serve.api_keys(None) == ()
    (tmp_path / "empty").write_text("\n")
    for name, message in (("empty", "holds no key"), ("absent", "cannot be read")):
        with pytest.raises(ValueError, match=message):
            serve.api_keys(tmp_path / name)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--host", "0.0.0.0"], "can be reached by other machines"),
        (["--slots", "0"], "slots must be at least 1"),
        (["--default-new-tokens", "9", "--max-new-tokens", "8"], "must be at most max_new_tokens=8"),
        (["--keys", "absent"], "keys absent cannot be read"),
    ],
    ids=str,
)
def test_settings_that_are_refused(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit):
        serve.main([str(tmp_path), *words])
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    tiny, folder = Tiny(), tmp_path_factory.mktemp("model")
    save_pretrained(models.from_params(tiny.config, tiny.params), folder, tokenizer=tiny.tokenizer)
    return folder


@contextlib.contextmanager
def server(model: Path, sessions: Path, environment: dict[str, str], *words: str):
    """A process that serves, and a function that asks it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "experiments" / "serve.py"), str(model), "--port", str(port)]
    command += ["--sessions", str(sessions), "--name", "tiny", "--slots", "3", "--piece-length", "4", *words]
    logged = sessions.with_name(f"server-{port}.log")  # a full pipe would stop the server
    with logged.open("w") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)

    def ask(path: str, body: dict | None = None):
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", content, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    try:
        for _ in range(600):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                ask("/ready")
                break
            assert process.poll() is None, logged.read_text()
            time.sleep(0.2)
        assert " INFO memgpt_jax.serving.app: ready" in logged.read_text()
        yield process, ask
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_killed_server_loses_no_response_that_it_returned(saved, tmp_path, compiled_as_here):
    environment = compiled_as_here | {"PYTHONPATH": str(ROOT)}
    found: list[tuple[str, str]] = []

    def talk(ask, number: int) -> None:
        previous = None
        with contextlib.suppress(OSError, urllib.error.URLError, ConnectionError, ValueError):
            while True:
                body = {"input": f"{number} more", "previous_response_id": previous, "max_output_tokens": 8, "seed": 1}
                response = ask("/v1/responses", body)
                previous = response["id"]
                found.append((previous, response["output"][0]["content"][0]["text"]))

    def go_on(ask) -> list[str]:
        body = {"input": "on", "max_output_tokens": 8, "temperature": 0, "store": False}
        answers = [ask("/v1/responses", body | {"previous_response_id": id}) for id, _ in found]
        return [answer["output"][0]["content"][0]["text"] for answer in answers]

    with server(saved, tmp_path / "sessions", environment) as (process, ask):
        threads = [threading.Thread(target=talk, args=(ask, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        while len(found) < 20:
            time.sleep(0.05)
        process.kill()
        for thread in threads:
            thread.join()
    with (
        server(saved, tmp_path / "sessions", environment) as (_, ask),
        server(saved, tmp_path / "sessions", environment) as (_, other),
    ):
        assert [ask(f"/v1/responses/{id}")["output"][0]["content"][0]["text"] for id, _ in found] == [
            t for _, t in found
        ]
        assert go_on(ask) == go_on(other)  # two servers of one folder
        half = ask("/v1/responses", {"input": "a", "max_output_tokens": 8, "temperature": 0})
        rest = [
            each("/v1/responses", {"input": "b", "previous_response_id": half["id"], "temperature": 0})
            for each in (ask, other)
        ]
        assert rest[0]["output"][0]["content"] == rest[1]["output"][0]["content"]


@pytest.mark.slow
def test_a_server_that_is_told_to_end_answers_what_it_has(saved, tmp_path, compiled_as_here):
    environment = compiled_as_here | {"PYTHONPATH": str(ROOT)}
    answers: list[dict] = []
    with server(saved, tmp_path / "sessions", environment) as (process, ask):
        body = {"prompt": "x", "max_tokens": 600, "temperature": 0, "ignore_eos": True}
        thread = threading.Thread(target=lambda: answers.append(ask("/v1/completions", body)))
        thread.start()
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGTERM)
        thread.join()
        assert answers[0]["usage"]["completion_tokens"] == 600
        with pytest.raises((urllib.error.URLError, ConnectionError)):
            ask("/v1/models")
        process.wait(30)
