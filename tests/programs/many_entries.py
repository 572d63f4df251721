"""Knowledge of many entries: encoded into a folder, written into a state and read. Prints a line of JSON.

Run by `tests/knowledge/test_many_entries.py`:

python -m tests.programs.many_entries NUMBER FOLDER [TOP_K [RECALL [CELLS]]], 0: none
"""

import json
import re
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import memgpt_jax as mg
from memgpt_jax.ops.memory import ReadableEntries, read_nearest

LENGTH, CALLS = 16, 5
"""Tokens of a text, each an entry; calls of which the fastest is reported."""


def peak() -> float:
    """The most memory that the process has held so far, in MB. (`ru_maxrss` may be that of the process before it.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def texts(number: int) -> Iterator[list[int]]:
    for seed in range(number // LENGTH):
        yield np.random.default_rng(seed).integers(256, size=LENGTH).tolist()


def recall_of_index(model: tuple, state: Any, top_k: int) -> dict[str, float]:
    """The share of the nearest entries of random queries that the index finds, for numbers of probes."""
    config, params = model
    knowledge = state.layers[0].stream.memory.knowledge
    stored = ReadableEntries(knowledge.keys, knowledge.values, knowledge.log_gate)
    number = jax.numpy.array([config.memory.knowledge_size], "int32")
    rng, found = np.random.default_rng(0), {}
    ids = rng.integers(256, size=(1, 64)).astype(np.int32)
    layer = mg.from_params(config, params).blocks[0].memory_layer
    hidden = mg.from_params(config, params).embed(jax.numpy.asarray(ids))
    query = layer.memory.queries(layer.norm(hidden))
    exact = np.asarray(read_nearest(query, stored, number, top_k).place)
    for probes in (1, 2, 4, 8, 16, 32):
        some = np.asarray(read_nearest(query, stored, number, top_k, cells=knowledge.cells, probes=probes).place)
        shares = [np.isin(a, b).mean() for a, b in zip(exact.reshape(-1, top_k), some.reshape(-1, top_k), strict=True)]
        found[f"recall_{probes}_probes"] = float(np.mean(shares))
    return found


def main(number: int, folder: Path, top_k: int | None = None, recall: float | None = None, cells: int = 0) -> None:
    memory = mg.KVMemoryConfig(
        memory_size=LENGTH,
        knowledge_size=number,
        knowledge_top_k=top_k,
        knowledge_recall=recall or None,
        knowledge_cells=cells or None,
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
    apply, tokens = jax.jit(mg.functional(config).apply, donate_argnums=2), np.arange(4, dtype=np.int32)[None]
    seconds = []
    for _ in range(CALLS):
        start = time.perf_counter()
        _, state = jax.block_until_ready(apply(params, tokens, state))
        seconds.append(time.perf_counter() - start)
    found |= {"ms_per_token_reading": 1000 * min(seconds) / tokens.size, "mb_reading": peak()}
    if cells:
        found |= recall_of_index(model, state, top_k or 1)
    print(json.dumps(found))


if __name__ == "__main__":
    main(
        int(sys.argv[1]),
        Path(sys.argv[2]),
        *map(int, sys.argv[3:4]),
        *map(float, sys.argv[4:5]),
        *map(int, sys.argv[5:]),
    )
