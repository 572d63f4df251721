"""Held-out evaluation of replies: every history and every text is read once, and each reply is ranked among others."""

import itertools

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.tasks.replies import RepliesTask
from memgpt_jax.evaluation.documents import end_outputs
from memgpt_jax.evaluation.metrics.by_length import ByLength, by_length
from memgpt_jax.evaluation.metrics.ranking import ReplyMetrics, ranks_of, reply_metrics
from memgpt_jax.evaluation.scoring import check_finite
from memgpt_jax.models.heads.vectors import VectorHeadConfig


class ReplyResult(ReplyMetrics):
    """Results on the replies of dialogues."""

    loss: float
    """Nats per reply: -ln of its probability among the candidates, by the head's temperature."""
    replies: int
    """Number of replies that are ranked."""
    candidates: float
    """Mean number of different turns among which a reply is ranked, itself included."""
    by_length: ByLength
    """`recall_1` by the number of words of the whole history."""


def evaluate_replies(config: ExperimentConfig, params: models.Params, task: RepliesTask) -> ReplyResult:
    """Rank each reply of a split among its candidates by the products of their vectors with that of its history.

    Texts are read in calls of `evaluation.chunk_length` tokens; `evaluation.max_documents` limits the replies that are
    ranked, not those of which candidates are drawn. Raises `ValueError` if a vector is NaN or infinite.
    """
    settings, number = config.evaluation, config.evaluation.max_documents
    replies, choices = task.replies[:number], task.choices()[:number]
    used, places = np.unique(choices, return_inverse=True)
    texts = [reply.history for reply in replies], [task.texts[place] for place in used]
    options = {"rows": settings.batch_size, "length": settings.chunk_length}
    asked, found = (
        np.stack(end_outputs(config.model, params, [task.ids(text) for text in part], noun=noun, **options))
        for part, noun in zip(texts, ("histories", "replies"), strict=True)
    )
    scores = np.einsum("nc,nkc->nk", asked, found[places.reshape(choices.shape)])
    check_finite(scores)
    excluded = np.tril(choices[:, :, None] == choices[:, None], -1).any(axis=-1)  # equal to an earlier one
    ranks = ranks_of(scores, np.zeros(len(scores), int), excluded)
    head = instance_of(instance_of(config.model, HeadedConfig, "model").head, VectorHeadConfig, "model.head")
    logits = np.where(excluded, -np.inf, scores / head.temperature)
    dialogues = itertools.groupby(range(len(replies)), lambda index: replies[index].dialogue)
    by_dialogue = [list(group) for _, group in dialogues]
    owners = np.repeat(np.arange(len(by_dialogue)), [len(group) for group in by_dialogue])
    sizes, first = [len(reply.history.split()) for reply in replies], ranks < 2
    return ReplyResult(
        loss=-float(np.mean(np.asarray(jax.nn.log_softmax(logits))[:, 0], dtype=np.float64)),
        replies=len(replies),
        candidates=float((~excluded).sum(axis=1).mean()),
        by_length=by_length("recall_1", "words of the history", sizes, lambda some: float(first[some].mean()), owners),
        **reply_metrics([ranks[group] for group in by_dialogue]),
    )


def check_replies(config: ExperimentConfig, task: RepliesTask) -> None:
    """Nothing is needed beyond the task itself, whose file has been read."""
