"""What clients send: each field is used, ignored or refused, and no body is answered with a 5xx."""

import base64
import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from memgpt_jax.data import ByteTokenizer
from memgpt_jax.serving.chat import ChatTemplate
from memgpt_jax.serving.requests import BusyError, FailedError
from memgpt_jax.serving.sse import frame, streamed
from tests.serving.conftest import until

PROMPT = "Das Gedächtnis 🧠 ist"


def completion(client, **body):
    answer = client.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 5, "temperature": 0} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(answer) -> list[dict]:
    """The frames of a stream, which ends with [DONE]."""
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    frames = [frame for frame in answer.text.split("\n\n") if frame]
    assert frames[-1] == "data: [DONE]"
    return [json.loads(frame.removeprefix("data: ")) for frame in frames[:-1]]


def refused(answer, code: str, status: int = 400) -> dict:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code and set(error) == {"message", "type", "param", "code"}
    return error


NULLS = dict.fromkeys(
    ["logprobs", "seed", "stop", "n", "best_of", "logit_bias", "user", "suffix", "stream_options", "top_p", "echo"]
)


@pytest.mark.parametrize(
    "fields",
    [
        NULLS,
        {"user": "me", "metadata": {"a": 1}},
        {"temperature": 0.0, "top_p": 0.5, "top_k": 3, "min_p": 0.1},
        {"model": "tiny", "frequency_penalty": 0, "presence_penalty": 0, "logit_bias": {}},
        {"stop": [], "stop_token_ids": [], "best_of": 1},
    ],
    ids=str,
)
def test_fields_that_change_nothing(client, fields):
    assert completion(client, **fields)["choices"] == completion(client)["choices"]


@pytest.mark.parametrize(
    "body, code, param",
    [
        ({"suffix": "x"}, "unsupported_parameter", "suffix"),
        ({"max_token": 3}, "unknown_parameter", "max_token"),
        ({"n": 0}, "invalid_value", "n"),
        ({"n": 1.0}, "invalid_value", "n"),
        ({"n": 17}, "invalid_value", "n"),
        ({"n": 3, "best_of": 2}, "invalid_value", "best_of"),
        ({"best_of": 2, "stream": True}, "invalid_value", "best_of"),
        ({"stream": 0}, "invalid_value", "stream"),
        ({"stream": "yes"}, "invalid_value", "stream"),
        ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
        ({"temperature": -1}, "invalid_value", "temperature"),
        ({"top_p": 0}, "invalid_value", "top_p"),
        ({"max_tokens": 0}, "invalid_value", "max_tokens"),
        ({"max_tokens": 10**9}, "invalid_value", "max_tokens"),
        ({"max_tokens": 2**70}, "invalid_value", "max_tokens"),
        ({"logprobs": 21}, "invalid_value", "logprobs"),
        ({"logprobs": -1}, "invalid_value", "logprobs"),
        ({"stop": [""]}, "invalid_value", "stop"),
        ({"stop": ["a"] * 5}, "invalid_value", None),
        ({"stop": "a" * 1001}, "invalid_value", "stop"),
        ({"stop": ["a", "b" * 1001]}, "invalid_value", "stop"),
        ({"logit_bias": {"a": 1}}, "invalid_value", "logit_bias"),
        ({"logit_bias": {"99999": 1}}, "invalid_value", None),
        ({"logit_bias": {"1": 1000}}, "invalid_value", None),
        ({"stop_token_ids": [99999]}, "invalid_value", None),
        ({"prompt": []}, "invalid_value", "prompt"),
        ({"prompt": [[1, 99999]]}, "invalid_value", "prompt"),
        ({"prompt": [-1]}, "invalid_value", "prompt"),
        ({"prompt": {"a": 1}}, "invalid_value", None),
        ({"prompt": ["a", 1]}, "invalid_value", None),
        ({"prompt": ["a"] * 100, "n": 16}, "invalid_value", "n"),
        ({"prompt": "x" * 400}, "context_length_exceeded", None),
        ({"prompt": "\ud800"}, "invalid_value", None),
        ({"stop": "\ud800"}, None, None),
        ({"model": "gpt-4"}, "model_not_found", "model"),
        ({"session": "resp_10"}, "response_not_found", None),
        ({"session": "../../etc/passwd"}, "response_not_found", None),
    ],
    ids=str,
)
def test_values_that_are_refused(client, body, code, param):
    content = json.dumps({"prompt": PROMPT, "max_tokens": 3} | body)
    answer = client.post("/v1/completions", content=content)
    assert answer.status_code < 500, answer.text
    if code is not None:
        error = refused(answer, code, 404 if code.endswith("not_found") else 400)
        assert param is None or error["param"] == param
    completion(client)  # the next request is served


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "[]",
        '"text"',
        '{"prompt": "a", "temperature": NaN}',
        '{"prompt": "a", "temperature": 1e400}',
        '{"prompt": "a", "seed": Infinity}',
        '{"prompt": "\\ud800"}',
        '{"\\ud800": 1}',
        '{"prompt": "a", "prompt\\u0000": 1}',
        "[" * 5000,
        b"\xff\xfe",
    ],
    ids=range(13),
)
def test_bodies_that_are_no_request(client, content):
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/sessions"):
        answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500 and "error" in answer.json(), (path, answer.text)


