"""A memory in a residual stream: normalise, read and write, fuse."""

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import dtype_name
from memgpt_jax.config.memory import Alignment, MemoryConfig
from memgpt_jax.config.model import ComputeType, MemoryLayerConfig, Norm
from memgpt_jax.config.model import Fusion as FusionName
from memgpt_jax.memory import make_memory, resolved_memory
from memgpt_jax.memory.base import Explanation
from memgpt_jax.memory.streaming import StreamAlignment, StreamState, explain, init_stream_state, stream, write_entries
from memgpt_jax.models.arguments import check_state, filled_flags, padding_leads
from memgpt_jax.models.layers import dropout as dropped
from memgpt_jax.models.layers import linear
from memgpt_jax.models.layers import norm as make_norm
from memgpt_jax.ops import gated_fusion
from memgpt_jax.ops.linear import flat_dot_general
from memgpt_jax.shapes import Array, Flags, Float, Float32, Stream


class Fusion(nnx.Module):
    """How a read r joins the stream h (`MemoryLayerConfig.fusion`).

    - `gated`: lambda * h + (1 - lambda) * r, lambda = sigmoid(W [n; r] + b), n the normalised h; one gate per channel
    - `gated_heads`: the same with one gate per head-sized group of channels
    - `gated_add`: h + (1 - lambda) * r, lambda as in `gated`: a read of 0 leaves the stream as it was
    - `concat`: W [h; r], which starts as h + r
    - `add`: h + r
    """

    gates = ("gate",)

    def __init__(self, config: MemoryLayerConfig, rngs: nnx.Rngs):
        self.kind, width = config.fusion, config.d_model
        if self.kind.startswith("gated"):
            gates = config.num_heads if self.kind == "gated_heads" else width
            bias_init = jax.nn.initializers.constant(config.fusion_bias)
            self.gate = linear(config, 2 * width, gates, rngs, use_bias=True, bias_init=bias_init)
        elif self.kind == "concat":
            identity = jnp.concatenate([jnp.eye(width), jnp.eye(width)])
            self.projection = linear(config, 2 * width, width, rngs)
            self.projection.kernel[...] = identity

    def __call__(
        self, h: Stream, normed: Stream, read: Stream, narrow: tuple[Stream, Array] | None = None
    ) -> tuple[Stream, Float32[Array, "B L"]]:
        """The fused stream, and the mean share lambda of h in it (1 where there is no gate).

        narrow: o [B, L, R] and W_o [R, D] where the read is r = W_o o.
        """
        if self.kind.startswith("gated"):
            logits = self._gate_logits(normed, read, narrow)
            behind = jnp.zeros_like(h) if self.kind == "gated_add" else h
            fused, gate = jax.checkpoint(gated_fusion)(behind, read, logits)  # cheaper to repeat than to store
            return h + fused if self.kind == "gated_add" else fused, jnp.mean(gate, axis=-1)
        fused = h + read if self.kind == "add" else self.projection(jnp.concatenate([h, read], axis=-1))
        return fused, jnp.ones(h.shape[:2], jnp.float32)

    def _gate_logits(self, normed: Stream, read: Stream, narrow) -> Float[Array, "B L C"]:
        """W_n n + W_r r + b: the gate on [n; r] without joining them.

        W_r r = (W_r W_o) o, and the product of the matrices is the cheaper one where o is narrow and tokens are many.
        """
        on_stream, on_read = jnp.split(self.gate.kernel[...], 2)
        if narrow is not None:
            found, output = narrow
            (inner, width), tokens = output.shape, read.shape[0] * read.shape[1]
            if tokens * (width - inner) > width * inner:
                read, on_read = found, output @ on_read
        dot = lambda x, kernel: flat_dot_general(x, kernel.astype(x.dtype), (((2,), (0,)), ((), ())))  # noqa: E731
        return dot(normed, on_stream) + dot(read, on_read) + self.gate.bias[...].astype(read.dtype)[None, None]


