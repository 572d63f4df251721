"""Metrics of rankings of documents with graded relevance, by ir-measures."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from memgpt_jax.config.extras import library
from memgpt_jax.evaluation.metrics.intervals import bootstrap_interval

DEPTH = 1000
"""Documents of a ranking that count, as in TREC."""


class RetrievalMetrics(TypedDict):
    """Results of rankings, means over the queries."""

    ndcg_10: float
    """Normalised discounted cumulative gain of the first ten documents."""
    ndcg_10_interval: list[float]
    """95% confidence interval of `ndcg_10`, by bootstrap over queries."""
    average_precision: float
    """Mean average precision of the first 1,000 documents."""
    mrr: float
    """Reciprocal rank of the first relevant document."""
    recall_100: float
    """Fraction of the relevant documents among the first hundred."""


def retrieval_metrics(
    scores: np.ndarray, documents: Sequence[str], relevance: Sequence[Mapping[str, int]]
) -> RetrievalMetrics:
    """The metrics of the documents in descending order of the scores; equal scores keep the order of the documents.

    Args:
        scores: of all documents for each query [Q, N].
        documents: the N names.
        relevance: for each query the judged relevance by name; above 0: relevant, others count as not relevant.
    """
    measures = library("ir_measures")
    names = {
        measures.nDCG @ 10: "ndcg_10",
        measures.AP: "average_precision",
        measures.RR: "mrr",
        measures.R @ 100: "recall_100",
    }
    judged = {str(query): dict(grades) for query, grades in enumerate(relevance)}
    best = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    # The libraries order by score alone: ranks take the place of scores, so that equal scores keep their order.
    run = {
        str(query): {documents[index]: float(DEPTH - rank) for rank, index in enumerate(order)}
        for query, order in enumerate(best)
    }
    values = {name: np.zeros(len(judged)) for name in names.values()}
    for found in measures.iter_calc([*names], judged, run):
        values[names[found.measure]][int(found.query_id)] = found.value
    gains = values["ndcg_10"]
    return RetrievalMetrics(
        ndcg_10=float(gains.mean()),
        ndcg_10_interval=bootstrap_interval(lambda chosen: float(gains[chosen].mean()), len(gains)),
        average_precision=float(values["average_precision"].mean()),
        mrr=float(values["mrr"].mean()),
        recall_100=float(values["recall_100"].mean()),
    )
