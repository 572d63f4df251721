"""Questions over a knowledge graph, whose triples may change after training."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.examples.neighbourhoods import Neighbourhoods
from memgpt_jax.data.examples.triples import Graph, Triple, as_triple
from memgpt_jax.data.tasks.graph_questions import GraphQuestionsConfig, asked, question_ids
from memgpt_jax.evaluation.walks import answer
from memgpt_jax.models.heads.walks import WalkHeadConfig
from memgpt_jax.pipelines.base import Loaded, check_sizes


class GraphQuestions:
    """Entities that answer a question, and the triple that leads to each. The transformers library has no such
    pipeline.

    >>> ask = mg.pipeline("runs/metaqa")
    >>> ask("what does [Tom Cullen] act in", top_k=1)
    [{"entity": "Weekend", "score": 0.99, "triple": ("Weekend", "starred actors", "Tom Cullen")}]
    >>> ask.remove([("Weekend", "starred actors", "Tom Cullen")])

    The triples are those of the file of the run, which must still be there, and what `add` and `remove` make of them.
    """

    def __init__(self, loaded: Loaded):
        """Raises `ValueError` if the model is not that of a run on questions over a graph, or its file is missing."""
        self.config = instance_of(loaded.config, HeadedConfig, "model")
        self.walks = instance_of(self.config.head, WalkHeadConfig, "model.head")
        self.data = instance_of(loaded.data, GraphQuestionsConfig, "the data of the run")
        self.params, self.tokenizer = loaded.params, loaded.tokenizer
        self._hold(dict.fromkeys(self.data.known_triples(), "data.triples"))

    def __call__(self, question: str, *, top_k: int = 5) -> list[dict[str, Any]]:
        """The `top_k` most probable answers, a list of {"entity", "score", "triple"} in descending order.

        Args:
            question: a question with its topic in brackets.
            top_k: number of answers; fewer if fewer entities are reached.

        Raises:
            ValueError: the question has no topic in brackets, or a score is NaN or infinite.
        """
        check_sizes(top_k=top_k)
        one = asked(question, "the question")
        topic = self.graph.number_of(one.topic)
        around = self.neighbourhoods.around(topic, self.walks.hops, self.walks.graph_size)
        (found,) = answer(self.config, self.params, [question_ids(self.tokenizer, one)], [around], rows=1)
        weights, best = found.reads[-1], np.argsort(-found.scores, kind="stable")
        results = []
        for number in best[:top_k].tolist():
            leading = weights * (around.triples[:, 2] == number)
            if leading.any():
                triple = self._named(around.entities, around.triples[leading.argmax()])
                name, score = self.graph.entities[around.entities[number]], float(np.exp(found.scores[number]))
                results.append({"entity": name, "score": score, "triple": triple})
        return results

    def add(self, triples: Iterable[tuple[str, str, str]]) -> None:
        """Add triples of three texts. Raises `ValueError` if one is none, or has a relation that is not learned."""
        new = [as_triple(triple, "a triple") for triple in triples]
        for triple in new:
            names = ", ".join(self.data.relations)
            check(
                triple.relation in self.data.relations, f"the model has no relation {triple.relation!r}; it has {names}"
            )
        self._hold(self.triples | dict.fromkeys(new, "add"))

    def remove(self, triples: Iterable[tuple[str, str, str]]) -> None:
        """Remove triples. Raises `ValueError` if one is none or not there, or none is left."""
        removed = {as_triple(triple, "a triple") for triple in triples}
        for triple in removed:
            check(triple in self.triples, f"there is no triple {tuple(triple)}")
        left = {triple: where for triple, where in self.triples.items() if triple not in removed}
        check(bool(left), "a graph needs at least one triple")
        self._hold(left)

    def record(self, text: str, *, top: int = 5, question: str | None = None) -> dict[str, Any]:
        """The result for a question as an object of JSON: {"text", "predictions"}."""
        return {"text": text, "predictions": self(text, top_k=top)}

    def _hold(self, triples: dict[Triple, str]) -> None:
        self.triples, self.graph = triples, Graph(triples, self.data.relations)
        self.neighbourhoods = Neighbourhoods(self.graph, triples)

    def _named(self, entities: np.ndarray, triple: np.ndarray) -> tuple[str, str, str]:
        """The names of a triple, as it is in the file: an inverse is turned round."""
        head, tail = (self.graph.entities[entities[number]] for number in (triple[0], triple[2]))
        is_inverse, relation = divmod(int(triple[1]), len(self.data.relations))
        return (
            (tail, self.data.relations[relation], head) if is_inverse else (head, self.data.relations[relation], tail)
        )
