"""A memory in a residual stream: normalise, read and write, fuse."""

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config import ModelConfig
from memgpt_jax.memory import make_memory
from memgpt_jax.memory.stream import Promise, StreamState, init_stream_state, stream
from memgpt_jax.models.layers import dropout, linear, norm
from memgpt_jax.ops import gated_fusion
from memgpt_jax.shapes import Array, Flags, Float32, Stream


class Fusion(nnx.Module):
    """How a read r joins the stream h (`ModelConfig.fusion`).

    - `gated`: lambda * h + (1 - lambda) * r, lambda = sigmoid(W [n; r] + b), n the normalised h; one gate per channel
    - `gated_heads`: the same with one gate per head-sized group of channels
    - `concat`: W [h; r], which starts as h + r
    - `add`: h + r
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.kind, width = config.fusion, config.d_model
        if self.kind in ("gated", "gated_heads"):
            gates = width if self.kind == "gated" else config.num_heads
            bias_init = jax.nn.initializers.constant(config.fusion_bias)
            self.gate = linear(config, 2 * width, gates, rngs, use_bias=True, bias_init=bias_init)
        elif self.kind == "concat":
            identity = jnp.concatenate([jnp.eye(width), jnp.eye(width)])
            self.projection = linear(config, 2 * width, width, rngs)
            self.projection.kernel[...] = identity

    def __call__(self, h: Stream, normed: Stream, read: Stream) -> tuple[Stream, Float32[Array, "B L"]]:
        """The fused stream, and the mean share lambda of h in it (1 where there is no gate)."""
        if self.kind in ("gated", "gated_heads"):
            logits = self.gate(jnp.concatenate([normed, read], axis=-1))
            fused, gate = jax.checkpoint(gated_fusion)(h, read, logits)  # cheaper to repeat than to store
            return fused, jnp.mean(gate, axis=-1)
        fused = h + read if self.kind == "add" else self.projection(jnp.concatenate([h, read], axis=-1))
        return fused, jnp.ones(h.shape[:2], jnp.float32)


class MemoryLayer(nnx.Module):
    """f = Fusion(h, Read(memory, norm(h))); memory' = Write(memory, norm(h))."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        self.norm = norm(config, config.d_model, rngs)
        self.memory = make_memory(
            config.memory,
            d_model=config.d_model,
            segment_length=config.segment_length,
            dtype=config.dtype,
            rngs=rngs,
        )
        self.fusion = Fusion(config, rngs)

    def init_state(self, batch_size: int) -> StreamState:
        """An empty memory and an empty segment."""
        config = self.config
        return init_stream_state(
            self.memory, batch_size, config.segment_length, config.d_model, jnp.dtype(config.dtype)
        )

    def __call__(
        self, h: Stream, state: StreamState, reset: Flags, valid: Flags, promise: Promise, dropout_key
    ) -> tuple[Stream, StreamState, Float32[Array, "B L"]]:
        normed = self.norm(h)
        read, state = stream(self.memory, normed, state, reset, valid, promise)
        fused, gate = self.fusion(h, normed, dropout(read, self.config.dropout, dropout_key))
        return fused, state, gate


class NoMemoryLayer(nnx.Module):
    """The stream as it is."""

    def init_state(self, batch_size: int) -> tuple[()]:
        """Nothing."""
        return ()

    def __call__(self, h: Stream, state, reset: Flags, valid: Flags, promise: Promise, dropout_key):
        return h, state, jnp.ones(h.shape[:2], jnp.float32)
