"""Base classes of the configurations of memory mechanisms, and those of the default mechanism and the baseline.

The configurations of the other mechanisms are beside their modules; `memgpt_jax.memory.MEMORIES` lists all by name.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from memgpt_jax.config.checks import check, check_literals, check_types
from memgpt_jax.config.kernels import Implementation

Gate = Literal["log_bias", "scale", "scale_value", "none"]
Select = Literal["all", "highest_gate", "pool"]
Evict = Literal["oldest", "lowest_gate", "least_read"]
Compression = Literal["merge", "gate", "oldest"]
Visibility = Literal["segment", "token"]
Alignment = Literal["any", "aligned", "mid_segment", "unwritten"]
"""What the caller of a model guarantees about where a call begins and ends; see `models.MemGPT.__call__`."""


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Base of every mechanism's configuration."""

    stores: ClassVar[bool] = True
    """Whether the layer has a memory; False only for the baseline."""
    token_recurrent: ClassVar[bool] = False
    """Whether each token's read depends on the read of the token before it."""

    def __post_init__(self) -> None:
        check_types(self)

    def check_layer(self, *, d_model: int, segment_length: int) -> None:
        """Raise `ValueError` if the mechanism does not fit a layer of width D and segments of T tokens."""

    def with_kernels(self, name: Literal["auto", "portable"]) -> Self:
        """This configuration with another implementation of reads, if the mechanism has several."""
        return self

    def with_execution_of(self, other: "MemoryConfig") -> Self:
        """This configuration with the execution options of another; results change only by rounding."""
        return self

    def sharing_softmax(self, *, num_heads: int, num_kv_heads: int, head_dim: int) -> "MemoryConfig":
        """This configuration with the heads of self-attention, whose softmax it shares (fusion `attention`).

        Raises:
            ValueError: the mechanism cannot share a softmax with the window's tokens.
        """
        raise ValueError(f"fusion='attention' needs a KVMemoryConfig, got {type(self).__name__}")


@dataclass(frozen=True, kw_only=True)
class NoMemoryConfig(MemoryConfig):
    """No memory: the baseline."""

    stores: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class SizedMemoryConfig(MemoryConfig):
    """Base of the configurations of all mechanisms except the baseline."""

    memory_size: int = 64
    """Size M of the memory, in the mechanism's own unit."""
    match_state_bytes: int | None = None
    """Use the largest `memory_size` whose state has at most this number of bytes, per layer and row; the given
    `memory_size` is ignored. The configuration of a built model has the resulting `memory_size`."""
    bptt_segments: int | None = None
    """Number of segments through which gradients flow back via the memory. 0: none; default: all segments of a call."""

    def __post_init__(self) -> None:
        check_types(self)
        check(self.memory_size >= 0, f"memory_size must be at least 0, got {self.memory_size}")
        check(
            self.match_state_bytes is None or self.match_state_bytes >= 0,
            f"match_state_bytes must be None or at least 0, got {self.match_state_bytes}",
        )
        check(
            self.bptt_segments is None or self.bptt_segments >= 0,
            f"bptt_segments must be None or at least 0, got {self.bptt_segments}",
        )
        check_literals(self)

    @property
    def smallest_memory_size(self) -> int:
        """The smallest `memory_size` that `match_state_bytes` may choose."""
        return max(1, getattr(self, "initial_entries", 0))


@dataclass(frozen=True, kw_only=True)
class ProjectedMemoryConfig(SizedMemoryConfig):
    """Base of the configurations of mechanisms that project tokens to keys and values of several heads."""

    num_heads: int = 1
    """Number of heads H of the Reader."""
    head_dim: int = 64
    """Width K of keys and values, per head."""
    writer_conv: int = 3
    """Kernel size of the causal depthwise convolution before the Writer's key projection; 1: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.num_heads >= 1, f"num_heads must be at least 1, got {self.num_heads}")
        check(self.head_dim >= 1, f"head_dim must be at least 1, got {self.head_dim}")
        check(1 <= self.writer_conv <= 4, f"writer_conv must be between 1 and 4, got {self.writer_conv}")

    @property
    def kv_heads(self) -> int:
        """Number of keys and values of an entry."""
        return self.num_heads


@dataclass(frozen=True, kw_only=True)
class AttendedMemoryConfig(ProjectedMemoryConfig):
    """Base of the configurations of mechanisms that read keys and values by attention."""

    qk_norm: bool = True
    """Normalise queries and keys to unit length, with one learned temperature per head."""
    temperature: float = 10.0
    """Initial temperature with `qk_norm`; without it, logits are scaled by head_dim ** -0.5."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.temperature > 0, f"temperature must be positive, got {self.temperature}")


