"""A server on a socket: clients that leave, clients that are slow, and the client that most programs use."""

import json
import socket
import threading
import time

import pytest

from memgpt_jax.serving import inspection
from tests.serving.conftest import WAIT, until


def connect(port: int, body: dict | bytes, path: str = "/v1/completions", length: int | None = None) -> socket.socket:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(content) if length is None else length}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
    connection.sendall(head.encode() + content)
    return connection


LONG = {"prompt": "x", "max_tokens": 100_000, "temperature": 0, "ignore_eos": True}


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(live, stream):
    service, port = live
    engine = service.engine
    cancelled = service.metrics._cancelled._value.get
    before, connection = cancelled(), connect(port, LONG | {"stream": stream})
    until(lambda: engine.busy_slots == 1)
    if stream:
        assert connection.recv(10)
    connection.close()
    until(lambda: engine.busy_slots == 0)
    until(lambda: cancelled() == before + 1)
    steps = engine.steps
    time.sleep(0.2)
    assert engine.steps == steps


def test_clients_that_leave_before_their_first_token(live):
    """While their prompt is read, and while they wait."""
    service, port = live
    engine = service.engine
    long = LONG | {"prompt": "x" * 90_000}
    connections = [connect(port, long) for _ in range(4)]
    until(lambda: engine.waiting == 4)
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT) as probe:  # the loop is not blocked
        probe.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in probe.recv(100)
    assert time.monotonic() - started < 5
    for connection in connections:
        connection.close()
    until(lambda: engine.waiting == 0 and engine.busy_slots == 0)


@pytest.mark.parametrize("path, body", [("/v1/embeddings", {"input": "x"}), ("/v1/inspect", {"text": "x"})])
def test_a_client_that_leaves_ends_its_call(live, monkeypatch, path, body):
    service, port = live
    ended = threading.Event()

    def endless(*_):
        while not ended.wait(0.01):
            yield

    monkeypatch.setattr(service, "vectors", endless)
    monkeypatch.setattr(inspection, "_traced", endless)
    connection = connect(port, body, path)
    try:
        until(lambda: service.engine.calls == 1)
        assert b'memgpt_num_requests_waiting{model_name="tiny"} 1.0' in service.metrics.text(service, 0)
        connection.close()
        until(lambda: service.engine.calls == 0)
    finally:
        ended.set()


def test_a_body_that_does_not_arrive(live):
    _, port = live
    with connect(port, b'{"prompt": ', length=1000) as connection:
        assert b"408" in connection.recv(1000)


def test_the_openai_client(live):
    openai = pytest.importorskip("openai", reason="openai is not installed")
    _, port = live
    with openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        options = {"model": "tiny", "max_tokens": 8, "temperature": 0}
        completion = client.completions.create(prompt="Hello", logprobs=2, **options)
        whole = completion.choices[0].text
        parts = client.completions.create(prompt="Hello", stream=True, **options)
        assert "".join(part.choices[0].text for part in parts) == whole
        messages = [{"role": "user", "content": "Hi"}]
        chat = client.chat.completions.create(messages=messages, logprobs=True, top_logprobs=2, **options)
        answer = chat.choices[0].message.content
        parts = client.chat.completions.create(messages=messages, stream=True, **options)
        assert "".join(part.choices[0].delta.content or "" for part in parts) == answer
        first = client.responses.create(model="tiny", input="Hi", temperature=0, max_output_tokens=5)
        assert first.status == "incomplete" and first.usage.output_tokens == 5
        second = client.responses.create(
            model="tiny", input="on", previous_response_id=first.id, temperature=0, max_output_tokens=5
        )
        with client.responses.stream(
            model="tiny", input="on", previous_response_id=first.id, temperature=0, max_output_tokens=5
        ) as stream:
            last = list(stream)[-1]
        assert last.response.output[0].content[0].text == second.output_text
        assert client.responses.retrieve(first.id).output_text == first.output_text
        several = client.responses.create(model="tiny", input=messages * 3, temperature=0, max_output_tokens=1)
        items = list(client.responses.input_items.list(several.id, limit=2))  # the client asks for both pages
        assert [item.content[0].text for item in items] == ["Hi"] * 3 and len({item.id for item in items}) == 3
        for found in (completion, chat, first, second):  # no field is missing or of another type
            type(found).model_validate_json(found.model_dump_json(exclude_unset=True), strict=True)
        vectors = client.embeddings.create(model="tiny", input=["a", "b"]).data
        assert len(vectors) == 2 and len(vectors[0].embedding) == 16
        client.responses.delete(first.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(first.id)
        with pytest.raises(openai.BadRequestError, match="suffix is not supported"):
            client.completions.create(prompt="x", suffix="y", **options)
