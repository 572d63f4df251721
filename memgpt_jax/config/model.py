"""Configurations of the models.

`MemoryLayerConfig` (one memory layer) <- `StackConfig` (a stack of blocks) <- `ModelConfig` (the decoder),
`EncoderConfig`, `XLNetConfig`. `Seq2SeqConfig` joins an encoder and a decoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self, cast

from memgpt_jax.config.checks import at_least, check, check_literals, check_positive, dtype_name, positive, set_tuples
from memgpt_jax.config.features import FeaturesConfig
from memgpt_jax.config.kernels import Implementation
from memgpt_jax.config.memory import Alignment, KVMemoryConfig, MemoryConfig
from memgpt_jax.config.rotary import RotaryScalingConfig

Fusion = Literal["gated", "gated_heads", "gated_add", "concat", "add", "attention"]
Remat = Literal["none", "block", "dots"]
NormPosition = Literal["pre", "post", "parallel"]
Norm = Literal["rmsnorm", "layernorm"]
Activation = Literal["gelu", "gelu_exact", "gelu_quick", "relu", "swiglu", "geglu"]
Position = Literal["rotary", "learned", "sinusoidal", "relative", "none"]
AttentionBias = Literal["none", "query_key_value", "all"]
ComputeType = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class MemoryLayerConfig:
    """A memory layer: normalisation, a memory mechanism and the fusion of its reads with the stream."""

    memory: MemoryConfig = field(default_factory=KVMemoryConfig)
    """The memory mechanism and its settings."""
    d_model: int
    """Width D of the residual stream."""
    segment_length: int
    """Length T of a segment in tokens: a layer writes to its memory after every T tokens."""
    num_heads: int = 1
    """Number of gates with fusion `gated_heads`, a divisor of `d_model`."""
    fusion: Fusion = "gated"
    """How a read r is added to the stream h: `gated` (one gate per channel), `gated_heads` (one gate per head-sized
    group of channels), `gated_add` (h is unchanged, the gate scales r), `concat` (concatenate and project), `add`; or
    `attention`: memory entries and window tokens share one softmax in self-attention. `attention` needs a `kv` memory,
    which then uses the `num_heads` and the `head_dim` of self-attention."""
    fusion_bias: float = 2.0
    """Initial bias of the fusion gate: h is initially multiplied by lambda = sigmoid(fusion_bias). With `attention`,
    the weights of entries are initially multiplied by exp(-fusion_bias); 0: entries and tokens have equal weight."""
    norm: Norm = "rmsnorm"
    """Normalisation."""
    norm_epsilon: float = positive(1e-6)
    """Constant added to the variance in normalisations."""
    dropout: float = 0.0
    """Dropout rate on the outputs of attention, memory and feed-forward; active when a dropout key is given."""
    dtype: ComputeType = "float32"
    """Compute dtype, in any form that JAX accepts (`"bfloat16"`, `jnp.bfloat16`, a `numpy.dtype`). Parameters, softmax
    and the sigmoids of gates are always float32."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", dtype_name(self.dtype))
        check_positive(self)
        check_literals(self)
        check(0.0 <= self.dropout < 1.0, f"dropout must be in [0, 1), got {self.dropout}")
        check(
            self.fusion != "gated_heads" or self.d_model % self.num_heads == 0,
            f"fusion='gated_heads' needs num_heads={self.num_heads} to divide d_model={self.d_model}",
        )
        self.memory.check_layer(d_model=self.d_model, segment_length=self.segment_length)
        check(
            self.fusion == "attention" or not self._continues_window,
            f"memory.continues_window=True needs fusion='attention', got {self.fusion!r}",
        )

    @property
    def _continues_window(self) -> bool:
        """Whether a token is either in the window or in the memory."""
        return isinstance(self.memory, KVMemoryConfig) and self.memory.continues_window


