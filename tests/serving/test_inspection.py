"""The inspector of a server: what it shows of a document, and what it takes away."""

import json
from dataclasses import replace

import numpy as np
import pytest
from starlette.testclient import TestClient

from memgpt_jax.inspector.trace import Trace
from memgpt_jax.serving import inspection
from memgpt_jax.serving.app import create_app
from memgpt_jax.serving.service import Service
from memgpt_jax.serving.settings import ServerSettings
from tests.serving.test_protocol import completion, refused


def test_a_text_is_traced_and_continued(client, tmp_path):
    found = client.post("/v1/inspect", json={"text": "one two three four five six"}).json()
    (tmp_path / "trace.json").write_text(json.dumps(found["trace"]))
    trace = Trace.load(tmp_path / "trace.json")
    assert "".join(trace.texts) == "one two three four five si" and len(trace.layers) == 1
    text = completion(client, prompt="one two three four five six")["choices"][0]["text"]
    assert completion(client, prompt="", session=found["session"])["choices"][0]["text"] == text
    more = client.post("/v1/inspect", json={"text": " seven", "session": found["session"]}).json()
    assert more["trace"]["first"] == len(trace.tokens)


def test_a_text_is_traced_between_the_steps_of_answers(service):
    """One call of the model at a time."""
    engine = service.engine
    length = 5 * engine.config.segment_length
    pieces = inspection._traced(engine, engine.new_document(), [0] * (length + 1))
    assert len([*pieces]) == 5


def test_a_text_beyond_the_learned_positions_is_refused(client, service, monkeypatch):
    engine = service.engine
    monkeypatch.setattr(engine, "config", replace(engine.config, position="learned", num_positions=20))
    for path, field in (("inspect", "text"), ("embeddings", "input")):
        error = refused(client.post(f"/v1/{path}", json={field: "x" * 20}), "context_length_exceeded")
        assert "learned 20 positions" in error["message"]


def test_what_memory_does_for_the_next_token(client):
    session = client.post("/v1/inspect", json={"text": "one two three four five six"}).json()["session"]
    ask = lambda **cut: client.post("/v1/inspect/next", json={"session": session} | cut)  # noqa: E731
    found = ask(all=True).json()
    assert len(found["with"]) == len(found["without"]) == 10 and found["divergence"] > 0
    first = completion(client, prompt="", session=session, max_tokens=1, logprobs=5)["choices"][0]["logprobs"]
    assert np.exp(first["token_logprobs"][0]) == pytest.approx(found["with"][0]["probability"], abs=1e-4)
    one = ask(start=20, end=21).json()
    assert one["divergence"] >= 0 and one["with"] == found["with"]
    refused(ask(), "invalid_value")
    refused(ask(all=True, start=1, end=2), "invalid_value")
    refused(ask(start=5, end=5), "invalid_value")


def test_a_segment_is_forgotten_in_a_new_document(client, other_key):
    session = client.post("/v1/inspect", json={"text": "one two three four five six"}).json()["session"]
    body = {"session": session, "start": 20, "end": 21}
    cut = client.post("/v1/inspect/forget", json=body).json()["id"]
    memory = [client.get(f"/v1/sessions/{id}").json()["memory"][0]["occupancy"] for id in (session, cut)]
    assert memory[1] == pytest.approx(memory[0] - 0.4)  # 4 of 10 entries
    refused(client.post("/v1/inspect/forget", json=body, headers=other_key), "response_not_found", 404)


def test_a_single_entry_is_edited_in_a_new_document(client, other_key):
    """The one before is unharmed, and its id names what it named."""
    session = client.post("/v1/inspect", json={"text": "one two three four five six"}).json()["session"]
    ask = lambda path, **body: client.post(f"/v1/inspect/{path}", json={"session": session} | body)  # noqa: E731
    before = client.get(f"/v1/sessions/{session}/export").content
    every = ask("entries", layer=0).json()["data"]
    assert [entry["token"] for entry in every] == [*range(14, 24)]
    [entry] = ask("entries", layer=0, token=20).json()["data"]
    assert entry == every[6] and entry["place"] == 6
    place = {"layer": 0, "place": 6}
    cut = ask("edit", **place).json()["id"]
    assert cut != session and client.get(f"/v1/sessions/{session}/export").content == before
    left = client.post("/v1/inspect/entries", json={"session": cut, "layer": 0}).json()["data"]
    assert left == every[:6] + every[7:]
    one, none = (ask("next", **place, **more).json() for more in ({}, {"gate": 1.0}))
    assert one["with"] == none["with"] and one["divergence"] > 0 and one["without"] != none["without"]
    after = client.post("/v1/inspect/next", json={"session": cut, "all": True}).json()
    assert after["with"] == one["without"]
    weak = ask("edit", **place, gate=0.25).json()["id"]
    [entry] = client.post("/v1/inspect/entries", json={"session": weak, "layer": 0, "token": 20}).json()["data"]
    assert entry["gate"] == pytest.approx(0.25)
    for path, body in (
        ("edit", {"layer": 1, "place": 0}),
        ("edit", {"layer": 0, "place": 99}),
        ("edit", place | {"gate": 2.0}),
        ("next", place | {"all": True}),
        ("next", {"all": True, "gate": 0.5}),
        ("next", {"all": True, "layer": 0}),
        ("next", {"start": 20, "end": 21, "place": 6}),
        ("next", {"start": 20}),
        ("entries", {"layer": 7}),
    ):
        refused(ask(path, **body), "invalid_value")
    refused(
        client.post("/v1/inspect/edit", json={"session": session} | place, headers=other_key), "response_not_found", 404
    )


def test_the_page_needs_no_key_and_holds_nothing(client):
    page = client.get("/inspect", headers={"Authorization": ""})
    assert page.status_code == 200 and "Memory inspector" in page.text and "null</script>" in page.text


def test_it_is_off_unless_it_is_asked_for():
    service = Service(ServerSettings(), name="none", loaded=None)
    with TestClient(create_app(service)) as client:
        assert client.get("/health").status_code == 200 and client.get("/inspect").status_code == 404
