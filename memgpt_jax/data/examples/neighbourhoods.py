"""The neighbourhood of an entity in a knowledge graph: the triples that a random walk from it most probably takes."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from memgpt_jax.data.examples.triples import Graph, Triple

VISITS = 16
"""Maximum number of triples that the walk looks at in a step, for each triple of a neighbourhood."""


class Neighbourhood(NamedTuple):
    """Triples around a topic, in which entities have numbers of their own."""

    triples: np.ndarray
    """[E, 3] int32: head, relation and tail; every head is the topic or a tail."""
    entities: np.ndarray
    """[n], n <= E + 1: the id in the graph of the entity of each number; the topic is number 0."""


class Neighbourhoods:
    """The neighbourhoods of a graph. Relations are numbers from 0 to R - 1, their inverses R to 2 R - 1."""

    def __init__(self, graph: Graph, triples: Mapping[Triple, str]):
        """Args: triples: those of the graph, with their places for messages."""
        number = len(graph.entities)
        steps = np.unique(graph.queries(triples).astype(np.int64) - [0, number, 0], axis=0)
        self.steps = steps.astype(np.int32)
        """[2 N, 3] the triples and their inverses, ordered by head."""
        self.first = np.searchsorted(steps[:, 0], np.arange(number + 1))
        """[C + 1] where the steps of each entity begin."""
        of_relation = steps[:, 0] * (2 * len(graph.relations)) + steps[:, 1]
        kinds, kind, count = np.unique(of_relation, return_inverse=True, return_counts=True)
        relations = np.bincount(kinds // (2 * len(graph.relations)), minlength=number)
        self.chance = 1 / (relations[steps[:, 0]] * count[kind])
        """[2 N] the probability of each step: of the relations of its head, and of the triples of this relation."""

    def around(self, topic: int | None, hops: int, most: int) -> Neighbourhood:
        """At most `most` triples of a walk of n steps from the topic: those that a walk takes with the highest
        probability in one of its steps, if a walk through the others reaches them.

        A step takes each relation of its entity with the same probability, and each triple of this relation. So an
        entity of many triples, such as a genre, does not fill the neighbourhood. Of a topic that is in no triple (None)
        there are none.
        """
        if topic is None:
            return Neighbourhood(np.zeros((0, 3), np.int32), np.array([-1]))
        here, probability = np.array([topic]), np.ones(1)
        taken, chances = [], []
        for _ in range(hops):
            order = np.argsort(-probability, kind="stable")
            here, probability = here[order], probability[order]
            number = self.first[here + 1] - self.first[here]
            looked_at = np.cumsum(number) <= max(VISITS * most, number[0])
            here, probability, number = here[looked_at], probability[looked_at], number[looked_at]
            steps = np.repeat(self.first[here] - (np.cumsum(number) - number), number) + np.arange(number.sum())
            chance = np.repeat(probability, number) * self.chance[steps]
            taken.append(steps)
            chances.append(chance)
            here, place = np.unique(self.steps[steps, 2], return_inverse=True)
            probability = np.bincount(place, chance)
        steps, chance = np.concatenate(taken), np.concatenate(chances)
        order = np.argsort(-chance, kind="stable")
        steps = steps[order][np.sort(np.unique(steps[order], return_index=True)[1])][:most]
        return numbered(self._reached(self.steps[steps], topic, hops), topic)

    @staticmethod
    def _reached(triples: np.ndarray, topic: int, hops: int) -> np.ndarray:
        """The triples to which others lead from the topic in n steps."""
        reached, heads = np.zeros(len(triples), bool), np.array([topic])
        for _ in range(hops):
            reached |= np.isin(triples[:, 0], heads)
            heads = np.append(triples[reached, 2], topic)
        return triples[reached]


def numbered(triples: np.ndarray, topic: int) -> Neighbourhood:
    """The triples with numbers of entities in the order in which they appear, after the topic."""
    appearing = np.concatenate([[topic], triples[:, ::2].reshape(-1)])
    ids, first, place = np.unique(appearing, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(ids), np.int32)
    rank[order] = np.arange(len(ids))
    found = triples.copy()
    found[:, ::2] = rank[place[1:]].reshape(-1, 2)
    return Neighbourhood(found, ids[order])