class BaseModelConfig:
    """Base of the configurations of all models."""

    heads: ClassVar[tuple[str, ...]] = ("tokens",)
    """Outputs that are predicted from the last hidden states: the distribution over token ids."""
    vocab_size: int
    segment_length: int

    @property
    def causal(self) -> bool:
        """Whether the model can generate text by itself: each of its tokens attends to earlier tokens only."""
        raise NotImplementedError

    @property
    def inputs(self) -> tuple[str, ...]:
        """Keywords of the model's call, besides `tokens`, `reset` and `valid`, that batches may have."""
        return ()

    @property
    def stacks(self) -> dict[str, "StackConfig"]:
        """The stacks of blocks by name, in the order in which they run: "model" alone, or "encoder" and "decoder"."""
        raise NotImplementedError

    def with_stacks(self, stacks: Mapping[str, "StackConfig"]) -> Self:
        """This configuration with other stacks, given as in `stacks`."""
        raise NotImplementedError

    @property
    def has_dropout(self) -> bool:
        """Whether a dropout key changes the results of a call."""
        return any(stack.dropout for stack in self.stacks.values())

    @property
    def mixes_texts(self) -> bool:
        """Whether, with a dropout key, the loss of a text depends on other texts of the batch (mixup)."""
        return False

    def alignment_of(self, length: int, *, padded: bool = False) -> Alignment:
        """The alignment of calls with `length` tokens each that begin at a segment boundary; `padded`: with `valid`."""
        return "aligned" if length % self.segment_length == 0 and not padded else "any"

    def alignment_of_inputs(self, inputs: Mapping[str, Any]) -> Alignment:
        """`alignment_of` calls with the arrays of `Batch.inputs`."""
        return self.alignment_of(inputs["tokens"].shape[1], padded="valid" in inputs)

    def with_kernels(self, name: Literal["auto", "portable"]) -> Self:
        """This configuration with another implementation of self-attention and memory reads."""
        return self.with_stacks({key: stack.with_kernels(name) for key, stack in self.stacks.items()})

    def with_execution_of(self, other: "BaseModelConfig") -> Self:
        """This configuration with the execution options (kernels, remat, scan_layers, context_length) of another.

        Parameters do not change, and results only by rounding.
        """
        others = other.stacks
        return self.with_stacks({key: stack.with_execution_of(others[key]) for key, stack in self.stacks.items()})


