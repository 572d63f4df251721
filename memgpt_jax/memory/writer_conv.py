"""The short convolution in front of a Writer's keys, with the tokens that it still reaches kept in the state."""

import jax.numpy as jnp
from flax import nnx

from memgpt_jax.ops import causal_conv, take
from memgpt_jax.shapes import Array, Float, Int32


class WriterConv(nnx.Module):
    """Causal depthwise convolution c_t = sum_j kernel_j * x_{t-j} over W tokens, which starts as a shift by one.

    Its state, the tail, is the W - 1 tokens of the open document in front of the segment [B, W-1, D], zeros where
    there are none. With W = 1 there is no convolution.
    """

    def __init__(self, width: int, d_model: int):
        self.width = width
        if width > 1:
            self.kernel = nnx.Param(jnp.zeros((width, d_model), jnp.float32).at[1].set(1.0))

    def init_state(self, batch_size: int, d_model: int, dtype) -> Float[Array, "B W-1 D"]:
        """The tail of a document that begins."""
        return jnp.zeros((batch_size, self.width - 1, d_model), dtype)

    def __call__(
        self, x: Float[Array, "B L D"], document: Int32[Array, "B L"], tail: Float[Array, "B W-1 D"], stop_every=None
    ) -> Float[Array, "B L D"]:
        """c for L tokens of numbered documents; those of document 0 reach the tail. `stop_every`: see `causal_conv`."""
        if self.width == 1:
            return x
        seen, documents = self._with_tail(x, document, tail)
        return causal_conv(seen, documents, self.kernel[...].astype(x.dtype), stop_every)

    def next_tail(
        self, x: Float[Array, "B L D"], document: Int32[Array, "B L"], tail: Float[Array, "B W-1 D"], written, open_
    ) -> Float[Array, "B W-1 D"]:
        """The tail once the first `written` [B] of L tokens are, for the document with the number `open_` [B]."""
        seen, documents = self._with_tail(x, document, tail)
        places = written[:, None] + jnp.arange(self.width - 1, dtype=jnp.int32)[None, :]
        last, its_document = take((seen, documents), places)
        return jnp.where((its_document == open_[:, None])[..., None], last, 0).astype(tail.dtype)

    def _with_tail(self, x, document, tail):
        before = jnp.zeros(tail.shape[:2], document.dtype)
        return jnp.concatenate([tail.astype(x.dtype), x], axis=1), jnp.concatenate([before, document], axis=1)
