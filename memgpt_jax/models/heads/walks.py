"""The head for questions over a knowledge graph: a memory of triples that a question reads several times."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.heads import HeadConfig, StreamHeadConfig
from memgpt_jax.config.model import StackConfig
from memgpt_jax.memory.linear import linear
from memgpt_jax.models.arguments import check_numbers, on_host
from memgpt_jax.models.heads.streams import StreamHead, StreamHeadState
from memgpt_jax.ops import Scores
from memgpt_jax.ops.walks import Walk, walk
from memgpt_jax.shapes import Array, Bool, Flags, Float, Float32, Int32, Stream, Tokens

FLOOR = 1e-6
"""Probability that is added to that of each entity, so that an answer that no read reaches has a finite loss."""


@dataclass(frozen=True, kw_only=True)
class WalkHeadConfig(StreamHeadConfig):
    """Answers a question by `hops` reads of a memory of triples; `memgpt_jax.ops.walks` has the equations.

    The outputs of layers and pool give the logits of all relations, for each read. Entities have no parameters: they
    are numbers in the memory, so that what is learned holds for every graph with these relations.
    """

    target: ClassVar[str] = "entities"
    pipeline: ClassVar[str | None] = "graph-questions"
    inputs: ClassVar[tuple[str, ...]] = ("triples",)

    hops: int = 1
    """Number of reads n, which training sets from the data."""
    graph_size: int = 4096
    """Most triples that the memory of a row holds, which training sets from the data."""


class WalkHeadState(NamedTuple):
    """The state of layers and pool, and the memory."""

    stream: StreamHeadState
    triples: Int32[Array, "B E 3"]
    """Head, relation and tail of each triple; -1 where there is none."""


class WalkHead(StreamHead):
    """The logarithm of the probability of each entity as the answer, at every token, [B, L, E + 1], float32.

        ln(p_n(e) + `FLOOR`)       from the logits of relations and of the way back, for each read

    The input `triples` [B, E, 3] puts these triples into the memory, in place of those that it had; a reset keeps them.
    Without it, the memory stays as it is, and E is `graph_size`. Entity 0 is the topic of the question, the others have
    numbers up to E. The relations are `num_outputs` numbers: those of a graph, then their inverses.
    """

    config: WalkHeadConfig

    projects = False

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        config = instance_of(config, WalkHeadConfig, "head")
        super().__init__(config, stack, rngs=rngs)
        size = self.config.hops * (self.config.num_outputs + 1)
        self.output = linear(self.width, size, use_bias=True, dtype=jnp.float32, rngs=rngs)

    @property
    def num_classes(self) -> int:
        return self.config.graph_size + 1

    def init_state(self, batch_size: int) -> WalkHeadState:
        empty = jnp.full((batch_size, self.config.graph_size, 3), -1, jnp.int32)
        return WalkHeadState(super().init_state(batch_size), empty)

    def __call__(
        self,
        h: Stream,
        state: Any = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        dropout_key: Array | None = None,
        triples: Int32[Array, "B E 3"] | None = None,
    ) -> tuple[Float32[Array, "B L C"], WalkHeadState]:
        """See `Head.__call__`. Args: triples: the new content of the memory; default: it stays."""
        state = self.init_state(len(h)) if state is None else state
        read = state.triples if triples is None else self.checked(triples, len(h))
        x, stream = self.features(h, state.stream, reset, valid, dropout_key=dropout_key)
        scores, _ = self.answers(x, read)
        padding = ((0, 0), (0, self.config.graph_size - read.shape[1]), (0, 0))
        return scores, WalkHeadState(stream, jnp.pad(read, padding, constant_values=-1))

    def answers(
        self, x: Float32[Array, "B L W"], triples: Int32[Array, "B E 3"]
    ) -> tuple[Float32[Array, "B L C"], Walk]:
        """The scores of the entities, and the reads that lead to them. Args: x: results of `features`."""
        logits = self.project(x).reshape(*x.shape[:2], self.config.hops, -1)
        found = walk(logits[..., 1:], logits[..., 0], triples, triples.shape[1] + 1)
        scores = jnp.log(found.entities + FLOOR)
        return jnp.where(_fit(triples, self.config.num_outputs)[:, None, None], scores, jnp.nan), found

    def checked(self, triples: Any, rows: int) -> Int32[Array, "B E 3"]:
        """The triples as int32. Raises `ValueError` if shape, type or numbers are not valid."""
        size, relations = self.config.graph_size, self.config.num_outputs
        shape = jnp.shape(triples)
        check(
            len(shape) == 3 and shape[0] == rows and 1 <= shape[1] <= size and shape[2] == 3,
            f"triples must be integers [{rows}, E, 3] with 1 <= E <= head.graph_size={size}, got shape {list(shape)}",
        )
        if (values := on_host(triples)) is not None:
            check(
                bool(_fit(values, relations).all()),
                f"triples must have relations below head.num_outputs={relations} and entities from 0 to {shape[1]}",
            )
        return check_numbers("triples", triples, shape)

    def check_targets(self, targets: Any, tokens: Tokens) -> Array:
        """The targets as int32 [B, L, E + 1]: 1 for each answer, else 0. Raises `ValueError` if they are not."""
        entities = getattr(targets, "shape", (0,))[-1]
        return check_numbers("targets['entities']", targets, (*tokens.shape, entities), 2)

    def score(
        self,
        outputs: Float32[Array, "B L C"],
        targets: Array,
        embedding: Float[Array, "V D"] | None = None,
        *,
        reset: Flags | None = None,
        valid: Flags | None = None,
    ) -> Scores:
        """-ln of the probability of all answers together, 0 without answers; and whether the best entity is one."""
        check(
            targets.shape == outputs.shape,
            f"targets['entities'] must be [B, L, {outputs.shape[-1]}], one number for each entity, got "
            f"{list(targets.shape)}",
        )
        right = targets > 0
        asked = jnp.any(right, axis=-1)
        total = jnp.sum(jnp.where(right, jnp.exp(outputs), 0.0), axis=-1)
        best = jnp.take_along_axis(right, jnp.argmax(outputs, axis=-1, keepdims=True), axis=-1)[..., 0]
        losses = -jnp.log(jnp.where(asked, total, 1.0))
        return Scores(losses, best & jnp.isfinite(outputs).all(axis=-1))


def _fit(triples: Any, relations: int) -> Bool[Array, "B"]:
    """Whether all triples [B, E, 3] of a row have relations below R and entities from 0 to E."""
    entities, relation = triples[..., ::2], triples[..., 1]
    known = ((entities >= 0) & (entities <= triples.shape[1])).all(axis=-1) & (relation < relations)
    return (known | (relation < 0)).all(axis=-1)
