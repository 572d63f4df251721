"""The registry of memory mechanisms."""

from typing import Any

from memgpt_jax.config.memory import KVMemoryConfig, MemoryConfig, NoMemoryConfig
from memgpt_jax.config.registry import Registry
from memgpt_jax.memory.associative import AssociativeMemory, AssociativeMemoryConfig
from memgpt_jax.memory.base import Memory
from memgpt_jax.memory.compressive import CompressiveMemory, CompressiveMemoryConfig
from memgpt_jax.memory.dnc import DNCMemory, DNCMemoryConfig
from memgpt_jax.memory.knn import KNNMemory, KNNMemoryConfig
from memgpt_jax.memory.kv import KVMemory
from memgpt_jax.memory.memn2n import MemN2NMemory, MemN2NMemoryConfig
from memgpt_jax.memory.none import NoMemory
from memgpt_jax.memory.ntm import NTMMemory, NTMMemoryConfig
from memgpt_jax.memory.titans import TitansMemory, TitansMemoryConfig
from memgpt_jax.memory.tokens import TokensMemory, TokensMemoryConfig

MEMORIES: Registry[type[Memory[Any]]] = Registry("memory mechanism", Memory, MemoryConfig)
"""The memory mechanisms by name; `register_memory` adds one."""


def register_memory(name: str, config: type[MemoryConfig], module: type[Memory[Any]]) -> None:
    """Add a memory mechanism to `MEMORIES`: models can use it, and the command line offers `--model.memory NAME`.

    Args:
        name: a Python identifier that no other mechanism has.
        config: the frozen dataclass of its settings, derived from `MemoryConfig`.
        module: the class that implements it, derived from `Memory`.

    Raises:
        ValueError: the name or the configuration class is taken, or an argument is of a wrong kind.
    """
    MEMORIES.register(name, config, module)


register_memory("none", NoMemoryConfig, NoMemory)
register_memory("kv", KVMemoryConfig, KVMemory)
register_memory("knn", KNNMemoryConfig, KNNMemory)
register_memory("ntm", NTMMemoryConfig, NTMMemory)
register_memory("dnc", DNCMemoryConfig, DNCMemory)
register_memory("memn2n", MemN2NMemoryConfig, MemN2NMemory)
register_memory("tokens", TokensMemoryConfig, TokensMemory)
register_memory("associative", AssociativeMemoryConfig, AssociativeMemory)
register_memory("compressive", CompressiveMemoryConfig, CompressiveMemory)
register_memory("titans", TitansMemoryConfig, TitansMemory)
