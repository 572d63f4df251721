"""Held-out evaluation of tagged words: each document is read once, whole."""

from typing import NamedTuple, NotRequired

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.extras import library
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.tasks.tagged_text import CONTEXT, TaggedExample, TaggedTextTask
from memgpt_jax.evaluation.documents import check_documents, document_outputs
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.metrics.by_length import ByLength, by_length
from memgpt_jax.evaluation.metrics.entities import EntityMetrics, entity_counts, entity_metrics, f1_of, marks_entities
from memgpt_jax.evaluation.metrics.mentions import MentionMetrics, mention_metrics
from memgpt_jax.evaluation.mistakes import Mistake, worst
from memgpt_jax.evaluation.scoring import check_finite
from memgpt_jax.models.heads.labels import chain_of
from memgpt_jax.ops.crf import marginals, path_loss, viterbi


class TagResult(EntityMetrics, MentionMetrics):
    """Results on tagged words."""

    loss: float
    """Cross-entropy in nats per word; with `crf`, of whole documents, divided by the number of words."""
    words: int
    """Number of words that have a tag."""
    documents: int
    """Number of documents."""
    by_length: NotRequired[ByLength]
    """`f1` by the number of words of a document, if the tags mark entities."""
    mistakes: list[Mistake]
    """The documents with wrong tags that have the highest losses; `expected` and `predicted` list the wrong words."""


class Decoded(NamedTuple):
    """The tags of a document of n words."""

    tags: np.ndarray
    """[n] numbers of the tags: of each word the most probable one; with `crf` the most probable sequence."""
    probabilities: np.ndarray
    """[n, C] of each tag of each word; with `crf` the marginal probabilities, given the whole document."""


def decode(config: HeadedConfig, params: models.Params, outputs: np.ndarray) -> Decoded:
    """The tags of a document, from the outputs [n, C] of the head of a model at its words.

    Raises `ValueError` if an output is NaN or infinite.
    """
    check_finite(outputs)
    if not getattr(config.head, "crf", False):
        return Decoded(outputs.argmax(axis=-1), np.asarray(jax.nn.softmax(outputs)))
    chain = chain_of(params["head"])
    return Decoded(viterbi(outputs, chain), marginals(outputs, chain))


def tags_loss(config: HeadedConfig, params: models.Params, outputs: np.ndarray, targets: np.ndarray) -> float:
    """-ln p(tags) of a document, in nats. Args: outputs: as in `decode`. targets: [n] numbers of the tags."""
    if not getattr(config.head, "crf", False):
        log_p = np.asarray(jax.nn.log_softmax(outputs))
        return -float(log_p[np.arange(len(targets)), targets].sum(dtype=np.float64))
    return path_loss(outputs, targets, chain_of(params["head"]))


def evaluate_tags(config: ExperimentConfig, params: models.Params, task: TaggedTextTask) -> TagResult:
    """Evaluate the tags of all words of a split, in calls of `evaluation.chunk_length` tokens.

    Raises `ValueError` if an output is NaN or infinite, or seqeval is not installed.
    """
    check_tags(config, task)
    number, settings = config.evaluation.max_documents, config.evaluation
    encoded = task.encoded[:number]
    documents, places = [item.inputs for item in encoded], [task.places(index) for index in range(len(encoded))]
    options = {"rows": settings.batch_size, "length": settings.chunk_length, "noun": "documents"}
    logits = document_outputs(config.model, params, documents, places, **options)
    model = instance_of(config.model, HeadedConfig, "model")
    losses, words, predicted = [], 0, []
    for index, found in enumerate(logits):
        targets, decoded = task.targets(index), decode(model, params, found)
        losses.append(tags_loss(model, params, found, targets))
        words += len(targets)
        predicted.append(_with_context(task.examples[index], [task.config.tags[tag] for tag in decoded.tags]))
    examples = task.examples[:number]
    texts, expected = [example.words for example in examples], [example.tags for example in examples]
    result = TagResult(
        loss=metric("loss", nats=sum(losses), targets=words),
        words=words,
        documents=len(logits),
        mistakes=worst(filter(_is_wrong, map(_mistake, examples, predicted, losses))),
        **entity_metrics(predicted, expected),
        **mention_metrics(texts, predicted, expected),
    )
    if marks_entities(tag for tags in [*predicted, *expected] for tag in tags if tag):
        counts, sizes = entity_counts(predicted, expected), [len(example.words) for example in examples]
        result["by_length"] = by_length("f1", "words", sizes, lambda chosen: f1_of(counts[chosen]))
    return result


def _with_context(example: TaggedExample, tags: list[str]) -> list[str]:
    """The tags of all words of a document, from those of the words that have one."""
    found = iter(tags)
    return [next(found) if tagged else CONTEXT for tagged in example.tagged]


def _is_wrong(mistake: Mistake) -> bool:
    return bool(mistake["expected"])


def _mistake(example: TaggedExample, predicted: list[str], loss: float) -> Mistake:
    """The wrong tags of a document."""
    wrong = [row for row in zip(example.words, example.tags, predicted, strict=True) if row[1] != row[2]]
    return Mistake(
        where=example.where,
        text=" ".join(example.words),
        expected=", ".join(f"{word}/{tag}" for word, tag, _ in wrong),
        predicted=", ".join(f"{word}/{tag}" for word, _, tag in wrong),
        loss=loss,
    )


def absent_from_tags(task: TaggedTextTask) -> set[str]:
    """The names of a `TagResult` that a task does not have with its tags."""
    return set() if marks_entities(task.config.tags) else {*MentionMetrics.__annotations__}


def check_tags(config: ExperimentConfig, task: TaggedTextTask) -> None:
    """Raise `ValueError` if a library that the metrics need is missing, or a document is too long for the model."""
    library("seqeval.metrics")
    check_documents(config, lambda: [item.inputs for item in task.encoded])
