"""Timing by turns: a machine that others use, too, slows all candidates down alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax

STEPS_OF_A_TURN = 3


def timed(call: Callable, *arguments) -> tuple[Any, float]:
    """The result of a call, once it is there, and the seconds until the call came back."""
    start = time.perf_counter()
    result = call(*arguments)
    host = time.perf_counter() - start
    return jax.block_until_ready(result), host


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Something that can be run again and again."""

    run: Callable[[], float]
    """Runs once, until the results are there; returns the seconds that the host took to send it off."""
    tokens: int = 0
    """Tokens of a run."""
    flops: int = 0
    """Floating-point operations of its matmuls that the model needs: what is computed twice counts once."""
    bytes_moved: int = 0
    """Bytes that go through memory: for decoding, parameters and state, once for each token."""
    facts: Mapping[str, int] = field(default_factory=dict)
    """What else is known of it, without running: parameters, bytes of state and of temporary memory."""


class Medians(NamedTuple):
    """Of all runs, in seconds."""

    whole: float
    """From the call until the results are there."""
    host: float
    """Until the call came back."""


def take_turns(candidates: Mapping[str, Candidate], rounds: int) -> dict[str, Medians]:
    """Medians over `rounds` turns of each candidate.

    The first run of a turn does not count: it fetches again what memory the last candidate gave back to the system.
    """
    times = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            candidate.run()
            for _ in range(STEPS_OF_A_TURN):
                start = time.perf_counter()
                host = candidate.run()
                times[name].append((time.perf_counter() - start, host))
    return {name: Medians(*map(statistics.median, zip(*pairs, strict=True))) for name, pairs in times.items()}
