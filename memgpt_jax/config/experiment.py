"""Every configuration of the library: keyword-only frozen dataclasses with checked values.

A config can be made without arguments, is hashable, and is never traced: modules read it once, when they are built.
An illegal value raises `ValueError` naming the field, the value and what is valid.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from memgpt_jax.config.checks import check, check_literals, check_positive
from memgpt_jax.config.data import DataConfig, TaskConfig, TextConfig
from memgpt_jax.config.model import BaseModelConfig, ModelConfig, StackConfig


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer and learning-rate schedule."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    """Update rule."""
    learning_rate: float = 3e-3
    """Peak learning rate."""
    warmup_steps: int = 100
    """Steps of linear warm-up from 0."""
    final_lr_fraction: float = 0.1
    """Learning rate at the last step as a fraction of the peak; a half cosine in between."""
    weight_decay: float = 0.1
    """Decoupled weight decay of `adamw`; never on norms, biases, gates and learned entries."""
    b1: float = 0.9
    """Decay of the first moment; the momentum of `sgd`."""
    b2: float = 0.95
    """Decay of the second moment."""
    clip_norm: float = 1.0
    """Global gradient norm is clipped to this; 0: no clipping."""
    gate_lr_multiplier: float = 3.0
    """Learning-rate multiplier of the parameters that are declared gates: write gates and fusion gates."""
    trainable: tuple[str, ...] = ()
    """Regular expressions: only parameters in whose path one of them is found are trained, as in `memory_layer lora`;
    default: all. The others have no state in the optimizer."""
    accumulate_steps: int = 1
    """Gradient accumulation: batches that are averaged into one update."""

    def __post_init__(self):
        check(self.learning_rate > 0, f"learning_rate must be positive, got {self.learning_rate}")
        check(self.warmup_steps >= 0, f"warmup_steps must be at least 0, got {self.warmup_steps}")
        check(self.accumulate_steps >= 1, f"accumulate_steps must be at least 1, got {self.accumulate_steps}")
        check(self.weight_decay >= 0, f"weight_decay must be at least 0, got {self.weight_decay}")
        check(self.clip_norm >= 0, f"clip_norm must be at least 0, got {self.clip_norm}")
        check(
            0 <= self.final_lr_fraction <= 1,
            f"final_lr_fraction must be between 0 and 1, got {self.final_lr_fraction}",
        )
        object.__setattr__(self, "trainable", tuple(self.trainable))  # a list is welcome too
        for pattern in self.trainable:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"trainable: {pattern!r} is no regular expression: {error}") from None
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
    steps_per_call: int = 1
    """Training steps per compiled call (an inner scan). Raises the throughput of very small models, for which the host
    is the bottleneck."""
    log_every: int = 10
    """Steps between lines of `metrics.jsonl`."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """Number of checkpoints that are kept."""
    max_skipped: int = 10
    """Stop after this many updates in a row were skipped for a loss or gradient that is not finite."""

    def __post_init__(self):
        check_positive(self)
        for name in ("steps", "log_every", "checkpoint_every"):
            number = getattr(self, name)
            check(
                number % self.steps_per_call == 0,
                f"training.{name}={number} must be a multiple of training.steps_per_call={self.steps_per_call}",
            )


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
    """Batches of a generated task (recall, needles), or of an objective other than `causal`, that are evaluated."""

    def __post_init__(self):
        check_positive(self)
        check_literals(self)


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """How a run is spread over devices. It may change from one start of a run to the next."""

    data: int | None = None
    """Size of the data-parallel axis (parameters are replicated); default: all devices not used by the other axes."""
    fsdp: int = 1
    """Size of the axis that splits batch rows, parameters and optimizer state."""
    tensor: int = 1
    """Size of the axis that splits heads and hidden channels."""
    sequence: int = 1
    """Size of the axis that splits the entries of each memory."""
    stall_seconds: float = 25.0
    """Multi-process runs only: if no step finishes for this many seconds, and for ten times the longest step so far,
    the process prints the stacks of all threads and exits. 0: never."""

    def __post_init__(self):
        check_positive(self)
        check(self.stall_seconds >= 0, f"stall_seconds must be at least 0, got {self.stall_seconds}")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One experiment: what `configs/NAME.py` builds and the command line changes."""

    model: BaseModelConfig = field(default_factory=ModelConfig)
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
    pretrained: str | None = None
    """Weights to start from: a folder, a GGUF file or a name on the Hub, as in `from_pretrained`. The architecture is
    then theirs; of `model` count the memory, its layers and fusion, window, segments, adapters, and how to compute."""
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
        objective, length = self.data.objective, self.row_length or self.training.sequence_length
        check(
            self.text is None or self.text.objective == objective,
            f"data.text.objective={self.text and self.text.objective}: a task is trained with {objective}; leave "
            "data.text.objective at its default",
        )
        objective.check_model(self.model, length)
        for name, stack in self.stacks.items():
            if stack.position == "learned":
                most = stack.num_positions
                check(length <= most, f"training.sequence_length={length} must be at most {name}.num_positions={most}")
        if isinstance(self.data, TaskConfig) and self.data.text is None:
            check(
                self.model.vocab_size >= self.data.num_ids,
                f"model.vocab_size={self.model.vocab_size} must be at least {self.data.num_ids}, the ids of the task",
            )

    @property
    def stacks(self) -> dict[str, StackConfig]:
        """The model's stacks by the path of their field: "model", or "model.encoder" and "model.decoder"."""
        stacks = self.model.stacks
        return {"model" if self.model is stack else f"model.{name}": stack for name, stack in stacks.items()}

    @property
    def text(self) -> TextConfig | None:
        """The corpus that `data` reads; None where all is generated."""
        return self.data.text if isinstance(self.data, TaskConfig) else self.data

    @property
    def row_length(self) -> int | None:
        """Tokens of a row, where they follow from the task and not from `training.sequence_length`."""
        return self.data.row_length if isinstance(self.data, TaskConfig) else None