@dataclass(frozen=True, kw_only=True)
class KVMemoryConfig(AttendedMemoryConfig):
    """MemGPT's memory: gated key-value entries, appended segment by segment and read by attention."""

    memory_size: int = 1024
    """Maximum number M of entries per layer and row. 0: nothing is stored."""
    num_kv_heads: int | None = None
    """Number G of keys and of values that an entry holds, each read by H / G heads (grouped-query attention, Ainslie et
    al., 2023); default: H."""
    gate: Gate = "log_bias"
    """Effect of the write gate g on an entry: `log_bias` adds log g to its read logit, `scale` stores (g k, g v),
    `scale_value` stores (k, g v), `none` stores (k, v)."""
    gate_bias: float = 0.0
    """Initial bias b_g of the write gate g = sigmoid(W_g x + b_g) of the normalised stream x."""
    select: Select = "all"
    """Entries stored for a segment of T tokens: `all` T, the `select_size` with the `highest_gate`, or `select_size`
    entries that learned queries `pool` from the segment by attention."""
    select_size: int = 16
    """Number of entries stored per segment if `select` is not `all`; at most the segment length."""
    evict: Evict = "oldest"
    """Entries that are removed from a full memory: the `oldest`, those with the `lowest_gate` (including new ones), or
    the `least_read` (lowest mean attention weight per token since they were written; new entries are always stored).
    With `lowest_gate` the memory keeps the M entries of the document with the highest gates, so the gate that a new
    entry needs increases with the length: after 100,000 tokens of noise, an untrained memory stores almost nothing
    new."""
    initial_entries: int = 0
    """Number of trainable entries in a fresh memory; at most `memory_size`."""
    null_entry: bool = True
    """Add an always visible entry with a learned key and the value 0, so that a read can be empty."""
    visibility: Visibility = "segment"
    """Entries that a token reads: those of earlier segments (`segment`), or also those of its own segment up to and
    including itself (`token`)."""
    knowledge_size: int = 0
    """Number of entries of knowledge (`memgpt_jax.knowledge`) that a row can hold beside its M entries. They are read
    together with these, are never evicted, and outlive a reset."""
    knowledge_top_k: int | None = None
    """Entries of knowledge that a head reads for a token, in one softmax with those of the memory: the ones with the
    highest logits; default: all."""
    knowledge_recall: float | None = None
    """For an approximate search: the expected share of these entries that it finds, above 0 and below 1. Entries are
    distributed over bins, and only the best one of each bin is kept. Default: an exact search."""
    knowledge_cells: int | None = None
    """For an index: the number of cells, a power of 2, into which entries of knowledge are divided by their keys. A
    head reads the nearest of the entries of `knowledge_probes` cells alone. Default: no index."""
    knowledge_probes: int = 8
    """With `knowledge_cells`: number of cells that a head searches for a token: those whose mean keys have the highest
    logits."""
    recency_bias: bool = False
    """Subtract a learned multiple (per head, at least 0) of log(1 + age in segments) from an entry's logit."""
    continues_window: bool = False
    """With `fusion="attention"`: a token is read from the window until its segment is full, and after that from the
    memory, at the same rotary position. The window is never longer than a segment. Full attention is a special case, up
    to rounding: `gate="none"`, `select="all"`, `writer_conv=1`, `qk_norm=False`, `recency_bias=False`,
    `fusion_bias=0`, attention's own projections, and room for all tokens in every layer. Default: entries have no
    positions, and the window keeps tokens that are entries already."""
    read_implementation: Implementation = "auto"
    """Implementation of reads in calls with whole segments: any `Implementation` but `cudnn`."""
    entry_bits: Literal[8] | None = None
    """Bits of each stored key and value: 8, with a power of 2 per vector (`memgpt_jax.ops.int8_vectors`), in calls and
    in the state. Default: those of the compute type. Knowledge is stored in the compute type."""
    compressed: Literal["gate", "merge"] | None = None
    """Set by `mg.compress_memory`: how it made the memory smaller. With `merge`, an entry may stand for several
    tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(
            self.kv_heads >= 1 and self.num_heads % self.kv_heads == 0,
            f"num_kv_heads={self.num_kv_heads} must divide num_heads={self.num_heads}",
        )
        check(self.read_implementation != "cudnn", "read_implementation='cudnn' has no kernel for memory reads")
        check(self.select_size >= 1, f"select_size must be at least 1, got {self.select_size}")
        check(
            0 <= self.initial_entries <= self.memory_size,
            f"initial_entries must be between 0 and memory_size={self.memory_size}, got {self.initial_entries}",
        )
        check(
            not self.continues_window
            or (
                self.select != "pool"
                and not self.null_entry
                and self.initial_entries == self.knowledge_size == 0
                and self.visibility == "segment"
            ),
            "continues_window=True needs entries of tokens alone: select='all' or 'highest_gate', null_entry=False, "
            f"initial_entries=0, knowledge_size=0 and visibility='segment', got {self.select!r}, {self.null_entry}, "
            f"{self.initial_entries}, {self.knowledge_size} and {self.visibility!r}",
        )
        check(self.knowledge_size >= 0, f"knowledge_size must be at least 0, got {self.knowledge_size}")
        check(
            self.knowledge_top_k is None or (self.knowledge_top_k >= 1 and self.evict != "least_read"),
            f"knowledge_top_k must be at least 1, without evict='least_read', got {self.knowledge_top_k} and "
            f"{self.evict!r}",
        )
        check(
            self.knowledge_recall is None or (0 < self.knowledge_recall < 1 and self.knowledge_top_k is not None),
            "knowledge_recall must be above 0 and below 1, and needs knowledge_top_k, got "
            f"{self.knowledge_recall} and {self.knowledge_top_k}",
        )
        check(self.knowledge_probes >= 1, f"knowledge_probes must be at least 1, got {self.knowledge_probes}")
        cells = self.knowledge_cells
        check(
            cells is None
            or (
                1 <= cells <= (self.knowledge_size or cells)
                and cells & (cells - 1) == 0
                and self.knowledge_top_k is not None
                and self.knowledge_recall is None
            ),
            "knowledge_cells must be a power of 2 of at most knowledge_size, with knowledge_top_k and without "
            f"knowledge_recall, got {cells}, {self.knowledge_size}, {self.knowledge_top_k} and {self.knowledge_recall}",
        )
        check(
            self.read_implementation in ("auto", "portable")
            or (
                self.initial_entries == self.knowledge_size == 0
                and self.visibility == "segment"
                and self.evict != "least_read"
            ),
            f"read_implementation={self.read_implementation!r} needs initial_entries=0, knowledge_size=0, "
            f"visibility='segment' and evict='oldest' or 'lowest_gate', got {self.initial_entries}, "
            f"{self.knowledge_size}, {self.visibility!r} and {self.evict!r}",
        )

    @property
    def kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    def check_layer(self, *, d_model: int, segment_length: int) -> None:
        check(
            self.select == "all" or self.select_size <= segment_length,
            f"memory.select_size={self.select_size} must be at most segment_length={segment_length}",
        )

    def with_kernels(self, name: Literal["auto", "portable"]) -> Self:
        return replace(self, read_implementation=name)

    def with_execution_of(self, other: MemoryConfig) -> Self:
        is_kv = isinstance(other, KVMemoryConfig)
        return replace(self, read_implementation=other.read_implementation) if is_kv else self

    def sharing_softmax(self, *, num_heads: int, num_kv_heads: int, head_dim: int) -> Self:
        check(
            self.read_implementation in ("auto", "portable"),
            f"memory.read_implementation={self.read_implementation!r} does not support fusion='attention'; "
            "valid: 'auto', 'portable'",
        )
        return replace(self, num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim)
