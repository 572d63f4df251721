"""Memory mechanisms, all behind the interface of `memgpt_jax.memory.base`."""

from memgpt_jax.config import KVMemoryConfig, NoMemoryConfig
from memgpt_jax.memory.base import Memory
from memgpt_jax.memory.kv import KVMemory
from memgpt_jax.memory.none import NoMemory

MEMORIES = {
    "none": (NoMemoryConfig, NoMemory),
    "kv": (KVMemoryConfig, KVMemory),
}


def make_memory(config, **arguments) -> Memory:
    """The mechanism that a memory config describes."""
    for config_class, module_class in MEMORIES.values():
        if type(config) is config_class:
            return module_class(config, **arguments)
    valid = ", ".join(config_class.__name__ for config_class, _ in MEMORIES.values())
    raise ValueError(f"unknown memory config {type(config).__name__}; valid: {valid}")
