"""What mechanisms share that store projected keys and values and read them by attention."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from memgpt_jax.config_memory import ProjectedMemoryConfig
from memgpt_jax.memory.base import Memory, Own
from memgpt_jax.ops import causal_conv, flat_dot_general
from memgpt_jax.shapes import Array, Bool, Float, Int32


class ProjectedMemory(Memory):
    """Base with the projections q = W_q x, k = W_k conv(x) + b_k, v = W_v x + b_v and W_o, over H heads of width K.

    With `qk_norm`, q and k have unit length, and q is scaled by a learned temperature per head, else by K^-1/2.
    """

    def __init__(self, config: ProjectedMemoryConfig, *, d_model: int, segment_length: int, dtype, rngs: nnx.Rngs):
        super().__init__(config, d_model=d_model, segment_length=segment_length, dtype=dtype, rngs=rngs)
        heads, width = config.num_heads, config.head_dim

        def linear(d_in, d_out, use_bias):
            kernel_init = jax.nn.initializers.normal(d_in**-0.5)
            options = {"dtype": self.dtype, "dot_general": flat_dot_general, "rngs": rngs}
            return nnx.Linear(d_in, d_out, use_bias=use_bias, kernel_init=kernel_init, **options)

        self.query = linear(d_model, heads * width, use_bias=False)
        self.key = linear(d_model, heads * width, use_bias=True)
        # Keys start in the space of queries, and the convolution as a shift by one token: from the first step, a token
        # reads what followed the entries that resemble it. Among thousands of entries from unrelated projections, it
        # would find nothing that is worth a gradient.
        self.key.kernel[...] = jnp.copy(self.query.kernel[...])
        self.value = linear(d_model, heads * width, use_bias=True)
        self.output = linear(heads * width, d_model, use_bias=False)
        if config.writer_conv > 1:
            shape = (config.writer_conv, d_model)
            self.conv_kernel = nnx.Param(jnp.zeros(shape, jnp.float32).at[1].set(1.0))
        if config.qk_norm:
            self.log_temperature = nnx.Param(jnp.full(heads, jnp.log(jnp.float32(config.temperature))))

    def empty_tail(self, batch_size: int) -> Float[Array, "B W-1 D"]:
        """The tokens that the convolution reaches before the first one: none."""
        return jnp.zeros((batch_size, self.config.writer_conv - 1, self.d_model), self.dtype)

    def queries(self, x: Float[Array, "B Q D"]) -> Float[Array, "B Q H K"]:
        """Queries that carry their scale."""
        query = self.unit(self._heads(self.query(x)))
        if self.config.qk_norm:
            query = query * jnp.exp(self.log_temperature[...])[None, None, :, None]
        else:
            query = query * jnp.asarray(self.config.head_dim**-0.5, query.dtype)
        return query.astype(self.dtype)

    def keys_and_values(
        self, x: Float[Array, "B L D"], document: Int32[Array, "B L"], tail: Float[Array, "B W-1 D"]
    ) -> tuple[Float[Array, "B L H K"], Float[Array, "B L H K"]]:
        """One entry for each token; the W - 1 tokens before them (of document 0) are in `tail`."""
        convolved = x
        if self.config.writer_conv > 1:
            seen, documents = _with_tail(x, document, tail)
            stop = None if self.config.bptt_segments is None else self.segment_length
            conv = jax.checkpoint(partial(causal_conv, stop_every=stop))  # cheaper to repeat than to store its taps
            convolved = conv(seen, documents, self.conv_kernel[...].astype(x.dtype))
        return self.unit(self._heads(self.key(convolved))).astype(self.dtype), self._heads(self.value(x))

    def next_tail(
        self,
        x: Float[Array, "B L D"],
        document: Int32[Array, "B L"],
        tail: Float[Array, "B W-1 D"],
        written: Int32[Array, "B"],
        open_document: Int32[Array, "B"],
    ) -> Float[Array, "B W-1 D"]:
        """The last W - 1 tokens among the first `written` ones (or in `tail`), 0 where not of the open document."""
        seen, documents = _with_tail(x, document, tail)
        places = written[:, None] + jnp.arange(tail.shape[1], dtype=jnp.int32)[None, :]
        kept = jnp.take_along_axis(documents, places, axis=1) == open_document[:, None]
        return jnp.where(kept[..., None], jnp.take_along_axis(seen, places[..., None], axis=1), 0)

    def project_out(self, out: Float[Array, "B Q H K"]) -> Float[Array, "B Q D"]:
        """W_o on the heads' reads."""
        return self.output(out.reshape(*out.shape[:2], -1))

    def unit(self, x: Float[Array, "... K"]) -> Float[Array, "... K"]:
        """Unit length in float32, or unchanged without `qk_norm`."""
        if not self.config.qk_norm:
            return x
        x = x.astype(jnp.float32)
        return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-6)

    def _heads(self, x):
        return x.reshape(*x.shape[:-1], self.config.num_heads, self.config.head_dim)


def own_visible(own: Own) -> Bool[Array, "B Q T"]:
    """A token sees the earlier tokens of its document in its own segment, itself included."""
    document = jnp.take_along_axis(own.document, own.place, axis=1)
    earlier = jnp.arange(own.document.shape[1])[None, None, :] <= own.place[..., None]
    return (own.document[:, None, :] == document[..., None]) & (own.document >= 0)[:, None, :] & earlier


def _with_tail(x, document, tail):
    """Inputs and their documents, with the W - 1 before them in front; those belong to document 0."""
    before = jnp.zeros(tail.shape[:2], document.dtype)
    return jnp.concatenate([tail.astype(x.dtype), x], axis=1), jnp.concatenate([before, document], axis=1)
