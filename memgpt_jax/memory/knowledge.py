"""Entries of knowledge beside those of a memory: where they are stored, and how they are read."""

from typing import Any

import jax.numpy as jnp

from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.memory.projected import AttendedMemory
from memgpt_jax.ops.attention.dense import MASKED
from memgpt_jax.ops.fusion import joint_softmax
from memgpt_jax.ops.memory import (
    Entries,
    KnowledgeCells,
    KnowledgeEntries,
    NearestRead,
    ReadableEntries,
    Source,
    read_nearest,
)
from memgpt_jax.shapes import Array, Float


class KnowledgeMemory(AttendedMemory[KVMemoryConfig]):
    """Base of `KVMemory`: N entries of knowledge, in one softmax with those of the memory.

    All are read, or with `knowledge_top_k` the nearest ones. Methods take None where there is no place for knowledge.
    """

    joins_attention = False
    """True when the memory shares self-attention's softmax. Reads are then float32 [..., H (K + 1)]: the output of each
    head, followed by its log-sum-exp."""

    def no_knowledge(self, batch_size: int) -> KnowledgeEntries | None:
        """N empty places, or None."""
        config = self.config
        if not config.knowledge_size:
            return None
        stored = (batch_size, config.knowledge_size, config.kv_heads, config.head_dim)
        return KnowledgeEntries(
            keys=jnp.zeros(stored, self.dtype),
            values=jnp.zeros(stored, self.dtype),
            log_gate=jnp.zeros(stored[:2], jnp.float32),
            source=jnp.zeros(stored[:2], jnp.int32),
            cells=self._no_cells(batch_size),
        )

    def readable(self, entries: Entries | KnowledgeEntries) -> ReadableEntries:
        """Entries with the logit bias of their gates."""
        bias = entries.log_gate if self.config.gate == "log_bias" else jnp.zeros_like(entries.log_gate)
        return ReadableEntries(entries.keys, entries.values, bias)

    def readable_knowledge(self, knowledge: KnowledgeEntries) -> ReadableEntries:
        """Knowledge with the logit biases of its gates; `MASKED` at empty places."""
        stored = self.readable(knowledge)
        return stored._replace(bias=jnp.where(knowledge.source > 0, stored.bias, jnp.float32(MASKED)))

    def knowledge_source(self, knowledge: KnowledgeEntries | None, length: int) -> list[Source]:
        """Knowledge as a `Source` of the Reader for Q tokens, of age 0; none if there is no place for it."""
        if knowledge is None or self.searches(knowledge):
            return []
        batch, number = knowledge.source.shape
        visible = jnp.ones((batch, length, number), bool)
        return [Source(*self.readable_knowledge(knowledge), jnp.zeros((batch, number), jnp.int32), visible)]

    def searches(self, knowledge: KnowledgeEntries | None) -> bool:
        """Whether the state has knowledge, of which only the nearest entries are read."""
        return knowledge is not None and self.config.knowledge_top_k is not None

    def nearest(self, query: Float[Array, "B L H K"], knowledge: KnowledgeEntries | None) -> NearestRead | None:
        """The read of the nearest entries of knowledge; None: all are read, or there are none."""
        top_k = self.config.knowledge_top_k
        if top_k is None or knowledge is None:
            return None
        number = jnp.full(len(query), self.config.knowledge_size, jnp.int32)
        if knowledge.cells is None:  # cells hold entries alone
            number = jnp.sum(knowledge.source > 0, axis=1, dtype=jnp.int32)
        options = {"recall_target": self.config.knowledge_recall, "probes": self.config.knowledge_probes}
        return read_nearest(query, self.readable(knowledge), number, top_k, cells=knowledge.cells, **options)

    def with_nearest(self, query: Float[Array, "B L H K"], knowledge: KnowledgeEntries | None, found: Any) -> Any:
        """What has been found, and with `knowledge_top_k` the nearest entries of knowledge, in one softmax."""
        nearest = self.nearest(query, knowledge)
        if nearest is None:
            return found
        out, lse = found
        out, _ = joint_softmax(out, lse, nearest.out, nearest.lse)
        return (out, jnp.logaddexp(lse, nearest.lse)) if self.joins_attention else out

    def _no_cells(self, batch_size: int) -> KnowledgeCells | None:
        """An index without entries; None: there is none."""
        config, cells = self.config, self.config.knowledge_cells
        if cells is None:
            return None
        shape = (batch_size, config.kv_heads, cells)
        places = -(-config.knowledge_size // cells)
        return KnowledgeCells(
            means=jnp.zeros((*shape, config.head_dim), jnp.float32),
            members=jnp.full((*shape, places), config.knowledge_size, jnp.int32),
        )
