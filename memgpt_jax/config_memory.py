"""Configurations of the memory mechanisms, one class each; `memgpt_jax.memory.MEMORIES` gives them their names."""

from dataclasses import dataclass
from typing import Literal

from memgpt_jax.checks import check, check_literals

Gate = Literal["log_bias", "scale", "scale_value", "none"]
Select = Literal["all", "highest_gate", "pool"]
Evict = Literal["oldest", "lowest_gate", "least_read"]
Visibility = Literal["segment", "token"]
Compression = Literal["mean", "max", "conv", "most_used"]
Search = Literal["exact", "approximate"]
MemN2NEntry = Literal["token", "segment"]
MemN2NTying = Literal["adjacent", "layerwise"]
TokensUpdate = Literal["lstm", "fixed", "replace"]
FeatureMap = Literal["none", "elu", "dpfp"]
Controller = Literal["pair", "none", "lstm"]
Order = Literal["read_write", "write_read"]
ReadImplementation = Literal["auto", "portable", "pallas", "interpret"]


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """Base of every mechanism's configuration."""

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


@dataclass(frozen=True, kw_only=True)
class KNNMemoryConfig(AttendedMemoryConfig):
    """A very large store of keys and values, of which each token reads the few that match it best."""

    memory_size: int = 4096
    """Entries M that each layer keeps for each row, the oldest giving way. 0: nothing is ever stored."""
    top_k: int = 32
    """Entries that a head reads for a token; the whole store where it holds no more."""
    search: Search = "exact"
    """How they are found: the `exact` ones, or `approximate`ly: the best of so many bins that, if entries fall into
    bins at random, `recall_target` of them are expected to be found."""
    recall_target: float = 0.95
    """Expected share of the best `top_k` entries that an `approximate` search finds; above 0 and below 1. Where devices
    share out the entries, each searches its own exactly."""
    gate_bias: float = 0.0
    """Initial bias b of each head's gate g = sigmoid(b) between the store (g) and the token's own segment (1 - g)."""
    temperature: float = 20.0
    """Initial temperature when `qk_norm` is on; without it logits are scaled by head_dim ** -0.5."""

    def __post_init__(self):
        super().__post_init__()
        check(self.top_k >= 1, f"top_k must be at least 1, got {self.top_k}")
        check(0 < self.recall_target < 1, f"recall_target must be above 0 and below 1, got {self.recall_target}")


@dataclass(frozen=True, kw_only=True)
class CompressiveMemoryConfig(AttendedMemoryConfig):
    """A memory of recent entries, which are compressed into an older, longer one when they leave it."""

    memory_size: int = 512
    """Entries M that each layer keeps for each row, recent and compressed together. 0: nothing is ever stored."""
    recent_size: int | None = None
    """How many of the M are the most recent entries, uncompressed; default: half of `memory_size`, rounded down.
    `memory_size`, where that is less."""
    ratio: int = 2
    """Entries c that become one compressed entry."""
    compression: Compression = "conv"
    """How: their `mean`, the `max` of each channel, a learned `conv`olution of width and stride c (which starts as the
    mean), or the `most_used` one: that which received most attention."""
    temperature: float = 20.0
    """Initial temperature when `qk_norm` is on; without it logits are scaled by head_dim ** -0.5."""

    def __post_init__(self):
        super().__post_init__()
        check(
            self.recent_size is None or self.recent_size >= 0,
            f"recent_size must be None or at least 0, got {self.recent_size}",
        )
        check(self.ratio >= 1, f"ratio must be at least 1, got {self.ratio}")

    @property
    def sizes(self) -> tuple[int, int]:
        """Entries that are recent and entries that are compressed; their sum is `memory_size`."""
        recent = self.memory_size // 2 if self.recent_size is None else min(self.recent_size, self.memory_size)
        return recent, self.memory_size - recent


@dataclass(frozen=True, kw_only=True)
class MemN2NMemoryConfig(AttendedMemoryConfig):
    """End-to-end memory network: the newest entries, read in several hops."""

    memory_size: int = 1024
    """Entries M that each layer keeps for each row: the newest. 0: nothing is ever stored."""
    entry: MemN2NEntry = "token"
    """What an entry holds: one `token`, or a whole `segment` as the position-encoded sum of its tokens."""
    num_hops: int = 3
    """How many times the Reader looks into memory, each time with what it found before."""
    tying: MemN2NTying = "adjacent"
    """Which maps hops share: `adjacent`, the output map of one is the input map of the next; `layerwise`, all hops have
    the same two, and a learned map updates the question between them."""
    num_ages: int = 16
    """Ages, counted in segments, that have a temporal encoding of their own; older entries share the last. 0: none."""
    null_entry: bool = True
    """Add an always visible entry with a learned key and the value 0, so that a hop can leave the question as it is."""

    def __post_init__(self):
        super().__post_init__()
        check(self.num_hops >= 1, f"num_hops must be at least 1, got {self.num_hops}")
        check(self.num_ages >= 0, f"num_ages must be at least 0, got {self.num_ages}")


@dataclass(frozen=True, kw_only=True)
class TokensMemoryConfig(AttendedMemoryConfig):
    """Recurrent state vectors, read and rewritten by cross-attention."""

    memory_size: int = 64
    """State vectors M of each layer and row, each of the model's width. A parameter belongs to each of them."""
    num_heads: int = 4
    """Heads of both attentions."""
    head_dim: int = 32
    """Width of a head."""
    update: TokensUpdate = "lstm"
    """How a state takes up what it found in a segment: with the input and forget gates of an `lstm`, with one learned
    `fixed` gate per channel, or `replace`d by it."""
    keep_bias: float = 3.0
    """Initial bias b_f of the forget gate, or b_g of the fixed one: how much of a state a segment leaves in place."""


