"""What an error says: whose fault it is, which field it names, and by which headers it is found in the log."""

import logging

import pytest
from starlette.testclient import TestClient

from memgpt_jax.serving.app import create_app
from memgpt_jax.serving.service import Service
from memgpt_jax.serving.settings import ServerSettings
from memgpt_jax.serving.sse import frame
from tests.serving.test_protocol import refused

MESSAGE = {"role": "user", "content": "x"}
IMAGE = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]}
ORIGIN = "http://a.example"


def of_pipelines(**pipelines):
    """A client of a server without a model, as a web page sees it."""
    service = Service(ServerSettings(origins=(ORIGIN,)), name="p", loaded=None, pipelines=pipelines)
    return TestClient(create_app(service), raise_server_exceptions=False, headers={"Origin": ORIGIN})


def fails(inputs):
    raise RuntimeError(f"secret {inputs}")


def adds(inputs, *, top=1):
    return top + inputs


def test_an_unknown_error_is_logged_by_the_id_of_its_answer(caplog):
    with of_pipelines(fails=fails, adds=adds) as client, caplog.at_level(logging.ERROR):
        for name in ("fails", "adds"):
            answer = client.post(f"/v1/pipelines/{name}", json={"inputs": "text"})
            error = refused(answer, "server_error", 500)
            assert "secret" not in error["message"] and "text" not in error["message"]
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            assert answer.headers["x-request-id"] in caplog.text
        assert "secret text" in caplog.text and "TypeError" in caplog.text
        for wrong in ({"inputs": 1, "low": 2}, {}, {"inputs": 1, "parameters": {"low": 1}}):
            refused(client.post("/v1/pipelines/adds", json=wrong), "invalid_value")
        assert client.post("/v1/pipelines/adds", json={"inputs": 1, "top": 2}).json()["result"] == 3


def test_a_web_page_may_read_the_headers():
    with of_pipelines() as client:
        names = client.get("/v1/models").headers["access-control-expose-headers"].split(", ")
        assert {"x-session-id", "x-request-id", "retry-after", "idempotent-replayed"} <= {*names}


@pytest.mark.parametrize(
    "path, body, param",
    [
        ("completions", {"prompt": {"a": 1}}, "prompt"),
        ("completions", {"prompt": "a", "logit_bias": {"secret": "x"}}, "logit_bias"),
        ("completions", {"prompt": "a", "stop": ["a"] * 5}, "stop"),
        ("completions", {}, "prompt"),
        ("completions", {"prompt": "a", "stream_options": {"secret": 1}}, "stream_options.secret"),
        ("chat/completions", {"messages": [MESSAGE, {"role": "user", "content": 3}]}, "messages.1.content"),
        ("chat/completions", {"messages": [MESSAGE, IMAGE]}, "messages.1.content"),
        ("responses", {"input": [IMAGE]}, "input.0.content"),
        ("responses", {"input": "a", "metadata": {"secret": 1}}, "metadata"),
        ("responses", {"input": "a", "metadata": {"\u00e9" * 65: ""}}, "metadata"),
        ("embeddings", {"input": 3}, "input"),
    ],
)
def test_an_error_names_a_field_that_exists(client, path, body, param):
    error = refused(
        client.post(f"/v1/{path}", json=body), "unknown_parameter" if "secret" in param else "invalid_value"
    )
    assert error["param"] == param
    if IMAGE in body.get("messages", ()) or body.get("input") == [IMAGE]:
        assert "pictures and sounds are not read" in error["message"]


def test_a_body_that_is_no_json_has_no_field(client):
    error = refused(client.post("/v1/completions", content="{"), "invalid_value")
    assert error["param"] is None and "JSON" in error["message"]


@pytest.mark.parametrize(
    "path", ["responses/resp_1?stream=true", "responses/resp_1/input_items?before=1", "models?x=1"]
)
def test_query_parameters_are_refused(client, path):
    error = refused(client.get(f"/v1/{path}"), "unknown_parameter")
    assert error["param"] == path.split("?")[1].split("=")[0]
    assert client.get("/health?x=1").status_code == 200


def test_an_event_is_json():
    with pytest.raises(ValueError, match="JSON"):
        frame({"logprob": float("nan")})
