"""The baseline without a memory, as a mechanism."""

import jax.numpy as jnp

from memgpt_jax.memory.base import Memory, OwnSegment
from memgpt_jax.shapes import Array, Bool, Float


class NoMemory(Memory):
    """Reads 0 and stores nothing. State: 0 bytes."""

    def init_state(self, batch_size: int) -> tuple[()]:
        return ()

    def read(
        self, x: Float[Array, "B Q D"], state: tuple[()], own_segment: OwnSegment, update_mask: Bool[Array, "B Q"]
    ) -> tuple[Float[Array, "B Q R"], tuple[()]]:
        return jnp.zeros_like(x), state

    def write(self, x: Float[Array, "B T D"], state: tuple[()], write_mask: Bool[Array, "B T"]) -> tuple[()]:
        return state
