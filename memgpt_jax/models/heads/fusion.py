"""Heads for labels of streams of several modalities: fusion of the pooled modalities, and of the nodes of a graph."""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.heads import HeadConfig, ModalityFusionName
from memgpt_jax.config.model import StackConfig
from memgpt_jax.models.arguments import check_numbers, filled_flags, on_host
from memgpt_jax.models.heads.labels import LabelHead, LabelHeadConfig
from memgpt_jax.models.heads.streams import StreamHeadState
from memgpt_jax.models.multimodal import GraphNetwork, ModalityFusion
from memgpt_jax.shapes import Array, Flags, Float32, Int32, Stream


@dataclass(frozen=True, kw_only=True)
class FusionHeadConfig(LabelHeadConfig):
    """Labels from the pooled tokens of each modality, fused (`memgpt_jax.models.ModalityFusion`).

    The modality of a token is its token type. An `EncoderConfig` with `separate_types` encodes each by itself.
    """

    token_inputs: ClassVar[tuple[str, ...]] = ("token_types",)

    fusion: ModalityFusionName = "concat"
    """`concat`: concatenate the vectors and project them; `gate`: their sum, weighted by gates."""
    modalities: int = 2
    """Number of modalities M: token types from 0 to M - 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.pool != "none", "head.pool='none' has no vector of a modality: choose another pool, such as 'mean'")


class FusionHead(LabelHead):
    """Logits of classes at every token, from the tokens of each modality up to and with this token.

    The input `token_types` [B, L] gives the modality of each token; without it, all tokens are of modality 0.
    """

    config: FusionHeadConfig

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        config = instance_of(config, FusionHeadConfig, "head")
        super().__init__(config, stack, rngs=rngs)
        dtype = jnp.dtype(stack.dtype)
        self.modalities = ModalityFusion(config.fusion, self.width, config.modalities, dtype=dtype, rngs=rngs)

    def init_state(self, batch_size: int) -> StreamHeadState:
        state = super().init_state(batch_size)
        pools = tuple(super(FusionHead, self).init_state(batch_size).pool for _ in range(self.config.modalities))
        return state._replace(pool=pools)

    def __call__(
        self,
        h: Stream,
        state: Any = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        dropout_key: Array | None = None,
        token_types: Int32[Array, "B L"] | None = None,
    ) -> tuple[Float32[Array, "B L C"], StreamHeadState]:
        """See `Head.__call__`. Args: token_types: the modality of each token; default: 0."""
        state = self.init_state(len(h)) if state is None else state
        shape, number = h.shape[:2], self.config.modalities
        types = jnp.zeros(shape, jnp.int32) if token_types is None else token_types
        types = check_numbers("token_types", types, shape, number)
        _, present = filled_flags(shape, reset, valid)
        x, state = self.features(h, state, reset, valid, dropout_key=dropout_key, types=types)
        known = jnp.all((types >= 0) & (types < number) | ~present, axis=1)
        return jnp.where(known[:, None, None], self.project(x), jnp.nan), state

    def pooled(
        self, x: Stream, state: Any, reset: Flags, valid: Flags, *, types: Int32[Array, "B L"] | None = None
    ) -> tuple[Float32[Array, "B L W"], Any]:
        """The fused vectors of the modalities, and the state of the pool of each."""
        assert types is not None
        found = [
            super(FusionHead, self).pooled(x, before, reset, valid, present=types == number)
            for number, before in enumerate(state)
        ]
        vectors = jnp.stack([vector for vector, _ in found], axis=2).astype(x.dtype)
        return self.modalities(vectors).astype(jnp.float32), tuple(after for _, after in found)


@dataclass(frozen=True, kw_only=True)
class GraphHeadConfig(LabelHeadConfig):
    """Labels from the nodes of a graph after rounds of message passing (`memgpt_jax.models.GraphNetwork`), pooled.

    The tokens of a call are the nodes; `pool="attention"` is a read-out by attention, `"none"` one label for each node.
    Needs an encoder.
    """

    inputs: ClassVar[tuple[str, ...]] = ("edges",)

    edge_kinds: int = 1
    """Number of kinds of edges R."""
    rounds: int = 2
    """Rounds of message passing."""


class GraphHead(LabelHead):
    """Logits of classes at every token, from the nodes up to and with this token.

    The input `edges` [B, E, 3] has the source, the kind and the target of each edge: places of tokens in the call. A
    kind of -1 is no edge. Edges between documents, and those of padding, are none.
    """

    config: GraphHeadConfig

    def __init__(self, config: HeadConfig, stack: StackConfig, *, rngs: nnx.Rngs):
        config = instance_of(config, GraphHeadConfig, "head")
        check(
            not stack.causal,
            "GraphHeadConfig needs an encoder: edges come from later tokens, too; this backbone is causal",
        )
        super().__init__(config, stack, rngs=rngs)
        options = {"num_kinds": config.edge_kinds, "rounds": config.rounds, "dtype": stack.dtype, "rngs": rngs}
        self.network = GraphNetwork(stack.d_model, **options)

    def __call__(
        self,
        h: Stream,
        state: Any = None,
        reset: Flags | None = None,
        valid: Flags | None = None,
        *,
        dropout_key: Array | None = None,
        edges: Int32[Array, "B E 3"] | None = None,
    ) -> tuple[Float32[Array, "B L C"], StreamHeadState]:
        """See `Head.__call__`. Args: edges: default: none."""
        reset, valid = filled_flags(h.shape[:2], reset, valid)
        edges = self.checked(jnp.full((len(h), 1, 3), -1, jnp.int32) if edges is None else edges, *h.shape[:2])
        document = jnp.where(valid, jnp.cumsum(reset, axis=1, dtype=jnp.int32), -1)
        nodes = self.network(jnp.where(valid[..., None], h, 0), edges, document)
        outputs, state = super().__call__(nodes, state, reset, valid, dropout_key=dropout_key)
        fits = _fit(edges, h.shape[1], self.config.edge_kinds)
        return jnp.where(fits[:, None, None], outputs, jnp.nan), state

    def checked(self, edges: Any, rows: int, length: int) -> Int32[Array, "B E 3"]:
        """The edges as int32. Raises `ValueError` if shape, type or numbers are not valid."""
        shape, kinds = jnp.shape(edges), self.config.edge_kinds
        check(
            len(shape) == 3 and shape[0] == rows and shape[1] >= 1 and shape[2] == 3,
            f"edges must be integers [{rows}, E, 3] with E >= 1, got shape {list(shape)}",
        )
        if (values := on_host(edges)) is not None:
            check(
                bool(_fit(values, length, kinds).all()),
                f"edges must have kinds from -1 (no edge) to head.edge_kinds - 1 = {kinds - 1}, and sources and "
                f"targets from 0 to {length - 1}",
            )
        return check_numbers("edges", edges, shape)


def _fit(edges: Any, length: int, kinds: int) -> Any:
    """[B] bool: whether all edges [B, E, 3] of a row have a known kind and join tokens of the call."""
    ends, kind = edges[..., ::2], edges[..., 1]
    known = ((ends >= 0) & (ends < length)).all(axis=-1) & (kind >= 0) & (kind < kinds)
    return (known | (kind == -1)).all(axis=-1)
