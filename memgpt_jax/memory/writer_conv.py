"""The short convolution in front of a Writer's keys, with the tokens that it still reaches kept in the state."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.ops import causal_conv, take
from memgpt_jax.shapes import Array, Float, Int32


class WriterConv(nnx.Module):
    """Causal depthwise convolution c_t = sum_j kernel_j * x_{t-j} over W tokens, which starts as a shift by one.

    Its state, the tail, is the W - 1 tokens of the open document in front of the segment [B, W-1, D], zeros where
    there are none. With W = 1 there is no convolution.
    """

    def __init__(self, width: int, d_model: int, dtype):
        self.width, self.d_model, self.dtype = width, d_model, dtype
        if width > 1:
            self.kernel = nnx.Param(jnp.zeros((width, d_model), jnp.float32).at[1].set(1.0))

    def init_state(self, batch_size: int) -> Float[Array, "B W-1 D"]:
        """The tail of a document that begins."""
        return jnp.zeros((batch_size, self.width - 1, self.d_model), self.dtype)

    def __call__(
        self, x: Float[Array, "B L D"], document: Int32[Array, "B L"], tail: Float[Array, "B W-1 D"], stop_every=None
    ) -> Float[Array, "B L D"]:
        """c for L tokens of numbered documents; those of document 0 reach the tail. `stop_every`: see `causal_conv`."""
        if self.width == 1:
            return x
        conv = jax.checkpoint(partial(causal_conv, stop_every=stop_every))  # cheaper to repeat than to store its taps
        return conv(*_with_tail(x, document, tail), self.kernel[...].astype(x.dtype))

    def next_tail(
        self,
        x: Float[Array, "B L D"],
        document: Int32[Array, "B L"],
        tail: Float[Array, "B W-1 D"],
        written: Int32[Array, "B 1"] | None = None,
        open_document: Int32[Array, "B 1"] | int = 0,
    ) -> Float[Array, "B W-1 D"]:
        """The tail after the first `written` of L tokens (default: all), 0 where they are not of the open document."""
        written = jnp.full((len(x), 1), x.shape[1], jnp.int32) if written is None else written
        places = written + jnp.arange(self.width - 1, dtype=jnp.int32)[None, :]
        last, its_document = take(_with_tail(x, document, tail), places)
        return jnp.where((its_document == open_document)[..., None], last, 0).astype(tail.dtype)


def _with_tail(x, document, tail):
    """Inputs and their documents, with the W - 1 before them in front; those belong to document 0."""
    before = jnp.zeros(tail.shape[:2], document.dtype)
    return jnp.concatenate([tail.astype(x.dtype), x], axis=1), jnp.concatenate([before, document], axis=1)
