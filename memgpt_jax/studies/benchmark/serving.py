"""As many requests as a server has slots: by its engine alone, over HTTP, and by a server that calls transformers."""

import asyncio
import contextlib
import dataclasses
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any

import numpy as np

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.pipelines.base import Loaded
from memgpt_jax.serving.settings import ServerSettings
from memgpt_jax.studies.benchmark.interleaving import Case
from memgpt_jax.studies.benchmark.peers import gpt2_generation, installed


@contextlib.contextmanager
def serving_cases(loaded: Loaded, *, slots: int, context: int, new: int, peers: bool) -> Iterator[dict[str, Case]]:
    """Cases that answer `slots` requests of random ids, greedily; one of them reads their prompts alone.

    Args:
        loaded: the decoder.
        slots: requests at the same time, and slots of the engine.
        context: tokens of a prompt.
        new: tokens of an answer.
        peers: also a FastAPI application that calls `generate` of GPT-2 of transformers for each request, if it is
            installed.
    """
    import uvicorn
    from fastapi import FastAPI

    from memgpt_jax.serving.app import create_app
    from memgpt_jax.serving.engine import Engine
    from memgpt_jax.serving.requests import Finished, Request
    from memgpt_jax.serving.sampling import Options
    from memgpt_jax.serving.service import Service

    config = instance_of(loaded.config, ModelConfig, "model")
    rows = np.random.default_rng(0).integers(config.vocab_size, size=(slots, context)).tolist()
    tokens = slots * new
    settings = ServerSettings(slots=slots, queue_requests=slots, max_new_tokens=new, default_new_tokens=new)

    def by_engine(engine: Engine, new: int = new) -> Callable[[], float]:
        def run() -> float:
            answers: list[Future] = []
            for ids in rows:
                done: Future = Future()

                def deliver(event: Any, done: Future = done) -> None:
                    if isinstance(event, Exception):
                        done.set_exception(event)
                    elif isinstance(event, Finished) or new == 0:
                        done.set_result(None)

                answers.append(done)
                request = Request(
                    document=engine.new_document(),
                    parts=[ids],
                    deliver=deliver,
                    options=Options(temperature=0.0),
                    max_new_tokens=new,
                )
                engine.submit(request)
            for done in answers:
                done.result()
            return 0.0

        return run

    def over_http(port: int) -> Callable[[], float]:
        bodies = [json.dumps({"prompt": ids, "max_tokens": new, "temperature": 0, "ignore_eos": True}) for ids in rows]

        def ask(body: str) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            check(answer.status == 200, f"the server answered {answer.status}: {answer.read()!r}")
            answer.read()
            connection.close()

        def run() -> float:
            with ThreadPoolExecutor(slots) as threads:
                list(threads.map(ask, bodies))
            return 0.0

        return run

    @contextlib.contextmanager
    def listening(app: FastAPI) -> Iterator[int]:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()

    with contextlib.ExitStack() as stack:
        cases = {}
        single = Engine(
            config, loaded.params, loaded.tokenizer, dataclasses.replace(settings, slots=1, queue_requests=slots)
        )
        single.start()
        stack.callback(single.stop)
        cases["engine, 1 slot"] = Case(run=by_engine(single), tokens=tokens)
        service = Service(settings, name="model", loaded=loaded)
        port = stack.enter_context(listening(create_app(service)))
        assert service.engine is not None
        cases[f"engine, {slots} slots"] = Case(run=by_engine(service.engine), tokens=tokens)
        cases["engine, the prompts read alone"] = Case(run=by_engine(service.engine, new=0))
        cases[f"HTTP, {slots} slots"] = Case(run=over_http(port), tokens=tokens)
        if peers and installed("torch", "transformers"):
            other = stack.enter_context(listening(_generating(gpt2_generation(config, context + new))))
            cases["HTTP, generate of transformers"] = Case(run=over_http(other), tokens=tokens)
        yield cases


def _generating(generate: Callable[[list[int], int], list[int]]) -> Any:
    """An application that answers each request by `generate`, in the threads of FastAPI."""
    from fastapi import Body, FastAPI

    app = FastAPI()

    @app.post("/v1/completions")
    def complete(body: Annotated[dict[str, Any], Body()]) -> dict[str, Any]:
        return {"ids": generate(body["prompt"], body["max_tokens"])}

    return app
