"""The Differentiable Neural Computer's memory: slots that are allocated, freed, and linked in the order of writing."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.memory.recurrent import Addressed, RecurrentMemory, RecurrentMemoryConfig, RecurrentState
from memgpt_jax.ops.memory import (
    address_entropy,
    allocation_weights,
    content_weights,
    erase_and_add,
    follow_links,
    free_usage,
    link_writes,
    update_usage,
)
from memgpt_jax.shapes import Array, Float32


@dataclass(frozen=True, kw_only=True)
class DNCMemoryConfig(RecurrentMemoryConfig):
    """Differentiable Neural Computer: slots that are allocated, freed, and linked in the order of writing."""


class DNCSlots(NamedTuple):
    """Bytes per row: 4 M (M + W + R + 2) for R read heads, plus those of `RecurrentState.controller`."""

    matrix: Float32[Array, "B M W"]
    usage: Float32[Array, "B M"]  # in [0, 1]; includes the last write, not the next freeing
    link: Float32[Array, "B M M"]  # [i, j]: degree to which slot i was written right after slot j
    precedence: Float32[Array, "B M"]  # degree to which a slot was the last one written
    read_weights: Float32[Array, "B R M"]


class DNCInterface(NamedTuple):
    """Parameters of one token's read and write: R read heads and one write head."""

    read_key: Float32[Array, "... R W"]
    read_strength: Float32[Array, "... R"]  # at least 1
    write_key: Float32[Array, "... 1 W"]
    write_strength: Float32[Array, "... 1"]  # at least 1
    erase: Float32[Array, "... 1 W"]  # in [0, 1]
    add: Float32[Array, "... 1 W"]
    free_gates: Float32[Array, "... R"]  # in [0, 1]
    allocation_gate: Float32[Array, "... 1"]  # 1: write to free slots, 0: write by content
    write_gate: Float32[Array, "... 1"]  # 0: write nothing
    read_modes: Float32[Array, "... R 3"]  # a distribution: backward in time, by content, forward in time


