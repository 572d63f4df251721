"""Configuration of the model."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, get_args

from memgpt_jax.config.checks import at_least, check, check_literals, check_positive
from memgpt_jax.config.memory import Alignment, KVMemoryConfig, MemoryConfig, NoMemoryConfig

Fusion = Literal["gated", "gated_heads", "gated_add", "concat", "add", "attention"]
Remat = Literal["none", "block", "dots"]
AttentionImplementation = Literal["auto", "portable", "cudnn", "pallas", "interpret"]
Activation = Literal["gelu", "gelu_exact", "relu", "swiglu", "geglu"]


@dataclass(frozen=True, kw_only=True)
class RotaryScalingConfig:
    """How rotary wavelengths are stretched, so that a model reads further than it was trained to."""

    kind: Literal["none", "linear", "llama3", "yarn"] = "none"
    """`linear`: all of them by `factor`. `llama3` (Llama 3.1) and `yarn` (Peng et al., 2023): only those that turned
    less than a few times within `original_positions`."""
    factor: float = 1.0
    """By how much the longest ones are stretched."""
    original_positions: int = 8192
    """Tokens that the model was first trained on."""
    slow_turns: float = 1.0
    """Wavelengths that turn at most so often within them are stretched by all of `factor`."""
    fast_turns: float = 4.0
    """Wavelengths that turn at least so often within them stay. In between, a mixture."""
    attention_factor: float = 1.0
    """`yarn`: what rotated queries and keys are multiplied by."""

    def __post_init__(self):
        check(self.factor >= 1, f"rotary_scaling.factor must be at least 1, got {self.factor}")
        check(
            0 < self.slow_turns < self.fast_turns,
            f"rotary_scaling.slow_turns={self.slow_turns} must be positive and below fast_turns={self.fast_turns}",
        )
        check_positive(self)
        check_literals(self)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A GPT decoder whose layers own a memory."""

    heads: ClassVar[tuple[str, ...]] = ("tokens",)
    """What is predicted from the last hidden states: the output distribution over token ids."""

    vocab_size: int = 2048
    """Number of token ids V."""
    d_model: int = 128
    """Width D of the residual stream."""
    num_layers: int = 4
    """Number of decoder blocks."""
    num_heads: int = 4
    """Query heads of self-attention."""
    num_kv_heads: int | None = None
    """Key-value heads of self-attention, a divisor of `num_heads`; default: `num_heads`."""
    head_dim: int | None = None
    """Width of a self-attention head; default: d_model / num_heads."""
    d_ff: int | None = None
    """Hidden width of the feed-forward layer; default: 4 d_model, or 8/3 d_model rounded up to 8 where it is gated."""
    window_size: int = 128
    """Sliding self-attention window W: a token attends to itself and the W - 1 tokens before it."""
    segment_length: int = 64
    """Tokens T after which a layer writes to its memory."""
    memory: MemoryConfig = field(default_factory=KVMemoryConfig)
    """The memory mechanism and its settings."""
    memory_layers: tuple[int, ...] | None = None
    """Which layers (counted from 0) own a memory; default: all."""
    fusion: Fusion = "gated"
    """How a read r joins the stream h: `gated` (one gate per channel), `gated_heads` (one gate per head-sized group
    of channels), `gated_add` (h stays, the gate is on r alone), `concat` (concatenate and project), `add`. Or inside of
    self-attention: `attention`, one softmax over the window's tokens and the entries of a `kv` memory, which gets as
    many heads, as wide as self-attention's, whatever its own config says."""
    fusion_bias: float = 2.0
    """Initial bias of the fusion gate: lambda = sigmoid(fusion_bias) of h passes at the start. In `attention`, entries
    start with exp(-fusion_bias) of their weight: 0 makes tokens and entries equals."""
    position: Literal["rotary", "learned", "sinusoidal", "relative", "none"] = "rotary"
    """Position encoding; learned and sinusoidal positions count from the start of a document. `relative`: what is added
    to the logits of attention for each bucket of distances, by head, the same in all layers."""
    num_positions: int = 1024
    """Size of the table of learned positions: documents cannot be longer."""
    context_length: int | None = None
    """Length in tokens of the texts on which a pretrained model without a sliding window was trained: `generate` and
    `Session` warn about longer ones. None: no warning."""
    rotary_base: float = 10000.0
    """Base of the rotary and sinusoidal wavelengths."""
    rotary_scaling: RotaryScalingConfig = field(default_factory=RotaryScalingConfig)
    """Stretched rotary wavelengths."""
    relative_buckets: int = 32
    """Buckets of distances, of relative positions: one for each short distance, wider ones for long distances."""
    relative_max_distance: int = 128
    """Distances from here on share the last bucket."""
    embedding_scale: float | None = None
    """What embeddings are multiplied by on their way into the stream; default: sqrt(d_model), so that they enter it at
    unit RMS."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """Normalisation."""
    norm_position: Literal["pre", "post"] = "pre"
    """Whether a block normalises in front of attention and feed-forward, or behind them, residual included."""
    norm_epsilon: float = 1e-6
    """What normalisations add to the variance."""
    activation: Activation = "gelu"
    """Feed-forward activation: `gelu` (by tanh), `gelu_exact` (by erf), `relu`; with a gate `swiglu`, `geglu`."""
    attention_bias: Literal["none", "query_key_value", "all"] = "none"
    """Which projections of self-attention have a bias."""
    feed_forward_bias: bool = False
    """Whether the two projections of the feed-forward layer have a bias."""
    tie_embeddings: bool = True
    """Use the token embedding as the output projection too."""
    logit_scale: float = 1.0
    """What logits are multiplied by."""
    adapter_rank: int | None = None
    """Rank of low-rank adapters (LoRA) beside the matmuls of attention and feed-forward; default: none. They start at
    zero, so that they change nothing until they are trained."""
    qk_norm: bool = False
    """RMS-normalise queries and keys of self-attention, per head."""
    attention_scale: float | None = None
    """What q . k is multiplied by in attention; default: head_dim ** -0.5."""
    source_length: int | None = None
    """Most tokens of another sequence, the source, that all layers attend to; default: there is none."""
    dropout: float = 0.0
    """Dropout rate on the outputs of attention, memory and feed-forward; active when a dropout key is given."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute type. Parameters, softmax and gates are always float32."""
    remat: Remat | bool = "none"
    """What the backward pass recomputes instead of storing it: `none`; `block`, all activations of each block; `dots`,
    all of them but the results of matmuls with parameters. True means `block`, False `none`."""
    scan_layers: bool = False
    """Run the blocks as one loop over their stacked parameters, for calls of more than one token: less to trace and to
    compile. Stacking copies parameters and state in every call, so a step takes more time and memory."""
    attention_implementation: AttentionImplementation = "auto"
    """How self-attention runs: in `portable` JAX, or by a kernel: `cudnn`, `pallas` on a GPU or a TPU, or step by step
    in plain JAX for tests (`interpret`). `auto`: see `ops.Implementation`."""

    def __post_init__(self):
        if isinstance(self.remat, bool):  # of older configs
            object.__setattr__(self, "remat", "block" if self.remat else "none")
        check_positive(self)
        check(
            self.remat in get_args(Remat),
            f"remat must be one of {', '.join(map(repr, get_args(Remat)))}, got {self.remat!r}",
        )
        check(
            self.head_dim is not None or self.d_model % self.num_heads == 0,
            f"num_heads={self.num_heads} must divide d_model={self.d_model}, or head_dim must be given",
        )
        check(
            self.num_heads % self.kv_heads == 0,
            f"num_kv_heads={self.num_kv_heads} must divide num_heads={self.num_heads}",
        )
        check(
            self.position != "rotary" or self.attention_head_dim % 2 == 0,
            f"rotary positions need an even head width, got {self.attention_head_dim}",
        )
        check(
            self.position != "sinusoidal" or self.d_model % 2 == 0,
            f"sinusoidal positions need an even d_model, got {self.d_model}",
        )
        if self.position == "relative":
            check(
                4 <= self.relative_buckets < 2 * self.relative_max_distance,
                f"relative_buckets={self.relative_buckets} must be at least 4, and below twice "
                f"relative_max_distance={self.relative_max_distance}",
            )
            check(
                self.attention_implementation in ("auto", "portable"),
                f"attention_implementation={self.attention_implementation!r} has no relative positions; "
                "valid: 'auto', 'portable'",
            )
        check(0.0 <= self.dropout < 1.0, f"dropout must be in [0, 1), got {self.dropout}")
        check(
            self.fusion != "gated_heads" or self.d_model % self.num_heads == 0,
            f"fusion='gated_heads' needs num_heads={self.num_heads} to divide d_model={self.d_model}",
        )
        if self.memory_layers is not None:
            object.__setattr__(self, "memory_layers", tuple(self.memory_layers))  # a list is welcome too
        for layer in self.memory_layers or ():
            check(
                0 <= layer < self.num_layers,
                f"memory_layers must be between 0 and {self.num_layers - 1}, got {layer}",
            )
        owners = sum(map(self.layer_has_memory, range(self.num_layers)))
        check(
            not self.scan_layers or owners in (0, self.num_layers) or isinstance(self.memory, NoMemoryConfig),
            f"scan_layers needs layers that are all alike: memory_layers={self.memory_layers} must be all or none",
        )
        self.memory.check_model(self)
        check_literals(self)
        if self.fusion == "attention" and not isinstance(self.memory, NoMemoryConfig):
            self._join_attention()

    def _join_attention(self) -> None:
        """Give the memory the heads of self-attention; raise `ValueError` where it cannot be part of it."""
        memory = self.memory
        check(self.causal, "fusion='attention' needs causal self-attention")
        check(
            isinstance(memory, KVMemoryConfig),
            f"fusion='attention' needs a KVMemoryConfig, got {type(memory).__name__}",
        )
        memory = replace(memory, num_heads=self.num_heads, head_dim=self.attention_head_dim)
        object.__setattr__(self, "memory", memory)
        for name, value in (
            ("attention_implementation", self.attention_implementation),
            ("memory.read_implementation", memory.read_implementation),
        ):
            check(
                value in ("auto", "portable"),
                f"{name}={value!r} does not know fusion='attention'; valid: 'auto', 'portable'",
            )

    @property
    def causal(self) -> bool:
        """Whether a token attends to those before it alone."""
        return True

    @property
    def inputs(self) -> tuple[str, ...]:
        """Keywords of the model's call, besides `tokens`, `reset` and `valid`, that batches may have."""
        return ()

    @property
    def stacks(self) -> dict[str, "ModelConfig"]:
        """The stacks of blocks by the names of their configs, in the order in which they run: this one alone."""
        return {"model": self}

    def with_stacks(self, stacks: dict[str, "ModelConfig"]) -> "ModelConfig":
        """The model with other configs of its stacks."""
        return stacks["model"]

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
        """Whether the feed-forward layer multiplies two projections, one of them through the activation."""
        return self.activation in ("swiglu", "geglu")

    @property
    def stream_scale(self) -> float:
        """`embedding_scale`, default filled in."""
        return self.d_model**0.5 if self.embedding_scale is None else self.embedding_scale

    def alignment_of(self, length: int) -> Alignment:
        """The alignment of calls of `length` tokens each, from the start of a stream on."""
        return "aligned" if length % self.segment_length == 0 else "any"

    def with_implementation(self, name: Literal["auto", "portable"]) -> "ModelConfig":
        """The same model with attention and the memory's read of an implementation that works on any device."""
        memory = self.memory
        if isinstance(memory, KVMemoryConfig):
            memory = replace(memory, read_implementation=name)
        return replace(self, attention_implementation=name, memory=memory)

    def run_like(self, other: "ModelConfig") -> "ModelConfig":
        """This model with all that leaves parameters and (but for rounding) results alone taken from another config."""
        memory = self.memory
        if isinstance(memory, KVMemoryConfig) and isinstance(other.memory, KVMemoryConfig):
            memory = replace(memory, read_implementation=other.memory.read_implementation)
        ways = ("attention_implementation", "remat", "scan_layers", "context_length")
        return replace(self, memory=memory, **{name: getattr(other, name) for name in ways})

    def layer_has_memory(self, layer: int) -> bool:
        """Whether the given layer owns a memory."""
        return self.memory_layers is None or layer in self.memory_layers


