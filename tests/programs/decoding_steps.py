"""Processor time of the server's decoding step, and of steps after which segments are written.

python -m tests.programs.decoding_steps SLOTS SEGMENT_LENGTH [STATE_BITS]
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import memgpt_jax as mg
from memgpt_jax.models.quantization import with_state_bits
from memgpt_jax.ops.trees import named_leaves
from memgpt_jax.serving.slots import Slots, empty, step, write_segment

RUNS = 40
SIZES = {"vocab_size": 2048, "d_model": 256, "num_layers": 6, "num_heads": 4, "window_size": 512}
FILLED = {"64 tokens": (64, 0), "a full window": (512, 0), "a full window and memory": (512, 2048)}
"""The number of tokens in each window, and of entries in each memory."""


def at(slots: Slots, offsets: Sequence[int]) -> Slots:
    """The slots with so many tokens in their open segments."""
    arrays = {"offset": np.array(offsets, np.int32), "fresh": np.zeros(len(offsets), bool)}
    layers = (layer._replace(stream=layer.stream._replace(**arrays)) for layer in slots.state.layers)
    return jax.device_put(slots._replace(state=slots.state._replace(layers=tuple(layers))))


def filled(slots: Slots, tokens: int, entries: int) -> Slots:
    """The slots with so many tokens in each window and so many entries in each memory."""

    def valid(name: str, x: Any) -> Any:
        places = np.arange(x.shape[1] if x.ndim > 1 else 0)[None]
        if name.endswith("window/valid"):
            return jnp.asarray(np.broadcast_to(places < tokens, x.shape))
        if name.endswith("entries/valid"):
            return jnp.asarray(np.broadcast_to(places >= x.shape[1] - entries, x.shape))
        return x

    leaves = [valid(name, x) for name, x in named_leaves(slots.state).items()]
    return slots._replace(state=jax.tree.unflatten(jax.tree.structure(slots.state), leaves))


def measured(run: Callable[[], Any], prepare: Callable[[], Any] = lambda: None) -> float:
    """The least processor time of a run, in milliseconds, `prepare` apart."""
    seconds = []
    for _ in range(RUNS):
        jax.block_until_ready(prepare())
        started = time.process_time()
        jax.block_until_ready(run())
        seconds.append(time.process_time() - started)
    return 1000 * min(seconds)


def main(number: int, segment: int, bits: int | None = None) -> None:
    config = mg.ModelConfig(**SIZES, segment_length=segment, memory=mg.KVMemoryConfig(memory_size=2048))
    config = config if bits is None else with_state_bits(config, bits)
    params = mg.functional(config).init(jax.random.key(0))
    slots = jax.device_put(empty(config, number))._replace(active=jnp.ones(number, bool))

    def move(offsets: Sequence[int]) -> Slots:
        nonlocal slots
        slots = at(slots, offsets)
        return slots

    def decode(ending: int = 0) -> Slots:
        nonlocal slots
        slots = step(config, params, slots)[1]
        for index in range(ending):
            slots = write_segment(config, params, slots, np.int32(index))
        return slots

    for name, sizes in FILLED.items():
        slots = filled(move([0] * number), *sizes)
        print(f"{number} slots with {name}: {measured(decode):.1f} ms")
    for ending in sorted({1, number}):
        places = [segment - 1] * ending + [0] * (number - ending)
        took = measured(partial(decode, ending), partial(move, places))
        print(f"{ending} of {number} slots end a segment of {segment}: {took:.1f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
