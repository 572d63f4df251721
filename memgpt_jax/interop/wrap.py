"""A memory for a block of another person's model."""

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen, nnx

from memgpt_jax.config.memory import MemoryConfig
from memgpt_jax.interop.linen import initial_state, to_linen
from memgpt_jax.memory.streaming import StreamState
from memgpt_jax.models.memory_layer import MemoryLayer, NoMemoryLayer, make_memory_layer
from memgpt_jax.shapes import Flags, Stream


class WithMemory(nnx.Module):
    """y, state' = MemoryLayer(block(x), state): see `wrap`."""

    def __init__(self, block: Callable, memory_layer: MemoryLayer | NoMemoryLayer):
        self.block, self.memory_layer = block, memory_layer

    def init_state(self, batch_size: int) -> StreamState | tuple[()]:
        """The state of the memory before the first call. It holds no parameters."""
        return self.memory_layer.init_state(batch_size)

    def __call__(
        self, x: Stream, state: Any, *args, reset: Flags | None = None, valid: Flags | None = None, **kwargs
    ) -> tuple[Stream, Any]:
        """The block's output with what the memory adds, and the new state; `args` and `kwargs` go to the block."""
        return self.memory_layer(self.block(x, *args, **kwargs), state, reset, valid)


class LinenWithMemory(linen.Module):
    """y, state' = MemoryLayer(block(x), state), in Linen: see `wrap`."""

    block: linen.Module
    memory: MemoryConfig
    options: Mapping[str, Any]

    def setup(self):
        self.memory_layer = to_linen(make_memory_layer, self.memory, **self.options)

    def init_state(self, batch_size: int) -> StreamState | tuple[()]:
        """The state of the memory before the first call. It needs no variables."""
        return initial_state(make_memory_layer, self.memory, **self.options)(batch_size)

    def __call__(
        self, x: Stream, state: Any, *args, reset: Flags | None = None, valid: Flags | None = None, **kwargs
    ) -> tuple[Stream, Any]:
        """As `WithMemory.__call__`."""
        return self.memory_layer(self.block(x, *args, **kwargs), state, reset, valid)


def wrap(
    block: Callable,
    *,
    memory: MemoryConfig,
    d_model: int,
    segment_length: int,
    rngs: nnx.Rngs | None = None,
    **options: Any,
) -> WithMemory | LinenWithMemory:
    """Any block x → y of a Flax model, followed by a memory.

        y, state' = MemoryLayer(block(x), state),        x [B, L, ...], y [B, L, D]

        block = wrap(block, memory=KVMemoryConfig(memory_size=256), d_model=64, segment_length=16, rngs=nnx.Rngs(0))
        state = block.init_state(batch_size)
        y, state = block(x, state)  # reset and valid [B, L] bool, if given, by name; all else goes to the block

    The memory obeys the law: any way of cutting a stream into calls gives the same. Whether the whole does is up to the
    block, which keeps no state: one that mixes tokens (attention, convolution) sees those of one call.

    Arguments:
        block: an NNX module or a function, which gives an NNX module; or a Linen module, which gives a Linen module.
        memory: the mechanism and its settings; `NoMemoryConfig()` leaves the block as it is.
        d_model: width D of the block's output.
        segment_length: tokens T after which the memory is written.
        rngs: from which the memory's parameters are drawn; Linen draws them in `init`, and needs none here.
        options: the other arguments of `MemoryLayer`.

    Raises:
        ValueError: a value is not valid, or `rngs` is missing or not wanted.
    """
    options |= {"d_model": d_model, "segment_length": segment_length}
    if isinstance(block, linen.Module):
        if rngs is not None:
            raise ValueError("rngs must not be given for a Linen block: its parameters are drawn in init")
        initial_state(make_memory_layer, memory, **options)  # wrong values end it here, not in the model's `init`
        return LinenWithMemory(block, memory, options)
    if rngs is None:
        raise ValueError("rngs must be given for an NNX block or a function: the memory's parameters are drawn at once")
    return WithMemory(block, make_memory_layer(memory, **options, rngs=rngs))
