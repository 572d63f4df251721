"""Questions over a knowledge graph: their answers are entities that triples lead to from the topic."""

import dataclasses
import logging
import re
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.data import ObjectiveConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.corpora.sources import expand
from memgpt_jax.data.examples.files import ExamplesConfig, read_split
from memgpt_jax.data.examples.neighbourhoods import Neighbourhood, Neighbourhoods
from memgpt_jax.data.examples.records import Record
from memgpt_jax.data.examples.rows import padded_rows
from memgpt_jax.data.examples.triples import Graph, Triple, read_triples
from memgpt_jax.data.tasks.base import digest
from memgpt_jax.data.tasks.examples import ExamplesTask
from memgpt_jax.data.tokenizers.base import Tokenizer

logger = logging.getLogger(__name__)

TOPIC = "[]"
"""The place of the topic in the text that the model reads."""


@dataclass(frozen=True, kw_only=True)
class EntitiesConfig(ObjectiveConfig):
    """Predict the entities that answer a question. Needs a `HeadedConfig` with a `WalkHeadConfig` and a pool."""

    heads: ClassVar[tuple[str, ...]] = ("entities",)
    inputs: ClassVar[tuple[str, ...]] = ("triples",)


@dataclass(frozen=True, kw_only=True)
class GraphQuestionsConfig(ExamplesConfig):
    """Answer questions over a knowledge graph. The triples around the topic are the content of the memory.

    A record is a `question`, in which the topic is in brackets ("what does [Tom Cullen] act in"), and `answers`, a list
    of entities. The model reads "what does [] act in": it learns relations, and knows the entities from memory alone.
    """

    triples: str | None = None
    """File of the triples, as `TriplesConfig.train`, or with `|` in place of tabs. `~` and `$VARIABLES` are
    expanded."""
    hops: int = 1
    """Triples n from the topic to an answer."""
    graph_size: int = 4096
    """Maximum number of triples in memory in evaluation, inverses included."""
    training_graph_size: int = 256
    """Maximum number of triples in memory in training."""
    relations: tuple[str, ...] = ()
    """Names of the R relations; default: from the file of the triples."""
    edits: int | None = None
    """In evaluation, of this number of questions a triple in memory is changed, and the question is asked again;
    default: of none."""

    @property
    def input_columns(self) -> tuple[str, ...]:
        """The column of the question."""
        return ("question",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check(not isinstance(self.relations, str), f"data.relations must be a list, got {self.relations!r}")
        object.__setattr__(self, "relations", tuple(self.relations))  # a list is also accepted
        check(
            self.training_graph_size <= self.graph_size,
            f"data.training_graph_size={self.training_graph_size} must be at most data.graph_size={self.graph_size}",
        )

    @property
    def objective(self) -> EntitiesConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Predict the entities that answer a question."""
        return EntitiesConfig()

    @property
    def output_names(self) -> tuple[str, ...]:
        """The relations, then their inverses."""
        return (*self.relations, *(f"inverse of {name}" for name in self.relations))

    @property
    def head_settings(self) -> dict[str, Any]:
        """The number of reads, and the size of the memory."""
        return {"hops": self.hops, "graph_size": self.graph_size}

    def completed(self) -> Self:
        """The configuration with `relations` filled in from the file of the triples."""
        if self.relations:
            return self
        return dataclasses.replace(self, relations=tuple(Graph(self.known_triples()).relations))

    def known_triples(self) -> dict[Triple, str]:
        """`read_triples` of `triples`. Raises `ValueError` if there is no such file."""
        if self.triples is None:
            raise ValueError("data.triples must name a file of triples, got None")
        return read_triples(expand(self.triples))


class GraphQuestion(NamedTuple):
    """A question."""

    where: str
    """File and line."""
    text: str
    """The question, with `TOPIC` in place of the topic."""
    topic: str
    answers: tuple[str, ...]


class GraphQuestionsTask(ExamplesTask[GraphQuestionsConfig]):
    """The questions of one split, each with the neighbourhood of its topic."""

    evaluation = "graph_questions"

    def __init__(self, config: GraphQuestionsConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if a record or a triple is not valid, or there is no tokenizer."""
        super().__init__(config, split, tokenizer)
        triples, names = self.config.known_triples(), ", ".join(self.config.relations)
        unknown = {triple.relation for triple in triples} - {*self.config.relations}
        check(not unknown, f"data.triples has the relation {min(unknown, default='')!r}; data.relations are {names}")
        self.graph = Graph(triples, self.config.relations)
        self.neighbourhoods = Neighbourhoods(self.graph, triples)
        self.questions = questions(self.config, split)
        self.content = digest(tuple(triples), *(question[1:] for question in self.questions))  # files may move
        missing = sum(self.graph.number_of(question.topic) is None for question in self.questions)
        if missing:
            logger.warning("split %s: the topics of %d questions are in no triple", split, missing)
        self._around: dict[str, Neighbourhood] = {}

    @classmethod
    def training_texts(cls, config: GraphQuestionsConfig) -> list[str]:
        """The questions, without topics."""
        return [question.text for question in questions(config, "train")]

    @classmethod
    def shapes(cls, config: GraphQuestionsConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        shape, size = (rows, length), config.training_graph_size
        inputs = {"tokens": (shape, np.int32), "reset": (shape, bool), "valid": (shape, bool)}
        batch = zeros(inputs | {"triples": ((rows, size, 3), np.int32)}, {"entities": (*shape, size + 1)})
        return batch._replace(weights=zeros({}, {"entities": shape}).weights)

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: every question once in each epoch, in random order, a row each.

        Raises `ValueError` if a question has more than `length` tokens.
        """
        return padded_rows(lambda number: self.row(number, length), len(self.questions), seed, rows)

    def training_tokens(self, length: int) -> int:
        return length * len(self.questions)

    def ids(self, question: GraphQuestion) -> np.ndarray:
        """The tokens of a question."""
        return question_ids(self.tokenizer, question)

    def around(self, topic: str, most: int) -> Neighbourhood:
        """The neighbourhood of a topic; without triples if it is in none."""
        return self.neighbourhoods.around(self.graph.number_of(topic), self.config.hops, most)

    def answers(self, question: GraphQuestion, neighbourhood: Neighbourhood) -> np.ndarray:
        """[n] bool: which entities of a neighbourhood are answers."""
        known = [self.graph.number_of(answer) for answer in question.answers]
        return np.isin(neighbourhood.entities, [number for number in known if number is not None])

    def row(self, number: int, length: int) -> Batch:
        """The batch of one question: [1, L], with the target at its last token."""
        question = self.questions[number]
        if question.topic not in self._around:
            self._around[question.topic] = self.around(question.topic, self.config.training_graph_size)
        ids, around = self.ids(question), self._around[question.topic]
        check(len(ids) <= length, f"{question.where}: the question has {len(ids)} tokens, a row only {length}")
        batch = self.shapes(self.config, 1, length)
        inputs, targets, weights = ({name: array.copy() for name, array in part.items()} for part in batch[:3])
        inputs["tokens"][0, : len(ids)], inputs["valid"][0, : len(ids)], inputs["reset"][0, 0] = ids, True, True
        inputs["triples"][:] = -1
        inputs["triples"][0, : len(around.triples)] = around.triples
        right = self.answers(question, around)
        targets["entities"][0, len(ids) - 1, : len(right)] = right
        weights["entities"][0, len(ids) - 1] = right.any()
        return Batch(inputs, targets, weights, {})


def question_ids(tokenizer: Tokenizer, question: GraphQuestion) -> np.ndarray:
    """The tokens of a question."""
    return np.array([tokenizer.start_id, *tokenizer.encode(question.text)], np.int32)


def questions(config: GraphQuestionsConfig, split: str) -> list[GraphQuestion]:
    """The questions of a split. Raises `ValueError` with file and line if one has no topic or no answers."""
    return [_question(record) for record in read_split(config, split)]


def _question(record: Record) -> GraphQuestion:
    answers = tuple(answer.strip() for answer in record.texts("answers") if answer.strip())
    check(bool(answers), f"{record.where}: the question has no answers")
    return asked(record.text("question"), record.where)._replace(answers=answers)


def asked(text: str, where: str) -> GraphQuestion:
    """A question without answers. Raises `ValueError` unless it has one topic in brackets."""
    topics = re.findall(r"\[([^][]+)\]", text)
    check(len(topics) == 1, f"{where}: the question must have one topic in brackets, [TOPIC], got {text[:80]!r}")
    return GraphQuestion(where, text.replace(f"[{topics[0]}]", TOPIC), topics[0].strip(), ())
