"""Measurements of a server for Prometheus. The names are those of vLLM, with the prefix `memgpt_`."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)


class Metrics:
    """The measurements of one server, in a registry of its own."""

    def __init__(self, model: str):
        """Args: model: the label `model_name`."""
        self.registry = CollectorRegistry()
        self._model = model

        def made(kind: Any, name: str, text: str, labels: tuple[str, ...] = (), **options: Any) -> Any:
            metric = kind(f"memgpt_{name}", text, ("model_name", *labels), registry=self.registry, **options)
            return metric if labels else metric.labels(model)

        self.first_token = made(
            Histogram, "time_to_first_token_seconds", "Arrival to first token of an answer", buckets=SECONDS
        )
        self.inter_token = made(
            Histogram, "inter_token_latency_seconds", "Between two tokens of an answer", buckets=SECONDS
        )
        self.latency = made(Histogram, "e2e_request_latency_seconds", "Arrival to end", buckets=SECONDS)
        self.prefilled = made(Histogram, "request_prefill_time_seconds", "Arrival to prompt read", buckets=SECONDS)
        self.prompt_tokens = made(Counter, "prompt_tokens", "Tokens of prompts")
        self.cached_tokens = made(Counter, "prompt_tokens_cached", "Tokens of prompts whose state was known")
        self.generation_tokens = made(Counter, "generation_tokens", "Tokens of answers")
        self.request_prompt = made(Histogram, "request_prompt_tokens", "Tokens of a prompt", buckets=TOKENS)
        self.request_generation = made(Histogram, "request_generation_tokens", "Tokens of an answer", buckets=TOKENS)
        self._finished = made(Counter, "request_success", "Answers that ended", ("finished_reason",))
        self._rejected = made(Counter, "requests_rejected", "Requests that were refused", ("reason",))
        self._cancelled = made(Counter, "cancelled", "Requests that the client ended")
        self._steps = made(Gauge, "decoding_steps", "Decoding steps")
        self._running = made(Gauge, "num_requests_running", "Slots with an answer")
        self._waiting = made(Gauge, "num_requests_waiting", "Answers without a slot, and calls that are no answers")
        self._sessions = made(Gauge, "sessions", "Documents by tier", ("tier",))
        self._session_bytes = made(Gauge, "session_bytes", "Bytes of documents by tier", ("tier",))
        self._compilations = made(Gauge, "compilations", "Programs compiled since the server is ready")

    def read(self, tokens: int, cached: int, seconds: float) -> None:
        """A prompt of so many tokens has been read, so long after its arrival."""
        self.prompt_tokens.inc(tokens)
        self.cached_tokens.inc(cached)
        self.request_prompt.observe(tokens)
        self.prefilled.observe(seconds)

    def token(self, seconds: float, *, is_first: bool) -> None:
        """A token has been written, so long after the one before it in its answer, or the arrival."""
        self.generation_tokens.inc()
        (self.first_token if is_first else self.inter_token).observe(seconds)

    def finished(self, reason: str, tokens: int) -> None:
        """An answer of so many tokens has ended."""
        self._finished.labels(self._model, reason).inc()
        self.request_generation.observe(tokens)

    def rejected(self, reason: str) -> None:
        """Count a request that was refused."""
        self._rejected.labels(self._model, reason).inc()

    def cancelled(self) -> None:
        """Count a request that the client ended."""
        self._cancelled.inc()

    def text(self, service: Any, compilations: int) -> bytes:
        """All measurements of a `Service` in the text format."""
        engine, store, calls = service.engine, service.store, service.pipeline_calls
        if engine is not None:
            self._steps.set(engine.steps)
            self._running.set(engine.busy_slots)
            calls += engine.waiting + engine.calls
            self._session_bytes.labels(self._model, "prefixes").set(engine.prefixes.bytes)
        self._waiting.set(calls)
        self._sessions.labels(self._model, "memory").set(len(store))
        self._session_bytes.labels(self._model, "memory").set(store.bytes)
        self._compilations.set(compilations)
        return generate_latest(self.registry)
