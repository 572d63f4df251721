"""The configuration of an experiment: model, data, optimizer, training loop, evaluation and device mesh."""

import re
from dataclasses import dataclass, field
from typing import Literal

from memgpt_jax.config.checks import at_least, check, check_literals, check_positive, check_types, positive, set_tuples
from memgpt_jax.config.data import DataConfig, TaskConfig, TextConfig
from memgpt_jax.config.distill import DistillConfig
from memgpt_jax.config.model import BaseModelConfig, ModelConfig, PositionedStackConfig, StackConfig


@dataclass(frozen=True, kw_only=True)
class PrivateConfig:
    """Differentially private training (DP-SGD): Abadi et al., "Deep Learning with Differential Privacy" (2016).

    g = (sum_i g_i min(1, C / |g_i|) + sigma C z) / R, z standard normal: g_i is the gradient of text i of the batch, C
    `clip_norm`, sigma `noise_multiplier`, R `data.sample_rows`. The trained parameters are differentially private,
    (epsilon, delta), with respect to adding or removing one text; logged training losses are not. z and the texts of a
    batch follow from `ExperimentConfig.seed`, a number of 32 bits: the privacy holds against those who neither know it
    nor compute the noise of all 2^32 seeds. Draw it at random, and publish the exported parameters
    (`mg.save_pretrained`), not the folder of the run, which holds it.
    """

    epsilon: float | None = 8.0
    """The privacy loss of the whole run, from which sigma follows; None: `noise_multiplier` is given."""
    noise_multiplier: float | None = None
    """sigma; default: it follows from `epsilon`, `delta`, the number of steps and the number of texts."""
    delta: float = 1e-5
    """Probability with which the privacy loss may be larger; choose it below 1 / texts."""
    clip_norm: float = 1.0
    """C, the largest norm of the gradient of a text."""

    def __post_init__(self) -> None:
        check_types(self)
        check(
            (self.epsilon is None) != (self.noise_multiplier is None),
            f"optimizer.private needs either epsilon or noise_multiplier, got {self.epsilon} and "
            f"{self.noise_multiplier}",
        )
        check(0 < self.delta < 1, f"optimizer.private.delta must be between 0 and 1, got {self.delta}")
        for name in ("epsilon", "noise_multiplier", "clip_norm"):
            value = getattr(self, name)
            check(value is None or 0 < value < float("inf"), f"optimizer.private.{name} must be positive, got {value}")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer and learning-rate schedule."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    """Update rule."""
    learning_rate: float = positive(3e-3)
    """Peak learning rate."""
    warmup_steps: int = at_least(0, 100)
    """Steps of linear warm-up from 0."""
    final_lr_fraction: float = 0.1
    """Learning rate at the last step as a fraction of the peak, to which it decays along a half cosine."""
    weight_decay: float = 0.1
    """Decoupled weight decay of `adamw`; not applied to norms, biases, gates and learned memory entries."""
    b1: float = 0.9
    """Decay of the first moment; the momentum of `sgd`."""
    b2: float = 0.95
    """Decay of the second moment."""
    clip_norm: float = 1.0
    """Maximum global norm of the gradient; 0: no clipping."""
    gate_lr_multiplier: float = positive(3.0)
    """Learning-rate multiplier of parameters that are declared as gates, such as write gates and fusion gates."""
    lr_multipliers: tuple[str, ...] = ()
    """Learning-rate multipliers of parameters, each PATTERN=FACTOR, for example `memory_layer=10 head=10`: a parameter
    whose path the regular expression matches has the factor; of several, the first. Gates also have
    `gate_lr_multiplier`. For parts that begin untrained over a pretrained model."""
    trainable: tuple[str, ...] = ()
    """Regular expressions, for example `memory_layer lora`: train only the parameters whose path matches one of them;
    default: all. The optimizer has no state for the other parameters."""
    accumulate_steps: int = 1
    """Gradient accumulation: number of batches whose gradients are averaged into one update. A loss that compares the
    rows of a batch, such as that of `VectorHeadConfig`, mixup and `distill.hidden_weight`, compares those of each batch
    by itself: it is not that of one larger batch."""
    private: PrivateConfig | None = None
    """Differentially private training on texts with `data.sample_rows`; needs the extra `private`."""

    def __post_init__(self) -> None:
        check_positive(self)
        for name in ("b1", "b2"):
            check(0 <= getattr(self, name) < 1, f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        check(self.weight_decay >= 0, f"weight_decay must be at least 0, got {self.weight_decay}")
        check(self.clip_norm >= 0, f"clip_norm must be at least 0, got {self.clip_norm}")
        check(
            0 <= self.final_lr_fraction <= 1,
            f"final_lr_fraction must be between 0 and 1, got {self.final_lr_fraction}",
        )
        set_tuples(self, "trainable", "lr_multipliers")
        for pattern in self.trainable:
            _check_pattern("trainable", pattern)
        for pattern, factor in self.factors:
            _check_pattern("lr_multipliers", pattern)
            check(
                0 < factor < float("inf"), f"lr_multipliers: the factor of {pattern!r} must be positive, got {factor}"
            )
        check_literals(self)

    @property
    def factors(self) -> tuple[tuple[str, float], ...]:
        """The patterns of `lr_multipliers` with their factors."""
        return tuple(map(_pattern_and_factor, self.lr_multipliers))


def _pattern_and_factor(text: str) -> tuple[str, float]:
    pattern, _, factor = text.rpartition("=")
    try:
        return pattern, float(factor)
    except ValueError:
        raise ValueError(f"lr_multipliers: {text!r} is not PATTERN=FACTOR, such as memory_layer=10") from None


def _check_pattern(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{name}: {pattern!r} is not a regular expression: {error}") from None
    check(bool(pattern), f"{name}: a pattern is empty")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The training loop."""

    steps: int = 400
    """Number of optimizer updates."""
    batch_size: int = 8
    """Rows B of a batch, each an independent stream."""
    sequence_length: int = 1024
    """Tokens L per row and step; a multiple of the model's segment length. Not used with a task that determines the
    length of its rows (`TaskConfig.row_length`)."""
    carry_state: bool = True
    """Carry memory and attention window from step to step; gradients stop at the start of a step. False: every step
    starts from a fresh state."""
    skip_backward: bool = False
    """Compute no gradient of a batch whose weights are all 0: for long documents with short answers. The results are
    the same, unless a loss of your own does not multiply by the weights; the program holds the forward pass twice."""
    steps_per_call: int = 1
    """Training steps per jitted call (an inner scan). Larger values raise the throughput of very small models, for
    which the host is the bottleneck."""
    log_every: int = 10
    """Steps between lines of `metrics.jsonl`."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    keep_checkpoints: int = 2
    """Number of checkpoints that are kept."""
    max_skipped: int = 10
    """Stop after this number of consecutive updates was skipped because the loss, a gradient or the new model
    state was not finite."""

    def __post_init__(self) -> None:
        check_positive(self)
        for name in ("steps", "log_every", "checkpoint_every"):
            number = getattr(self, name)
            check(
                number % self.steps_per_call == 0,
                f"training.{name}={number} must be a multiple of training.steps_per_call={self.steps_per_call}",
            )


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Held-out evaluation; each document starts from an empty memory."""

    split: Literal["valid", "test"] = "valid"
    """Split to evaluate."""
    max_documents: int | None = None
    """Maximum number of documents, examples, queries or users, taken from the start of the split. Files that are sorted
    by label then give few labels. None: all."""
    max_tokens: int | None = 8192
    """Maximum number of tokens per document, taken from its start. None: all."""
    batch_size: int = 8
    """Rows per batch."""
    chunk_length: int = 1024
    """Tokens per row and call; a multiple of the model's segment length."""
    num_batches: int = 16
    """Number of batches, for generated tasks (recall, needles) and for objectives other than `causal`."""
    every: int | None = None
    """Number of steps between evaluations, a multiple of `training.checkpoint_every`; also after the last. The
    best parameters are kept in the sub-folder `best` of the run. Default: only at the end."""
    metric: str = "loss"
    """The result that chooses the best parameters."""
    patience: int | None = None
    """Stop training after this number of evaluations without improvement; default: never. A run that was stopped
    continues if it is started again with a larger value."""

    def __post_init__(self) -> None:
        check_positive(self)
        check_literals(self)
        check(
            self.patience is None or self.every is not None,
            f"evaluation.patience={self.patience} needs evaluation.every, the steps between evaluations",
        )
        check(
            self.metric == "loss" or self.every is not None,
            f"evaluation.metric={self.metric!r} needs evaluation.every: it chooses among several evaluations",
        )


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """The device mesh of a run. A run may be resumed on another mesh."""

    data: int | None = None
    """Size of the data-parallel axis, which splits batch rows and replicates parameters; default: all devices that the
    other axes do not use."""
    fsdp: int = 1
    """Size of the fully sharded data-parallel axis, which splits batch rows, parameters and optimizer state."""
    tensor: int = 1
    """Size of the tensor-parallel axis, which splits attention heads and hidden channels."""
    sequence: int = 1
    """Size of the axis that splits the entries of each memory."""
    stall_seconds: float = 25.0
    """Multi-process training only: if no step finishes for this number of seconds (and for 10 times the longest step so
    far), print the stacks of all threads and exit. 0: never."""

    def __post_init__(self) -> None:
        check_positive(self)
        check(self.stall_seconds >= 0, f"stall_seconds must be at least 0, got {self.stall_seconds}")


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One experiment, as `configs/NAME.py` builds it and the command line changes it."""

    model: BaseModelConfig = field(default_factory=ModelConfig)
    """The model."""
    data: DataConfig = field(default_factory=TextConfig)
    """The training data: text with an objective, or a task."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimizer and the learning-rate schedule."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """The training loop."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """The held-out evaluation, after training and by the command `evaluate`."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """The device mesh."""
    pretrained: str | None = None
    """Weights to start from: a folder, a GGUF file or a name on the Hub, as in `from_pretrained`. The architecture is
    then that of the pretrained model; only these fields of `model` are used: the memory, its layers and its fusion,
    window, segment length, adapters and execution options."""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """Knowledge distillation: learning from other models, too."""
    seed: int = 0
    """Seed of parameters, data order, dropout and the noise of private training: 0 to 2^32 - 1."""

    def __post_init__(self) -> None:
        check_types(self)
        check(0 <= self.seed < 2**32, f"seed={self.seed} must be at least 0 and below 2^32")  # JAX cuts longer ones
        segment = self.model.segment_length
        for name, length in (
            ("training.sequence_length", self.training.sequence_length),
            ("evaluation.chunk_length", self.evaluation.chunk_length),
        ):
            check(
                self.row_length is not None or length % segment == 0,
                f"{name}={length} must be a multiple of model.segment_length={segment}",
            )
        call = getattr(self.model, "call_length", None)
        for name, length in (
            ("training.sequence_length", self.row_length or self.training.sequence_length),
            ("evaluation.chunk_length", self.evaluation.chunk_length),
        ):
            check(
                call is None or length <= call or length % call == 0,
                f"{name}={length} must be a multiple of model.call_length={call}, or less",
            )
        every, saved = self.evaluation.every, self.training.checkpoint_every
        check(
            every is None or every % saved == 0,
            f"evaluation.every={every} must be a multiple of training.checkpoint_every={saved}",
        )
        objective, length = self.data.objective, self.row_length or self.training.sequence_length
        check(
            self.text is None or self.text.objective == objective,
            f"data.text.objective={self.text and self.text.objective}: a task is trained with {objective}; leave "
            "data.text.objective at its default",
        )
        objective.check_model(self.model, length)
        check(
            self.training.carry_state or not getattr(self.data, "carries", False),
            f"{type(self.data).__name__} needs training.carry_state=True: documents are longer than a call",
        )
        self._check_private()
        check(
            not (self.distill.active and self.model.mixes_texts),
            "distill needs model.head.mixup=0: the teachers read texts that are not mixed",
        )
        for name, stack in self.stacks.items():
            if isinstance(stack, PositionedStackConfig) and stack.position == "learned":
                most = stack.num_positions  # an encoder counts them from the start of a call
                read = length if stack.causal else min(length, call or length)
                check(read <= most, f"training.sequence_length={read} must be at most {name}.num_positions={most}")
        if isinstance(self.data, TaskConfig) and self.data.text is None:
            check(
                self.model.vocab_size >= self.data.num_ids,
                f"model.vocab_size={self.model.vocab_size} must be at least {self.data.num_ids}, the ids of the task",
            )

    def _check_private(self) -> None:
        rows = getattr(self.data, "sample_rows", None)
        check(
            rows is None or rows <= self.training.batch_size,
            f"data.sample_rows={rows} must be at most training.batch_size={self.training.batch_size}",
        )
        if self.optimizer.private is None:
            return
        check(not self.distill.active, "optimizer.private needs distill.teachers=(): it does not cover teachers")
        check(rows is not None, "optimizer.private needs data.sample_rows: texts that are drawn at random, one a row")
        check(
            not self.model.mixes_texts,
            "optimizer.private needs model.head.mixup=0: the gradient of a text must not depend on other texts",
        )
        for name, value, needed in (
            ("optimizer.accumulate_steps", self.optimizer.accumulate_steps, 1),
            ("training.carry_state", self.training.carry_state, False),  # no memory goes from text to text
            ("training.skip_backward", self.training.skip_backward, False),
        ):
            check(value == needed, f"optimizer.private needs {name}={needed}, got {value}")

    @property
    def stacks(self) -> dict[str, StackConfig]:
        """The model's stacks by the path of their field: "model", or "model.encoder" and "model.decoder"."""
        stacks = self.model.stacks
        return {"model" if self.model is stack else f"model.{name}": stack for name, stack in stacks.items()}

    @property
    def text(self) -> TextConfig | None:
        """The corpus that `data` reads; None if the data are generated."""
        return self.data.text if isinstance(self.data, TaskConfig) else self.data

    @property
    def row_length(self) -> int | None:
        """Tokens L per row if the task determines them; None: `training.sequence_length` does."""
        return self.data.row_length if isinstance(self.data, TaskConfig) else None
