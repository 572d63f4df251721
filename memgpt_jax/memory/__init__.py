"""Memory mechanisms, all behind the interface of `memgpt_jax.memory.base`."""

import dataclasses
import functools
from typing import Any

import jax
from flax import nnx

from memgpt_jax.config.memory import KVMemoryConfig, MemoryConfig, NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
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

MEMORIES = {
    "none": (NoMemoryConfig, NoMemory),
    "kv": (KVMemoryConfig, KVMemory),
    "knn": (KNNMemoryConfig, KNNMemory),
    "ntm": (NTMMemoryConfig, NTMMemory),
    "dnc": (DNCMemoryConfig, DNCMemory),
    "memn2n": (MemN2NMemoryConfig, MemN2NMemory),
    "tokens": (TokensMemoryConfig, TokensMemory),
    "associative": (AssociativeMemoryConfig, AssociativeMemory),
    "compressive": (CompressiveMemoryConfig, CompressiveMemory),
    "titans": (TitansMemoryConfig, TitansMemory),
}
"""The mechanisms by name. A mechanism of your own becomes `--model.memory NAME` by one more entry."""

LARGEST = 2**30  # of the sizes that `match_state_bytes` tries


def make_memory(config: MemoryConfig, *, rngs: nnx.Rngs, **shapes) -> Memory:
    """The mechanism that a memory config describes, sized to `match_state_bytes` where that is given.

    Arguments:
        config: of a mechanism in `MEMORIES`.
        rngs: from which its parameters are drawn.
        shapes: `d_model`, `segment_length` and `dtype`.

    Raises:
        ValueError: the config belongs to no mechanism, or its smallest state has more than `match_state_bytes`.
    """
    if getattr(config, "match_state_bytes", None) is not None:
        config = _matched(config, **shapes)
    return _module_class(config)(config, rngs=rngs, **shapes)


def resolved(config: ModelConfig) -> ModelConfig:
    """The config with the memory sizes that follow from `match_state_bytes`; its model has the same arrays.

    Raises:
        ValueError: the smallest state of a mechanism has more than its `match_state_bytes`.
    """
    stacks = dict(config.stacks)
    for name, stack in stacks.items():
        if getattr(stack.memory, "match_state_bytes", None) is not None:
            memory = _matched(stack.memory, **_memory_shapes(stack))
            stacks[name] = dataclasses.replace(stack, memory=memory)
    return config.with_stacks(stacks)


def _memory_shapes(stack: ModelConfig) -> dict[str, Any]:
    return {name: getattr(stack, name) for name in ("d_model", "segment_length", "dtype")}


def state_bytes(config: ModelConfig) -> int:
    """Bytes of one layer's memory for one row. (The tokens of the open segment, [T, D], come on top in all.)

    Of an encoder-decoder, of one layer of each stack.
    """
    return sum(_bytes(stack.memory, **_memory_shapes(stack)) for stack in config.stacks.values())


def _module_class(config: MemoryConfig) -> type[Memory]:
    for config_class, module_class in MEMORIES.values():
        if type(config) is config_class:
            return module_class
    valid = ", ".join(config_class.__name__ for config_class, _ in MEMORIES.values())
    raise ValueError(f"unknown memory config {type(config).__name__}; valid: {valid}")


@functools.lru_cache(maxsize=256)
def _bytes(config: MemoryConfig, **shapes) -> int:
    memory = nnx.eval_shape(lambda: make_memory(config, rngs=nnx.Rngs(0), **shapes))
    state = jax.eval_shape(lambda: memory.init_state(1))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


@functools.lru_cache(maxsize=256)
def _matched(config: MemoryConfig, **shapes) -> MemoryConfig:
    """The config with the largest `memory_size` that its `match_state_bytes` allow."""
    limit = config.match_state_bytes

    def sized(size: int) -> MemoryConfig:
        return dataclasses.replace(config, memory_size=size, match_state_bytes=None)

    def fits(size: int) -> bool:
        return _bytes(sized(size), **shapes) <= limit

    low = max(1, getattr(config, "initial_entries", 0))
    if not fits(low):
        raise ValueError(
            f"match_state_bytes={limit}: the smallest state of {type(config).__name__} has "
            f"{_bytes(sized(low), **shapes)} bytes"
        )
    high = 2 * low
    while high < LARGEST and fits(high):
        low, high = high, 2 * high
    while high - low > 1:  # low fits, high does not
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return sized(low)
