"""Knowledge of many entries: encoded into a folder, written into a state and read. Prints a line of JSON.

Run by `tests/knowledge/test_many_entries.py`: python -m tests.programs.many_entries NUMBER FOLDER [TOP_K [RECALL]]
"""

import json
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

import memgpt_jax as mg

LENGTH, CALLS = 16, 5
"""Tokens of a text, each an entry; calls of which the fastest is reported."""


def peak() -> float:
    """The most memory that the process has held so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def texts(number: int) -> Iterator[list[int]]:
    for seed in range(number // LENGTH):
        yield np.random.default_rng(seed).integers(256, size=LENGTH).tolist()


def main(number: int, folder: Path, top_k: int | None = None, recall: float | None = None) -> None:
    memory = mg.KVMemoryConfig(
        memory_size=LENGTH,
        knowledge_size=number,
        knowledge_top_k=top_k,
        knowledge_recall=recall,
        num_heads=2,
        head_dim=16,
    )
    sizes = {"vocab_size": 256, "d_model": 32, "num_layers": 1, "num_heads": 2}
    config = mg.ModelConfig(**sizes, window_size=LENGTH, segment_length=LENGTH, memory=memory)
    params = mg.functional(config).init(jax.random.key(0))
    model = (config, params)
    few = mg.knowledge.encode(model, texts(10_000), batch_size=512, path=folder / "few")  # compiles
    found: dict[str, float] = {"entries": number, "mb_before": peak()}
    start = time.process_time()
    facts = mg.knowledge.encode(model, texts(number), batch_size=512, path=folder / "facts")
    found |= {"cpu_seconds_encoding": time.process_time() - start, "mb_encoding": peak()}
    assert len(facts) == number and np.array_equal(facts.layers[0].keys[: len(few)], few.layers[0].keys)
    state = mg.knowledge.write(model, mg.functional(config).init_state(1), facts)
    apply, tokens = jax.jit(mg.functional(config).apply), np.arange(4, dtype=np.int32)[None]
    seconds = []
    for _ in range(CALLS):
        start = time.perf_counter()
        jax.block_until_ready(apply(params, tokens, state))
        seconds.append(time.perf_counter() - start)
    found |= {"ms_per_token_reading": 1000 * min(seconds) / tokens.size, "mb_reading": peak()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:4]), *map(float, sys.argv[4:]))
