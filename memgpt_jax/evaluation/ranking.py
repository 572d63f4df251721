"""Held-out evaluation of recommendation: each history is read once, and items are ranked before they are read."""

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.tasks.ratings import RatingsTask
from memgpt_jax.evaluation.documents import document_outputs
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.metrics.by_length import ByLength, by_length
from memgpt_jax.evaluation.metrics.ranking import CUTOFF, RankingMetrics, ranking_metrics, ranks_of
from memgpt_jax.evaluation.scoring import check_finite


class RankingResult(RankingMetrics):
    """Results on the next items of users."""

    loss: float
    """Cross-entropy in nats per prediction, over all ids."""
    predictions: int
    """Number of items asked for."""
    users: int
    """Number of histories."""
    by_length: ByLength
    """`hit_rate_10` by the number of items that have been read."""


def evaluate_ranking(config: ExperimentConfig, params: models.Params, task: RatingsTask) -> RankingResult:
    """Rank each item that a split asks for among all items that its user has not had before.

    Each history is read in calls of `evaluation.chunk_length` items, with the state carried.

    Raises `ValueError` if a logit is NaN or infinite.
    """
    number, settings = config.evaluation.max_documents, config.evaluation
    chosen = task.histories[:number]
    options = {"rows": settings.batch_size, "length": settings.chunk_length, "noun": "histories"}
    outputs = document_outputs(config.model, params, task.documents[:number], task.places[:number], **options)
    nats, ranks = 0.0, []
    for history, logits in zip(chosen, outputs, strict=True):
        check_finite(logits)
        targets = history.items[history.asked]
        log_p = np.asarray(jax.nn.log_softmax(logits))
        nats -= float(log_p[np.arange(len(targets)), targets].sum(dtype=np.float64))
        seen = np.zeros(logits.shape, bool)
        for row, place in enumerate(history.asked):
            seen[row, history.items[:place]] = True
        ranks.append(ranks_of(logits[:, task.items], targets - task.items.start, seen[:, task.items]))
    hits, read = np.concatenate(ranks) <= CUTOFF, np.concatenate([history.asked for history in chosen])
    users = np.repeat(np.arange(len(ranks)), [len(of_user) for of_user in ranks])
    return RankingResult(
        loss=metric("loss", nats=nats, targets=len(hits)),
        predictions=len(hits),
        users=len(ranks),
        by_length=by_length("hit_rate_10", "items before", read, lambda some: float(hits[some].mean()), users),
        **ranking_metrics(ranks),
    )


def check_ranking(config: ExperimentConfig, task: RatingsTask) -> None:
    """Nothing is needed beyond the task itself, whose file has been read."""
