"""A server of a tiny model, and its engine."""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Iterator

import pytest

from memgpt_jax.models.quantization import quantize_params, with_state_bits
from memgpt_jax.pipelines.media_classification import MediaClassification
from memgpt_jax.serving.engine import Engine
from memgpt_jax.serving.requests import Finished, Read, Request, Token
from memgpt_jax.serving.sampling import Options
from memgpt_jax.serving.settings import EngineSettings
from tests.laws.rereading import Tiny

fastapi = pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

TEMPLATE = (
    "{% for message in messages %}{{ message.role[0] }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}a: {% endif %}"
)
KEYS = ("first-key", "second-key")
WAIT = 20.0


@pytest.fixture(scope="module", autouse=True)
def small_heap():
    """Programs stay compiled from module to module, as the server does."""


@pytest.fixture(scope="package")
def tiny() -> Tiny:
    return Tiny()


@pytest.fixture(scope="package")
def engine(tiny):
    yield from running(tiny, tiny.config, tiny.params)


@pytest.fixture(scope="module")
def quantized_engine(tiny):
    """Weights and states of 8 bits."""
    yield from running(tiny, with_state_bits(tiny.config, 8), quantize_params(tiny.config, tiny.params, 8))


def running(tiny, config, params) -> Iterator[Engine]:
    engine = Engine(config, params, tiny.tokenizer, EngineSettings(slots=3, piece_length=4, queue_requests=40))
    engine.start()
    yield engine
    engine.stop()


class Look(MediaClassification):
    """Says what it is given."""

    def __init__(self):
        pass

    def __call__(self, inputs, **options):
        return [repr(item) for item in (inputs if isinstance(inputs, list) else [inputs])]


class Asked:
    """A request to an engine, and what comes back."""

    def __init__(self, engine: Engine, ids=(), *, parts=None, options=None, document=None, **fields):
        self.events: queue.SimpleQueue = queue.SimpleQueue()
        self.request = Request(
            document=engine.new_document() if document is None else document,
            parts=[list(ids)] if parts is None else parts,
            deliver=self.events.put,
            options=options or Options(temperature=0.0),
            is_new=document is None,
            **fields,
        )
        engine.submit(self.request)

    def result(self) -> "Asked":
        """Wait for all answers."""
        self.tokens = [[] for _ in range(self.request.number)]
        self.finished: list[Finished | None] = [None] * self.request.number
        while None in self.finished:
            event = self.events.get(timeout=120)
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Read):
                self.read = event
                if self.request.max_new_tokens == 0:
                    break
            elif isinstance(event, Token):
                self.tokens[event.choice].append(event)
            else:
                self.finished[event.choice] = event
        return self

    @property
    def ids(self) -> list[list[int]]:
        return [[token.id for token in tokens] for tokens in self.tokens]

    @property
    def texts(self) -> list[str]:
        ends = [finished.text for finished in self.finished]
        return ["".join(token.text for token in tokens) + end for tokens, end in zip(self.tokens, ends, strict=True)]


@pytest.fixture(scope="package")
def service(tiny, tmp_path_factory):
    from memgpt_jax.pipelines.base import Loaded
    from memgpt_jax.serving.service import Service
    from memgpt_jax.serving.settings import ServerSettings

    settings = ServerSettings(
        slots=3,
        piece_length=4,
        queue_requests=40,
        max_prompt_tokens=300,
        max_new_tokens=200,
        default_new_tokens=6,
        max_body_mb=1,
        sessions=str(tmp_path_factory.mktemp("sessions")),
        keys=KEYS,
        template=TEMPLATE,
        inspector=True,
    )
    loaded = Loaded(tiny.config, tiny.params, tiny.tokenizer, 8)
    pipelines = {"shout": lambda text, *, times=1: text.upper() * times, "look": Look()}
    return Service(settings, name="tiny", loaded=loaded, pipelines=pipelines)


@pytest.fixture(scope="package")
def client(service):
    """A client with the first key."""
    from starlette.testclient import TestClient

    from memgpt_jax.serving.app import create_app

    app = create_app(service)
    with TestClient(app, raise_server_exceptions=False, headers={"Authorization": f"Bearer {KEYS[0]}"}) as client:
        yield client


@pytest.fixture
def other_key() -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[1]}"}


@contextlib.contextmanager
def served(tiny: Tiny, **settings):
    """A server on a socket: its service and its port."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")
    from memgpt_jax.pipelines.base import Loaded
    from memgpt_jax.serving.app import create_app
    from memgpt_jax.serving.service import Service
    from memgpt_jax.serving.settings import ServerSettings

    service = Service(
        ServerSettings(**{"piece_length": 4, "template": TEMPLATE} | settings),
        name="tiny",
        loaded=Loaded(tiny.config, tiny.params, tiny.tokenizer, 8),
    )
    server = uvicorn.Server(uvicorn.Config(create_app(service), port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    until(lambda: server.started, seconds=300)  # it compiles
    try:
        yield service, server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(WAIT)


@pytest.fixture(scope="module")
def live(tiny):
    """A server on a socket."""
    sizes = {"slots": 3, "max_new_tokens": 100_000, "max_prompt_tokens": 100_000}
    with served(tiny, **sizes, body_seconds=1.0, session_mb=1, prefix_mb=1, inspector=True) as found:
        yield found


def until(condition, seconds: float = WAIT) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
