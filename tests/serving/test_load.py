"""A server under load: sessions stay apart, clients that leave leave nothing behind, and memory does not grow."""

import asyncio
import ctypes
import gc
import os
import random
import resource
import time

import httpx2 as httpx
import jax
import numpy as np
import pytest

from memgpt_jax.serving.store import owner_of
from tests.serving.conftest import KEYS, served, until
from tests.serving.test_live import LONG, connect

pytestmark = pytest.mark.slow
SESSIONS, CANCELS, CLIENTS = 200, 1000, 16
REQUESTS = int(os.environ.get("MEMGPT_SOAK_REQUESTS", "20000"))
"""Requests of the longest test; fewer for a trial of it."""
OPTIONS = (
    {"temperature": 0},
    {"temperature": 1.0, "seed": 1, "top_k": 5},
    {"temperature": 0.8, "seed": 2, "top_p": 0.9, "frequency_penalty": 0.5},
    {"temperature": 1.3, "seed": 3, "min_p": 0.05, "stop": ["e"]},
)


@pytest.fixture(scope="module")
def keyed(tiny):
    """A server with two keys."""
    with served(tiny, slots=4, queue_requests=400, session_mb=64, keys=KEYS) as found:
        yield found


def clients(port: int, key: str | None = None) -> httpx.AsyncClient:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=300)


def test_two_hundred_sessions_keep_their_secrets(keyed):
    """Each is told a secret and asked, all at once: the answers are those of each session alone, bitwise."""
    service, port = keyed
    draw = random.Random(0)
    secrets = [f"The secret of user {number} is {draw.getrandbits(64):016x}." for number in range(SESSIONS)]

    async def session(client: httpx.AsyncClient, number: int) -> tuple[str, list[str]]:
        id = (await client.post("/v1/sessions", json={"text": secrets[number]})).json()["id"]
        texts = []
        for turn in range(3):
            body = {"prompt": f" {turn}?", "session": id, "max_tokens": 12, **OPTIONS[(number + turn) % len(OPTIONS)]}
            answer = await client.post("/v1/completions", json=body)
            assert answer.status_code == 200, answer.text
            [choice] = answer.json()["choices"]
            id = choice["session"]
            texts.append(choice["text"])
        return id, texts

    async def together() -> list[tuple[str, list[str]]]:
        async with clients(port, KEYS[0]) as first, clients(port, KEYS[1]) as second:
            return await asyncio.gather(*(session((first, second)[n % 2], n) for n in range(SESSIONS)))

    async def alone() -> list[tuple[str, list[str]]]:
        async with clients(port, KEYS[0]) as client:
            return [await session(client, number) for number in range(SESSIONS)]

    async def by_the_other_key(ids: list[str]) -> set[int]:
        async with clients(port, KEYS[0]) as first, clients(port, KEYS[1]) as second:
            return {(await (second, first)[n % 2].get(f"/v1/sessions/{id}")).status_code for n, id in enumerate(ids)}

    found, expected = asyncio.run(together()), asyncio.run(alone())
    assert [texts for _, texts in found] == [texts for _, texts in expected]
    assert len({id for id, _ in found}) == SESSIONS
    assert asyncio.run(by_the_other_key([id for id, _ in found])) == {404}
    for number, ((id, _), (other, _)) in enumerate(zip(found, expected, strict=True)):  # what is kept is its own, too
        owners = owner_of(KEYS[number % 2]), owner_of(KEYS[0])
        pair = [service.store.get(*each).document for each in zip((id, other), owners, strict=True)]
        for a, b in zip(*(jax.tree.leaves(document.state) for document in pair), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=str(number))


def test_a_thousand_clients_that_leave(live):
    service, port = live
    engine, draw = service.engine, random.Random(0)
    for number in range(CANCELS):
        body = LONG | {"stream": number % 2 == 0, "prompt": "x" * draw.randrange(1, 200)}
        connection = connect(port, body)
        if draw.random() < 0.5:
            time.sleep(draw.random() / 50)
        connection.close()
    until(lambda: engine.busy_slots == 0 and engine.waiting == 0)
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/completions", json={"prompt": "x", "max_tokens": 3})
    assert answer.status_code == 200


def seconds_of_work(number: int = 2000) -> list[float]:
    """The time of the same arithmetic again and again, about as long as a decoding step of the tiny model."""
    times = []
    for _ in range(number):
        started = time.perf_counter()
        sum(range(50_000))
        times.append(time.perf_counter() - started)
    return times


def tail_of(seconds: list[float]) -> float:
    """The 99th percentile, in medians."""
    median, last = np.percentile(seconds, [50, 99])
    return float(last / median)


def test_twenty_thousand_requests(live, monkeypatch, record_property):
    """No error, no compilation, at most 20 MB more memory than after the first tenth.

    The 99th percentile of the time between two tokens, in medians, is reported (`-rP`, or `--junit-xml`) and not
    asserted, although 2 is the aim: where other programs share the cores, that of plain arithmetic, which is reported
    beside it, is several times as large. On two cores with a load of 6, `MEMGPT_SOAK_REQUESTS=600 pytest -m slow -rP -k
    twenty_thousand tests/serving/test_load.py` gave 9 to 28 for tokens, and 11 and 21 for arithmetic.
    """
    service, port = live
    times, observe = [], service.metrics.token

    def token(seconds: float, *, is_first: bool) -> None:
        observe(seconds, is_first=is_first)
        if not is_first:
            times.append(seconds)

    monkeypatch.setattr(service.metrics, "token", token)
    draw, after = random.Random(1), {}
    metrics = f"http://127.0.0.1:{port}/metrics"

    def kilobytes() -> int:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what the compiler has freed is not the server's
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() // 1024

    def body() -> tuple[str, dict]:
        options = draw.choice(OPTIONS) | {"stream": draw.random() < 0.3}
        text = "".join(draw.choices("abcdefgh ", k=draw.randrange(1, 60)))
        if draw.random() < 0.3:
            return "/v1/responses", {"input": text, "max_output_tokens": 4, "store": draw.random() < 0.5}
        return "/v1/completions", {"prompt": text, "max_tokens": draw.randrange(1, 12)} | options

    bodies = [body() for _ in range(REQUESTS)]

    async def client_of(bodies: list[tuple[str, dict]], statuses: list[int]) -> None:
        async with clients(port) as client:
            for path, each in bodies:
                statuses.append((await client.post(path, json=each)).status_code)

    async def load(bodies: list[tuple[str, dict]]) -> list[int]:
        statuses: list[int] = []
        await asyncio.gather(*(client_of(bodies[number::CLIENTS], statuses) for number in range(CLIENTS)))
        return statuses

    for part in (bodies[: REQUESTS // 10], bodies[REQUESTS // 10 :]):
        assert set(asyncio.run(load(part))) == {200}
        after[len(part)] = kilobytes()
    first, last = after.values()
    assert last - first <= 20 * 1024, f"{first} kB grew to {last} kB"
    text = httpx.get(metrics).text
    assert 'memgpt_compilations{model_name="tiny"} 0.0' in text
    assert service.engine.busy_slots == 0 and service.engine.waiting == 0
    for name, seconds in (("tokens", times), ("arithmetic", seconds_of_work())):
        record_property(f"p99_over_median_of_{name}", tail_of(seconds))
        print(
            f"time of {name}: median {np.median(seconds) * 1e3:.2f} ms, 99th percentile {tail_of(seconds):.1f} times it"
        )
