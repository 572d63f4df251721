"""Files of triples of a knowledge graph, one a line, and their ids."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.data.corpora.reading import numbered_lines
from memgpt_jax.files.paths import shown

logger = logging.getLogger(__name__)


class Triple(NamedTuple):
    """One fact: the relation holds between head and tail."""

    head: str
    relation: str
    tail: str


def as_triple(fields: Any, where: str) -> Triple:
    """A triple of three texts, without spaces around them. Raises `ValueError` with the place of what is none."""
    texts = [field.strip() for field in fields if isinstance(field, str)] if isinstance(fields, list | tuple) else []
    check(
        len(texts) == 3 == len(fields) and all(texts),
        f"{where} must be three texts (head, relation, tail), none of them empty, got {fields!r:.80}",
    )
    return Triple(*texts)


def read_triples(path: Path) -> dict[Triple, str]:
    """The place (file and line, for messages) of each triple of a file, in the order of the file.

    A line is HEAD, RELATION and TAIL, separated by tabs, or without tabs by `|`; empty lines are skipped. A repeated
    triple counts once, and the log says how many were repeated.

    Raises:
        ValueError: the file cannot be read, has no triples, or a line is none.
    """
    found: dict[Triple, str] = {}
    repeated, name = 0, shown(path)
    for number, line, _ in numbered_lines(path):
        where = f"{name}, line {number}"
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"{where} is not valid UTF-8 at byte {error.start} of the line") from None
        fields = [field.strip() for field in text.split("\t" if "\t" in text else "|")]
        if not any(fields):
            continue
        check(
            len(fields) == 3 and all(fields),
            f"{where} must be HEAD, RELATION and TAIL, separated by tabs or by |, got {text[:80]!r}",
        )
        triple = Triple(*fields)
        repeated += triple in found
        found.setdefault(triple, where)
    check(bool(found), f"{name} has no triples")
    if repeated:
        logger.warning("%s repeats %d triples, which count once", name, repeated)
    return found


class Graph:
    """The ids of the entities and the relations of triples, such as those of a training file, in alphabetical order.

    Of C entities and R relations, entities have the ids 0 to C - 1, relations C to C + R - 1, and the inverse of a
    relation has its id + R.
    """

    def __init__(self, triples: Iterable[Triple], relations: Sequence[str] | None = None):
        """Args: relations: their names in the order of their ids; default: those of the triples."""
        triples = list(triples)
        self.entities = sorted({entity for triple in triples for entity in (triple.head, triple.tail)})
        self.relations = sorted({triple.relation for triple in triples}) if relations is None else list(relations)
        self._entity_ids = {name: number for number, name in enumerate(self.entities)}
        self._relation_ids = {name: len(self.entities) + number for number, name in enumerate(self.relations)}

    def number_of(self, name: str) -> int | None:
        """The id of an entity; None if it is in no triple."""
        return self._entity_ids.get(name)

    def entity(self, name: str, where: str) -> int:
        """The id of an entity. Raises `ValueError` with the place if it is in no training triple."""
        check(name in self._entity_ids, f"{where}: the entity {name!r} is in no triple of data.train: leave it out")
        return self._entity_ids[name]

    def relation(self, name: str, where: str) -> int:
        """The id of a relation. Raises `ValueError` with the place if it is in no training triple."""
        check(name in self._relation_ids, f"{where}: the relation {name!r} is in no triple of data.train: leave it out")
        return self._relation_ids[name]

    def queries(self, triples: Mapping[Triple, str]) -> np.ndarray:
        """The queries (entity, relation, answer) of N triples in both directions, ids [2 N, 3] int32.

        Query i asks for the tail of triple i, (head, relation, ?), and query N + i for its head,
        (tail, inverse relation, ?). Raises `ValueError` as `entity` and `relation`.
        """
        forward = np.array(
            [
                (self.entity(head, where), self.relation(relation, where), self.entity(tail, where))
                for (head, relation, tail), where in triples.items()
            ],
            np.int32,
        ).reshape(-1, 3)
        inverse = forward[:, ::-1] + np.array([0, len(self.relations), 0], np.int32)
        return np.concatenate([forward, inverse])
