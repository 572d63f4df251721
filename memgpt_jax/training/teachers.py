"""The teachers of a distillation: which models may teach, their parameters, and their states beside the student's."""

import dataclasses
import functools
import json
from typing import Any, NamedTuple

import jax

from memgpt_jax import data, models
from memgpt_jax.config.checks import check
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.distill import DistillConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.model import BaseModelConfig, ModelConfig
from memgpt_jax.config.serialization import from_json, to_json
from memgpt_jax.interop.adapters import fingerprint
from memgpt_jax.interop.pretrained import describe
from memgpt_jax.models.heads.labels import LabelHeadConfig
from memgpt_jax.models.model_functions import MODELS
from memgpt_jax.ops.trees import named_leaves


class Taught(NamedTuple):
    """The state of a student and of its teachers; every array has the batch axis first."""

    student: Any
    teachers: tuple[Any, ...]


def initial_model_state(config: ExperimentConfig) -> Any:
    """The state of the model before the first token; with teachers that run in each step, `Taught`."""
    rows = config.training.batch_size
    student = models.functional(config.model).init_state(rows)
    return Taught(student, initial_teacher_states(config.distill, rows)) if running_teachers(config) else student


def initial_teacher_states(distill: DistillConfig, rows: int) -> tuple[Any, ...]:
    """The states of the teachers before the first token."""
    return tuple(models.functional(model).init_state(rows) for model in teacher_models(distill))


def student_state(model_state: Any) -> Any:
    """The part of a run's model state that is the student's; without teachers, all of it."""
    return model_state.student if isinstance(model_state, Taught) else model_state


def running_teachers(config: ExperimentConfig) -> tuple[BaseModelConfig, ...]:
    """The configurations of the teachers that run in each step."""
    distill = config.distill
    return teacher_models(distill) if distill.active and not distill.cached else ()


@functools.lru_cache
def teacher_models(distill: DistillConfig) -> tuple[BaseModelConfig, ...]:
    """The configurations of the teachers' models."""
    check(len(distill.architectures) == len(distill.teachers), "the teachers have not been read: see `with_teachers`")
    return tuple(from_json(json.loads(text), tuple(MODELS)) for text in distill.architectures)


def with_teachers(config: ExperimentConfig) -> tuple[ExperimentConfig, tuple[models.Params, ...]]:
    """Read the teachers: the experiment with their architectures and fingerprints, and their parameters.

    Raises:
        ValueError: the model cannot be a student, or a teacher does not fit it.
    """
    distill = config.distill
    given = [item.name for item in dataclasses.fields(distill) if getattr(distill, item.name) != item.default]
    unused = ", ".join(f"distill.{name}={getattr(distill, name)!r}" for name in given)
    check(bool(distill.teachers or not unused), f"{unused} needs distill.teachers, the models that teach")
    if not distill.active:
        return config, ()
    _check_student(config)
    found = [describe(source, task_head=True) for source in distill.teachers]
    for source, teacher in zip(distill.teachers, found, strict=True):
        _check_teacher(source, teacher.config, config)
    params = tuple(jax.device_get(teacher.params()) for teacher in found)  # each process puts its part on its devices
    filled = dataclasses.replace(
        distill,
        fingerprints=tuple(fingerprint(named_leaves(tree)) for tree in params),
        architectures=tuple(json.dumps(to_json(teacher.config.with_kernels("auto"))) for teacher in found),
    )
    return dataclasses.replace(config, distill=filled), params


def check_tokenizers(distill: DistillConfig, tokenizer: data.Tokenizer | None) -> None:
    """Raise `ValueError` if a teacher has another tokenizer than the run; with `by_spans`, if one is not lossless.

    Tasks without text have no tokenizer.
    """
    if tokenizer is None or not distill.active:
        return
    if distill.by_spans:
        named = {"the run": tokenizer} | {source: data.load_tokenizer(source) for source in distill.teachers}
        for source, each in named.items():
            check(each.lossless, f"distill.by_spans=True needs lossless tokenizers; that of {source} is not")
        return
    for source in distill.teachers:
        check(
            data.load_tokenizer(source).fingerprint == tokenizer.fingerprint,
            f"distill.teachers: {source} has another tokenizer than the run; train the student with the tokenizer of "
            f"its teacher: data.tokenizer={source!r}, or compare spans of text: distill.by_spans=True",
        )


def _check_student(config: ExperimentConfig) -> None:
    model, distill = config.model, config.distill
    if isinstance(model, HeadedConfig):
        head = model.head
        check(
            isinstance(head, LabelHeadConfig) and head.loss == "cross_entropy" and not head.crf,
            "distill needs a LabelHeadConfig with loss='cross_entropy' and crf=False as model.head, got "
            f"{type(head).__name__}",
        )
        for name in ("hidden_weight", "attention_weight"):
            value = getattr(distill, name)
            check(not value, f"distill.{name}={value} needs a decoder; a model with a head needs 0")
    else:
        check(
            isinstance(model, ModelConfig) and config.data.objective.causal,
            f"distill needs a decoder, or a model with a head for classes, not a {type(model).__name__}",
        )
    check(
        not distill.by_spans or (isinstance(config.data, TextConfig) and config.data.objective.causal),
        "distill.by_spans=True needs a corpus as data (TextConfig) and the objective CausalConfig, got "
        f"{type(config.data).__name__} with {type(config.data.objective).__name__}",
    )
    outputs = _outputs(model)
    check(
        distill.top_k is None or distill.top_k <= outputs,
        f"distill.top_k={distill.top_k} must be at most {outputs}, the number of outputs of the model",
    )


def _check_teacher(source: str, teacher: BaseModelConfig, config: ExperimentConfig) -> None:
    model = config.model
    check(
        isinstance(teacher, HeadedConfig if isinstance(model, HeadedConfig) else ModelConfig),
        f"distill.teachers: {source} is a {type(teacher).__name__}, the model is a {type(model).__name__}",
    )
    named = [] if config.distill.by_spans else [("vocab_size", teacher.vocab_size, model.vocab_size)]
    if isinstance(model, HeadedConfig) and isinstance(teacher, HeadedConfig):
        names = [getattr(part.head, "output_names", ()) for part in (teacher, model)]
        named += [("head.output_names", *names), ("the number of classes", _outputs(teacher), _outputs(model))]
    if config.distill.attention_weight:
        for name, each in (("the model", model), (source, teacher)):
            _check_relations(name, each, config.distill.relation_heads)
    for name, theirs, ours in named:
        check(theirs == ours, f"distill.teachers: {source} differs from the model in {name}: {theirs}, not {ours}")


def _check_relations(name: str, model: BaseModelConfig, heads: int) -> None:
    """Raise `ValueError` unless queries, keys and values of the last layer can be split into relation heads."""
    assert isinstance(model, ModelConfig)
    check(model.num_layers > 0, f"distill.attention_weight: {name} has no layers")
    width = model.attention_head_dim
    sizes = {"queries": model.num_heads * width, "keys": model.kv_heads * width}
    for kind, size in sizes.items():
        check(
            size % heads == 0,
            f"distill.relation_heads={heads} does not divide the {size} dimensions of the {kind} of {name}",
        )


def _outputs(model: BaseModelConfig) -> int:
    """The number of outcomes of the distribution that is learned."""
    return getattr(model.head, "num_outputs", 0) if isinstance(model, HeadedConfig) else model.vocab_size
