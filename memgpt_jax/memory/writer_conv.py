"""The short convolution in front of a Writer's keys, with the last tokens of the previous segment in the state."""

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.ops.memory import causal_conv, gather_entries
from memgpt_jax.shapes import Array, Float, Int32


class WriterConv(nnx.Module):
    """Causal depthwise convolution c_t = sum_j kernel_j * x_{t-j} over W tokens, initially a shift by one token.

    Its state, the cache, holds the W - 1 tokens of the open document before the segment, [B, W-1, D]; zeros where there
    are none. With W = 1 there is no convolution.
    """

    decayed: ClassVar[tuple[str, ...]] = ("kernel",)

    def __init__(self, width: int, d_model: int, dtype: Any):
        self.width, self.d_model, self.dtype = width, d_model, dtype
        if width > 1:
            self.kernel = nnx.Param(jnp.zeros((width, d_model), jnp.float32).at[1].set(1.0))

    def init_state(self, batch_size: int) -> Float[Array, "B reach D"]:
        """The cache at the start of a document: zeros."""
        return jnp.zeros((batch_size, self.width - 1, self.d_model), self.dtype)

    def __call__(
        self,
        x: Float[Array, "B L D"],
        document: Int32[Array, "B L"],
        conv_cache: Float[Array, "B reach D"],
        stop_every: int | None = None,
    ) -> Float[Array, "B L D"]:
        """c for L tokens; tokens of document 0 also see the cache.

        Args:
            x: tokens.
            document: number of each token's document; taps of other documents are 0.
            conv_cache: the reach = W - 1 tokens before them.
            stop_every: no gradient crosses a multiple of this number of tokens; None: no limit.
        """
        if self.width == 1:
            return x
        conv = jax.checkpoint(partial(causal_conv, stop_every=stop_every))  # recomputing is cheaper than storing
        return conv(*_with_cache(x, document, conv_cache), self.kernel[...].astype(x.dtype))

    def next_cache(
        self,
        x: Float[Array, "B L D"],
        document: Int32[Array, "B L"],
        conv_cache: Float[Array, "B reach D"],
        num_written: Int32[Array, "B 1"] | None = None,
        open_document: Int32[Array, "B 1"] | int = 0,
    ) -> Float[Array, "B reach D"]:
        """The cache after the first `num_written` of L tokens (default: all); 0 for tokens of other documents."""
        num_written = jnp.full((len(x), 1), x.shape[1], jnp.int32) if num_written is None else num_written
        places = num_written + jnp.arange(self.width - 1, dtype=jnp.int32)[None, :]
        last, document_of_last = gather_entries(_with_cache(x, document, conv_cache), places)
        return jnp.where((document_of_last == open_document)[..., None], last, 0).astype(conv_cache.dtype)


def _with_cache(
    x: Float[Array, "B L D"], document: Int32[Array, "B L"], conv_cache: Float[Array, "B reach D"]
) -> tuple[Float[Array, "B reach+L D"], Int32[Array, "B reach+L"]]:
    """Inputs and document numbers, preceded by the W - 1 tokens of the cache, which belong to document 0."""
    before = jnp.zeros(conv_cache.shape[:2], document.dtype)
    return jnp.concatenate([conv_cache.astype(x.dtype), x], axis=1), jnp.concatenate([before, document], axis=1)
