"""The most tokens of an answer, where a request names no limit."""

from dataclasses import replace

import pytest

from memgpt_jax.serving.requests import BusyError
from tests.serving.test_protocol import refused

MESSAGES = [{"role": "user", "content": "xx"}]


@pytest.fixture
def submitted(service, monkeypatch) -> list:
    """The requests to an engine with 20 learned positions, which takes none."""

    def submit(request):
        found.append(request)
        raise BusyError(1.0)

    found, engine = [], service.engine
    monkeypatch.setattr(engine, "config", replace(engine.config, position="learned", num_positions=20))
    monkeypatch.setattr(engine, "submit", submit)
    return found


@pytest.mark.parametrize(
    "path, body, limit",
    [
        ("completions", {"prompt": "x" * 10}, 9),
        ("completions", {"prompt": "x" * 18}, 1),
        ("completions", {"prompt": "x"}, 16),
        ("chat/completions", {"messages": MESSAGES}, 6),
        ("chat/completions", {"messages": [{"role": "user", "content": "x" * 10}]}, 2),
        ("responses", {"input": "x" * 10}, 2),
    ],
    ids=str,
)
def test_a_default_fits_the_learned_positions(client, submitted, path, body, limit):
    """The document begins with one token, and the template adds seven."""
    refused(client.post(f"/v1/{path}", json=body), "queue_full", 429)
    assert [request.max_new_tokens for request in submitted] == [limit]


@pytest.mark.parametrize(
    "path, body",
    [
        ("completions", {"prompt": "x" * 19}),
        ("completions", {"prompt": "x" * 10, "max_tokens": 16}),
        ("chat/completions", {"messages": MESSAGES, "max_tokens": 17}),
        ("responses", {"input": "x" * 12}),
    ],
    ids=str,
)
def test_what_cannot_fit_is_refused(client, submitted, path, body):
    refused(client.post(f"/v1/{path}", json=body), "context_length_exceeded")
    assert not submitted


def test_a_text_that_is_fed_is_no_answer(client, service):
    def answers() -> float:
        return sum(
            service.metrics.registry.get_sample_value(name, {"model_name": "tiny"} | labels) or 0
            for name, labels in (
                ("memgpt_request_generation_tokens_count", {}),
                ("memgpt_request_success_total", {"finished_reason": "length"}),
            )
        )

    before = answers()
    fed = client.post("/v1/sessions", json={"text": "one"}).json()
    assert fed["usage"]["completion_tokens"] == 0 and answers() == before
    client.post("/v1/completions", json={"prompt": "a", "echo": True, "max_tokens": 0})
    assert answers() == before + 2
