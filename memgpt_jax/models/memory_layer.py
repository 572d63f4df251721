"""A memory in a residual stream: normalise, read and write, fuse."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import dtype_name, instance_of
from memgpt_jax.config.memory import Alignment, MemoryConfig
from memgpt_jax.config.model import ComputeType, MemoryLayerConfig, Norm
from memgpt_jax.config.model import Fusion as FusionName
from memgpt_jax.memory import make_memory, resolved_memory
from memgpt_jax.memory.base import Explanation
from memgpt_jax.memory.linear import linear
from memgpt_jax.memory.streaming import StreamAlignment, StreamState, explain, init_stream_state, stream, write_entries
from memgpt_jax.models.arguments import check_state, check_stream, filled_flags, padding_leads
from memgpt_jax.models.layers import dropout as dropped
from memgpt_jax.models.layers import make_norm
from memgpt_jax.ops import gated_fusion
from memgpt_jax.ops.linear import matmul
from memgpt_jax.ops.quantized import StoredMatrix
from memgpt_jax.shapes import Array, Flags, Float, Float32, Stream


class Unprojected(NamedTuple):
    """The factors o and W_o of a read r = W_o o."""

    read: Float[Array, "B L R"]
    output: Float[Array, "R D"]


class Fusion(nnx.Module):
    """How a read r joins the stream h (`MemoryLayerConfig.fusion`).

    - `gated`: lambda * h + (1 - lambda) * r, lambda = sigmoid(W [n; r] + b), n the normalised h; one gate per channel
    - `gated_heads`: as `gated`, with one gate for each of `num_heads` equal groups of channels
    - `gated_add`: h + (1 - lambda) * r, lambda as in `gated`: a read of 0 does not change the stream
    - `concat`: W [h; r], initially h + r
    - `add`: h + r
    """

    gates: ClassVar[tuple[str, ...]] = ("gate",)

    def __init__(self, config: MemoryLayerConfig, rngs: nnx.Rngs):
        self.kind, width, dtype = config.fusion, config.d_model, jnp.dtype(config.dtype)
        if self.kind.startswith("gated"):
            gates = config.num_heads if self.kind == "gated_heads" else width
            bias_init = jax.nn.initializers.constant(config.fusion_bias)
            self.gate = linear(2 * width, gates, use_bias=True, dtype=dtype, rngs=rngs, bias_init=bias_init)
        elif self.kind == "concat":
            identity = jnp.tile(jnp.eye(width, dtype=jnp.float32), (2, 1))
            self.projection = linear(2 * width, width, use_bias=False, dtype=dtype, rngs=rngs)
            self.projection.kernel[...] = identity

    def __call__(
        self, h: Stream, normed: Stream, read: Stream, unprojected: Unprojected | None = None
    ) -> tuple[Stream, Float32[Array, "B L"]]:
        """The fused stream, and the mean gate lambda of each token (1 without gates).

        Args:
            h: the stream.
            normed: the normalised stream.
            read: the projected read.
            unprojected: the factors of the read, if it is a product.
        """
        if self.kind.startswith("gated"):
            if h.shape[1] == 1:  # a concatenation of few numbers costs less than the copies of the kernel's halves
                logits = self.gate(jnp.concatenate([normed, read], axis=-1))
            else:
                logits = self._gate_logits(normed, *self._gate_operands(read, unprojected))
            kept = jnp.zeros_like(h) if self.kind == "gated_add" else h
            fused, gate = jax.checkpoint(gated_fusion)(kept, read, logits)  # recomputing is cheaper than storing
            return h + fused if self.kind == "gated_add" else fused, jnp.mean(gate, axis=-1)
        fused = h + read if self.kind == "add" else self.projection(jnp.concatenate([h, read], axis=-1))
        return fused, jnp.ones(h.shape[:2], jnp.float32)

    def _gate_operands(self, read: Stream, unprojected: Unprojected | None) -> tuple[Float[Array, "B L R"], Array]:
        """Operands (x, W) of W x = W_r r, the read's part of the gate's logits, in the cheaper order of products.

        For r = W_o o, W_r r = (W_r W_o) o: cheaper if o [R] is narrower than r [D] and there are many tokens.
        """
        on_read = jnp.split(self.gate.kernel[...], 2)[1]
        if unprojected is None:
            return read, on_read
        (inner, width), tokens = unprojected.output.shape, read.shape[0] * read.shape[1]
        is_cheaper = tokens * (width - inner) > width * inner
        return (unprojected.read, unprojected.output @ on_read) if is_cheaper else (read, on_read)

    def _gate_logits(self, normed: Stream, read: Float[Array, "B L R"], on_read: Array) -> Float[Array, "B L C"]:
        """W_n n + W_r r + b, without the concatenation [n; r]."""
        on_stream = jnp.split(self.gate.kernel[...], 2)[0]
        on_stream, on_read = on_stream.astype(normed.dtype), on_read.astype(read.dtype)
        assert self.gate.bias is not None
        bias = self.gate.bias[...].astype(read.dtype)
        return matmul(normed, on_stream) + matmul(read, on_read) + bias[None, None]


class MemoryLayer(nnx.Module):
    """f = Fusion(h, Read(memory, norm(h))); memory' = Write(memory, norm(h)).

    The layer can be used on its own, for any stream of width D:

        layer = MemoryLayer(KVMemoryConfig(memory_size=256), d_model=64, segment_length=16, rngs=nnx.Rngs(0))
        state = layer.init_state(batch_size)
        y, state = layer(h, state)  # [B, L, D], any L >= 1

    The result does not depend on how a stream is divided into calls.
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
        normalises: bool = True,
        rngs: nnx.Rngs,
    ):
        """All arguments except `normalises` and `rngs`, the random keys of parameters, are fields of
        `MemoryLayerConfig`. With `normalises=False`, norm(h) is h, or what `with_gate` is given.

        Raises:
            ValueError: a value is not valid, or the mechanism does not fit the layer.
        """
        if fusion == "attention":
            raise ValueError("fusion='attention' needs the self-attention of a model's layer")
        instance_of(rngs, nnx.Rngs, "rngs")
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
        self.norm = make_norm(config, d_model, rngs) if normalises else _unchanged
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
        state: StreamState | None = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        alignment: Alignment = "any",
        dropout_key: Array | None = None,
    ) -> tuple[Stream, StreamState]:
        """The stream fused with the memory's reads, in the compute type, and the state after the call.

        Args:
            h: the stream [B, L, D], any L >= 1.
            state: the state after the previous call; default: an empty memory.
            reset: as in `MemGPT.__call__`.
            valid: as in `MemGPT.__call__`.
            alignment: as in `MemGPT.__call__`.
            dropout_key: as in `MemGPT.__call__`.

        Raises:
            ValueError: an argument does not fit the layer, or padding is not on the right. Inside `jit`, rows with such
                padding give NaN.
        """
        check_stream(self.config, h, "h")
        if state is None:
            state = self.init_state(len(h))
        check_state(state, jax.eval_shape(lambda: self.init_state(len(h))), len(h), f"h has {len(h)}")
        reset, valid = filled_flags(h.shape[:2], reset, valid)
        h = jnp.where(padding_leads(valid)[:, None, None], jnp.nan, h)
        y, state, _ = self.with_gate(h, state, reset, valid, alignment, dropout_key=dropout_key)
        return y, state

    def with_gate(
        self,
        h: Stream,
        state: StreamState,
        reset: Flags,
        valid: Flags,
        alignment: StreamAlignment = "any",
        *,
        normed: Stream | None = None,
        dropout_key: Array | None = None,
    ) -> tuple[Stream, StreamState, Float32[Array, "B L"]]:
        """`__call__` without checks of arguments; also returns the mean fusion gate of each token.

        Args: normed: the normalised stream; default: norm(h).
        """
        h = h.astype(self.config.dtype)
        normed = self.norm(h) if normed is None else normed
        found, state = stream(self.memory, normed, state, reset, valid, alignment)
        read, rate = self.memory.project_out(found), self.config.dropout
        is_dropped = rate > 0 and dropout_key is not None
        output = None if is_dropped or self.memory.output is None else self.memory.output.kernel[...]
        factors = None if output is None or isinstance(output, StoredMatrix) else Unprojected(found, output)
        fused, gate = self.fusion(h, normed, dropped(read, rate, dropout_key), factors)
        return fused, state, gate

    def explain(self, h: Stream, state: StreamState) -> Explanation:
        """The reads of tokens as weighted sums of memory entries (`Memory.explain`), before projection and fusion.

        Tokens of the open segment are not included.

        Raises:
            NotImplementedError: the mechanism does not implement `Memory.explain`.
        """
        return explain(self.memory, self.normalised(h), state)

    def normalised(self, h: Stream) -> Stream:
        """What the memory reads and writes: norm(h)."""
        return self.norm(h.astype(self.config.dtype))

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
            state: the state before the write.
            valid: which of the N entries are written, [B, N]; default: all.

        Raises:
            NotImplementedError: the mechanism has no key-value entries.
        """
        return write_entries(self.memory, keys, values, state, valid)


def _unchanged(h: Stream) -> Stream:
    """The normalisation of a layer without one."""
    return h


class NoMemoryLayer(nnx.Module):
    """The identity, in place of a `MemoryLayer` in layers without a memory."""

    def init_state(self, batch_size: int) -> tuple[()]:
        """The empty state."""
        return ()

    def __call__(
        self,
        h: Stream,
        state: tuple[()] = (),
        reset: Flags | None = None,
        valid: Flags | None = None,
        **options: Any,
    ) -> tuple[Stream, tuple[()]]:
        """The unchanged stream and an empty state."""
        return h, ()

    def with_gate(
        self, h: Stream, state: tuple[()], *flags: Any, **options: Any
    ) -> tuple[Stream, tuple[()], Float32[Array, "B L"]]:
        """`__call__`; also returns the fusion gate of each token, 1."""
        return h, (), jnp.ones(h.shape[:2], jnp.float32)


def make_memory_layer(memory: MemoryConfig, **options: Any) -> MemoryLayer | NoMemoryLayer:
    """A `MemoryLayer`, or for `NoMemoryConfig` the identity."""
    return MemoryLayer(memory, **options) if memory.stores else NoMemoryLayer()
