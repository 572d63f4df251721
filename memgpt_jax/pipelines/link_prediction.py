"""The entities that complete a triple of a knowledge graph."""

from typing import Any

import jax
import numpy as np

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.data.tasks.triples import TriplesConfig, TriplesTask
from memgpt_jax.evaluation.documents import end_outputs
from memgpt_jax.evaluation.scoring import check_finite
from memgpt_jax.models.heads.links import LinkHeadConfig
from memgpt_jax.pipelines.base import Loaded, check_sizes


class LinkPrediction:
    """Entities and their probabilities. The transformers library has no pipeline of this name.

    >>> predict = mg.pipeline("runs/umls")
    >>> predict("alga", "isa", top_k=2)
    [{"entity": "entity", "score": 0.21}, {"entity": "organism", "score": 0.19}]

    The names are those of the files of the run, which must still be there. Known answers are not left out.
    """

    def __init__(self, loaded: Loaded):
        """Raises `ValueError` if the model is not that of a run on triples, or their files are missing or others."""
        self.config = instance_of(loaded.config, HeadedConfig, "model")
        entities = instance_of(self.config.head, LinkHeadConfig, "model.head").num_outputs
        self.task = TriplesTask(instance_of(loaded.data, TriplesConfig, "the data of the run"), "train")
        found = len(self.task.graph.entities)
        check(found == entities, f"data.train holds {found} entities, the model has {entities}: the file has changed")
        self.params, self.length = loaded.params, loaded.length

    def __call__(
        self, entity: str, relation: str, *, top_k: int = 5, inverse: bool = False
    ) -> list[dict[str, str | float]]:
        """The `top_k` most probable answers, a list of {"entity", "score"} in descending order.

        Args:
            entity: the head of the triple, with `inverse` its tail.
            relation: the relation.
            top_k: number of answers; at most that of the entities.
            inverse: ask (?, relation, entity) instead of (entity, relation, ?).

        Raises:
            ValueError: the training file has no such entity or relation, or a score is NaN or infinite.
        """
        check_sizes(top_k=top_k)
        graph = self.task.graph
        asked = graph.relation(relation, "relation") + inverse * len(graph.relations)
        document = self.task.document(graph.entity(entity, "entity"), asked)
        (scores,) = end_outputs(self.config, self.params, [document], rows=1, length=self.length)
        check_finite(scores)
        probabilities = np.asarray(jax.nn.softmax(scores))
        best = np.argsort(-probabilities, kind="stable")[:top_k].tolist()
        return [{"entity": graph.entities[index], "score": float(probabilities[index])} for index in best]

    def record(self, text: str, *, top: int = 5, question: str | None = None) -> dict[str, Any]:
        """The result for "ENTITY<tab>RELATION" as an object of JSON: {"text", "predictions"}."""
        fields = text.split("\t")
        check(len(fields) == 2, f"the text must be an entity and a relation, separated by a tab, got {text[:80]!r}")
        return {"text": text, "predictions": self(*(field.strip() for field in fields), top_k=top)}