def test_prompts_in_every_form(client, tiny):
    ids = tiny.tokenizer.encode(PROMPT)
    found = [completion(client, prompt=each)["choices"] for each in (PROMPT, ids, [PROMPT], [ids], [256, *ids])]
    assert all(each == found[0] for each in found)
    both = completion(client, prompt=[PROMPT, "other"])
    assert [choice["index"] for choice in both["choices"]] == [0, 1]
    assert both["choices"][0] == found[0][0]
    for empty in ("", [""], [[]]):
        assert completion(client, prompt=empty)["choices"][0]["finish_reason"] in ("length", "stop")


@pytest.mark.parametrize("echo", [True, False])
def test_a_stream_is_the_whole_answer(client, echo):
    """Folded by index; each choice ends once, and the usage comes last."""
    body = {"n": 3, "temperature": 3.0, "seed": 4, "logprobs": 2, "max_tokens": 12, "echo": echo, "prompt": PROMPT}
    whole = completion(client, **body)
    answer = client.post("/v1/completions", json=body | {"stream": True, "stream_options": {"include_usage": True}})
    chunks = events(answer)
    assert len({chunk["id"] for chunk in chunks}) == 1 and len({chunk["created"] for chunk in chunks}) == 1
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    for choice in whole["choices"]:
        mine = [c["choices"][0] for c in chunks[:-1] if c["choices"][0]["index"] == choice["index"]]
        assert "".join(each["text"] for each in mine) == choice["text"]
        ends = [each["finish_reason"] for each in mine]
        assert ends[-1] == choice["finish_reason"] and set(ends[:-1]) == {None}
        logprobs = [each["logprobs"] for each in mine if each["logprobs"]]
        for name in ("tokens", "token_logprobs", "top_logprobs"):
            streamed = [value for each in logprobs for value in each[name]]
            assert streamed == choice["logprobs"][name]


def test_the_best_of_several(client):
    every = completion(client, n=6, temperature=3.0, seed=2, logprobs=0)["choices"]
    best = completion(client, n=2, best_of=6, temperature=3.0, seed=2, logprobs=0)["choices"]
    mean = lambda choice: np.mean(choice["logprobs"]["token_logprobs"])  # noqa: E731
    assert [each["text"] for each in best] == [each["text"] for each in sorted(every, key=mean)[:-3:-1]]


def test_unseeded_answers_differ(client):
    texts = {completion(client, temperature=2.0, max_tokens=12)["choices"][0]["text"] for _ in range(4)}
    assert len(texts) == 4


