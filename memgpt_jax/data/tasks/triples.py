"""Link prediction: which entity completes a triple of a knowledge graph?"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np

from memgpt_jax.config.checks import at_least, check, check_positive
from memgpt_jax.config.data import ObjectiveConfig, TaskConfig
from memgpt_jax.data.batch import Batch, zeros
from memgpt_jax.data.corpora.sources import SPLITS, expand
from memgpt_jax.data.examples.triples import Graph, Triple, read_triples
from memgpt_jax.data.streams import in_this_thread
from memgpt_jax.data.tasks.base import Task, digest
from memgpt_jax.data.tokenizers.base import Tokenizer

FACTS_SEED = 0
"""Seed of the facts that are chosen in evaluation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinksConfig(ObjectiveConfig):
    """Predict an entity, at the tokens of relations. Needs a `HeadedConfig` with a `LinkHeadConfig` over a decoder."""

    heads: ClassVar[tuple[str, ...]] = ("links",)

    tokens_per_triple: int = 2
    """Tokens of each triple of a document."""

    def check_model(self, model: Any, length: int) -> None:
        """Raise `ValueError` if the model has no such head, or rows do not hold whole triples."""
        super().check_model(model, length)
        check(
            model.backbone.causal,
            f"TriplesConfig needs a decoder: this {type(model.backbone).__name__} reads the answer after its query",
        )
        size = self.tokens_per_triple
        check(length % size == 0, f"training.sequence_length={length} must be a multiple of {size} tokens of a triple")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TriplesConfig(TaskConfig):
    """Complete triples of a knowledge graph in both directions: (head, relation, ?) and (tail, inverse relation, ?).

    A file has a triple on each line, HEAD, RELATION and TAIL, separated by tabs; it may be gzipped. Entities and
    relations are those of the training file.
    """

    train: str | None = None
    """File of the training triples. `~` and `$VARIABLES` are expanded."""
    valid: str | None = None
    """File of the validation triples."""
    test: str | None = None
    """File of the test triples."""
    facts: int = at_least(0, default=0)
    """Maximum number of training triples of the same entity that are read before a query; 0: the query alone."""
    num_entities: int | None = None
    """Number of entities C, which must be that of the training file; default: this number."""
    num_relations: int | None = None
    """Number of relations R, which must be that of the training file; default: this number."""

    def __post_init__(self) -> None:
        check_positive(self)

    @property
    def objective(self) -> ObjectiveConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Predict an entity at the tokens of relations."""
        return LinksConfig(tokens_per_triple=self.tokens_per_triple)

    @property
    def tokens_per_triple(self) -> int:
        """2 tokens of a query, entity and relation; 3 with `facts`, of which the next query reads the answer, too."""
        return 3 if self.facts else 2

    @property
    def num_ids(self) -> int:
        """The entities, the relations and their inverses."""
        return (self.num_entities or 0) + 2 * (self.num_relations or 0)

    @property
    def head_settings(self) -> dict[str, Any]:
        """The number of entities."""
        return {} if self.num_entities is None else {"num_outputs": self.num_entities}

    def completed(self) -> Self:
        """The configuration with `num_entities` and `num_relations` filled in from the training file."""
        if self.num_entities is not None and self.num_relations is not None:
            return self
        graph = Graph(self.triples("train"))
        self.check_numbers(graph)
        return dataclasses.replace(self, num_entities=len(graph.entities), num_relations=len(graph.relations))

    def check_numbers(self, graph: Graph) -> None:
        """Raise `ValueError` if the graph of the training file has other numbers of entities or relations."""
        for name in ("entities", "relations"):
            given, found = getattr(self, f"num_{name}"), len(getattr(graph, name))
            check(
                given in (None, found),
                f"data.train holds {found} {name}, data.num_{name}={given}; the file may have changed",
            )

    def triples(self, split: str) -> dict[Triple, str]:
        """`read_triples` of the file of a split. Raises `ValueError` if there is none."""
        path = getattr(self, split)
        check(path is not None, f"data.{split} must name a file of triples, got None")
        return read_triples(expand(path))


class TriplesTask(Task[TriplesConfig]):
    """The triples of one split, as queries in both directions.

    A document is `entity relation`, and with facts `entity relation answer entity relation answer ... entity relation`
    of one entity; the target at a relation is the answer. In training, a document is up to `facts` + 1 triples of an
    entity in random order, each asked before it is read, and each epoch has every query once. In evaluation it is up to
    `facts` training triples, always the same ones, and the query.
    """

    config: TriplesConfig
    evaluation = "links"

    def __init__(self, config: TriplesConfig, split: str, tokenizer: Tokenizer | None = None):
        """Raises `ValueError` if a file is not valid, holds a triple of `train` or what no triple of `train` has, or
        `train` holds other numbers of entities or relations than the configuration."""
        check(split in SPLITS, f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        super().__init__(config.completed(), split, tokenizer)
        files = {name: config.triples(name) for name in SPLITS if getattr(config, name) or name in ("train", split)}
        for triples in (triples for name, triples in files.items() if name != "train"):
            shared = next((where for triple, where in triples.items() if triple in files["train"]), None)
            check(shared is None, f"{shared}: the triple is in data.train, too: leave it out of one of the files")
        self.content = digest(*(tuple(triples) for triples in files.values()))
        self.graph = Graph(files["train"])
        """The entities and relations."""
        self.config.check_numbers(self.graph)
        queries = {name: self.graph.queries(triples) for name, triples in files.items()}
        self.queries = queries[split]
        """[2 N, 3] the queries of the split: first those for the N tails, then those for the heads."""
        known = queries["train"]
        is_loop = (known[:, 0] == known[:, 2]) & (np.arange(len(known)) >= len(known) // 2)
        # The two directions of a self-loop belong to one entity: one would give away the other in a document.
        self.learned = known[~is_loop]
        """[n, 3] the queries of the training triples, ordered by entity, without inverses of self-loops."""
        self.learned = self.learned[np.argsort(self.learned[:, 0], kind="stable")]
        self.first = np.searchsorted(self.learned[:, 0], np.arange(len(self.graph.entities) + 1))
        """[C + 1] where the queries of each entity begin in `learned`."""
        self._answers: dict[tuple[int, int], list[int]] = {}
        for entity, relation, answer in np.concatenate([*queries.values()]).tolist():
            self._answers.setdefault((entity, relation), []).append(answer)

    def answers(self, entity: int, relation: int) -> list[int]:
        """All right answers of a query in the files of all splits."""
        return self._answers.get((entity, relation), [])

    def document(self, entity: int, relation: int) -> np.ndarray:
        """The tokens of a query in evaluation; the last one is the relation."""
        facts = self.learned[self.first[entity] : self.first[entity + 1]]
        order = np.random.default_rng((FACTS_SEED, entity)).permutation(len(facts))[: self.config.facts]
        return np.concatenate([facts[order].reshape(-1), [entity, relation]]).astype(np.int32)

    @classmethod
    def shapes(cls, config: TriplesConfig, rows: int, length: int) -> Batch:
        """A batch of zeros with the arrays of `batches`."""
        shape = (rows, length)
        return zeros({"tokens": (shape, np.int32), "reset": (shape, bool)}, {"links": shape})

    def batches(self, seed: int, rows: int, length: int) -> Any:
        """Endless batches, a Grain `IterDataset`: the documents in random order, one after the other, without padding.

        A document that reaches beyond its row is divided; each part is a document of its own.
        """
        import grain

        return in_this_thread(grain.MapDataset.source(_Batches(self, seed, rows, length)))

    def batch(self, rng: np.random.Generator | int, batch_size: int, length: int) -> Batch:
        """The first batch of `batches` with a random seed."""
        return _Batches(self, int(np.random.default_rng(rng).integers(2**31)), batch_size, length)[0]

    def epoch(self, seed: int, number: int) -> np.ndarray:
        """[n, 4] int32: the queries of an epoch in the order of their documents, and whether a document begins."""
        rng, size = np.random.default_rng((seed, number)), self.config.facts + 1
        entities = self.learned[:, 0]
        shuffled = self.learned[np.lexsort((rng.random(len(entities)), entities))]
        begins = (np.arange(len(entities)) - self.first[entities]) % size == 0
        starts = np.flatnonzero(begins)
        sizes, order = np.diff(starts, append=len(begins)), rng.permutation(len(starts))
        shift = starts[order] - (np.cumsum(sizes[order]) - sizes[order])  # of each document, from its new place
        places = np.arange(len(begins)) + np.repeat(shift, sizes[order])
        return np.column_stack([shuffled, begins])[places].astype(np.int32)


class _Batches(Sequence[Batch]):
    """The batches of a seed: consecutive parts of the endless sequence of the queries of all epochs."""

    def __init__(self, task: TriplesTask, seed: int, rows: int, length: int):
        self.task, self.seed, self.rows, self.length = task, seed, rows, length
        self.epoch = functools.lru_cache(maxsize=2)(functools.partial(task.epoch, seed))

    def __len__(self) -> int:
        return 2**62

    def __getitem__(self, index: int) -> Batch:  # pyright: ignore[reportIncompatibleMethodOverride]
        size, total = self.task.config.tokens_per_triple, len(self.task.learned)
        number = self.rows * (self.length // size)
        first, last = divmod(index * number, total), divmod((index + 1) * number - 1, total)
        queries = np.concatenate([self.epoch(epoch) for epoch in range(first[0], last[0] + 1)])
        queries = queries[first[1] : first[1] + number].reshape(self.rows, -1, 4)
        batch = self.task.shapes(self.task.config, self.rows, self.length)
        tokens, reset = queries[..., :size].reshape(self.rows, -1), np.zeros((self.rows, self.length), bool)
        reset[:, ::size] = queries[..., 3] > 0
        reset[:, 0] = True
        targets, weights = (batch[part]["links"].copy() for part in (1, 2))
        targets[:, 1::size], weights[:, 1::size] = queries[..., 2], 1
        return Batch({"tokens": tokens, "reset": reset}, {"links": targets}, {"links": weights}, {})
