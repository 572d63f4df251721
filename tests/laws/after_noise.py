"""Whether a memory still learns after a long stream of noise: one measure for every mechanism.

python tests/laws/after_noise.py TOKENS CALLS [CASE ...] prints the figures; see `learning_after`.
"""

import dataclasses
import functools
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from memgpt_jax.memory import MEMORIES, make_memory
from memgpt_jax.memory.none import NoMemory
from memgpt_jax.memory.streaming import init_stream_state, stream

SEGMENT, WIDTH, ROWS = 8, 32, 4
CALL = 16 * SEGMENT  # tokens of a call
SIZES = {"num_heads": 2, "head_dim": 16, "slot_width": 32, "controller_size": 32, "top_k": 8}
MEMORY_SIZE = {"kv": 256, "knn": 256, "memn2n": 256, "compressive": 256, "tokens": 16}  # others: 32
OPTIONS = {
    "titans of one layer": ("titans", {"num_layers": 1}),
    "titans of three layers": ("titans", {"num_layers": 3}),
    "titans that hardly forgets": ("titans", {"forget_bias": -8.0}),
    "titans that forgets fast": ("titans", {"forget_bias": -2.0}),
    "delta rule with forget": ("associative", {"forget": True}),
    "delta rule of elu": ("associative", {"feature_map": "elu"}),
    "delta rule of dpfp": ("associative", {"feature_map": "dpfp"}),
    "linear rule": ("associative", {"rule": "linear"}),
    "linear rule with forget": ("associative", {"rule": "linear", "forget": True}),
    "normalised linear rule": ("associative", {"rule": "linear", "feature_map": "elu", "normalize": True}),
    "normalised linear rule with forget": (
        "associative",
        {"rule": "linear", "feature_map": "elu", "normalize": True, "forget": True},
    ),
    "ntm with an LSTM": ("ntm", {"controller": "lstm"}),
    "dnc with an LSTM": ("dnc", {"controller": "lstm"}),
    "dnc that writes first": ("dnc", {"order": "write_read"}),
    "tokens with a fixed gate": ("tokens", {"update": "fixed"}),
    "tokens that are replaced": ("tokens", {"update": "replace"}),
    "memn2n of segments": ("memn2n", {"entry": "segment", "memory_size": 16}),
    "kv without the lowest gates": ("kv", {"evict": "lowest_gate"}),
    "kv without the least read": ("kv", {"evict": "least_read"}),
    "kv of scaled entries": ("kv", {"gate": "scale"}),
    "kv of pooled entries": ("kv", {"select": "pool", "select_size": 4}),
    "compressive, most used": ("compressive", {"compression": "most_used"}),
}


def case(name: str):
    """The config of a mechanism of `MEMORIES`, or of one of the OPTIONS."""
    mechanism, options = OPTIONS.get(name, (name, {}))
    config_class = MEMORIES[mechanism].config
    sizes = SIZES | {"memory_size": MEMORY_SIZE.get(mechanism, 32)} | options
    fields = {field.name for field in dataclasses.fields(config_class)}
    return config_class(**{key: value for key, value in sizes.items() if key in fields})


CASES = [*(name for name, entry in MEMORIES.items() if not issubclass(entry.module, NoMemory)), *OPTIONS]


class Learning(NamedTuple):
    """How far the pairs that a memory was taught decide its reads."""

    change: float  # |r - r'| in root mean square, of reads after two ways to pair the same tokens
    share: float  # the change in units of the reads: 2^(1/2) where r and r' are orthogonal, 0 where they are equal


@functools.partial(jax.jit, static_argnums=1)
def noise(seed, length):
    return jax.random.normal(jax.random.key(seed), (ROWS, length, WIDTH))


def learning_after(config, tokens: int, calls: int = 1) -> tuple[Learning, Learning]:
    """What an untrained memory learns when it is fresh, and what it learns after a number of tokens of noise.

    The pattern of a row is a segment of 8 random tokens: question, answer, question, answer, and so on. The memory
    reads it 15 times in one call (16 times more in each further call), and then once more, with the reads r. From the
    same state it reads a segment in which each question has the answer of the one before, and then the first segment
    once more, with the reads r'. r and r' are nearly equal where the memory has stopped learning, where it is so full
    of noise that a pattern makes no difference, and where it has kept the tokens but not the pairs.

    Raises:
        AssertionError: a read or a number of the state is not finite.
    """
    make = nnx.jit(
        lambda: make_memory(config, d_model=WIDTH, segment_length=SEGMENT, dtype="float32", rngs=nnx.Rngs(0))
    )
    memory = make()
    graph, params = nnx.split(memory)
    everywhere = jnp.ones((ROWS, CALL), bool)

    @jax.jit
    def run(params, x, state):
        read, state = stream(nnx.merge(graph, params), x, state, ~everywhere, everywhere, "aligned")
        return read[:, -SEGMENT:], state

    def taught(pattern, asked, state):
        for left in reversed(range(calls)):
            segments = [pattern] * (CALL // SEGMENT - 1) + [pattern if left else asked]
            read, state = run(params, np.concatenate(segments, axis=1), state)
        return np.asarray(read)

    def learned(state):
        pairs = np.array(noise(1, SEGMENT))
        other_pairs = pairs.copy()
        other_pairs[:, 1::2] = np.roll(pairs[:, 1::2], 1, axis=1)
        reads = np.array([taught(pattern, pairs, state) for pattern in (pairs, other_pairs)])
        assert np.all(np.isfinite(reads))
        change, size = np.sqrt(np.mean((reads[0] - reads[1]) ** 2)), np.sqrt(np.mean(reads**2))
        return Learning(float(change), float(change / size) if size else 0.0)

    state = init_stream_state(memory, ROWS, SEGMENT, WIDTH, jnp.dtype("float32"))
    fresh = learned(state)
    for number in range(-(-tokens // CALL)):
        _, state = run(params, noise(100 + number, CALL), state)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    return fresh, learned(state)


def ratio(results: tuple[Learning, Learning]) -> float:
    """The lower of the two measures after noise, in units of the fresh memory's."""
    return min(after / fresh for fresh, after in zip(*results, strict=True))


def main(tokens: int, calls: int, names: list[str]) -> None:
    """Print a row for each case."""
    print("| case | change: fresh | after noise | share: fresh | after noise | ratio |\n|---|---|---|---|---|---|")
    for name in names or CASES:
        results = learning_after(case(name), tokens, calls)
        (change, share), (change_after, share_after) = results
        figures = f"{change:.3f} | {change_after:.3f} | {share:.3f} | {share_after:.3f} | {ratio(results):.2f}"
        print(f"| {name} | {figures} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
