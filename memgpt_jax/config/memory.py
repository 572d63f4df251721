"""Configurations of the memory mechanisms, one class each; `memgpt_jax.memory.MEMORIES` gives them their names."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from memgpt_jax.config.checks import check, check_literals

Gate = Literal["log_bias", "scale", "scale_value", "none"]
Select = Literal["all", "highest_gate", "pool"]
Evict = Literal["oldest", "lowest_gate", "least_read"]
Visibility = Literal["segment", "token"]
Alignment = Literal["any", "aligned", "mid_segment"]
"""What the caller of a model guarantees about where a call begins and ends; see `models.MemGPT.__call__`."""
ReadImplementation = Literal["auto", "portable", "pallas", "interpret"]


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Base of every mechanism's configuration."""

    token_recurrent: ClassVar[bool] = False
    """Whether each token's read depends on the read of the token before it."""

    def check_model(self, model) -> None:
        """Raise `ValueError` where the mechanism does not fit a `ModelConfig`."""


@dataclass(frozen=True, kw_only=True)
class NoMemoryConfig(MemoryConfig):
    """No memory: the baseline."""


@dataclass(frozen=True, kw_only=True)
class SizedMemoryConfig(MemoryConfig):
    """Base of those that store something: what all of them are asked for by the same name."""

    memory_size: int = 64
    """Size M of the memory, in the mechanism's own unit."""
    match_state_bytes: int | None = None
    """Choose the largest `memory_size` whose state has at most this many bytes, per layer and row; what
    `memory_size` says is then ignored."""
    bptt_segments: int | None = None
    """How many segments back gradients flow through the memory. 0: none; default: all within a call."""

    def __post_init__(self):
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


@dataclass(frozen=True, kw_only=True)
class ProjectedMemoryConfig(SizedMemoryConfig):
    """Base of those that project tokens to keys and values, in heads."""

    num_heads: int = 1
    """Heads with which the Reader attends; each entry holds one key and one value for each head."""
    head_dim: int = 64
    """Width of a key and of a value, per head."""
    writer_conv: int = 3
    """Kernel size of the causal depthwise convolution in front of the Writer's keys; 1: none."""

    def __post_init__(self):
        super().__post_init__()
        check(self.num_heads >= 1, f"num_heads must be at least 1, got {self.num_heads}")
        check(self.head_dim >= 1, f"head_dim must be at least 1, got {self.head_dim}")
        check(1 <= self.writer_conv <= 4, f"writer_conv must be between 1 and 4, got {self.writer_conv}")


@dataclass(frozen=True, kw_only=True)
class AttendedMemoryConfig(ProjectedMemoryConfig):
    """Base of those that read keys and values by attention."""

    qk_norm: bool = True
    """Normalise queries and keys to unit length, with one learned temperature per head."""
    temperature: float = 10.0
    """Initial temperature when `qk_norm` is on; without it logits are scaled by head_dim ** -0.5."""

    def __post_init__(self):
        super().__post_init__()
        check(self.temperature > 0, f"temperature must be positive, got {self.temperature}")


@dataclass(frozen=True, kw_only=True)
class KVMemoryConfig(AttendedMemoryConfig):
    """MemGPT's memory: gated key-value entries, appended a segment at a time and read by attention."""

    memory_size: int = 1024
    """Entries M that each layer keeps for each row. 0: nothing is ever stored."""
    gate: Gate = "log_bias"
    """What the write gate g does to an entry: `log_bias` adds log g to its read logit, `scale` stores (g k, g v),
    `scale_value` stores (k, g v), `none` stores (k, v)."""
    gate_bias: float = 0.0
    """Initial bias b_g of the write gate g = sigmoid(W_g h + b_g)."""
    select: Select = "all"
    """What a segment of T tokens stores: `all` T entries, the `select_size` of the `highest_gate`, or `select_size`
    entries that learned queries `pool` from the segment by attention."""
    select_size: int = 16
    """Entries that a segment stores when `select` is not `all`; at most the segment length."""
    evict: Evict = "oldest"
    """What leaves a full memory: the `oldest` entries, those of the `lowest_gate` (new ones included), or the
    `least_read` (lowest mean attention weight per token since they were written; new ones always enter). With
    `lowest_gate` a memory keeps the M entries of the document with the highest gates, so the gate that a new entry
    needs rises with the length: after 100,000 tokens of noise, an untrained memory stores almost nothing new."""
    initial_entries: int = 0
    """Trainable entries that a fresh memory starts with; at most `memory_size`."""
    null_entry: bool = True
    """Add an always visible entry with a learned key and the value 0, so that "nothing relevant" can be read."""
    visibility: Visibility = "segment"
    """What a token reads: entries of earlier `segment`s, or also each earlier `token` of its own, itself included."""
    recency_bias: bool = False
    """Subtract a learned multiple (per head, at least 0) of log(1 + age in segments) from an entry's logit."""
    read_implementation: ReadImplementation = "auto"
    """How all segments of a call read at once: in `portable` JAX, or by a kernel: `pallas` on a GPU or a TPU, or step
    by step in plain JAX for tests (`interpret`). `auto`: see `ops.Implementation`."""

    def __post_init__(self):
        super().__post_init__()
        check(self.select_size >= 1, f"select_size must be at least 1, got {self.select_size}")
        check(
            0 <= self.initial_entries <= self.memory_size,
            f"initial_entries must be between 0 and memory_size={self.memory_size}, got {self.initial_entries}",
        )
        check(
            self.read_implementation in ("auto", "portable")
            or (self.initial_entries == 0 and self.visibility == "segment" and self.evict != "least_read"),
            f"read_implementation={self.read_implementation!r} needs initial_entries=0, visibility='segment' and "
            f"evict='oldest' or 'lowest_gate', got {self.initial_entries}, {self.visibility!r} and {self.evict!r}",
        )

    def check_model(self, model):
        check(
            self.select == "all" or self.select_size <= model.segment_length,
            f"memory.select_size={self.select_size} must be at most segment_length={model.segment_length}",
        )