def test_the_log_likelihood_of_a_prompt(client, tiny):
    """As evaluation harnesses ask for it: ids, echo, no new token."""
    ids = tiny.tokenizer.encode(PROMPT)
    found = completion(client, prompt=ids, echo=True, max_tokens=0, logprobs=1)["choices"][0]
    logprobs = found["logprobs"]
    assert found["text"] == PROMPT and len(logprobs["token_logprobs"]) == len(ids)
    logits = tiny.logits(np.array([[256, *ids]]))[0]
    assert logprobs["token_logprobs"][0] == pytest.approx(float(logits[0, ids[0]] - np.logaddexp.reduce(logits[0])))
    one = completion(client, prompt=ids, echo=True, max_tokens=1, logprobs=1)["choices"][0]["logprobs"]
    assert one["token_logprobs"][:-1] == logprobs["token_logprobs"]


@pytest.mark.parametrize("logprobs", [None, 1])
def test_an_answer_without_tokens_ends(client, logprobs):
    """In one object and in events; a session is continued by the prompt."""
    session = client.post("/v1/sessions", json={"text": "x"}).json()["id"]
    body = {"prompt": "abc", "echo": True, "max_tokens": 0, "logprobs": logprobs, "session": session}
    [whole] = completion(client, **body)["choices"]
    assert whole["text"] == "abc" and whole["finish_reason"] == "length"
    assert client.get(f"/v1/sessions/{whole['session']}").json()["num_tokens"] == 5
    chunks = [each["choices"][0] for each in events(client.post("/v1/completions", json=body | {"stream": True}))]
    assert [chunk["finish_reason"] for chunk in chunks] == [None, "length"] and chunks[0]["text"] == "abc"
    assert chunks[0]["logprobs"] == whole["logprobs"] and chunks[1]["session"] != session
    three = completion(client, **body | {"n": 3, "prompt": "ab"})["choices"]
    assert [choice["finish_reason"] for choice in three] == ["length"] * 3


def test_a_token_inside_a_character_has_its_own_bytes(client):
    """Also in a stream of a response, whose deltas have the tokens of the whole answer."""
    body = {"max_tokens": 2, "logprobs": True, "top_logprobs": 1, "logit_bias": {"195": 100}}
    for each in chat(client, "Hi", **body).json()["choices"][0]["logprobs"]["content"]:
        assert each["bytes"] == [195] and len(each["top_logprobs"][0]["bytes"]) == 1
    body = {"input": "Hi", "temperature": 3, "include": ["message.output_text.logprobs"], "stream": True}
    for seed in range(4):
        text = client.post("/v1/responses", json=body | {"seed": seed}).text
        found = [json.loads(frame.split("data: ")[1]) for frame in text.split("\n\n") if frame]
        deltas = [each for event in found if event["type"].endswith("text.delta") for each in event["logprobs"]]
        assert deltas == found[-1]["response"]["output"][0]["content"][0]["logprobs"] and deltas


def chat(client, *texts, **body):
    messages = [{"role": "user" if index % 2 == 0 else "assistant", "content": t} for index, t in enumerate(texts)]
    answer = client.post("/v1/chat/completions", json={"messages": messages, "temperature": 0} | body)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_dialogue(client):
    whole = chat(client, "Hi").json()["choices"][0]
    assert whole["message"]["role"] == "assistant"
    assert whole["message"]["content"] == completion(client, prompt="u: Hi\na: ", max_tokens=6)["choices"][0]["text"]
    chunks = events(chat(client, "Hi", stream=True, logprobs=True, top_logprobs=2))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == whole["message"]["content"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "length"
    logprobs = chat(client, "Hi", logprobs=True).json()["choices"][0]["logprobs"]["content"]
    assert len(logprobs) == 6 and all(each["top_logprobs"] == [] for each in logprobs)
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    same = client.post(
        "/v1/chat/completions", json={"messages": [{"role": "user", "content": parts}], "temperature": 0, "tools": []}
    )
    assert same.json()["choices"][0] == whole


@pytest.mark.parametrize(
    "body, code",
    [
        ({"tools": [{"type": "function"}]}, "unsupported_parameter"),
        ({"functions": [{}]}, "unsupported_parameter"),
        ({"response_format": {"type": "json_object"}}, "invalid_value"),
        ({"modalities": ["audio"]}, "invalid_value"),
        ({"top_logprobs": 3}, "invalid_value"),
        ({"messages": []}, "invalid_value"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "invalid_value"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "invalid_value"),
        ({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]}, "unsupported_parameter"),
    ],
    ids=str,
)
def test_dialogues_that_are_refused(client, body, code):
    base = {"messages": [{"role": "user", "content": "x"}]}
    refused(client.post("/v1/chat/completions", json=base | body), code)