@dataclass(frozen=True, kw_only=True)
class StackConfig(MemoryLayerConfig, BaseModelConfig):
    """A stack of blocks of self-attention, memory and feed-forward: the settings that all models share."""

    position: ClassVar[Position] = "none"
    norm_position: ClassVar[NormPosition] = "pre"
    vocab_size: int = 2048
    """Number of token ids V."""
    d_model: int = 128
    """Width D of the residual stream."""
    num_layers: int = 4
    """Number of blocks."""
    num_heads: int = 4
    """Query heads of self-attention."""
    num_kv_heads: int | None = None
    """Key-value heads of self-attention, a divisor of `num_heads`; default: `num_heads`."""
    head_dim: int | None = None
    """Width of a self-attention head; default: d_model / num_heads."""
    d_ff: int | None = None
    """Hidden width of the feed-forward layer; default: 4 d_model, or 8/3 d_model rounded up to a multiple of 8 for
    activations with a gate."""
    segment_length: int = 64
    """Length T of a segment in tokens: a layer writes to its memory after every T tokens."""
    memory_layers: tuple[int, ...] | None = None
    """Indices (from 0) of the layers that have a memory; default: all."""
    embedding_scale: float | None = None
    """Multiplier of embeddings; default: sqrt(d_model), which gives embeddings of unit RMS."""
    activation: Activation = "gelu"
    """Feed-forward activation: `gelu` (tanh approximation), `gelu_exact` (erf), `gelu_quick` (x sigmoid(1.702 x)),
    `relu`; with a gate `swiglu`, `geglu`."""
    attention_bias: AttentionBias = "none"
    """Which projections of attention have a bias."""
    feed_forward_bias: bool = False
    """Whether the two projections of the feed-forward layer have a bias."""
    adapter_rank: int | None = None
    """Rank of low-rank adapters (LoRA) on the matmuls of attention and feed-forward; default: none. Their output is
    initially 0."""
    qk_norm: bool = False
    """RMS-normalise queries and keys of self-attention, per head."""
    attention_scale: float | None = None
    """Multiplier of q . k in attention; default: head_dim ** -0.5."""
    remat: Remat = "none"
    """Activations that the backward pass recomputes instead of storing them: `none`; `block`, all activations of each
    block; `dots`, all but the results of matmuls with parameters."""
    scan_layers: bool = False
    """Run the blocks as one loop over their stacked parameters, in calls with more than one token. This reduces tracing
    and compile time; each call copies parameters and state, so a step takes more time and memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.head_dim is not None or self.d_model % self.num_heads == 0,
            f"num_heads={self.num_heads} must divide d_model={self.d_model}, or head_dim must be given",
        )
        check(
            self.num_heads % self.kv_heads == 0,
            f"num_kv_heads={self.num_kv_heads} must divide num_heads={self.num_heads}",
        )
        if self.memory_layers is not None:
            object.__setattr__(self, "memory_layers", tuple(self.memory_layers))  # a list is also accepted
        for layer in self.memory_layers or ():
            check(
                0 <= layer < self.num_layers,
                f"memory_layers must be between 0 and {self.num_layers - 1}, got {layer}",
            )
        owners = sum(map(self.layer_has_memory, range(self.num_layers)))
        check(
            not self.scan_layers or owners in (0, self.num_layers),
            f"scan_layers needs identical layers: memory_layers={self.memory_layers} must be all or none",
        )
        if self.shares_softmax:
            check(self.causal, "fusion='attention' needs causal self-attention")
            _ = self.effective_memory  # raises `ValueError` if the memory cannot share a softmax

    @property
    def causal(self) -> bool:
        return False

    @property
    def stacks(self) -> dict[str, "StackConfig"]:
        return {"model": self}

    def with_stacks(self, stacks: Mapping[str, "StackConfig"]) -> Self:
        return cast(Self, stacks["model"])

    @property
    def shares_softmax(self) -> bool:
        """Whether memory entries share self-attention's softmax: the fusion is "attention" and there is a memory."""
        return self.fusion == "attention" and self.memory.stores

    @property
    def effective_memory(self) -> MemoryConfig:
        """The configuration with which the memory is built: with self-attention's heads if they share a softmax."""
        if not self.shares_softmax:
            return self.memory
        return self.memory.sharing_softmax(
            num_heads=self.num_heads, num_kv_heads=self.kv_heads, head_dim=self.attention_head_dim
        )

    @property
    def attends_to_source(self) -> bool:
        """Whether the layers cross-attend to a source."""
        return False

    @property
    def memory_layer(self) -> MemoryLayerConfig:
        """The configuration of each memory layer."""
        return MemoryLayerConfig(**{item.name: getattr(self, item.name) for item in fields(MemoryLayerConfig)})

    @property
    def kv_heads(self) -> int:
        """Key-value heads of self-attention, default filled in."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def attention_head_dim(self) -> int:
        """Width of a self-attention head, default filled in."""
        return self.d_model // self.num_heads if self.head_dim is None else self.head_dim

    @property
    def feed_forward_dim(self) -> int:
        """Hidden width of the feed-forward layer, default filled in."""
        if self.d_ff is not None:
            return self.d_ff
        return -(-8 * self.d_model // 24) * 8 if self.gated_activation else 4 * self.d_model

    @property
    def gated_activation(self) -> bool:
        """Whether the feed-forward layer multiplies the activation with a second projection."""
        return self.activation in ("swiglu", "geglu")

    @property
    def stream_scale(self) -> float:
        """`embedding_scale`, default filled in."""
        return self.d_model**0.5 if self.embedding_scale is None else self.embedding_scale

    def layer_has_memory(self, layer: int) -> bool:
        """Whether the layer with this index has a memory."""
        return self.memory.stores and (self.memory_layers is None or layer in self.memory_layers)

    def with_kernels(self, name: Literal["auto", "portable"]) -> Self:
        return replace(self, memory=self.memory.with_kernels(name))

    def with_execution_of(self, other: BaseModelConfig) -> Self:
        (other,) = other.stacks.values()
        names = {item.name for item in fields(self)} & {item.name for item in fields(other)} & EXECUTION
        options: dict[str, Any] = {name: getattr(other, name) for name in names}
        return replace(self, memory=self.memory.with_execution_of(other.memory), **options)


EXECUTION = {"attention_implementation", "remat", "scan_layers", "context_length", "read_implementation"}
"""Fields, also of memories, that change neither parameters nor, except for rounding, results."""


@dataclass(frozen=True, kw_only=True)
class PositionedStackConfig(StackConfig):
    """A stack with a choice of position encodings, and of pre- or post-normalisation."""

    position: Position = "rotary"
    """Position encoding; learned and sinusoidal positions count from the start of a document. `relative`: a learned
    bias of attention logits for each head and each bucket of distances, shared by all layers."""
    num_positions: int = 1024
    """Size of the table of learned positions: maximum tokens of a document, or of a call of an encoder."""
    rotary_base: float = positive(10000.0)
    """Base of the rotary and sinusoidal wavelengths."""
    rotary_scaling: RotaryScalingConfig = field(default_factory=RotaryScalingConfig)
    """Stretching of rotary wavelengths."""
    relative_buckets: int = 32
    """Number of distance buckets of relative positions: one for each short distance; longer distances share buckets."""
    relative_max_distance: int = 128
    """All distances of at least this number of tokens share the last bucket."""
    norm_position: NormPosition = "pre"
    """`pre`: a block normalises the inputs of attention and feed-forward; `post`: their outputs plus the residual;
    `parallel`: attention, memory and feed-forward read one normalisation of the block's input, and are added to it."""
    features: FeaturesConfig | None = None
    """Raw features of some tokens, the input `features` of a call, projected and added to the embeddings:
    `PatchesConfig` (pictures), `FramesConfig` (sound), `SensesConfig` (both), `VectorsConfig` (any). Default: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.features is None or max(self.features.tokens) < self.vocab_size,
            f"features.token={self.features and max(self.features.tokens)} must be below vocab_size={self.vocab_size}",
        )
        check(
            self.position != "rotary" or self.attention_head_dim % 2 == 0,
            f"rotary positions need an even head width, got {self.attention_head_dim}",
        )
        check(
            self.position != "sinusoidal" or self.d_model % 2 == 0,
            f"sinusoidal positions need an even d_model, got {self.d_model}",
        )
        check(
            self.position != "relative" or 4 <= self.relative_buckets < 2 * self.relative_max_distance,
            f"relative_buckets={self.relative_buckets} must be at least 4, and below twice "
            f"relative_max_distance={self.relative_max_distance}",
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        return () if self.features is None else ("features",)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(PositionedStackConfig):
    """The decoder, MemGPT: a GPT whose layers have a memory."""

    num_layers: int = at_least(0, default=4)
    """Number of blocks; 0: the hidden states are the embeddings, without normalisation."""
    window_size: int = 128
    """Sliding self-attention window W: a token attends to itself and the W - 1 tokens before it."""
    window_bits: Literal[8] | None = None
    """Bits of each key and value in the window: 8, with a power of 2 per vector (`memgpt_jax.ops.int8_vectors`), in
    calls and in the state. Default: those of `dtype`."""
    context_length: int | None = None
    """Context length in tokens of a pretrained model without a sliding window: `generate` and `Session` warn about
    longer texts. None: no warning."""
    tie_embeddings: bool = True
    """Whether the token embedding is also the output projection."""
    logit_scale: float = positive(1.0)
    """Multiplier of logits."""
    source_length: int | None = None
    """Maximum length in tokens of a source sequence, to which all layers cross-attend; default: no cross-attention."""
    attention_implementation: Implementation = "auto"
    """Implementation of self-attention; see `Implementation`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = self.attention_implementation
        refused = {"position='relative'": self.position == "relative", "fusion='attention'": self.shares_softmax}
        for setting, used in refused.items():
            check(
                not used or chosen in ("auto", "portable"),
                f"attention_implementation={chosen!r} does not support {setting}; valid: 'auto', 'portable'",
            )
        if self._continues_window:
            check(
                self.window_size >= self.segment_length,
                f"memory.continues_window=True needs window_size={self.window_size} to be at least "
                f"segment_length={self.segment_length}",
            )
            check(self.position != "relative", "memory.continues_window=True does not support position='relative'")

    @property
    def causal(self) -> bool:
        return True

    @property
    def attends_to_source(self) -> bool:
        return self.source_length is not None

    def with_kernels(self, name: Literal["auto", "portable"]) -> Self:
        return replace(super().with_kernels(name), attention_implementation=name)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(PositionedStackConfig):
    """A bidirectional encoder whose layers have a memory: each token attends to all tokens of the call."""

    embedding_norm: bool = False
    """Whether the sum of embeddings is normalised."""
    token_types: int | None = at_least(0)
    """Number of token types (sentence A or B, text or picture), each with an embedding. None or 0: none."""
    separate_types: bool = False
    """Whether a token attends to tokens of its own type alone, so that a head can fuse them later. A memory holds the
    tokens of all types."""
    position_offset: int | None = at_least(0)
    """Index of the first token in the table of learned positions; default: 0."""
    heads: tuple[str, ...] = ("masked",)
    """Names in `memgpt_jax.models.heads.HEADS`: `masked`, logits of masked tokens; `pooler`, tanh(W h) of the first
    token; `next_sentence`, two logits computed from the pooler's output."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("token_types", "position_offset"):
            object.__setattr__(self, name, getattr(self, name) or None)  # equal, because 0 and None mean the same
        set_tuples(self, "heads")
        check(
            not self.separate_types or (self.token_types or 0) >= 2,
            f"separate_types needs token_types >= 2, got {self.token_types}",
        )
        check(len(set(self.heads)) == len(self.heads), f"heads must be distinct, got {self.heads}")

    @property
    def inputs(self) -> tuple[str, ...]:
        return super().inputs + (("token_types",) if (self.token_types or 0) >= 2 else ())


@dataclass(frozen=True, kw_only=True)
class XLNetConfig(StackConfig):
    """An XLNet whose layers have a memory: each token attends to all tokens of the call, with relative positions."""

    norm_position: ClassVar[NormPosition] = "post"
    norm: Norm = "layernorm"
    """Normalisation, after attention and feed-forward."""
    activation: Activation = "gelu_exact"
    """Feed-forward activation."""
    feed_forward_bias: bool = True
    """Whether the two projections of the feed-forward layer have a bias."""
    distance_base: float = 10000.0
    """Base of the wavelengths of the sinusoidal encoding of distances."""
    max_distance: int | None = None
    """Maximum distance in tokens; larger distances are clipped to it. Default: no limit."""
    output_bias: bool = True
    """Whether logits have a bias."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.d_model % 2 == 0, f"sinusoids of distances need an even d_model, got {self.d_model}")
        wrong = {f"memory={type(self.memory).__name__}": self.memory.token_recurrent}
        for name, value in (("visibility", "token"), ("evict", "least_read")):
            wrong[f"memory.{name}={value!r}"] = getattr(self.memory, name, None) == value
        for setting, used in wrong.items():
            check(not used, f"{setting} cannot be used in XLNet, where all tokens read at once")

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("order", "token_types")


@dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig(BaseModelConfig):
    """An encoder that reads a source, and a decoder that cross-attends to it.

    They share the token embedding. Tokens of the source with raw features have no embedding beside these.
    """

    encoder: EncoderConfig
    """The encoder; its `heads` must be ()."""
    decoder: ModelConfig
    """The decoder; its `source_length` is the maximum length of a source in tokens."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model"):
            ours, theirs = getattr(self.encoder, name), getattr(self.decoder, name)
            check(ours == theirs, f"encoder.{name}={ours} must be decoder.{name}={theirs}")
        check(not self.encoder.heads, f"encoder.heads must be (), got {self.encoder.heads!r}")
        check(self.decoder.source_length is not None, "decoder.source_length must be given")

    @property
    def causal(self) -> bool:
        """False: an encoder-decoder generates with its decoder, after `read_source`."""
        return False

    @property
    def stacks(self) -> dict[str, StackConfig]:
        return {"encoder": self.encoder, "decoder": self.decoder}

    def with_stacks(self, stacks: Mapping[str, StackConfig]) -> Self:
        return replace(self, **stacks)

    @property
    def vocab_size(self) -> int:
        """Number of token ids V, of both stacks."""
        return self.decoder.vocab_size

    @property
    def segment_length(self) -> int:
        """Segment length of the decoder, in tokens."""
        return self.decoder.segment_length

    @property
    def inputs(self) -> tuple[str, ...]:
        features = () if self.encoder.features is None else ("source_features",)
        return ("source", "source_reset", "source_valid", *features)
