"""A request that is repeated with its `Idempotency-Key` has the same answer and is computed once."""

import asyncio
import types

import pytest
from fastapi.responses import StreamingResponse

from memgpt_jax.serving import idempotency
from memgpt_jax.serving.errors import ApiError
from memgpt_jax.serving.idempotency import Answers, idempotent
from memgpt_jax.serving.protocol import Feed
from tests.serving.test_protocol import completion, refused

BODIES = [
    ("/v1/responses", {"input": "Hi"}),
    ("/v1/completions", {"prompt": "Hi", "max_tokens": 4}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "stream": True}),
]


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_a_repeated_request_is_computed_once(client, service, other_key, path, body):
    """Whatever harmless fields it has; without a seed another computation would draw another answer."""

    def post(key=path, **more):
        return client.post(path, json=body | more.pop("body", {}), headers={"Idempotency-Key": key} | more)

    first, steps = post(), service.engine.steps
    again = post(body={"user": "me"})
    assert first.status_code == 200 and again.content == first.content and service.engine.steps == steps
    assert again.headers["Idempotent-Replayed"] == "true" and "Idempotent-Replayed" not in first.headers
    for name in ("content-type", "x-session-id", "cache-control"):
        assert again.headers.get(name) == first.headers.get(name)
    refused(post(body={"temperature": 0.5}), "idempotency_key_reused", 422)
    other = [post(key="another"), post(**other_key)]
    assert all("Idempotent-Replayed" not in each.headers and each.content != first.content for each in other)


def test_a_repeated_response_is_one_document(client):
    body, key = {"input": "Hi"}, {"Idempotency-Key": "one"}
    first, again = (client.post("/v1/responses", json=body, headers=key).json()["id"] for _ in range(2))
    assert first == again
    assert client.delete(f"/v1/responses/{first}").status_code == 200


def test_an_error_is_not_kept(client):
    key = {"Idempotency-Key": "later"}
    session = client.post("/v1/sessions", json={"text": "a"}).json()["id"]
    body = {"prompt": "x", "session": session.replace("sess", "resp"), "max_tokens": 1}
    for _ in range(2):
        refused(client.post("/v1/completions", json=body, headers=key), "response_not_found", 404)
    completion(client, prompt="x", session=session, max_tokens=1)
    for wrong in ("", "x" * 256, "a\tb"):
        refused(
            client.post("/v1/completions", json={"prompt": "x"}, headers={"Idempotency-Key": wrong}), "invalid_value"
        )


def request_of(answers: Answers, key: str) -> types.SimpleNamespace:
    """What an endpoint knows of a request."""
    app = types.SimpleNamespace(state=types.SimpleNamespace(answers=answers))
    return types.SimpleNamespace(
        app=app,
        headers={idempotency.HEADER: key},
        state=types.SimpleNamespace(owner="a"),
        url=types.SimpleNamespace(path="/"),
    )


def test_a_duplicate_of_a_request_that_is_being_answered(monkeypatch):
    """It is refused until the first one ends, and computed again if that one has failed."""
    answers, calls = Answers(), []

    async def run():
        go = asyncio.Event()

        @idempotent
        async def endpoint(body, http):
            calls.append(body.text)
            await go.wait()
            if len(calls) == 1:
                raise ApiError("it failed", status=500)
            return {"text": body.text}

        async def ask(text="x"):
            return await endpoint(Feed(text=text), request_of(answers, "k"))

        async def refusal(text="x"):
            with pytest.raises(ApiError) as refused:
                await ask(text)
            return refused.value.status, refused.value.code

        first = asyncio.create_task(ask())
        await asyncio.sleep(0)
        assert await refusal() == (409, "idempotency_key_in_use")
        assert await refusal("y") == (422, "idempotency_key_reused")
        go.set()
        with pytest.raises(ApiError, match="it failed"):
            await first
        assert (await ask()).body == (await ask()).body == b'{"text":"x"}'
        assert calls == ["x", "x"]

    asyncio.run(run())


ANSWER, ERROR = b'data: {"text":"a"}\n\n', b'data: {"error":{}}\n\n'


def streaming(calls, frames):
    """An endpoint that streams the frames of a text, and appends the text to `calls`."""

    @idempotent
    async def endpoint(body, http):
        calls.append(body.text)

        async def parts():
            for frame in frames(body.text):
                yield frame

        return StreamingResponse(parts())

    return endpoint


def test_a_stream_is_kept_if_it_has_ended_without_an_error():
    answers, calls = Answers(), []

    async def run():
        endpoint = streaming(calls, lambda text: [ANSWER, ERROR] if text == "wrong" else [ANSWER])

        async def ask(text, number=9):
            """The first parts of the stream."""
            found, answer = b"", await endpoint(Feed(text=text), request_of(answers, text))
            if not isinstance(answer, StreamingResponse):
                return answer.body
            if number:
                async for part in answer.body_iterator:
                    found += part
                    number -= 1
                    if not number:
                        break
                await answer.body_iterator.aclose()
            return found

        assert await ask("whole") == await ask("whole") == b'data: {"text":"a"}\n\n'
        await ask("wrong"), await ask("wrong")
        await ask("left", 1), await ask("left", 0), await ask("left")  # 0: before the first part
        assert calls == ["whole", "wrong", "wrong", "left", "left", "left"]

    asyncio.run(run())


def test_an_earlier_stream_does_not_end_a_later_one():
    """Its iterator may live on after an error, when the key is already being answered again."""
    answers, calls = Answers(), []

    async def run():
        endpoint = streaming(calls, lambda text: [ERROR if len(calls) == 1 else ANSWER])

        async def ask():
            return await endpoint(Feed(text="x"), request_of(answers, "k"))

        first = await ask()
        assert [part async for part in first.body_iterator] == [b'data: {"error":{}}\n\n']
        second = await ask()
        del first
        with pytest.raises(ApiError, match="still being answered"):
            await ask()
        assert [part async for part in second.body_iterator] == [b'data: {"text":"a"}\n\n']
        assert (await ask()).body == b'data: {"text":"a"}\n\n' and calls == ["x", "x"]

    asyncio.run(run())


def test_answers_are_kept_within_bytes_and_seconds(monkeypatch):
    now, fingerprint = [0.0], b"fingerprint"
    monkeypatch.setattr(idempotency.time, "monotonic", lambda: now[0])
    answers = Answers(most_bytes=3 * (idempotency.OVERHEAD + 100), seconds=60)
    for number in range(5):
        assert answers.begin(("a", "/", str(number)), fingerprint) is None
        answers.end(("a", "/", str(number)), fingerprint, b"x" * 100, {})
        assert answers.bytes <= 3 * (idempotency.OVERHEAD + 100)
    known = [number for number in range(5) if answers._answers.get(("a", "/", str(number)))]
    assert known == [2, 3, 4]
    answers.begin(("a", "/", "large"), fingerprint)
    answers.end(("a", "/", "large"), fingerprint, b"x" * 10_000, {})
    assert len(answers._answers) == 3
    now[0] = 60.0
    assert answers.begin(("a", "/", "4"), b"another") is None and answers.bytes == 0
