"""Interleaved timing: cases alternate, so that background load affects all of them equally."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax

RUNS_PER_ROUND = 3


def timed(call: Callable, *arguments) -> tuple[Any, float]:
    """The result of a call, computed, and the seconds until the call returned (dispatch time)."""
    start = time.perf_counter()
    result = call(*arguments)
    host = time.perf_counter() - start
    return jax.block_until_ready(result), host


@dataclass(frozen=True, kw_only=True)
class Case:
    """One benchmark case: a computation that can be repeated."""

    run: Callable[[], float]
    """Run once until the results are computed; returns the dispatch time on the host in seconds."""
    tokens: int = 0
    """Tokens processed by one run."""
    flops: int = 0
    """Floating-point operations of the matmuls of one run; recomputation is not counted."""
    bytes_moved: int = 0
    """Bytes moved through memory by one run: for decoding, parameters and state once per token."""
    facts: Mapping[str, int] = field(default_factory=dict)
    """Facts known without running: numbers of parameters, bytes of state and of temporary memory."""


class Medians(NamedTuple):
    """Median times of all runs, in seconds."""

    whole: float
    """From the call until the results are computed."""
    host: float
    """Until the call returned (dispatch)."""


def interleave(cases: Mapping[str, Case], rounds: int) -> dict[str, Medians]:
    """Medians over `rounds` rounds, in each of which every case runs 1 + RUNS_PER_ROUND times.

    The first run of a round is a warm-up and is not counted: it reacquires memory that the previous case released.
    """
    times = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            case.run()
            for _ in range(RUNS_PER_ROUND):
                start = time.perf_counter()
                host = case.run()
                times[name].append((time.perf_counter() - start, host))
    return {name: Medians(*map(statistics.median, zip(*pairs, strict=True))) for name, pairs in times.items()}
