"""Held-out evaluation of link prediction: all entities are ranked for every query of a triple, in both directions."""

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.tasks.triples import TriplesTask
from memgpt_jax.evaluation.documents import end_outputs
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.metrics.ranking import LinkMetrics, link_metrics, ranks_of
from memgpt_jax.evaluation.scoring import check_finite

PART = 1024
"""Queries whose scores are in memory at the same time."""


class LinkResult(LinkMetrics):
    """Results on the triples of a knowledge graph."""

    loss: float
    """Cross-entropy in nats per query, among all entities, without label smoothing."""
    triples: int
    """Number of triples, each with a query in both directions."""


def evaluate_links(config: ExperimentConfig, params: models.Params, task: TriplesTask) -> LinkResult:
    """Rank the answer of each query among all entities but the other right answers in the files of any split.

    `evaluation.max_documents` limits the triples. Raises `ValueError` if a score is NaN or infinite.
    """
    settings, half = config.evaluation, len(task.queries) // 2
    number = min(half, settings.max_documents or half)
    queries = np.concatenate([task.queries[:number], task.queries[half : half + number]])
    order = np.lexsort((queries[:, 1], queries[:, 0]))  # equal queries follow each other, and are read once
    queries = queries[order]
    nats, ranks = 0.0, np.empty(2 * number)
    for first in range(0, len(queries), PART):
        part = queries[first : first + PART]
        distinct, place = np.unique(part[:, :2], axis=0, return_inverse=True)
        documents = [task.document(entity, relation) for entity, relation in distinct.tolist()]
        options = {"rows": settings.batch_size, "length": settings.chunk_length}
        scores = np.stack(end_outputs(config.model, params, documents, **options))[place.reshape(-1)]
        check_finite(scores)
        rows, answers = np.arange(len(part)), part[:, 2]
        nats -= float(np.asarray(jax.nn.log_softmax(scores))[rows, answers].sum(dtype=np.float64))
        right = np.zeros(scores.shape, bool)
        for row, (entity, relation, answer) in enumerate(part.tolist()):
            right[row, task.answers(entity, relation)] = True
            right[row, answer] = False
        ranks[order[first : first + PART]] = ranks_of(scores, answers, right)
    return LinkResult(
        loss=metric("loss", nats=nats, targets=len(queries)),
        triples=number,
        **link_metrics(list(ranks.reshape(2, number).T)),
    )


def check_links(config: ExperimentConfig, task: TriplesTask) -> None:
    """Nothing is needed beyond the task itself, whose files have been read."""