@dataclass(frozen=True, kw_only=True)
class EncoderConfig(ModelConfig):
    """A bidirectional encoder whose layers own a memory: each token attends to all of the call.

    Of `ModelConfig`, `window_size` is not used, and `num_positions` is the most tokens that a call may have.
    """

    embedding_norm: bool = False
    """Normalise the sum of embeddings."""
    token_types: int | None = at_least(0)
    """Kinds of tokens (sentence A or B), each with an embedding. None or 0: no such embeddings."""
    position_offset: int | None = at_least(0)
    """The first token's place in the table of learned positions; default: 0."""
    heads: tuple[str, ...] = ("masked",)
    """Names in `memgpt_jax.models.heads.HEADS`: `masked`, logits of masked tokens; `pooler`, tanh(W h) of the first
    token; `next_sentence`, two logits computed from the pooler's output."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("token_types", "position_offset"):
            object.__setattr__(self, name, getattr(self, name) or None)  # 0 and None are one setting
        object.__setattr__(self, "heads", tuple(self.heads))
        check(len(set(self.heads)) == len(self.heads), f"heads must be distinct, got {self.heads}")
        check(self.source_length is None, f"source_length={self.source_length}: an encoder attends to no source")

    @property
    def inputs(self) -> tuple[str, ...]:
        """As in `ModelConfig`; token types if there are at least two of them."""
        return ("token_types",) if (self.token_types or 0) >= 2 else ()

    @property
    def causal(self) -> bool:
        """Tokens attend to those after them, too."""
        return False


@dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig:
    """An encoder that reads a source, and a decoder that attends to it. They share the token embedding."""

    heads: ClassVar[tuple[str, ...]] = ("tokens",)
    """As in `ModelConfig`."""

    encoder: EncoderConfig
    """It has no heads."""
    decoder: ModelConfig
    """Its `source_length` is the most tokens that a source may have."""

    def __post_init__(self):
        for name in ("vocab_size", "d_model"):
            ours, theirs = getattr(self.encoder, name), getattr(self.decoder, name)
            check(ours == theirs, f"encoder.{name}={ours} must be decoder.{name}={theirs}")
        check(not self.encoder.heads, f"encoder.heads must be (), got {self.encoder.heads!r}")
        check(self.decoder.source_length is not None, "decoder.source_length must be given")

    @property
    def stacks(self) -> dict[str, ModelConfig]:
        """As in `ModelConfig`."""
        return {"model.encoder": self.encoder, "model.decoder": self.decoder}

    def with_stacks(self, stacks: dict[str, ModelConfig]) -> "Seq2SeqConfig":
        """As in `ModelConfig`."""
        return Seq2SeqConfig(encoder=stacks["model.encoder"], decoder=stacks["model.decoder"])

    @property
    def vocab_size(self) -> int:
        """Number of token ids V, of both stacks."""
        return self.decoder.vocab_size

    @property
    def segment_length(self) -> int:
        """Of the decoder, which reads the tokens that are scored."""
        return self.decoder.segment_length

    @property
    def causal(self) -> bool:
        """It does not go on with a text by itself: its decoder does, once a source has been read."""
        return False

    @property
    def inputs(self) -> tuple[str, ...]:
        """As in `ModelConfig`."""
        return ("source", "source_reset", "source_valid")

    def alignment_of(self, length: int) -> Alignment:
        """The alignment of calls of `length` tokens each, from the start of a stream on."""
        return "aligned" if length % self.segment_length == 0 else "any"

    def with_implementation(self, name: Literal["auto", "portable"]) -> "Seq2SeqConfig":
        """As in `ModelConfig`, of both stacks."""
        return self.with_stacks({stack: config.with_implementation(name) for stack, config in self.stacks.items()})

    def run_like(self, other: "Seq2SeqConfig") -> "Seq2SeqConfig":
        """As in `ModelConfig`, stack by stack."""
        return self.with_stacks({stack: config.run_like(other.stacks[stack]) for stack, config in self.stacks.items()})


@dataclass(frozen=True, kw_only=True)
class XLNetConfig(ModelConfig):
    """An XLNet whose layers own a memory: tokens see each other in any order, by their distances.

    Of `ModelConfig`, `window_size` and `num_positions` are not used: each token attends to all of the call, which may
    have any length. `rotary_base` is the base of the distances' wavelengths.
    """

    norm: Literal["rmsnorm", "layernorm"] = "layernorm"
    """Normalisation."""
    norm_position: Literal["pre", "post"] = "post"
    """Behind attention and feed-forward; nothing else is valid here."""
    position: Literal["rotary", "learned", "sinusoidal", "none"] = "none"
    """None of a token alone: attention knows distances. Nothing else is valid here."""
    activation: Activation = "gelu_exact"
    """Feed-forward activation."""
    feed_forward_bias: bool = True
    """Whether the two projections of the feed-forward layer have a bias."""
    max_distance: int | None = None
    """Tokens further away than this are as far as this; default: no limit."""
    output_bias: bool = True
    """Whether logits have a bias."""

    def __post_init__(self):
        super().__post_init__()
        for name, only in (("norm_position", "post"), ("position", "none"), ("tie_embeddings", True)):
            check(getattr(self, name) == only, f"{name}={getattr(self, name)!r} does not fit XLNet; valid: {only!r}")
        check(self.d_model % 2 == 0, f"sinusoids of distances need an even d_model, got {self.d_model}")
        check(
            not self.memory.token_recurrent,
            f"memory={type(self.memory).__name__} does not fit XLNet, whose tokens read all at once, as each of its "
            "reads depends on the token before; any other does",
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """As in `ModelConfig`."""
        return ("order", "token_types")

    @property
    def causal(self) -> bool:
        """Tokens attend to those after them, too."""
        return False
