"""Building a mechanism of a given state size, and the size of the state of a given mechanism."""

import dataclasses
import functools
from typing import Any, TypeVar

from flax import nnx

from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.memory import MemoryConfig, SizedMemoryConfig
from memgpt_jax.config.model import BaseModelConfig, StackConfig
from memgpt_jax.memory.base import Memory
from memgpt_jax.memory.interface import checked
from memgpt_jax.memory.registry import MEMORIES
from memgpt_jax.ops.trees import tree_bytes

AnyModelConfig = TypeVar("AnyModelConfig", bound=BaseModelConfig)
AnyMemoryConfig = TypeVar("AnyMemoryConfig", bound=MemoryConfig)
AnySizedConfig = TypeVar("AnySizedConfig", bound=SizedMemoryConfig)
LARGEST_MEMORY_SIZE = 2**30
"""The largest `memory_size` that `match_state_bytes` tries."""


def make_memory(config: MemoryConfig, *, d_model: int, segment_length: int, dtype: Any, rngs: nnx.Rngs) -> Memory[Any]:
    """Build the mechanism of a configuration; `match_state_bytes`, if given, determines its `memory_size`.

    Args:
        config: configuration of a mechanism in `MEMORIES`.
        d_model: width D of the tokens.
        segment_length: tokens T of a segment.
        dtype: compute type; parameters are float32.
        rngs: random keys of the initial parameters.

    Raises:
        ValueError: the configuration belongs to no mechanism, or its smallest state exceeds `match_state_bytes`; or a
            mechanism of your own does not fit the interface (`memory.interface.checked`).
    """
    return checked(_built(config, rngs=rngs, d_model=d_model, segment_length=segment_length, dtype=dtype))


def _built(config: MemoryConfig, *, rngs: nnx.Rngs, **shapes: Any) -> Memory[Any]:
    return MEMORIES.of(config)(resolved_memory(config, **shapes), rngs=rngs, **shapes)


def resolved(config: AnyModelConfig) -> AnyModelConfig:
    """The configuration with each `match_state_bytes` replaced by the `memory_size` that follows from it.

    The model of the result has the same parameters and state.

    Raises:
        ValueError: it is not a configuration of a model, or the smallest state of a mechanism exceeds its
            `match_state_bytes`.
    """
    instance_of(config, BaseModelConfig, "config")
    stacks = dict(config.stacks)
    for name, stack in stacks.items():
        memory = stack.memory
        if isinstance(memory, SizedMemoryConfig) and memory.match_state_bytes is not None:
            built = resolved_memory(stack.effective_memory, **_memory_shapes(stack))
            assert isinstance(built, SizedMemoryConfig)
            memory = dataclasses.replace(memory, memory_size=built.memory_size, match_state_bytes=None)
            stacks[name] = dataclasses.replace(stack, memory=memory)
    return config.with_stacks(stacks)


def memory_bytes_per_row(config: MemoryConfig, *, d_model: int, segment_length: int, dtype: str = "float32") -> int:
    """Bytes of the state of one memory for one row of the batch.

    Tokens of an incomplete segment, [T, D], are not counted: `StreamState` holds them, whatever the mechanism.

    Args:
        config: configuration of a mechanism in `MEMORIES`.
        d_model: width D of the tokens.
        segment_length: tokens T of a segment.
        dtype: compute type of the memory, in which some mechanisms store their entries.

    Raises:
        ValueError: the configuration belongs to no mechanism, or its smallest state exceeds `match_state_bytes`.
    """
    return _bytes_per_row(config, d_model=d_model, segment_length=segment_length, dtype=dtype)


def layer_memory_bytes(config: BaseModelConfig) -> int:
    """`memory_bytes_per_row` of one layer of a model; for an encoder-decoder, of one layer of each stack together."""
    stacks = config.stacks.values()
    return sum(memory_bytes_per_row(stack.effective_memory, **_memory_shapes(stack)) for stack in stacks)


def _memory_shapes(stack: StackConfig) -> dict[str, Any]:
    return {name: getattr(stack, name) for name in ("d_model", "segment_length", "dtype")}


def resolved_memory(config: AnyMemoryConfig, *, d_model: int, segment_length: int, dtype: Any) -> AnyMemoryConfig:
    """The configuration with `match_state_bytes`, if given, replaced by the `memory_size` that follows from it."""
    shapes = {"d_model": d_model, "segment_length": segment_length, "dtype": dtype}
    instance_of(config, MemoryConfig, "memory")
    if not isinstance(config, SizedMemoryConfig) or config.match_state_bytes is None:
        return config
    return _matched(config, config.match_state_bytes, **shapes)


@functools.lru_cache(maxsize=256)
def _bytes_per_row(config: MemoryConfig, **shapes) -> int:
    def state():
        return _built(config, rngs=nnx.Rngs(0), **shapes).init_state(1)

    return tree_bytes(nnx.eval_shape(state))


@functools.lru_cache(maxsize=256)
def _matched(config: AnySizedConfig, limit: int, **shapes) -> AnySizedConfig:
    """The configuration with the largest `memory_size` whose state has at most `limit` bytes."""

    def sized(size: int) -> AnySizedConfig:
        return dataclasses.replace(config, memory_size=size, match_state_bytes=None)

    def fits(size: int) -> bool:
        return _bytes_per_row(sized(size), **shapes) <= limit

    low = config.smallest_memory_size
    if not fits(low):
        raise ValueError(
            f"match_state_bytes={limit}: the smallest state of {type(config).__name__} has "
            f"{_bytes_per_row(sized(low), **shapes)} bytes"
        )
    high = 2 * low
    while high < LARGEST_MEMORY_SIZE and fits(high):
        low, high = high, 2 * high
    while high - low > 1:  # low fits, high does not
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return sized(low)
