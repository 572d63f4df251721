"""The head for links of a knowledge graph: which entity completes (head entity, relation, ?)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.heads import HeadConfig, PoolName, StreamHeadConfig
from memgpt_jax.config.model import StackConfig
from memgpt_jax.models.arguments import check_numbers, filled_flags
from memgpt_jax.models.heads.labels import label_scores
from memgpt_jax.models.heads.streams import StreamHead
from memgpt_jax.models.layers import dropout
from memgpt_jax.ops import Scores
from memgpt_jax.ops.links import Scorer, link_scores
from memgpt_jax.ops.memory import gather_entries
from memgpt_jax.shapes import Array, Flags, Float, Float32, Int, Stream, Tokens


@dataclass(frozen=True, kw_only=True)
class LinkHeadConfig(StreamHeadConfig):
    """A score of every entity at every token, for the relation at this token and the entity at the token before it.

    u is the hidden state of the token before, w that of the token, e the embedding of an entity (ids 0 to C - 1);
    `memgpt_jax.ops.links` has the equations. Over a decoder without blocks (`num_layers=0`), u and w are the embeddings
    themselves: the shallow models of the papers.
    """

    target: ClassVar[str] = "links"
    pipeline: ClassVar[str | None] = "link-prediction"

    pool: PoolName = "none"
    """`none`: each token has scores of its own."""
    scorer: Scorer = "complex"
    """The form of the score: `transe`, `distmult`, `complex` or `rotate`."""
    label_smoothing: float = 0.0
    """Probability that is spread evenly over all entities in the training loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.pool == "none", f"head.pool must be 'none': each relation asks for an entity, got {self.pool!r}")
        check(self.layers == "linear", f"head.layers must be 'linear': the head has no layers, got {self.layers!r}")
        check(0.0 <= self.label_smoothing < 1.0, f"head.label_smoothing must be in [0, 1), got {self.label_smoothing}")


class LinkHead(StreamHead):
    """Scores of all entities at every token, [B, L, C]. It has no parameters of its own."""

    config: LinkHeadConfig

    projects = False
    reads_embedding = True

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        config = instance_of(config, LinkHeadConfig, "head")
        halves = config.scorer in ("complex", "rotate")
        check(
            not halves or stack.d_model % 2 == 0,
            f"head.scorer={config.scorer!r} needs an even d_model, for complex numbers, got {stack.d_model}",
        )
        check(
            config.num_outputs <= getattr(stack, "vocab_size", 0),
            f"head.num_outputs={config.num_outputs} entities must be at most vocab_size={stack.vocab_size}",
        )
        super().__init__(config, stack, rngs=rngs)

    @property
    def num_classes(self) -> int:
        return self.config.num_outputs

    def init_state(self, batch_size: int) -> Float32[Array, "B D"]:
        """The hidden state of the last token of the open document; zeros where there is none."""
        return jnp.zeros((batch_size, self.stack.d_model), jnp.float32)

    def __call__(
        self,
        h: Stream,
        state: Any = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        dropout_key: Array | None = None,
        embedding: Float[Array, "V D"] | None = None,
    ) -> tuple[Float32[Array, "B L C"], Float32[Array, "B D"]]:
        """See `Head.__call__`. Args: embedding: of the backbone's tokens, as the backbone reads them."""
        assert embedding is not None  # the model gives it
        state = self.init_state(len(h)) if state is None else state
        reset, valid = filled_flags(h.shape[:2], reset, valid)
        h = h.astype(jnp.float32)
        stream = jnp.concatenate([state[:, None], h], axis=1)
        before = jnp.where(reset[..., None], 0.0, stream[:, :-1])
        last = gather_entries(stream, jnp.sum(valid, axis=1, dtype=jnp.int32)[:, None])[:, 0]
        u, w = jnp.split(dropout(jnp.concatenate([before, h], axis=-1), self.config.dropout, dropout_key), 2, axis=-1)
        entities = embedding[: self.num_classes].astype(jnp.float32)
        return link_scores(self.config.scorer, u, w, entities), last

    def check_targets(self, targets: Any, tokens: Tokens) -> Array:
        """The targets as int32: entities [B, L], -1 for none. Raises `ValueError` if they are not."""
        return check_numbers("targets['links']", targets, tokens.shape, self.num_classes, least=-1)

    def score(
        self,
        outputs: Float32[Array, "B L C"],
        targets: Int[Array, "B L"],
        embedding: Float[Array, "V D"] | None = None,
        *,
        reset: Flags | None = None,
        valid: Flags | None = None,
    ) -> Scores:
        """Cross-entropy among all entities, with `label_smoothing`; see `label_scores`."""
        return label_scores(outputs, targets, smoothing=self.config.label_smoothing)
