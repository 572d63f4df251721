"""A memory whose entries share the softmax of self-attention with the tokens of the window."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import StackConfig
from memgpt_jax.memory import make_memory
from memgpt_jax.memory.base import Explanation
from memgpt_jax.memory.streaming import StreamAlignment, StreamState, explain, init_stream_state, stream
from memgpt_jax.models.attention import CallInputs, rotary_of
from memgpt_jax.ops import joint_softmax
from memgpt_jax.shapes import Array, Float, Float32, Stream


class SharedSoftmaxMemory(nnx.Module):
    """The memory layer of fusion `attention`. In each head,

        o = lambda o_window + (1 - lambda) o_memory,    lambda = sigmoid(lse_window - lse_memory + b)

    with the log-sum-exp (lse) of the logits of the window and of the memory. b = 0 is one softmax over the window's
    tokens and the memory's entries; in general, the weights of entries are multiplied by e^-b before normalisation.
    The memory reads and writes the input of self-attention, whose W_o also projects the memory's reads. With
    `continues_window` the window begins anew with each segment, so that a token is in the window or in the memory.
    """

    gates: ClassVar[tuple[str, ...]] = ("fusion_gate",)

    def __init__(self, config: StackConfig, rngs: nnx.Rngs):
        self.config = config
        shapes = {"d_model": config.d_model, "segment_length": config.segment_length, "dtype": config.dtype}
        self.memory = make_memory(config.effective_memory, **shapes, rngs=rngs)
        self.memory.join_attention(query_bias=config.attention_bias != "none", rotary=rotary_of(config))
        self.fusion_gate = nnx.Param(jnp.full(config.num_heads, config.fusion_bias, jnp.float32))

    def init_state(self, batch_size: int) -> StreamState:
        """An empty memory and an empty segment. It holds no parameters."""
        config = self.config
        return init_stream_state(
            self.memory, batch_size, config.segment_length, config.d_model, jnp.dtype(config.dtype)
        )

    def window_inputs(self, inputs: CallInputs, state: StreamState) -> CallInputs:
        """The inputs of self-attention: with `continues_window`, each segment is a document to it."""
        memory, length = self.config.effective_memory, self.config.segment_length
        if not (isinstance(memory, KVMemoryConfig) and memory.continues_window):
            return inputs
        place = state.offset[:, None] + jnp.cumsum(inputs.valid, axis=1, dtype=jnp.int32) - 1
        at_boundary = state.offset[:, None] == 0  # the tokens before the call are of another segment
        starts = inputs.valid & (place % length == 0)
        document = inputs.document + place // length + at_boundary.astype(jnp.int32)
        return inputs._replace(reset=inputs.reset | starts, document=document)

    def __call__(
        self,
        attended: Float[Array, "B L H K"],
        lse: Float32[Array, "B L H"],
        x: Stream,
        state: StreamState,
        inputs: CallInputs,
        alignment: StreamAlignment = "any",
    ) -> tuple[Float[Array, "B L H K"], StreamState, Float32[Array, "B L"]]:
        """Merge the window's attention (`attended`, `lse`) with the memory's read for x, the input of self-attention.

        Returns (merged heads, state, lambda per token, mean over heads).
        """
        found, state = stream(self.memory, x, state, inputs.reset, inputs.valid, alignment)
        found = found.reshape(*lse.shape, -1)
        read, read_lse = found[..., :-1].astype(attended.dtype), found[..., -1]
        out, share = joint_softmax(attended, lse + self.fusion_gate[...][None, None], read, read_lse)
        return out, state, jnp.mean(share, axis=-1)

    def explain(self, lse: Float32[Array, "B L H"], x: Stream, state: StreamState, inputs: CallInputs) -> Explanation:
        """The part of the merged heads that comes from the memory: weights within the memory times 1 - lambda.

        Arguments as in `__call__`; tokens of the open segment are not included.
        """
        found, _ = stream(self.memory, x, state, inputs.reset, inputs.valid)
        read_lse = found.reshape(*lse.shape, -1)[..., -1]
        share = jax.nn.sigmoid(read_lse - lse - self.fusion_gate[...][None, None])
        explanation = explain(self.memory, x, state)
        return explanation._replace(weights=explanation.weights * share[..., None])
