"""Ids of responses and sessions name documents that never change, and that belong to the key that made them."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import memgpt_jax as mg
from memgpt_jax.config.serialization import to_json
from memgpt_jax.generation.document import KEY, NO_SUM, from_bytes
from memgpt_jax.serving.objects import Objects
from memgpt_jax.serving.store import Entry, NotFoundError, Store, new_id
from tests.serving.test_protocol import completion, refused

TURNS = ("Tell me of gardens", "and of memory", "and of both")


def respond(client, text, previous=None, **body):
    answer = client.post(
        "/v1/responses", json={"input": text, "previous_response_id": previous, "temperature": 0} | body
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def text_of(response) -> str:
    return response["output"][0]["content"][0]["text"]


def test_a_chain_of_responses_is_one_dialogue(client):
    """Each answer is that of the whole text; every one can be continued again."""
    text, previous, found = "", None, []
    for turn in TURNS:
        text += ("\n" if previous else "") + f"u: {turn}\na: "
        response = respond(client, turn, previous)
        whole = completion(client, prompt=text, max_tokens=6, logprobs=0)["choices"][0]
        assert text_of(response) == whole["text"]
        text, previous = text + whole["text"], response["id"]
        found.append(response)
    branch = respond(client, TURNS[1], found[0]["id"])
    assert text_of(branch) == text_of(found[1]) and branch["id"] != found[1]["id"]
    assert found[1]["previous_response_id"] == found[0]["id"]
    assert client.get(f"/v1/responses/{found[1]['id']}").json() == found[1]
    [item] = client.get(f"/v1/responses/{found[1]['id']}/input_items").json()["data"]
    assert item["content"][0]["text"] == TURNS[1]


def test_input_items_come_in_pages(client):
    """The last item first, as in OpenAI's API."""
    messages = [{"role": "user", "content": text} for text in "abcde"]
    path = f"/v1/responses/{client.post('/v1/responses', json={'input': messages}).json()['id']}/input_items"

    def page(**query):
        found = client.get(path, params=query).json()
        texts = "".join(item["content"][0]["text"] for item in found["data"])
        ids = [item["id"] for item in found["data"]] or [None]
        assert (found["first_id"], found["last_id"]) == (ids[0], ids[-1])
        return texts, found["has_more"], ids[-1]

    assert page()[:2] == ("edcba", False) and page(order="asc", limit=5)[:2] == ("abcde", False)
    read, more, after = page(limit=2)
    while more:
        texts, more, after = page(limit=2, after=after)
        read += texts
    assert read == "edcba" and page(after=after) == ("", False, None)
    for query in ({"limit": 0}, {"limit": 101}, {"limit": "x"}, {"order": "up"}, {"after": "msg_0"}):
        answer = client.get(path, params=query)
        assert answer.status_code == 400 and answer.json()["error"]["param"] == next(iter(query))