class MemoryLayer(nnx.Module):
    """f = Fusion(h, Read(memory, norm(h))); memory' = Write(memory, norm(h)).

    A layer of its own, for any stream of width D:

        layer = MemoryLayer(KVMemoryConfig(memory_size=256), d_model=64, segment_length=16, rngs=nnx.Rngs(0))
        state = layer.init_state(batch_size)
        y, state = layer(h, state)  # [B, L, D], any L >= 1

    Any way of cutting a stream into calls gives the same result.
    """

    def __init__(
        self,
        memory: MemoryConfig,
        *,
        d_model: int,
        segment_length: int,
        num_heads: int = 1,
        fusion: FusionName = "gated",
        fusion_bias: float = 2.0,
        norm: Norm = "rmsnorm",
        norm_epsilon: float = 1e-6,
        dropout: float = 0.0,
        dtype: ComputeType = "float32",
        rngs: nnx.Rngs,
    ):
        """All arguments except `rngs`, the random keys of parameters, are fields of `MemoryLayerConfig`.

        Raises:
            ValueError: a value is not valid, or the mechanism does not fit the layer.
        """
        if fusion == "attention":
            raise ValueError("fusion='attention' needs the self-attention of a model's layer")
        config = MemoryLayerConfig(
            memory=resolved_memory(memory, d_model=d_model, segment_length=segment_length, dtype=dtype_name(dtype)),
            d_model=d_model,
            segment_length=segment_length,
            num_heads=num_heads,
            fusion=fusion,
            fusion_bias=fusion_bias,
            norm=norm,
            norm_epsilon=norm_epsilon,
            dropout=dropout,
            dtype=dtype,
        )
        self.config = config
        self.norm = make_norm(config, d_model, rngs)
        self.memory = make_memory(
            config.memory, d_model=d_model, segment_length=segment_length, dtype=config.dtype, rngs=rngs
        )
        self.fusion = Fusion(config, rngs)

    def init_state(self, batch_size: int) -> StreamState:
        """An empty memory and an empty segment. It holds no parameters."""
        config = self.config
        return init_stream_state(
            self.memory, batch_size, config.segment_length, config.d_model, jnp.dtype(config.dtype)
        )

    def __call__(
        self,
        h: Stream,
        state: StreamState,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        alignment: Alignment = "any",
        dropout_key: Array | None = None,
    ) -> tuple[Stream, StreamState]:
        """The stream with what it remembers, in the compute type, and the state after the call.

        reset, valid, alignment, dropout_key: as in `MemGPT.__call__`.

        Raises `ValueError` if an argument does not fit the layer or padding is not on the right; inside `jit`, rows
        with such padding give NaN.
        """
        check_stream(self.config, h)
        check_state(state, jax.eval_shape(lambda: self.init_state(len(h))), len(h), f"h has {len(h)}")
        reset, valid = filled_flags(h.shape[:2], reset, valid)
        h = jnp.where(padding_leads(valid)[:, None, None], jnp.nan, h)
        y, state, _ = self.with_gate(h, state, reset, valid, alignment, dropout_key)
        return y, state

    def with_gate(
        self,
        h: Stream,
        state: StreamState,
        reset: Flags,
        valid: Flags,
        alignment: StreamAlignment = "any",
        dropout_key=None,
    ) -> tuple[Stream, StreamState, Float32[Array, "B L"]]:
        """`__call__` without checks of arguments; also returns the mean fusion gate of each token."""
        h = h.astype(self.config.dtype)
        normed = self.norm(h)
        found, state = stream(self.memory, normed, state, reset, valid, alignment)
        read, rate = self.memory.project_out(found), self.config.dropout
        is_dropped = rate > 0 and dropout_key is not None
        narrow = None if self.memory.output is None or is_dropped else (found, self.memory.output.kernel[...])
        fused, gate = self.fusion(h, normed, dropped(read, rate, dropout_key), narrow)
        return fused, state, gate

    def explain(self, h: Stream, state: StreamState) -> Explanation:
        """How the memory reads of tokens are made of its entries (`Memory.explain`), before `output` and fusion.

        Entries of the open segment are not counted.

        Raises:
            NotImplementedError: the mechanism does not explain its reads.
        """
        return explain(self.memory, self.norm(h.astype(self.config.dtype)), state)

    def write_entries(
        self,
        keys: Float[Array, "B N H K"],
        values: Float[Array, "B N H K"],
        state: StreamState,
        valid: Flags | None = None,
    ) -> StreamState:
        """The state after entries have been written directly, for example external knowledge (`Memory.write_entries`).

        A reset removes them like all other entries.

        Args:
            keys: keys in the space of the queries W_q x, H heads of width K.
            values: the vectors that a token reads.
            state: the state before.
            valid: which of the N entries are written, [B, N]; default: all.

        Raises:
            NotImplementedError: the mechanism has no key-value entries.
        """
        return write_entries(self.memory, keys, values, state, valid)


def check_stream(config: MemoryLayerConfig, h: Stream) -> None:
    """Raise `ValueError` where a stream does not fit the layer."""
    if h.ndim != 3 or h.shape[1] < 1 or h.shape[2] != config.d_model or not jnp.issubdtype(h.dtype, jnp.floating):
        raise ValueError(f"h must be floats [B, L, {config.d_model}] with L >= 1, got {h.dtype}{list(h.shape)}")


class NoMemoryLayer(nnx.Module):
    """The stream as it is."""

    def init_state(self, batch_size: int) -> tuple[()]:
        """Nothing."""
        return ()

    def __call__(self, h: Stream, state, reset=None, valid=None, **options):
        """The stream as it is, and no state."""
        return h, state

    def with_gate(self, h: Stream, state, reset=None, valid=None, alignment: StreamAlignment = "any", dropout_key=None):
        """`__call__`, with a gate of 1: all of the stream passes."""
        return h, state, jnp.ones(h.shape[:2], jnp.float32)


def make_memory_layer(memory: MemoryConfig, **options) -> MemoryLayer | NoMemoryLayer:
    """A `MemoryLayer`; without a memory there is nothing to fuse, and the stream stays as it is."""
    return MemoryLayer(memory, **options) if memory.stores else NoMemoryLayer()
