"""The check of a mechanism of your own: an error names the method and the field."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import pytest
from flax import nnx

from memgpt_jax.config.memory import KVMemoryConfig, SizedMemoryConfig
from memgpt_jax.memory import Memory, make_memory, memory_bytes_per_row, register_memory
from memgpt_jax.models.memory_layer import MemoryLayer
from memgpt_jax.shapes import Array

SHAPES = {"d_model": 6, "segment_length": 4}


class SumState(NamedTuple):
    total: Array
    last: Array


class SumMemory(Memory):
    """The sum of all tokens, and the last token."""

    def init_state(self, batch_size):
        return SumState(jnp.zeros((batch_size, 6)), jnp.zeros((batch_size, 6)))

    def read(self, x, state, own_segment, update_mask):
        return jnp.broadcast_to(state.total[:, None], x.shape), state

    def write(self, x, state, write_mask):
        return SumState(state.total + jnp.sum(x, axis=1), x[:, -1])


def one_array(self, batch_size):
    zeros = jnp.zeros((batch_size, 6))
    return SumState(zeros, zeros)


FAULTS = {
    "no_batch": ("init_state", lambda self, batch_size: SumState(jnp.zeros(6), jnp.zeros((batch_size, 6)))),
    "no_array": ("init_state", lambda self, batch_size: SumState(jnp.zeros((batch_size, 6)), 0)),
    "twice": ("init_state", one_array),
    "initial": ("initial_state", lambda self, batch_size: SumMemory.init_state(self, batch_size + 1)),
    "read_alone": ("read", lambda self, x, state, *_: x),
    "width": ("read", lambda self, x, state, *_: (x[..., :5], state)),
    "rows": ("read", lambda self, x, state, *_: (state.total, state)),
    "read_type": ("read", lambda self, x, state, *_: (x, state._replace(last=state.last > 0))),
    "type": ("write", lambda self, x, state, mask: state._replace(total=state.total.astype(jnp.bfloat16))),
    "shape": ("write", lambda self, x, state, mask: state._replace(last=x)),
    "structure": ("write", lambda self, x, state, mask: tuple(state)),
    "nothing": ("write", lambda self, x, state, mask: None),
}
MESSAGES = {
    "no_batch": r"init_state\(2\): field `total` is float32\[6\]; every array of a state has the batch axis first",
    "no_array": r"init_state\(2\): field `last` is int; every array",
    "twice": "init_state: field `total` and field `last` are one array",
    "initial": r"initial_state: field `total` is float32\[3,6\], in `init_state` float32\[2,6\]",
    "read_alone": r"read must return the pair \(read, state\), got ShapeDtypeStruct",
    "width": r"read: the read of one token of 2 rows must be \[2, 1, 6\] \(R = 6: D\), got float32\[2,1,5\]",
    "rows": r"read: the read of one token of 2 rows must be \[2, 1, 6\] \(R = 6: D\), got float32\[2,6\]",
    "read_type": r"read: field `last` is bool\[2,6\], in `init_state` float32\[2,6\]",
    "type": r"write: field `total` is bfloat16\[2,6\], in `init_state` float32\[2,6\]",
    "shape": r"write: field `last` is float32\[2,4,6\], in `init_state` float32\[2,6\]",
    "structure": r"write: the state must be PyTreeDef\(.*SumState.* as in `init_state`, got PyTreeDef",
    "nothing": r"write: the state must be PyTreeDef\(.* as in `init_state`, got PyTreeDef\(None\)",
}


@pytest.fixture
def register():
    def add(name, module):
        config = dataclasses.dataclass(frozen=True, kw_only=True)(type(f"{name}Config", (SizedMemoryConfig,), {}))
        register_memory(name, config, module)
        return config()

    return add


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(register, fault):
    config = register(fault, type("Own", (SumMemory,), dict([FAULTS[fault]])))
    with pytest.raises(ValueError, match=f"Own.{MESSAGES[fault]}"):
        make_memory(config, dtype="float32", rngs=nnx.Rngs(0), **SHAPES)


def test_a_mechanism_is_traced_once(register):
    reads = []

    def read(self, x, state, *_):
        reads.append(x.shape)
        return SumMemory.read(self, x, state, *_)

    config = register("counted", type("Counted", (SumMemory,), {"read": read}))
    for _ in range(2):
        MemoryLayer(config, rngs=nnx.Rngs(0), **SHAPES)
    memory_bytes_per_row(config, dtype="float32", d_model=6, segment_length=8)
    assert reads == [(2, 1, 6)]


def test_a_class_or_a_number_in_the_place_of_an_object_is_named():
    with pytest.raises(ValueError, match="memory must be a MemoryConfig, got the class KVMemoryConfig: call it"):
        MemoryLayer(KVMemoryConfig, rngs=nnx.Rngs(0), **SHAPES)
    with pytest.raises(ValueError, match="rngs must be a Rngs, got int"):
        MemoryLayer(KVMemoryConfig(), rngs=0, **SHAPES)
