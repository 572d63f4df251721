"""Fine-tuning in one call: a pretrained model, a task on one's own data, and a folder for the run."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memgpt_jax import models
from memgpt_jax.checkpoint import Checkpoints, load_run
from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.heads import HeadedConfig, StreamHeadConfig
from memgpt_jax.config.memory import MemoryConfig
from memgpt_jax.config.model import EncoderConfig, Seq2SeqConfig, StackConfig
from memgpt_jax.data import TASKS, make_task, tokenizer_of
from memgpt_jax.data.examples.files import ExamplesConfig
from memgpt_jax.data.tasks.document_questions import DocumentQuestionsConfig
from memgpt_jax.data.tasks.text_pairs import TextPairsConfig
from memgpt_jax.data.tokenizers.base import Tokenizer
from memgpt_jax.data.tokenizers.load import read_tokenizer
from memgpt_jax.files.paths import shown
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.interop.adapters import fingerprint
from memgpt_jax.interop.add_memory import ADDABLE
from memgpt_jax.interop.pretrained import describe, save_pretrained
from memgpt_jax.models.heads.labels import LabelHeadConfig
from memgpt_jax.models.heads.scalars import ScalarHeadConfig
from memgpt_jax.models.heads.spans import SpanHeadConfig
from memgpt_jax.models.heads.vectors import VectorHeadConfig
from memgpt_jax.models.model_functions import AnyModel
from memgpt_jax.models.quantization import quantized_bits
from memgpt_jax.ops.trees import named_leaves
from memgpt_jax.training.loop import train as train_run

OTHER_MODEL = "{} holds a run of another model, {}: give that model, or choose another workdir"
Rows = str | Path | Sequence[Mapping[str, Any]]
"""Examples: a file or folder, or a list of dictionaries by column."""


class Finetuned(NamedTuple):
    """A fine-tuned model: `mg.pipeline(workdir)` uses it, `mg.load_run(workdir)` opens it."""

    workdir: Path
    """The folder of the run."""
    config: ExperimentConfig
    """The experiment, with the labels of the data."""
    evaluation: dict[str, Any]
    """The results on the validation split."""


def finetune(
    model: str | Path | AnyModel,
    task: ExamplesConfig,
    *,
    workdir: str | Path,
    train: Rows | None = None,
    valid: Rows | None = None,
    test: Rows | None = None,
    tokenizer: Tokenizer | None = None,
    head: StreamHeadConfig | None = None,
    memory: MemoryConfig | None = None,
    call_length: int | None = None,
    trainable: str | Sequence[str] = (),
    adapter_rank: int | None = None,
    epochs: float = 3.0,
    patience: int | None = None,
    metric: str = "loss",
    batch_size: int = 16,
    sequence_length: int = 128,
    learning_rate: float = 1e-4,
    lr_multipliers: str | Sequence[str] = (),
    weight_decay: float = 0.01,
    dropout: float = 0.1,
    seed: int = 0,
    print_progress: bool | None = None,
) -> Finetuned:
    """Train a pretrained model on a task, with a head for labels and tags, and evaluate it on the validation split.

    >>> run = mg.finetune("MODEL", mg.LabelledTextConfig(train="reviews.csv"), workdir="runs/reviews")
    >>> mg.pipeline(run.workdir)("A fine film.")

    Called again with the same arguments after an interruption, it resumes.

    Args:
        model: a folder or name as in `from_pretrained`, or a model, which is saved in `workdir/base`.
        task: the task, with the columns of its files.
        workdir: the folder of the run.
        train: the training examples; overrides `task.train`. A list is written to a file in `workdir/data`.
        valid: the validation examples; overrides `task.valid`.
        test: the test examples; overrides `task.test`.
        tokenizer: the tokenizer of `model`, if `model` is a model object; refused with a folder or a name.
        head: the head; default: a linear `LabelHeadConfig`, pooled by the mean, or for tags not pooled, with
            `loss="binary"` for any number of labels; for numbers a linear `ScalarHeadConfig`, pooled by the mean; for
            questions a linear `SpanHeadConfig`; for retrieval and replies a linear `VectorHeadConfig`, pooled by
            the mean. Pairs of texts (`TextPairsConfig`) and questions about documents (`DocumentQuestionsConfig`) need
            none: the model learns them by its own logits.
        memory: the memory of every layer; default: as in the pretrained model. `NoMemoryConfig()` removes it.
        call_length: tokens of a call in which rows and texts are read; see `HeadedConfig.call_length`.
        trainable: patterns of the parameters that are trained, such as ("head", "lora"); default: all.
        adapter_rank: rank of low-rank adapters (LoRA); default: as in the pretrained model.
        epochs: approximate passes over the training examples: the number of steps follows from how rows are packed.
        patience: evaluate after each quarter of an epoch, keep the best parameters, and stop after this number of
            evaluations without improvement; default: evaluate at the end only.
        metric: with `patience`, the result that chooses the best parameters, such as "accuracy", "f1" or "bleu".
        batch_size: rows B of a batch.
        sequence_length: tokens L of a row; longer texts are cut to it in training, but documents with questions are
            read in several steps with the memory carried.
        learning_rate: the peak of the learning rate: linear warm-up in a tenth of the steps, then decay.
        lr_multipliers: PATTERN=FACTOR for parameters with another rate, such as ("memory_layer=10",).
        weight_decay: decoupled weight decay of kernels and embeddings.
        dropout: dropout rate of the model and, by default, of the head.
        seed: seed of new parameters, data order and dropout.
        print_progress: as in `train`.

    Raises:
        ValueError: an argument, a file, a column or a label is not valid, which the message names; or the folder holds
            a run of another model, of other examples or with another tokenizer.
        RunError: as in `train`.
    """
    task = instance_of(task, ExamplesConfig, "task")
    for name, value in (("batch_size", batch_size), ("sequence_length", sequence_length)):
        check(value >= 1, f"{name} must be at least 1, got {value}")
    check(epochs > 0, f"epochs must be positive, got {epochs}")
    workdir = Path(workdir).expanduser()
    task = _with_rows(task, workdir, {"train": train, "valid": valid, "test": test})
    if not isinstance(model, str | Path):
        check(tokenizer is not None, "a model in memory needs a tokenizer: give tokenizer=")
        assert tokenizer is not None
        model = _saved(model, tokenizer, workdir)
    else:
        check(
            tokenizer is None,
            f"model={str(model)!r} has a tokenizer of its own; another one is named by task.tokenizer, a folder or a "
            "name: leave tokenizer= out",
        )
        _check_start(workdir, str(model))
    found = describe(model)
    backbone = found.config
    check(found.bits is None, f"model={str(model)!r} is quantised and cannot be trained: train the model itself")
    check(
        not isinstance(backbone, HeadedConfig),
        f"model={str(model)!r} has a head already: fine-tune the model without one, or train the run for more steps",
    )
    check(
        getattr(task, "sample_rows", None) is None,
        "task.sample_rows is for private training by mg.train: an epoch of finetune has every text once",
    )
    writes = isinstance(task, TextPairsConfig | DocumentQuestionsConfig)
    if isinstance(task, TextPairsConfig) and isinstance(backbone, Seq2SeqConfig) and task.source_length is None:
        task = dataclasses.replace(task, source_length=min(backbone.decoder.source_length or 1, sequence_length))
    check(
        not writes or (head is None and call_length is None),
        "what a model writes is learned by its own logits: leave head and call_length out",
    )
    head = head or _default_head(TASKS.of(task).evaluation, dropout)
    stacks = {name: _with(stack, memory, adapter_rank, dropout) for name, stack in backbone.stacks.items()}
    epoch = _tokens(task, str(model), sequence_length) / (batch_size * sequence_length)
    steps, quarter = max(1, round(epochs * epoch)), max(1, round(epoch / 4))
    backbone = backbone.with_stacks(stacks)
    config = ExperimentConfig(
        model=backbone if writes else HeadedConfig(backbone=backbone, head=head, call_length=call_length),
        data=task,
        pretrained=str(model),
        optimizer=OptimizerConfig(
            learning_rate=learning_rate,
            lr_multipliers=_patterns(lr_multipliers),
            warmup_steps=max(1, steps // 10),
            weight_decay=weight_decay,
            trainable=_patterns(trainable),
        ),
        training=TrainingConfig(
            steps=steps,
            batch_size=batch_size,
            sequence_length=sequence_length,
            carry_state=task.carries,
            checkpoint_every=max(1, steps // 4) if patience is None else quarter,
        ),
        evaluation=EvaluationConfig(
            batch_size=2 * batch_size,
            chunk_length=call_length or sequence_length,
            max_tokens=None,
            every=None if patience is None else quarter,
            metric=metric,
            patience=patience,
        ),
        seed=seed,
    )
    result = train_run(config, workdir, print_progress=print_progress)
    return Finetuned(workdir, load_run(workdir).config, result["evaluation"])


def _saved(model: AnyModel, tokenizer: Tokenizer, workdir: Path) -> Path:
    """The folder `base` of the run with a model in memory. Raises `ValueError` if it holds another one."""
    base, params = workdir / "base", models.to_params(model)
    check(quantized_bits(params) is None, "model is quantised and cannot be trained: train the model itself")
    if not (base / "config.json").is_file():
        before = _started_from(workdir)
        check(before is None, OTHER_MODEL.format(shown(workdir), repr(before)))
        save_pretrained(model, base, tokenizer=tokenizer)
        return base
    kept = describe(base)
    same = kept.config == model.config and kept.bits is None
    same = same and fingerprint(named_leaves(kept.params())) == fingerprint(named_leaves(params))
    check(same, OTHER_MODEL.format(shown(workdir), f"the one in {shown(base)}"))
    check(
        read_tokenizer(base).fingerprint == tokenizer.fingerprint,
        f"{shown(workdir)} holds a run with another tokenizer, the one in {shown(base)}: choose another workdir",
    )
    return base


def _started_from(workdir: Path) -> str | None:
    """The pretrained model of the run in a folder; None if there is no run."""
    if not (workdir / "checkpoints").is_dir():
        return None
    with Checkpoints(workdir, read_only=True) as checkpoints:
        return None if checkpoints.latest_step() is None else checkpoints.first_good(checkpoints.config).pretrained


def _check_start(workdir: Path, model: str) -> None:
    """Raise `ValueError` if the folder holds a run that started from another model; its folder may have moved."""
    before = _started_from(workdir)
    if before is None or before == model:
        return
    old, new = Path(before).expanduser(), Path(model).expanduser()
    moved = new.exists() and not old.exists() and old.name == new.name
    same = new.samefile(old) if new.exists() and old.exists() else moved
    check(same, OTHER_MODEL.format(shown(workdir), repr(before)))


def _default_head(evaluation: str, dropout: float) -> StreamHeadConfig:
    """The head for a task that is evaluated in this way."""
    if evaluation == "numbers":
        return ScalarHeadConfig(pool="mean", dropout=dropout)
    if evaluation in ("retrieval", "replies"):
        return VectorHeadConfig(pool="mean", dropout=dropout)
    if evaluation == "spans":
        return SpanHeadConfig(dropout=dropout)
    if evaluation == "multi_labels":
        return LabelHeadConfig(pool="mean", dropout=dropout, loss="binary")
    return LabelHeadConfig(pool="none" if evaluation == "tags" else "mean", dropout=dropout)


def _patterns(values: str | Sequence[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


def _with_rows(task: ExamplesConfig, workdir: Path, given: Mapping[str, Rows | None]) -> ExamplesConfig:
    """The task with the given files; lists are written to JSON lines.

    Raises `ValueError` if a row is not a dictionary of JSON values, or the folder holds a run on other rows.
    """
    changes: dict[str, Any] = {}
    begun = _started_from(workdir) is not None
    for split, rows in given.items():
        if rows is None or isinstance(rows, str | Path):
            changes |= {} if rows is None else {split: str(rows)}
            continue
        check(not isinstance(rows, Mapping), f"{split} must be a list of dictionaries, one for each example")
        lines = "".join(f"{_line(split, number, row)}\n" for number, row in enumerate(rows, start=1))
        path = workdir / "data" / f"{split}.jsonl"
        check(
            not begun or not path.exists() or path.read_text(encoding="utf-8") == lines,
            f"{shown(workdir)} holds a run with other examples ({split}): choose another workdir",
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lines)
        changes[split] = str(path)
    return dataclasses.replace(task, **changes)


def _line(split: str, number: int, row: Any) -> str:
    """A row as JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"a {type(value).__name__}")

    check(isinstance(row, Mapping), f"{split}, row {number} must be a dictionary by column, it is {type(row).__name__}")
    try:
        line = json.dumps(dict(row), ensure_ascii=False, default=plain)
        line.encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{split}, row {number} cannot be written as JSON: {error}") from None
    return line


def _with(stack: StackConfig, memory: MemoryConfig | None, adapter_rank: int | None, dropout: float) -> StackConfig:
    changes: dict[str, Any] = {"dropout": dropout}
    if memory is not None:
        changes["memory"] = instance_of(memory, MemoryConfig, "memory")
        if stack.fusion not in ADDABLE:
            changes |= {"fusion": "gated_add", "fusion_bias": 0.0}  # leaves the outputs of the model unchanged at first
    if adapter_rank is not None:
        changes["adapter_rank"] = adapter_rank
    if isinstance(stack, EncoderConfig):
        changes["heads"] = ()
    return dataclasses.replace(stack, **changes)


def _tokens(task: ExamplesConfig, model: str, length: int) -> int:
    """Tokens of one pass over the training examples."""
    name = model if task.tokenizer == "pretrained" else task.tokenizer
    tokenizer = tokenizer_of(dataclasses.replace(task, tokenizer=name))
    return make_task(task, "train", tokenizer).training_tokens(length)