@pytest.mark.parametrize(
    "url, field",
    [
        ("completions", "max_tokens"),
        ("chat/completions", "max_tokens"),
        ("chat/completions", "max_completion_tokens"),
        ("responses", "max_output_tokens"),
    ],
)
def test_a_limit_that_is_too_large_is_named(client, url, field):
    body = {"responses": {"input": "x"}, "completions": {"prompt": "x"}}
    body = body.get(url, {"messages": [{"role": "user", "content": "x"}]})
    assert refused(client.post(f"/v1/{url}", json=body | {field: 10**6}), "invalid_value")["param"] == field


def test_tools_that_may_not_be_used_are_harmless(client):
    chat(client, "Hi", tools=[{"type": "function"}], tool_choice="none")


class Controls(ByteTokenizer):
    """Bytes, of which 2 is a control token."""

    control_ids = {"\x02": 2}  # noqa: RUF012


def test_the_beginning_of_a_dialogue_is_read_once(client, service, other_key, monkeypatch):
    """Counted for the same key alone, and without an effect on the answer."""
    content = "{% for message in messages %}{{ message.content }}\x02{% endfor %}"
    monkeypatch.setattr(service, "template", ChatTemplate(content, Controls()))
    texts = ["a long question about memory", "an answer", "and another"]
    answers = [chat(client, *texts).json() for _ in range(2)]
    messages = [{"role": "user", "content": texts[0]}]
    other = client.post("/v1/chat/completions", json={"messages": messages}, headers=other_key).json()
    counts = [each["usage"]["prompt_tokens_details"]["cached_tokens"] for each in (*answers, other)]
    assert counts == [0, len("".join(texts[:2])) + 2, 0]
    assert answers[0]["choices"] == answers[1]["choices"]


@pytest.mark.parametrize("url", ["/v1/chat/completions", "/v1/responses"])
def test_a_special_token_of_the_template_starts_the_document(url, client, service, monkeypatch):
    """It takes the place of `start_id`; the same ids after `start_id` have other logits."""
    content = "\x02{% for message in messages %}{{ message.content }}{% endfor %}"
    monkeypatch.setattr(service, "template", ChatTemplate(content, Controls()))
    read = []
    made = service.request
    monkeypatch.setattr(service, "request", lambda *args, **values: read.append(made(*args, **values)) or read[-1])
    body = {"input": "Hi"} if "responses" in url else {"messages": [{"role": "user", "content": "Hi"}]}
    assert client.post(url, json=body).status_code == 200
    assert (read[0].document.unread, read[0].ids) == ((2,), list(b"Hi"))


