"""A memory for any block of a Flax model."""

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
        """The block's output fused with the memory's read, and the new state. `args` and `kwargs` are the block's."""
        return self.memory_layer(self.block(x, *args, **kwargs), state, reset, valid)


class LinenWithMemory(linen.Module):
    """y, state' = MemoryLayer(block(x), state), in Linen: see `wrap`."""

    block: linen.Module
    memory: MemoryConfig
    options: Mapping[str, Any]

    def setup(self) -> None:
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
    """Add a memory after any block x → y of a Flax model.

        y, state' = MemoryLayer(block(x), state),        x [B, L, ...], y [B, L, D]

        block = wrap(block, memory=KVMemoryConfig(memory_size=256), d_model=64, segment_length=16, rngs=nnx.Rngs(0))
        state = block.init_state(batch_size)
        y, state = block(x, state)  # keywords reset, valid [B, L] bool; other arguments: block

    The results of the memory do not depend on how a stream is split into calls. The block has no state: if it mixes
    tokens (attention, convolution), it mixes only the tokens of one call.

    Arguments:
        block: an NNX module or a function (the result is an NNX module), or a Linen module (the result is one, too).
        memory: the mechanism and its settings; `NoMemoryConfig()` does not change the block's output.
        d_model: width D of the block's output.
        segment_length: tokens T after which the memory is written.
        rngs: for the memory's parameters; only for NNX, as Linen draws them in `init`.
        options: the other arguments of `MemoryLayer`.

    Raises:
        ValueError: a value is not valid, or `rngs` is missing for NNX or given for Linen.
    """
    options |= {"d_model": d_model, "segment_length": segment_length}
    if isinstance(block, linen.Module):
        if rngs is not None:
            raise ValueError("rngs must not be given for a Linen block: its parameters are drawn in init")
        initial_state(make_memory_layer, memory, **options)  # raises here for wrong values, not in the model's `init`
        return LinenWithMemory(block, memory, options)
    if rngs is None:
        raise ValueError("rngs must be given for an NNX block or a function: the memory's parameters are drawn at once")
    return WithMemory(block, make_memory_layer(memory, **options, rngs=rngs))
