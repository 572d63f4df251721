"""Log-probabilities: of what is damaged, of an answer that ends while the server drains, and their places."""

import asyncio

import jax
import numpy as np
import pytest

from memgpt_jax.serving.store import owner_of
from tests.serving.conftest import KEYS
from tests.serving.test_protocol import events, refused

CONTENT = {"include": ["message.output_text.logprobs"]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "path, body",
    [
        ("completions", {"prompt": "a", "max_tokens": 5, "logprobs": 1}),
        ("chat/completions", {"messages": [{"role": "user", "content": "a"}], "logprobs": True}),
        ("responses", {"input": "a"} | CONTENT),
    ],
    ids=str,
)
def test_an_answer_ends_while_no_new_work_is_taken(client, service, monkeypatch, path, body, stream):
    monkeypatch.setattr(service, "draining", False)
    monkeypatch.setattr(service.metrics, "token", lambda *_, **__: setattr(service, "draining", True))
    answer = client.post(f"/v1/{path}", json=body | {"stream": stream})
    assert answer.status_code == 200 and "shutting_down" not in answer.text, answer.text
    refused(client.post("/v1/completions", json={"prompt": "a"}), "shutting_down", 503)


@pytest.fixture
def damaged(client, service) -> str:
    """The id of a document whose state is not finite."""
    owner = owner_of(KEYS[0])
    entry = service.store.get(client.post("/v1/sessions", json={"text": "hello"}).json()["id"], owner)
    nan = lambda x: x * np.float32("nan") if x.dtype == np.float32 else x  # noqa: E731
    document = entry.document._replace(state=jax.tree.map(nan, entry.document.state))
    return asyncio.run(service.keep(document, owner, None)).id


@pytest.mark.parametrize("options", [{"max_tokens": 3}, {"max_tokens": 0}, {"max_tokens": 0, "stream": True}], ids=str)
def test_a_prompt_without_finite_log_probabilities_has_no_answer(client, service, damaged, options):
    body = {"prompt": "abcd", "session": damaged, "echo": True, "logprobs": 1} | options
    before, answer = len(service.store), client.post("/v1/completions", json=body)
    if "stream" in options:
        assert [each["error"]["code"] for each in events(answer)] == ["no_answer"]
    else:
        refused(answer, "no_answer", 500)
    assert len(service.store) == before


def test_an_inspection_without_finite_numbers_is_no_fault_of_the_client(client, damaged):
    refused(client.post("/v1/inspect", json={"text": "abc", "session": damaged}), "no_answer", 500)
    refused(client.post("/v1/inspect/next", json={"session": damaged, "all": True}), "no_answer", 500)


@pytest.mark.parametrize("stream", [False, True])
def test_a_token_has_the_place_of_its_character(client, stream):
    """In the prompt, characters of two and three tokens; of the answer a part is held back."""
    body = {"prompt": "é€ab", "max_tokens": 5, "echo": True, "logprobs": 0, "logit_bias": {str(ord("b")): 100}}
    answer = client.post("/v1/completions", json=body | {"stop": "b" * 6, "stream": stream})
    choices = [each["choices"][0] for each in (events(answer) if stream else [answer.json()])]
    assert "".join(choice["text"] for choice in choices) == "é€abbbbbb"
    places = [place for choice in choices if choice["logprobs"] for place in choice["logprobs"]["text_offset"]]
    assert places == [0, 0, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8]