def test_a_response_in_events(client):
    body = {"input": TURNS[0], "temperature": 0, "stream": True}
    answer = client.post("/v1/responses", json=body)
    frames = [frame.split("\n") for frame in answer.text.split("\n\n") if frame]
    events = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name.removeprefix("event: ") for name, _ in frames] == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    whole, last = respond(client, TURNS[0]), events[-1]["response"]
    deltas = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    assert deltas == text_of(whole) == text_of(last)
    assert (last["status"], last["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert text_of(respond(client, "on", last["id"])) == text_of(respond(client, "on", whole["id"]))


def test_every_answer_of_a_chain_names_its_root(client):
    """A router that hashes `x-session-id` sends a chain to the server that has its documents in memory."""
    first = client.post("/v1/responses", json={"input": "Hi"})
    root, last = first.headers["x-session-id"], first.json()["id"]
    assert root == last
    for body in ({"input": "on"}, {"input": "on", "stream": True}):
        answer = client.post("/v1/responses", json=body | {"previous_response_id": last})
        assert answer.headers["x-session-id"] == root
    session = client.post("/v1/sessions", json={"text": "one"})
    id = session.json()["id"]
    assert session.headers["x-session-id"] == id
    for path in ("feed", "fork"):
        answer = client.post(f"/v1/sessions/{id}/{path}", json={"text": "x"})
        assert answer.headers["x-session-id"] == id != answer.json()["id"]
    answer = client.post("/v1/completions", json={"prompt": "x", "max_tokens": 1, "session": answer.json()["id"]})
    assert answer.headers["x-session-id"] == id
    assert "x-session-id" not in client.post("/v1/completions", json={"prompt": "x", "max_tokens": 1}).headers


def test_instructions_are_a_memory(client, service):
    first = respond(client, "Hi", instructions="Be brief.")
    assert text_of(first) == completion(client, prompt="s: Be brief.\nu: Hi\na: ", max_tokens=6)["choices"][0]["text"]
    second = respond(client, "again", first["id"], instructions="Be brief.")
    assert second["instructions"] == "Be brief."
    for path in ("fork", "feed"):
        id = client.post(f"/v1/sessions/{first['id']}/{path}", json={"text": "x"}).json()["id"]
        for memory in ("warm", "cold"):
            assert respond(client, "on", id, instructions="Be brief.")["instructions"] == "Be brief.", memory
            service.store._entries.clear()
        refused(client.get(f"/v1/responses/{id}"), "response_not_found", 404)
    body = {"input": "x", "previous_response_id": first["id"], "instructions": "Be long."}
    refused(client.post("/v1/responses", json=body), "invalid_value")


def test_what_is_not_stored_cannot_be_continued(client):
    response = respond(client, "Hi", store=False)
    refused(client.get(f"/v1/responses/{response['id']}"), "response_not_found", 404)
    body = {"input": "x", "previous_response_id": response["id"]}
    refused(client.post("/v1/responses", json=body), "response_not_found", 404)


@pytest.mark.parametrize("stream", [True, False])
def test_a_response_that_is_being_stored_has_ended(client, service, monkeypatch, stream):
    put, answers = service.store.put, []

    def put_and_cancel(entry):
        answers.append(client.post(f"/v1/responses/{entry.id}/cancel"))
        put(entry)

    monkeypatch.setattr(service.store, "put", put_and_cancel)
    assert client.post("/v1/responses", json={"input": "Hi", "stream": stream}).status_code == 200
    assert "has ended" in refused(answers[0], "invalid_value")["message"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_response_that_was_cancelled_is_not_stored(client, service, monkeypatch, stream):
    """Even if its last token has arrived."""
    ids, stored = [], []

    def cancel(reason, tokens):
        for id, (_, run) in client.app.state.active.items():
            ids.append(id)
            run.cancel()

    monkeypatch.setattr(service.metrics, "finished", cancel)
    monkeypatch.setattr(service.store, "put", stored.append)
    answer = client.post("/v1/responses", json={"input": "Hi", "stream": stream})
    if stream:
        assert "event: response.failed" in answer.text and "event: response.incomplete" not in answer.text
    else:
        refused(answer, "cancelled", 409)
    assert len(ids) == 1 and not stored and not client.app.state.active


def test_a_deleted_response_is_gone(client):
    response = respond(client, "Hi")
    child = respond(client, "x", response["id"])
    assert client.delete(f"/v1/responses/{response['id']}").json()["deleted"]
    for method in ("get", "delete"):
        refused(getattr(client, method)(f"/v1/responses/{response['id']}"), "response_not_found", 404)
    respond(client, "y", child["id"])  # what continues it is whole


def test_the_ids_of_another_key_do_not_exist(client, other_key):
    response = respond(client, "My secret is 4539")
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/input_items"),
        ("POST", "/cancel"),
    ):
        answer = client.request(method, f"/v1/responses/{response['id']}{path}", headers=other_key)
        refused(answer, "response_not_found", 404)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/export"), ("POST", "/fork")):
        answer = client.request(method, f"/v1/sessions/{response['id']}{path}", headers=other_key)
        refused(answer, "response_not_found", 404)
    answer = client.post(f"/v1/sessions/{response['id']}/feed", json={"text": "x"}, headers=other_key)
    refused(answer, "response_not_found", 404)
    body = {"input": "x", "previous_response_id": response["id"]}
    refused(client.post("/v1/responses", json=body, headers=other_key), "response_not_found", 404)
    body = {"prompt": "x", "session": response["id"]}
    refused(client.post("/v1/completions", json=body, headers=other_key), "response_not_found", 404)
    respond(client, "x", response["id"])


def test_a_session_is_fed_and_continued(client):
    whole = completion(client, prompt="one two three", max_tokens=8)["choices"][0]["text"]
    empty = client.post("/v1/sessions", json={}).json()
    assert empty["num_tokens"] == 1
    first = client.post("/v1/sessions", json={"text": "one"}).json()
    second = client.post(f"/v1/sessions/{first['id']}/feed", json={"text": " two three"}).json()
    assert (first["num_tokens"], second["num_tokens"]) == (4, 14)
    answer = completion(client, prompt=[256, 65], session=first["id"], max_tokens=1)  # a start token in the middle
    assert client.get(f"/v1/sessions/{answer['choices'][0]['session']}").json()["num_tokens"] == 7
    half = completion(client, prompt="", session=second["id"], max_tokens=3)["choices"][0]
    rest = completion(client, prompt="", session=half["session"], max_tokens=5)["choices"][0]
    assert half["text"] + rest["text"] == whole
    shown = client.get(f"/v1/sessions/{second['id']}").json()
    assert shown["memory"][0]["occupancy"] > 0 and shown["bytes"] > 0
    fork = client.post(f"/v1/sessions/{second['id']}/fork").json()
    client.delete(f"/v1/sessions/{second['id']}")
    assert completion(client, prompt="", session=fork["id"], max_tokens=3)["choices"][0]["text"] == half["text"]


def test_a_character_may_be_written_by_two_requests(client):
    def written(session, byte, **options):
        options |= {"prompt": "", "session": session, "max_tokens": 1, "logit_bias": {byte: 100}}
        return completion(client, **options)["choices"][0]

    first = written(client.post("/v1/sessions", json={"text": "x"}).json()["id"], 0xC5)
    second = written(first["session"], 0xA4)
    assert (first["text"], second["text"]) == ("", "\u0164")
    stopped = written(first["session"], 0xA4, stop="\u0164")
    assert stopped["text"] == "" and stopped["finish_reason"] == "stop"
    tokens = [client.get(f"/v1/sessions/{found['session']}").json()["num_tokens"] for found in (first, second, stopped)]
    assert tokens == [3, 4, 3]
    assert written(stopped["session"], 0xA4)["text"] == "\u0164"


def test_a_session_leaves_and_comes_back(client, tiny, tmp_path):
    """As a file that `Session.load` reads, and one that `Session.save` wrote."""
    session = client.post("/v1/sessions", json={"text": "one two"}).json()
    content = client.get(f"/v1/sessions/{session['id']}/export").content
    (tmp_path / "file").write_bytes(content)
    loaded = mg.Session.load(tmp_path / "file", (tiny.config, tiny.params), tiny.tokenizer)
    text = loaded.fork().generate(max_new_tokens=5)
    loaded.save(tmp_path / "other")
    back = client.post("/v1/sessions/import", content=(tmp_path / "other").read_bytes()).json()
    assert completion(client, prompt="", session=back["id"])["choices"][0]["text"] == text
    for wrong in (b"", b"x" * 100, content[:-1], content[:200] + b"\0" + content[201:]):
        refused(client.post("/v1/sessions/import", content=wrong), "invalid_value")


def forged(content: bytes, **changes) -> bytes:
    """The file with other values in its header, and the checksum of this content."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    values = json.loads(header["__metadata__"][KEY]) | changes | {"sha256": NO_SUM}
    header["__metadata__"][KEY] = json.dumps({name: value for name, value in values.items() if value is not None})
    start = json.dumps(header).encode()
    start += b" " * (-len(start) % 8)
    content = len(start).to_bytes(8, "little") + start + content[end:]
    return content.replace(NO_SUM.encode(), hashlib.sha256(content).hexdigest().encode(), 1)


def exported(client, text: str = "one two") -> bytes:
    session = client.post("/v1/sessions", json={"text": text}).json()["id"]
    return client.get(f"/v1/sessions/{session}/export").content


def test_a_file_imports_no_module(client, tiny, tmp_path, monkeypatch):
    (tmp_path / "module_of_someone.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = to_json(tiny.config) | {"type": "Config", "import": "module_of_someone:Config"}
    content = forged(exported(client), config=config)
    error = refused(client.post("/v1/sessions/import", content=content), "invalid_value")
    assert "belongs to another model" in error["message"] and not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"penalized_ids": [10**6]},
        {"penalized_ids": [-1]},
        {"penalized_ids": 3},
        {"penalized_ids": None},
        {"unread": [10**12]},
        {"unread": [1, 2, 3]},
        {"unread": [True]},
        {"context": ["a"]},
        {"unfinished": [[1]]},
        {"num_tokens": "a"},
        {"num_tokens": 0},
        {"starts": [1]},
        {"starts": {"x": "a"}},
        {"notes": 3},
        {"config": 3},
        {"config": None},
    ],
    ids=str,
)
def test_a_file_with_values_that_cannot_be_is_refused(client, changes):
    content = exported(client)
    assert client.post("/v1/sessions/import", content=forged(content, num_tokens=9)).status_code == 200
    refused(client.post("/v1/sessions/import", content=forged(content, **changes)), "invalid_value")


def test_documents_outlive_the_process(client, service, tiny):
    """Another server of the same folder goes on with them."""
    response = respond(client, "Hi")
    expected = text_of(respond(client, "on", response["id"]))
    service.store._entries.clear()
    assert text_of(respond(client, "on", response["id"])) == expected


@pytest.mark.parametrize("harm", ["damaged", "of another model", "without notes"])
def test_a_document_that_cannot_be_read_is_no_fault_of_the_client(client, service, other_key, caplog, harm):
    """It is reported in the log, and its owner alone can delete it."""
    id = respond(client, "Hi")["id"]
    [path] = Path(service.settings.sessions).rglob(f"{id}.*")
    content = path.read_bytes()
    changes = {"of another model": {"config": {}}, "without notes": {"notes": {}}}
    path.write_bytes(forged(content, **changes[harm]) if harm in changes else content[:-1])
    service.store._entries.clear()
    child = {"input": "x", "previous_response_id": id}
    for answer in (client.get(f"/v1/responses/{id}"), client.post("/v1/responses", json=child)):
        refused(answer, "document_unreadable", 500)
    assert id in caplog.text
    refused(client.delete(f"/v1/responses/{id}", headers=other_key), "response_not_found", 404)
    assert client.delete(f"/v1/responses/{id}").json()["deleted"] and not path.exists()
    refused(client.delete(f"/v1/responses/{id}"), "response_not_found", 404)
    session = client.post("/v1/sessions", json={"text": "a"}).json()["id"]
    refused(client.delete(f"/v1/responses/{session}"), "response_not_found", 404)


def store(folder, **options):
    """A store whose objects are JSON."""
    encode = lambda document, notes: json.dumps({"n": document.num_tokens, "notes": notes}).encode()  # noqa: E731

    def decode(content, path):
        values = json.loads(content)
        return document(values["n"]), values["notes"]

    return Store(folder, encode=encode, decode=decode, **{"memory_bytes": 10**6, "seconds": 60} | options)


def document(number: int):
    from memgpt_jax.generation.document import Document

    return Document({"x": np.zeros(1000, np.int8)}, (), number, frozenset(), ())


def entry(number: int, owner: str = "a") -> Entry:
    id = new_id("resp")
    return Entry(id=id, root=id, owner=owner, document=document(number))


def test_memory_stays_within_its_budget():
    kept = store(None, memory_bytes=3100)
    entries = [entry(number) for number in range(100)]
    for each in entries:
        kept.put(each)
        assert kept.bytes <= 3100
    assert len(kept) == 3
    with pytest.raises(NotFoundError):
        kept.get(entries[0].id, "a")
    kept.get(entries[97].id, "a")
    kept.put(entry(1))
    kept.get(entries[97].id, "a")  # the least recently used one left


def test_what_is_kept_beside_the_state_counts():
    kept, long = store(None, memory_bytes=1000), "x" * 5000
    for values in ({"response": {"text": long}}, {"items": [{"text": long}]}):
        first, second = (replace(entry(number), **values) for number in range(2))
        for each in (first, second):
            each = replace(each, document=each.document._replace(state={}))
            kept.put(each)
            assert len(kept) == 1 and 5000 < kept.bytes < 5200
    ids = frozenset(range(100))
    kept.put(replace(entry(1), document=document(1)._replace(state={}, penalized_ids=ids)))
    assert len(kept) == 1 and 6400 <= kept.bytes < 6500
    kept.delete(*next((each.entry.id, "a") for each in kept._entries.values()))
    assert kept.bytes == 0


def test_metadata_has_the_limits_of_the_api(client):
    most = {f"{number:064}": "v" * 512 for number in range(16)}
    assert respond(client, "Hi", metadata=most)["metadata"] == most
    for wrong in (most | {"x": ""}, {"k" * 65: ""}, {"k": "v" * 513}, {"k": "\ud800"}, {"\ud800": "v"}):
        content = json.dumps({"input": "Hi", "metadata": wrong})
        assert refused(client.post("/v1/responses", content=content), "invalid_value")["param"].startswith("metadata")


def test_old_entries_are_removed(tmp_path, monkeypatch):
    import memgpt_jax.serving.store as module

    kept, old = store(str(tmp_path), seconds=60), entry(1)
    kept.put(old)
    now = module.time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 61)
    monkeypatch.setattr(module.time, "monotonic", lambda: now + 1e6)
    with pytest.raises(NotFoundError):
        kept.get(old.id, "a")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_store_that_fails_keeps_nothing(tmp_path, monkeypatch):
    kept, new = store(str(tmp_path)), entry(1)

    def full(self, name, content):
        raise OSError("no space left")

    monkeypatch.setattr(Objects, "write", full)
    with pytest.raises(OSError, match="no space"):
        kept.put(new)
    with pytest.raises(NotFoundError):
        kept.get(new.id, "a")


@pytest.mark.parametrize("id", ["../x", "resp_1", "resp_" + "0" * 31, "resp_" + "0" * 33, "", "resp_" + "G" * 32])
def test_an_id_is_no_path(tmp_path, id):
    with pytest.raises(NotFoundError):
        store(str(tmp_path)).get(id, "a")


def test_a_parent_is_unharmed(client, service, tiny):
    """Its bytes are those before its children."""
    parent = client.post("/v1/sessions", json={"text": "one two"}).json()["id"]
    before = client.get(f"/v1/sessions/{parent}/export").content
    for _ in range(2):
        completion(client, prompt="x", session=parent, max_tokens=9)
        client.post(f"/v1/sessions/{parent}/feed", json={"text": "y"})
    assert client.get(f"/v1/sessions/{parent}/export").content == before
    found, _ = from_bytes(before, tiny.config, tiny.tokenizer, "x")
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found.state))
