"""A stream of any length, read or written by a small model: time, memory, compilations."""

import resource
import statistics
import time
from typing import Any

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation import Sampling
from memgpt_jax.generation.decode import CAPACITY, Prefilled, advance, begin
from memgpt_jax.generation.prefill import compiled_read, prefill

SMALL = ModelConfig(vocab_size=257, d_model=64, num_layers=2, window_size=128, memory=KVMemoryConfig(memory_size=1024))
PIECE = 1024


def stream_measurements(num_tokens: int, by_token: bool) -> dict[str, Any]:
    """Milliseconds per 1,000 tokens in each tenth, growth of this process after 10,000 tokens in MB, compilations."""
    params = models.init(SMALL, jax.random.key(0))
    random, never = np.random.default_rng(0), np.zeros(0, np.int32)
    compiled = advance if by_token else compiled_read
    earlier = compiled._cache_size()
    state = models.init_state(SMALL, 1)
    if by_token:
        logits, state = prefill(SMALL, params, [random.integers(257, size=PIECE)], state)
        prompts = Prefilled(logits, state, np.full(1, 2**30, np.int32), None, never)
        decoding = begin(Sampling(), 1, prompts, np.uint32(0))
    times, peak = [], 0
    for number in range(num_tokens // PIECE):
        start = time.perf_counter()
        if by_token:
            for _ in range(PIECE // CAPACITY):
                tokens, decoding = advance(SMALL, Sampling(), params, decoding, CAPACITY, never)
            tokens.block_until_ready()
        else:
            logits, state = prefill(SMALL, params, [random.integers(257, size=PIECE)], state)
            logits.block_until_ready()
        times.append(1e6 * (time.perf_counter() - start) / PIECE)
        if number < 10_000 // PIECE + 1:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tenth = len(times) // 10
    return {
        "milliseconds": [statistics.median(times[i * tenth : (i + 1) * tenth]) for i in range(10)],
        "growth": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024,
        "compilations": compiled._cache_size() - earlier,
    }
