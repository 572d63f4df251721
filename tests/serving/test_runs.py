"""`Run`: a run that is cancelled ends and is counted once, whatever arrives at the same moment."""

import asyncio
from types import SimpleNamespace

import pytest

from memgpt_jax.serving.metrics import Metrics
from memgpt_jax.serving.requests import CancelledError, Read, Request
from memgpt_jax.serving.runs import Run


async def start() -> tuple[Run, Metrics, Request]:
    """A run of one request whose events are delivered by hand."""
    metrics = Metrics("tiny")
    service = SimpleNamespace(metrics=metrics, engine_or_refuse=lambda: SimpleNamespace(submit=lambda request: None))
    request = Request(document=None, parts=[[1, 2]], deliver=lambda event: None)
    return Run(service, [request]), metrics, request


def number_cancelled(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("memgpt_cancelled_total", {"model_name": "tiny"})


@pytest.mark.parametrize("event", [Read(None, 0, []), CancelledError()], ids=["read", "cancelled"])
def test_an_event_and_the_cancellation_in_the_same_step(event):
    """The client leaves when an event has arrived that is not yet taken: the task ends with the first cancellation."""

    async def leave():
        run, metrics, request = await start()
        work = asyncio.create_task(anext(run.events()))
        await asyncio.sleep(0.01)
        run._queue.put_nowait((0, event))  # wakes the task, which has not run when it is cancelled
        work.cancel()
        await asyncio.wait({work}, timeout=1)
        assert work.cancelled() and request.cancelled and number_cancelled(metrics) == 1

    asyncio.run(leave())


def test_the_engine_reports_the_cancellation_first():
    async def cancel():
        run, metrics, request = await start()
        request.deliver(CancelledError())
        with pytest.raises(CancelledError):
            await anext(run.events())
        assert number_cancelled(metrics) == 1

    asyncio.run(cancel())
