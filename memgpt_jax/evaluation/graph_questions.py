"""Held-out evaluation of questions over a knowledge graph: entities are ranked, and triples in memory are changed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from memgpt_jax import models
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.examples.neighbourhoods import Neighbourhood
from memgpt_jax.data.tasks.graph_questions import TOPIC, GraphQuestionsConfig, GraphQuestionsTask
from memgpt_jax.evaluation.metrics import metric
from memgpt_jax.evaluation.metrics.walks import Asked, Edited, GraphMetrics, graph_metrics
from memgpt_jax.evaluation.mistakes import Mistake, worst
from memgpt_jax.evaluation.walks import Found, answer

EDIT_SEED = 0
"""Seed of the choice of questions, triples and new tails."""
SOLE = 0.9
"""Least share of the probability of an answer that comes from the triple on which it rests."""
UNREAD = 0.01
"""Most weight, in each read, of a triple that matters little to an answer."""


class GraphQuestionsResult(GraphMetrics):
    """Results on questions over a knowledge graph."""

    loss: float
    """-ln of the probability of all answers together, in nats: mean over the questions whose memory holds an answer."""
    questions: int
    """Number of questions."""
    reachable: float
    """Fraction of the questions whose memory holds an answer; the others count as wrong."""
    mistakes: list[Mistake]
    """The questions with the highest losses whose best entity is no answer."""


class _Edit(NamedTuple):
    """The memory of a question with a changed triple."""

    memory: Neighbourhood
    """With another tail of the triple on which the answer rests."""
    new: int
    """This tail."""
    other: Neighbourhood
    """With another tail of another triple instead."""


def evaluate_graph_questions(
    config: ExperimentConfig, params: models.Params, task: GraphQuestionsTask
) -> GraphQuestionsResult:
    """Answer the questions of a split; `evaluation.max_documents` limits them.

    With `data.edits`, this number of questions is asked again with other triples in memory. They are chosen from those
    that are answered rightly by one triple, and whose memory has a triple that does not matter. Once the tail of the
    one triple is changed, once that of the other, to an entity of the memory that is no answer.

    Raises `ValueError` if a score is NaN or infinite.
    """
    settings, questions = config.evaluation, task.questions[: config.evaluation.max_documents]
    arounds = [task.around(question.topic, task.config.graph_size) for question in questions]
    ids = [task.ids(question) for question in questions]
    found = answer(config.model, params, ids, arounds, rows=settings.batch_size, noun="questions")
    asked = [
        Asked(one.scores, task.answers(question, around), _cited(one, around))
        for question, around, one in zip(questions, arounds, found, strict=True)
    ]
    losses = [-float(np.log(np.exp(one.scores)[one.right].sum())) if one.right.any() else np.inf for one in asked]
    known = [loss for loss in losses if np.isfinite(loss)]
    edits = _edits(found, arounds, asked, task.config)
    again = [
        answer(config.model, params, [ids[number] for number in edits], memories, rows=settings.batch_size)
        for memories in ([edit.memory for edit in edits.values()], [edit.other for edit in edits.values()])
    ]
    edited = [
        Edited(asked[number], edit.new, after.scores, after_other.scores)
        for (number, edit), after, after_other in zip(edits.items(), *again, strict=True)
    ]
    names = task.graph.entities
    mistakes = worst(
        Mistake(
            where=question.where,
            text=question.text.replace(TOPIC, f"[{question.topic}]"),
            expected=" / ".join(question.answers),
            predicted=names[around.entities[one.best]] if len(around.triples) else "",
            loss=loss,
        )
        for question, around, one, row, loss in zip(questions, arounds, found, asked, losses, strict=True)
        if np.isfinite(loss) and not row.right[one.best]
    )
    return GraphQuestionsResult(
        loss=metric("loss", nats=sum(known), targets=max(1, len(known))),
        questions=len(questions),
        reachable=len(known) / len(questions),
        mistakes=mistakes,
        **graph_metrics(asked, edited),
    )


def _cited(found: Found, around: Neighbourhood) -> int:
    """The tail of the triple with the greatest weight in the last read; -1: there are no triples."""
    return int(around.triples[found.reads[-1].argmax(), 2]) if len(around.triples) else -1


def _edits(
    found: Sequence[Found], arounds: Sequence[Neighbourhood], asked: Sequence[Asked], config: GraphQuestionsConfig
) -> dict[int, _Edit]:
    """The edits by the number of their question."""
    edits: dict[int, _Edit] = {}
    for number in np.random.default_rng(EDIT_SEED).permutation(len(found)).tolist():
        if len(edits) == (config.edits or 0):
            break
        one, around, row = found[number], arounds[number], asked[number]
        of_best = one.reads[-1] * (around.triples[:, 2] == one.best)
        if not row.right[one.best] or of_best.max(initial=0) < SOLE * of_best.sum():
            continue
        inverse = _inverses(around.triples, len(config.relations))
        reads = np.append(one.reads.max(axis=0), 0)
        unread = np.flatnonzero(np.maximum(reads[:-1], reads[inverse]) < UNREAD)
        others = np.setdiff1d(np.arange(1, len(around.entities)), np.flatnonzero(row.right))
        if len(unread) and len(others):
            rng = np.random.default_rng((EDIT_SEED, number))
            new, places = int(rng.choice(others)), (int(of_best.argmax()), int(rng.choice(unread)))
            memory, other = (_with_tail(around, place, int(inverse[place]), new) for place in places)
            edits[number] = _Edit(memory, new, other)
    return edits


def _inverses(triples: np.ndarray, relations: int) -> np.ndarray:
    """[E] the place of the inverse of each triple; -1: it is not there. Args: relations: R."""
    places = {tuple(triple): place for place, triple in enumerate(triples.tolist())}
    mirrored = np.stack([triples[:, 2], (triples[:, 1] + relations) % (2 * relations), triples[:, 0]], axis=1)
    return np.array([places.get(tuple(triple), -1) for triple in mirrored.tolist()])


def _with_tail(around: Neighbourhood, place: int, inverse: int, tail: int) -> Neighbourhood:
    """The memory after a triple, and its inverse if it is there (not -1), has got another tail."""
    triples = around.triples.copy()
    triples[place, 2] = tail
    if inverse >= 0:
        triples[inverse, 0] = tail
    return around._replace(triples=triples)


def check_graph_questions(config: ExperimentConfig, task: GraphQuestionsTask) -> None:
    """Nothing is needed beyond the task itself, whose files have been read."""
