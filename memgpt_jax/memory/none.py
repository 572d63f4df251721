"""No memory: the baseline as a mechanism."""

import jax.numpy as jnp

from memgpt_jax.memory.base import Memory


class NoMemory(Memory):
    """Reads 0 and stores nothing. State: 0 bytes."""

    def init_state(self, batch_size):
        return ()

    def read(self, x, state, own_segment, update_mask):
        return jnp.zeros_like(x), state

    def write(self, x, state, write_mask):
        return state
