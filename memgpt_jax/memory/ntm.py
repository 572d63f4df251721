"""The Neural Turing Machine's memory: slots addressed by content and by location, which are erased and added to."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check
from memgpt_jax.memory.recurrent import Addressed, RecurrentMemory, RecurrentMemoryConfig, RecurrentState
from memgpt_jax.ops.memory import (
    address_entropy,
    content_weights,
    erase_and_add,
    interpolate_weights,
    sharpen_weights,
    shift_weights,
)
from memgpt_jax.shapes import Array, Float32


@dataclass(frozen=True, kw_only=True)
class NTMMemoryConfig(RecurrentMemoryConfig):
    """Neural Turing Machine: slots addressed by content and by location, which are erased and added to."""

    num_write_heads: int = 1
    """Write heads U."""
    shift_range: int = 1
    """Largest number of slots that a head can move to either side in one step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.num_write_heads >= 1, f"num_write_heads must be at least 1, got {self.num_write_heads}")
        check(self.shift_range >= 0, f"shift_range must be at least 0, got {self.shift_range}")


BLANK = 1e-6
"""Initial value of all slots; of the values that Collier and Beel (2018) tried, it learns fastest."""


class NTMSlots(NamedTuple):
    """Bytes per row: 4 M (W + R + U) for R read and U write heads, plus those of `RecurrentState.controller`."""

    matrix: Float32[Array, "B M W"]
    weights: Float32[Array, "B H M"]  # positions of the H = R + U heads: read heads, then write heads


class NTMInterface(NamedTuple):
    """Parameters of one token's read and write: addresses of all H = R + U heads, content for the U write heads."""

    key: Float32[Array, "... H W"]
    strength: Float32[Array, "... H"]  # at least 0
    gate: Float32[Array, "... H"]  # 1: address by content, 0: from the position of the head
    distance: Float32[Array, "... H shifts"]  # a distribution over shifts by -r to r slots
    power: Float32[Array, "... H"]  # at least 1
    erase: Float32[Array, "... U W"]  # in [0, 1]
    add: Float32[Array, "... U W"]


class NTMMemory(RecurrentMemory[NTMMemoryConfig]):
    """Neural Turing Machine: M slots of width W, R read heads and U write heads.

        w^c_i = softmax_i(beta cos(k, M_i))                     content address
        w^g   = g w^c + (1 - g) w_(t-1)                         interpolation with the previous position
        w'_i  = sum_o s_o w^g_(i-o mod M)                       shift by up to `shift_range` slots
        w_i   = w'_i^gamma / sum_j w'_j^gamma                   sharpening
        r     = sum_i w_i M_i                                   read heads
        M_i   = M_i prod_u (1 - w_ui e_u) + sum_u w_ui a_u      write heads, e in [0, 1]

    The interface vector (see `RecurrentMemory`) gives each head k [W], beta = softplus, g = sigmoid, s [2 r + 1] =
    softmax, gamma = 1 + softplus, and each write head e [W] = sigmoid and a [W]. A document begins with all slots at
    1e-6 and every head at slot 0.

    Graves, Wayne, Danihelka, "Neural Turing Machines" (2014), section 3.
    """

    def __init__(self, config: NTMMemoryConfig, *, d_model: int, segment_length: int, dtype: Any, rngs: nnx.Rngs):
        readers, writers, width = config.num_read_heads, config.num_write_heads, config.slot_width
        heads, shifts = readers + writers, 2 * config.shift_range + 1
        parts = {"key": (heads, width), "strength": (heads,), "gate": (heads,), "distance": (heads, shifts)}
        parts |= {"power": (heads,), "erase": (writers, width), "add": (writers, width)}
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs, parts=parts)
        # Initially, read heads address by content; write heads advance by one slot and erase it first.
        reads = jnp.arange(heads) < readers
        step = jnp.where(reads, config.shift_range, min(config.shift_range + 1, shifts - 1))
        biases = {"strength": 10.0, "gate": jnp.where(reads, 4.0, -4.0), "power": jnp.where(reads, 0.0, 3.0)}
        biases |= {"distance": 5.0 * jax.nn.one_hot(step, shifts), "erase": 2.0}
        self.start_as_pairs("key", "add", biases)

    def init_slots(self, batch_size: int) -> NTMSlots:
        config = self.config
        return NTMSlots(
            matrix=jnp.zeros((batch_size, config.memory_size, config.slot_width), jnp.float32),
            weights=jnp.zeros(
                (batch_size, config.num_read_heads + config.num_write_heads, config.memory_size), jnp.float32
            ),
        )

    def initial_slots(self, batch_size: int) -> NTMSlots:
        slots = self.init_slots(batch_size)
        return NTMSlots(slots.matrix + BLANK, slots.weights.at[:, :, 0].set(1.0))

    def interface(self, vector: Float32[Array, "... I"]) -> NTMInterface:
        part = self.parts_of(vector)
        return NTMInterface(
            key=part["key"],
            strength=jax.nn.softplus(part["strength"]),
            gate=jax.nn.sigmoid(part["gate"]),
            distance=jax.nn.softmax(part["distance"], axis=-1),
            power=1.0 + jax.nn.softplus(part["power"]),
            erase=jax.nn.sigmoid(part["erase"]),
            add=part["add"],
        )

    def address(self, interface: NTMInterface, slots: NTMSlots) -> Addressed:
        readers = self.config.num_read_heads
        if self.config.order == "read_write":
            weights = _address(interface, slots.matrix, slots.weights)
            matrix = erase_and_add(slots.matrix, weights[:, readers:], interface.erase, interface.add)
            return Addressed(weights[:, :readers], weights[:, readers:], slots.matrix, NTMSlots(matrix, weights))
        writing = _address(interface, slots.matrix, slots.weights, slice(readers, None))
        matrix = erase_and_add(slots.matrix, writing, interface.erase, interface.add)
        reading = _address(interface, matrix, slots.weights, slice(readers))
        weights = jnp.concatenate([reading, writing], axis=1)
        return Addressed(reading, writing, matrix, NTMSlots(matrix, weights))

    def stats(self, state: RecurrentState) -> dict[str, Array]:
        slots, readers = state.slots, self.config.num_read_heads
        return {
            "read_entropy": address_entropy(slots.weights[:, :readers]),
            "write_entropy": address_entropy(slots.weights[:, readers:]),
            "slot_norm": jnp.mean(jnp.linalg.norm(slots.matrix, axis=-1)),
        } | super().stats(state)


def _address(
    interface: NTMInterface,
    matrix: Float32[Array, "B M W"],
    weights: Float32[Array, "B H M"],
    heads: slice = slice(None),
) -> Float32[Array, "B h M"]:
    """The next positions of the given heads: content address, interpolation, shift, sharpening."""
    by_content = content_weights(matrix, interface.key[:, heads], interface.strength[:, heads])
    weights = interpolate_weights(by_content, weights[:, heads], interface.gate[:, heads])
    return sharpen_weights(shift_weights(weights, interface.distance[:, heads]), interface.power[:, heads])
