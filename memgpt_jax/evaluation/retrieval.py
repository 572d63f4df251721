"""Held-out evaluation of retrieval: every text gets its vector once, and all documents are ranked for each query."""

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.extras import library
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.tasks.retrieval import Query, RetrievalTask
from memgpt_jax.data.text.bm25 import bm25_scores, stemmer
from memgpt_jax.evaluation.documents import end_outputs
from memgpt_jax.evaluation.metrics.retrieval import RetrievalMetrics, retrieval_metrics
from memgpt_jax.evaluation.scoring import check_finite
from memgpt_jax.models.heads.vectors import VectorHeadConfig


class RetrievalResult(RetrievalMetrics):
    """Results on retrieval."""

    loss: float
    """Nats per relevant document of a query: -ln of its probability among all documents, by the head's temperature."""
    queries: int
    """Number of queries."""
    documents: int
    """Number of documents that are ranked for each."""


def evaluate_retrieval(config: ExperimentConfig, params: models.Params, task: RetrievalTask) -> RetrievalResult:
    """Rank all documents for the queries of a split by the products of the vectors, and BM25 with `data.bm25_weight`.

    Texts are read in calls of `evaluation.chunk_length` tokens; `evaluation.max_documents` limits the queries. Raises
    `ValueError` if a vector is NaN or infinite, or ir-measures is not installed.
    """
    check_retrieval(config, task)
    settings, queries = config.evaluation, task.queries[: config.evaluation.max_documents]
    options = {"rows": settings.batch_size, "length": settings.chunk_length}
    texts = [query.text for query in queries], [*task.documents.values()]
    asked, found = (
        np.stack(end_outputs(config.model, params, [task.ids(text) for text in part], noun=noun, **options))
        for part, noun in zip(texts, ("queries", "documents"), strict=True)
    )
    head, scores = instance_of(config.model, HeadedConfig, "model").head, asked @ found.T
    check_finite(scores)
    names, weight = [*task.documents], task.config.bm25_weight
    ranked = scores
    if weight:
        ranked = standard_scores(scores) + weight * standard_scores(bm25_scores(*texts, task.config.bm25_language))
    return RetrievalResult(
        loss=_loss(scores / instance_of(head, VectorHeadConfig, "model.head").temperature, names, queries),
        queries=len(queries),
        documents=len(names),
        **retrieval_metrics(ranked, names, [query.relevance for query in queries]),
    )


def standard_scores(scores: np.ndarray) -> np.ndarray:
    """(x - mean) / standard deviation of scores [Q, N] over the documents, float64; 0 where all scores are equal."""
    centred = scores - scores.mean(axis=1, keepdims=True, dtype=np.float64)
    deviation = centred.std(axis=1, keepdims=True)
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)


def check_retrieval(config: ExperimentConfig, task: RetrievalTask) -> None:
    """Raise `ValueError` if a library that the metrics need is missing, or there is no stemmer of the language."""
    library("ir_measures")
    if task.config.bm25_weight:
        library("bm25s", "BM25 scores")
        stemmer(task.config.bm25_language)


def _loss(logits: np.ndarray, names: list[str], queries: list[Query]) -> float:
    places = {name: index for index, name in enumerate(names)}
    largest = logits.max(axis=1, keepdims=True)
    log_probabilities = logits - largest - np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
    losses = [
        -log_probabilities[row, places[name]]
        for row, query in enumerate(queries)
        for name, relevance in query.relevance.items()
        if relevance > 0
    ]
    return float(np.mean(losses))
