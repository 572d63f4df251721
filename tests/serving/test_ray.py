"""Two replicas under Ray Serve: one is killed, and every document that was returned goes on."""

import contextlib
import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from tests.serving.conftest import Tiny, until

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # Ray itself warns
PORT, TURNS = 8791, ("one", "two", "three", "four")


@pytest.fixture
def url(tiny: Tiny, tmp_path):
    from ray import serve

    import memgpt_jax as mg
    from deploy.ray_serve import replicas

    mg.save_pretrained(mg.from_params(tiny.config, tiny.params), tmp_path / "tiny", tokenizer=tiny.tokenizer)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    options = {"model": tmp_path / "tiny", "sessions": tmp_path / "sessions", "num_replicas": 2, "num_cpus": 0}
    sizes = {"slots": 2, "piece_length": 4, "without_keys": ""}
    serve.run(replicas({name: str(value) for name, value in (options | sizes).items()}), route_prefix="/")
    yield f"http://127.0.0.1:{PORT}"
    serve.shutdown()
    ray.shutdown()


def test_a_killed_replica_loses_no_document(url):
    def respond(text: str, previous: str | None, chain: str | None) -> tuple[str, str, str]:
        body = {"input": text, "previous_response_id": previous, "temperature": 0, "max_output_tokens": 6}
        headers = {"Content-Type": "application/json"} | ({"x-session-id": chain} if chain else {})
        request = urllib.request.Request(f"{url}/v1/responses", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            found = json.load(answer)
            return found["id"], answer.headers["x-session-id"], found["output"][0]["content"][0]["text"]

    def replicas() -> list[int]:
        """Ray names its processes."""
        names = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has just ended
                names[int(path.parent.name)] = path.read_bytes()
        return [pid for pid, name in names.items() if name.startswith(b"ray::ServeReplica")]

    until(lambda: len(replicas()) == 2, seconds=300)
    chains = [[respond(f"{number} {TURNS[0]}", None, None)] for number in range(6)]
    for turn in TURNS[1:]:
        if turn == TURNS[2]:
            os.kill(replicas()[0], signal.SIGKILL)
        for chain in chains:
            id, root, _ = chain[-1]
            chain.append(respond(turn, id, root))
    for number, chain in enumerate(chains):  # the same on one replica
        previous, texts = None, []
        for turn in TURNS:
            previous, _, text = respond(turn if previous else f"{number} {turn}", previous, "one")
            texts.append(text)
        assert texts == [text for *_, text in chain]
        assert {root for _, root, _ in chain} == {chain[0][0]}
