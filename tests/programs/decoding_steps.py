"""Processor time of the server's decoding step, and of steps after which segments are written.

python -m tests.programs.decoding_steps SLOTS SEGMENT_LENGTH
"""

import sys
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

import memgpt_jax as mg
from memgpt_jax.serving.slots import Slots, empty, step, write_segment

RUNS = 20


def at(slots: Slots, offsets: Sequence[int]) -> Slots:
    """The slots with so many tokens in their open segments."""
    arrays = {"offset": np.array(offsets, np.int32), "fresh": np.zeros(len(offsets), bool)}
    layers = (layer._replace(stream=layer.stream._replace(**arrays)) for layer in slots.state.layers)
    return jax.device_put(slots._replace(state=slots.state._replace(layers=tuple(layers))))


def main(number: int, segment: int) -> None:
    sizes = {"vocab_size": 2048, "d_model": 256, "num_layers": 6, "num_heads": 4, "window_size": 512}
    config = mg.ModelConfig(**sizes, segment_length=segment, memory=mg.KVMemoryConfig(memory_size=2048))
    params = mg.functional(config).init(jax.random.key(0))
    slots = jax.device_put(empty(config, number))._replace(active=jnp.ones(number, bool))
    for ending in sorted({0, 1, number}):
        offsets, seconds = [segment - 1] * ending + [0] * (number - ending), []
        for _ in range(RUNS):
            slots = jax.block_until_ready(at(slots, offsets))
            started = time.process_time()
            chosen, slots = step(config, params, slots)
            for index in range(ending):
                slots = write_segment(config, params, slots, np.int32(index))
            jax.block_until_ready((chosen, slots))
            seconds.append(time.process_time() - started)
        print(f"{ending} of {number} slots end a segment of {segment}: {1000 * min(seconds):.1f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
