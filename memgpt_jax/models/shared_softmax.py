"""A memory whose entries stand beside the window's tokens in the softmax of self-attention."""

import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.model import ModelConfig
from memgpt_jax.memory import make_memory
from memgpt_jax.memory.streaming import StreamAlignment, StreamState, init_stream_state, stream
from memgpt_jax.ops import joint_softmax
from memgpt_jax.shapes import Array, Flags, Float, Float32, Stream


class JoinedMemory(nnx.Module):
    """What `ModelConfig.fusion` "attention" makes of a memory: in each head

        o = lambda o_window + (1 - lambda) o_memory,    lambda = sigmoid(lse_window - lse_memory + b)

    lse is the logarithm of what a softmax divides by, so b = 0 is one softmax over the window's tokens and the memory's
    entries, and each e^b takes that factor from the weight of an entry. The memory reads and writes the stream that
    self-attention does, and needs no W_o of its own.
    """

    gates = ("fusion_gate",)

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        shapes = {"d_model": config.d_model, "segment_length": config.segment_length, "dtype": config.dtype}
        self.memory = make_memory(config.effective_memory, **shapes, rngs=rngs)
        self.memory.join_attention(query_bias=config.attention_bias != "none")
        self.fusion_gate = nnx.Param(jnp.full(config.num_heads, config.fusion_bias, jnp.float32))

    def init_state(self, batch_size: int) -> StreamState:
        """An empty memory and an empty segment. It holds no parameters."""
        config = self.config
        return init_stream_state(
            self.memory, batch_size, config.segment_length, config.d_model, jnp.dtype(config.dtype)
        )

    def __call__(
        self,
        attended: Float[Array, "B L H K"],
        lse: Float32[Array, "B L H"],
        x: Stream,
        state: StreamState,
        reset: Flags,
        valid: Flags,
        alignment: StreamAlignment = "any",
    ) -> tuple[Float[Array, "B L H K"], StreamState, Float32[Array, "B L"]]:
        """What attention found in the window and lse of it, joined with what x reads; the state; lambda, mean of heads.

        x: what attention sees, normalised. alignment: as in `MemGPT.__call__`.
        """
        found, state = stream(self.memory, x, state, reset, valid, alignment)
        found = found.reshape(*lse.shape, -1)
        read, read_lse = found[..., :-1].astype(attended.dtype), found[..., -1]
        out, share = joint_softmax(attended, lse + self.fusion_gate[...][None, None], read, read_lse)
        return out, state, jnp.mean(share, axis=-1)