def test_vectors(client, tiny):
    found = client.post("/v1/embeddings", json={"input": ["one", "two"], "model": "tiny"}).json()
    assert [each["index"] for each in found["data"]] == [0, 1]
    vectors = np.array([each["embedding"] for each in found["data"]])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    packed = client.post("/v1/embeddings", json={"input": tiny.tokenizer.encode("one"), "encoding_format": "base64"})
    packed = np.frombuffer(base64.b64decode(packed.json()["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(packed, vectors[0], atol=1e-6)
    refused(client.post("/v1/embeddings", json={"input": "x", "dimensions": 3}), "invalid_value")


def test_tokens(client, tiny):
    found = client.post("/tokenize", json={"prompt": PROMPT}).json()
    assert found["tokens"] == tiny.tokenizer.encode(PROMPT) and found["count"] == len(found["tokens"])
    assert client.post("/detokenize", json={"tokens": found["tokens"]}).json() == {"prompt": PROMPT}
    dialogue = client.post("/tokenize", json={"messages": [{"role": "user", "content": "Hi"}]}).json()
    assert dialogue["tokens"] == tiny.tokenizer.encode("u: Hi\na: ")
    refused(client.post("/tokenize", json={}), "invalid_value")


def test_pipelines(client):
    assert [each["id"] for each in client.get("/v1/pipelines").json()["data"]] == ["shout", "look"]
    call = lambda **body: client.post("/v1/pipelines/shout", json=body)  # noqa: E731
    assert call(inputs="a", parameters={"times": 2}).json()["result"] == "AA"
    refused(call(inputs="a", parameters={"pitch": 2}), "invalid_value")
    refused(client.post("/v1/pipelines/whisper", json={}), "pipeline_not_found", 404)


def test_answers_go_on_while_a_pipeline_runs(client, service, monkeypatch):
    begun, ended = threading.Event(), threading.Event()
    monkeypatch.setitem(service.pipelines, "wait", lambda: begun.set() or ended.wait(60))
    monkeypatch.setattr(service, "settings", dataclasses.replace(service.settings, queue_requests=1))
    call = lambda _: client.post("/v1/pipelines/wait", json={})  # noqa: E731
    with ThreadPoolExecutor(2) as threads:
        calls = threads.map(call, range(2))  # one runs, one waits
        assert begun.wait(60)
        until(lambda: service.pipeline_calls == 2)
        assert completion(client, prompt="a")["usage"]["completion_tokens"] == 5
        refused(call(0), "queue_full", 429)
        ended.set()
        assert [each.json()["result"] for each in calls] == [True, True]
    assert service.pipeline_calls == 0


def test_a_pipeline_of_pictures_reads_no_file_of_the_server(client, tmp_path):
    (tmp_path / "here.png").write_bytes(b"secret")
    call = lambda **body: client.post("/v1/pipelines/look", json=body)  # noqa: E731
    content = base64.b64encode(b"picture").decode()
    for given in (content, f"data:image/png;base64,{content}"):
        assert call(inputs=given).json()["result"] == [repr(b"picture")]
        assert call(inputs=[given, given]).json()["result"] == [repr(b"picture")] * 2
    for path in (str(tmp_path / "here.png"), "~/.bashrc", "../x"):
        refused(call(inputs=path), "invalid_value")
        refused(call(inputs=[content, path]), "invalid_value")
        refused(call(parameters={"inputs": path}), "invalid_value")


def test_models(client):
    [model] = client.get("/v1/models").json()["data"]
    assert model["id"] == "tiny" and client.get("/v1/models/tiny").json() == model
    refused(client.get("/v1/models/other"), "model_not_found", 404)
    refused(client.get("/v1/nothing"), "not_found", 404)
    refused(client.get("/v1/completions"), "method_not_allowed", 405)


async def _frames_then(error: Exception):
    yield frame({"text": "half"})
    raise error


@pytest.mark.parametrize(
    "error, code", [(FailedError("the logits are not finite"), "no_answer"), (KeyError("secret"), "server_error")]
)
def test_an_error_within_a_stream_is_its_last_event(error, code):
    app = Starlette(routes=[Route("/", lambda request: streamed(_frames_then(error)))])
    first, last = events(TestClient(app).get("/"))
    assert first == {"text": "half"} and last["error"]["code"] == code and "secret" not in last["error"]["message"]


def test_a_full_queue_says_when_to_come_again(client, service, monkeypatch):
    def full(request):
        raise BusyError(3.4)

    monkeypatch.setattr(service.engine, "submit", full)
    answer = client.post("/v1/completions", json={"prompt": PROMPT})
    refused(answer, "queue_full", 429)
    assert answer.headers["retry-after"] == "3"


def test_answers_that_the_queue_can_never_take_are_refused(client):
    """With the limit; as many as it takes have their turn. The queue has 40 places, and there are 3 slots."""
    for body in ({"prompt": ["a"] * 44}, {"prompt": ["a"] * 4, "n": 11}):
        answer = client.post("/v1/completions", json=body | {"max_tokens": 1})
        assert "may have 43 answers" in refused(answer, "invalid_value")["message"]
    assert len(completion(client, prompt=["a"] * 43, max_tokens=1)["choices"]) == 43


def test_a_body_that_is_too_large(client):
    content = json.dumps({"prompt": "x" * 2_000_000}).encode()
    before = value_of(client, "memgpt_requests_rejected_total")
    for body in (content, iter([content[:1_000_000], content[1_000_000:]])):  # with its length, and in parts
        refused(client.post("/v1/completions", content=body), "request_too_large", 413)
    assert value_of(client, "memgpt_requests_rejected_total") == before + 2


def test_all_routes_but_two_need_a_key(client):
    bare = {"Authorization": ""}
    for route in client.app.routes:
        for method in getattr(route, "methods", None) or ():
            path = route.path.replace("{id}", "resp_1").replace("{name}", "x").replace("{name:path}", "x")
            answer = client.request(method, path, headers=bare)
            if path in ("/health", "/ready"):
                assert answer.status_code == 200 or method == "HEAD"
            elif method == "HEAD":
                assert answer.status_code == 401
            else:
                refused(answer, "invalid_api_key", 401)
    for key in ("Bearer wrong", "Basic first-key", "Bearer", "first-key", "Bearer first-key-and-more"):
        refused(client.get("/v1/models", headers={"Authorization": key}), "invalid_api_key", 401)


def value_of(client, name: str) -> float:
    """The sum of a measurement over its labels."""
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


def test_times_between_tokens_are_those_of_one_answer(client):
    names = [f"memgpt_{name}_seconds_count" for name in ("inter_token_latency", "time_to_first_token")]
    before = [value_of(client, name) for name in names]
    completion(client, n=3, max_tokens=5, ignore_eos=True)
    assert [value_of(client, name) - old for name, old in zip(names, before, strict=True)] == [12, 3]


def test_measurements(client):
    names = "memgpt_generation_tokens_total", "memgpt_compilations"
    before = [value_of(client, name) for name in names]
    completion(client, max_tokens=7)
    assert [value_of(client, name) - old for name, old in zip(names, before, strict=True)] == [7, 0]
    assert value_of(client, "memgpt_num_requests_running") == 0
    assert client.get("/version").json().keys() == {"version"}


def test_no_request_compiles_anything(client):
    """Whatever its lengths and options are."""
    compilations = client.app.state.compilations
    random, before = np.random.default_rng(0), compilations.number
    for length in range(1, 40, 3):
        options = {"temperature": float(random.random() * 2), "top_k": int(random.integers(1, 50))}
        options |= {"n": int(random.integers(1, 4)), "logprobs": int(random.integers(20)), "echo": bool(length % 2)}
        options |= {"top_p": float(random.random() * 0.9 + 0.1), "repetition_penalty": 1.0 + float(random.random())}
        completion(client, prompt=random.integers(256, size=length).tolist(), stop=["zz"][: length % 3], **options)
    session = client.post("/v1/sessions", json={"text": "a b c"}).json()["id"]
    completion(client, session=session)
    client.get(f"/v1/sessions/{session}")
    client.post("/v1/sessions/import", content=client.get(f"/v1/sessions/{session}/export").content)
    client.post("/v1/embeddings", json={"input": "some text of any length"})
    session = client.post("/v1/inspect", json={"text": "some text of any length"}).json()["session"]
    client.post("/v1/inspect/next", json={"session": session, "all": True})
    client.post("/v1/inspect/next", json={"session": session, "start": 3, "end": 9})
    client.post("/v1/inspect/forget", json={"session": session, "start": 3, "end": 9})
    client.post("/v1/inspect/entries", json={"session": session, "layer": 0})
    client.post("/v1/inspect/next", json={"session": session, "layer": 0, "place": 7})
    client.post("/v1/inspect/edit", json={"session": session, "layer": 0, "place": 8, "gate": 0.5})
    assert compilations.number == before