class DNCMemory(RecurrentMemory[DNCMemoryConfig]):
    """Differentiable Neural Computer: M slots of width W, R read heads and one write head.

        psi   = prod_r (1 - f_r w^r)                                       share of each slot that is kept
        u     = psi u;   a = allocation(u)                                 free slots first
        w     = g_w (g_a a + (1 - g_a) softmax_i(beta_w cos(k_w, M_i)))    write weights
        M_i   = M_i (1 - w_i e) + w_i v
        u     = u + w - u w
        L_ij  = (1 - w_i - w_j) L_ij + w_i p_j,  L_ii = 0;   p = (1 - sum_i w_i) p + w
        w^r   = pi_1 L^T w^r + pi_2 softmax_i(beta_r cos(k_r, M_i)) + pi_3 L w^r,     r_r = sum_i w^r_i M_i

    The first six lines are the write, the last line is the read; `order` determines which is first. In the paper it is
    the write (`order="write_read"`); with the other order, the write of a token follows its read. The interface vector
    (see `RecurrentMemory`) contains the keys and v unchanged; strengths beta = 1 + softplus, the read modes pi [3] =
    softmax, and e, f, g_a, g_w = sigmoid. A document begins with zeros. Unlike the paper's, allocation orders slots by
    their usage rounded to 2^-12 (`ops.memory.allocation_weights`).

    **Long streams.** If the usage of all slots is equal, allocation spreads a write over all of them, and no slot holds
    a pair. So slots must be freed from the start: without an LSTM the gates f start at 0.27, and after 100,000 tokens
    of noise new pairs change the reads 0.79 times as much as those of an initial memory; with gates that start at 0.02,
    0.21 times (`python tests/laws/after_noise.py 100000 1 dnc`).

    Graves et al., "Hybrid computing using a neural network with dynamic external memory" (2016), Methods.
    """

    def __init__(self, config: DNCMemoryConfig, *, d_model: int, segment_length: int, dtype: Any, rngs: nnx.Rngs):
        heads, width = config.num_read_heads, config.slot_width
        parts = {"read_key": (heads, width), "read_strength": (heads,), "write_key": (1, width), "write_strength": (1,)}
        parts |= {"erase": (1, width), "add": (1, width), "free_gates": (heads,), "allocation_gate": (1,)}
        parts |= {"write_gate": (1,), "read_modes": (heads, 3)}
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs, parts=parts)
        # Initially, tokens are written to free slots and read by content. A read frees a part of its slot, so that the
        # next token without a free slot is written there and not into all slots. Until then the slot is unchanged.
        biases = {"read_strength": 10.0, "write_strength": 10.0, "free_gates": -1.0, "allocation_gate": 4.0}
        biases |= {"write_gate": 0.0, "read_modes": jnp.asarray([0.0, 4.0, 0.0])}
        self.start_as_pairs("read_key", "add", biases)

    def init_slots(self, batch_size: int) -> DNCSlots:
        size = self.config.memory_size

        def zeros(*shape: int) -> Array:
            return jnp.zeros((batch_size, *shape), jnp.float32)

        return DNCSlots(
            matrix=zeros(size, self.config.slot_width),
            usage=zeros(size),
            link=zeros(size, size),
            precedence=zeros(size),
            read_weights=zeros(self.config.num_read_heads, size),
        )

    def interface(self, vector: Float32[Array, "... I"]) -> DNCInterface:
        part = self.parts_of(vector)
        return DNCInterface(
            read_key=part["read_key"],
            read_strength=1.0 + jax.nn.softplus(part["read_strength"]),
            write_key=part["write_key"],
            write_strength=1.0 + jax.nn.softplus(part["write_strength"]),
            erase=jax.nn.sigmoid(part["erase"]),
            add=part["add"],
            free_gates=jax.nn.sigmoid(part["free_gates"]),
            allocation_gate=jax.nn.sigmoid(part["allocation_gate"]),
            write_gate=jax.nn.sigmoid(part["write_gate"]),
            read_modes=jax.nn.softmax(part["read_modes"], axis=-1),
        )

    def address(self, interface: DNCInterface, slots: DNCSlots) -> Addressed:
        if self.config.order == "write_read":
            writes, slots = _write(interface, slots)
            slots = slots._replace(read_weights=_read_weights(interface, slots))
            return Addressed(slots.read_weights, writes, slots.matrix, slots)
        read = slots._replace(read_weights=_read_weights(interface, slots))
        writes, slots = _write(interface, read)
        return Addressed(read.read_weights, writes, read.matrix, slots)

    def stats(self, state: RecurrentState) -> dict[str, Array]:
        slots = state.slots
        return {
            "usage": jnp.mean(slots.usage),
            "read_entropy": address_entropy(slots.read_weights),
            "last_write_entropy": address_entropy(slots.precedence[:, None]),
        } | super().stats(state)


def _write(interface: DNCInterface, slots: DNCSlots) -> tuple[Float32[Array, "B 1 M"], DNCSlots]:
    """The weights of a write, and the slots after it."""
    usage = free_usage(slots.usage, slots.read_weights, interface.free_gates)
    by_content = content_weights(slots.matrix, interface.write_key, interface.write_strength)[:, 0]
    where = interface.allocation_gate
    weights = interface.write_gate * (where * allocation_weights(usage) + (1.0 - where) * by_content)
    link, precedence = link_writes(slots.link, slots.precedence, weights)
    matrix = erase_and_add(slots.matrix, weights[:, None], interface.erase, interface.add)
    return weights[:, None], DNCSlots(matrix, update_usage(usage, weights), link, precedence, slots.read_weights)


def _read_weights(interface: DNCInterface, slots: DNCSlots) -> Float32[Array, "B R M"]:
    forward, backward = follow_links(slots.link, slots.read_weights)
    by_content = content_weights(slots.matrix, interface.read_key, interface.read_strength)
    modes = interface.read_modes
    return modes[..., 0:1] * backward + modes[..., 1:2] * by_content + modes[..., 2:3] * forward
