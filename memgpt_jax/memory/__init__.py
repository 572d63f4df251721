"""Memory mechanisms, all behind the interface of `memgpt_jax.memory.base`."""

from memgpt_jax.memory.base import Memory
from memgpt_jax.memory.registry import MEMORIES, register_memory
from memgpt_jax.memory.sizes import layer_memory_bytes, make_memory, memory_bytes_per_row, resolved, resolved_memory

__all__ = [
    "MEMORIES",
    "Memory",
    "layer_memory_bytes",
    "make_memory",
    "memory_bytes_per_row",
    "register_memory",
    "resolved",
    "resolved_memory",
]
