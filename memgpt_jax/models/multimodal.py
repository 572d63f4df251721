"""Fusion of modalities: of their pooled vectors, and of tokens or objects as the nodes of a graph."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config.heads import ModalityFusionName
from memgpt_jax.memory.linear import linear
from memgpt_jax.ops.fusion import gated_modalities
from memgpt_jax.ops.graph import messages
from memgpt_jax.shapes import Array, Float, Int32


class ModalityFusion(nnx.Module):
    """One vector from those of M modalities; a modality that is missing has the vector 0.

    - `concat`: f = gelu(W [p_1; ...; p_M] + b)
    - `gate`: f = sum_m g_m * tanh(W_m p_m), g = softmax_m(V_m [p_1; ...; p_M] + c_m), for each channel
    """

    gates: ClassVar[tuple[str, ...]] = ("gate",)

    def __init__(self, fusion: ModalityFusionName, width: int, modalities: int = 2, *, dtype: Any, rngs: nnx.Rngs):
        """Args: width: W; modalities: M; dtype: compute type, parameters are float32."""
        self.fusion, self.width, self.modalities = fusion, width, modalities
        options = {"dtype": dtype, "rngs": rngs}
        if fusion == "concat":
            self.projection = linear(modalities * width, width, use_bias=True, **options)
        else:
            self.inputs = nnx.List([linear(width, width, use_bias=False, **options) for _ in range(modalities)])
            self.gate = linear(modalities * width, modalities * width, use_bias=True, **options)

    def __call__(self, vectors: Float[Array, "... M W"]) -> Float[Array, "... W"]:
        """The fused vector. Args: vectors: p."""
        joined = vectors.reshape(*vectors.shape[:-2], -1)
        if self.fusion == "concat":
            return jax.nn.gelu(self.projection(joined))
        parts = jnp.stack([jnp.tanh(own(vectors[..., m, :])) for m, own in enumerate(self.inputs)], axis=-2)
        return gated_modalities(parts, self.gate(joined).reshape(parts.shape))[0]


class GraphNetwork(nnx.Module):
    """Rounds of message passing between nodes of width D, by edges of R kinds.

        n_i = norm(x_i),   m = messages(n),   x_i <- x_i + gelu(W [n_i; m_i1; ...; m_iR] + b)

    `messages` is `memgpt_jax.ops.messages`. Nodes are tokens, patches, frames or objects. Their order, and that of
    edges, does not matter.
    """

    def __init__(self, width: int, *, num_kinds: int = 1, rounds: int = 2, dtype: Any = "float32", rngs: nnx.Rngs):
        """Args: width: D; num_kinds: R; rounds: their number; dtype: compute type, parameters are float32."""
        self.num_kinds, dtype = num_kinds, jnp.dtype(dtype)
        self.norms = nnx.List([nnx.RMSNorm(width, dtype=dtype, rngs=rngs) for _ in range(rounds)])
        joined = (1 + num_kinds) * width
        self.rounds = nnx.List([linear(joined, width, use_bias=True, dtype=dtype, rngs=rngs) for _ in range(rounds)])

    def __call__(
        self, x: Float[Array, "B N D"], edges: Int32[Array, "B E 3"], group: Int32[Array, "B N"] | None = None
    ) -> Float[Array, "B N D"]:
        """The nodes after all rounds. Args: as in `memgpt_jax.ops.messages`."""
        for normalise, update in zip(self.norms, self.rounds, strict=True):
            n = normalise(x)
            received = messages(n, edges, self.num_kinds, group)
            joined = jnp.concatenate([n, received.reshape(*n.shape[:2], -1)], axis=-1)
            x = x + jax.nn.gelu(update(joined))
        return x
