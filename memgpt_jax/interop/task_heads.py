"""The heads of fine-tuned encoders of the transformers library: labels of texts and of tokens, answers to questions."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from memgpt_jax.config.checks import check
from memgpt_jax.config.heads import HeadedConfig, PoolName
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.interop.assembly import Plan
from memgpt_jax.interop.families.base import ZERO, Weight, linear_weights
from memgpt_jax.interop.tensors import Tensors
from memgpt_jax.models.heads.labels import LabelHeadConfig
from memgpt_jax.models.heads.spans import SpanHeadConfig
from memgpt_jax.models.heads.vectors import VectorHeadConfig


class TaskHead(NamedTuple):
    """A head of transformers as a head of this library."""

    kind: Literal["text", "words", "spans", "vector"]
    """What it labels: texts (or pictures), words, or the spans that answer questions; `vector`: it projects one token
    of a text or picture, without bias."""
    layers: str
    """`StreamHeadConfig.layers`."""
    tensors: tuple[tuple[str, str], ...]
    """(path of a linear layer in the head, its name in the file without prefix), the output last."""

    pool: PoolName = "first"
    """The token that a head `vector` projects."""


OUTPUT = (("output", "classifier"),)
TASK_HEADS = {
    "BertForSequenceClassification": TaskHead("text", "tanh", (("layers/0/dense", "pooler.dense"), *OUTPUT)),
    "RobertaForSequenceClassification": TaskHead(
        "text", "tanh", (("layers/0/dense", "classifier.dense"), ("output", "classifier.out_proj"))
    ),
    "BertForTokenClassification": TaskHead("words", "linear", OUTPUT),
    "RobertaForTokenClassification": TaskHead("words", "linear", OUTPUT),
    "ViTForImageClassification": TaskHead("text", "linear", OUTPUT),
    "CLIPTextModelWithProjection": TaskHead("vector", "linear", (("output", "text_projection"),), "last"),
    "CLIPVisionModelWithProjection": TaskHead("vector", "linear", (("output", "visual_projection"),)),
    "BertForQuestionAnswering": TaskHead("spans", "linear", (("output", "qa_outputs"),)),
}
"""The head of each class of transformers."""


def has_task_head(values: Mapping[str, Any]) -> bool:
    """Whether the class in a config.json has one of `TASK_HEADS`."""
    return _class_of(values) in TASK_HEADS


def with_task_head(plan: Plan, values: Mapping[str, Any], tensors: Tensors, path: Path) -> Plan:
    """The plan for the model and its head, a `HeadedConfig`.

    Args:
        plan: the plan for the model.
        values: the values of config.json; `has_task_head` is true for them.
        tensors: the tensors of the file.
        path: the file, for messages.

    Raises:
        ValueError: the head is missing, predicts numbers, or its labels do not fit its outputs.
    """
    head, backbone = TASK_HEADS[_class_of(values)], plan.config
    last = f"{head.tensors[-1][1]}.weight"
    check(last in plan.names, f"{path} has no tensor {last!r}: the model was not saved with its head")
    number = tensors.shapes[plan.names[last]][0]
    if head.kind == "vector":
        settings = VectorHeadConfig(pool=head.pool, num_outputs=number)
    elif head.kind == "spans":
        settings = SpanHeadConfig(question_types=(getattr(backbone, "token_types", None) or 0) > 1)
    else:
        settings = _label_head(head, values, number, path)
    bare = dataclasses.replace(backbone, heads=()) if isinstance(backbone, EncoderConfig) else backbone
    config = HeadedConfig(backbone=bare, head=settings)
    table = [
        weight._replace(parameter=f"backbone/{weight.parameter}")
        for weight in plan.table
        if not weight.parameter.startswith("heads/")
    ]
    return plan._replace(config=config, table=table + _weights(head))


def _label_head(head: TaskHead, values: Mapping[str, Any], number: int, path: Path) -> LabelHeadConfig:
    kind = values.get("problem_type")
    check(kind != "regression" and number > 1, f"{path}: a head that predicts a number is not supported")
    return LabelHeadConfig(
        num_outputs=number,
        output_names=_names(values, number, path),
        layers=head.layers,
        pool="first" if head.kind == "text" else "none",
        tag_token="first",
        loss="binary" if kind == "multi_label_classification" else "cross_entropy",
    )


def _class_of(values: Mapping[str, Any]) -> str:
    names = values.get("architectures")
    return names[0] if isinstance(names, list) and names else str(names)


def _weights(head: TaskHead) -> list[Weight]:
    bias, found = head.kind != "vector", []
    for place, name in head.tensors:
        found += linear_weights(f"head/{place}", name, bias=bias)
        found += [] if bias else [Weight(f"head/{place}/bias", (ZERO,))]
    return found


def _names(values: Mapping[str, Any], number: int, path: Path) -> tuple[str, ...]:
    """The labels in the order of the outputs; () if config.json names none."""
    named = values.get("id2label")
    if not named:
        return ()
    order = {str(index): label for index, label in named.items()}
    check(
        set(order) == {str(index) for index in range(number)},
        f"{path}: id2label has the keys {', '.join(order)}, and the head {number} outputs",
    )
    return tuple(str(order[str(index)]) for index in range(number))
