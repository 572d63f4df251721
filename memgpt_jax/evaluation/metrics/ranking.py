"""Metrics of rankings with one relevant item each: hit rates, recall, NDCG and mean reciprocal rank."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from memgpt_jax.evaluation.metrics.intervals import bootstrap_interval

CUTOFF = 10
"""Length of the list of recommendations."""


class RankingMetrics(TypedDict):
    """Results of rankings, means over all predictions."""

    hit_rate_10: float
    """Fraction of the predictions whose item is among the first ten; with one relevant item it equals the recall."""
    hit_rate_10_interval: list[float]
    """95% confidence interval of `hit_rate_10`, by bootstrap over users."""
    ndcg_10: float
    """1 / log2(1 + rank) if the rank is at most ten, else 0."""
    mrr: float
    """1 / rank."""


class ReplyMetrics(TypedDict):
    """Results of replies that are ranked among some turns, means over all replies."""

    recall_1: float
    """Fraction of the replies of rank 1; a reply that ties with one other for the first place counts too."""
    recall_1_interval: list[float]
    """95% confidence interval of `recall_1`, by bootstrap over dialogues."""
    mrr: float
    """1 / rank."""


class LinkMetrics(TypedDict):
    """Results of filtered ranks of entities, means over all queries."""

    mrr: float
    """1 / rank."""
    mrr_interval: list[float]
    """95% confidence interval of `mrr`, by bootstrap over triples."""
    hits_1: float
    """Fraction of the queries of rank 1; an entity that ties with another one for the first place does not count."""
    hits_3: float
    """Fraction of the queries of a rank of at most 3."""
    hits_10: float
    """Fraction of the queries of a rank of at most 10."""


def ranks_of(scores: np.ndarray, targets: np.ndarray, excluded: np.ndarray) -> np.ndarray:
    """The rank of each target among all items that are not excluded, from 1; of n items of equal score, their mean.

        rank = 1 + |{i : s_i > s_target}| + |{i != target : s_i = s_target}| / 2

    Args:
        scores: scores of all items [N, V].
        targets: the index of an item of each row [N], which is not excluded.
        excluded: bool [N, V], items that are not ranked.
    """
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    higher = np.sum((scores > own) & ~excluded, axis=1)
    equal = np.sum((scores == own) & ~excluded, axis=1)
    return 1 + higher + (equal - 1) / 2


def ranking_metrics(ranks: Sequence[np.ndarray]) -> RankingMetrics:
    """The metrics of ranks, one array for each user."""
    everything = np.concatenate(ranks)
    return RankingMetrics(
        hit_rate_10=float(np.mean(everything <= CUTOFF)),
        hit_rate_10_interval=_interval([rank <= CUTOFF for rank in ranks]),
        ndcg_10=float(np.mean(np.where(everything <= CUTOFF, 1 / np.log2(1 + everything), 0))),
        mrr=float(np.mean(1 / everything)),
    )


def reply_metrics(ranks: Sequence[np.ndarray]) -> ReplyMetrics:
    """The metrics of ranks, one array for each dialogue."""
    everything = np.concatenate(ranks)
    return ReplyMetrics(
        recall_1=float(np.mean(everything < 2)),
        recall_1_interval=_interval([rank < 2 for rank in ranks]),
        mrr=float(np.mean(1 / everything)),
    )


def link_metrics(ranks: Sequence[np.ndarray]) -> LinkMetrics:
    """The metrics of ranks, one array for each triple."""
    everything = np.concatenate(ranks)
    return LinkMetrics(
        mrr=float(np.mean(1 / everything)),
        mrr_interval=_interval([1 / rank for rank in ranks]),
        hits_1=float(np.mean(everything <= 1)),
        hits_3=float(np.mean(everything <= 3)),
        hits_10=float(np.mean(everything <= 10)),
    )


def _interval(values: Sequence[np.ndarray]) -> list[float]:
    """The interval of a mean of values, one array for each user, dialogue or triple; these are resampled."""
    sums, counts = np.array([np.sum(value) for value in values]), np.array([len(value) for value in values])
    return bootstrap_interval(lambda chosen: float(sums[chosen].sum() / counts[chosen].sum()), len(values))
