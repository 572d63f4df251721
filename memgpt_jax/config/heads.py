"""Models with a head, and the base classes of heads; each head's configuration is beside its module."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from memgpt_jax.config.checks import check, check_literals, check_positive, check_types
from memgpt_jax.config.memory import Alignment
from memgpt_jax.config.model import BaseModelConfig, ModelConfig, StackConfig
from memgpt_jax.config.texts import CleanConfig

PoolName = Literal["none", "first", "last", "mean", "max", "attention"]
TruncationSide = Literal["left", "right"]
ModalityFusionName = Literal["concat", "gate"]


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Base of the configuration of every head."""

    target: ClassVar[str] = "labels"
    """Over a `HeadedConfig`: the name of its targets in a batch."""
    inputs: ClassVar[tuple[str, ...]] = ()
    """Over a `HeadedConfig`: further inputs of the model's call that the head reads, and the backbone does not."""
    token_inputs: ClassVar[tuple[str, ...]] = ()
    """Over a `HeadedConfig`: inputs of the model's call [B, L] that the head reads; the backbone may read them, too."""
    pipeline: ClassVar[str | None] = None
    """Over a `HeadedConfig`: the pipeline of a run whose task names none; None: there is none."""

    def __post_init__(self) -> None:
        check_types(self)

    @property
    def mixes_texts(self) -> bool:
        """Whether training mixes the texts of a batch, by `StreamHead.mixed_score` in place of `score`."""
        return False


@dataclass(frozen=True, kw_only=True)
class StreamHeadConfig(HeadConfig):
    """A head of a `HeadedConfig`: layers over the hidden states, a pool, and a projection to the outputs."""

    num_outputs: int = 2
    """Number of outputs C: classes, tags or numbers. Training sets it from the labels of the data."""
    output_names: tuple[str, ...] = ()
    """Names of the outputs, which training sets from the labels of the data; (): they have none."""
    max_length: int | None = None
    """Tokens to which texts are cut, which training sets from the data, for pipelines; None: no limit."""
    truncation_side: TruncationSide = "right"
    """The end at which they are cut, which training sets from the data, for pipelines: `left` keeps the last tokens."""
    case_as_token_type: bool = False
    """Whether token types give the case of words, which training sets from the data, for pipelines."""
    tag_token: Literal["first", "last"] = "last"
    """The token of a word whose output is its tag, which training sets from the data, for pipelines."""
    clean: CleanConfig = field(default_factory=CleanConfig)
    """How texts are cleaned, which training sets from the data, for pipelines."""
    layers: str = "linear"
    """Layers between the hidden states and the pool, a name in `memgpt_jax.models.heads.HEAD_LAYERS`: `linear` (none:
    the head is linear), `mlp`, `tanh`, `conv`, `gru`, `lstm`, or a registered one."""
    num_layers: int = 1
    """Number of such layers; 1 for `linear`."""
    width: int | None = None
    """Width of their outputs; default: that of the hidden states."""
    kernel_size: int = 3
    """Taps of `conv`; odd over an encoder, whose convolutions are centred."""
    pool: PoolName = "mean"
    """How the tokens of a document up to and including a token are pooled for the outputs at this token: `first`,
    `last`, `mean`, `max`, `attention` (softmax over learned logits), or `none`, the token alone."""
    dropout: float = 0.0
    """Dropout rate on the inputs of the layers and of the projection."""

    def __post_init__(self) -> None:
        check(not isinstance(self.output_names, str), f"head.output_names must be a list, got {self.output_names!r}")
        object.__setattr__(self, "output_names", tuple(self.output_names))  # a list is also accepted
        check_positive(self)
        check_literals(self)
        check(
            len(self.output_names) in (0, self.num_outputs),
            f"head.output_names has {len(self.output_names)} names for num_outputs={self.num_outputs} outputs",
        )
        check(
            self.layers != "linear" or (self.num_layers == 1 and self.width is None),
            f"head.num_layers={self.num_layers} and head.width={self.width} need head.layers: 'linear' has no layers",
        )
        check(0.0 <= self.dropout < 1.0, f"head.dropout must be in [0, 1), got {self.dropout}")


@dataclass(frozen=True, kw_only=True)
class HeadedConfig(BaseModelConfig):
    """A head over the last hidden states of a model, which has no other output."""

    backbone: BaseModelConfig = field(default_factory=ModelConfig)
    """The model: a `ModelConfig`, `EncoderConfig`, `XLNetConfig` or `Seq2SeqConfig`."""
    head: HeadConfig
    """The head: a configuration registered with `register_head`, such as `LabelHeadConfig`."""
    call_length: int | None = None
    """Read longer calls in parts of this number of tokens, with a gradient through memory and head: an encoder then
    learns to read documents that arrive in such calls. Default: one call."""

    def __post_init__(self) -> None:
        check_positive(self)
        check(not isinstance(self.backbone, HeadedConfig), "backbone has a head already: give the model without one")
        check(
            self.call_length is None or not self.head.inputs,
            f"call_length={self.call_length} divides a call by its tokens; the input {' and '.join(self.head.inputs)} "
            "of the head has none: take call_length=None",
        )

    @property
    def heads(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The name of the targets of the head."""
        return (self.head.target,)

    @property
    def causal(self) -> bool:
        """False: without its logits of tokens, it cannot generate text."""
        return False

    @property
    def has_dropout(self) -> bool:
        return super().has_dropout or bool(getattr(self.head, "dropout", 0.0)) or self.mixes_texts

    @property
    def mixes_texts(self) -> bool:
        return self.head.mixes_texts

    @property
    def streams(self) -> bool:
        """Whether any division of a document into calls gives the same outputs: the backbone is causal."""
        return self.last_stack.causal

    @property
    def last_stack(self) -> StackConfig:
        """The stack whose last hidden states the head reads."""
        return [*self.backbone.stacks.values()][-1]

    @property
    def stacks(self) -> dict[str, StackConfig]:
        backbone = self.backbone.stacks
        return {"backbone" if stack is self.backbone else f"backbone.{name}": stack for name, stack in backbone.items()}

    def with_stacks(self, stacks: Mapping[str, StackConfig]) -> Self:
        names = dict(zip(self.backbone.stacks, self.stacks, strict=True))
        return replace(self, backbone=self.backbone.with_stacks({name: stacks[path] for name, path in names.items()}))

    def alignment_of(self, length: int, *, padded: bool = False) -> Alignment:
        """The alignment of the calls in which `length` tokens are read: `call_length` each, where there are more."""
        return super().alignment_of(min(length, self.call_length or length), padded=padded)

    @property
    def vocab_size(self) -> int:
        """Number of token ids V of the backbone."""
        return self.backbone.vocab_size

    @property
    def segment_length(self) -> int:
        """Segment length of the backbone, in tokens."""
        return self.backbone.segment_length

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.backbone.inputs + self.head.inputs + self.head.token_inputs))
