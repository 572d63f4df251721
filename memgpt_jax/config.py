"""Every configuration of the library: keyword-only frozen dataclasses with checked values.

A config can be made without arguments, is hashable, and is never traced: modules read it once, when they are built.
An illegal value raises `ValueError` naming the field, the value and what is valid.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from memgpt_jax.checks import check, check_literals, check_positive
from memgpt_jax.config_data import DataConfig, TaskConfig, TextConfig
from memgpt_jax.config_memory import KVMemoryConfig, MemoryConfig, NoMemoryConfig

Fusion = Literal["gated", "gated_heads", "concat", "add"]
Remat = Literal["none", "block", "dots"]
AttentionImplementation = Literal["auto", "portable", "cudnn", "pallas", "interpret"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A GPT decoder whose layers own a memory."""

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
    """Hidden width of the feed-forward layer; default: 4 d_model (GELU), 8/3 d_model rounded up to 8 (SwiGLU)."""
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
    of channels), `concat` (concatenate and project), `add`."""
    fusion_bias: float = 2.0
    """Initial bias of the fusion gate: lambda = sigmoid(fusion_bias) of h passes at the start."""
    position: Literal["rotary", "learned", "sinusoidal", "none"] = "rotary"
    """Position encoding; learned and sinusoidal positions count from the start of a document."""
    num_positions: int = 1024
    """Size of the table of learned positions; positions beyond it wrap around."""
    rotary_base: float = 10000.0
    """Base of the rotary and sinusoidal wavelengths."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """Pre-normalisation."""
    activation: Literal["gelu", "swiglu"] = "gelu"
    """Feed-forward activation."""
    tie_embeddings: bool = True
    """Use the token embedding as the output projection too."""
    qk_norm: bool = False
    """RMS-normalise queries and keys of self-attention, per head."""
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
        return 4 * self.d_model if self.activation == "gelu" else -(-8 * self.d_model // 24) * 8

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
        ways = {name: getattr(other, name) for name in ("attention_implementation", "remat", "scan_layers")}
        return replace(self, memory=memory, **ways)

    def layer_has_memory(self, layer: int) -> bool:
        """Whether the given layer owns a memory."""
        return self.memory_layers is None or layer in self.memory_layers


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer and learning-rate schedule."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    """Update rule."""
    learning_rate: float = 3e-3
    """Peak learning rate."""
    warmup_steps: int = 100
    """Steps of linear warm-up from 0."""
    final_learning_rate: float = 0.1
    """Learning rate at the last step, as a share of the peak; cosine in between."""
    weight_decay: float = 0.1
    """Decoupled weight decay of `adamw`; never on norms, biases, gates and learned entries."""
    b1: float = 0.9
    """Decay of the first moment; the momentum of `sgd`."""
    b2: float = 0.95
    """Decay of the second moment."""
    clip_norm: float = 1.0
    """Global gradient norm is clipped to this; 0: no clipping."""
    gate_learning_rate: float = 3.0
    """Learning-rate multiplier of write gates and fusion gates."""
    accumulate_steps: int = 1
    """Gradient accumulation: batches that are averaged into one update."""

    def __post_init__(self):
        check(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")
        check(self.warmup_steps >= 0, f"warmup_steps must be at least 0, got {self.warmup_steps}")
        check(self.accumulate_steps >= 1, f"accumulate_steps must be at least 1, got {self.accumulate_steps}")
        check(self.weight_decay >= 0, f"weight_decay must be at least 0, got {self.weight_decay}")
        check(self.clip_norm >= 0, f"clip_norm must be at least 0, got {self.clip_norm}")
        check(
            0 <= self.final_learning_rate <= 1,
            f"final_learning_rate must be between 0 and 1, got {self.final_learning_rate}",
        )
        check_literals(self)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The training loop."""

    steps: int = 400
    """Optimizer updates."""
    batch_size: int = 8
    """Rows B, each an independent stream."""
    sequence_length: int = 1024
    """Tokens L of a row that one step sees; a multiple of the model's segment length."""
    carry_state: bool = True
    """Carry memory and window from step to step (the gradient is cut there). False: every step starts fresh."""
    log_every: int = 10
    """Steps between lines of `metrics.jsonl`."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """How many checkpoints are kept."""
    max_skipped: int = 10
    """Stop after this many updates in a row were skipped for a loss or gradient that is not finite."""

    def __post_init__(self):
        check_positive(self)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Held-out evaluation: each document streams from an empty memory."""

    split: Literal["valid", "test"] = "valid"
    """Which split is read."""
    max_documents: int | None = 32
    """How many documents; default of the command line: the first 32. None: all."""
    max_tokens: int | None = 8192
    """How many tokens of each document. None: all."""
    batch_size: int = 8
    """Rows evaluated together."""
    chunk_length: int = 1024
    """Tokens of a row per call; a multiple of the model's segment length."""
    num_batches: int = 16
    """Batches of a generated task (recall, needles) that are evaluated."""

    def __post_init__(self):
        check_positive(self)
        check_literals(self)


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How a run is spread over devices. It may change from one start of a run to the next."""

    data: int | None = None
    """Devices that share out batch rows and hold parameters of their own; default: those that the others leave."""
    fsdp: int = 1
    """Devices that share out batch rows, and with them the parameters and the optimizer's state."""
    tensor: int = 1
    """Devices that share out heads and hidden channels."""
    sequence: int = 1
    """Devices that share out the entries of each memory."""
    stall_seconds: float = 25.0
    """Where several processes train: end this one, with the stacks of all its threads, when for so long no step is done
    (and for ten times as long as the longest step). 0: wait for ever."""

    def __post_init__(self):
        check_positive(self)
        check(self.stall_seconds >= 0, f"stall_seconds must be at least 0, got {self.stall_seconds}")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One experiment: what `configs/NAME.py` builds and the command line changes."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The model."""
    data: DataConfig = field(default_factory=TextConfig)
    """What it is trained on."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How it is optimized."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The training loop."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """The evaluation after training, and of `experiments/evaluate.py`."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """How it is spread over devices."""
    seed: int = 0
    """Seed of parameters, data order and dropout."""

    def __post_init__(self):
        segment = self.model.segment_length
        for name, length in (
            ("training.sequence_length", self.training.sequence_length),
            ("evaluation.chunk_length", self.evaluation.chunk_length),
        ):
            check(
                self.row_length is not None or length % segment == 0,
                f"{name}={length} must be a multiple of model.segment_length={segment}",
            )
        if isinstance(self.data, TaskConfig) and self.data.text is None:
            check(
                self.model.vocab_size >= self.data.num_ids,
                f"model.vocab_size={self.model.vocab_size} must be at least {self.data.num_ids}, the ids of the task",
            )

    @property
    def text(self) -> TextConfig | None:
        """The corpus that `data` reads; None where all is generated."""
        return self.data.text if isinstance(self.data, TaskConfig) else self.data

    @property
    def row_length(self) -> int | None:
        """Tokens of a row, where they follow from the task and not from `training.sequence_length`."""
        return self.data.row_length if isinstance(self.data, TaskConfig) else None
