"""The settings of a server."""

import ipaddress
from dataclasses import dataclass
from typing import Literal

from memgpt_jax.config.checks import check
from memgpt_jax.ops.quantized import Bits


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Sizes and limits of an engine. Raises `ValueError` for values out of range."""

    slots: int = 8
    """Answers that are decoded at the same time."""
    piece_length: int = 256
    """Tokens of a prompt that are read between two decoding steps."""
    queue_requests: int = 64
    """Answers that may wait for a slot, calls of pipelines, and embeddings and other calls of the model that may wait,
    each kind by itself; more are refused (429)."""
    queue_tokens: int = 1_000_000
    """Tokens of prompts that may wait."""
    prefix_mb: int = 256
    """Memory in MiB for states at the ends of messages, which later dialogues may begin with."""

    def __post_init__(self) -> None:
        for name in ("slots", "piece_length", "queue_requests", "queue_tokens"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        check(self.prefix_mb >= 0, f"prefix_mb must not be negative, got {self.prefix_mb}")


@dataclass(frozen=True, kw_only=True)
class ServerSettings(EngineSettings):
    """The settings of a server."""

    quantize: Bits | None = None
    """Bits per weight to which the model is rounded; q8_0: 8 bits with a scale per 32 weights; default: as it is
    saved."""
    state_bits: Literal[8] | None = None
    """Bits per key and value of windows and `kv` memories; default: as the model has been saved. Documents that were
    saved with other bits cannot be continued."""
    max_prompt_tokens: int = 1_000_000
    """Most tokens of the prompt of one request."""
    max_new_tokens: int = 8192
    """Most tokens of one answer."""
    default_new_tokens: int = 512
    """Most tokens of an answer in a dialogue that names no limit."""
    max_body_mb: int = 16
    """Largest body of a request in MiB."""
    body_seconds: float = 30.0
    """Seconds in which the next part of a body must arrive."""
    sessions: str | None = None
    """Folder or bucket (gs://, s3://) for documents; without it they are lost at the end."""
    session_mb: int = 1024
    """Memory in MiB for documents; the least recently used ones leave it first."""
    session_hours: float = 24.0
    """Hours after which a document is removed: from memory since its last use, from `sessions` since it was written."""
    keys: tuple[str, ...] = ()
    """API keys; each sees its own documents alone. (): no key is asked for."""
    template: str | None = None
    """A chat template in place of the model's."""
    origins: tuple[str, ...] = ()
    """Origins of web pages that may call the server."""
    inspector: bool = False
    """Whether /inspect shows the page that looks into memories."""
    watchdog_seconds: float = 120.0
    """The process ends if the engine does nothing for so long while it has work; 0: never."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_prompt_tokens", "max_new_tokens", "default_new_tokens", "max_body_mb"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("session_mb", "watchdog_seconds"):
            check(getattr(self, name) >= 0, f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("body_seconds", "session_hours"):
            check(getattr(self, name) > 0, f"{name} must be positive, got {getattr(self, name)}")
        check(all(key.strip() for key in self.keys), "an API key is empty")
        check(
            self.default_new_tokens <= self.max_new_tokens,
            f"default_new_tokens={self.default_new_tokens} must be at most max_new_tokens={self.max_new_tokens}",
        )


def is_local(host: str) -> bool:
    """Whether only programs on this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