@dataclass(frozen=True, kw_only=True)
class AssociativeMemoryConfig(ProjectedMemoryConfig):
    """Fast weights: a matrix per head that holds outer products of keys and values, with a linear or a delta rule."""

    memory_size: int = 64
    """Features M of a key, per head: the rows of the matrix, and how many orthogonal keys it can tell apart. Save with
    `dpfp`, key and query projections are as wide, so a trained model keeps its size."""
    num_heads: int = 1
    """Heads, each with a matrix of its own."""
    head_dim: int = 64
    """Width K of a value, per head: the columns of the matrix; with `dpfp` also of a key before its features."""
    rule: Literal["delta", "linear"] = "delta"
    """How a pair is written: `linear` adds it; `delta` replaces what the matrix holds at its key."""
    feature_map: FeatureMap = "none"
    """Features of queries and keys, always of unit length: `none`, `elu` (all positive), or `dpfp` (sparse products,
    whose number needs no parameters)."""
    normalize: bool = False
    """Divide what is read by the weight that was written there; for the linear rule with `elu` or `dpfp`."""
    gate_bias: float = 0.0
    """Initial bias b_g of the write strength g = sigmoid(W_g h + b_g), one per head."""
    forget: bool = False
    """Let every token scale the matrix by 1 - f, f = sigmoid(W_f h + b_f), before it is written."""
    forget_bias: float = -5.0
    """Initial bias b_f of the forget gate, when `forget` is on."""
    initial_entries: int = 0
    """Trainable pairs that a fresh matrix holds."""
    visibility: Visibility = "segment"
    """What a token reads: what earlier `segment`s wrote, or also each earlier `token` of its own, itself included."""

    def __post_init__(self):
        super().__post_init__()
        check(self.memory_size >= 1, f"memory_size must be at least 1, got {self.memory_size}")
        check(self.initial_entries >= 0, f"initial_entries must be at least 0, got {self.initial_entries}")
        check(
            not self.normalize or (self.rule == "linear" and self.feature_map != "none"),
            "normalize=True needs rule='linear' and feature_map='elu' or 'dpfp', whose features are positive, got "
            f"rule={self.rule!r} and feature_map={self.feature_map!r}",
        )


@dataclass(frozen=True, kw_only=True)
class TitansMemoryConfig(ProjectedMemoryConfig):
    """Titans: a small network per head whose weights are trained on what is written, by surprise with momentum."""

    memory_size: int = 64
    """Width M of the network's hidden layers; with one layer, of its keys. A trained model keeps its size."""
    num_heads: int = 1
    """Heads, each with a network of its own."""
    head_dim: int = 64
    """Width K of a value, per head, and of a key where there is a hidden layer."""
    num_layers: int = 2
    """Layers of the network; 1: a matrix."""
    chunk_length: int = 16
    """Tokens whose gradients are taken at the same weights; a segment has as many equal chunks as it needs."""
    inner_rate: float = 0.25
    """Largest step size: theta = inner_rate sigmoid(W h + b). Networks of a few hidden channels may diverge."""
    rate_bias: float = 0.0
    """Initial bias of the step size's gate."""
    inertia_bias: float = 0.0
    """Initial bias of eta, the share of the momentum that each token keeps. With the other defaults and 2 (eta = 0.88),
    a memory still learns after 10,000 tokens of noise; with 4 (eta = 0.98), the momentum of 50 tokens adds up, and
    reads grow without bound."""
    forget_bias: float = -5.0
    """Initial bias of alpha, the share of what was learned that each token forgets: weights decay towards the initial
    ones."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("memory_size", "num_layers", "chunk_length"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        check(self.inner_rate > 0, f"inner_rate must be positive, got {self.inner_rate}")


@dataclass(frozen=True, kw_only=True)
class RecurrentMemoryConfig(SizedMemoryConfig):
    """Base of those whose slots every token reads and writes in turn."""

    memory_size: int = 64
    """Slots M that each layer keeps for each row."""
    slot_width: int = 64
    """Width W of a slot, of keys and of reads; an even number."""
    num_read_heads: int = 1
    """Heads R that read."""
    controller: Controller = "pair"
    """What addresses the slots: a matmul of the token and the one before it (`pair`), of the token alone (`none`), or
    an `lstm` that sees the token and what the token before it read."""
    controller_size: int = 100
    """Width of the LSTM's state."""
    order: Order = "read_write"
    """Whether a token reads before it writes, or writes first and so can read what it writes itself."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("memory_size", "slot_width", "num_read_heads", "controller_size"):
            check(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        check(self.slot_width % 2 == 0, f"slot_width must be even, got {self.slot_width}")


@dataclass(frozen=True, kw_only=True)
class NTMMemoryConfig(RecurrentMemoryConfig):
    """Neural Turing Machine: slots addressed by content and by location, erased and added to."""

    num_write_heads: int = 1
    """Heads that write."""
    shift_range: int = 1
    """How many slots a head can move to either side in one step."""

    def __post_init__(self):
        super().__post_init__()
        check(self.num_write_heads >= 1, f"num_write_heads must be at least 1, got {self.num_write_heads}")
        check(self.shift_range >= 0, f"shift_range must be at least 0, got {self.shift_range}")


@dataclass(frozen=True, kw_only=True)
class DNCMemoryConfig(RecurrentMemoryConfig):
    """Differentiable Neural Computer: slots that are allocated, freed, and linked in the order of writing."""
